"""One claimed FSM whose event is to be tried again, over the real scripts and fakeredis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import Machine, Retry, RetryPolicy, Settings, Transition, on
from fsm.engine import Behaviour
from fsm.store import calls
from fsm.store.requests import run
from tests.unit.engine.office import KEYS, Office

if TYPE_CHECKING:
    from collections.abc import Callable

    import fakeredis

T = Transition[dict[str, Any]]
TWICE = RetryPolicy(attempts=2, delay="1h", max_delay="1h", jitter=0)


class Shaky(Machine[dict[str, Any]]):
    """Events that fail as often as they are told, by their names."""

    settings = Settings(max_attempts=2, retry={"begin": TWICE, "put": TWICE, "send": TWICE})
    diagram = """
    stateDiagram-v2
        [*] --> open : begin
        open --> open : put, note
        open --> packed : pack
        packed --> sent : send!
        sent --> [*] : end
    """

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}
        self.seen: list[tuple[str, int]] = []
        self.failures: list[str] = []

    def _shake(self, t: T) -> None:
        self.seen.append((t.event, t.attempt))
        if self.fails.get(t.event, 0):
            self.fails[t.event] -= 1
            t.payload["spoilt"] = True
            problem = f"{t.event} is shaky"
            raise OSError(problem)

    def on_start(self, t: T) -> None:
        self._shake(t)

    @on("put")
    def put(self, t: T, n: int) -> None:
        self._shake(t)
        t.payload.setdefault("put", []).append(n)

    @on("note")
    def note(self, t: T) -> Retry | None:
        self.seen.append((t.event, t.attempt))
        return Retry("1h") if t.attempt < 4 else None

    @on("send")
    def send(self, t: T) -> None:
        self._shake(t)

    def on_failure(self, t: T, error: Exception) -> None:
        self.failures.append(t.event)


class ShakyOffice(Office):
    """An office whose clock can be turned."""

    def __init__(self, redis: Any) -> None:
        super().__init__(redis)
        self.shaky = Shaky()
        self.behaviour = Behaviour(self.shaky)

    def start(self, name: str = "p") -> str:
        job_id = f"entry-{name}"
        assert run(self.redis, calls.start(KEYS, Shaky.definition, [calls.Birth(name, job_id, b"{}")])) == ["CREATED"]
        return job_id

    def an_hour_later(self) -> int:
        return run(self.redis, calls.due(KEYS, ahead_ms=4_000_000))[0]

    def fields(self) -> set[str]:
        return {field.decode() for field in self.redis.hkeys(KEYS.snapshot("p"))}


@pytest.fixture
def office(fake_redis: fakeredis.FakeRedis) -> ShakyOffice:
    return ShakyOffice(fake_redis)


def test_the_events_behind_wait_and_are_applied_in_order_afterwards(office: ShakyOffice) -> None:
    office.start()
    office.shaky.fails["put"] = 1
    ids = office.send("put", "put", "put")

    assert office.turn() == ["AT"]
    assert office.mailbox() == ids
    assert (office.snapshot().version, office.snapshot().payload) == (2, {})
    assert office.standing("put-0") == "waiting"
    assert office.turn() == []
    assert office.an_hour_later() == 1
    assert office.turn() == ["REST"]

    assert office.snapshot().payload == {"put": [0, 1, 2]}
    assert office.shaky.seen == [("begin", 1), ("put", 1), ("put", 2), ("put", 1), ("put", 1)]
    assert "retry_at" not in office.fields()
    assert "error" not in office.fields()
    lines = [(line["event"], line["version"], line.get("attempt"), line.get("error")) for line in office.log()]
    assert lines == [
        ("begin", 1, None, None),
        ("put", 2, 1, "put is shaky"),
        ("put", 3, None, None),
        ("put", 4, None, None),
        ("put", 5, None, None),
    ]


def test_the_last_attempt_ends_it_and_the_next_event_goes_on(office: ShakyOffice) -> None:
    office.start()
    office.shaky.fails["put"] = 2
    office.send("put", "put")

    assert office.turn() == ["AT"]
    assert office.shaky.failures == []
    office.an_hour_later()
    assert office.turn() == ["REST"]

    assert office.shaky.failures == ["put"]
    assert [office.standing(job_id) for job_id in ("put-0", "put-1")] == ["failed", "done"]
    assert office.snapshot().payload == {"put": [1]}


def test_a_handler_asks_again_as_often_as_it_wants(office: ShakyOffice) -> None:
    office.start()
    office.send("note")
    for _ in range(3):
        assert office.turn() == ["AT"]
        assert "error" not in office.fields()
        office.an_hour_later()

    assert office.turn() == ["REST"]
    assert office.shaky.seen[1:] == [("note", 1), ("note", 2), ("note", 3), ("note", 4)]
    assert office.standing("note-0") == "done"


def test_an_entry_event_is_tried_again_before_anything_else(office: ShakyOffice) -> None:
    office.shaky.fails["begin"] = 1
    office.start()
    office.send("put")

    assert office.turn() == ["AT"]
    assert office.snapshot().status == "starting"
    office.an_hour_later()
    assert office.turn() == ["REST"]
    assert office.shaky.seen == [("begin", 1), ("begin", 2), ("put", 1)]


def test_a_hard_event_is_tried_again_before_the_mail_that_waits(office: ShakyOffice) -> None:
    office.shaky.fails["send"] = 1
    office.start()
    ids = office.send("pack", "put")

    assert office.turn() == ["AT"]
    assert office.snapshot().state == "packed"
    assert office.standing(ids[0]) == "done"
    assert office.redis.hget(KEYS.snapshot("p"), "owes") == b"pack-0--h1"
    assert office.mailbox() == ["put-1"]
    office.an_hour_later()
    assert office.turn() == ["REST"]

    assert office.snapshot().state == "sent"
    assert office.shaky.seen == [("begin", 1), ("send", 1), ("send", 2)]
    assert office.standing("put-1") == "refused"
    assert not {"owes", "retry_at"} & office.fields()
    assert not office.redis.exists(KEYS.urgent("p"))


def test_a_hard_event_that_was_owed_already_is_owed_while_it_waits(office: ShakyOffice) -> None:
    # Seen to fail where a commit drops `owes` though the event stays in the urgent list: nobody looked there again.
    office.shaky.fails["send"] = 1
    office.start()
    office.turn()
    office.send("pack")
    office.redis.hset(KEYS.snapshot("p"), "tries", 1)

    assert office.turn() == ["READY"]
    assert office.turn() == ["AT"]
    assert office.redis.hget(KEYS.snapshot("p"), "owes") == b"pack-0--h1"
    office.an_hour_later()
    assert office.turn() == ["REST"]
    assert office.snapshot().state == "sent"
    assert not {"owes", "retry_at"} & office.fields()


class Patient(Shaky):
    """One that tries its events more often."""

    settings = Settings(
        retry=dict.fromkeys(["begin", "send"], RetryPolicy(attempts=9, delay="1h", max_delay="1h", jitter=0))
    )
    diagram = Shaky.diagram


@pytest.mark.parametrize("event", ["begin", "send"])
def test_an_event_that_is_owed_is_tried_again_as_often_as_its_policy_says(office: ShakyOffice, event: str) -> None:
    # Seen to fail where the second failure dropped `owes`: the urgent list, where it waits, was looked at no more.
    office.shaky = Patient()
    office.behaviour = Behaviour(office.shaky)
    office.start()
    office.shaky.fails[event] = 5
    ids = office.send("pack", "put")
    if event == "begin":
        office.redis.delete(KEYS.job("entry-p"))

    for _ in range(5):
        assert office.turn() == ["AT"]
        assert office.redis.hget(KEYS.snapshot("p"), "owes")
        office.an_hour_later()
    assert office.turn() == ["REST"]

    assert [attempt for name, attempt in office.shaky.seen if name == event] == [1, 2, 3, 4, 5, 6]
    assert [office.standing(job_id) for job_id in ids] == ["done", "refused"]
    assert not {"owes", "retry_at"} & office.fields()
    assert not office.redis.exists(KEYS.urgent("p"), KEYS.mailbox("p"))


def test_what_failed_for_good_is_noted_as_owed(office: ShakyOffice) -> None:
    office.shaky.fails["send"] = 2
    office.start()
    office.send("pack")
    office.turn()
    office.an_hour_later()
    office.turn()

    assert office.snapshot().status == "failed"
    assert office.redis.hmget(KEYS.snapshot("p"), "owes", "failed_from") == [b"pack-0--h1", None]


def test_so_is_an_entry_event_and_how_far_the_fsm_was(office: ShakyOffice) -> None:
    office.shaky.fails["begin"] = 2
    office.start()
    office.turn()
    office.an_hour_later()
    office.turn()

    assert office.snapshot().status == "failed"
    assert office.redis.hmget(KEYS.snapshot("p"), "owes", "failed_from") == [b"entry-p", b"starting"]


def _cancel(office: ShakyOffice, job_id: str) -> None:
    office.edit(job_id, status="canceled")


def _delete(office: ShakyOffice, job_id: str) -> None:
    office.redis.delete(KEYS.job(job_id))


def _lose(office: ShakyOffice, job_id: str) -> None:
    office.redis.delete(KEYS.urgent("p"), KEYS.job(job_id))


@pytest.mark.parametrize("fails", [0, 1])
@pytest.mark.parametrize("away", [_cancel, _delete, _lose])
def test_a_hard_event_that_is_taken_away_is_made_again(
    office: ShakyOffice, away: Callable[[ShakyOffice, str], None], fails: int
) -> None:
    # Seen to fail without `_make` for what is owed: the FSM stood in a state that only its hard event leads out of.
    office.shaky.fails["send"] = 1
    office.start()
    office.send("pack", "put")
    office.turn()
    away(office, "pack-0--h1")
    office.shaky.fails["send"] = fails
    office.an_hour_later()

    for _ in range(fails):
        assert office.turn() == ["AT"]
        office.an_hour_later()
    assert office.turn() == ["REST"]

    assert office.snapshot().state == "sent"
    assert office.standing("pack-0--h1again") == "done"
    told = [line for line in office.log() if "by an operator" in line.get("error", "")]
    assert [line["job"] for line in told] == ([] if away is _lose else ["pack-0--h1"])
    assert not office.redis.exists(KEYS.urgent("p"), KEYS.mailbox("p"))


@pytest.mark.parametrize("away", [_cancel, _delete])
def test_so_is_an_entry_event_that_waits_to_be_tried_again(
    office: ShakyOffice, away: Callable[[ShakyOffice, str], None]
) -> None:
    office.shaky.fails["begin"] = 2
    office.start()
    office.turn()
    away(office, "entry-p")
    office.an_hour_later()

    assert office.turn() == ["AT"]
    office.an_hour_later()
    assert office.turn() == ["REST"]

    assert office.snapshot().status == "running"
    assert office.standing("entry-p--entry") == "done"
    assert not office.redis.exists(KEYS.urgent("p"), KEYS.mailbox("p"))


@pytest.mark.parametrize("away", [_cancel, _delete])
def test_so_is_one_that_was_made_again_before(office: ShakyOffice, away: Callable[[ShakyOffice, str], None]) -> None:
    # Seen to fail where what was taken away was left before the one made in its place: that was run twice, and as often
    # as it failed, since its attempts were not counted.
    office.shaky.fails["begin"] = 3
    office.start()
    for job_id in ("entry-p", "entry-p--entry"):
        assert office.turn() == ["AT"]
        away(office, job_id)
        office.an_hour_later()

    assert office.turn() == ["AT"]
    assert office.redis.lrange(KEYS.urgent("p"), 0, -1) == [b"entry-p--entryentry"]
    office.an_hour_later()
    assert office.turn() == ["REST"]

    assert office.shaky.seen == [("begin", 1), ("begin", 1), ("begin", 1), ("begin", 2)]
    assert "refused" not in office.fields()
    assert not office.redis.exists(KEYS.urgent("p"), KEYS.mailbox("p"), "rq:scheduled:fsm")


def test_a_suspect_that_is_to_be_tried_again_is_charged_no_more(office: ShakyOffice) -> None:
    office.start()
    office.turn()
    office.shaky.fails["put"] = 1
    office.send("put", "put")
    office.redis.hset(KEYS.snapshot("p"), "tries", 1)

    assert office.turn() == ["AT"]
    assert office.redis.hget(KEYS.snapshot("p"), "tries") == b"0"


def test_a_death_is_no_attempt(office: ShakyOffice) -> None:
    office.start()
    office.turn()
    office.shaky.fails["put"] = 1
    office.send("put")
    office.turn()
    office.an_hour_later()
    office.redis.hset(KEYS.snapshot("p"), "tries", 3)

    assert office.turn() == ["REST"]
    assert office.shaky.seen[1:] == [("put", 1)]
    assert office.standing("put-0") == "failed"
