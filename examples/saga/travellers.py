"""Travellers: what each of them wants, how it ends, and what the agencies have in their books then.

Who calls this: `python -m examples.saga`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.saga.agencies import books, open_books, orders
from examples.saga.machine import Itinerary, Trip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm import Client, FSMHandle, Outcome

__all__ = ["TRAVELS", "AstrayError", "Travel", "travel"]

# Long enough for a worker that is just being started beside us, and for one that died.
_PATIENCE_S = 60.0


class AstrayError(Exception):
    """A trip did not end as it should have."""


@dataclass(frozen=True)
class Travel:
    """One traveller.

    Args:
        place: Where to.
        steps: Events, each sent when the trip has come to rest.
        end: The state in which this ends.
        books: What the agencies have in their books then, as far as they have anything.
    """

    place: str
    steps: tuple[str, ...]
    end: str
    books: tuple[tuple[str, str], ...] = ()


_BOOKED = (("flight", "booked"), ("hotel", "booked"), ("car", "booked"))
_CANCELLED = (("flight", "cancelled"), ("hotel", "cancelled"), ("car", "cancelled"))
TRAVELS = {
    "ann": Travel("rome", ("book", "depart"), "booked", _BOOKED),
    "ben": Travel("venice", ("book",), "called_off", _CANCELLED[:2]),
    "cyd": Travel("the moon", ("book",), "called_off"),
    "dan": Travel("paris", ("book", "call_off"), "called_off", _CANCELLED),
    # Nobody can cancel a hotel there; the person who sends `resolved` paid for it.
    "eve": Travel("bermuda", ("book", "resolved"), "called_off", (("flight", "cancelled"), ("hotel", "booked"))),
}


def travel(client: Client, name: str, wish: Travel) -> Iterator[str]:
    """Let one traveller go; gives a line for each step.

    Args:
        client: Of the Redis where trips live.
        name: Name of the trip.
        wish: What is wanted.

    Raises:
        AstrayError: The trip did not end as it should have, or the books are not what they should be.
    """
    trip = client.start_fsm(Trip, name, Itinerary(wish.place))
    state = ""
    for step in wish.steps:
        # `book` only leads to `flight`; what is wanted is where the hard events after it lead.
        outcome = trip.call(step, settle=True, timeout=_PATIENCE_S)
        state = outcome.state
        yield f"{step}: {_said(trip, outcome)}"
    with closing(open_books(books())) as connection:
        found = tuple(orders(connection, name))
    if (state, found) != (wish.end, wish.books):
        problem = f"{name} ended as {state} with {found}, and not as {wish.end} with {wish.books}"
        raise AstrayError(problem)
    yield f"in the books: {', '.join(f'{what} {status}' for what, status in found) or 'nothing'}"


def _said(trip: FSMHandle[Itinerary], outcome: Outcome) -> str:
    """Tell how a step ended, and by which way."""
    way = " > ".join(trip.state().history)
    return way if outcome.ok else f"{way} ({outcome.reason})"
