"""Three agencies: a flight, a hotel, a car. Their books are in a SQLite file, named by `SAGA_BOOKS`.

They stand for systems beside Redis: what they do is no part of a commit, and may be done though the answer is lost. So
both verbs may be repeated. A booking has a key, and is made once for each; a key that was cancelled stays so, also if
the cancellation comes first, and a booking that comes late with it is refused. That is what makes it safe to cancel a
booking of which nobody knows whether it was made.

Who calls this: the app opens them, the machine calls them.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Agency", "AgencyError", "BookedAgency", "books", "open_books", "orders"]

_PATIENCE_S = 30.0
_TABLE = """
    create table if not exists orders (
        agency text not null,
        key text not null,
        trip text not null,
        place text not null,
        status text not null,
        primary key (agency, key)
    )
"""


class AgencyError(Exception):
    """An agency does not do what it was asked for."""


class Agency(Protocol):
    """What a trip wants of an agency; tests have agencies of their own."""

    def book(self, trip: str, place: str, *, key: str) -> None:
        """Book, once for each key.

        Raises:
            AgencyError: It has nothing there.
        """

    def cancel(self, *, key: str) -> None:
        """Cancel the booking with this key, if there is one, and let there never be one.

        Raises:
            AgencyError: It cannot.
        """


class BookedAgency:
    """An agency with its page in the book.

    Args:
        name: Its name.
        connection: To the book.
        full: Places where it has nothing.
        closed: Places where nobody takes cancellations.
    """

    def __init__(
        self, name: str, connection: sqlite3.Connection, *, full: frozenset[str], closed: frozenset[str] = frozenset()
    ) -> None:
        self._name = name
        self._connection = connection
        self._full = full
        self._closed = closed

    def book(self, trip: str, place: str, *, key: str) -> None:
        """Book, once for each key.

        Raises:
            AgencyError: It has nothing there; or this key was cancelled.
        """
        with self._writing():
            status = self._status(key)
            if status == "cancelled":
                problem = f"{self._name} {key} was cancelled before"
                raise AgencyError(problem)
            if status is None and place in self._full:
                problem = f"no {self._name} in {place}"
                raise AgencyError(problem)
            if status is None:
                order = (self._name, key, trip, place, "booked")
                self._connection.execute("insert into orders values (?, ?, ?, ?, ?)", order)

    def cancel(self, *, key: str) -> None:
        """Cancel the booking with this key, if there is one, and let there never be one.

        Raises:
            AgencyError: Nobody takes cancellations there.
        """
        with self._writing():
            found = self._connection.execute(
                "select place from orders where agency = ? and key = ? and status = 'booked'", (self._name, key)
            ).fetchone()
            if found is not None and found[0] in self._closed:
                problem = f"nobody cancels a {self._name} in {found[0]}"
                raise AgencyError(problem)
            self._connection.execute(
                "insert into orders values (?, ?, '', '', 'cancelled')"
                " on conflict (agency, key) do update set status = 'cancelled'",
                (self._name, key),
            )

    def _status(self, key: str) -> str | None:
        found = self._connection.execute(
            "select status from orders where agency = ? and key = ?", (self._name, key)
        ).fetchone()
        return None if found is None else str(found[0])

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """Be the only writer, until the block ends: what it wrote is kept, or taken back if it raises."""
        self._connection.execute("begin immediate")
        return self._connection


def books() -> Path:
    """Give the file of the agencies' books."""
    return Path(os.environ.get("SAGA_BOOKS", "saga.sqlite3"))


def open_books(path: Path) -> sqlite3.Connection:
    """Open the books; the caller closes them."""
    connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
    connection.execute(_TABLE)
    return connection


def orders(connection: sqlite3.Connection, trip: str) -> Iterator[tuple[str, str]]:
    """Iterate over what a trip has ordered, oldest first: agency and status."""
    yield from connection.execute("select agency, status from orders where trip = ? order by rowid", (trip,))
