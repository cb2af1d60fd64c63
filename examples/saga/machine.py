"""The machine of a trip: hard events that call services, and `fails` edges that lead to undoing it all, backwards.

What is undone begins with what failed: a booking that raised may have been made all the same, when its answer was lost
or the worker died. So `book_hotel fails` leads to `cancel_hotel`, and not past it.

Who calls this: workers, by the app, and travellers. It imports `fsm` and the agencies' protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsm import Goto, Machine, Settings, Transition, enter, on

if TYPE_CHECKING:
    from examples.saga.agencies import Agency

__all__ = ["Itinerary", "Trip"]

# What is left to be done when this one has been settled by a person.
_AFTER = {"car": "undo_hotel", "hotel": "undo_flight", "flight": "called_off"}


@dataclass
class Itinerary:
    """What a trip carries along.

    Args:
        place: Where it goes.
        keys: Of the bookings: flight, hotel or car -> the key under which it was booked.
        problem: Why it could not be booked.
        stuck_on: The booking that could not be cancelled, if there is one.
    """

    place: str
    keys: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    stuck_on: str = ""


class Trip(Machine[Itinerary]):
    """A trip of three bookings, all of them or none.

    Args:
        flights: A service, from the lifespan of the app.
        hotels: Another.
        cars: A third.
    """

    # Long enough to show the whole way there and back.
    settings = Settings(queue="trips", timeout="30s", history=12)
    diagram = """
    stateDiagram-v2
        [*] --> wanted
        wanted --> flight : book
        flight --> hotel : book_flight!
        hotel --> car : book_hotel!
        car --> booked : book_car!
        booked --> [*] : depart

        flight --> undo_flight : book_flight fails
        hotel --> undo_hotel : book_hotel fails
        car --> undo_car : book_car fails
        booked --> undo_car : call_off

        undo_car --> undo_hotel : cancel_car!
        undo_hotel --> undo_flight : cancel_hotel!
        undo_flight --> called_off : cancel_flight!
        called_off --> [*]

        undo_car --> stuck : cancel_car fails
        undo_hotel --> stuck : cancel_hotel fails
        undo_flight --> stuck : cancel_flight fails
        stuck --> undo_hotel : resolved
        stuck --> undo_flight : resolved
        stuck --> called_off : resolved
    """

    def __init__(self, flights: Agency, hotels: Agency, cars: Agency) -> None:
        self._agencies = {"flight": flights, "hotel": hotels, "car": cars}

    @on("book_flight")
    @on("book_hotel")
    @on("book_car")
    def book(self, t: Transition[Itinerary]) -> None:
        """Book what the event says. The id of its job is the key: the same, however often a worker dies in here."""
        what = t.event.removeprefix("book_")
        self._agencies[what].book(t.name, t.payload.place, key=t.job_id)
        t.payload.keys[what] = t.job_id

    @on("cancel_flight")
    @on("cancel_hotel")
    @on("cancel_car")
    def cancel(self, t: Transition[Itinerary]) -> None:
        """Cancel what the event says."""
        what = t.event.removeprefix("cancel_")
        self._agencies[what].cancel(key=t.payload.keys[what])

    @enter("undo_flight")
    @enter("undo_hotel")
    @enter("undo_car")
    def begin_undoing(self, t: Transition[Itinerary]) -> None:
        """Note a booking that failed: its handler could not, for what that did to the payload is taken back.

        A hook on a `fails` edge sees the event that failed, with its job id, and the error as its data.
        """
        booking, _, what = t.event.partition("_")
        if booking == "book":
            t.payload.keys[what] = t.job_id
            t.payload.problem = t.data["message"]
            t.log.warning("no %s, the trip is called off: %s", what, t.payload.problem)

    @enter("stuck")
    def ask_for_help(self, t: Transition[Itinerary]) -> None:
        """Note what could not be cancelled; a person sees to it, and sends `resolved`."""
        t.payload.stuck_on = t.event.removeprefix("cancel_")
        t.log.error("somebody must cancel the %s of this trip: %s", t.payload.stuck_on, t.data["message"])

    @on("resolved")
    def go_on(self, t: Transition[Itinerary]) -> Goto:
        """Go on undoing after what a person has seen to."""
        what, t.payload.stuck_on = t.payload.stuck_on, ""
        return Goto(_AFTER[what])
