"""Dramatiq on Redis with its `Results` middleware: processes of eight threads each, eight being its default."""

from __future__ import annotations

import os
import sys

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers import work as shared

__all__ = ["enqueue", "swing", "work"]

_entities = redis.Redis.from_url(shared.ENTITIES_URL)
_broker = RedisBroker(url=shared.QUEUE_URL)
_broker.add_middleware(Results(backend=RedisBackend(url=shared.QUEUE_URL)))
dramatiq.set_broker(_broker)


@dramatiq.actor(store_results=True)
def swing(name: str) -> str:
    """Be the actor."""
    return shared.swing(_entities, name)


def enqueue(names: list[str]) -> None:
    """Load the queue.

    On a crash: it holds some of them.
    """
    for name in names:
        swing.send(name)


def work(mode: str) -> None:
    """Become the worker; the mode is its number of processes."""
    os.execv(  # noqa: S606 - our own command, no shell
        sys.executable,
        [sys.executable, "-m", "dramatiq", "bench.peers.dramatiq", "--processes", mode, "--threads", "8"],
    )
