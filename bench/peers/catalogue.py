"""The peers, each with what it is given: the setting that one would use on two cores, or the best that was found.

Who calls this: `bench.throughput`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """One candidate.

    Args:
        name: As tables show it.
        package: What is installed for it, and the key of its environment.
        work: Name and mode for `bench.peers.door work`.
        guess_per_s: Jobs a second, roughly: the size of its first drain. Later ones go by what was measured.
        setting: Its concurrency and lock, for readers.
        counted: A sorted set that holds what is done, where HMSET does not count it.
        group: `rq`, `python` or `bullmq`: with which target it is compared.
        told: Packages whose versions are told.
    """

    name: str
    package: str
    work: tuple[str, ...]
    guess_per_s: int
    setting: str
    told: tuple[str, ...]
    counted: str = ""
    group: str = "python"


PEERS = (
    Peer("RQ SimpleWorker", "rq", ("rq", "simple"), 400, "1 process, lock", ("rq", "redis"), group="rq"),
    Peer("RQ Worker", "rq", ("rq", "fork"), 100, "2 processes, a fork a job, lock", ("rq", "redis"), group="forking"),
    Peer(
        "Celery prefork", "celery", ("celery", "prefork"), 1000, "2 processes, prefetch 64, lock", ("celery", "redis")
    ),
    Peer("Celery threads", "celery", ("celery", "threads"), 700, "16 threads, prefetch 64, lock", ("celery", "redis")),
    Peer("Dramatiq", "dramatiq", ("dramatiq", "2"), 1500, "2 processes of 8 threads, lock", ("dramatiq", "redis")),
    Peer("huey", "huey", ("huey", "2"), 1500, "2 processes of 8 threads, lock", ("huey", "redis")),
    Peer("arq", "arq", ("arq", "2"), 1000, "2 processes of 100 jobs, lock", ("arq", "redis")),
    Peer("SAQ", "saq", ("saq", "2"), 1500, "2 processes of 100 jobs, lock", ("saq", "redis")),
    Peer("streaq", "streaq", ("streaq", "2"), 1500, "2 processes of 100 tasks, lock", ("streaq", "coredis", "redis")),
    Peer(
        "taskiq",
        "taskiq-redis",
        ("taskiq", "2"),
        1000,
        "2 processes of 100 tasks, streams, lock",
        ("taskiq", "taskiq-redis", "redis"),
    ),
    Peer(
        "BullMQ",
        "bullmq",
        ("bullmq",),
        4000,
        "1 process of Node, 100 jobs, no lock",
        ("bullmq", "ioredis", "node"),
        counted="bull:bench:completed",
        group="bullmq",
    ),
)
