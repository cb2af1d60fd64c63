"""How a worker takes work, over the real scripts and fakeredis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import OutOfMemoryError

from fsm.errors import StoreError
from fsm.machine import Machine, Settings
from fsm.store import calls, codec
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.carrier import Carrier, Line
from workers.intake import Intake
from workers.lease import LeaseKeeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import fakeredis

LEASE_MS = 60_000
KEYS = Keys("default")


class Box(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> [*] : shut
    """


class Crate(Box):
    settings = Settings(queue="crates")


class Hall:
    """One worker's intake in one Redis, and what others see of it."""

    def __init__(
        self, client: fakeredis.FakeRedis, queues: Sequence[str] = ("fsm",), *, batch: int = 16, worker: str = "w"
    ) -> None:
        self.redis: Any = client
        self.known = {"Box", "Crate"}
        self.refused = ""
        self.carrier = Carrier(client, "redis://x", lambda: False)
        self.line = Line(client, self.carrier)
        self.keeper = LeaseKeeper(lambda: client, "", KEYS, worker, LEASE_MS, lambda: None)
        self.intake = Intake(
            self.carrier,
            self.line,
            KEYS,
            worker,
            queues,
            self.keeper,
            lambda fsm: "" if fsm.machine in self.known else "no such machine here",
            lease_ms=LEASE_MS,
            batch=batch,
        )

    def start(self, *names: str, machine: type[Machine[Any]] = Box) -> None:
        births = [calls.Birth(name, codec.new_ids(1)[0], b"{}") for name in names]
        assert set(run(self.redis, calls.start(KEYS, machine.definition, births))) == {"CREATED"}

    def suspect(self, *names: str) -> None:
        """Make FSMs suspects: a worker died on them."""
        for name in names:
            self.redis.hset(KEYS.snapshot(name), "tries", 1)

    def ready(self, queue: str = "fsm") -> list[str]:
        return [name.decode() for name in self.redis.zrange(KEYS.ready(queue), 0, -1)]

    def locked(self) -> set[str]:
        return {key.decode().rpartition(":")[2] for key in self.redis.keys("fsm:default:lock:*")}

    def tries(self, name: str) -> int:
        return int(self.redis.hget(KEYS.snapshot(name), "tries") or 0)

    def claim(self) -> list[str]:
        return [fsm.name for fsm in self.intake.claim().held]

    def held(self) -> set[str]:
        return {name for name, _ in self.keeper.held()}


@pytest.fixture
def hall(fake_redis: fakeredis.FakeRedis) -> Hall:
    return Hall(fake_redis)


def numbered(count: int, letter: str = "f") -> list[str]:
    return [f"{letter}{number:02}" for number in range(count)]


def test_a_batch_is_claimed_oldest_first_and_held(hall: Hall) -> None:
    hall.start(*numbered(20))

    claims = hall.intake.claim()
    assert [fsm.name for fsm in claims.held] == numbered(16)
    assert hall.held() == hall.locked() == set(numbered(16))
    assert all(hall.keeper.is_trusted(fsm.name, fsm.token) for fsm in claims.held)


def test_the_next_claim_is_sent_ahead_only_where_fsms_flow(hall: Hall) -> None:
    hall.start(*numbered(15))
    hall.claim()
    hall.intake.claim_ahead()
    hall.start(*numbered(5, "g"))

    assert len(hall.locked()) == 15
    assert hall.claim() == numbered(5, "g")


def test_what_was_claimed_ahead_is_the_next_batch(hall: Hall) -> None:
    hall.start(*numbered(24))
    first = hall.claim()
    hall.intake.claim_ahead()

    assert len(hall.locked()) == 24
    assert first + hall.claim() == numbered(24)
    assert hall.held() == set(numbered(24))


def test_nothing_that_is_in_hand_is_freed_by_the_claims_that_follow_it(hall: Hall) -> None:
    # A claim frees what the worker does not name: the batch in hand and the one before it are named.
    hall.start(*numbered(48))
    hall.claim()
    hall.intake.claim_ahead()
    hall.claim()
    hall.intake.claim_ahead()

    assert len(hall.locked()) == 48


def test_a_claim_whose_reply_nobody_heard_is_freed_by_the_next(hall: Hall) -> None:
    hall.start("a")
    lost = calls.claim(KEYS, "w", "fsm", "ab" * 16, 1, lease_ms=LEASE_MS, fsms=10)
    assert run(hall.redis, lost).held

    assert hall.claim() == ["a"]
    assert hall.tries("a") == 0


def test_what_was_claimed_ahead_goes_back_to_the_front_in_its_order(hall: Hall) -> None:
    hall.start(*numbered(40))
    hall.claim()
    hall.intake.claim_ahead()

    hall.intake.drop_ahead()

    assert hall.ready() == numbered(40)[16:]
    assert hall.held() == hall.locked() == set(numbered(16))
    hall.intake.drop_ahead()
    assert hall.claim() == numbered(32)[16:]


