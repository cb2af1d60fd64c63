"""Jobs that somebody else wrote into our queues: nothing of them is loaded, imported or called, and all goes on."""

from __future__ import annotations

import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from fsm.cli import main
from tests.integration import hostile
from tests.integration.effect_machines import Desk
from tests.integration.machines import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from fsm import Client
    from tests.integration.conftest import Processes

NO_CALLBACKS = {f"{kind}_callback_name": "" for kind in ("success", "failure", "stopped")}


@dataclass
class Place:
    """A test's directory, and what hostile records leave there when somebody trusts them."""

    trap: Path
    book: Path
    redis: Any
    processes: Processes

    def plant(self, job_id: str, queue: str = "fsm", **fields: Any) -> str:
        hostile.plant(self.redis, job_id, self.trap, queue, **fields)
        return job_id

    def plant_ours(self, job_id: str, name: str, **fields: Any) -> str:
        """Plant a record that says of itself that it is an event of this FSM."""
        born = self.redis.hget(f"fsm:default:snapshot:{name}", "born")
        ours = {"fsm": name, "ns": "default", "born": born, "event": "note", "place": "mail"}
        return self.plant(job_id, **{**ours, **fields})

    def line_up(self, *job_ids: str, queue: str = "fsm") -> None:
        self.redis.sadd("rq:queues", f"rq:queue:{queue}")
        self.redis.rpush(f"rq:queue:{queue}", *job_ids)

    def check_clean(self) -> None:
        """See that nothing was loaded, imported or called."""
        assert not self.trap.exists(), "something was unpickled"
        assert not self.book.exists(), self.book.read_text("utf-8")


@pytest.fixture
def place(tmp_path: Path, raw_redis: redis.Redis, processes: Processes) -> Place:
    made = Place(tmp_path / "trap", tmp_path / "book", raw_redis, processes)
    processes.environment[hostile.BOOK] = str(made.book)
    return made


def ended(process: subprocess.Popen[str]) -> str:
    """Ask a process to end, and give what it wrote."""
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    return output


def test_the_traps_work(place: Place) -> None:
    """Else all that follows would show nothing: RQ's own default serializer falls into them."""
    place.plant("job", "elsewhere")
    place.line_up("job", queue="elsewhere")
    rq = "from rq.cli import main; main()"
    done = place.processes.run("-c", rq, "worker", "-u", place.processes.environment["FSM_URL"], "--burst", "elsewhere")
    output, _ = done.communicate(timeout=60)

    assert place.trap.exists(), output
    assert set(place.book.read_text("utf-8").split()) == {"imported", "called"}


def test_our_worker_takes_hostile_records_and_nothing_of_them_is_executed(
    place: Place, client: Client, until: Callable[..., Any]
) -> None:
    """Seen to fail with RQ's own cleaning of registries and lists in the place of `workers.upkeep.clean`."""
    journal = client.start_fsm(Journal, "j")
    quiet = client.start_fsm(Journal, "quiet")
    client.start_fsm(Journal, "posed")
    place.redis.hset("fsm:default:snapshot:posed", "machine", f"{hostile.__name__}:run")
    # On RQ's list: not ours at all; one that says it is an event; and one that RQ requeued.
    place.line_up(
        place.plant("foreign"),
        place.plant_ours("posing", "j"),
        place.plant_ours("requeued", "quiet", place="failed"),
    )
    # In a mailbox, also a call in JSON, whose path is none of ours; and where RQ's upkeep looks.
    call = f'["{hostile.FUNC}",null,["default","j","note",1],{{}}]'
    place.redis.rpush(
        "fsm:default:mailbox:j",
        place.plant_ours("mailed", "j"),
        place.plant_ours("called", "j", data=call),
        place.plant_ours("huge", "j", data=zlib.compress(bytes(65 << 20), 1)),
    )
    for job_id in (place.plant("stuck"), place.plant_ours("stuck-ours", "j", place="done")):
        hostile.strand(place.redis, job_id, "fsm")
    worker = place.processes.worker()

    assert journal.call("note", 2, timeout=30).ok
    assert quiet.call("note", 1, timeout=30).ok
    until(lambda: not place.redis.exists("rq:queue:fsm:intermediate", "rq:wip:fsm", "rq:queue:fsm"))
    assert [journal.state().payload, quiet.state().payload] == [[1, 2], [1]]
    output = ended(worker)
    for said in (
        "job 'foreign' is no event of an FSM, and somebody put it on our queue: it goes to the effects",
        "event 'note' of FSM 'j' failed in state 'even' (job mailed):",
        "event 'note' of FSM 'quiet' failed in state 'even' (job requeued):",
        "its job record was edited by hand: str is not valid UTF-8",
        "its job record was edited by hand: its data unpack to more than 64 MiB",
        f"FSM 'posed' waits for a worker that knows it: it is in state 'even' of machine '{hostile.__name__}:run' as ",
    ):
        assert said in output, output
    place.check_clean()


