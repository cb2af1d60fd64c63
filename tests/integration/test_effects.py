"""Effects with real processes: what comes back, how often, and what is left when something dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rq import Worker
from rq.command import send_stop_job_command
from rq.job import Job
from rq.serializers import JSONSerializer

from fsm import Client
from fsm.store import embedded
from tests.integration.conftest import wait_until_asked
from tests.integration.effect_machines import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from fsm import FSMHandle
    from tests.integration.conftest import Processes

APP = ("--app", "tests.integration.effect_machines")


class Office:
    """One desk, its book of runs, and the processes that serve it."""

    def __init__(self, client: Client, processes: Processes, book: Path, until: Callable[..., Any]) -> None:
        self.client = client
        self.redis: Any = client.redis
        self.processes = processes
        self.until = until
        self.book = book
        self.desk: FSMHandle[Any] = client.start_fsm(Desk, "the desk: 1")
        self.worker: subprocess.Popen[str]

    def open(self, *arguments: str, effects: bool = True) -> None:
        """Start the worker, with one for effects beside it."""
        self.worker = self.processes.worker(*APP, *arguments, effects=effects)

    def ask(self, func: str, *args: Any, **more: Any) -> str:
        """Ask for an effect: its id."""
        delays = {"delays": more.pop("delays")} if "delays" in more else {}
        data = {"func": func, "args": list(args), "more": more, **delays}
        return str(self.desk.call("ask", data, timeout=20).reply)

    def told(self, count: int = 1, seconds: float = 30) -> list[Any]:
        """Wait until so many ends have come back; give all."""
        self.until(lambda: len(self.desk.state().payload) >= count, seconds)
        return list(self.desk.state().payload)

    def runs(self) -> int:
        return len(self.book.read_text("utf-8").splitlines()) if self.book.exists() else 0

    def effects_workers(self) -> list[Worker]:
        return [worker for worker in Worker.all(connection=self.redis) if "-effects-" in worker.name]

    def effects_worker(self) -> Worker:
        """Wait for the process beside the worker."""
        return self.until(self.effects_workers)[0]

    def horse(self) -> int:
        """Wait until an effect runs: the id of the process that runs it."""
        self.until(lambda: self.runs() == 1)
        return int(self.book.read_text("utf-8"))

    def hurry(self) -> None:
        """Let every open effect be looked after now."""
        for member in self.redis.zrange("fsm:default:effects", 0, -1):
            self.redis.zadd("fsm:default:effects", {member: 0}, xx=True)

    def run_out(self) -> None:
        """Let the time of every open effect be over."""
        for member in self.redis.zrange("fsm:default:timers", 0, -1):
            self.redis.zadd("fsm:default:timers", {member: 1}, xx=True)

    def is_at_rest(self) -> bool:
        return not self.redis.exists("fsm:default:effects", "fsm:default:effects:the desk: 1", "fsm:default:timers")


@pytest.fixture
def office(client: Client, processes: Processes, tmp_path: Path, until: Callable[..., Any]) -> Iterator[Office]:
    made = Office(client, processes, tmp_path / "book", until)
    yield made
    workers = made.effects_workers()
    processes.end()
    # They close their output, which is what was waited for, a moment before they are gone.
    until(lambda: not any(is_running(worker.pid) for worker in workers))


def is_running(pid: int | None) -> bool:
    """Whether there is such a process, and not only its exit code that nobody wants."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")


def test_what_an_effect_returns_comes_back_as_the_data_of_an_event(office: Office) -> None:
    office.open()
    effect = office.ask("double", 21)

    assert office.told() == [["done", 42]]
    (line,) = [line for line in office.desk.log() if line["event"] == "done"]
    assert line["job"] == f"{effect}a"
    assert line["meta"] == {"effect": effect}
    assert office.is_at_rest()


def test_only_the_last_failure_comes_back(office: Office) -> None:
    office.open()
    office.ask("decline", str(office.book), retry=2)

    assert office.told() == [["failed", "ValueError", "no cover, for the 3. time"]]
    assert office.runs() == 3


def test_retries_wait_without_a_scheduler(office: Office) -> None:
    office.open()
    begin = time.monotonic()
    office.ask("decline", str(office.book), delays=2)

    assert office.told() == [["failed", "ValueError", "no cover, for the 3. time"]]
    assert time.monotonic() - begin > 1.9


