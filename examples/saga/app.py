"""The application: the machine, and the services that are opened and closed with each worker process.

Who calls this: workers, as `--app examples.saga`.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from examples.saga.agencies import BookedAgency, books, open_books
from examples.saga.machine import Trip
from fsm import App

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.saga.agencies import Agency

__all__ = ["app", "services"]

# Where what goes wrong.
_NO_FLIGHT = frozenset({"the moon"})
_NO_HOTEL = frozenset({"antarctica"})
_NO_CAR = frozenset({"venice", "bermuda"})
_NO_CANCELLING = frozenset({"bermuda"})


@contextmanager
def services() -> Iterator[dict[str, Agency]]:
    """Open the books, and close them when the worker ends; machines take the services by their names."""
    with closing(open_books(books())) as connection:
        yield {
            "flights": BookedAgency("flight", connection, full=_NO_FLIGHT),
            "hotels": BookedAgency("hotel", connection, full=_NO_HOTEL, closed=_NO_CANCELLING),
            "cars": BookedAgency("car", connection, full=_NO_CAR),
        }


app = App([Trip], lifespan=services)
