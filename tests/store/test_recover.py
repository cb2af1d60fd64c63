from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.store.conftest import Store


def test_recovered_by_the_end_of_the_lease_it_is_ready_and_the_death_is_counted(store: Store) -> None:
    store.start("a", "b")
    store.claim("w1")
    store.lapse("a")

    assert store.recover() == (1, 0)
    assert store.ready() == ["a"]
    assert store.snapshot("a")["tries"] == "1"
    assert "tries" not in store.snapshot("b")
    assert store.one("w2").tries == 1


def test_recovered_by_the_death_of_its_worker_without_waiting_for_the_lease(store: Store) -> None:
    store.start("a", "b", "c")
    store.claim("w1", fsms=2)
    store.claim("w2")

    assert store.recover("w1") == (2, 0)
    assert store.ready() == ["a", "b"]
    assert not store.redis.exists(store.keys.claims("w1"))
    assert [name for name, _ in store.redis.zrange(store.keys.held, 0, -1, withscores=True)] == [b"c"]


def test_what_a_dead_worker_lost_before_is_not_taken_from_its_new_holder(store: Store) -> None:
    store.start("a")
    store.claim("w1")
    store.lapse("a")
    store.recover()
    theirs = store.one("w2")

    assert store.recover("w1") == (0, 0)
    assert store.commit(theirs, worker="w2") == ["REST"]


def test_a_lock_that_was_renewed_is_left_alone(store: Store) -> None:
    store.start("a")
    fsm = store.one()
    store.redis.zadd(store.keys.held, {"a": 1})  # the note is old, the lock stands

    assert store.recover() == (0, 0)
    seconds, _ = store.redis.time()
    assert (store.redis.zscore(store.keys.held, "a") or 0) > seconds * 1000
    assert store.commit(fsm) == ["REST"]


def test_repeated_it_finds_nothing_more_to_do(store: Store) -> None:
    store.start("a")
    store.claim("w1")
    store.lapse("a")
    store.recover("w1")
    before = store.dump()

    assert store.recover("w1") == (0, 0)
    assert store.dump() == before


def test_an_fsm_without_mail_is_freed_and_rests(store: Store) -> None:
    store.start("a")
    store.claim("w1")
    store.redis.delete(store.keys.mailbox("a"))
    store.lapse("a")

    assert store.recover() == (1, 0)
    assert store.ready() == []


def test_an_fsm_that_was_purged_is_not_made_again_by_counting(store: Store) -> None:
    store.start("a")
    store.claim("w1")
    store.lapse("a")
    store.redis.delete(store.keys.snapshot("a"))

    assert store.recover() == (1, 0)
    assert not store.redis.exists(store.keys.snapshot("a"))


def test_the_hand_of_a_dead_worker_goes_back_to_the_lists(store: Store) -> None:
    store.start("a")
    (job_id,) = store.listed()
    store.redis.lmove("rq:queue:fsm", store.keys.hand("w1"), "LEFT", "RIGHT")
    store.redis.rpush(store.keys.hand("w1"), "without-a-record")

    assert store.recover("w1") == (0, 1)
    assert store.listed() == [job_id]
    assert not store.redis.exists(store.keys.hand("w1"))


def test_at_most_so_many_are_freed_in_one_call(store: Store) -> None:
    names = [f"n{i}" for i in range(10)]
    store.start(*names)
    store.claim("w1")
    store.lapse(*names)

    assert store.recover(most=4) == (4, 0)
    assert store.recover(most=4) == (4, 0)
    assert store.recover(most=4) == (2, 0)


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "urgent", "lock"])
def test_a_key_of_another_type_keeps_nobody_elses_fsm_from_being_freed(store: Store, part: str) -> None:
    store.start("a", "b")
    store.claim("w1")
    store.lapse("a", "b")
    key = getattr(store.keys, part)("a")
    store.redis.delete(key)
    store.redis.set(key, "of another type", ex=None)

    assert store.recover() == (2, 0)
    assert "b" in store.ready()


@pytest.mark.parametrize("key", ["fsm:default:hand:w1", "fsm:default:claims:w1", "fsm:default:ended", "rq:queue:fsm"])
def test_a_key_of_another_type_beside_the_fsms_stops_no_recovery(store: Store, key: str) -> None:
    store.start("a")
    store.claim("w1")
    store.lapse("a")
    store.redis.delete(key)
    store.redis.set(key, "of another type")

    assert store.recover("w1") == (1, 0)
    assert store.ready() == ["a"]


def test_tries_edited_by_hand_into_nonsense_stop_no_recovery(store: Store) -> None:
    store.start("a", "b")
    store.claim("w1")
    store.redis.hset(store.keys.snapshot("a"), "tries", "many")
    store.lapse("a", "b")

    assert store.recover() == (2, 0)


def test_an_fsm_whose_queue_cannot_be_rung_waits_until_it_can(store: Store) -> None:
    store.start("a")
    store.claim("w1")
    store.lapse("a")
    store.redis.set(store.keys.ready("fsm"), "not a zset")
    assert store.recover() == (0, 0)
    assert store.redis.zscore(store.keys.held, "a")

    store.redis.delete(store.keys.ready("fsm"))
    store.lapse("a")
    assert store.recover() == (1, 0)
    assert store.ready() == ["a"]
