"""A plan that tells the way of an FSM: its last states, and by which events it came to them, as the log still knows.

The snapshot knows the states, and is true; the log knows the rest, is capped, and may have forgotten some of it. So the
states are taken from the one, newest first, and told by the other as far as both agree.

Who calls this: the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.errors import StoreError, UnknownMachineError
from fsm.machine import END
from fsm.verbs.looking import log_back, state
from fsm.verbs.starting import blueprint

if TYPE_CHECKING:
    from fsm.store.codec import Snapshot
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["Visit", "visits"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One state of an FSM's way.

    Args:
        state: The state.
        event: The event that led there; like all below `None` where the log has forgotten it.
        at_ms: When it came there.
        version: Of the FSM then.
        job_id: Of the event.
    """

    state: str
    event: str | None = None
    at_ms: int | None = None
    version: int | None = None
    job_id: str | None = None


def visits(keys: Keys, name: str) -> Plan[list[Visit]]:
    """Give the last states of an FSM, oldest first, the present one last: as many as `Settings(history=)` says.

    Raises:
        UnknownFSMError: There is none of this name.
    """
    snapshot = yield from state(keys, name)
    entry = yield from _entry(keys, snapshot.machine)
    left = list(snapshot.history)
    found: list[Visit] = []
    before: str | None = "+"
    while left and before is not None:
        lines, before = yield log_back(keys, before)
        for line in lines:
            if line.get("name") != name or _is_newer(line, snapshot):
                continue
            if _is_older(line, snapshot) or not left:
                before = None
                break
            if _enters(line, left, entry):
                found.append(_visit(left.pop(), line))
            elif line.get("from") != line.get("to"):
                # Log and snapshot do not agree, since one of them was edited by hand.
                before = None
                break
    found.extend(Visit(one) for one in reversed(left))
    return found[::-1]


def _is_newer(line: dict[str, Any], snapshot: Snapshot) -> bool:
    """Whether the FSM went on between the looks at snapshot and log; other lines tell of no transition."""
    version = line.get("version")
    return not isinstance(version, int) or version > snapshot.version


def _is_older(line: dict[str, Any], snapshot: Snapshot) -> bool:
    """Whether it tells of an earlier life of the name."""
    return bool(line["at_ms"] < int(snapshot.born) // 1000)


def _enters(line: dict[str, Any], left: list[str], entry: str) -> bool:
    """Whether with this line the newest of these states was entered; the first of a life by its entry event."""
    if line.get("to") != left[-1]:
        return False
    return line.get("from") != line.get("to") or (len(left) == 1 and line.get("event") == entry)


def _entry(keys: Keys, machine: str) -> Plan[str]:
    """Give the name of the entry event of a machine; where it was not announced, that of a diagram that names none."""
    try:
        return (yield from blueprint(keys, machine)).entry
    except (UnknownMachineError, StoreError):
        return END


def _visit(state_name: str, line: dict[str, Any]) -> Visit:
    return Visit(state_name, line.get("event"), line["at_ms"], line["version"], line.get("job"))
