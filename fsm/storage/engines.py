"""How `SqlStorage` gets to its database: engines, transactions, and what the errors of drivers mean.

Who calls this: `database`.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fsm.errors import ConfigError, PayloadError, StoreError
from fsm.store.connection import mask

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Engines"]

_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_WRITES = "fsm_writes"
_LENT = "fsm_lent"
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
        except sa.exc.ArgumentError as error:
            raise ConfigError(setting, "is no URL: write sqlite:////file or postgresql://user@host/name") from error
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
            sa.event.listen(engine, "begin", _begin_sqlite)
            sa.event.listen(engine, "commit", _keep_open)
            return engine
        given = self._url.query.get("options", "")
        options = {
            "statement_timeout": self._timeout_ms,
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
            hide_parameters=True,  # what is stored is not for the log
            isolation_level="READ COMMITTED",
            pool_size=self._pool,
            max_overflow=0,
            pool_timeout=seconds,
        )
        sa.event.listen(engine, "commit", _keep_open)
        return engine

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[sa.Connection]:
        """Give a connection in a transaction, which is over at the end: done as a whole, or not at all.

        Raises:
            StoreError: The database cannot be used now.
            PayloadError: It does not take what it was given.
        """
        try:
            with self.engine.connect() as connection:
                connection = connection.execution_options(**{_WRITES: writes})  # noqa: PLW2901 - the same one
                with connection.begin():
                    yield connection
        except sa.exc.DBAPIError as error:
            raise self.explained(error) from error
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

    def explained(self, error: sa.exc.DBAPIError, where: str = "") -> Exception:
        """Say in one sentence what the database has.

        Args:
            error: As the driver raised it.
            where: A method of the user's in which it did: what is wrong with its statement is about one row, and that
                its table is not there is not told as if it were ours.
        """
        state = str(getattr(error.orig, "sqlstate", "") or "")
        said = " ".join(str(error.orig).split())
        if self._url.password:
            said = said.replace(str(self._url.password), "***")
        if where:
            if _is_away(error, state, said):
                return StoreError(f"storage {self.masked}: {where}: {said}")
            return PayloadError(f"cannot be stored: storage {self.masked}: {said}", where)
        text = f"storage {self.masked}: {said}"
        if state == _UNDEFINED_TABLE or "no such table" in said:
            return StoreError(f"{text}; run `fsm storage init` once")
        if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError) or state.startswith(_LIMIT_OF_PROGRAM):
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


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Its driver would begin transactions by itself, late and not as we want them: see `_begin_sqlite`.
    connection.isolation_level = None
    # What is told as stored is on the disk: beside WAL the default would leave that to chance.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes then would be refused its write where another has written in between.
    is_writing = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _keep_open(connection: sa.Connection) -> None:
    if connection.info.get(_LENT):
        connection.info[_LENT] = False
        problem = "this transaction is ended by the storage whose connection it is: commit nothing here"
        raise sa.exc.InvalidRequestError(problem)
