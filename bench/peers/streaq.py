"""streaq: 100 tasks at a time in each process, on uvloop."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio
from streaq import Worker

from bench.peers import work as shared

__all__ = ["enqueue", "swing", "work"]

_worker = Worker(redis_url=shared.QUEUE_URL, concurrency=100, anyio_kwargs={"use_uvloop": True})
_entities = redis.asyncio.Redis.from_url(shared.ENTITIES_URL)


@_worker.task(name="swing", silent=True)
async def swing(name: str) -> str:
    """Be the task."""
    return await shared.swing_async(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    asyncio.run(_enqueue(names))


async def _enqueue(names: list[str]) -> None:
    async with Worker(redis_url=shared.QUEUE_URL) as sender:
        task = sender.task(name="swing")(swing.fn)
        await sender.enqueue_many([task.enqueue(name) for name in names])


def work(processes: str) -> None:
    """Be the worker, in so many processes."""
    for _ in range(int(processes) - 1):
        if not os.fork():
            break
    _worker.run_sync()
