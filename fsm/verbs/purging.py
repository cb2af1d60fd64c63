"""Plans that take FSMs away: one, or all that have finished long enough ago.

Who calls this: the client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsm.engine import checked_name, inside
from fsm.errors import CallTimeoutError, FSMError, StoreError, UnknownFSMError
from fsm.store import calls, retention
from fsm.store.codec import text
from fsm.store.requests import Request
from fsm.verbs.looking import indexed
from fsm.verbs.moments import clock, read_clock
from fsm.verbs.plans import pause
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["count_finished", "purge", "purge_finished"]


def purge(keys: Keys, name: str, born: str, timeout: float) -> Plan[None]:
    """Take one FSM away with its mail.

    Raises:
        UnknownFSMError: There is none of this name.
        CallTimeoutError: A worker was at it for all that time.
        HandlerError: Called inside of a handler.
    """
    inside.refuse_to_wait(f"purge of FSM {name!r}")
    begin = time.monotonic()
    # From here on it is this life and no other: a call that is repeated late must not purge the next one.
    try:
        known = yield Request(text, commands=[("HGET", keys.snapshot(checked_name(name)), "born")])
    except StoreError as error:
        raise (broken(keys, name) if "WRONGTYPE" in error.problem else error) from error
    if not known or (born and born != known):
        raise UnknownFSMError(name, keys.namespace, born)
    while True:
        word = yield calls.purge(keys, name, known)
        if word in ("PURGED", "UNKNOWN"):
            return
        if word == "BROKEN":
            raise broken(keys, name)
        if word == "HELD":
            if time.monotonic() - begin > timeout:
                raise CallTimeoutError(name, "purge", "", timeout, "a worker has it in hand")
            yield pause(keys, 0.05)


def count_finished(keys: Keys, age_ms: int, machine: str | None) -> Plan[int]:
    """Count the FSMs that finished so long ago, of a machine or of all."""
    pairs = [pair for pair in (yield indexed(keys)) if machine in (None, pair[0])]
    if not pairs:
        return 0
    asked = clock()
    # With one command more the reply is a list, however many there are.
    now_ms = read_clock((yield Request(list, commands=[*asked, ("EXISTS", keys.states)])), len(asked))
    counted = [("ZCOUNT", keys.finished_of(*pair), "-inf", now_ms - age_ms) for pair in pairs]
    counts = yield Request(list, commands=[*counted, ("EXISTS", keys.states)])
    return sum(map(int, counts[:-1]))


def purge_finished(
    keys: Keys, age_ms: int, machine: str | None, timeout: float, told: Callable[[int], None] = lambda _: None
) -> Plan[int]:
    """Take away all FSMs that finished so long ago, of a machine or of all; gives how many.

    Args:
        keys: Of the namespace.
        age_ms: How long ago at least.
        machine: Only FSMs of this machine.
        timeout: Seconds to wait for workers that have some of them in hand, all together.
        told: Is told, now and then, how many were taken away by then.

    Raises:
        CallTimeoutError: A worker had one of them in hand for all that time.
        StoreError: A key of one of them is of another type: all others are gone.
        HandlerError: Called inside of a handler.
    """
    inside.refuse_to_wait("purge_finished")
    count = 0
    held: dict[str, str] = {}
    for name, state in (yield indexed(keys)):
        if machine not in (None, name):
            continue
        skipped = 0
        while True:
            one = yield retention.expire(keys, name, state, age_ms, skipped)
            count += len(one.gone)
            told(count)
            held |= one.left
            skipped += len(one.left)
            if not one.is_full:
                break
    # Last, so that one that cannot be taken away keeps no other.
    faults: list[FSMError] = []
    end = time.monotonic() + timeout
    for name, born in held.items():
        try:
            yield from purge(keys, name, born, max(0.0, end - time.monotonic()))
            count += 1
            told(count)
        except UnknownFSMError:
            continue  # somebody else did
        except (CallTimeoutError, StoreError) as error:
            faults.append(error)
    if faults:
        raise faults[0]
    return count
