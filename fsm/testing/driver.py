"""Who runs user code in tests: the calling thread, with an event loop of its own where a machine is async.

Who calls this: the trial, and the worker behind `memory://`. It offers what the executors of workers offer, without
time-outs: a test that hangs is the business of who runs tests.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.engine import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

__all__ = ["Driver", "without_loop"]

R = TypeVar("R")


class Driver:
    """Runs steps one after the other; async ones on one private event loop, which lives until `close`.

    The loop is nobody else's: `asyncio.get_event_loop` of the test does not see it, and a test that is a coroutine
    itself may use this too. One that is forgotten is closed when it is collected.
    """

    def __init__(self) -> None:
        self._runner = _runner()
        self._finalizer = weakref.finalize(self, _close, self._runner)

    def run(self, work: Coroutine[Any, Any, R], *, is_async: bool) -> R:
        """Drive a coroutine to its end.

        Args:
            work: It suspends only where `is_async`.
            is_async: Whether an event loop is needed. Plain code runs without one, as in a worker.
        """
        if not is_async:
            return drive(work)
        if not self._finalizer.alive:
            self._runner = _runner()
            self._finalizer = weakref.finalize(self, _close, self._runner)
        runner, context = self._runner, contextvars.copy_context()
        return without_loop(lambda: runner.run(work, context=context))

    def timed(self, seconds: float, *, is_async: bool) -> AbstractContextManager[None]:  # noqa: ARG002 - as executors have it
        """Bound nothing."""
        return nullcontext()

    def close(self) -> None:
        """Close the event loop, with all that handlers left running on it; the next run opens another."""
        self._finalizer()


def _runner() -> asyncio.Runner:
    # With a factory the runner does not make its loop the thread's own, which would be the test's.
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


def _close(runner: asyncio.Runner) -> None:
    without_loop(runner.close)


def without_loop(act: Callable[[], R]) -> R:
    """Call a function that runs a loop: in a thread of its own, where this one runs a loop already.

    The thread is given the context of the caller.
    """
    if not _is_loop_running():
        return act()
    context = contextvars.copy_context()
    answers: list[R] = []
    faults: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(context.run(act))
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread that waits
            faults.append(fault)

    thread = threading.Thread(target=call, name="fsm-testing")
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return answers[0]


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
