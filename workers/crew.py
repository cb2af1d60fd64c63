"""Who runs user code where several handlers run side by side: threads for plain machines, an event loop for async ones.

Threads are started as they are needed, and one more for the loop, on which the application's async services live too.
Who calls this: the worker with `--concurrency` above 1, which hands out no more than that at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.engine import drive
from workers.timekeeper import Seat, Seated, Timekeeper, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

__all__ = ["Crew"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")
# What is run here: in the context of a thread, or of a task.
_about: contextvars.ContextVar[Any] = contextvars.ContextVar("fsm_about", default=None)
# A thread that computes gives way so soon, a tenth of Python's own: with 16 of them, whoever commits waits for its turn
# for 8 ms at most, not for 80, and each change of turns takes some µs.
_SWITCH_S = 0.0005
# What was told to break off has so long to do it.
_BREAK_OFF_S = 1.0
_CLOSE_S = 0.1


class Crew:
    """Threads and a loop, for as much work at once as it is given.

    Args:
        size: Most threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._switched_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._orders: SimpleQueue[tuple[Callable[[], Coroutine[Any, Any, None]], Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._seats: list[Seat] = []
        self._at_work = 0
        self._here = threading.local()
        self._timekeeper = Timekeeper()
        self._timekeeper.start()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._guard = threading.Lock()
        self._is_breaking_off = False

    def give(self, work: Callable[[], Coroutine[Any, Any, None]], about: Any, *, is_async: bool) -> None:
        """Have a coroutine driven to its end; it sees to itself what comes of it.

        Args:
            work: Makes the coroutine, where it is to run.
            about: What is told of it where it is overdue.
            is_async: Whether it suspends, and needs the loop.
        """
        if is_async:
            # Without the context of who gives it.
            self._open_loop().call_soon_threadsafe(self._begin, work, about, context=contextvars.Context())
            return
        with self._guard:
            # There is a thread for each order that has not ended: none waits behind another one.
            self._at_work += 1
            if self._at_work > len(self._threads) and len(self._threads) < self._size:
                self._start_thread()
        self._orders.put((work, about))

    def _start_thread(self) -> None:
        """Start one more, or do with those that there are where the host allows no more."""
        thread = threading.Thread(target=self._serve, name=f"fsm-crew-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                self._at_work -= 1
                raise
            self._size = len(self._threads)
            about = "no more than %d threads for handlers can be started here: lower --concurrency, or raise the limit"
            _log.exception(about, self._size)
        else:
            self._threads.append(thread)

    def drive(self, work: Coroutine[Any, Any, R]) -> R:
        """Drive a coroutine on the event loop of async handlers: what it opens there is theirs to use."""
        future: Future[R] = asyncio.run_coroutine_threadsafe(work, self._open_loop())
        return future.result(_BREAK_OFF_S if self._is_breaking_off else None)

    def timed(self, seconds: float, *, is_async: bool) -> AbstractContextManager[None]:
        """Bound what runs inside to so many seconds: `HandlerTimeout` is raised in it."""
        # A coroutine's own time-out speaks first; this is for code that blocks the loop.
        return Timing(self._timekeeper, self._here.seat, seconds * 1.1 + 1 if is_async else seconds, _about.get())

    @property
    def overdue(self) -> Any:
        """What goes on though its time-out is over, and some seconds more, as it was given; any thread may ask."""
        timing = self._timekeeper.overdue
        return None if timing is None else timing.about

    def break_off(self) -> None:
        """Interrupt all that runs."""
        self._is_breaking_off = True
        for seat in list(self._seats):
            seat.ring(None, KeyboardInterrupt)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """End the threads and the loop, with all that handlers left running on it."""
        self._is_breaking_off = True
        for _ in self._threads:
            self._orders.put(None)
        # In C some may go on for long: all of them together are waited for.
        deadline = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(timeout=_BREAK_OFF_S)
            self._loop = None
        self._timekeeper.stop()
        sys.setswitchinterval(self._switched_s)

    def _serve(self) -> None:
        seat = self._here.seat = Seat()
        with self._guard:
            self._seats.append(seat)
        while (order := self._orders.get()) is not None:
            try:
                work, about = order
                _about.set(about)
                drive(work())
            except BaseException:  # noqa: BLE001 - a thread that ended here would be missed
                if not self._is_breaking_off:
                    _log.exception("a thread of the crew was interrupted beside its work")
            finally:
                # Where an event was interrupted as it rose.
                seat.rise()
                with self._guard:
                    self._at_work -= 1

    # On the loop.

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._loop_thread = threading.Thread(target=self._run, args=(loop,), name="fsm-loop", daemon=True)
                self._loop_thread.start()
                # Not before: what is given to a loop that nobody runs is never begun.
                self._loop = loop
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._here.seat = Seat()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            asyncio.set_event_loop(runner.get_loop())
            loop.run_forever()

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]], about: Any) -> None:
        _about.set(about)
        task = asyncio.get_running_loop().create_task(Seated(work(), self._here.seat))
        # The loop itself keeps no task alive.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
