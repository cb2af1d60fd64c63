"""The time of events that run side by side: whoever takes too long is interrupted, wherever it runs.

The timer of a process interrupts its main thread only. Here one thread looks when the time of an event is over, and has
`HandlerTimeout` raised in the thread in which that event is run. Python raises what another thread asks for when the
interpreter comes to its next instruction there: so it interrupts what runs in Python, but nothing that waits in C, such
as `time.sleep`, a lock, or a socket without a time-out of its own. Whoever waits so for long heeds no time-out.

**Never the next event.** Between the decision that an event is late and the exception in its thread, that event may end
and another one begin. So a thread has a *seat*: an event sits down, and rises at its end. To ring is allowed under the
guard of the seat, to who sits there; and who rises takes along what was rung for it and not yet raised. A coroutine
rises also where it waits, since the thread of its loop is then another one's.

Who calls this: the crew.
"""

from __future__ import annotations

import ctypes
import inspect
import math
import threading
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.engine import HandlerTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

__all__ = ["Seat", "Seated", "Timekeeper", "Timing"]

R = TypeVar("R")
# What a time-out may come late in the eyes of who looks from outside, and the share of it if that is more.
_GRACE_S, _GRACE = 2.0, 0.1
# A ring is for the handler, a second one for a failure hook that hangs as well: whoever heeds neither, heeds none.
_MOST_RINGS = 2
# The second ring is no sooner than this: an event that the first one caught at its very end has risen by then.
_SECOND_RING_S = 1.0
# The keeper of time looks so often at least, and is woken for events only that end sooner.
_LOOK_S = 5.0


class Seat:
    """One thread, and the event that it runs just now. Made in that thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._guard = threading.Lock()
        self._timing: Timing | None = None
        self._sat_at = 0.0
        self._is_rung = False
        # The coroutine that is driven here, where the thread has many.
        self.driven: Seated[Any] | None = None

    def sit(self, timing: Timing) -> None:
        """Begin to run this event."""
        with self._guard:
            self._timing = timing
            self._sat_at = time.monotonic()

    def rise(self) -> None:
        """Run it no more: from here on nothing is raised for it."""
        with self._guard:
            self._timing = None
            is_rung, self._is_rung = self._is_rung, False
        if is_rung:
            _raise(self._thread, None)

    def is_taken_by(self, timing: Timing) -> bool:
        """Whether this event sits here."""
        return self._timing is timing

    def is_kept_from(self, timing: Timing) -> bool:
        """Whether another event has had the thread all the time in which this one was expected to end."""
        with self._guard:
            return self._timing not in (None, timing) and self._sat_at < timing.heeded_by

    def ring(self, timing: Timing | None, fault: type[BaseException]) -> None:
        """Have an exception raised in the thread, if it runs this event; `None`: whatever event it runs."""
        with self._guard:
            if self._timing is not None and timing in (None, self._timing):
                self._is_rung = True
                _raise(self._thread, fault)


def _raise(thread: int, fault: type[BaseException] | None) -> None:
    """Have an exception raised in a thread at its next instruction; `None` takes back what was not raised yet.

    https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object() if fault is None else ctypes.py_object(fault)
    )


