"""The example `saga` with real workers, whose agencies are opened by its lifespan."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from examples.saga import Itinerary, Trip
from examples.saga.agencies import open_books, orders
from examples.saga.travellers import TRAVELS

if TYPE_CHECKING:
    from pathlib import Path

    from fsm import Client
    from tests.integration.conftest import Processes

APP = ("--app", "examples.saga")


@pytest.fixture(autouse=True)
def books(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Books of this test alone, for all its processes."""
    monkeypatch.setenv("SAGA_BOOKS", str(tmp_path / "books.sqlite3"))
    return tmp_path / "books.sqlite3"


def test_the_travellers_are_booked_or_nothing_is_left_of_it(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    demo = processes.run("-m", "examples.saga", "--run", "1")
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, out
    assert {name: client.state(f"{name}-1").state for name in TRAVELS} == {
        name: travel.end for name, travel in TRAVELS.items()
    }


def test_workers_that_die_between_booking_and_saying_so_book_nothing_twice(
    client: Client, processes: Processes, books: Path
) -> None:
    trip = client.start_fsm(Trip, "trip", Itinerary("rome"))
    trip.transition("book")
    worker = ("--app", "tests.integration.deadly_trips", "--lease", "500ms")
    for what in ("flight", "hotel", "car"):
        assert processes.worker(*worker).wait(30) == -signal.SIGKILL
        with closing(open_books(books)) as connection:
            assert list(orders(connection, "trip"))[-1] == (what, "booked")
    processes.worker(*worker)
    trip.wait_for("booked", timeout=30)
    with closing(open_books(books)) as connection:
        assert list(orders(connection, "trip")) == [(what, "booked") for what in ("flight", "hotel", "car")]
