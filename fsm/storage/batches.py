"""Many rows at once, as workers load and store them: by one statement that the database has seen before.

Built by SQLAlchemy anew for each call, these statements cost more than the database takes for them. So they are written
here, once for each database. In PostgreSQL the rows of a batch go into one of them, as one JSON document, for
a statement is a round trip. In SQLite it is a function call, and each row has its own.

**Compare and set** is the WHERE of the change itself. PostgreSQL takes the rows in the order of their names before it
changes them, so that of two batches over the same rows one waits for the other, and never each for the other; who has
waited compares with what is there then.

Who calls this: `database`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import orjson

from fsm.storage.protocol import Row
from fsm.storage.tables import escaped, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import sqlalchemy as sa

__all__ = ["Batches", "PostgresBatches", "SqliteBatches"]

# What a row has beside its key, and how it comes in JSON.
_TYPES = {
    "born": "bigint",
    "machine": "text",
    "state": "text",
    "status": "text",
    "version": "bigint",
    "base": "bigint",
    "payload": "text",
    "definition": "text",
    "started_at": "bigint",
    "updated_at": "bigint",
    "error": "text",
    "last_job": "text",
    "token": "text",
    "pending": "text",
}
_COLUMNS = ", ".join(_TYPES)
_SINCE = (
    "CASE WHEN r.born = {0}born AND r.machine = {0}machine AND r.state = {0}state THEN r.since ELSE {0}updated_at END"
)
# Of a life that is over the version says nothing any more.
_FITS = "r.born = {0}over AND ({0}over <> {0}born OR r.version = {0}expected)"


class Batches(ABC):
    """Loads and stores rows of one table.

    Args:
        table: Its name, which needs no quotes.
    """

    @abstractmethod
    def __init__(self, table: str) -> None:
        """Write the statements."""

    @abstractmethod
    def load(self, connection: sa.Connection, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give rows by name."""

    def store(self, connection: sa.Connection, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows by compare-and-set: the names of those that were stored."""
        expected = {row.name: row.base for row in rows}
        return self.replace(connection, namespace, rows, expected)

    @abstractmethod
    def replace(
        self, connection: sa.Connection, namespace: str, rows: Sequence[Row], expected: Mapping[str, int]
    ) -> set[str]:
        """As `store`, in the place of rows of these versions."""


class SqliteBatches(Batches):
    """Of SQLite."""

    def __init__(self, table: str) -> None:
        self._load = (
            f"SELECT name, {_COLUMNS} FROM {table}"  # noqa: S608 - a name of a table that was checked
            " WHERE namespace = ? AND name IN (SELECT value FROM json_each(?))"
        )
        sets = ", ".join(f"{name} = :{name}" for name in _TYPES)
        self._change = (
            f"UPDATE {table} AS r SET {sets}, since = {_SINCE.format(':')}"  # noqa: S608 - as above
            f" WHERE namespace = :namespace AND name = :name AND {_FITS.format(':')}"
        )
        values = ", ".join(f":{name}" for name in _TYPES)
        self._birth = (
            f"INSERT INTO {table} (namespace, name, {_COLUMNS}, since)"  # noqa: S608 - as above
            f" VALUES (:namespace, :name, {values}, :updated_at) ON CONFLICT DO NOTHING"
        )

    def load(self, connection: sa.Connection, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give rows by name."""
        cursor = _cursor(connection)
        try:
            cursor.execute(self._load, (escaped(namespace), orjson.dumps([escaped(name) for name in names]).decode()))
            return _read(cursor)
        finally:
            cursor.close()

    def replace(
        self, connection: sa.Connection, namespace: str, rows: Sequence[Row], expected: Mapping[str, int]
    ) -> set[str]:
        """Store rows in the place of such of these versions."""
        cursor, space, stored = _cursor(connection), escaped(namespace), set()
        try:
            for row in rows:
                values = _values(row, expected[row.name])
                values["namespace"], values["pending"] = space, row.pending
                cursor.execute(self._birth if row.over is None else self._change, values)
                if cursor.rowcount:
                    stored.add(row.name)
        finally:
            cursor.close()
        return stored


class PostgresBatches(Batches):
    """Of PostgreSQL."""

    def __init__(self, table: str) -> None:
        payload, error = "payload::text AS payload", "error::text AS error"
        columns = ", ".join({"payload": payload, "error": error}.get(name, name) for name in _TYPES)
        self._load = f"SELECT name, {columns} FROM {table} WHERE namespace = %(ns)s AND name = ANY(%(names)s)"  # noqa: S608 - a name of a table that was checked
        types = ", ".join(f"{name} {kind}" for name, kind in {"name": "text", **_TYPES}.items())
        given = f"json_to_recordset(%(rows)s::json) AS n({types}, over bigint, expected bigint)"
        read = {"payload": "n.payload::json", "error": "n.error::json", "pending": "decode(n.pending, 'base64')"}
        values = {name: read.get(name, f"n.{name}") for name in _TYPES}
        sets = ", ".join(f"{name} = {value}" for name, value in values.items())
        self._change = (
            f"WITH taken AS MATERIALIZED (SELECT name FROM {table}"  # noqa: S608 - as above
            " WHERE namespace = %(ns)s AND name = ANY(%(names)s) ORDER BY name FOR UPDATE)"
            f" UPDATE {table} AS r SET {sets}, since = {_SINCE.format('n.')} FROM {given} JOIN taken USING (name)"
            f" WHERE r.namespace = %(ns)s AND r.name = n.name AND {_FITS.format('n.')} RETURNING r.name"
        )
        self._birth = (
            f"INSERT INTO {table} (namespace, name, {_COLUMNS}, since)"  # noqa: S608 - as above
            f" SELECT %(ns)s, n.name, {', '.join(values.values())}, n.updated_at FROM {given}"
            " ORDER BY n.name ON CONFLICT DO NOTHING RETURNING name"
        )

    def load(self, connection: sa.Connection, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give rows by name."""
        of = {"ns": escaped(namespace), "names": [escaped(name) for name in names]}
        return _read(connection.exec_driver_sql(self._load, of))

    def replace(
        self, connection: sa.Connection, namespace: str, rows: Sequence[Row], expected: Mapping[str, int]
    ) -> set[str]:
        """Store rows in the place of such of these versions."""
        births = [row for row in rows if row.over is None]
        changes = [row for row in rows if row.over is not None]
        stored: set[str] = set()
        for statement, those in ((self._change, changes), (self._birth, births)):
            if not those:
                continue
            values = [_values(row, expected[row.name]) for row in those]
            for one, row in zip(values, those, strict=True):
                one["pending"] = b2a_base64(row.pending, newline=False).decode()
            of: dict[str, Any] = {"ns": escaped(namespace), "rows": orjson.dumps(values).decode()}
            if statement is self._change:
                of["names"] = [one["name"] for one in values]
            stored |= {plain(name) for (name,) in connection.exec_driver_sql(statement, of)}
        return stored


def _cursor(connection: sa.Connection) -> Any:
    # Of the driver itself: for a statement a row what lies between would cost more than the statement.
    return connection.connection.cursor()


def _values(row: Row, expected: int) -> dict[str, Any]:
    return {
        "name": escaped(row.name),
        "born": int(row.born),
        "machine": escaped(row.machine),
        "state": escaped(row.state),
        "status": row.status,
        "version": row.version,
        "base": row.base,
        "payload": row.payload.decode(),
        "definition": escaped(row.definition),
        "started_at": row.started_ms,
        "updated_at": row.updated_ms,
        "error": row.error.decode() if row.error else None,
        "last_job": escaped(row.last_job),
        "token": escaped(row.token),
        "over": None if row.over is None else int(row.over),
        "expected": expected,
    }


def _read(found: Iterable[Any]) -> dict[str, Row]:
    rows = {}
    for (
        name, born, machine, state, status, version, base, payload, definition, started_ms, updated_ms, error,
        last_job, token, pending,
    ) in found:  # fmt: skip
        name = plain(name)  # noqa: PLW2901 - the same name
        rows[name] = Row(
            name=name,
            born=str(born),
            machine=plain(machine),
            state=plain(state),
            status=status,
            version=version,
            base=base,
            payload=payload.encode(),
            definition=plain(definition),
            started_ms=started_ms,
            updated_ms=updated_ms,
            error=error.encode() if error else b"",
            last_job=plain(last_job),
            token=plain(token),
            pending=bytes(pending),
        )
    return rows
