"""Who is there: heartbeats of our workers, those that went silent, strangers on our queues, and how a worker sleeps.

Who calls this: the workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm.store.codec import text
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["beat", "leave", "silent", "sleep", "strangers"]


def _ignored(_reply: Any) -> None:
    """Read nothing from a reply."""


def beat(  # noqa: PLR0913 - three counters
    keys: Keys, worker: str, now_ms: int, *, done: int, failed: int, seconds: float
) -> Request[None]:
    """Note that a worker lives, and what it did since it said so last."""
    record = Keys.rq_worker(worker)
    commands: list[tuple[Any, ...]] = [("ZADD", keys.workers, now_ms, worker)]
    if done:
        commands.append(("HINCRBY", record, "successful_job_count", done))
    if failed:
        commands.append(("HINCRBY", record, "failed_job_count", failed))
    if seconds:
        commands.append(("HINCRBYFLOAT", record, "total_working_time", round(seconds, 6)))
    return Request(_ignored, commands=commands)


def leave(keys: Keys, workers: Sequence[str]) -> Request[None]:
    """Forget workers: one that ends, or those that were seen to be dead."""
    return Request(_ignored, commands=[("ZREM", keys.workers, *workers)])


def silent(keys: Keys, before_ms: int) -> Request[list[str]]:
    """Give workers that were not heard of since then, ten at most."""
    command = ("ZRANGEBYSCORE", keys.workers, "-inf", before_ms, "LIMIT", 0, 10)
    return Request(lambda reply: [text(name) for name in reply], commands=[command])


def strangers(keys: Keys, queue: str) -> Request[list[str]]:
    """Give RQ's names of workers on a queue that are not ours: stock workers, and what they may do to our jobs."""

    def read(replies: list[Any]) -> list[str]:
        ours = {Keys.rq_worker(text(name)) for name in replies[0]}
        return sorted({text(key) for key in replies[1]} - ours)

    return Request(read, commands=[("ZRANGE", keys.workers, 0, -1), ("SMEMBERS", f"rq:workers:{queue}")])


def sleep(keys: Keys, worker: str, queues: Sequence[str], seconds: float) -> Request[str]:
    """Sleep until an id comes on RQ's list of one of these queues.

    On a crash just then: with one queue the id lies in the worker's hand, which `recover` empties; with several it is
    lost, and `ready`, which is the truth about who waits, still has its FSM.

    Returns:
        The id with several queues, which `claim` is to be told of; else "".
    """
    lists = [Keys.rq_list(queue) for queue in queues]
    if len(lists) == 1:
        return Request(lambda _: "", commands=[("BLMOVE", lists[0], keys.hand(worker), "LEFT", "RIGHT", seconds)])
    return Request(lambda reply: text(reply[1]) if reply else "", commands=[("BLPOP", *lists, seconds)])
