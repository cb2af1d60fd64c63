"""A plan that waits until an FSM comes to a state.

The snapshot is looked at, more and more seldom; when its version has changed, the log tells which states it passed
through meanwhile. So a state is not missed though the FSM is in it for a millisecond, as far back as the log reaches.

Who calls this: the client.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.engine import checked_name, inside
from fsm.errors import (
    CallTimeoutError,
    DefinitionError,
    FailedError,
    FSMFinishedError,
    UnknownFSMError,
    UnknownMachineError,
)
from fsm.store.blueprint import Blueprint
from fsm.store.codec import text
from fsm.store.requests import Request
from fsm.verbs.looking import read_log, state
from fsm.verbs.plans import pause
from fsm.verbs.starting import blueprint
from fsm.verbs.why import why

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.machine import Definition
    from fsm.store.codec import Snapshot
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["wait_for"]

# A step is seldom quicker than this, and a quarter of a second is soon for who has waited longer.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.020, 0.250
# How often the end of the log is asked for, so that little of it is to be read when the FSM has moved at last: Redis
# gives the newest entry, which may have many lines, to tell its id.
_END_EVERY_S = 5.0


def wait_for(
    keys: Keys, name: str, states: str | Iterable[str], timeout: float | None, definition: Definition | None = None
) -> Plan[Snapshot]:
    """Wait until an FSM is in one of these states, or has passed through one since this was asked.

    Args:
        keys: Of the namespace.
        name: The FSM.
        states: One state or several.
        timeout: Seconds; `None` waits for ever.
        definition: Of its machine, where the class is at hand.

    Returns:
        The FSM as it stands then: it may have gone on already.

    Raises:
        UnknownFSMError: There is none of this name, or it was purged meanwhile.
        DefinitionError: Its machine has no such state.
        FSMFinishedError: It has finished elsewhere.
        FailedError: It cannot go on by itself.
        CallTimeoutError: It did not come there in time; it says why.
        HandlerError: Called inside of a handler.
    """
    wanted = (states,) if isinstance(states, str) else tuple(states)
    what = " or ".join(f"state {one!r}" for one in wanted)
    inside.refuse_to_wait(f"waiting for {what} of FSM {name!r}")
    if not wanted:
        problem = f"wait_for(…) of FSM {name!r} was given no state to wait for"
        raise DefinitionError(problem)
    clock = _Clock(timeout)
    seen = yield _look(keys, checked_name(name))
    if not seen.born:
        raise UnknownFSMError(name, keys.namespace)
    yield from _check_states(keys, seen.machine, wanted, definition)
    after, is_new, read_at = seen.log_end, True, time.monotonic()
    while True:
        if is_new:
            is_there, after = yield from _arrived(keys, name, seen, wanted, after)
            if is_there:
                return (yield from state(keys, name))
        if clock.is_over:
            reason = yield from why(keys, name)
            where = f"it is in state {seen.state!r}"
            raise CallTimeoutError(name, what, "", timeout or 0.0, f"{where}, and {reason}" if reason else where)
        yield pause(keys, clock.pause())
        if is_late := time.monotonic() - read_at > _END_EVERY_S:
            read_at = time.monotonic()
        before, seen = seen, (yield _look(keys, name, "" if is_late else after))
        if seen.born != before.born:
            raise UnknownFSMError(name, keys.namespace)
        is_new = seen.version != before.version
        if not is_new:
            # Nothing was written for this FSM since the last look, so the log need not be read from further back.
            after = seen.log_end


class _Clock:
    """How long to pause, and when the time is over."""

    def __init__(self, timeout: float | None) -> None:
        self._until = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_PAUSE_S

    @property
    def is_over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def pause(self) -> float:
        """Give the next pause, a little longer than the last; none goes beyond the end."""
        pause, self._pause = self._pause, min(1.5 * self._pause, _LONGEST_PAUSE_S)
        if self._until is not None:
            pause = max(0.001, min(pause, self._until - time.monotonic()))
        return pause


@dataclass(frozen=True, slots=True)
class _Seen:
    """Where an FSM stands, and up to which entry the log has nothing newer of it."""

    log_end: str
    born: str
    version: str
    status: str
    state: str
    machine: str


def _look(keys: Keys, name: str, log_end: str = "") -> Request[_Seen]:
    """Read an FSM; and before that where the log ends, unless that is known.

    By the id of the newest entry, not by the clock: ids go on growing where a new primary has a slower one.
    """

    def seen(end: str, values: Any) -> _Seen:
        born, version, status, at, machine = map(text, values)
        return _Seen(end, "" if status == "purging" else born, version, status, at, machine)

    command = ("HMGET", keys.snapshot(name), "born", "version", "status", "state", "machine")
    if log_end:
        return Request(lambda values: seen(log_end, values), commands=[command])
    newest = ("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
    return Request(
        lambda reply: seen(text(reply[0][0][0]) if reply[0] else "0-0", reply[1]), commands=[newest, command]
    )


def _arrived(keys: Keys, name: str, seen: _Seen, wanted: tuple[str, ...], after: str) -> Plan[tuple[bool, str]]:
    """Tell whether an FSM is in one of these states, or was since an entry of the log; and how far the log was read.

    Raises:
        FSMFinishedError: It has finished elsewhere.
        FailedError: It cannot go on by itself.
    """
    if seen.state in wanted and seen.status != "starting":
        return True, after
    is_there, after = yield from _passed(keys, name, after, wanted)
    if not is_there and seen.status == "finished":
        raise FSMFinishedError(name, seen.state)
    if not is_there and seen.status == "failed":
        raise (yield from _failure(keys, name))
    return is_there, after


def _passed(keys: Keys, name: str, after: str, wanted: tuple[str, ...]) -> Plan[tuple[bool, str]]:
    """Tell whether the log after an entry has this FSM enter one of these states, and how far it was read."""
    while lines := (yield read_log(keys, after)):
        after = lines[-1][0]
        # What is to be tried again moved nothing: not an entry event into the first state either.
        if any(
            line.get("name") == name and line.get("to") in wanted and "retry_in_ms" not in line for _, line in lines
        ):
            return True, after
    return False, after


def _check_states(keys: Keys, machine: str, wanted: tuple[str, ...], definition: Definition | None) -> Plan[None]:
    """Check that the machine has these states: by its class, else as it was announced, else not at all."""
    if definition is not None and definition.name == machine:
        about = Blueprint.of(definition, keys.default_queue)
    else:
        try:
            about = yield from blueprint(keys, machine)
        except UnknownMachineError:
            return
    for one in wanted:
        about.check_state(one)


def _failure(keys: Keys, name: str) -> Plan[FailedError]:
    """Give the error of an FSM that cannot go on by itself."""
    snapshot = yield from state(keys, name)
    error = snapshot.error or snapshot.refused or {}
    reason = str(error.get("message") or error.get("reason") or "it cannot go on by itself")
    event, job_id = str(error.get("event", "")), str(error.get("job", ""))
    return FailedError(name, event, snapshot.state, snapshot.version, job_id, reason, error)
