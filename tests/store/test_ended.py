"""Records of events that ended are dropped when their time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.store.conftest import Store


def test_ended_records_are_dropped_by_later_commits(store: Store) -> None:
    store.waiting("a")
    store.commit(store.one())
    store.sent("a", "a-2")
    store.commit(store.one())
    assert store.redis.exists("rq:job:a-1", "rq:job:a-2") == 2
    store.age()

    for i in range(3, 6):
        store.sent("a", f"a-{i}")
        store.commit(store.one())
    assert store.redis.exists("rq:job:a-1", "rq:job:a-2") == 0
    assert store.redis.exists("rq:job:a-3", "rq:job:a-4", "rq:job:a-5") == 3
    assert {job.decode() for job in store.redis.zrange("rq:finished:fsm", 0, -1)} == {"a-3", "a-4", "a-5"}
    assert store.redis.zcard(store.keys.ended) == 3


def test_ended_records_are_dropped_by_recover_where_no_commit_comes(store: Store) -> None:
    store.waiting("a")
    store.commit(store.one())
    store.age()

    store.recover()
    assert store.redis.keys("rq:job:*") == []
    assert store.redis.zcard(store.keys.ended) == 0


def test_ended_records_stay_for_their_result_ttl(store: Store) -> None:
    store.waiting("a")
    store.commit(store.one())
    seconds, _ = store.redis.time()
    (score,) = [
        score for batch, score in store.redis.zrange(store.keys.ended, 0, -1, withscores=True) if b"a-1" in batch
    ]

    assert seconds + 58 <= score <= seconds + 60


def test_two_thousand_events_of_one_commit_end_in_several_batches(store: Store) -> None:
    names = [f"n{i}" for i in range(20)]
    store.idle(*names)
    store.send_all([store.letter(name) for name in names for _ in range(100)])
    claims = store.claim(events=2000)
    assert sum(len(fsm.mail) for fsm in claims.held) == 2000

    assert store.commit(*claims.held) == ["REST"] * 20
    sizes = sorted(batch.count(b" ") for batch in store.redis.zrange(store.keys.ended, 0, -1))
    assert sizes == [20, 500, 500, 500, 500]
    store.age()
    for _ in range(5):
        store.recover()
    assert store.redis.keys("rq:job:*") == []


def test_ended_records_whose_id_waits_again_are_not_dropped(store: Store) -> None:
    """RQ lets a record expire, or somebody deletes it; then its id is free, and what has it now is another event."""
    store.waiting("a")
    store.commit(store.one())
    store.redis.delete("rq:job:a-1")
    store.sent("a", "a-1")
    store.age()

    store.recover()
    assert store.job("a-1")["place"] == "mail"
    assert store.mailbox("a") == ["a-1"]


def test_an_event_that_failed_under_an_id_that_was_done_before_is_not_dropped_with_that(store: Store) -> None:
    # Seen to fail where only events that wait were spared: its traceback was gone after a minute.
    store.idle("a")
    store.sent("a", "mine")
    store.commit(store.one())
    store.redis.delete("rq:job:mine")
    store.fail("a", "mine")
    store.age()
    store.recover()

    assert store.job("mine")["place"] == "failed"
