"""Celery with Redis as broker and result backend: two forked processes, or a pool of threads.

The prefetch multiplier is raised, as its guide advises for many short tasks, and what workers tell each other (gossip,
mingle, heartbeat) is off.
"""

from __future__ import annotations

import os
import sys

import redis
from celery import Celery

from bench.peers import work as shared

__all__ = ["app", "enqueue", "swing", "work"]

_PREFETCH = 64
_QUIET = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
_POOLS = {"prefork": ("--pool", "prefork", "-c", "2"), "threads": ("--pool", "threads", "-c", "16")}

_entities = redis.Redis.from_url(shared.ENTITIES_URL)
app = Celery("bench", broker=shared.QUEUE_URL, backend=shared.QUEUE_URL)
app.conf.update(worker_prefetch_multiplier=_PREFETCH, broker_connection_retry_on_startup=True)
# With a result backend it would subscribe to the result of each task, which nobody here waits for.
_feeder = Celery("bench", broker=shared.QUEUE_URL)


@app.task(name="swing")
def swing(name: str) -> str:
    """Be the task."""
    return shared.swing(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    with _feeder.producer_or_acquire() as producer:
        for name in names:
            _feeder.send_task("swing", (name,), producer=producer)


def work(mode: str) -> None:
    """Become the worker."""
    os.execv(  # noqa: S606 - our own command, no shell
        sys.executable, [sys.executable, "-m", "celery", "-A", "bench.peers.celery", "worker", *_POOLS[mode], *_QUIET]
    )