def test_the_worker_for_effects_lives_through_hostile_records_and_nothing_pickled_is_loaded(
    place: Place, client: Client, until: Callable[..., Any]
) -> None:
    """Seen to fail with RQ's `Worker` in the place of `EffectsWorker`: it ends at what it cannot read, again and again.

    Without `effects_allow` a path in JSON is imported, as RQ does; so what may not be seen here is unpickling only.
    """
    strange = {"status": "no status of RQ's", "timeout": "a while", "enqueue_at_front": "maybe", "created_at": "then"}
    for field, value in strange.items():
        place.line_up(place.plant(f"odd-{field}", "fsm-effects", **{field: value}), queue="fsm-effects")
    place.line_up(place.plant("pickled", "fsm-effects", **NO_CALLBACKS), "gone", b"\xff", queue="fsm-effects")
    hostile.strand(
        place.redis, place.plant("stuck", "fsm-effects", failure_callback_name="no.such.module"), "fsm-effects"
    )
    worker = place.processes.worker("--app", "tests.integration.effect_machines", effects=True)
    desk = client.start_fsm(Desk, "desk")
    desk.call("ask", {"func": "double", "args": [21]}, timeout=30)

    # The last in the line: all others were taken before.
    until(lambda: desk.state().payload == [["done", 42]], 30)
    for job_id in (*(f"odd-{field}" for field in strange), "pickled", "stuck"):
        assert place.redis.hget(f"rq:job:{job_id}", "status") == b"failed", job_id
        assert place.redis.zscore("rq:failed:fsm-effects", job_id), job_id
    output = ended(worker)
    for said in (
        "job 'odd-status' on queue fsm-effects cannot be read and has failed: ValueError: \"no status of RQ's\" is not",
        "found on its queues what is no job: UnicodeDecodeError",
        "job stuck: its callback 'no.such.module' cannot be imported and is left out",
        "job pickled: exception raised while executing (<DeserializationError>)",
    ):
        assert said in output, output
    assert "another one starts" not in output, output
    assert not place.trap.exists()


def test_with_a_list_of_what_is_allowed_nothing_else_is_imported_or_called(
    place: Place, client: Client, until: Callable[..., Any]
) -> None:
    """Seen to fail without either look of `EffectJob.func`: the module is imported, or the directory made."""
    module = "tests.integration.effect_machines"
    place.processes.environment["FSM_EFFECTS_ALLOW"] = f"{module}.*"
    call = f'["{hostile.FUNC}",null,[],{{}}]'
    smuggled = f'["{module}.os.makedirs",null,["{place.trap}"],{{}}]'
    place.line_up(
        place.plant("foreign", "fsm-effects", data=call),
        place.plant("smuggled", "fsm-effects", data=smuggled),
        place.plant("fine", "fsm-effects", data=f'["{module}.double",null,[2],{{}}]'),
        queue="fsm-effects",
    )
    worker = place.processes.worker("--app", module, effects=True)
    desk = client.start_fsm(Desk, "desk")
    desk.call("ask", {"func": "double", "args": [21]}, timeout=30)
    desk.call("ask", {"func": "os.getcwd"}, timeout=30)

    until(lambda: len(desk.state().payload) == 2, 30)
    (done, refused) = desk.state().payload
    assert done == ["done", 42]
    assert refused[:2] == ["failed", "ConfigError"]
    assert refused[2] == (
        f"effect '{module}.os.getcwd': it is posix.getcwd, which this worker may not run: effects_allow is {module}.*; "
        "add it there if it is one of yours"
    )
    states = {job_id: place.redis.hget(f"rq:job:{job_id}", "status") for job_id in ("foreign", "smuggled", "fine")}
    assert states == {"foreign": b"failed", "smuggled": b"failed", "fine": b"finished"}
    output = ended(worker)
    assert f"job fine: its callback '{hostile.FUNC}' is not in effects_allow and is left out" in output
    assert f"effect '{hostile.FUNC}': this worker may not run it" in output
    place.check_clean()


def test_the_stock_worker_with_the_json_serializer_loads_nothing_pickled(
    place: Place, client: Client, processes: Processes
) -> None:
    client.start_fsm(Journal, "j")
    client.transition("j", "note", 1, job_id="good")
    place.line_up(place.plant("foreign", **NO_CALLBACKS), place.plant_ours("posing", "j", **NO_CALLBACKS))
    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert client.state("j").payload == [1], output
    assert place.redis.hget("rq:job:foreign", "status") == b"failed"
    assert "job foreign: exception raised while executing (<DeserializationError>)" in output
    place.check_clean()


def test_those_who_only_look_load_nothing_pickled(
    place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.start_fsm(Journal, "j")
    place.redis.rpush("fsm:default:mailbox:j", place.plant_ours("mailed", "j"))
    place.redis.hset("fsm:default:effects:j", place.plant("effect", "fsm-effects"), hostile.pickled(place.trap))
    place.redis.zadd("fsm:default:effects", {"effect j": 0})
    for field in ("error", "refused", "history"):
        place.redis.hset("fsm:default:snapshot:j", field, hostile.pickled(place.trap))
    place.line_up("mailed", place.plant("foreign"))
    place.redis.zadd("rq:failed:fsm", {"foreign": 9_999_999_999})
    monkeypatch.setenv("FSM_URL", client.url)
    monkeypatch.setenv(hostile.BOOK, str(place.book))

    for command in ("info", "jobs j", "state j", "ls", "log", "history j", "machines"):
        for form in ((), ("--json",)):
            done = CliRunner().invoke(main, [*command.split(), *form])
            assert done.exit_code in (0, 1), (command, done.output, done.exception)
            assert "Traceback" not in done.output
    for job_id in ("mailed", "foreign"):
        client.job(job_id).status()
        client.job(job_id).rq_job()
    place.check_clean()
