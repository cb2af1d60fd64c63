"""What is cleaned of RQ's registries, and whose callbacks are not run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from workers import upkeep

if TYPE_CHECKING:
    import fakeredis

CALLED: list[str] = []


def note(job: Job, *_: object) -> None:
    """Stand for a failure callback of somebody else's."""
    CALLED.append(job.id)


@pytest.fixture
def queue(fake_redis: fakeredis.FakeRedis) -> Queue:
    CALLED.clear()
    return Queue("fsm", connection=fake_redis, serializer=JSONSerializer)


@pytest.mark.parametrize("callback", [f"{__name__}.note", "no.such.module"])
def test_a_foreign_job_that_was_abandoned_goes_to_the_queue_of_effects_and_nothing_of_it_runs_here(
    fake_redis: fakeredis.FakeRedis, queue: Queue, callback: str
) -> None:
    job = Job.create("shop.boom", connection=fake_redis, serializer=JSONSerializer, id="foreign", origin="fsm")
    job._failure_callback_name = callback
    job.save()
    fake_redis.hset(job.key, "status", "started")
    fake_redis.zadd("rq:wip:fsm", {"foreign:execution": 1})

    upkeep.clean(queue)

    assert CALLED == []
    assert fake_redis.hget("rq:job:foreign", "origin") == b"fsm-effects"
    assert fake_redis.zrange("rq:wip:fsm", 0, -1) == []
    assert fake_redis.zrange("rq:wip:fsm-effects", 0, -1) == [b"foreign:execution"]


def test_events_of_ours_are_left_to_our_own_recovery(fake_redis: fakeredis.FakeRedis, queue: Queue) -> None:
    fake_redis.hset("rq:job:ours", mapping={"fsm": "a", "data": "[]", "place": "mail", "status": "queued"})
    fake_redis.zadd("rq:wip:fsm", {"ours:fsm": 1, "gone:execution": 1})

    upkeep.clean(queue)

    assert fake_redis.zrange("rq:wip:fsm", 0, -1) == []
    assert fake_redis.zrange("rq:wip:fsm-effects", 0, -1) == []
    assert fake_redis.hget("rq:job:ours", "place") == b"mail"


def test_executions_that_are_renewed_are_left_alone(fake_redis: fakeredis.FakeRedis, queue: Queue) -> None:
    fake_redis.hset("rq:job:foreign", mapping={"data": "[]", "status": "started"})
    fake_redis.zadd("rq:wip:fsm", {"foreign:execution": 9_999_999_999})

    upkeep.clean(queue)

    assert fake_redis.zrange("rq:wip:fsm", 0, -1) == [b"foreign:execution"]


def test_what_a_stock_worker_took_and_never_began_goes_back_to_the_list_and_is_not_ended_there(
    fake_redis: fakeredis.FakeRedis, queue: Queue
) -> None:
    """Seen to fail with RQ's own clean-up of this list: the job has failed, and its web-hook was called."""
    hook = '[{"url":"http://127.0.0.1:1/","job_status":"failed"}]'
    fake_redis.hset("rq:job:j", mapping={"data": "[]", "status": "queued", "origin": "fsm", "webhooks": hook})
    fake_redis.rpush("rq:queue:fsm:intermediate", "j", b"\xff", "new")
    for job_id in ("j", "\\xff"):
        fake_redis.set(f"rq:queue:fsm:intermediate:first_seen:{job_id}", time.time() - 61)

    upkeep.clean(queue)

    assert fake_redis.lrange("rq:queue:fsm", 0, -1) == [b"\xff", b"j"]
    assert fake_redis.lrange("rq:queue:fsm:intermediate", 0, -1) == [b"new"]
    assert fake_redis.hget("rq:job:j", "status") == b"queued"
    assert fake_redis.keys("*first_seen*") == [b"rq:queue:fsm:intermediate:first_seen:new"]
