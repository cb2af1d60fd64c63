"""Who runs user code: inline in the worker's main thread, async machines on an event loop of the worker.

An executor drives the coroutine of an activation to its end and keeps the time of each event. The activation knows
nothing of threads or loops, so that other executors can be put in its place.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fsm.engine import HandlerTimeout, drive

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractContextManager
    from types import FrameType

__all__ = ["Executor", "InlineExecutor", "Timer"]

R = TypeVar("R")
# What a time-out may come late in the eyes of who looks from outside, and the share of it if that is more.
_GRACE_S, _GRACE = 2.0, 0.1
# A ring is for the handler, a second one for a failure hook that hangs as well: whoever heeds neither, heeds none.
_MOST_RINGS = 2
# For so long the timer is taken to be as it was set: code of the user's may set it for itself.
_TRUSTED_S = 0.010
_LEAST_S = 0.001


class Timer(Protocol):
    """Who keeps the time of events."""

    def timed(self, seconds: float, *, is_async: bool) -> AbstractContextManager[None]:
        """Bound what runs inside to so many seconds."""


class Executor(Timer, Protocol):
    """Who drives activations too."""

    def run(self, work: Coroutine[Any, Any, R], *, is_async: bool) -> R:
        """Drive a coroutine to its end."""


class InlineExecutor:
    """Runs activations one after the other in the calling thread.

    Plain code is interrupted by a timer of the process when its time is over, which works in the main thread only;
    elsewhere it runs untimed. Coroutines keep their own time (`asyncio.timeout` in the step), and the timer of the
    process is behind them for those that block.

    Args:
        timed: Whether to use the process's timer; not where somebody else does, as RQ around its jobs.
    """

    def __init__(self, *, timed: bool = True) -> None:
        self._runner: asyncio.Runner | None = None
        in_main = threading.current_thread() is threading.main_thread()
        self._alarm = _Alarm() if timed and in_main else None

    def run(self, work: Coroutine[Any, Any, R], *, is_async: bool) -> R:
        """Drive a coroutine to its end.

        Args:
            work: It suspends only where `is_async`.
            is_async: Whether an event loop is needed; without one the machine pays nothing for it.
        """
        if is_async:
            if self._runner is None:
                self._runner = asyncio.Runner()
            # Not `Runner.run`, which sets context and signals anew for each FSM.
            return self._runner.get_loop().run_until_complete(work)
        return drive(work)

    def drive(self, work: Coroutine[Any, Any, R]) -> R:
        """Drive a coroutine on the event loop of async handlers: what it opens there is theirs to use."""
        return self.run(work, is_async=True)

    def timed(self, seconds: float, *, is_async: bool) -> AbstractContextManager[None]:
        """Bound what runs inside to so many seconds: `HandlerTimeout` is raised in it."""
        if self._alarm is None:
            return nullcontext()
        # A coroutine's own time-out speaks first; the alarm is for code that blocks the loop.
        self._alarm.seconds = seconds * 1.1 + 1 if is_async else seconds
        self._alarm.loop = self._runner.get_loop() if is_async and self._runner else None
        return self._alarm

    @property
    def is_overdue(self) -> bool:
        """Whether an event goes on though its time-out is over, and some seconds more; any thread may ask."""
        return self._alarm is not None and time.monotonic() > self._alarm.heeded_by

    def close(self) -> None:
        """Close the event loop, with all that handlers left running on it."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        if self._alarm is not None:
            self._alarm.remove()


class _Alarm:
    """The timer of the process, which interrupts an event whose time is over.

    A system call at either end of each event would cost more than many a handler. So the timer is left as it is while
    it rings early enough for the event that is run; when it rings, an event that has time left gets the rest of it, and
    where none is run nobody is interrupted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._is_armed = False
        self._rings = 0
        # All by `time.monotonic()`. When the time of this event is over.
        self._due_at = 0.0
        # When the timer was set, and when it rings.
        self._set_at = self._rings_at = -math.inf
        # When an event is expected to have ended, or its handler to have been interrupted.
        self._expected_at = math.inf
        self._before = signal.signal(signal.SIGALRM, self._ring)

    @property
    def heeded_by(self) -> float:
        """When an event must have ended, or its handler been interrupted, if it can be."""
        return self._expected_at + max(_GRACE_S, _GRACE * self.seconds)

    def _ring(self, _signal: int, frame: FrameType | None) -> None:
        self._rings_at = -math.inf
        if not self._is_armed or (frame is not None and frame.f_code is _EXIT):
            # Nothing is run, or it has just ended: raised there, this would leave the alarm armed for ever.
            return
        now = time.monotonic()
        if now < self._due_at:
            # It was set for an event before this one.
            self._set(now, self._due_at - now)
            return
        self._rings += 1
        if self._rings <= _MOST_RINGS:
            self._expected_at = now + self.seconds
        # It rings again: a failure hook that hangs is interrupted as well.
        self._set(now, self.seconds)
        if self.loop is not None and asyncio.current_task(self.loop) is None:
            # The loop waits for something and blocks nobody. Raised here, this would break the loop and the worker, and
            # not reach the handler, whose own time-out is about to speak.
            return
        raise HandlerTimeout

    def __enter__(self) -> None:
        now = time.monotonic()
        self._rings = 0
        self._due_at = self._expected_at = now + self.seconds
        # Only now: a ring before this is for nobody, and one after it finds when it is due.
        self._is_armed = True
        if now - self._set_at > _TRUSTED_S or not now < self._rings_at <= self._due_at:
            self._set(now, self.seconds)

    def __exit__(self, *_: object) -> None:
        self._is_armed = False
        self._expected_at = math.inf

    def _set(self, now: float, seconds: float) -> None:
        # To set less than a µs is to set nothing at all.
        seconds = max(seconds, _LEAST_S)
        self._set_at, self._rings_at = now, now + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def remove(self) -> None:
        """Give the signal back to whoever had it."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


_EXIT = _Alarm.__exit__.__code__
