"""A plan that holds what is noted against the truth, for all FSMs, and puts right what differs.

The truth about an FSM is its snapshot, about an event its record. All else, what indexes, `ready`, `held` and `timers`
say of them, is written in the same steps, so it can differ only where somebody edited Redis by hand, where a key was
lost, or where we have an error. FSMs are looked at while they run: see `synch.lua`.

Who calls this: the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import synching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys
    from fsm.store.synching import Repair
    from fsm.verbs.plans import Plan

__all__ = ["synch"]


def synch(keys: Keys) -> Plan[list[Repair]]:
    """Look at all FSMs, events that wait, workers, and states; give what was put right, and what cannot be.

    Each FSM and each record costs Redis a look, in calls that are short, so that others are served in between.
    """
    found: dict[Repair, None] = {}  # a page may bring a name twice
    indexes: dict[str, None] = {}
    cursor, is_first = 0, True
    while cursor or is_first:
        page = yield synching.fsms(keys, cursor)
        cursor, is_first = page.cursor, False
        indexes.update(dict.fromkeys(page.indexes))
        found |= yield from _looked(keys, "fsm", page.names)
    cursor, is_first = 0, True
    while cursor or is_first:
        page = yield synching.events(cursor)
        cursor, is_first = page.cursor, False
        found |= yield from _looked(keys, "job", page.names)
    for index in indexes:
        found |= yield from _members(keys, index)
    found |= yield from _looked(keys, "worker", (yield synching.workers(keys)))
    found |= yield from _looked(keys, "known", (yield synching.states(keys)))
    return list(found)


def _members(keys: Keys, index: str) -> Plan[dict[Repair, None]]:
    """Look whether the members of an index belong there."""
    found: dict[Repair, None] = {}
    cursor, is_first = 0, True
    while cursor or is_first:
        try:
            page = yield synching.members(index, cursor)
        except StoreError as error:
            # Each FSM that should be in it says that the key is of another type.
            if "WRONGTYPE" in error.problem:
                return found
            raise
        cursor, is_first = page.cursor, False
        found |= yield from _looked(keys, index, page.names)
    return found


def _looked(keys: Keys, where: str, names: Sequence[bytes]) -> Plan[dict[Repair, None]]:
    found: dict[Repair, None] = {}
    for first in range(0, len(names), synching.MOST_NAMES):
        found.update(dict.fromkeys((yield synching.look(keys, where, names[first : first + synching.MOST_NAMES]))))
    return found