_LATE = ["failed", "deadline", "it had not ended by then"]


def test_beyond_its_deadline_an_effect_has_failed_and_what_it_says_later_is_not_heard(
    office: Office, tmp_path: Path
) -> None:
    """What is under way goes on to its end, which nobody hears; what waits behind it is not begun any more."""
    office.open()
    held = office.ask("hold", str(office.book), str(tmp_path / "go"), deadline="1h")
    office.horse()
    behind = office.ask("note", str(office.book), deadline="200ms")
    assert office.told() == [_LATE]
    assert office.redis.hget(f"rq:job:{behind}", "status") == b"canceled"
    office.run_out()
    assert office.told(2) == [_LATE, _LATE]
    (tmp_path / "go").touch()
    office.until(lambda: office.redis.hget(f"rq:job:{held}", "status") == b"finished")

    office.ask("double", 4)
    assert office.told(3) == [_LATE, _LATE, ["done", 8]]
    assert office.runs() == 1
    assert office.is_at_rest()


def test_beyond_its_deadline_a_failing_effect_is_not_tried_again(office: Office, tmp_path: Path) -> None:
    # Seen to fail where RQ was left its retries: it was done a second time, for nobody.
    office.open()
    effect = office.ask("hold", str(office.book), str(tmp_path / "go"), "too late", retry=3, deadline="1h")
    office.horse()
    office.run_out()
    assert office.told() == [_LATE]
    (tmp_path / "go").touch()
    office.until(lambda: office.redis.hget(f"rq:job:{effect}", "status") == b"failed")

    assert office.runs() == 1
    assert office.told() == [_LATE]


def test_what_is_no_json_comes_back_as_a_failure_and_is_not_done_again(office: Office) -> None:
    office.open()
    office.ask("give_a_set", str(office.book), retry=2)

    ((event, kind, message),) = office.told()
    assert (event, kind) == ("failed", "PayloadError")
    assert "an effect returns JSON values" in message
    assert office.runs() == 1


@pytest.mark.parametrize(("how", "kind"), [("delete", "gone"), ("cancel", "cancelled")])
def test_an_effect_that_an_operator_takes_away_comes_back_as_a_failure(office: Office, how: str, kind: str) -> None:
    office.open(effects=False)
    effect = office.ask("double", 21)

    getattr(Job.fetch(effect, connection=office.redis, serializer=JSONSerializer), how)()
    office.hurry()
    assert [told[:2] for told in office.told()] == [["failed", kind]]
    assert office.is_at_rest()


def test_an_effect_that_an_operator_stops_comes_back_as_a_failure(office: Office) -> None:
    office.open()
    effect = office.ask("nap", str(office.book), 60)
    office.horse()

    send_stop_job_command(office.redis, effect, serializer=JSONSerializer)
    assert office.told() == [["failed", "cancelled", "somebody stopped it"]]
    assert office.runs() == 1


