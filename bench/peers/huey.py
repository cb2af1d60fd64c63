"""huey on Redis, its results kept: consumers of eight threads each, which did better than its processes."""

from __future__ import annotations

import os
import sys

import redis
from huey import RedisHuey

from bench.peers import work as shared

__all__ = ["enqueue", "queue", "swing", "work"]

_entities = redis.Redis.from_url(shared.ENTITIES_URL)
queue = RedisHuey("bench", url=shared.QUEUE_URL)


@queue.task()
def swing(name: str) -> str:
    """Be the task."""
    return shared.swing(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    for name in names:
        swing(name)


def work(consumers: str) -> None:
    """Become the consumer, in so many processes; nothing is periodic here, and no task has a line in the log."""
    for _ in range(int(consumers) - 1):
        if not os.fork():
            break
    consumer = [sys.executable, "-m", "huey.bin.huey_consumer", "bench.peers.huey.queue"]
    os.execv(sys.executable, [*consumer, "-k", "thread", "-w", "8", "-n", "-q"])  # noqa: S606 - no shell
