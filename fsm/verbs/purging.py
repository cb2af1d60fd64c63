"""A plan that takes an FSM away.

Who calls this: the client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsm.engine import checked_name, inside
from fsm.errors import CallTimeoutError, StoreError, UnknownFSMError
from fsm.store import calls
from fsm.store.codec import text
from fsm.store.requests import Request
from fsm.verbs.plans import pause
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["purge"]


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
