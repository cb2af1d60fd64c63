"""The application of `bench.persistence`: machines whose payloads lie somewhere, and such that end or fail.

Who calls this: workers of `bench.persistence`, and that itself.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bench.machine import Pendulum
from fsm import Machine, MemoryStorage, Transition, on

__all__ = ["MEMORY", "PLACE", "Errand", "Kept", "storage_at", "why_none"]

# In the place of a URL: in the memory of the worker, which costs all that a storage costs beside a database.
MEMORY = "memory:"
# Names the database of `Kept` to its worker.
PLACE = "FSM_BENCH_STORAGE"


def why_none() -> str:
    """Say why workers cannot keep payloads in a database here; "" where they can."""
    if find_spec("fsm.storage.sql") is None or find_spec("workers.shelf") is None:
        return "workers keep payloads in Redis alone, in this version"
    if find_spec("sqlalchemy") is None:
        return "SQLAlchemy is not installed: `pip install -e '.[sql]'`"
    return ""


def storage_at(url: str) -> Any:
    """Give the storage in a database, or in memory."""
    if url == MEMORY:
        return MemoryStorage()
    return import_module("fsm.storage.sql").SqlStorage(url)


class Kept(Pendulum):
    """A pendulum whose payload lies in the database that its worker was told of; where it was told of none, in Redis.

    Whoever only sends needs no database.
    """

    storage = storage_at(os.environ[PLACE]) if PLACE in os.environ else None


class Errand(Machine[dict[str, Any]]):
    """It comes to its end, or stumbles on the way."""

    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : stumble
        open --> done : finish
        done --> [*]
    """

    @on("stumble")
    def stumble(self, t: Transition[dict[str, Any]]) -> None:
        """Fail: the event ends as failed, and the FSM has an error from then on."""
        raise ValueError(t.event)
