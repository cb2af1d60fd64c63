"""A trip of three bookings: all of them or none, with three agencies that know nothing of each other.

    fsm worker --app examples.saga                         as many as you like, on any host
    python -m examples.saga [--url URL]                    some trips: booked, undone, called off, and one that is stuck

Reading order: `machine` (the diagram and its handlers), `agencies` (the services, which work outside of Redis), `app`
(which opens and closes them in each worker process), `travellers` (who sends events). The page is
docs/examples/saga.md.

Who calls this: `make examples`, and readers. It imports what `fsm` offers to everyone.
"""

from examples.saga.app import app
from examples.saga.machine import Itinerary, Trip

__all__ = ["Itinerary", "Trip", "app"]
