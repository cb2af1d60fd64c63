from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.store.conftest import Store


def test_released_frees_the_lock_and_counts_nothing(store: Store) -> None:
    store.start("a")
    fsm = store.one()

    assert store.release(fsm) == ["RELEASED"]
    assert not store.redis.exists(store.keys.lock("a"), store.keys.held, store.keys.claims("w1"))
    assert store.ready() == ["a"]
    again = store.one("w2")
    assert (again.name, again.tries) == ("a", 0)


def test_stale_where_the_lock_is_not_ours(store: Store) -> None:
    store.start("a", "b")
    old = store.claim("w1").held
    store.lapse("a")
    store.recover()
    store.one("w2")

    assert store.release(*old) == ["STALE", "RELEASED"]
    assert store.redis.get(store.keys.lock("a"))
    assert store.ready() == ["b"]


def test_repeated_is_stale_and_writes_nothing(store: Store) -> None:
    store.start("a")
    fsm = store.one()
    store.release(fsm)
    before = store.dump()

    assert store.release(fsm) == ["STALE"]
    assert store.dump() == before


def test_released_to_the_front_they_keep_their_order_before_all_that_waits(store: Store) -> None:
    store.start("a", "b", "c")
    fsms = store.claim().held
    store.start("d")

    store.release(*fsms)
    assert store.ready() == ["a", "b", "c", "d"]
    heads = [store.mailbox(name)[0] for name in "abcd"]
    assert store.listed() == heads


def test_released_to_the_tail_they_stand_behind_all_that_waits(store: Store) -> None:
    store.start("a", "b")
    fsms = store.claim().held
    store.start("c")

    store.release(*fsms, tail=True)
    assert store.ready() == ["c", "a", "b"]


def test_released_without_mail_it_rests(store: Store) -> None:
    store.start("a")
    fsm = store.one()
    store.redis.delete(store.keys.mailbox("a"))

    assert store.release(fsm) == ["RELEASED"]
    assert store.ready() == []


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "urgent", "lock"])
def test_a_key_of_another_type_leaves_the_rest_of_the_call_alone(store: Store, part: str) -> None:
    store.start("a", "b")
    fsms = store.claim().held
    key = getattr(store.keys, part)("a")
    store.redis.delete(key)
    store.redis.hset(key, "of", "another type")
    if part in ("snapshot", "lock"):
        store.redis.delete(key)
        store.redis.rpush(key, "of another type")

    assert store.release(*fsms) == ["STALE" if part == "lock" else "RELEASED", "RELEASED"]
    assert "b" in store.ready()


def test_a_thousand_fsms_are_released_in_one_call(store: Store) -> None:
    names = [f"n{i}" for i in range(1000)]
    store.start(*names)

    assert store.release(*store.claim(fsms=1000).held) == ["RELEASED"] * 1000
    assert store.ready() == names
