"""What a worker of ours cleans of RQ's registries: as RQ does, without running anybody's callbacks.

RQ's own cleaning of what was started and is over calls the failure callback of each job, by the name in its record:
code that names in Redis choose would run in a process that runs transitions, and its time-out would take the alarm of
ours. Our events are recovered by our own scripts. What else is found there, a foreign job or an effect on a queue of
events, goes to the queue of effects, where a worker of RQ's cleans it up. For the same reason a job that a stock worker
took and never began goes back to its list, where RQ would end it as failed, and call the web-hooks in its record.

Who calls this: the worker, every ten minutes, on one host at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rq.registry import DeferredJobRegistry, FailedJobRegistry, FinishedJobRegistry
from rq.worker_registration import clean_worker_registry

from fsm.machine.settings import EFFECTS_QUEUE
from fsm.store.keys import Keys

if TYPE_CHECKING:
    from rq import Queue

__all__ = ["clean"]

_MOST = 1000


def clean(queue: Queue) -> None:
    """Clean the registries of one queue.

    On a crash: the rest is cleaned next time.
    """
    _hand_over(queue)
    for registry in (FinishedJobRegistry, FailedJobRegistry, DeferredJobRegistry):
        registry(queue=queue).cleanup()
    clean_worker_registry(queue)
    _put_back(queue)


def _hand_over(queue: Queue) -> None:
    """Empty RQ's registry of started jobs of what is over."""
    redis: Any = queue.connection  # redis-py types each reply as all that it could ever be
    wip = queue.started_job_registry.key
    for member, score in redis.zrangebyscore(wip, "-inf", time.time() - 1, 0, _MOST, withscores=True):
        job_id = (member.rpartition(b":")[0] or member).decode("utf-8", "backslashreplace")
        ours, data = redis.hmget(Keys.job(job_id), "fsm", "data")
        if data is not None and ours is None:
            redis.hset(Keys.job(job_id), "origin", EFFECTS_QUEUE)
            redis.zadd(Keys.rq_registry("wip", EFFECTS_QUEUE), {member: score})
        redis.zrem(wip, member)


def _put_back(queue: Queue) -> None:
    """Put what stock workers took and did not begin within a minute back on RQ's list: a claim knows what it is.

    On a crash: an id is on both lists, and an entry too many is harmless.
    """
    redis: Any = queue.connection  # as above
    taken = queue.intermediate_queue
    for raw in redis.lrange(taken.key, 0, _MOST - 1):
        job_id = raw.decode("utf-8", "backslashreplace")
        # RQ's own note of when it was first seen there, which it keeps for a day.
        if not taken.set_first_seen(job_id) and taken.should_be_cleaned_up(job_id):
            redis.lpush(queue.key, raw)
            redis.lrem(taken.key, 1, raw)
            redis.delete(taken.get_first_seen_key(job_id))
