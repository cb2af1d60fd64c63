from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.saga import Itinerary, Trip
from examples.saga import __main__ as program
from examples.saga.agencies import AgencyError, BookedAgency, open_books, orders
from fsm.testing import Trial, cover, trial

AGENCIES = ("flight", "hotel", "car")


class FakeAgency:
    """Writes down what it is asked; refuses what it is told to."""

    def __init__(self, name: str, told: list[str], faults: str) -> None:
        self._name = name
        self._told = told
        self._faults = faults.split(", ")
        self.keys: list[str] = []

    def book(self, trip: str, place: str, *, key: str) -> None:
        self._do("book", key)

    def cancel(self, *, key: str) -> None:
        self._do("cancel", key)

    def _do(self, verb: str, key: str) -> None:
        self._told.append(f"{verb} {self._name}")
        self.keys.append(key)
        if f"{verb} {self._name}" in self._faults:
            problem = f"no {self._name}"
            raise AgencyError(problem)


class Journey:
    """A trip with agencies that write down what they are asked.

    Args:
        faults: What they refuse, as "book hotel, cancel flight".
    """

    def __init__(self, faults: str = "") -> None:
        self.told: list[str] = []
        self.agencies = {name: FakeAgency(name, self.told, faults) for name in AGENCIES}
        self.trip: Trial[Itinerary] = trial(Trip(*self.agencies.values()), payload=Itinerary("rome"))

    def send(self, *events: str) -> str:
        for event in events:
            self.trip.send(event)
        return self.trip.state


def test_all_three_are_booked_one_after_the_other() -> None:
    journey = Journey()
    assert journey.send("book") == "booked"
    assert journey.told == ["book flight", "book hotel", "book car"]
    assert journey.trip.payload.problem == ""


@pytest.mark.parametrize(
    ("fault", "undone"),
    [
        ("book flight", ["cancel flight"]),
        ("book hotel", ["cancel hotel", "cancel flight"]),
        ("book car", ["cancel car", "cancel hotel", "cancel flight"]),
    ],
)
def test_a_booking_that_fails_undoes_itself_and_what_was_booked_backwards(fault: str, undone: list[str]) -> None:
    journey = Journey(fault)
    assert journey.send("book") == "called_off"
    booked = [f"book {name}" for name in AGENCIES[: len(undone)]]
    assert journey.told == [*booked, *undone]
    assert journey.trip.status == "finished"
    assert journey.trip.payload.problem == f"no {fault.removeprefix('book ')}"


@pytest.mark.parametrize("fault", ["", "book car"])
def test_each_booking_is_cancelled_with_the_key_under_which_it_was_tried(fault: str) -> None:
    journey = Journey(fault)
    journey.send("book", *([] if fault else ["call_off"]))
    keys = [agency.keys for agency in journey.agencies.values()]
    assert all(booked == cancelled for booked, cancelled in keys)
    assert len({booked for booked, _ in keys}) == 3


def test_a_booked_trip_is_called_off_the_same_way() -> None:
    journey = Journey()
    assert journey.send("book", "call_off") == "called_off"
    assert journey.told[3:] == ["cancel car", "cancel hotel", "cancel flight"]


@pytest.mark.parametrize(
    ("what", "rest"),
    [("car", ["cancel hotel", "cancel flight"]), ("hotel", ["cancel flight"]), ("flight", [])],
)
def test_what_cannot_be_cancelled_waits_for_a_person_and_the_rest_is_undone_after_that(
    what: str, rest: list[str]
) -> None:
    journey = Journey(f"cancel {what}")
    assert journey.send("book", "call_off") == "stuck"
    assert (journey.trip.status, journey.trip.payload.stuck_on) == ("running", what)
    assert journey.trip.allowed == ("resolved",)
    journey.told.clear()
    assert journey.send("resolved") == "called_off"
    assert journey.told == rest
    assert journey.trip.payload.stuck_on == ""


def test_a_trip_that_is_stuck_twice_is_resolved_twice() -> None:
    journey = Journey("cancel car, cancel flight")
    assert journey.send("book", "call_off", "resolved") == "stuck"
    assert journey.trip.payload.stuck_on == "flight"
    assert journey.send("resolved") == "called_off"


def test_whoever_departs_is_done() -> None:
    journey = Journey()
    assert journey.send("book", "depart") == "booked"
    assert journey.trip.status == "finished"


# What the agencies refuse, and what is sent.
WAYS = [
    ("", "book depart"),
    ("", "book call_off"),
    ("book flight", "book"),
    ("book hotel", "book"),
    ("book car", "book"),
    *((f"cancel {what}", "book call_off resolved") for what in AGENCIES),
]


def test_these_ways_walk_every_edge_and_end() -> None:
    with cover(Trip) as walked:
        for faults, events in WAYS:
            journey = Journey(faults)
            journey.send(*events.split())
            assert journey.trip.status == "finished"
    assert walked.missing == ()


# The agencies


@pytest.fixture
def hotels(tmp_path: Path) -> Iterator[BookedAgency]:
    with closing(open_books(tmp_path / "books")) as connection:
        yield BookedAgency("hotel", connection, full=frozenset({"antarctica"}), closed=frozenset({"bermuda"}))


def listed(tmp_path: Path, trip: str = "trip") -> list[tuple[str, str]]:
    with closing(open_books(tmp_path / "books")) as connection:
        return list(orders(connection, trip))


def test_a_booking_is_made_once_for_each_key(hotels: BookedAgency, tmp_path: Path) -> None:
    for key in ("a", "a", "b"):
        hotels.book("trip", "rome", key=key)
    assert listed(tmp_path) == [("hotel", "booked"), ("hotel", "booked")]


def test_a_booking_is_cancelled_however_often_that_is_asked(hotels: BookedAgency, tmp_path: Path) -> None:
    hotels.book("trip", "rome", key="a")
    for _ in range(2):
        hotels.cancel(key="a")
    assert listed(tmp_path) == [("hotel", "cancelled")]


def test_a_booking_that_comes_after_its_cancellation_is_refused(hotels: BookedAgency, tmp_path: Path) -> None:
    hotels.cancel(key="late")
    with pytest.raises(AgencyError, match="hotel late was cancelled before"):
        hotels.book("trip", "rome", key="late")
    assert listed(tmp_path) == []


def test_nothing_is_booked_where_there_is_nothing(hotels: BookedAgency, tmp_path: Path) -> None:
    with pytest.raises(AgencyError, match="no hotel in antarctica"):
        hotels.book("trip", "antarctica", key="a")
    hotels.book("trip", "rome", key="b")  # and the next one is served
    assert listed(tmp_path) == [("hotel", "booked")]


def test_what_nobody_cancels_stays_booked(hotels: BookedAgency, tmp_path: Path) -> None:
    hotels.book("trip", "bermuda", key="a")
    with pytest.raises(AgencyError, match="nobody cancels a hotel in bermuda"):
        hotels.cancel(key="a")
    assert listed(tmp_path) == [("hotel", "booked")]


def test_wrong_use_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "http://localhost"]) == 2
    assert "examples.saga: URL 'http://localhost'" in capsys.readouterr().err


def test_an_unreachable_redis_is_told_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "redis://localhost:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
