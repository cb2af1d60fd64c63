"""The work that every peer does for an entity, plain and for asyncio: lock, read, change, write, unlock.

It is what one writes by hand to have one job at a time per entity: redis-py's own lock (SET NX PX, and a script that
compares and deletes), HGETALL, HMSET. HMSET is HSET by its older name: no Python queue here uses it, so Redis counts
with it, at no price, how many jobs have been done.

Who calls this: the modules of the peers, in their own interpreters.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import redis
    import redis.asyncio

__all__ = ["ENTITIES_URL", "QUEUE_URL", "all_at_once", "swing", "swing_async"]

# Two databases of one server: a peer's queue is flushed after each drain, the entities stay.
QUEUE_URL = os.environ.get("BENCH_QUEUE_URL", "")
ENTITIES_URL = os.environ.get("BENCH_ENTITIES_URL", "")
_LOCK_S = 15
_AT_ONCE = 50


def swing(client: redis.Redis, name: str) -> str:
    """Do for one entity what a transition of `bench.machine.Pendulum` does for one FSM; its new state comes back."""
    with client.lock(f"bench:lock:{name}", timeout=_LOCK_S):
        state, changed = _changed(client.hgetall(f"bench:entity:{name}"))
        client.execute_command("HMSET", f"bench:entity:{name}", *changed)
    return state


async def swing_async(client: redis.asyncio.Redis, name: str) -> str:
    """Do the same on an event loop."""
    async with client.lock(f"bench:lock:{name}", timeout=_LOCK_S):
        state, changed = _changed(await client.hgetall(f"bench:entity:{name}"))
        await client.execute_command("HMSET", f"bench:entity:{name}", *changed)
    return state


def _changed(fields: dict[bytes, bytes]) -> tuple[str, tuple[str | bytes, ...]]:
    payload = orjson.loads(fields[b"payload"])
    payload["count"] += 1
    state = "left" if fields[b"state"] == b"right" else "right"
    return state, ("state", state, "payload", orjson.dumps(payload))


async def all_at_once(send: Callable[[str], Awaitable[object]], names: Sequence[str]) -> None:
    """Send one job for each name, many at a time, for queues that send one by one."""
    for first in range(0, len(names), _AT_ONCE):
        await asyncio.gather(*map(send, names[first : first + _AT_ONCE]))
