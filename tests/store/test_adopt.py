"""What a claim does with ids that it finds on RQ's list: RQ's tools may have put them there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store


def test_a_foreign_job_on_our_list_goes_to_the_effects(store: Store) -> None:
    store.redis.hset("rq:job:theirs", mapping={"data": b"x", "created_at": "x", "origin": "fsm", "status": "queued"})
    store.redis.rpush("rq:queue:fsm", "theirs", "without-a-record")

    claims = store.claim()
    assert (claims.held, claims.moved) == ([], ["theirs"])
    assert store.listed("fsm-effects") == ["theirs"]
    assert store.job("theirs")["origin"] == "fsm-effects"
    assert b"rq:queue:fsm-effects" in store.redis.smembers("rq:queues")
    assert store.listed() == []


def test_an_applied_job_on_our_list_gets_its_true_status_back(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.one())
    store.redis.hset(store.keys.job("one"), "status", "queued")
    store.redis.rpush("rq:queue:fsm", "one")

    assert store.claim().held == []
    assert store.job("one")["status"] == "finished"
    assert store.mailbox("a") == []


@pytest.mark.parametrize("way", ["list", "hand", "named"])
def test_a_requeued_job_is_adopted_at_the_tail(store: Store, way: str) -> None:
    store.idle("a")
    store.fail("a", "one")
    long_ago = "2020-01-01T00:00:00.000000Z"
    store.redis.hset(store.keys.job("one"), mapping={"status": "queued", "attempt": 3, "enqueued_at": long_ago})
    if way == "hand":
        store.redis.rpush(store.keys.hand("w1"), "one")
    elif way == "list":
        store.redis.rpush("rq:queue:fsm", "one")

    claims = store.claim(found=["one"] if way == "named" else [])
    assert claims.held == []
    assert store.mailbox("a") == ["one"]
    job = store.job("one")
    assert (job["place"], job["status"]) == ("mail", "queued")
    # Seen to fail with the time of RQ's tools left there: a row that is ahead of Redis would tell that it has ended.
    assert job["enqueued_at"] > long_ago
    assert not {"exc_info", "result", "ended_at", "started_at", "attempt"} & job.keys()
    assert store.redis.ttl(store.keys.job("one")) == -1
    fsm = store.one()
    assert [(mail.job_id, mail.place) for mail in fsm.mail] == [("one", b"mail")]
    assert not store.redis.exists(store.keys.hand("w1"))


def test_a_requeued_job_that_a_stock_worker_has_begun_is_adopted(store: Store) -> None:
    store.idle("a")
    store.fail("a", "one")
    store.redis.hset(store.keys.job("one"), mapping={"status": "started", "ended_at": ""})

    store.claim(found=["one"], name="a")
    assert store.mailbox("a") == ["one"]


def test_a_job_that_failed_while_a_stock_worker_began_it_is_not_adopted(store: Store) -> None:
    store.idle("a")
    store.fail("a", "one")
    store.redis.hset(store.keys.job("one"), "status", "started")

    store.claim(found=["one"], name="a")
    assert store.mailbox("a") == []


def test_a_requeued_job_whose_fsm_has_ended_fails_again(store: Store) -> None:
    store.idle("a")
    store.fail("a", "one")
    store.sent("a", "two")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))
    store.redis.hset(store.keys.job("one"), mapping={"status": "queued", "ended_at": ""})
    store.redis.zrem("rq:failed:fsm", "one")
    store.redis.rpush("rq:queue:fsm", "one")

    store.claim()
    job = store.job("one")
    assert (job["status"], job["place"]) == ("failed", "failed")
    assert "FINISHED shut" in job["exc_info"]
    assert store.redis.zscore("rq:failed:fsm", "one")
    assert store.mailbox("a") == []


def test_a_requeued_job_of_another_namespace_on_a_shared_list_goes_home(
    store: Store, another: Callable[[str], Store]
) -> None:
    other = another("other")
    other.idle("a")
    other.fail("a", "one")
    store.redis.hset(store.keys.job("one"), "status", "queued")
    store.redis.rpush("rq:queue:fsm", "one")

    store.claim()
    assert other.mailbox("a") == ["one"]
    assert [mail.job_id for mail in other.one().mail] == ["one"]


def test_undeliverable_mail_that_is_requeued_belongs_to_the_fsm_of_today(store: Store) -> None:
    store.redis.hset(
        store.keys.job("one"),
        mapping={
            "fsm": "a",
            "ns": "default",
            "event": "note",
            "born": "",
            "place": "failed",
            "status": "queued",
            "data": "x",
        },
    )
    store.idle("a")
    store.redis.rpush("rq:queue:fsm", "one")

    store.claim()
    assert store.job("one")["born"] == store.snapshot("a")["born"]
    assert store.mailbox("a") == ["one"]
