"""How `SqlStorage` gets to its database: engines, transactions, and what the errors of drivers mean.

Who calls this: `database`.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

from fsm.errors import ConfigError, PayloadError, StoreError
from fsm.store.connection import mask

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Engines"]

_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_WRITES = "fsm_writes"
_LENT = "fsm_lent"
_SINGLE = "fsm_single"
# SQLSTATE: a limit of the program, such as the size of a value, is the fault of what was to be stored.
_LIMIT_OF_PROGRAM = "54"
_UNDEFINED_TABLE = "42P01"
# What is wrong with a table, and not with what was to be stored there: it or a column is not there, or not for us.
_SCHEMA = (_UNDEFINED_TABLE, "42703", "42501", "3F000")
_MISSING = ("no such table", "no such column", "has no column")
# A lock that was not had in time, or could not be: by the bound of a statement or of locks, or in a circle.
_LOCKS = ("57014", "55P03", "40P01", "40001")
_IN_TRANSACTION = 2  # PQTRANS_INTRANS: not idle, and not failed
_PLAIN_ERROR = 1  # SQLITE_ERROR: neither locked, nor full, nor broken
# The fault of what was to be stored, too.
_FAULTS = (sa.exc.DataError, sa.exc.IntegrityError, sqlite3.DataError, sqlite3.IntegrityError)
# After the time-out the server itself ends a statement; so much later nobody expects an answer any more.
_LATE_S = 1.0
# A connection that nobody used for so long is asked whether it lives before it is used: the server may have been
# started anew. Where there is work, none is asked.
_IDLE_S = 1.0
_USED_AT = "fsm_used_at"
# Of SQLite, for forks.
_ENGINES: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


class Engines:
    """The way to one database, opened when it is needed, by each process for itself.

    Args:
        url: `sqlite:////file` or `postgresql://user@host/name`.
        timeout_ms: Bound of connecting, of waiting for a lock, and of one statement.
        pool: Most connections of one process.

    Raises:
        ConfigError: The URL is none that we can use, or its driver is missing.
    """

    def __init__(self, url: str, timeout_ms: int, pool: int) -> None:
        self.masked = mask(url)
        self._url = self._read(url)
        self._timeout_ms = timeout_ms
        self._pool = pool
        self._engines: dict[int, sa.Engine] = {}

    def _read(self, text: str) -> sa.URL:
        setting = f"SqlStorage({self.masked!r})"
        try:
            url = sa.make_url(text)
        except (sa.exc.ArgumentError, ValueError):
            # Its words are not passed on: where an @ or a : of a password is not escaped, they hold a part of it.
            problem = "is no URL: write sqlite:////file or postgresql://user@host/name, and %40 for an @ in a password"
            raise ConfigError(setting, problem) from None
        if url.drivername in _POSTGRES:
            url = url.set(drivername="postgresql+psycopg")
            with _missing(setting, "postgres"):
                url.get_dialect().import_dbapi()
            return url
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            problem = f"{url.drivername} is not supported: use sqlite:////file or postgresql://user@host/name"
            raise ConfigError(setting, problem)
        if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
            problem = "names no file, and in memory each connection has a database of its own: use MemoryStorage()"
            raise ConfigError(setting, problem)
        return url

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self._url.drivername.startswith("sqlite")

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process: after a fork it is another one."""
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            # Of two threads that come at once one has made an engine for nothing, which has no connection yet.
            engine = self._engines.setdefault(pid, self._new_engine())
        return engine

    def close(self) -> None:
        """Close the connections of this process; the next call opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def _new_engine(self) -> sa.Engine:
        seconds = self._timeout_ms / 1000
        if self.is_sqlite:
            # Where a file is not a database or cannot be opened, that is told at the first use.
            engine = sa.create_engine(
                self._url,
                connect_args={"timeout": seconds},
                hide_parameters=True,
                poolclass=sa.QueuePool,
                pool_size=self._pool,
                max_overflow=0,
                pool_timeout=seconds,
            )
            sa.event.listen(engine, "connect", _prepare_sqlite)
            engine.dialect.statement_compiler = _Hinting
            sa.event.listen(engine, "begin", _begin_sqlite)
            sa.event.listen(engine, "commit", _keep_open)
            _ENGINES.add(engine)
            return engine
        given = self._url.query.get("options", "")
        options = {
            "statement_timeout": self._timeout_ms,
            # Else a database whose owner wants more would refuse one of two batches where one may wait for the other.
            "default_transaction_isolation": r"read\ committed",
            # A process that was stopped in the middle must not keep its rows from the others.
            "idle_in_transaction_session_timeout": self._timeout_ms,
        }
        engine = sa.create_engine(
            self._url.difference_update_query(["options"]),
            connect_args={
                "connect_timeout": max(2, math.ceil(seconds)),  # libpq takes 2 for less
                "tcp_user_timeout": self._timeout_ms,
                "application_name": self._url.query.get("application_name", "fsm"),
                "options": " ".join([str(given), *(f"-c {name}={value}" for name, value in options.items())]).strip(),
            },
            # Of the driver: where there are to be transactions we begin them ourselves.
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=self._pool,
            max_overflow=0,
            pool_timeout=seconds,
        )
        sa.event.listen(engine, "commit", _keep_open)
        from fsm.storage.bounded import connector  # noqa: PLC0415 - it imports the driver

        sa.event.listen(engine, "do_connect", connector(seconds + _LATE_S))
        sa.event.listen(engine, "begin", _begin_postgres)
        sa.event.listen(engine, "checkin", _note_use)
        sa.event.listen(engine, "checkout", _see_that_it_lives)
        return engine

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[sa.Connection]:
        """Give a connection in a transaction, which is over at the end: done as a whole, or not at all.

        Raises:
            StoreError: The database cannot be used now.
            PayloadError: It does not take what it was given.
        """
        with (
            self._explaining(),
            self.engine.connect() as connection,
            connection.execution_options(**{_WRITES: writes}).begin(),
        ):
            yield connection

    @contextmanager
    def single(self) -> Iterator[sa.Connection]:
        """Give a connection for one statement, which the database itself does as a whole, or not at all.

        Without a transaction around it there is one round trip, and not three.

        Raises:
            StoreError: The database cannot be used now.
            PayloadError: It does not take what it was given.
        """
        with self._explaining(), self.engine.connect() as connection:
            yield connection.execution_options(**{_SINGLE: True})

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._explained(error.orig, is_data=isinstance(error, _FAULTS)) from error
        except sqlite3.Error as error:
            # Of a statement that was given to the driver itself.
            raise self._explained(error, is_data=isinstance(error, _FAULTS)) from error
        except sa.exc.TimeoutError as error:
            problem = f"storage {self.masked}: no connection was free in time; raise SqlStorage(pool=…)"
            raise StoreError(problem) from error

    @contextmanager
    def lent(self, connection: sa.Connection) -> Iterator[None]:
        """Lend a connection to code of the user's, which may do all with it but commit."""
        info = connection.info
        info[_LENT] = True
        try:
            yield
        finally:
            if not info.pop(_LENT):
                # SQLAlchemy takes the transaction for ended, and would give the connection back with it still open.
                connection.invalidate()

    def is_in_transaction(self, connection: sa.Connection) -> bool:
        """Tell whether what was done so far would be done by a commit: nobody ended it, and no error did."""
        driver: Any = connection.connection.dbapi_connection
        if self.is_sqlite:
            return bool(driver.in_transaction)
        return bool(driver.info.transaction_status == _IN_TRANSACTION)

    @staticmethod
    def is_about_a_lock(error: sa.exc.DBAPIError) -> bool:
        """Tell whether somebody else holds the row; in SQLite somebody holds all of them, which is another thing."""
        return getattr(error.orig, "sqlstate", None) in _LOCKS

    def explained(self, error: sa.exc.DBAPIError, where: str) -> Exception:
        """Say in one sentence what the database has against a statement of the user's.

        What is wrong with it is about one row; and that its table is not there is not told as if it were ours.

        Args:
            error: As it was raised.
            where: The method in which it was.
        """
        state, said = str(getattr(error.orig, "sqlstate", "") or ""), self._said(error.orig)
        if _is_away(error, state, said):
            return StoreError(f"storage {self.masked}: {where}: {said}")
        return PayloadError(f"cannot be stored: storage {self.masked}: {said}", where)

    def _said(self, error: BaseException | None) -> str:
        said = " ".join(str(error).split())
        return said.replace(str(self._url.password), "***") if self._url.password else said

    def _explained(self, error: BaseException | None, *, is_data: bool) -> Exception:
        """Say in one sentence what the database has."""
        state, said = str(getattr(error, "sqlstate", "") or ""), self._said(error)
        text = f"storage {self.masked}: {said}"
        if state == _UNDEFINED_TABLE or "no such table" in said:
            return StoreError(f"{text}; run `fsm storage init` once")
        if is_data or state.startswith(_LIMIT_OF_PROGRAM):
            return PayloadError(f"cannot be stored: {text}")
        return StoreError(text)


