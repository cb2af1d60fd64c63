"""What a test sees of the FSM under trial: where it stands, what it carries, what is yet to come, and what time it is.

Who calls this: `trials`, whose `Trial` is one of these that can be sent something.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from fsm.engine.mail import moment_ms
from fsm.testing.agenda import Agenda, ArmedTimer, DelayedEvent, armed_timers, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.engine import Behaviour, Life

__all__ = ["Look"]

P = TypeVar("P")


class Look(Generic[P]):
    """One FSM in memory, to be looked at.

    Args:
        behaviour: Its machine.
        life: The FSM.
        now: The time that it finds, if that is to stand still.
    """

    def __init__(self, behaviour: Behaviour, life: Life, now: datetime | None) -> None:
        self._behaviour = behaviour
        self._life = life
        self._machine = type(behaviour.machine)
        self._agenda = Agenda()
        self._now_ms: int | None = None
        self._ahead_ms = 0
        if now is not None:
            self.now = now

    def __repr__(self) -> str:
        life = self._life
        return f"<trial of {self._behaviour.name} {life.name!r}: {life.state}, {life.status}, version {life.version}>"

    @property
    def name(self) -> str:
        """Name of the FSM."""
        return self._life.name

    @property
    def state(self) -> str:
        """State of the graph."""
        return self._life.state

    @property
    def status(self) -> str:
        """Phase of its life: "running", "finished" or "failed"."""
        return self._life.status

    @property
    def version(self) -> int:
        """Grows by one with each event that was applied, also with one that was refused or failed."""
        return self._life.version

    @property
    def payload(self) -> P:
        """The payload as the next event would find it: a copy, of the machine's type."""
        return cast("P", self._machine.definition.payload.decode(self._life.raw))

    @property
    def history(self) -> tuple[str, ...]:
        """The last states, oldest first, the present one last: as many as `Settings(history=)` keeps."""
        return (*self._life.history, self._life.state)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The events that it would take now."""
        return () if self.status == "finished" else self._behaviour.graph.allowed(self.state)

    @property
    def now(self) -> datetime:
        """The time that the next event finds in `t.now`: the real one, until it is set to another; aware, UTC.

        To set it fires nothing, as if all workers were away; `advance` does.
        """
        ms = self._now_ms
        return datetime.now(UTC) + timedelta(milliseconds=self._ahead_ms) if ms is None else moment(ms)

    @now.setter
    def now(self, value: datetime) -> None:
        self._now_ms = moment_ms(value, "now")

    @property
    def timers(self) -> dict[str, ArmedTimer]:
        """The timers that are armed, by their keys, in the order in which they are due.

        The key of a timer of the diagram is its event, that of the tick of `on_timer` is "[timer]".
        """
        return armed_timers(self._life.timers)

    @property
    def delayed(self) -> tuple[DelayedEvent, ...]:
        """Events sent with a delay that are yet to arrive, in the order in which they will."""
        return self._agenda.delayed

    @contextmanager
    def _standing(self, ms: int) -> Iterator[None]:
        """Let the time stand, from this moment on; where it ran before, it runs on from where it was left."""
        is_real = self._now_ms is None
        self._now_ms = ms
        try:
            yield
        finally:
            if is_real:
                self._ahead_ms = self._now_ms - moment_ms(datetime.now(UTC))
                self._now_ms = None

    def _go_to(self, ms: int) -> None:
        self._now_ms = ms