class Timing:
    """The time of one event: a context in which it is run.

    Args:
        keeper: Who looks at the time.
        seat: Of the thread that enters this.
        after: How many seconds later it is rung for.
        about: Whoever is late, for who asks.
    """

    __slots__ = ("_driven", "_keeper", "_seat", "about", "after", "due_at", "heeded_by", "rings")

    def __init__(self, keeper: Timekeeper, seat: Seat, after: float, about: Any) -> None:
        self._keeper = keeper
        self._seat = seat
        self._driven = seat.driven
        self.after = after
        self.about = about
        self.rings = 0
        self.due_at = self.heeded_by = math.inf

    def __enter__(self) -> None:
        self.due_at = time.monotonic() + self.after
        self.expect(self.due_at)
        self._keeper.add(self)
        if self._driven is not None:
            self._driven.timing = self
        self._seat.sit(self)

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._seat.rise()
        if self._driven is not None:
            self._driven.timing = None
        self._keeper.remove(self)

    @property
    def is_live(self) -> bool:
        """Whether it is still run: one that was interrupted as it left this context has not signed off."""
        return self._seat.is_taken_by(self) if self._driven is None else self._driven.timing is self

    def is_overdue(self, now: float) -> bool:
        """Whether it goes on though it was interrupted, and some seconds more.

        A coroutine does not where another one blocks their loop, which has time left: it could not speak for itself.
        """
        if now <= self.heeded_by:
            return False
        if self._seat.is_kept_from(self):
            self.expect(now)
            return False
        return True

    def ring(self, now: float) -> None:
        """Interrupt it."""
        self.rings += 1
        if self.rings <= _MOST_RINGS:
            self.due_at = now + max(self.after, _SECOND_RING_S)
            self.expect(self.due_at)
            self._seat.ring(self, HandlerTimeout)
        else:
            self.due_at = math.inf

    def expect(self, at: float) -> None:
        """Note that it must have ended, or been interrupted, some time after this."""
        self.heeded_by = at + max(_GRACE_S, _GRACE * self.after)


class Seated(Coroutine[Any, Any, R]):
    """A coroutine on a loop: it has the seat of the loop's thread while it runs, and leaves it where it waits."""

    def __init__(self, work: Coroutine[Any, Any, R], seat: Seat) -> None:
        self._work = work
        self._seat = seat
        self.timing: Timing | None = None

    def send(self, value: Any) -> Any:
        """Run it to where it waits next."""
        return self._run(self._work.send, value)

    def throw(self, *fault: Any) -> Any:
        """Raise something where it waits, as asyncio does to cancel it."""
        return self._run(self._work.throw, *fault)

    def _run(self, go: Callable[..., Any], *given: Any) -> Any:
        try:
            return self._run_seated(go, *given)
        except BaseException as fault:
            if inspect.getcoroutinestate(self._work) != inspect.CORO_SUSPENDED:
                self.timing = None  # it has ended
                raise
            # It was rung for, and waited already when that was raised: only here, and it would never go on.
            self._seat.rise()
            ring = fault
        return self.throw(ring)

    def _run_seated(self, go: Callable[..., Any], *given: Any) -> Any:
        seat = self._seat
        seat.driven = self
        try:
            if self.timing is not None:
                seat.sit(self.timing)
            return go(*given)
        finally:
            seat.rise()
            seat.driven = None

    def close(self) -> None:
        """Throw it away."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, R]:
        return self._work.__await__()


class Timekeeper:
    """The thread that looks at the time of all events that run."""

    def __init__(self) -> None:
        self._timings: set[Timing] = set()
        self._looks_at = 0.0
        self._changed = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._keep, name="fsm-time", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def add(self, timing: Timing) -> None:
        """Look at the time of an event."""
        with self._changed:
            self._timings.add(timing)
            if timing.due_at < self._looks_at:
                self._changed.notify()

    def remove(self, timing: Timing) -> None:
        """Look no more: it has ended."""
        with self._changed:
            self._timings.discard(timing)

    @property
    def overdue(self) -> Timing | None:
        """An event that goes on though it was interrupted, and some seconds more."""
        now = time.monotonic()
        with self._changed:
            return next((timing for timing in self._timings if timing.is_overdue(now)), None)

    def _keep(self) -> None:
        while True:
            with self._changed:
                if self._is_over:
                    return
                now = time.monotonic()
                next_at = min((timing.due_at for timing in self._timings), default=math.inf)
                if next_at > now:
                    self._looks_at = min(next_at, now + _LOOK_S)
                    self._changed.wait(self._looks_at - now)
                    # While it looks nobody need wake it.
                    self._looks_at = 0.0
                    now = time.monotonic()
                due = [timing for timing in self._timings if timing.due_at <= now]
                self._timings.difference_update([timing for timing in due if not timing.is_live])
            for timing in due:
                timing.ring(now)
