"""Who keeps a worker from waiting for a storage that is down, again and again.

Who calls this: `shelf`, one for each storage of the process.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from fsm.errors import StoreError
from fsm.storage.persistable import RowBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker"]

R = TypeVar("R")
# A short outage is waited for, with the FSMs in hand; a longer one is not.
_PAUSES_S = (0.050, 0.200)
# How long it is left alone after that: each time twice as long.
_SHORTEST_S, _LONGEST_S = 1.0, 30.0


class Breaker:
    """Closed while a storage answers; open for a time after it did not, and meanwhile nobody asks it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open_until = 0.0
        self._open_s = 0.0
        self._problem = ""

    def call(self, ask: Callable[[], R], *, is_patient: bool = True) -> R:
        """Ask the storage; where it cannot be used, twice more if that is worth it, and then not for some time.

        Raises:
            StoreError: It could not be used, or not shortly before.
            RowBusyError: It can, but for one row, which is no reason to leave it alone.
        """
        with self._guard:
            if time.monotonic() < self._open_until:
                raise StoreError(self._problem)
            # One that was down until now is asked once.
            pauses = () if self._open_s or not is_patient else _PAUSES_S
        for pause in pauses:
            try:
                return ask()
            except RowBusyError:
                raise
            except StoreError:
                time.sleep(pause)
        try:
            answer = ask()
        except RowBusyError:
            raise
        except StoreError as error:
            self.open(error.problem)
            raise
        self._open_s = self._open_until = 0.0
        return answer

    def open(self, problem: str) -> None:
        """Leave the storage alone for a time."""
        with self._guard:
            self._problem = problem
            if time.monotonic() < self._open_until:
                return  # another thread has found the same
            self._open_s = min(max(_SHORTEST_S, 2 * self._open_s), _LONGEST_S)
            self._open_until = time.monotonic() + self._open_s * random.uniform(0.8, 1.2)  # noqa: S311 - no secret

    @property
    def wait_s(self) -> float:
        """For how long it stays open."""
        return max(0.0, self._open_until - time.monotonic())
