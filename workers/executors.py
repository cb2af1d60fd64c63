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

__all__ = ["Executor", "InlineExecutor"]

R = TypeVar("R")
# What a time-out may come late in the eyes of who looks from outside, and the share of it if that is more.
_GRACE_S, _GRACE = 2.0, 0.1
# A ring is for the handler, a second one for a failure hook that hangs as well: whoever heeds neither, heeds none.
_MOST_RINGS = 2


class Executor(Protocol):
    """Who drives activations, and keeps the time of their events."""

    def run(self, work: Coroutine[Any, Any, R], *, is_async: bool) -> R:
        """Drive a coroutine to its end."""

    def timed(self, seconds: float, *, is_async: bool) -> AbstractContextManager[None]:
        """Bound what runs inside to so many seconds."""


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
    """The timer of the process, armed around each event: a system call at either end, and nothing in between."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._armed = False
        self._rings = 0
        # When an event must have ended, or its handler been interrupted, if it can be.
        self.heeded_by = math.inf
        self._before = signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._armed:
            return
        self._rings += 1
        if self._rings <= _MOST_RINGS:
            self._expect()
        if self.loop is not None and asyncio.current_task(self.loop) is None:
            # The loop waits for something and blocks nobody. Raised here, this would break the loop and the worker, and
            # not reach the handler, whose own time-out is about to speak.
            return
        raise HandlerTimeout

    def __enter__(self) -> None:
        self._armed = True
        self._rings = 0
        self._expect()
        # It rings again: a failure hook that hangs is interrupted as well.
        signal.setitimer(signal.ITIMER_REAL, self.seconds, self.seconds)

    def __exit__(self, *_: object) -> None:
        self._armed = False
        self.heeded_by = math.inf
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _expect(self) -> None:
        self.heeded_by = time.monotonic() + self.seconds + max(_GRACE_S, _GRACE * self.seconds)

    def remove(self) -> None:
        """Give the signal back to whoever had it."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
