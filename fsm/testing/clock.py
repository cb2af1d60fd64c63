"""Time that a test moves: what is due in a day comes now, from a world in memory or from real workers.

The clock of FSMs is that of Redis, and scripts read it. Where `FSM_TEST_CLOCK` is 1, they add to it what a test has put
into the key `fsm:clock`: so far is the time of FSMs ahead of the true one. It moves timers, ticks, delays, deadlines
and retries, `t.now`, and the times that stand in snapshots and in the log.

It does not move what Redis and RQ count by themselves: `TIME` itself, the end of locks and of records, ids of streams,
the times in job records, heartbeats. So no lease ends by it, no worker is taken for dead, and results stay as long as
ever. Nothing sleeps shorter by it either: what a handler waits for, it waits for.

Who calls this: tests; `fsm_clock` of the plugin is one.
"""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from fsm.engine.mail import delay_ms
from fsm.errors import StoreError
from fsm.store import calls, requests
from fsm.store.keys import CLOCK

if TYPE_CHECKING:
    from types import TracebackType

    from fsm.client import Client
    from fsm.machine.durations import Duration

__all__ = ["Clock"]

# Stops of one way: a timer that arms itself again with no time between would never let it end.
_MOST_STOPS = 10_000


class Clock:
    """Moves the time of all FSMs of a Redis, for as long as a `with` block, in this process and those it starts.

    Args:
        client: Of the Redis; workers of it are started after this is made, as children, or with FSM_TEST_CLOCK=1.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before = os.environ.get(requests.TEST_CLOCK)
        self._set("1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let this process go by the true time again; workers that it started go on as they are."""
        self._set(self._before)

    @property
    def now(self) -> datetime:
        """The time by which FSMs live now, aware, UTC."""
        (seconds, us), ahead = self._ask(("TIME",), ("GET", CLOCK))
        return datetime.fromtimestamp((int(seconds) * 1000 + int(us) // 1000 + int(ahead or 0)) / 1000, UTC)

    def advance(self, delay: Duration) -> None:
        """Move the time on, and fire what becomes due.

        With `memory://` each comes at its own time, in order, and is applied before the next is due, as in a trial.
        With workers the time jumps, as if nobody had been there meanwhile: what was due more than ten seconds before
        is overdue, and what becomes of a timer then, its machine says. All has joined its mailbox when this returns,
        and workers apply it; wait for that as for any event.

        Args:
            delay: How long; 0 fires what is due by now.

        Raises:
            PayloadError: It is no length of time.
            StoreError: Redis cannot be used; or with `memory://` more came due than any test can want.
        """
        left = delay_ms(delay)
        if self._client.world is None:
            self._move(left)
            self._fire()
            return
        due_s = self._fire()
        for _ in range(_MOST_STOPS):
            if not left:
                return
            # Each that is due before the end is a stop on the way.
            step = left if due_s is None else min(left, math.ceil(due_s * 1000))
            self._move(step)
            left -= step
            due_s = self._fire()
        problem = (
            f"more than {_MOST_STOPS} timers and delayed events came due: does one arm itself with no time between?"
        )
        raise StoreError(f"memory://: {problem}")

    def _fire(self) -> float | None:
        """Fire what is due, until nothing is; gives the seconds until the next is, `None` where there is none."""
        while True:
            fired, due_s = self._client.ask(calls.due(self._client.keys))
            if not fired and due_s != 0.0:
                return due_s

    def _move(self, ms: int) -> None:
        self._ask(("INCRBY", CLOCK, ms))

    def _ask(self, *commands: tuple[Any, ...]) -> Any:
        return self._client.ask(requests.Request(lambda reply: reply, commands=commands))

    @staticmethod
    def _set(value: str | None) -> None:
        if value is None:
            os.environ.pop(requests.TEST_CLOCK, None)
        else:
            os.environ[requests.TEST_CLOCK] = value
        requests.script.cache_clear()
