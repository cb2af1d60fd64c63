"""Rows of lives that are over are dropped: by every worker that knows the storage, a few at a time.

Who purges an FSM, or takes away what has finished long ago, needs Redis and nothing else. What of it lies in a storage
is noted there in the same step; whoever looks next drops it, and then takes the note away. A name that lives again
keeps what it has: its life is another one. And so does a life that comes back from a backup: whoever restores it in the
place of what is there purges that first, so what was noted less than a minute ago is left alone.

Who calls this: the worker, between its claims; the jobs of stock workers; and `memory://`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import dropping, storing
from workers.carrier import is_passing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys
    from workers.handover import Ask
    from workers.shelf import Shelf

__all__ = ["Dropping"]

_log = logging.getLogger("fsm.worker")
_LOOK_S = 10.0
_SOON_S = 1.0
_AGE_MS = 60_000


class Dropping:
    """Drops rows of lives that are over, when it is time to look.

    Args:
        keys: Of the namespace.
        shelf: The storages of the machines, if any has one.
        age_ms: How long ago it was noted at least.
    """

    def __init__(self, keys: Keys, shelf: Shelf | None, age_ms: int = _AGE_MS) -> None:
        self._keys = keys
        self._shelf = shelf
        self._age_ms = age_ms
        self._due_at = 0.0

    def look(self, carry: Ask) -> int:
        """Drop some, where there are any and it is time; gives how many rows there were.

        On a crash: whoever looks next goes on.

        Raises:
            StoreError: Redis is away.
        """
        if self._shelf is None:
            return 0
        now = time.monotonic()
        if now < self._due_at:
            return 0
        self._due_at = now + _LOOK_S
        count = 0
        try:
            if machines := self._shelf.machines():
                for machine, found in carry(dropping.over(self._keys, machines, self._age_ms)).items():
                    count += self._drop(carry, self._shelf, machine, found)
        except StoreError as error:
            if is_passing(error):
                raise
            # Somebody put something else there, or this user may not: no worker is to end by that.
            _log.warning("rows of purged FSMs stay for now: %s", error)
        return count

    def _drop(self, carry: Ask, shelf: Shelf, machine: str, found: dropping.Over) -> int:
        count, lives = 0, found.lives
        if lives:
            # A life that was purged and restored from a backup is not over any more.
            there = carry(storing.lives(self._keys, list(lives)))
            lives = {name: born for name, born in lives.items() if not _is_back(there[name], born)}
        if lives:
            try:
                count = shelf.drop(machine, lives)
            except StoreError as error:
                # Its FSMs say so loudly enough, and this waits well.
                _log.info("rows of %d purged FSMs of %s stay for now: %s", len(lives), machine, error)
                return 0
            except Exception:  # noqa: BLE001 - whatever a storage of a user's own raises, a worker has other work too
                _log.exception("rows of %d purged FSMs of %s cannot be dropped: %s", len(lives), machine, _some(lives))
                return 0
        carry(dropping.forget(self._keys, machine, found.notes))
        if len(found.notes) >= dropping.MOST_AT_ONCE:
            self._due_at = time.monotonic() + _SOON_S
        return count


def _is_back(alive: str, born: str) -> bool:
    """Tell whether what lives now is this life, or one before it: a note is made when it was purged."""
    return alive.isdecimal() and int(alive) <= int(born)


def _some(names: Sequence[str] | dict[str, str]) -> str:
    return ", ".join(map(repr, list(names)[:3]))
