"""What is asked of the tables of `SqlStorage`: SQLAlchemy's Core, over SQLite and PostgreSQL.

**Writes** take their rows first, in the order of their names, then compare, then write. So of two transactions that
want the same rows one waits for the other, and never each for the other. SQLite has one writer at a time in any case.

Who calls this: `sql`, which imports it when a database is wanted.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fsm.errors import StoreError
from fsm.storage.asking import Mark
from fsm.storage.batches import PostgresBatches, SqliteBatches
from fsm.storage.engines import Engines
from fsm.storage.persistable import Owner
from fsm.storage.persisting import Persisting
from fsm.storage.protocol import Row
from fsm.storage.rows import fits, is_newer, refuse_older
from fsm.storage.tables import FORM, Text, tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fsm.storage.asking import Question

__all__ = ["Database"]

# How often a `put` begins anew, where between its look and its write somebody else came first.
_TRIES = 5


class Database:
    """One database with our tables; opened when it is needed, by each process for itself.

    Args:
        url: `sqlite:////file` or `postgresql://user@host/name`.
        table: Name of the table of snapshots.
        timeout_ms: Bound of connecting, of waiting for a lock, and of one statement.
        pool: Most connections of one process.
        persist: Class of the payloads that load and store themselves, if they do.

    Raises:
        ConfigError: The URL is none that we can use, or its driver is missing.
        DefinitionError: The class of the payloads is none that can be written as JSON.
    """

    def __init__(self, url: str, table: str, timeout_ms: int, pool: int, persist: type[Any] | None = None) -> None:
        self.engines = Engines(url, timeout_ms, pool)
        self._persisting = None if persist is None else Persisting(persist, self.engines)
        self.masked = self.engines.masked
        self.metadata, self.rows, self.forms = tables(table)
        self._batches = (SqliteBatches if self.engines.is_sqlite else PostgresBatches)(table)
        self._seen = sa.select(
            *(self.rows.c[name] for name in ("name", "born", "version", "machine", "state", "since"))
        )

    # Rows

    def load(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give rows by name."""
        if not names:
            return {}
        if self._persisting is None:
            with self.engines.single() as connection:
                return self._batches.load(connection, namespace, names)
        with self.engines.transaction(writes=False) as connection:
            rows = self._batches.load(connection, namespace, names)
            return {row.name: row for row in self._persisting.fetched(connection, namespace, list(rows.values()))}

    def store(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows by compare-and-set: the names of those that were stored."""
        if not rows:
            return set()
        ordered = sorted(rows, key=lambda row: row.name)
        if self._persisting is not None:
            return self._store_both(self._persisting, namespace, ordered)
        is_one = not self.engines.is_sqlite and len({row.over is None for row in ordered}) == 1
        # In PostgreSQL one statement is all that there is to it, and a transaction by itself.
        with self.engines.single() if is_one else self.engines.transaction(writes=True) as connection:
            return self._batches.store(connection, namespace, ordered)

    def _store_both(self, persisting: Persisting, namespace: str, rows: list[Row]) -> set[str]:
        """Store rows, and what the payloads keep in step with them."""
        with self.engines.transaction(writes=True) as connection:
            there = self._take(connection, namespace, [row.name for row in rows])
            fitting = [row for row in rows if fits(row, *_life(there.get(row.name)))]
            unchanged = persisting.unchanged(connection, namespace, fitting, there)
            stored = self._batches.store(connection, namespace, unchanged) if unchanged else set()
            persisting.save(connection, namespace, [row for row in unchanged if row.name in stored])
            return stored

    def put(self, namespace: str, row: Row) -> None:
        """Store a row over whatever is older.

        Raises:
            StaleVersionError: What is there is newer.
        """
        for _ in range(_TRIES):
            with self.engines.transaction(writes=True) as connection:
                there = self._take(connection, namespace, [row.name])
                seen = there.get(row.name)
                if seen is not None and is_newer(str(seen.born), seen.version, row):
                    raise refuse_older(row, seen.state, str(seen.born), seen.version)
                over = None if seen is None else str(seen.born)
                expected = {row.name: 0 if seen is None else seen.version}
                if self._batches.replace(connection, namespace, [replace(row, over=over)], expected):
                    if self._persisting is not None:
                        self._persisting.save(connection, namespace, [row])
                    return
        problem = f"storage {self.masked}: FSM {row.name!r} comes and goes while it is put; try again"
        raise StoreError(problem)

    def note(self, namespace: str, name: str, error: bytes) -> bool:
        """Note an error beside a row, or forget it: whether there is such a row."""
        change = self.rows.update().where(*self._is(namespace, name)).values(error=error)
        with self.engines.transaction(writes=True) as connection:
            return bool(connection.execute(change).rowcount)

    def delete(self, namespace: str, name: str) -> bool:
        """Remove a row: whether there was one."""
        with self.engines.transaction(writes=True) as connection:
            if self._persisting is not None:
                for seen in self._take(connection, namespace, [name]).values():
                    self._persisting.discard(connection, _owner(namespace, seen))
            return bool(connection.execute(self.rows.delete().where(*self._is(namespace, name))).rowcount)

    def drop(self, namespace: str, lives: Mapping[str, str]) -> int:
        """Remove rows of these lives, or of earlier ones."""
        if not lives:
            return 0
        with self.engines.transaction(writes=True) as connection:
            there = self._take(connection, namespace, list(lives))
            over = [name for name, seen in there.items() if seen.born <= int(lives[name])]
            if over and self._persisting is not None:
                over = self._persisting.discarded(connection, [_owner(namespace, there[name]) for name in over])
            if over:
                here = self.rows.c
                connection.execute(self.rows.delete().where(here.namespace == namespace, here.name.in_(over)))
            return len(over)

    def page(self, namespace: str, question: Question) -> tuple[list[Row], str]:
        """Find a page of rows, and give the cursor of the next one; "" where this was the last."""
        here = self.rows.c
        order = (here.machine, here.state, here.since, here.name)
        asked = sa.select(self.rows).order_by(*order).limit(question.limit + 1)
        if question.failed:
            # Without statistics SQLite takes one over all rows for as good, if it is the older one, and reads all rows.
            asked = asked.with_hint(self.rows, f"INDEXED BY {self.rows.name}_by_error", "sqlite")
        with self.engines.transaction(writes=False) as connection:
            began_ms = question.began_ms
            if began_ms is None:
                latest = sa.select(sa.func.max(here.since)).where(here.namespace == namespace)
                began_ms = connection.execute(latest).scalar() or 0
            found = connection.execute(asked.where(*self._conditions(namespace, question, began_ms))).all()
            rows = self._fetched(connection, namespace, map(_row, found[: question.limit]))
        if len(found) <= question.limit:
            return rows, ""
        last = found[question.limit - 1]
        return rows, question.cursor(Mark(last.machine, last.state, last.since, last.name), began_ms)

    def counts(self, namespace: str) -> dict[str, int]:
        """Count the rows of each machine."""
        here = self.rows.c
        asked = sa.select(here.machine, sa.func.count()).where(here.namespace == namespace).group_by(here.machine)
        with self.engines.transaction(writes=False) as connection:
            return {str(machine): int(count) for machine, count in connection.execute(asked)}

    def lives(self, namespace: str, after: str, most: int) -> dict[str, str]:
        """Give a page of all names with the life of each, in the order of the names."""
        here = self.rows.c
        asked = (
            sa.select(here.name, here.born)
            .where(here.namespace == namespace, here.name > after)
            .order_by(here.name)
            .limit(most)
        )
        with self.engines.transaction(writes=False) as connection:
            return {str(name): str(born) for name, born in connection.execute(asked)}

    def _fetched(self, connection: sa.Connection, namespace: str, rows: Iterable[Row]) -> list[Row]:
        """Give rows with the payloads that count."""
        return list(rows) if self._persisting is None else self._persisting.fetched(connection, namespace, list(rows))

    def _is(self, namespace: str, name: str) -> tuple[Any, Any]:
        return self.rows.c.namespace == namespace, self.rows.c.name == name

    def _take(self, connection: sa.Connection, namespace: str, names: list[str]) -> dict[str, Any]:
        """Give what is compared of rows, and let nobody else write them until this transaction is over."""
        here = self.rows.c
        taken = (
            self._seen.where(here.namespace == sa.bindparam("ns"), here.name.in_(sa.bindparam("names", expanding=True)))
            .order_by(here.name)
            .with_for_update()
        )
        found = connection.execute(taken, {"ns": namespace, "names": names})
        return {row.name: row for row in found}

    def _conditions(self, namespace: str, question: Question, began_ms: int) -> list[Any]:
        here = self.rows.c
        # The sum is to be no column: an index over `since` alone has all rows, and not in the order that is wanted.
        found = [here.namespace == namespace, here.since + 0 <= began_ms]
        for name in ("machine", "state", "status"):
            wanted = getattr(question, name)
            if wanted is not None:
                found.append(here[name] == wanted)
        if question.failed is not None:
            found.append(here.error.is_not(None) if question.failed else here.error.is_(None))
        if question.started_after_ms is not None:
            # It cannot have come into its state before it was started.
            found += [here.started_at > question.started_after_ms, here.since > question.started_after_ms]
        if question.updated_before_ms is not None:
            found += [here.updated_at < question.updated_before_ms, here.since < question.updated_before_ms]
        if question.since_before_ms is not None:
            found.append(here.since < question.since_before_ms)
        if question.after is not None:
            # What is the same in all of them is left out: beside it SQLite would not take the index for the rest.
            types: dict[str, Any] = {"machine": Text(), "state": Text(), "since": sa.BigInteger(), "name": Text()}
            moving = [name for name in types if getattr(question, name, None) is None]
            marks = dict(zip(types, question.after, strict=True))
            behind = [sa.literal(marks[name], types[name]) for name in moving]
            found.append(sa.tuple_(*(here[name] for name in moving)) > sa.tuple_(*behind))
        return found

    # Tables

    def create(self) -> bool:
        """Create what is missing of the tables: whether anything was.

        On a crash: some of the tables are there; called again, it creates the others.

        Raises:
            StoreError: The database cannot be used, or its tables were made by a newer version of ours.
        """
        is_there = self.form() == FORM
        if self.engines.is_sqlite:
            # Readers and the one writer do not wait for each other. It stays so, once said; a copy may have lost it.
            with self.engines.engine.connect() as connection, suppress(sa.exc.DBAPIError):
                connection.connection.dbapi_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr] # it is connected
        if is_there:
            return False
        with self.engines.transaction(writes=True) as connection:
            if not self.engines.is_sqlite:
                # Of two that do this at once one waits, and then finds nothing missing.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(4242003517)"))
            self.metadata.create_all(connection)
            insert = (sqlite if self.engines.is_sqlite else postgresql).insert(self.forms)
            row = {"table_name": self.rows.name, "form": FORM}
            connection.execute(insert.on_conflict_do_nothing(), [row])
        return True

    def check(self, namespace: str) -> None:
        """See that our tables are there, and that of payloads that load themselves.

        Raises:
            StoreError: The database cannot be used, or they are not there, or ours are not of our version.
        """
        if self.form() is None:
            problem = f"storage {self.masked}: there is no table {self.rows.name}; run `fsm storage init` once"
            raise StoreError(problem)
        if self._persisting is not None:
            with self.engines.transaction(writes=False) as connection:
                self._persisting.check(connection, namespace)

    def form(self) -> int | None:
        """Read the version of the form of our table; None where it was not created yet.

        Raises:
            StoreError: The database cannot be used, or the table was made by another version of ours.
        """
        with self.engines.transaction(writes=False) as connection:
            known = set(sa.inspect(connection).get_table_names())
            if self.forms.name not in known or self.rows.name not in known:
                return None
            asked = sa.select(self.forms.c.form).where(self.forms.c.table_name == self.rows.name)
            form = connection.execute(asked).scalar()
        if form is not None and form != FORM:
            problem = f"storage {self.masked}: its table is of form {form}, and this version of fsm-workers uses {FORM}"
            raise StoreError(problem)
        return None if form is None else int(form)


def _owner(namespace: str, seen: Any) -> Owner:
    return Owner(namespace, seen.name, seen.machine, seen.state, seen.version)


def _life(seen: Any) -> tuple[str | None, int]:
    return (None, 0) if seen is None else (str(seen.born), int(seen.version))


def _row(found: Any) -> Row:
    """Read the columns of a row."""
    return Row(
        name=found.name,
        born=str(found.born),
        machine=found.machine,
        state=found.state,
        status=found.status,
        version=found.version,
        base=found.base,
        payload=found.payload,
        definition=found.definition,
        started_ms=found.started_at,
        updated_ms=found.updated_at,
        error=found.error,
        last_job=found.last_job,
        token=found.token,
        pending=bytes(found.pending),
    )
