"""SAQ: 100 jobs at a time in each process, on uvloop."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import redis.asyncio
import uvloop
from saq import Queue

from bench.peers import work as shared

__all__ = ["enqueue", "settings", "swing", "work"]

# Its command makes the loop itself, by the policy.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
_queue = Queue.from_url(shared.QUEUE_URL)


async def swing(context: dict[str, Any], *, name: str) -> str:
    """Be the job."""
    return await shared.swing_async(context["entities"], name)


async def _start(context: dict[str, Any]) -> None:
    context["entities"] = redis.asyncio.Redis.from_url(shared.ENTITIES_URL)


settings = {"queue": _queue, "functions": [swing], "concurrency": 100, "startup": _start}


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    asyncio.run(_enqueue(names))


async def _enqueue(names: list[str]) -> None:
    queue = Queue.from_url(shared.QUEUE_URL)
    try:
        await shared.all_at_once(lambda name: queue.enqueue("swing", name=name), names)
    finally:
        await queue.disconnect()


def work(processes: str) -> None:
    """Become the worker, in so many processes."""
    command = [sys.executable, "-m", "saq", "bench.peers.saq.settings", "--workers", processes, "--quiet"]
    os.execv(sys.executable, command)  # noqa: S606 - our own command, no shell
