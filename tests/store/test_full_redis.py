"""A Redis that is full takes no new events, loses none, and lets the backlog drain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.errors import StoreError
from fsm.store import calls, codec, presence, steering
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.store.conftest import Store


@pytest.fixture
def full(real_store: Store) -> Iterator[Store]:
    """A store with events for two FSMs, one claimed, one whose worker died, and one to be purged; then full."""
    store = real_store
    store.idle("a", "b", "dead", "old", "renewed")
    store.sent("a", "a-1", "a-2")
    store.sent("dead", "dead-1")
    store.sent("renewed", "renewed-1")
    store.sent("old", "old-1")
    store.claim("w9", name="dead")
    store.claim("w9", name="renewed")
    store.lapse("dead")
    store.redis.zadd(store.keys.held, {"renewed": 1})
    store.redis.config_set("maxmemory-policy", "noeviction")
    store.redis.config_set("maxmemory", 1)
    yield store
    store.redis.config_set("maxmemory", 0)


def test_send_raises_and_writes_nothing(full: Store) -> None:
    before = full.dump()

    with pytest.raises(StoreError, match="is full"):
        full.send("b", "note", "b-1")
    with pytest.raises(StoreError, match="is full"):
        full.send("a", "note", "a-3")
    assert full.dump() == before


def test_start_raises_and_writes_nothing(full: Store) -> None:
    before = full.dump()

    with pytest.raises(StoreError, match="is full"):
        full.start("new")
    assert full.dump() == before


def test_the_backlog_drains(full: Store) -> None:
    fsms = {fsm.name: fsm for fsm in full.claim().held}
    assert fsms.keys() == {"a", "old"}
    assert full.extend(*fsms.values()) == ["EXTENDED", "EXTENDED"]
    assert full.release(fsms["old"]) == ["RELEASED"]
    assert full.commit(fsms["a"]) == ["REST"]
    assert full.job("a-1")["place"] == "done"
    assert full.one().name == "old"


def test_dead_workers_are_recovered(full: Store) -> None:
    assert full.recover() == (1, 0)
    assert "dead" in full.ready()


def test_notes_of_locks_that_were_renewed_are_corrected(full: Store) -> None:
    full.redis.zrem(full.keys.held, "dead")

    assert full.recover() == (0, 0)
    assert full.redis.zscore(full.keys.held, "renewed") > 1


def test_workers_that_drain_it_are_not_taken_for_dead(full: Store) -> None:
    keys = (full.keys.workers, full.keys.rq_worker("w1"))

    assert run(full.redis, Request(list, "beat", keys, ["w1", "default", 1, 0, 0.5, 1])) == [b"BEATEN"]
    assert full.redis.zscore(full.keys.workers, "w1")


def test_hosts_are_kept_alive_and_can_drain(full: Store) -> None:
    # Seen to fail without the `PERSIST` before all else in the script: a worker did not hear that it was to end.
    def look() -> presence.HostWord:
        return run(full.redis, presence.host(full.keys, "edge", "w1", 1000, lease_ms=15_000, queues=["fsm"]))

    assert look() == presence.HostWord()
    assert full.redis.zscore(full.keys.hosts, "edge")
    run(full.redis, presence.leave_host(full.keys, "edge", "w1", 1000))
    assert not full.redis.exists(full.keys.hosts)


def test_purge_makes_room(full: Store) -> None:
    assert full.purge("old") == "PURGED"
    assert full.job("old-1")["place"] == "gone"


def test_an_operator_can_put_things_right(full: Store) -> None:
    # Seen to fail without the `PERSIST` before all else in the script: the first write was refused.
    def steer(verb: str) -> str:
        order = steering.Order(verb, "a", codec.new_ids(1)[0], full.snapshot("a")["born"], "ann@edge-7")
        return run(full.redis, steering.steer(full.keys, order, full.snapshot("a")["version"]))[0]

    assert [steer(verb) for verb in ("pause", "skip", "resume")] == ["PAUSED", "SKIPPED", "RESUMED"]
    assert full.mailbox("a") == ["a-2"]
    assert "verb" in full.log_lines()[-1].decode()


def test_a_waiter_can_look(full: Store) -> None:
    reply = run(full.redis, Request(list, "ask", (full.keys.job("a-1"), full.keys.result("a-1"))))

    assert reply[0] == b"WAITING"


def test_an_answer_is_refused_and_stays_open_until_there_is_room(full: Store) -> None:
    full.redis.config_set("maxmemory", 0)
    full.ask("b")
    full.redis.config_set("maxmemory", 1)
    before = full.dump()

    with pytest.raises(StoreError, match="is full"):
        full.answer("b")
    assert full.dump() == before
    full.redis.config_set("maxmemory", 0)
    assert full.answer("b") == "ANSWERED cause--e1a"


def test_an_end_that_nobody_wants_to_know_makes_room(full: Store) -> None:
    full.redis.config_set("maxmemory", 0)
    full.ask("b", on_success="")
    full.redis.config_set("maxmemory", 1)

    assert full.answer("b", "") == "SILENT"
    assert full.open_effects("b") == []


def test_open_effects_are_looked_after(full: Store) -> None:
    full.redis.config_set("maxmemory", 0)
    full.ask("b")
    full.redis.lpop("rq:queue:fsm-effects")
    full.redis.hset(full.keys.job("cause--e1"), mapping={"status": "failed", "abandoned": "1"})
    full.redis.zadd(full.keys.effects, {"cause--e1 b": 0})
    full.redis.config_set("maxmemory", 1)

    assert full.look(is_due=False) == {"cause--e1": "queued"}
    assert full.listed("fsm-effects") == ["cause--e1"]


def test_delayed_events_come_and_are_cancelled_and_none_is_taken(real_store: Store) -> None:
    store = real_store
    store.idle("a")
    more = ("due", "+3600000")
    assert [store.send("a", "note", job_id, more=more) for job_id in ("one", "two")] == ["SENT", "SENT"]
    store.redis.config_set("maxmemory-policy", "noeviction")
    store.redis.config_set("maxmemory", 1)
    try:
        before = store.dump()
        with pytest.raises(StoreError, match="is full"):
            store.send("a", "note", "three", more=more)
        assert store.dump() == before

        # Seen to fail where `cancel` wrote the record first.
        assert store.cancel("two") == "CANCELLED"
        assert run(store.redis, calls.due(store.keys, ahead_ms=3_700_000))[0] == 1
        assert store.commit(store.one()) == ["REST"]
    finally:
        store.redis.config_set("maxmemory", 0)
