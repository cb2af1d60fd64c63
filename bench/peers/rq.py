"""RQ as it comes: `SimpleWorker`, its fastest, in one process; or `Worker`, which forks for each job, in two."""

from __future__ import annotations

import redis
from rq import Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer
from rq.worker_pool import WorkerPool

from bench.peers import work as shared

__all__ = ["enqueue", "swing", "work"]

_entities = redis.Redis.from_url(shared.ENTITIES_URL)
_client = redis.Redis.from_url(shared.QUEUE_URL)
_queue = Queue("bench", connection=_client, serializer=JSONSerializer)


def swing(name: str) -> str:
    """Be the job."""
    return shared.swing(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    _queue.enqueue_many([Queue.prepare_data("bench.peers.rq.swing", (name,)) for name in names])


def work(mode: str) -> None:
    """Be the worker, or the pool of two."""
    if mode == "simple":
        SimpleWorker([_queue], connection=_client, serializer=JSONSerializer).work(logging_level="WARNING")
    else:
        WorkerPool([_queue], connection=_client, num_workers=2, worker_class=Worker, serializer=JSONSerializer).start(
            logging_level="WARNING"
        )
