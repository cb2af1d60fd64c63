"""FSMs that a worker cannot run, for their definition is another: they hold up nobody, and cost little."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.unit.workers.test_intake import KEYS, Crate, Hall, numbered
from workers.strangers import Strangers

if TYPE_CHECKING:
    import fakeredis

SLOW_S = 3.0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr("workers.intake.time.sleep", taken.append)
    return taken


def slow(hall: Hall) -> Hall:
    """A worker whose handlers take long, and which claims FSMs one by one."""
    for _ in range(20):
        hall.intake.learn(1, SLOW_S)
    return hall


def test_one_strange_fsm_does_not_keep_a_worker_from_the_queues_behind_its_own(
    fake_redis: fakeredis.FakeRedis, pauses: list[float]
) -> None:
    # Seen to fail where strange ones counted as claimed: with slow handlers one of them was enough, and nothing of the
    # second queue was ever run.
    hall = slow(Hall(fake_redis, ("crates", "fsm")))
    hall.known = {"Box"}
    hall.start("strange", machine=Crate)
    hall.start("box")

    assert hall.claim() == ["box"]
    assert pauses == []
    assert hall.ready("crates") == ["strange"]


def test_whoever_waits_behind_many_strange_fsms_has_its_turn_before_the_first_pause(
    fake_redis: fakeredis.FakeRedis, pauses: list[float]
) -> None:
    # Seen to fail with a pause after each claim, which brought one FSM: 40 of them were 8 s.
    hall = slow(Hall(fake_redis))
    hall.known = {"Box"}
    hall.start(*numbered(40))
    for name in numbered(40):
        hall.redis.hset(KEYS.snapshot(name), "machine", "Crate")
    hall.start("box")

    claims = 0
    while not (found := hall.claim()):
        claims += 1
        assert claims < 10

    assert found == ["box"]
    assert pauses == []
    assert hall.held() == {"box"}


def test_with_none_but_strange_fsms_a_worker_pauses_after_each_round(
    fake_redis: fakeredis.FakeRedis, pauses: list[float]
) -> None:
    hall = Hall(fake_redis)
    hall.known = {"Box"}
    hall.start(*numbered(40))
    for name in numbered(40):
        hall.redis.hset(KEYS.snapshot(name), "machine", "Crate")

    # Three claims for all of them; with the fourth it is among those that it has seen.
    for expected in (0, 0, 0, 1):
        assert hall.claim() == []
        assert len(pauses) == expected
        assert hall.intake.is_passing is (expected == 0)
    assert hall.locked() == hall.held() == set()
    assert len(hall.ready()) == 40


def test_a_pause_is_as_long_as_keeps_the_rounds_cheap_and_never_long() -> None:
    # Seen to fail with 0.2 s whatever a round takes: thousands of strange FSMs kept an idle worker busy.
    strangers = Strangers(lambda _: "")
    for seconds, pause_s in ((0.001, 0.2), (0.05, 0.5), (9.0, 2.0)):
        assert strangers.meet(["a", "b"], seconds) == 0.0
        assert strangers.meet(["b"], 0.0) == pytest.approx(pause_s)


def test_one_round_is_noted_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.strangers._MOST_MET", 100)
    strangers = Strangers(lambda _: "")
    pauses = [strangers.meet([f"{turn} {number}" for number in range(60)], 0.0) for turn in range(4)]

    assert pauses == [0.0, 0.2, 0.0, 0.2]


def test_a_long_pause_is_made_of_short_ones_in_which_all_else_goes_on(
    fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(fake_redis)
    hall.known = {"Box"}
    hall.start("strange")
    hall.redis.hset(KEYS.snapshot("strange"), "machine", "Crate")
    monkeypatch.setattr(Strangers, "meet", lambda *_: 0.5)
    begin = time.monotonic()
    assert hall.claim() == []
    assert time.monotonic() - begin < 0.4
    hall.start("box")

    turns = 0
    while not (found := hall.claim()):
        turns += 1

    assert found == ["box"]
    assert turns == 1
    assert time.monotonic() - begin >= 0.5
