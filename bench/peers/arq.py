"""arq: 100 jobs at a time in each process, on uvloop.

It looks for jobs every half a second by default, which would bound it to 1,000 a second here; so it looks at once.
"""

from __future__ import annotations

import asyncio
import os

import redis.asyncio
import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from bench.peers import work as shared

__all__ = ["enqueue", "swing", "work"]

_POLL_S = 0.01


async def swing(context: dict[str, redis.asyncio.Redis], name: str) -> str:
    """Be the job."""
    return await shared.swing_async(context["entities"], name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    asyncio.run(_enqueue(names))


async def _enqueue(names: list[str]) -> None:
    pool = await create_pool(RedisSettings.from_dsn(shared.QUEUE_URL))
    try:
        await shared.all_at_once(lambda name: pool.enqueue_job("swing", name), names)
    finally:
        await pool.aclose()


async def _start(context: dict[str, redis.asyncio.Redis]) -> None:
    context["entities"] = redis.asyncio.Redis.from_url(shared.ENTITIES_URL)


def work(processes: str) -> None:
    """Be the worker, in so many processes."""
    for _ in range(int(processes) - 1):
        if not os.fork():
            break
    asyncio.set_event_loop(uvloop.new_event_loop())
    Worker(
        [swing],
        redis_settings=RedisSettings.from_dsn(shared.QUEUE_URL),
        max_jobs=100,
        poll_delay=_POLL_S,
        log_results=False,
        on_startup=_start,
    ).run()
