"""taskiq with taskiq-redis: its broker on streams, which acknowledges, and its result backend, on uvloop."""

from __future__ import annotations

import asyncio
import os
import sys

import redis.asyncio
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.peers import work as shared

__all__ = ["enqueue", "streams", "swing", "work"]

_entities = redis.asyncio.Redis.from_url(shared.ENTITIES_URL)
# From the first message on: the queue is loaded before there is a worker.
streams = RedisStreamBroker(shared.QUEUE_URL, consumer_id="0").with_result_backend(
    RedisAsyncResultBackend(shared.QUEUE_URL)
)


@streams.task(task_name="swing")
async def swing(name: str) -> str:
    """Be the task."""
    return await shared.swing_async(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    asyncio.run(_enqueue(names))


async def _enqueue(names: list[str]) -> None:
    await streams.startup()
    try:
        await shared.all_at_once(swing.kiq, names)
    finally:
        await streams.shutdown()


def work(processes: str) -> None:
    """Become the worker; 100 tasks at a time in each process is its default."""
    worker = [sys.executable, "-m", "taskiq", "worker", "bench.peers.taskiq:streams", "--workers", processes]
    os.execv(sys.executable, [*worker, "--log-level", "WARNING"])  # noqa: S606 - our own command, no shell
