"""Who is there: heartbeats of our workers, those that went silent, strangers on our queues, and how a worker sleeps.

Who calls this: the workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.store.codec import text, whole
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SILENT_AFTER_MS",
    "HostWord",
    "beat",
    "drained_at",
    "heard",
    "host",
    "is_stranger",
    "leave",
    "leave_host",
    "on_queue",
    "silent",
    "sleep",
    "time_ms",
]

# Heartbeats come at least every 15 s; after this long without one a worker is taken for dead.
SILENT_AFTER_MS = 30_000


@dataclass(frozen=True, slots=True)
class HostWord:
    """What Redis says to a worker of a host.

    Args:
        is_draining: The host takes no new work, and this worker is to end.
        next_end_s: Seconds until another host is taken to be gone whose queues this worker would take over; 0 in the
            seconds after that; `None` where there is none.
        queues: Queues of single hosts that it is to serve beside its own: those of its host, then those of others.
    """

    is_draining: bool = False
    next_end_s: float | None = None
    queues: tuple[str, ...] = ()


def _ignored(_reply: Any) -> None:
    """Read nothing from a reply."""


def beat(  # noqa: PLR0913 - the parts of one heartbeat
    keys: Keys, worker: str, number: int, *, done: int, failed: int, seconds: float
) -> Request[None]:
    """Note that a worker lives, and what it did since it said so last; `number` grows with each heartbeat."""
    names = (keys.workers, Keys.rq_worker(worker))
    return Request(_ignored, "beat", names, [worker, keys.namespace, done, failed, round(seconds, 6), number])


def leave(keys: Keys, workers: Sequence[str]) -> Request[None]:
    """Forget workers: one that ends, or those that were seen to be dead."""
    return Request(_ignored, commands=[("ZREM", keys.workers, *workers)])


def host(  # noqa: PLR0913 - the parts of what a worker says of its host
    keys: Keys, name: str, worker: str, born_ms: int, *, lease_ms: int, queues: Sequence[str]
) -> Request[HostWord]:
    """Note that a worker keeps its host alive, for as long as its lease.

    Args:
        keys: Of the namespace.
        name: Of the host.
        worker: Name of the worker.
        born_ms: Its birth, by the clock of Redis: a drain that began later counts for it.
        lease_ms: Its lease.
        queues: Queues that it serves.
    """
    return Request(_read_word, "host", _host_keys(keys, name), [keys.prefix, name, worker, born_ms, lease_ms, *queues])


def leave_host(keys: Keys, name: str, worker: str, born_ms: int) -> Request[None]:
    """Note that a worker ends; with the last one its host is gone."""
    return Request(_ignored, "host", _host_keys(keys, name), [keys.prefix, name, worker, born_ms, 0])


def _host_keys(keys: Keys, name: str) -> tuple[str, ...]:
    return keys.hosts, keys.draining, keys.places, keys.crew(name)


def _read_word(reply: list[Any]) -> HostWord:
    next_end_ms = int(reply[1])
    return HostWord(
        reply[0] == b"DRAIN",
        None if next_end_ms < 0 else next_end_ms / 1000,
        tuple(text(queue) for queue in reply[2:]),
    )


def drained_at(keys: Keys, name: str) -> Request[int | None]:
    """Read since when a host drains, in ms by the clock of Redis; None where it does not."""
    return Request(lambda reply: None if reply is None else whole(reply), commands=[("HGET", keys.draining, name)])


def time_ms() -> Request[int]:
    """Read the clock of Redis."""
    return Request(lambda reply: int(reply[0]) * 1000 + int(reply[1]) // 1000, commands=[("TIME",)])


def silent(keys: Keys, before_ms: int) -> Request[list[str]]:
    """Give workers that were not heard of since then, by the clock of Redis; ten at most."""
    command = ("ZRANGEBYSCORE", keys.workers, "-inf", before_ms, "LIMIT", 0, 10)
    return Request(lambda reply: [text(name) for name in reply], commands=[command])


def heard(keys: Keys, workers: Sequence[str]) -> Request[list[int | None]]:
    """Read when workers were last heard of, in ms by the clock of Redis; None for one that is not known."""
    command = ("ZMSCORE", keys.workers, *workers)
    return Request(lambda reply: [None if score is None else int(float(score)) for score in reply], commands=[command])


def on_queue(queue: str) -> Request[list[str]]:
    """Give the keys of RQ's records of all workers on a queue."""
    command = ("SMEMBERS", f"rq:workers:{queue}")
    return Request(lambda reply: sorted(text(key) for key in reply), commands=[command])


def is_stranger(record: str) -> Request[bool]:
    """Whether a worker, by the key of RQ's record, lives and is not one of ours.

    Ours have a `life` from their birth on. What `beat` writes comes later, and never where one is killed before.
    """
    command = ("HMGET", record, "birth", "life")
    return Request(lambda reply: reply[0] is not None and reply[1] is None, commands=[command])


def sleep(keys: Keys, worker: str, queues: Sequence[str], seconds: float) -> Request[tuple[str, str]]:
    """Sleep until an id comes on RQ's list of one of these queues.

    On a crash just then: with one queue the id lies in the worker's hand, which `recover` empties; with several it is
    lost, and `ready`, which is the truth about who waits, still has its FSM. (Only an id that RQ's tools have just
    requeued is nowhere else. RQ's own workers lose it at the same place.)

    Returns:
        The id and its queue, or "" and "" where none came. With several queues `claim` is to be told of it.
    """
    lists = [Keys.rq_list(queue) for queue in queues]
    if len(lists) == 1:
        command = ("BLMOVE", lists[0], keys.hand(worker), "LEFT", "RIGHT", seconds)
        return Request(lambda reply: (text(reply), queues[0]) if reply else ("", ""), commands=[command])

    def read(reply: Any) -> tuple[str, str]:
        return (text(reply[1]), Keys.queue_of(text(reply[0]))) if reply else ("", "")

    return Request(read, commands=[("BLPOP", *lists, seconds)])