def _is_away(error: sa.exc.DBAPIError, state: str, said: str) -> bool:
    """Tell whether another statement would have fared as ill: the database is away, or not as it should be."""
    if state in _SCHEMA or error.connection_invalidated:
        return True
    if not isinstance(error, sa.exc.OperationalError):
        return False
    is_plain = getattr(error.orig, "sqlite_errorcode", None) == _PLAIN_ERROR
    return not is_plain or any(words in said for words in _MISSING)


@contextmanager
def _missing(setting: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(setting, f"its driver is missing: pip install 'fsm-workers[{extra}]'") from error


class _Hinting(SQLiteCompiler):
    """As for all of SQLite, and writes which index is to be used, where a statement says so."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Give what stands behind the name of a table."""
        return text


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Its driver would begin transactions by itself, late and not as we want them: see `_begin_sqlite`.
    connection.isolation_level = None
    # What is told as stored is on the disk: beside WAL the default would leave that to chance.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(_SINGLE):
        # A transaction that reads first and writes then would be refused its write where another has written between.
        connection.connection.cursor().execute("BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN")


def _begin_postgres(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get(_SINGLE):
        connection.exec_driver_sql("BEGIN")


def _keep_open(connection: sa.Connection) -> None:
    if connection.info.get(_LENT):
        connection.info[_LENT] = False
        problem = "this transaction is ended by the storage whose connection it is: commit nothing here"
        raise sa.exc.InvalidRequestError(problem)


def _note_use(_: Any, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _see_that_it_lives(connection: Any, record: Any, _: Any) -> None:
    used_at = record.info.get(_USED_AT)
    if used_at is None or time.monotonic() - used_at < _IDLE_S:
        return
    try:
        connection.execute("SELECT 1")
    except Exception as error:
        # By this SQLAlchemy opens another one in its place.
        raise sa.exc.DisconnectionError from error


def _close_files() -> None:
    """Close what no thread uses: SQLite takes a file that was open in the parent for locked by the child."""
    for engine in tuple(_ENGINES):
        engine.dispose()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_files)
