"""One FSM in a worker's hands: what it is, and what each event makes of it.

Who calls this: the step and the activation. PURE. Payloads are kept as JSON and decoded only when user code looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from fsm.engine.arming import Change
from fsm.engine.timers import Timer
from fsm.machine import Definition
from fsm.machine.settings import check_size

if TYPE_CHECKING:
    from typing import TypeAlias

    from fsm.engine.effects import Effect
    from fsm.engine.mail import Mail, NewFSM

    Outgoing: TypeAlias = Mail | NewFSM | Effect

__all__ = ["Decision", "Event", "Life"]

_UNREAD: Any = object()
_NO_TIMERS: Mapping[str, Timer] = MappingProxyType({})


class Event(msgspec.Struct):  # sooner made than a dataclass, as all that is made for each event
    """One event as it stands in its job.

    Args:
        job_id: RQ's id of the job.
        name: The event.
        raw: Its data as JSON.
        meta: What the sender gave with it.
        attempt: 1 for the first run; deaths of workers do not count, only runs that ended.
        if_version: The version of the FSM on which the sender decided; with another one it is refused.
    """

    job_id: str
    name: str
    raw: bytes = b"null"
    meta: dict[str, Any] = msgspec.field(default_factory=dict)
    attempt: int = 1
    if_version: int | None = None


class Life(msgspec.Struct, eq=False):
    """The FSM between its claim and its commit: changed by each decision, never by a failure.

    `payload` is decoded at the first look; `settle` encodes it if it was looked at, `forget` throws changes away.
    `history` holds the states before the present one, oldest first; `timers`, by their keys, what is armed.
    """

    name: str
    state: str
    raw: bytes
    version: int
    status: str
    definition: Definition
    now_ms: int = 0
    history: tuple[str, ...] = ()
    timers: Mapping[str, Timer] = _NO_TIMERS
    touched: bool = False
    _payload: Any = _UNREAD

    def __repr__(self) -> str:
        """Tell which FSM this is and where it stands, without what the payload holds."""
        return f"Life({self.name!r}, {self.state!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell the same to rich, which would take all fields of a struct in the place of its repr."""
        return [("name", self.name), ("state", self.state)]

    @property
    def payload(self) -> Any:
        """The payload, decoded; from now on it may have been changed."""
        self.touched = True
        if self._payload is _UNREAD:
            self._payload = self.definition.payload.decode(self.raw)
        return self._payload

    @payload.setter
    def payload(self, value: Any) -> None:
        self.touched = True
        self._payload = value

    def encoded(self) -> bytes:
        """Give the payload as JSON, as it is now.

        Raises:
            PayloadError: It is not of the machine's type any more, or too large.
        """
        definition = self.definition
        is_read = self.touched and self._payload is not _UNREAD
        raw = definition.payload.encode(self._payload) if is_read else self.raw
        return check_size(raw, "the payload has", definition.settings.payload_limit)

    def settle(self, raw: bytes) -> None:
        """Keep what `encoded` gave."""
        self.raw = raw
        self.touched = False

    def advance(self, state: str, ending: str, history: int) -> None:
        """Move on: every attempt that will be committed counts one version.

        Args:
            state: Where it stands now.
            ending: "" while it goes on, else its status.
            history: How many states a snapshot keeps.
        """
        self.version += 1
        if state != self.state:
            # The present state is the last of them, and is not kept twice.
            former = history - 1
            if former > 0:
                self.history = (*self.history, self.state)[-former:]
            self.state = state
        if ending:
            self.status = ending
        elif self.status == "starting":
            self.status = "running"

    def forget(self) -> None:
        """Throw changes away: the next look decodes what was kept last."""
        if self.touched:
            self._payload = _UNREAD
            self.touched = False


class Decision(msgspec.Struct):
    """How one event ended, and what is to be written for it.

    Args:
        kind: "done", "refused", "failed", or "retry": it failed and is run again, after `wait_ms`.
        event: The event.
        source: State before it.
        state: State after it.
        version: Version after it.
        result: What a waiter is told, JSON-ready.
        outbox: What leaves with the commit.
        text: The traceback of a failure, or its reason.
        ending: "" while the FSM goes on, "finished" or "failed".
        soft: A failure or refusal that the machine says is no error.
        entered: A state was entered, the same or another: its hard event is owed, and its timers are armed.
        timers: What handlers asked for of timers, in their order; `timers.advance` does it.
        wait_ms: How long an event waits that is run again.
    """

    kind: str
    event: Event
    source: str
    state: str
    version: int
    result: dict[str, Any]
    outbox: list[Outgoing] = msgspec.field(default_factory=list)
    text: str = ""
    ending: str = ""
    soft: bool = False
    entered: bool = False
    timers: tuple[Change, ...] = ()
    wait_ms: int = 0
