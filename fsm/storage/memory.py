"""A storage in the memory of this process: for tests, and to read what a storage does where nothing else is in the way.

Who calls this: tests of applications, as the storage of a machine in `memory://`; the contract of storages.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fsm.engine import checked_name
from fsm.errors import UnknownFSMError
from fsm.storage.asking import Mark, Question, read_filters
from fsm.storage.protocol import Row, Stored, StoredPage
from fsm.storage.rows import error_text, fits, is_newer, read_error, refuse_older, row_of, since_of, stored_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["MemoryStorage"]


@dataclass(frozen=True, slots=True)
class _Kept:
    """One FSM: its row, and since when it is in its state."""

    row: Row
    since_ms: int

    @property
    def mark(self) -> Mark:
        """Where it stands in the order of a query."""
        return Mark(self.row.machine, self.row.state, self.since_ms, self.row.name)


class _Shelves:
    """What all namespaces of one storage share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[str, dict[str, _Kept]] = {}


class MemoryStorage:
    """A storage in memory: gone with its process, and unknown to every other one.

    It does all that `fsm.storage.protocol` says of `Storage` and of `BatchStorage`, one lock around each call.

    >>> from datetime import UTC, datetime
    >>> from fsm.storage.protocol import Stored
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> storage = MemoryStorage()
    >>> order = Stored(name="order-1", machine="Order", state="cart", payload={}, version=1, status="running",
    ...                born="1767312000000000", definition="1a2b3c4d", started_at=now, updated_at=now)
    >>> storage.store("order-1", order, None), storage.store("order-1", order, None)
    (True, False)
    >>> storage.get("order-1") == order
    True
    """

    def __init__(self) -> None:
        self._namespace = "default"
        self._shelves = _Shelves()

    def __repr__(self) -> str:
        return f"MemoryStorage(namespace={self._namespace!r})"

    def of(self, namespace: str) -> MemoryStorage:
        """Give the same storage for another namespace."""
        other = MemoryStorage()
        other._namespace, other._shelves = namespace, self._shelves
        return other

    def load(self, name: str) -> Stored | None:
        """Give the snapshot of an FSM; None where there is none."""
        row = self.load_many(self._namespace, [checked_name(name)]).get(name)
        return None if row is None else stored_of(row)

    def get(self, name: str) -> Stored:
        """Give the snapshot of an FSM.

        Raises:
            UnknownFSMError: There is none.
        """
        found = self.load(name)
        if found is None:
            raise UnknownFSMError(name, self._namespace)
        return found

    def store(self, name: str, snapshot: Stored, expected_version: int | None) -> bool:
        """Write a snapshot in the place of the one that was read; False where something else is there.

        Raises:
            PayloadError: The snapshot cannot be kept.
        """
        over = None if expected_version is None else snapshot.born
        row = row_of(name, snapshot, expected_version or 0, over)
        return bool(self.store_many(self._namespace, [row]))

    def put(self, name: str, snapshot: Stored) -> None:
        """Write a snapshot where there is none, or over an older one.

        Raises:
            StaleVersionError: What is there is newer.
            PayloadError: The snapshot cannot be kept.
        """
        row = row_of(name, snapshot, snapshot.version, None)
        with self._shelves.lock:
            rows = self._rows(self._namespace)
            there = rows.get(name)
            if there is not None and is_newer(there.row.born, there.row.version, row):
                raise refuse_older(row, there.row.state, there.row.born, there.row.version)
            _write(rows, row)

    def store_error(self, name: str, error: Mapping[str, Any] | None) -> None:
        """Note the last failure of an FSM beside its snapshot, or forget it.

        Raises:
            UnknownFSMError: There is no such FSM.
            PayloadError: The note is no JSON.
        """
        raw = error_text(error)
        with self._shelves.lock:
            rows = self._rows(self._namespace)
            there = rows.get(checked_name(name))
            if there is None:
                raise UnknownFSMError(name, self._namespace)
            rows[name] = replace(there, row=replace(there.row, error=raw))

    def last_error(self, name: str) -> dict[str, Any] | None:
        """Give the last failure of an FSM; None where there is none, or no such FSM."""
        row = self.load_many(self._namespace, [checked_name(name)]).get(name)
        return None if row is None else read_error(row.error)

    def delete(self, name: str) -> bool:
        """Remove the snapshot of an FSM, and tell whether there was one."""
        with self._shelves.lock:
            return self._rows(self._namespace).pop(checked_name(name), None) is not None

    def purge(self, name: str) -> bool:
        """Remove all that is held of a name: here that is its snapshot, with its error."""
        return self.delete(name)

    def query(self, **filters: Any) -> StoredPage:
        """Find snapshots, a page at a time: by machine, state, since when, and name.

        Raises:
            ConfigError: There is no such filter, or a value is not allowed.
            PayloadError: The cursor is of other filters, or none.
        """
        question = read_filters(filters)
        with self._shelves.lock:
            kept = list(self._rows(self._namespace).values())
        began_ms = question.began_ms
        if began_ms is None:
            began_ms = max((one.since_ms for one in kept), default=0)
        found = sorted((one for one in kept if _is_asked_for(one, question, began_ms)), key=lambda one: one.mark)
        page = found[: question.limit]
        cursor = question.cursor(page[-1].mark, began_ms) if len(found) > len(page) else ""
        return StoredPage(tuple(stored_of(one.row) for one in page), cursor)

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give the rows of these FSMs, by name; who has none is not in it."""
        with self._shelves.lock:
            rows = self._rows(namespace)
            return {name: rows[name].row for name in names if name in rows}

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows, each by compare-and-set: the names of those that were stored."""
        stored = set()
        with self._shelves.lock:
            present = self._rows(namespace)
            for row in rows:
                there = present.get(row.name)
                born, version = (None, 0) if there is None else (there.row.born, there.row.version)
                if fits(row, born, version):
                    _write(present, row)
                    stored.add(row.name)
        return stored

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        """Remove what is held of lives that are over, and of those before: of how many names there was something."""
        with self._shelves.lock:
            rows = self._rows(namespace)
            over = [name for name, born in lives.items() if name in rows and int(rows[name].row.born) <= int(born)]
            for name in over:
                del rows[name]
        return len(over)

    def _rows(self, namespace: str) -> dict[str, _Kept]:
        return self._shelves.rows.setdefault(namespace, {})


def _write(rows: dict[str, _Kept], row: Row) -> None:
    there = rows.get(row.name)
    before = None if there is None else (there.row.born, there.row.machine, there.row.state, there.since_ms)
    rows[row.name] = _Kept(replace(row, over=None, seen=b""), since_of(row, before))


def _is_asked_for(one: _Kept, question: Question, began_ms: int) -> bool:
    row = one.row
    return (
        question.machine in (None, row.machine)
        and question.state in (None, row.state)
        and question.status in (None, row.status)
        and question.failed in (None, bool(row.error))
        and (question.started_after_ms is None or row.started_ms > question.started_after_ms)
        and (question.updated_before_ms is None or row.updated_ms < question.updated_before_ms)
        and (question.since_before_ms is None or one.since_ms < question.since_before_ms)
        and one.since_ms <= began_ms
        and (question.after is None or one.mark > question.after)
    )