def test_an_effect_whose_worker_and_process_are_killed_is_run_again(office: Office) -> None:
    office.open()
    office.ask("hang_once", str(office.book))
    horse = office.horse()

    os.kill(office.effects_worker().pid, signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    assert office.told() == [["done", 2]]


@pytest.mark.parametrize("whose", ["worker", "horse"])
def test_an_effect_killed_between_doing_and_telling_is_run_again_and_answers_once(office: Office, whose: str) -> None:
    office.open()
    office.ask("die_once", str(office.book), whose)

    assert office.told() == [["done", 2]]
    office.until(office.is_at_rest)
    assert office.runs() == 2
    assert office.told() == [["done", 2]]


def test_an_effect_that_kills_every_worker_has_failed(office: Office) -> None:
    office.open()
    office.ask("always_die", str(office.book))

    assert office.told(seconds=60) == [["failed", "abandoned", "workers died 4 times on this effect"]]
    assert office.runs() == 4


def test_an_effect_goes_on_where_its_lists_are_emptied(office: Office) -> None:
    office.open(effects=False)
    effect = office.ask("double", 21)
    office.redis.delete("rq:queue:fsm-effects")
    office.hurry()
    office.until(lambda: office.redis.hexists(f"rq:job:{effect}", "missed"))
    office.hurry()
    office.until(lambda: office.redis.llen("rq:queue:fsm-effects"))

    office.processes.rq_worker("fsm-effects")
    assert office.told() == [["done", 42]]


@pytest.mark.parametrize("queue", ["fsm-effects", "reports"])
def test_a_stock_worker_serves_as_well(office: Office, queue: str) -> None:
    office.open(effects=False)
    office.processes.rq_worker(queue)
    office.ask("double", 4, queue=queue)
    office.ask("decline", str(office.book), queue=queue, retry=1)

    assert sorted(office.told(2)) == [["done", 8], ["failed", "ValueError", "no cover, for the 2. time"]]


def test_a_worker_that_is_told_to_end_lets_its_effect_end_first(office: Office) -> None:
    office.open()
    office.ask("nap", str(office.book), 2)
    office.horse()
    beside = office.effects_worker().pid

    office.worker.send_signal(signal.SIGTERM)
    # The process itself, not the end of its output, which those beside it share.
    assert office.worker.wait(timeout=20) == 0
    assert not is_running(beside)
    assert office.runs() == 2
    office.open(effects=False)
    assert office.told() == [["done", "rested"]]


def test_a_worker_that_is_told_to_end_twice_waits_for_no_effect(office: Office) -> None:
    office.open("--log-level", "debug")
    office.ask("nap", str(office.book), 60)
    horse, beside = office.horse(), office.effects_worker().pid

    office.worker.send_signal(signal.SIGTERM)
    wait_until_asked(office.worker)
    time.sleep(1.1)  # two signals within a second of being heard are one
    office.worker.send_signal(signal.SIGTERM)
    assert office.worker.wait(timeout=20) == 0
    office.until(lambda: not is_running(horse) and not is_running(beside))
    assert office.runs() == 1


def test_the_effects_worker_of_a_worker_that_is_killed_ends_after_the_effect_in_hand(office: Office) -> None:
    office.open()
    office.ask("nap", str(office.book), 1)
    horse, beside = office.horse(), office.effects_worker().pid

    office.worker.kill()
    office.worker.communicate(timeout=20)
    office.until(lambda: not is_running(horse) and not is_running(beside))
    assert office.runs() == 2
    office.open(effects=False)
    assert office.told() == [["done", "rested"]]


def test_an_end_that_finds_its_fsm_finished_is_recorded_with_the_reason(office: Office, raw_redis: redis.Redis) -> None:
    office.open(effects=False)
    effect = office.ask("double", 21)
    office.desk.call("shut")
    output, _ = office.processes.rq_worker("--burst", "fsm-effects").communicate(timeout=60)

    job = Job.fetch(f"{effect}a", connection=raw_redis, serializer=JSONSerializer)
    assert job.get_status() == "failed"
    assert raw_redis.hget(job.key, "exc_info") == f"answer of effect {effect} not delivered: FINISHED shut".encode()
    assert "nobody takes the end of effect" in output
    (line,) = [line for line in office.client.log() if line.get("job") == f"{effect}a"]
    assert line["error"] == "undeliverable: FINISHED shut"
    assert office.is_at_rest()


def test_a_purge_while_an_effect_is_open_leaves_nothing(office: Office) -> None:
    office.open(effects=False)
    effect = office.ask("double", 21)
    office.desk.purge()
    office.processes.rq_worker("--burst", "fsm-effects").communicate(timeout=60)

    assert Job.fetch(effect, connection=office.redis, serializer=JSONSerializer).return_value() == 42
    office.hurry()
    office.until(office.is_at_rest)
    assert not office.redis.exists(f"rq:job:{effect}a")
    office.client.start_fsm(Desk, "the desk: 1")
    assert office.ask("double", 1) != effect


def test_the_effects_worker_finds_an_embedded_redis(
    processes: Processes, tmp_path: Path, until: Callable[..., Any]
) -> None:
    url = f"embedded://{tmp_path}/redis"
    with Client(url, namespace="shop") as client:
        try:
            desk = client.start_fsm(Desk, "d")
            worker = processes.worker(*APP, "--url", url, "--namespace", "shop", effects=True)
            desk.call("ask", {"func": "double", "args": [21]}, timeout=20)
            until(lambda: desk.state().payload == [["done", 42]], 30)
            worker.terminate()
            worker.communicate(timeout=20)
        finally:
            embedded.stop(tmp_path / "redis")
