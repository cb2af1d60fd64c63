"""The peer: the same work as an ordinary RQ job, run by RQ's own `SimpleWorker`, its fastest.

A job takes the entity's Redis lock, reads its hash, changes state and payload, writes them back and gives the lock
back: what one writes by hand to have one job at a time per entity. RQ keeps its records and registries as it always
does. JSON serializer, burst mode, no fork, no log line per job, hiredis: nothing slows it that one could turn off.

Who calls this: `bench.quick` loads its queue and starts `python -m bench.peer URL`, which ends when the queue is empty.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import orjson
import redis
from rq import Queue, SimpleWorker
from rq.job import get_current_job
from rq.serializers import JSONSerializer

from bench.machine import FIRST_COUNT, new_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["applied", "create", "enqueue", "swing"]

_QUEUE = "bench-peer"
_LOCK_S = 15


def swing(name: str) -> None:
    """Do for one entity what a transition of `Pendulum` does for one FSM."""
    job = get_current_job()
    if job is None:
        message = "swing is a job: it runs in an RQ worker"
        raise RuntimeError(message)
    client = job.connection
    with client.lock(f"bench:lock:{name}", timeout=_LOCK_S):
        fields = client.hgetall(f"bench:entity:{name}")
        payload = orjson.loads(fields[b"payload"])
        payload["count"] += 1
        state = "left" if fields[b"state"] == b"right" else "right"
        client.hset(f"bench:entity:{name}", mapping={"state": state, "payload": orjson.dumps(payload)})


def create(client: redis.Redis, names: Iterable[str]) -> None:
    """Write the entities, each in its first state.

    On a crash: some are written, some are not; they lie in the benchmark's own Redis.
    """
    payload = orjson.dumps(new_payload())
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hset(f"bench:entity:{name}", mapping={"state": "left", "payload": payload})
        pipeline.execute()


def enqueue(client: redis.Redis, names: Sequence[str]) -> list[str]:
    """Load the queue with one job for each name; their ids come back.

    On a crash: the queue holds some of them.
    """
    queue = _queue(client)
    jobs = queue.enqueue_many([Queue.prepare_data(swing, (name,)) for name in names])
    return [job.id for job in jobs]


def applied(client: redis.Redis, names: Iterable[str]) -> int:
    """Count what was done to these entities since `create`."""
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hget(f"bench:entity:{name}", "payload")
        return sum(orjson.loads(raw)["count"] - FIRST_COUNT for raw in pipeline.execute())


def _queue(client: redis.Redis) -> Queue:
    return Queue(_QUEUE, connection=client, serializer=JSONSerializer)


def main(url: str) -> None:
    """Work until the queue is empty."""
    client = redis.Redis.from_url(url)
    SimpleWorker([_queue(client)], connection=client, serializer=JSONSerializer).work(
        burst=True, logging_level="WARNING"
    )


if __name__ == "__main__":
    main(sys.argv[1])
