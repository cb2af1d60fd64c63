"""What of a trial is yet to come: its timers, delayed events, and the deadlines of its effects.

Who calls this: the trial, which fires what is due when its time is moved on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.engine import Mail
from fsm.engine.timers import event_of
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.engine import Effect
    from fsm.engine.timers import Timer

__all__ = ["Agenda", "ArmedTimer", "DelayedEvent", "Due", "armed_timers", "moment"]

# Of what is due in the same millisecond, deadlines come first and timers last, as in Redis.
_DEADLINE, _MAIL, _TIMER = range(3)


class ArmedTimer(NamedTuple):
    """A timer of the FSM.

    Args:
        event: What it sends.
        at: When it is due; aware, UTC.
        scope: "state", or "fsm" for one that outlives the state.
        data: Data of the event, as they come out of their JSON.
    """

    event: str
    at: datetime
    scope: str
    data: Any


class DelayedEvent(NamedTuple):
    """An event that the FSM has sent and that is yet to arrive, `t.send(…, delay=…)`; a plain tuple is equal to it.

    Args:
        name: The FSM to which it goes.
        event: The event.
        data: Its data, as they come out of their JSON.
        at: When it is due; aware, UTC.
    """

    name: str
    event: str
    data: Any
    at: datetime


class Due(NamedTuple):
    """What comes next, and when: an event that was delayed, an effect whose time is over, or the key of a timer."""

    at_ms: int
    rank: int
    order: int | str
    what: Mail | Effect | str


class Agenda:
    """Keeps what was delayed, in the order of its acceptance, and the deadlines of effects."""

    def __init__(self) -> None:
        self._accepted = 0
        self._kept: dict[str, Due] = {}

    @property
    def delayed(self) -> tuple[DelayedEvent, ...]:
        """The events that are yet to arrive, in the order in which they will."""
        return tuple(
            DelayedEvent(mail.name, mail.event, JSON.decode(mail.data), moment(due.at_ms))
            for due in sorted(self._kept.values())
            if isinstance(mail := due.what, Mail)
        )

    def delay(self, mail: Mail, now_ms: int) -> None:
        """Keep an event until it is due."""
        due_ms = now_ms + int(mail.due) if mail.due.startswith("+") else int(mail.due)
        self._keep(max(due_ms, now_ms), _MAIL, mail)

    def limit(self, effect: Effect, now_ms: int) -> None:
        """Keep the deadline of an effect, if it has one."""
        if effect.deadline_ms is not None:
            self._keep(now_ms + effect.deadline_ms, _DEADLINE, effect)

    def _keep(self, at_ms: int, rank: int, what: Mail | Effect) -> None:
        self._accepted += 1
        self._kept[what.job_id] = Due(at_ms, rank, self._accepted, what)

    def drop(self, job_id: str) -> None:
        """Forget what was kept of an event or effect, if anything was."""
        self._kept.pop(job_id, None)

    def next_due(self, timers: Mapping[str, Timer], deaf: str = "") -> Due | None:
        """Give what is due next, or was due first.

        Args:
            timers: Those of the FSM.
            deaf: Name of the FSM, where nothing can arrive there.
        """
        kept = self._kept.values()
        if deaf:
            others = (due for due in kept if isinstance(due.what, Mail) and due.what.name != deaf)
            return min(others, default=None)
        armed = (Due(timer.at_ms, _TIMER, key, key) for key, timer in timers.items() if timer.at_ms)
        return min([*kept, *armed], default=None)


def armed_timers(timers: Mapping[str, Timer]) -> dict[str, ArmedTimer]:
    """Give the timers of an FSM by their keys, in the order in which they are due."""
    return {
        key: ArmedTimer(event_of(key, timer), moment(timer.at_ms), timer.scope, JSON.decode(timer.data))
        for key, timer in sorted(timers.items(), key=lambda one: (one[1].at_ms, one[0]))
        if timer.at_ms
    }


def moment(ms: int) -> datetime:
    """Give a time in ms as an aware datetime, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)
