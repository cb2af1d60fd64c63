"""What is due is rung when it is due, whatever this worker does just now: a thread keeps the time.

Redis ends a sleep that nobody breaks off only when it comes round to it, on a server at rest up to 100 ms late. So
nobody sleeps there until something is due: this thread waits here, and asks Redis in the moment. What it makes ready
wakes a sleeper through RQ's list, as all work does. It goes on while a handler of minutes runs; then others apply it.

When that is, it learns from each answer of `due` and of `claim`. Where neither was asked since something was armed,
whoever armed it has put an id onto RQ's list (`wake_for_alarm` in the scripts), for which a sleeper wakes and claims.

Who calls this: the worker; its intake tells what claims say.
"""

from __future__ import annotations

import logging
import threading
import time
from math import inf
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import calls

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from workers.carrier import Carrier
    from workers.handover import Ask

__all__ = ["AlarmClock"]

_log = logging.getLogger("fsm.worker")
# What somebody armed who could not tell us is looked for this often.
_LOOK_S = 1.0
# Of a thousand that are due within a second, not each is asked for by itself: so long between two calls at least,
# unless one could not bring all.
_GATHER_S = 0.005
_MOST = 200


class AlarmClock:
    """Asks Redis to make ready what is due, in the moment in which it is, and else once a second.

    Args:
        carrier: Carries the requests.
        keys: Of the namespace.
    """

    def __init__(self, carrier: Carrier, keys: Keys) -> None:
        self._carrier = carrier
        self._keys = keys
        self._asked_at = -inf
        self._due_at = inf
        self._is_urgent = False
        self._is_over = False
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fsm-alarm", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; what it does just then harms nobody, so it is not waited for where Redis is away."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def hear(self, due_at: float) -> None:
        """Note when the next is due, by `time.monotonic()`; too early is asked in vain once, and harms nobody."""
        if due_at < self._due_at:
            with self._changed:
                self._due_at = min(self._due_at, due_at)
                self._changed.notify()

    def look_soon(self) -> None:
        """Ask at once: something is to be tried again, perhaps soon."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify()

    def ring(self) -> int:
        """Make ready what is due, unless it is known that nothing is; gives how many.

        Raises:
            StoreError: Redis refused it, or is away and this worker is to stop.
        """
        return self._ring(self._carrier.carry)

    def _run(self) -> None:
        is_told = False
        while self._has_waited():
            try:
                self._ring(self._carrier.once)
                is_told = False
            except StoreError as error:
                if not is_told:
                    _log.warning("could not make ready what is due; it is tried again each second: %s", error)
                is_told = True
            except Exception:  # noqa: BLE001 - a thread that ended here would let all that is due be late, without a word
                _log.exception("could not make ready what is due")

    def _has_waited(self) -> bool:
        """Wait until it is time to ask; False where the worker ends."""
        with self._changed:
            while not self._is_over and (pause := self._pause()) > 0:
                self._changed.wait(pause)
            return not self._is_over

    def _pause(self) -> float:
        if self._is_urgent:
            return 0.0
        at = max(min(self._due_at, self._asked_at + _LOOK_S), self._asked_at + _GATHER_S)
        return at - time.monotonic()

    def _ring(self, carry: Ask) -> int:
        with self._turn:
            if self._pause() > 0:
                return 0
            with self._changed:
                # First: another thread may commit meanwhile what is to be tried again, and want to have it asked once
                # more; or a claim may tell of what was armed since.
                self._asked_at, self._due_at, self._is_urgent = time.monotonic(), inf, False
            rung, seconds = carry(calls.due(self._keys, most=_MOST))
            if seconds is not None:
                self.hear(time.monotonic() + seconds)
            if rung >= _MOST:
                self._asked_at -= _GATHER_S
            return rung
