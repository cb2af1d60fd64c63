"""The database of a run whose machines have a storage."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fsm.storage.sql import SqlStorage
from tests.storage.conftest import Postgres, _programs

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def database(kind: str, directory: Path) -> Iterator[SqlStorage | None]:
    """Make the database of a run, with its tables; none where payloads lie in Redis.

    Args:
        kind: "sqlite", "postgres" or "".
        directory: Of the run.
    """
    if not kind:
        yield None
        return
    if kind == "sqlite":
        with storage_at(f"sqlite:///{directory}/chaos.db") as storage:
            yield storage
        return
    found = _programs()
    if found is None:
        problem = "there is no initdb here: install PostgreSQL, or say --storage sqlite"
        raise SystemExit(problem)
    # Short, for the path of a socket; and where another user than root may go.
    place = Path(tempfile.mkdtemp(prefix="fsm-pg-"))
    server = Postgres(found, place)
    server.start()
    try:
        with storage_at(server.url) as storage:
            yield storage
    finally:
        server.stop()
        shutil.rmtree(place)


@contextmanager
def storage_at(url: str) -> Iterator[SqlStorage]:
    """Give the storage of a URL, with its tables."""
    with SqlStorage(url) as storage:
        storage.init()
        yield storage
