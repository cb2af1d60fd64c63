"""How `SqlStorage` has payloads load and store themselves, within its own transactions.

What the user's methods raise is about one row, and is told so: also that somebody holds it locked. Only what says that
the database cannot be used now is a plain `StoreError`, for which all FSMs of the storage wait.

Who calls this: `database`. As `tables` and `engines` it may import SQLAlchemy.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fsm.errors import FSMError, PayloadError, StoreError
from fsm.machine.values import codec_for
from fsm.storage.persistable import Owner, RowBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fsm.storage.engines import Engines
    from fsm.storage.protocol import Row

__all__ = ["Persisting"]

_log = logging.getLogger("fsm.worker")


class Persisting:
    """The rows of the user's own that are kept in step with ours.

    Args:
        persist: Class of the payloads, as `persistable.checked_class` let it pass.
        engines: The way to the database.
    """

    def __init__(self, persist: Any, engines: Engines) -> None:
        self._persist = persist
        self._engines = engines
        self._codec = codec_for(persist)

    def fetched(self, connection: sa.Connection, namespace: str, rows: Sequence[Row]) -> list[Row]:
        """Give rows with the payloads that the user's own rows have; where there is none, ours stays.

        Raises:
            PayloadError: One cannot be read.
        """
        found = []
        for row in rows:
            raw = self._fetch(connection, Owner(namespace, row.name, row.machine, row.state, row.version))
            found.append(row if raw is None or raw == row.payload else replace(row, payload=raw))
        return found

    def unchanged(
        self, connection: sa.Connection, namespace: str, rows: Sequence[Row], there: Mapping[str, Any]
    ) -> list[Row]:
        """Leave out rows whose payload was changed in the user's own since it was loaded.

        Args:
            connection: Of the transaction in which they are stored.
            namespace: Of all of them.
            rows: To be stored.
            there: What our table has of them.
        """
        found = []
        # In one order, as ours: `fetch` may lock what it reads.
        for row in sorted(rows, key=lambda row: row.name):
            if row.seen:
                seen = there[row.name]
                raw = self._fetch(connection, Owner(namespace, row.name, seen.machine, seen.state, seen.version))
                if raw is not None and raw != row.seen:
                    continue
            found.append(row)
        return found

    def save(self, connection: sa.Connection, namespace: str, rows: Sequence[Row]) -> None:
        """Have the payloads of rows that are stored store themselves.

        Raises:
            PayloadError: A payload is none of this class, or the database does not take it.
            Exception: What a `save` raised.
        """
        for row in sorted(rows, key=lambda row: row.name):
            owner = Owner(namespace, row.name, row.machine, row.state, row.version)
            payload = self._codec.decode(row.payload)
            with self._theirs(connection, "save", owner):
                payload.save(connection, owner)

    def discard(self, connection: sa.Connection, owner: Owner) -> None:
        """Remove the user's own row, where the class says how.

        Raises:
            PayloadError: It cannot be removed.
        """
        discard = getattr(self._persist, "discard", None)
        if discard is not None:
            with self._theirs(connection, "discard", owner):
                discard(connection, owner)

    def discarded(self, connection: sa.Connection, owners: Sequence[Owner]) -> list[str]:
        """Remove the user's own rows, each by itself: the names of those that need not stay for it."""
        names = []
        for owner in sorted(owners, key=lambda owner: owner.name):
            try:
                with connection.begin_nested():
                    self.discard(connection, owner)
            except PayloadError as error:
                # It may have to stay for ever, as where another table speaks of it: the others need not.
                _log.error("the rows of FSM %r, which is over, stay: %s", owner.name, error)
            else:
                names.append(owner.name)
        return names

    def check(self, connection: sa.Connection, namespace: str) -> None:
        """See that the user's table can be read, by asking for an FSM that there is not.

        Raises:
            StoreError: It cannot be used, as where the table is not there.
        """
        owner = Owner(namespace, "", "", "", 0)
        try:
            self._persist.fetch(connection, owner)
        except sa.exc.DBAPIError as error:
            raise self._engines.explained(error, self._name("fetch", owner)) from error
        except Exception:  # noqa: BLE001, S110 - it need not be able to read this name
            pass

    def _fetch(self, connection: sa.Connection, owner: Owner) -> bytes | None:
        with self._theirs(connection, "fetch", owner):
            found = self._persist.fetch(connection, owner)
        if found is None:
            return None
        where = self._name("fetch", owner)
        if not isinstance(found, self._persist):
            problem = f"it gave a {type(found).__name__}: give a {self._persist.__name__}, or None"
            raise PayloadError(problem, where)
        try:
            return self._codec.encode(found)
        except PayloadError as error:
            raise PayloadError(f"it gave what is no payload, at {error.path}: {error.problem}", where) from error

    @contextmanager
    def _theirs(self, connection: sa.Connection, method: str, owner: Owner) -> Iterator[None]:
        """Run a method of the user's in our transaction, which is ours to end."""
        where = self._name(method, owner)
        try:
            with self._engines.lent(connection):
                yield
        except sa.exc.DBAPIError as error:
            found = self._engines.explained(error, where)
            if isinstance(found, StoreError) and self._engines.is_about_a_lock(error):
                found = _busy(found, owner)
            raise found from error
        except StoreError as error:
            raise _busy(error, owner) from error
        except FSMError:
            raise
        except Exception as error:
            if method == "save":
                raise  # it is the failure of an event, told as what its handler raises is
            raise PayloadError(f"it failed: {type(error).__name__}: {error}", where) from error
        if not self._engines.is_in_transaction(connection):
            problem = "it ended the transaction, or kept silent about an error that did: let errors pass"
            raise PayloadError(problem, where)

    def _name(self, method: str, owner: Owner) -> str:
        of = f" of FSM {owner.name!r}" if owner.name else ""
        return f"{self._persist.__name__}.{method}{of}"


def _busy(error: StoreError, owner: Owner) -> RowBusyError:
    found = RowBusyError(error.problem)
    found.name = owner.name
    return found