def test_a_reply_ahead_that_cannot_be_had_is_waited_for_once(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail while it was forgotten only after it was read: the teardown met the same error again, and gave back
    # nothing.
    hall.start(*numbered(40))
    hall.claim()
    hall.intake.claim_ahead()
    monkeypatch.setattr(hall.line, "result", lambda _: (_ for _ in ()).throw(StoreError("Redis is away")))

    with pytest.raises(StoreError):
        hall.intake.drop_ahead()
    hall.intake.drop_ahead()


def test_what_cannot_be_given_back_is_not_renewed_for_ever(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail while only a release that succeeded let go: idle, the worker kept those FSMs until it ended.
    hall.start("a", "b")
    claims = hall.intake.claim()

    def refuse(_: object) -> None:
        raise StoreError("no rights") from OutOfMemoryError("OOM")

    monkeypatch.setattr(hall.carrier, "carry", refuse)
    with pytest.raises(StoreError):
        hall.intake.give_back(claims.held)

    assert hall.held() == set()


def test_a_suspect_is_claimed_alone_also_from_several_queues(fake_redis: fakeredis.FakeRedis) -> None:
    # Seen to fail without `has_suspect` at the end of the loop: it was joined by those of the second queue, and if it
    # killed the worker, they were charged.
    hall = Hall(fake_redis, ("fsm", "crates"))
    hall.start("suspect")
    hall.start("crate", machine=Crate)
    hall.suspect("suspect")

    assert hall.claim() == ["suspect"]
    assert hall.locked() == {"suspect"}
    assert hall.ready("crates") == ["crate"]


def test_a_suspect_of_a_later_queue_waits_for_a_turn_of_its_own(fake_redis: fakeredis.FakeRedis) -> None:
    hall = Hall(fake_redis, ("fsm", "crates"))
    hall.start("box")
    hall.start("suspect", machine=Crate)
    hall.suspect("suspect")

    assert hall.claim() == ["box"]
    assert hall.ready("crates") == ["suspect"]
    assert hall.locked() == {"box"}

    # Seen to fail without `_is_suspects_turn`: it was never run while the first queue always had something.
    hall.start("another")
    assert hall.claim() == ["suspect"]
    assert hall.ready() == ["another"]
    assert hall.claim() == ["another"]


def test_a_strange_suspect_of_a_later_queue_holds_up_nobody_of_it(fake_redis: fakeredis.FakeRedis) -> None:
    # Seen to fail where it went back to the front: that queue's others were never claimed.
    hall = Hall(fake_redis, ("fsm", "crates"))
    hall.start("box")
    hall.start("suspect", "crate", machine=Crate)
    hall.suspect("suspect")
    hall.redis.hset(KEYS.snapshot("suspect"), "machine", "Chest")

    assert hall.claim() == ["box"]
    assert hall.ready("crates") == ["crate", "suspect"]


def test_a_suspect_is_not_claimed_ahead_where_the_batch_before_may_kill_its_worker(hall: Hall) -> None:
    # Seen to fail without `leaves_suspects` in `claim_ahead`: it was charged with a death at which it was not run.
    hall.start(*numbered(16), "suspect")
    hall.suspect("suspect")
    assert hall.claim() == numbered(16)
    hall.intake.claim_ahead()

    run(hall.redis, calls.recover(KEYS, ["w"]))

    assert hall.tries("suspect") == 1
    assert {hall.tries(name) for name in numbered(16)} == {1}


def test_several_queues_fill_one_batch_in_order_of_preference(fake_redis: fakeredis.FakeRedis) -> None:
    hall = Hall(fake_redis, ("crates", "fsm"), batch=4)
    hall.start("a", "b", "c")
    hall.start("x", "y", machine=Crate)

    assert hall.claim() == ["x", "y", "a", "b"]
    hall.intake.claim_ahead()
    assert hall.locked() == {"x", "y", "a", "b"}


def test_fsms_of_strange_machines_go_to_the_tail_though_claimed_ahead(
    fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("workers.intake.time.sleep", pauses.append)
    hall = Hall(fake_redis)
    hall.start(*numbered(16), "strange", *numbered(4, "g"))
    hall.redis.hset(KEYS.snapshot("strange"), "machine", "Elsewhere")
    hall.claim()
    hall.intake.claim_ahead()

    assert hall.claim() == numbered(4, "g")
    assert hall.ready() == ["strange"]
    assert hall.claim() == []
    assert pauses == []
    assert hall.claim() == []
    assert pauses == [0.2]
    assert "strange" not in hall.locked() | hall.held()


def test_what_is_left_to_its_lease_is_not_freed_by_the_claims_that_follow(hall: Hall) -> None:
    # Seen to fail while one batch with forty such FSMs pushed all older tokens out: the claim freed them uncounted, and
    # they were run again at once, in a circle.
    hall.start("old")
    (old,) = hall.intake.claim().held
    hall.intake.leave(old.token)
    hall.keeper.let_go([("old", old.token)])
    hall.start("many")
    (many,) = hall.intake.claim().held
    for _ in range(400):
        hall.intake.leave(many.token)
    for number in range(10):
        hall.start(f"later{number}")
        assert f"later{number}" in hall.claim()

    for fsm in (old, many):
        assert hall.redis.get(KEYS.lock(fsm.name)) == f"w/{fsm.token}".encode()


def test_batches_are_of_some_20_ms(hall: Hall) -> None:
    hall.start(*numbered(40))
    hall.intake.learn(0, 99.0)
    assert len(hall.claim()) == 16

    for _ in range(20):
        hall.intake.learn(1, 0.005)
    assert len(hall.claim()) in {3, 4}

    for _ in range(20):
        hall.intake.learn(1, 3.0)
    assert len(hall.claim()) == 1


def test_an_id_found_in_the_last_sleep_of_a_worker_is_not_lost(fake_redis: fakeredis.FakeRedis) -> None:
    # Seen to fail without `drop_found`: with several queues an event that RQ requeued was nowhere but in our memory.
    hall = Hall(fake_redis, ("crates", "fsm"))
    hall.start("a")
    assert hall.claim() == ["a"]
    job_id = hall.redis.lrange(KEYS.mailbox("a"), 0, -1)[0].decode()
    hall.redis.delete(KEYS.mailbox("a"), KEYS.lock("a"))
    hall.redis.hset(KEYS.job(job_id), mapping={"place": "failed", "status": "queued"})
    hall.redis.delete("rq:queue:fsm", "rq:queue:crates")
    hall.redis.rpush("rq:queue:fsm", job_id)
    hall.intake.sleep()
    assert not hall.redis.exists("rq:queue:fsm")

    hall.intake.drop_found()
    hall.intake.drop_found()

    assert hall.redis.lrange(KEYS.mailbox("a"), 0, -1) == [job_id.encode()]
    assert hall.ready() == ["a"]
    assert hall.locked() == set()


def test_who_is_woken_has_claimed_before_it_looks_after_anything_else(hall: Hall) -> None:
    hall.start("a")
    hall.intake.sleep(claims=True)
    assert hall.locked() == {"a"}
    hall.start("b")

    assert hall.claim() == ["a"]
    assert hall.claim() == ["b"]


def test_a_claim_of_who_is_woken_is_not_followed_by_another_where_it_brings_nothing(hall: Hall) -> None:
    hall.start("a")
    hall.redis.delete(KEYS.ready("fsm"))  # another worker was first
    hall.intake.sleep(claims=True)
    hall.start("b")

    # Seen to fail without `is_woken` in `claim`: where others were first, each that was woken asked Redis twice.
    assert hall.claim() == []
    assert hall.claim() == ["b"]


def test_who_is_woken_and_claims_no_more_gives_back_what_that_brought(hall: Hall) -> None:
    hall.start("a", "b")
    hall.intake.sleep(claims=True)
    assert hall.locked() == {"a", "b"}

    hall.intake.drop_ahead()
    assert hall.locked() == hall.held() == set()
    # Seen to fail where `is_woken` outlasted it: the next claim was taken for sent.
    assert hall.claim() == ["a", "b"]


def test_who_was_not_woken_claims_nothing(hall: Hall) -> None:
    # Seen to fail with a claim after every sleep: an idle worker asked Redis for nothing once a second more.
    hall.intake.sleep(0.01, claims=True)
    hall.start("a")
    assert hall.locked() == set()
    assert hall.claim() == ["a"]


def test_who_serves_several_queues_claims_when_it_is_awake(fake_redis: fakeredis.FakeRedis) -> None:
    # Seen to fail without `is_one` in what is prepared: it took along, unsent, the id that the sleep before had found.
    hall = Hall(fake_redis, ("crates", "fsm"))
    hall.start("a")
    hall.intake.sleep(claims=True)
    hall.intake.sleep(0.01, claims=True)
    assert hall.locked() == set()
    assert len(hall.intake._found) == 1
    assert hall.claim() == ["a"]


def test_a_sleep_that_redis_refuses_is_slept_here_and_told_once(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Seen to fail without `_sleeps_here`: where Redis was full for a night, each worker told it each second.
    pauses: list[float] = []
    monkeypatch.setattr("workers.intake.time.sleep", pauses.append)

    def refuse(_: object) -> None:
        raise StoreError("Redis is full")

    monkeypatch.setattr(hall.carrier, "once", refuse)
    hall.intake.sleep()
    hall.intake.sleep()

    assert len(pauses) == 2
    assert all(0.5 <= pause <= 1 for pause in pauses)
    assert caplog.text.count("Redis is full") == 1
    assert not hall.intake.is_sleeping
