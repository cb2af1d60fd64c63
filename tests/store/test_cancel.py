from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store


def test_cancelled_comes_to_the_worker_as_such(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")

    assert store.cancel("one") == "CANCELLED"
    assert store.redis.zscore("rq:canceled:fsm", "one")
    assert [(mail.job_id, mail.status) for mail in store.one().mail] == [("one", b"canceled"), ("two", b"queued")]


def test_ended_where_it_was_applied_or_failed(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.one())
    store.sent("a", "two")
    store.commit(store.work(store.one()).fail())

    assert store.cancel("one") == "ENDED"
    assert store.cancel("two") == "ENDED"
    assert store.job("one")["status"] == "finished"


def test_ended_where_it_was_applied_even_if_rq_calls_it_cancelled(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.one())
    store.redis.hset("rq:job:one", "status", "canceled")

    assert store.cancel("one") == "ENDED"


def test_held_where_a_worker_may_be_applying_it(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.one()

    assert store.cancel("one") == "HELD"
    assert store.job("one")["status"] == "queued"


def test_held_where_a_worker_has_it_even_if_rq_calls_it_cancelled(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.one()
    store.redis.hset("rq:job:one", "status", "canceled")

    assert store.cancel("one") == "HELD"


def test_held_where_it_is_urgent_mail_in_hand(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    work = store.work(store.one()).apply()
    work.block.record("one--h1", "note")
    work.block.owe("one--h1")
    store.commit(work)
    store.one()

    assert store.cancel("one--h1") == "HELD"


def test_cancelled_behind_what_a_claim_can_take(store: Store) -> None:
    store.idle("a")
    store.send_all([store.letter("a", job_id=f"j{i}") for i in range(101)])
    store.one()

    assert store.cancel("j99") == "HELD"
    assert store.cancel("j100") == "CANCELLED"


def test_unknown_where_there_is_no_record_of_this_namespace(store: Store, another: Callable[[str], Store]) -> None:
    other = another("other")
    other.idle("a")
    other.sent("a", "one")
    store.redis.hset("rq:job:theirs", mapping={"data": b"x", "status": "queued"})

    assert store.cancel("nothing") == "UNKNOWN"
    assert store.cancel("theirs") == "UNKNOWN"
    assert store.cancel("one") == "UNKNOWN"
    assert other.cancel("one") == "CANCELLED"


def test_repeated_it_is_cancelled_again_also_when_the_worker_has_seen_it(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.cancel("one")
    assert store.cancel("one") == "CANCELLED"

    work = store.work(store.one())
    work.block.take("one")
    work.block.gone("one")
    store.commit(work)
    assert store.cancel("one") == "CANCELLED"
