"""The trips of the example `saga` with agencies that kill their worker: after a booking, before it can say so.

Each does it once, in its first booking; that it has done so is a file beside the books.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from examples.saga.agencies import books
from examples.saga.app import services
from examples.saga.machine import Trip
from fsm import App

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.saga.agencies import Agency

__all__ = ["app"]


class DeadlyAgency:
    """Books as another does, and kills the worker after its first booking."""

    def __init__(self, name: str, agency: Agency) -> None:
        self._agency = agency
        self._done = books().with_name(f"{name}.done")

    def book(self, trip: str, place: str, *, key: str) -> None:
        self._agency.book(trip, place, key=key)
        if not self._done.exists():
            self._done.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def cancel(self, *, key: str) -> None:
        self._agency.cancel(key=key)


@contextmanager
def deadly() -> Iterator[dict[str, Agency]]:
    with services() as agencies:
        yield {name: DeadlyAgency(name, agency) for name, agency in agencies.items()}


app = App([Trip], lifespan=deadly)
