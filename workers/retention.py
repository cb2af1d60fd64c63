"""FSMs that have finished are taken away when their machine says so: by every worker that serves it, a few at a time.

Nothing is armed for them: the index of those that have finished stands in the order in which they did, so a look at its
beginning tells. A look is short, and comes each ten seconds; each second while there is more to do than one look does.
Stock workers have no time of their own: there each job looks, when its event has ended. In memory each call does.

Who calls this: the worker, between its claims, the jobs of stock workers, and the worker in memory.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from fsm.store import calls, retention
from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsm.machine import Definition
    from fsm.store.keys import Keys
    from workers.handover import Ask

__all__ = ["Retention", "ages_of"]

_LOOK_S = 10.0
_SOON_S = 1.0
# Of one state; with 200 a call it is some 20 ms of Redis, in steps.
_MOST_CALLS = 10
# Those with mail, or damaged, which are purged one by one.
_MOST_LEFT = 20


def ages_of(definitions: Iterable[Definition]) -> dict[str, int]:
    """Give the machines that do not keep for ever what has finished: name -> ms."""
    found = {one.name: one.settings.keep_finished_ms for one in definitions}
    return {name: age_ms for name, age_ms in found.items() if age_ms is not None}


class Retention:
    """Takes away what has finished, when it is time to look.

    Args:
        keys: Of the namespace.
        ages: Machines that say how long they keep theirs: name -> ms.
    """

    def __init__(self, keys: Keys, ages: Mapping[str, int]) -> None:
        self._keys = keys
        self._ages = dict(ages)
        self._due_at = 0.0
        # Of each state how many of the oldest were looked at and left, where a look did not come to its end.
        self._passed = dict[tuple[str, str], int]()

    def look(self, carry: Ask) -> int:
        """Take away some, where there are any and it is time; gives how many.

        On a crash: whoever looks next goes on.

        Raises:
            StoreError: Redis refused it, or is away.
        """
        now = time.monotonic()
        if not self._ages or now < self._due_at:
            return 0
        self._due_at = now + _LOOK_S
        count = 0
        for machine, state in carry(_finished(self._keys, self._ages)):
            count += self._expire(carry, machine, state)
        return count

    def _expire(self, carry: Ask, machine: str, state: str) -> int:
        # Behind those that the look before has left: however many they are, they keep no other.
        passed = self._passed.pop((machine, state), 0)
        count, left, is_over = 0, dict[str, str](), False
        for _ in range(_MOST_CALLS):
            one = carry(retention.expire(self._keys, machine, state, self._ages[machine], passed))
            count += len(one.gone)
            left |= one.left
            passed += len(one.left)
            if is_over := not one.is_full:
                break
        known = [(name, born) for name, born in left.items() if born]
        # Drawn, so that those which cannot be purged do not take all turns.
        for name, born in random.sample(known, min(_MOST_LEFT, len(known))):
            # Who is not gone by it is met by a later look.
            if carry(calls.purge(self._keys, name, born)) == "PURGED":
                passed -= 1
        if not is_over:
            self._passed[machine, state] = passed
            self._due_at = time.monotonic() + _SOON_S
        return count


def _finished(keys: Keys, ages: Mapping[str, int]) -> Request[list[tuple[str, str]]]:
    """Name the states, of these machines, that any of theirs has ever had."""

    def read(reply: Iterable[bytes]) -> list[tuple[str, str]]:
        pairs = (text(member).partition(":") for member in reply)
        return sorted((machine, state) for machine, _, state in pairs if machine in ages)

    return Request(read, commands=[("SMEMBERS", keys.states)])
