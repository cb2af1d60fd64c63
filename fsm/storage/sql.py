"""A storage in a table of SQLite or PostgreSQL, by SQLAlchemy's Core.

Who calls this: applications give it to their machines. It imports SQLAlchemy only where a database is used: an
application that only sends events has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fsm.engine import checked_name
from fsm.errors import ConfigError, UnknownFSMError
from fsm.machine.durations import duration_ms
from fsm.storage.asking import read_filters
from fsm.storage.persistable import checked_class
from fsm.storage.protocol import MOST_ROWS, Row, Stored, StoredPage
from fsm.storage.rows import error_text, read_error, row_of, stored_of
from fsm.store.connection import mask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from fsm.machine.durations import Duration
    from fsm.storage.database import Database
    from fsm.storage.persistable import Persistable

__all__ = ["SqlStorage"]

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_SCHEMES = ("sqlite:", "sqlite+pysqlite:", "postgres:", "postgresql:", "postgresql+psycopg:")
_LEAST_MS = 100


class SqlStorage:
    """Snapshots in one table of a database, made by `fsm storage init`; for PostgreSQL and SQLite.

    Mail, order, locks and timers stay in Redis. It does all that `fsm.storage.protocol` says of `Storage` and of
    `BatchStorage`. It may be made at import: connections are opened when they are needed, and by each process for
    itself.

    Args:
        url: `sqlite:////var/lib/app/fsm.db` or `postgresql://user:password@host/database`.
        table: Name of the table.
        timeout: Bound of connecting, of waiting for a lock or a free connection, and of one statement.
        pool: Most connections of one process; as many threads as it has use it at once.
        persist: Class of the machine's payloads, where each keeps a row of your own in step: see `Persistable`.
            Machines with other payloads have another `table`.

    Raises:
        ConfigError: The URL is of another database, or a value is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        table: str = "fsm_snapshots",
        timeout: Duration = "2s",
        pool: int = 8,
        persist: type[Persistable] | None = None,
    ) -> None:
        if not str(url).startswith(_SCHEMES):
            problem = "is of no database that is supported: write sqlite:////file or postgresql://user@host/name"
            raise ConfigError(f"SqlStorage({mask(str(url))!r})", problem)
        if not _TABLE.fullmatch(str(table)):
            raise ConfigError(f"SqlStorage(table={table!r})", "use at most 40 of the characters a-z 0-9 _")
        timeout_ms = duration_ms(timeout, "SqlStorage(timeout=…)")
        if timeout_ms < _LEAST_MS:
            raise ConfigError("SqlStorage(timeout=…)", f"{timeout!r} is too short: at least {_LEAST_MS} ms")
        if type(pool) is not int or not 1 <= pool <= MOST_ROWS:
            raise ConfigError("SqlStorage(pool=…)", f"{pool!r} is no number from 1 to {MOST_ROWS}")
        self.url = mask(url)
        self.table = table
        self._namespace = "default"
        self.persist = checked_class(persist)
        self._place = _Place(url, table, timeout_ms, pool, self.persist)

    def __repr__(self) -> str:
        """Name the database, without the password."""
        return f"SqlStorage({self.url!r}, namespace={self._namespace!r})"

    def __enter__(self) -> Self:
        """Give the storage, for `with`."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close the connections of this process, those of all namespaces; the next call opens new ones."""
        if self._place.is_known:
            self._place.database.engines.close()

    def of(self, namespace: str) -> SqlStorage:
        """Give the same storage for another namespace, with the same connections."""
        other = object.__new__(SqlStorage)
        other.url, other.table, other.persist = self.url, self.table, self.persist
        other._namespace, other._place = namespace, self._place
        return other

    @property
    def _database(self) -> Database:
        return self._place.database

    # For people

    def load(self, name: str) -> Stored | None:
        """Give the snapshot of an FSM; None where there is none.

        Raises:
            StoreError: The database cannot be used, here and in all other methods.
        """
        row = self._database.load(self._namespace, [checked_name(name)]).get(name)
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

        On a crash: it is stored, or nothing is.

        Raises:
            PayloadError: The snapshot cannot be kept.
        """
        over = None if expected_version is None else snapshot.born
        row = row_of(name, snapshot, expected_version or 0, over)
        return bool(self._database.store(self._namespace, [row]))

    def put(self, name: str, snapshot: Stored) -> None:
        """Write a snapshot where there is none, or over an older one.

        On a crash: it is stored, or nothing is.

        Raises:
            StaleVersionError: What is there is newer.
            PayloadError: The snapshot cannot be kept.
        """
        self._database.put(self._namespace, row_of(name, snapshot, snapshot.version, None))

    def store_error(self, name: str, error: Mapping[str, Any] | None) -> None:
        """Note the last failure of an FSM beside its snapshot, or forget it.

        Raises:
            UnknownFSMError: There is no such FSM.
            PayloadError: The note is no JSON.
        """
        if not self._database.note(self._namespace, checked_name(name), error_text(error)):
            raise UnknownFSMError(name, self._namespace)

    def last_error(self, name: str) -> dict[str, Any] | None:
        """Give the last failure of an FSM; None where there is none, or no such FSM."""
        row = self._database.load(self._namespace, [checked_name(name)]).get(name)
        return None if row is None else read_error(row.error)

    def delete(self, name: str) -> bool:
        """Remove the snapshot of an FSM, and tell whether there was one."""
        return self._database.delete(self._namespace, checked_name(name))

    def purge(self, name: str) -> bool:
        """Remove all that is held of a name: here that is its row, with its error."""
        return self.delete(name)

    def query(self, **filters: Any) -> StoredPage:
        """Find snapshots, a page at a time: by machine, state, since when, and name.

        By index: `machine`, `machine` with `state`, `status`, `failed=True`, and `in_state_longer_than` beside machine
        and state. Others are looked for among what those leave.

        Raises:
            ConfigError: There is no such filter, or a value is not allowed.
            PayloadError: The cursor is of other filters, or none.
        """
        rows, cursor = self._database.page(self._namespace, read_filters(filters))
        return StoredPage(tuple(map(stored_of, rows)), cursor)

    # For workers

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give the rows of these FSMs, by name; who has none is not in it."""
        return self._database.load(namespace, names)

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows in one transaction, each by compare-and-set: the names of those that were stored.

        On a crash: all of them are stored, or none.
        """
        return self._database.store(namespace, rows)

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        """Remove what is held of lives that are over, and of those before: of how many names there was something."""
        return self._database.drop(namespace, lives)

    # For whoever runs it

    def init(self) -> bool:
        """Create the tables where they are missing, and tell whether they were.

        Raises:
            StoreError: The database cannot be used, or its tables are of another version of ours.
        """
        return self._database.create()

    def check(self) -> None:
        """See that the database can be used, and that its tables are there.

        Raises:
            StoreError: It cannot, or they are not; the text says what to do.
        """
        self._database.check(self._namespace)

    def counts(self) -> dict[str, int]:
        """Count the FSMs of each machine."""
        return self._database.counts(self._namespace)

    def lives(self) -> Iterator[dict[str, str]]:
        """Give all names, each with the life that is stored of it, a page at a time, in their order."""
        after = ""
        while page := self._database.lives(self._namespace, after, MOST_ROWS):
            yield page
            after = next(reversed(page))


class _Place:
    """The database that all namespaces of one storage share, and that is none until it is used."""

    def __init__(self, url: str, table: str, timeout_ms: int, pool: int, persist: type[Any] | None) -> None:
        self._url, self._table, self._timeout_ms, self._pool = url, table, timeout_ms, pool
        self._persist = persist
        self._database: Database | None = None

    @property
    def is_known(self) -> bool:
        """Whether it was used."""
        return self._database is not None

    @property
    def database(self) -> Database:
        """The database.

        Raises:
            ConfigError: SQLAlchemy or the driver is missing, or the URL is none.
        """
        if self._database is None:
            try:
                from fsm.storage.database import Database  # noqa: PLC0415 - whoever has no database need not have SQLAlchemy
            except ImportError as error:
                problem = "SQLAlchemy is missing: pip install 'fsm-workers[sql]', or [postgres]"
                raise ConfigError(f"SqlStorage({mask(self._url)!r})", problem) from error
            self._database = Database(self._url, self._table, self._timeout_ms, self._pool, self._persist)
        return self._database
