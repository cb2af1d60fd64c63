"""The operator's verbs: what the plan asks, which event it takes for the failed one, and what clients are given."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from fsm import (
    CallTimeoutError,
    Client,
    FailedError,
    FSMFinishedError,
    HandlerError,
    Machine,
    PayloadError,
    RefusedError,
    StaleVersionError,
    StoreError,
    Transition,
    UnknownFSMError,
    on,
    verbs,
)
from fsm.engine import Event, inside
from fsm.store.blueprint import Blueprint
from fsm.verbs import Steered
from tests.unit.engine.probe import Probe, life_of
from tests.unit.test_verbs import KEYS, follow


class Print(Machine):
    """Prints by itself, and cannot while there is no paper."""

    diagram = """
    stateDiagram-v2
        [*] --> idle : begin
        idle --> idle : clean
        idle --> printing : print
        printing --> idle : eject!
        idle --> [*] : leave
    """

    def _try(self, t: Transition[dict[str, Any]]) -> None:
        if t.event in BROKEN:
            problem = "no paper"
            raise OSError(problem)
        t.payload[t.event] = t.payload.get(t.event, 0) + 1

    def on_start(self, t: Transition[dict[str, Any]]) -> None:
        self._try(t)

    @on("clean")
    def clean(self, t: Transition[dict[str, Any]]) -> None:
        self._try(t)

    @on("eject")
    def eject(self, t: Transition[dict[str, Any]]) -> None:
        self._try(t)


BROKEN: set[str] = set()


@pytest.fixture
def broken() -> Iterator[set[str]]:
    """The events of `Print` that raise now."""
    BROKEN.clear()
    yield BROKEN
    BROKEN.clear()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("memory://", namespace="default") as made:
        yield made


def fields(**more: str) -> list[bytes | None]:
    """A look at the snapshot of a `Print`, in the order in which the plan asks for its fields."""
    plain = {"born": "7", "version": "3", "machine": "Print", "state": "idle"}
    known = plain | {name: value for name, value in more.items() if value}
    names = ("born", "status", "version", "machine", "state", "owes", "error", "refused", "failed_from", "history")
    return [known[name].encode() if name in known else None for name in names]


def note(event: str, job: str, **more: Any) -> str:
    return orjson.dumps({"event": event, "job": job, **more}).decode()


ABOUT = orjson.dumps(Blueprint.of(Print.definition, "fsm").announcement())


# What the plan asks.


def test_while_a_worker_has_it_in_hand_the_plan_asks_again_with_the_same_nonce_and_a_new_look() -> None:
    requests, steered = follow(
        verbs.steer(KEYS, "skip", "p"),
        fields(), ("HELD",), None, fields(version="4"), ("MOVED",), fields(version="5"), ("SKIPPED", "j", "clean"),
    )  # fmt: skip

    asked = [request.script or request.commands[0][0] for request in requests]
    assert asked == ["HMGET", "steer", "XREAD", "HMGET", "steer", "HMGET", "steer"]
    orders = [request.arguments for request in requests if request.script]
    assert [order[9] for order in orders] == ["3", "4", "5"]
    assert len({(order[5], order[6]) for order in orders}) == 1
    assert steered == Steered("SKIPPED", "j", "clean")
    assert steered.is_done


def test_the_born_that_was_seen_first_is_the_one_that_is_meant() -> None:
    with pytest.raises(UnknownFSMError, match="'p'"):
        follow(verbs.steer(KEYS, "skip", "p"), fields(), ("HELD",), None, fields(born="8"))


@pytest.mark.parametrize("look", [fields(born="8"), [None] * 10, fields(status="purging")])
def test_another_life_of_the_name_is_not_touched(look: list[bytes | None]) -> None:
    with pytest.raises(UnknownFSMError, match="'p'"):
        follow(verbs.steer(KEYS, "pause", "p", born="7" if look[0] else ""), look)


def test_a_worker_that_does_not_let_go_is_told_of_when_the_time_is_over() -> None:
    away = StoreError("away just then")

    with pytest.raises(CallTimeoutError, match=r"^retry of FSM 'p' did not come about within -1 s: a worker has it"):
        follow(verbs.steer(KEYS, "retry", "p", timeout=-1), fields(), ("HELD",), away)


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (("UNKNOWN",), UnknownFSMError, "'p'"),
        (("FINISHED", "gone"), FSMFinishedError, "finished in state 'gone'"),
        (
            ("STALE", "5", "idle"),
            StaleVersionError,
            "^FSM 'p' in state 'idle': `skip` was decided on version 3, and it ",
        ),
        (("STALE", "odd", "idle"), StaleVersionError, "has version odd now"),
        (("CANNOT",), RefusedError, "^FSM 'p' in state 'idle': its entry event .* `fsm retry p` .* `fsm purge p`"),
        (("BROKEN",), StoreError, "a key of FSM 'p'"),
    ],
)
def test_each_refusal_has_its_error(reply: tuple[str, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        follow(verbs.steer(KEYS, "skip", "p", if_version=3), fields(), reply)


def test_a_snapshot_of_another_type_is_named() -> None:
    with pytest.raises(StoreError, match="fsm:default:snapshot:p should be a hash"):
        follow(verbs.steer(KEYS, "pause", "p"), StoreError("… (WRONGTYPE …)"))
    with pytest.raises(StoreError, match=r"^away$"):
        follow(verbs.steer(KEYS, "pause", "p"), StoreError("away"))


@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_inside_of_a_handler_what_might_wait_is_refused_before_anything_is_asked(verb: Any) -> None:
    before = inside.current.get()
    inside.current.set(Transition(life_of(Probe()), Event("job", "loop"), "a", "a", 1))
    try:
        with pytest.raises(HandlerError, match=f"{verb} of FSM 'p' would wait inside of a handler"):
            verbs.steer(KEYS, verb, "p").send(None)
        assert verbs.steer(KEYS, "pause", "p").send(None).commands
    finally:
        inside.current.set(before)


@pytest.mark.parametrize(
    ("more", "problem"),
    [({"if_version": -1}, "if_version"), ({"if_version": True}, "if_version"), ({"name": ""}, "must not be empty")],
)
def test_wrong_options_are_refused_before_anything_is_asked(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(PayloadError, match=problem):
        follow(verbs.steer(KEYS, "pause", **{"name": "p", **more}))


@pytest.mark.parametrize("who", [OSError, KeyError, ImportError])
def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch, who: type[Exception]) -> None:
    def nameless() -> str:
        raise who

    monkeypatch.setattr(getpass, "getuser", nameless)
    requests, _ = follow(verbs.steer(KEYS, "pause", "p"), fields(), ("PAUSED", "1"))

    assert requests[1].arguments[18].partition("@")[0].isdigit()


# Which event has failed.

FAILED = {"status": "failed", "version": "3"}


@pytest.mark.parametrize(
    ("look", "found"),
    [
        # As it is written now.
        ({"owes": "j", "failed_from": "starting", "error": note("begin", "j")}, ("entry", "j", "begin")),
        ({"owes": "j--h1", "state": "printing", "error": note("eject", "j--h1")}, ("hard", "j--h1", "eject")),
        (
            {"owes": "j", "state": "printing", "error": note("clean", "i"), "refused": note("eject", "j")},
            ("hard", "j", "eject"),
        ),
        # What failed has no note of its own: the machine knows which event it must be.
        ({"owes": "j--h1", "state": "printing", "error": note("clean", "i")}, ("hard", "j--h1", "eject")),
        ({"owes": "j--h1", "state": "printing", "error": "{"}, ("hard", "j--h1", "eject")),
        # As older versions wrote it.
        ({"error": note("begin", "j", at_ms=2), "refused": note("eject", "i", at_ms=1)}, ("entry", "j", "begin")),
        ({"state": "printing", "error": note("eject", "j"), "history": '["idle"]'}, ("hard", "j", "eject")),
        (
            {"state": "printing", "error": note("clean", "i", at_ms=1), "refused": note("eject", "j", at_ms=2)},
            ("hard", "j", "eject"),
        ),
        ({"state": "idle", "error": note("begin", "j"), "history": '["idle","printing"]'}, ("hard", "j", "begin")),
        ({"state": "printing", "error": note("eject", "j", at_ms="soon"), "refused": "[]"}, ("hard", "j", "eject")),
        ({"state": "printing"}, ("hard", "", "eject")),
    ],
)
def test_of_an_fsm_that_cannot_go_on_the_event_that_it_owes_is_found(
    look: dict[str, str], found: tuple[str, str, str]
) -> None:
    requests, _ = follow(verbs.steer(KEYS, "retry", "p"), fields(**FAILED | look), ABOUT, ("RETRIED", "x", "y"))

    kind, job_id, event, data, timeout, result_ttl = requests[-1].arguments[10:16]
    assert (kind, job_id, event) == found
    assert orjson.loads(data)[2] == ["default", "p", event, None]
    assert (timeout, result_ttl) == (180, 60)


@pytest.mark.parametrize("announced", [(None, []), (b"{}",), (b"damaged",)])
def test_where_nobody_announced_its_machine_the_snapshot_says_what_it_can(announced: tuple[Any, ...]) -> None:
    for event, kind in (("[*]", "entry"), ("eject", "hard")):
        look = fields(**FAILED, error=note(event, "j"))
        requests, _ = follow(verbs.steer(KEYS, "retry", "p"), look, *announced, ("RETRIED", "j", event))

        assert requests[-1].arguments[10:13] == [kind, "j", event]


@pytest.mark.parametrize(("version", "is_last"), [(3, 1), (2, 0)])
def test_of_one_that_goes_on_it_is_the_event_in_its_error(version: int, is_last: int) -> None:
    look = fields(error=note("clean", "j", version=version), refused=note("print", "i"))
    requests, _ = follow(verbs.steer(KEYS, "retry", "p"), look, ("RETRIED", "j", "clean"))

    assert requests[-1].arguments[10:12] == ["mail", "j"]
    assert requests[-1].arguments[17] == is_last


# What clients are given.


def test_a_failed_hard_event_is_retried_and_mail_goes_on_behind_it(client: Client, broken: set[str]) -> None:
    p = client.start_fsm(Print, "p")
    broken.add("eject")
    p.transition("print")
    later = p.transition("clean")
    assert p.state().status == "failed"
    assert later.status() == "waiting"

    again = p.retry(timeout=0)
    assert again is not None
    assert (again.event, again.status(), p.state().status) == ("eject", "failed", "failed")
    broken.clear()
    assert client.retry("p", if_version=p.state().version, born=p.state().born) == again

    snapshot = p.state()
    assert (snapshot.state, snapshot.status, snapshot.error) == ("idle", "running", None)
    assert (again.result().state, later.result().ok) == ("idle", True)
    assert p.retry() is None


def test_a_failed_entry_event_is_retried_and_cannot_be_skipped(client: Client, broken: set[str]) -> None:
    broken.add("begin")
    p = client.start_fsm(Print, "p")
    assert p.state().status == "failed"
    with pytest.raises(RefusedError, match="cannot be skipped"):
        p.skip()

    broken.clear()
    again = p.retry()

    assert again is not None
    assert (again.event, again.result().ok, p.state().status) == ("begin", True, "running")


def test_the_entry_event_of_a_snapshot_of_an_older_version_is_retried_too(client: Client, broken: set[str]) -> None:
    broken.add("begin")
    p = client.start_fsm(Print, "p")
    client.redis.hdel(client.keys.snapshot("p"), "owes", "failed_from")
    broken.clear()

    assert p.retry() is not None
    assert (p.state().status, p.state().payload) == ("running", {"begin": 1})


def test_an_ordinary_event_that_failed_is_retried_before_all_that_waits(client: Client, broken: set[str]) -> None:
    p = client.start_fsm(Print, "p")
    broken.add("clean")
    failed = p.transition("clean", if_version=1)
    assert p.state().status == "running"
    p.pause()
    waiting = p.transition("print")
    broken.clear()

    assert p.retry() == failed
    assert [event.job_id for event in p.jobs().events] == [failed.id, waiting.id]
    assert p.resume()
    # Decided on version 1; its own failure made that 2.
    assert failed.result().ok
    assert waiting.result().ok


def test_a_hard_event_that_failed_can_be_given_up(client: Client, broken: set[str]) -> None:
    p = client.start_fsm(Print, "p")
    broken.add("eject")
    p.transition("print")

    given_up = p.skip()

    assert given_up is not None
    assert (given_up.event, given_up.status()) == ("eject", "failed")
    assert (p.state().state, p.state().status) == ("printing", "running")
    broken.clear()
    assert p.call("eject").state == "idle"  # which anybody may send


def test_a_paused_fsm_stands_with_its_mail_until_it_is_resumed(client: Client) -> None:
    p = client.start_fsm(Print, "p")
    p.pause()
    p.pause(if_version=1)
    jobs = [p.transition("clean") for _ in range(3)]

    assert p.state().status == "paused"
    assert [snapshot.name for snapshot in client.snapshots(status="paused")] == ["p"]
    assert {job.status() for job in jobs} == {"waiting"}
    with pytest.raises(CallTimeoutError, match=r"it was paused \d+s ago: `fsm resume p` lets it go on"):
        jobs[0].result(0)
    assert p.resume()
    assert not p.resume(if_version=4)
    assert {job.status() for job in jobs} == {"done"}
    assert p.state().payload == {"begin": 1, "clean": 3}


def test_the_head_is_skipped_and_who_waits_for_it_is_told(client: Client) -> None:
    p = client.start_fsm(Print, "p")
    p.pause()
    first, second = p.transition("clean"), p.transition("print")

    assert client.skip("p", second.id) is None
    assert p.skip(first.id) == first
    assert p.skip(first.id) is None
    assert first.status() == "cancelled"
    with pytest.raises(FailedError, match=r"skipped by .+@.+"):
        first.result()
    p.resume()
    assert p.skip() is None
    assert second.result().ok


def test_what_operators_did_is_in_the_log_and_no_visit(client: Client) -> None:
    p = client.start_fsm(Print, "p")
    p.pause()
    job = p.transition("clean")
    p.skip()
    p.resume()

    lines = [line for line in p.log() if "verb" in line]
    assert [(line["verb"], line.get("job")) for line in lines] == [("pause", None), ("skip", job.id), ("resume", None)]
    assert {(line["name"], line["machine"]) for line in lines} == {("p", "Print")}
    assert all("@" in line["by"] and line["at_ms"] for line in lines)
    assert [visit.state for visit in client.do(verbs.visits(client.keys, "p"))] == ["idle"]


@pytest.mark.parametrize("verb", ["retry", "skip", "pause", "resume"])
def test_each_verb_checks_life_version_and_whether_it_has_ended(client: Client, verb: str) -> None:
    p = client.start_fsm(Print, "p")
    do: Callable[..., Any] = getattr(p, verb)

    with pytest.raises(StaleVersionError) as raised:
        do(if_version=7)
    assert (raised.value.version, raised.value.details) == (1, {"version": 1, "if_version": 7})
    with pytest.raises(UnknownFSMError):
        do(born="7")
    p.transition("leave")
    with pytest.raises(FSMFinishedError):
        do()
    with pytest.raises(UnknownFSMError):
        getattr(client, verb)("nobody")
    assert not [line for line in p.log() if "verb" in line]


def test_the_job_to_be_skipped_is_checked(client: Client) -> None:
    with pytest.raises(PayloadError, match="id"):
        client.skip("p", "a b")
