"""The tables of `SqlStorage`, and the types of their columns.

    fsm_snapshots   one row an FSM; (namespace, name) is its key
    fsm_storage     one row a table of ours: the version of its form

JSON is kept as the text that it came as: PostgreSQL's JSONB would refuse NUL in texts and write numbers anew. Text is
compared byte by byte, so that both databases have one order. PostgreSQL keeps no NUL in text, so names that hold one
are written in another way (see `Text`).

Who calls this: `database` and `batches`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["FORM", "Text", "escaped", "plain", "tables"]

# Version of the form of our tables.
FORM = 1
# Begins a text that is written in another way.
_ESCAPE = "\x1f"


def escaped(text: str) -> str:
    """Give a text as it is written."""
    if "\x00" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, f"{_ESCAPE}E").replace("\x00", f"{_ESCAPE}0")


def plain(text: str) -> str:
    """Give a text as it was before `escaped`."""
    return text.replace(f"{_ESCAPE}0", "\x00").replace(f"{_ESCAPE}E", _ESCAPE) if _ESCAPE in text else text


class Text(sa.types.TypeDecorator[str]):
    """Text of any characters, ordered by its bytes.

    One that PostgreSQL would refuse, or that looks as if it had been written so, is escaped.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """Give the type of the column."""
        return dialect.type_descriptor(postgresql.TEXT(collation="C") if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Write a text."""
        return value if value is None else escaped(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Read a text."""
        return value if value is None else plain(value)


class _JsonColumn(sa.types.UserDefinedType[str]):
    """PostgreSQL's JSON, which checks what it gets and keeps its text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Name the type of the column."""
        return "JSON"


class _Json(sa.types.TypeDecorator[bytes]):
    """JSON as it is, byte for byte; what is empty is NULL."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """Give the type of the column."""
        return dialect.type_descriptor(_JsonColumn() if dialect.name == "postgresql" else sa.Text())

    def column_expression(self, column: Any) -> Any:
        """Ask for the text: the driver would decode it."""
        return sa.type_coerce(sa.cast(column, sa.Text), self)

    def process_bind_param(self, value: bytes | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Write JSON."""
        return value.decode() if value else None

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bytes:  # noqa: ARG002 - SQLAlchemy's
        """Read JSON."""
        return value.encode() if value else b""


def tables(name: str) -> tuple[sa.MetaData, sa.Table, sa.Table]:
    """Give the tables: of all snapshots, by this name, and of the versions of such tables."""
    metadata = sa.MetaData()
    rows = sa.Table(
        name,
        metadata,
        sa.Column("namespace", Text, primary_key=True),
        sa.Column("name", Text, primary_key=True),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("machine", Text, nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("base", sa.BigInteger, nullable=False),
        sa.Column("payload", _Json, nullable=False),
        sa.Column("definition", Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("error", _Json),
        sa.Column("last_job", Text, nullable=False),
        sa.Column("token", Text, nullable=False),
        sa.Column("pending", sa.LargeBinary, nullable=False),
    )
    order = (rows.c.machine, rows.c.state, rows.c.since, rows.c.name)
    failed = rows.c.error.is_not(None)
    # None of them has `updated_at`: a step that leaves the state as it is touches no index.
    sa.Index(f"{name}_by_state", rows.c.namespace, *order)
    sa.Index(f"{name}_by_status", rows.c.namespace, rows.c.status, *order)
    sa.Index(f"{name}_by_error", rows.c.namespace, *order, postgresql_where=failed, sqlite_where=failed)
    sa.Index(f"{name}_by_since", rows.c.namespace, rows.c.since)
    forms = sa.Table(
        "fsm_storage",
        metadata,
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("form", sa.Integer, nullable=False),
    )
    return metadata, rows, forms
