from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.store.conftest import Store


def test_extended_renews_lock_and_note(store: Store) -> None:
    store.start("a")
    claims = store.claim(lease_ms=1000)

    assert store.extend(*claims.held, lease_ms=50_000) == ["EXTENDED"]
    assert 40_000 < store.redis.pttl(store.keys.lock("a")) <= 50_000
    assert 40_000 < (store.redis.zscore(store.keys.held, "a") or 0) - claims.at_ms <= 60_000
    assert 4_000 < store.redis.pttl(store.keys.claims("w1")) <= 200_000
    # Seen to fail without: after four leases nobody could say any more for how long it has been in hand.
    assert 100_000 < store.redis.pttl(store.keys.replies("w1")) <= 200_000


def test_stale_where_the_lock_is_gone_or_anothers(store: Store) -> None:
    store.start("a", "b", "c")
    old = store.claim("w1").held
    store.lapse("a", "b")
    store.recover()
    store.claim("w2", fsms=1)
    theirs = store.redis.get(store.keys.lock("a"))

    assert store.extend(*old) == ["STALE", "STALE", "EXTENDED"]
    assert store.redis.get(store.keys.lock("a")) == theirs
    assert not store.redis.exists(store.keys.lock("b"))


def test_repeated_it_counts_from_the_later_call(store: Store) -> None:
    store.start("a")
    fsm = store.one()
    store.extend(fsm, lease_ms=1_000)

    assert store.extend(fsm, lease_ms=50_000) == ["EXTENDED"]
    assert store.redis.pttl(store.keys.lock("a")) > 40_000


def test_after_the_commit_it_is_stale_and_brings_no_lock_back(store: Store) -> None:
    store.start("a")
    fsm = store.one()
    store.commit(fsm)

    assert store.extend(fsm) == ["STALE"]
    assert not store.redis.exists(store.keys.lock("a"), store.keys.held)
