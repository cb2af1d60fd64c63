"""What is read out of Redis: when jobs were done, what scripts and server cost, how much memory is used.

Who calls this: `bench.lane`, and the benchmarks. Rates come from the times that stand in the job records, RQ's
`started_at` and `ended_at`, and not from the benchmark's own clock: neither start-up nor the way to notice the end is
in them.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from bench.worker import BenchError
from fsm.store.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

__all__ = ["drop_traces", "rate", "script_us", "server_us", "settled_memory", "take_spans"]

_PAGE = 1000

Span = tuple[datetime, datetime]


def take_spans(client: redis.Redis, job_ids: Sequence[str]) -> list[Span]:
    """Read when each job began and ended, and drop its record.

    They are dropped by us, since they would go by themselves only after a minute: no run is to pay for the one before.

    On a crash: some records are gone; they lie in the benchmark's own Redis.

    Raises:
        BenchError: A job has not ended.
    """
    spans = []
    for first in range(0, len(job_ids), _PAGE):
        part = job_ids[first : first + _PAGE]
        with client.pipeline(transaction=False) as pipeline:
            for job_id in part:
                pipeline.hmget(Keys.job(job_id), "started_at", "ended_at")
            pipeline.unlink(*map(Keys.job, part), *map(Keys.result, part))
            replies = pipeline.execute()
        for job_id, times in zip(part, replies, strict=False):
            if not all(times):
                raise BenchError(f"job {job_id} has not ended, or its record is gone: what ran was not the backlog")
            began, ended = (datetime.fromisoformat(time.decode()) for time in times)
            spans.append((began, ended))
    return spans


def rate(spans: Sequence[Span]) -> float:
    """Give jobs per second, from the first that was taken to the last that was written.

    `ended_at` is the time at which the writing of the end begins. So what ended last (one job with RQ, one commit with
    us) is not counted: all others were written by then. Only a backlog of one single commit is counted whole.

    >>> at = lambda second: datetime(2026, 1, 1, 0, 0, second)
    >>> rate([(at(0), at(1)), (at(0), at(1)), (at(1), at(2))])
    1.0
    """
    last = max(ended for _, ended in spans)
    done = sum(ended < last for _, ended in spans) or len(spans)
    seconds = (last - min(began for began, _ in spans)).total_seconds()
    return done / max(seconds, 1e-6)


def script_us(client: redis.Redis) -> float:
    """Give the µs that Redis has spent in scripts, all commands in them included."""
    stats = client.info("commandstats")
    return float(sum(stats[name]["usec"] for name in ("cmdstat_eval", "cmdstat_evalsha") if name in stats))


def server_us(client: redis.Redis) -> float:
    """Give the µs of processor time that Redis has used: scripts, sockets, parsing, append-only file."""
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6


def drop_traces(client: redis.Redis, keys: Keys) -> None:
    """Drop what is kept of transitions for a while only: log, registry of ended jobs, list of the queue.

    On a crash: some are gone.
    """
    queue = keys.default_queue
    client.unlink(keys.log, keys.ended, keys.rq_registry("finished", queue), keys.rq_list(queue))


def settled_memory(client: redis.Redis) -> int:
    """Give `used_memory` when what was unlinked is freed."""
    while (memory := client.info("memory"))["lazyfree_pending_objects"]:
        pass
    return int(memory["used_memory"])
