"""What somebody else may have put into our queues: a module that must not be imported, and records that ask for it.

Imported by a worker, this module writes down so; so does each of its functions, when it is called. The pickled parts
of a record do, when they are loaded.
"""

from __future__ import annotations

import base64
import os
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

# Tells a process where to write, and that it is none of the test's own.
BOOK = "FSM_TEST_BOOK"
FUNC = f"{__name__}.run"


def note(what: str) -> None:
    """Write a line into the book, where there is one."""
    if path := os.environ.get(BOOK):
        with Path(path).open("a", encoding="utf-8") as book:
            book.write(f"{what}\n")


def run(*_args: Any, **_kwargs: Any) -> None:
    """Stand for a function that somebody chose: a job's, or a callback's."""
    note("called")


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.path), 0o777, True)


def pickled(path: Path) -> bytes:
    """Give bytes that make this directory when they are unpickled."""
    return pickle.dumps((FUNC, None, (Trap(path),), {}))


def plant(client: redis.Redis, job_id: str, trap: Path, queue: str, **fields: Any) -> None:
    """Write a record as another RQ program would that trusts whoever reads it: pickled, and with callbacks."""
    client.hset(
        f"rq:job:{job_id}",
        mapping={
            "data": pickled(trap),
            "meta": pickled(trap),
            "result": pickled(trap),
            "origin": queue,
            "status": "queued",
            "description": "harmless",
            "created_at": "2026-01-01T00:00:00.000000Z",
            "timeout": 180,
            **{f"{kind}_callback_name": FUNC for kind in ("success", "failure", "stopped")},
            **fields,
        },
    )
    stream = {"type": 1, "return_value": base64.b64encode(pickled(trap)).decode()}
    client.xadd(f"rq:results:{job_id}", stream)


def strand(client: redis.Redis, job_id: str, queue: str) -> None:
    """Leave a job where RQ's upkeep finds it: started and over, and on its way to a worker for too long."""
    client.zadd(f"rq:wip:{queue}", {f"{job_id}:1": 1})
    client.rpush(f"rq:queue:{queue}:intermediate", job_id)
    client.set(f"rq:queue:{queue}:intermediate:first_seen:{job_id}", time.time() - 600)


note("imported")
