"""Who arms something wakes a sleeper where that is nearer than his next look; and each claim tells what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm import Machine
from fsm.store import alarms

if TYPE_CHECKING:
    from tests.store.conftest import Store

BELL = "fsm-due"
HOUR_MS = 3_600_000


def armed(store: Store, wait_ms: int, name: str = "a") -> list[str]:
    """Commit an alarm, and give what is on RQ's list by that."""
    seconds, us = store.redis.time()
    work = store.work(store.one(name=name)).apply()
    store.redis.delete(store.keys.rq_list(store.queue))
    work.block.alarm(seconds * 1000 + us // 1000 + wait_ms, alarms.timer("expire", name))
    assert store.commit(work) == ["REST"]
    return store.listed()


def sent(store: Store, due: str, job_id: str) -> list[str]:
    """Send an event with a delay, and give what is on RQ's list by that."""
    store.redis.delete(store.keys.rq_list(store.queue))
    assert store.send("a", "note", job_id, more=("due", due)) == "SENT"
    return store.listed()


@pytest.mark.parametrize(("wait_ms", "listed"), [(500, [BELL]), (0, [BELL]), (HOUR_MS, []), (1500, [])])
def test_a_commit_wakes_a_sleeper_for_what_is_nearer_than_his_next_look(
    store: Store, wait_ms: int, listed: list[str]
) -> None:
    store.waiting("a")

    assert armed(store, wait_ms) == listed


def test_so_does_an_event_that_is_to_be_tried_again_soon(store: Store) -> None:
    store.waiting("a")
    work = store.work(store.one())
    work.block.again("a-1", 500, 1, "")
    store.redis.delete(store.keys.rq_list(store.queue))

    assert store.commit(work) == ["AT"]
    assert store.listed() == [BELL]


def test_so_does_an_event_with_a_delay(store: Store) -> None:
    store.idle("a")

    assert sent(store, "+5000", "a-1") == []
    assert sent(store, "+700", "a-2") == [BELL]


@pytest.mark.parametrize(("length", "listed"), [("500ms", [BELL]), ("1h", [])])
def test_so_does_an_fsm_that_is_adopted_in_a_state_with_a_timer(store: Store, length: str, listed: list[str]) -> None:
    # Seen to fail without it: the timer came when the sleeper looked by himself, up to a second late.
    class Brief(Machine):
        diagram = f"""
        stateDiagram-v2
            [*] --> held
            held --> [*] : expire after {length}
        """

    assert store.start("a", machine=Brief.definition, state="held") == ["CREATED"]
    assert store.listed() == listed


def test_what_comes_behind_something_else_wakes_nobody(store: Store) -> None:
    # Seen to fail without the look at the first: of a thousand delays of 100 ms a second, each woke somebody.
    store.idle("a")

    assert sent(store, "+600", "a-1") == [BELL]
    assert sent(store, "+800", "a-2") == []
    assert sent(store, "+300", "a-3") == [BELL]


def test_where_nobody_comes_one_bell_is_enough(store: Store) -> None:
    # Seen to fail without `LLEN`: with no worker there, they piled up.
    store.idle("a")
    store.redis.delete(store.keys.rq_list(store.queue))
    for number in range(5):
        assert store.send("a", "note", f"a-{number}", more=("due", f"+{900 - 200 * number}")) == "SENT"

    assert store.listed() == [BELL]


def test_a_claim_passes_over_the_bell_and_tells_when_the_next_is_due(store: Store) -> None:
    store.idle("a")
    assert store.claim().due_s is None
    sent(store, "+700", "a-1")

    claims = store.claim()

    assert claims.held == []
    assert claims.moved == []
    assert claims.due_s is not None
    assert 0 < claims.due_s <= 0.7
    assert store.listed() == []
    assert not store.redis.exists(store.keys.job(BELL))


def test_a_repeated_claim_tells_it_too(store: Store) -> None:
    store.waiting("a")
    store.send("a", "note", "a-2", more=("due", "+5000"))
    store.claim(number=7_000_000_000_000_000, token="ab" * 16)

    claims = store.claim(number=7_000_000_000_000_000, token="ab" * 16)

    assert [fsm.name for fsm in claims.held] == ["a"]
    assert 0 < (claims.due_s or 0) <= 5


@pytest.mark.parametrize("score", ["-inf", "+inf", "12.5"])
def test_a_time_that_was_written_by_hand_stops_no_claim(store: Store, score: str) -> None:
    store.waiting("a")
    store.redis.zadd(store.keys.timers, {"retry a": score})

    claims = store.claim()

    assert [fsm.name for fsm in claims.held] == ["a"]
    assert claims.due_s is not None


def test_nor_does_a_key_of_another_type(store: Store) -> None:
    store.waiting("a")
    store.redis.set(store.keys.timers, "no zset")

    claims = store.claim()

    assert ([fsm.name for fsm in claims.held], claims.due_s) == (["a"], None)
