"""What handlers ask for of timers: `t.after`, `t.at`, `t.cancel` and `t.reschedule`, checked when they ask.

Who calls this: the transition makes changes, and `timers.advance` does them with the commit. PURE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from fsm.errors import PayloadError
from fsm.machine.settings import Overdue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsm.engine.timers import Timer

__all__ = ["MOST_TIMERS", "Arm", "Cancel", "Change", "Reschedule", "Scope", "arm", "check_room", "checked_key"]

Scope: TypeAlias = Literal["state", "fsm"]

# Of one FSM: they stand in one field, which each commit that changes one writes anew.
MOST_TIMERS = 100
_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class Arm:
    """Arm a timer; one of the same key is replaced. Either `after_ms` says when, from the commit on, or `at_ms`."""

    key: str
    event: str
    data: bytes
    scope: str
    overdue: str | None
    after_ms: int | None = None
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """Take a timer away; it is nothing if there is none."""

    key: str


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Have the next tick come after this time, or none any more.

    Args:
        after_ms: From the commit on; `None` for none.
        is_own: A handler said so: the time is kept with the timer, for it is not that of the settings.
    """

    after_ms: int | None
    is_own: bool = True


Change: TypeAlias = Arm | Cancel | Reschedule


def checked_key(key: Any) -> str:
    """Check the key of a timer.

    Raises:
        PayloadError: It is not 1 to 64 bytes of printable text without blanks; or it begins like our own.
    """
    is_plain = isinstance(key, str) and key.isprintable() and " " not in key and not key.startswith("[")
    if is_plain and 1 <= len(key.encode()) <= _LONGEST_KEY:
        return str(key)
    problem = (
        f"the key of a timer is 1 to {_LONGEST_KEY} bytes of text without blanks, not beginning with [, not {key!r}"
    )
    raise PayloadError(problem, "key")


def arm(  # noqa: PLR0913 - the parts of one timer
    key: Any, event: str, data: bytes, scope: Any, overdue: Any, after_ms: int | None, at_ms: int = 0
) -> Arm:
    """Make the change that arms a timer.

    Raises:
        PayloadError: The key cannot be one, the scope is neither "state" nor "fsm", or `overdue` is none of "fire",
            "skip" and "restart".
    """
    late = None if overdue is None else _one_of("overdue", overdue, get_args(Overdue))
    return Arm(checked_key(key), event, data, _one_of("scope", scope, get_args(Scope)), late, after_ms, at_ms)


def _one_of(option: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        problem = f"{option} of a timer is {' or '.join(map(repr, allowed))}, not {value!r}"
        raise PayloadError(problem, option)
    return str(value)


def check_room(timers: Mapping[str, Timer], changes: Iterable[Change], limit: int) -> None:
    """Check that the timers of an FSM stay few and small: each commit that changes one writes all of them.

    Those of its state count also where a handler is about to leave it: nobody knows that before its end.

    Args:
        timers: Those that are armed.
        changes: What a transition asks for.
        limit: Bytes that the data of all of them may have together.

    Raises:
        PayloadError: They are too many or too large.
    """
    sizes = {key: len(timer.data) for key, timer in timers.items() if timer.at_ms}
    for change in changes:
        if isinstance(change, Cancel):
            sizes.pop(change.key, None)
        elif isinstance(change, Arm):
            sizes[change.key] = len(change.data)
    if len(sizes) > MOST_TIMERS:
        problem = f"an FSM has at most {MOST_TIMERS} timers: give them keys by which one replaces another"
        raise PayloadError(problem, "outbox")
    if (total := sum(sizes.values())) > limit:
        problem = (
            f"the data of all timers of an FSM have {total} bytes together, and Settings(payload_limit=…) allows "
            f"{limit}: keep in the payload what the event will need"
        )
        raise PayloadError(problem, "outbox")
