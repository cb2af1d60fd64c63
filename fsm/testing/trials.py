"""One FSM in memory, for unit tests: the engine of the workers, and nothing else of them.

Who calls this: tests of applications. What is sent makes the same way as in production, out of Python into JSON and
back: what a worker would refuse, is refused here.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import orjson

from fsm import verbs
from fsm.engine import Behaviour, Effect, Event, Life, Mail, NewFSM, run_chain
from fsm.engine.faults import said
from fsm.errors import (
    CallTimeoutError,
    FSMFinishedError,
    HandlerError,
    PayloadError,
    StaleVersionError,
)
from fsm.machine.values import JSON
from fsm.testing.covering import note
from fsm.testing.driver import Driver
from fsm.testing.outbox import OpenEffect, SentEvent, StartedFSM, find_open, open_effect
from fsm.testing.walking import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from fsm.engine import Decision, Outcome

__all__ = ["Trial"]

P = TypeVar("P")

# Events that one event may bring about by mail of the FSM to itself; in production such a circle turns for ever.
_MOST_EVENTS = 1000


class Trial(Generic[P]):
    """One FSM under test: `trial` makes it, and it begins at once.

    Args:
        behaviour: Its machine, for it alone.
        life: The FSM, "starting", or alive in a state whose hard event is owed.
        now: The time that it finds, if that is to stand still.

    Attributes:
        sent: Events for other FSMs, oldest first, as `(name, event, data)`.
        started: Other FSMs that it started, oldest first, as `(machine, name, payload)`.
        enqueued: Effects that are open, oldest first.
        log: A dict for each event, as the log in Redis has it: `name`, `machine`, `event`, `from`, `to`, `version`,
            `job`, and `refused`, `error`, `ending`, `meta`, `attempt`, `retry_in_ms` where they are so. Nobody waits
            here: what is to be tried again, is so at once.
        error: The last failure, until an event is done; else `None`.
        refused: The last refusal, however long ago; else `None`.
    """

    def __init__(self, behaviour: Behaviour, life: Life, now: datetime | None) -> None:
        self._behaviour = behaviour
        self._life = life
        self._machine = type(behaviour.machine)
        self._walk = Walk(behaviour)
        self._driver = Driver()
        self._mailbox: deque[Event] = deque()
        self._answered: set[str] = set()
        self._ids = 0
        self._now_ms: int | None = None
        if now is not None:
            self.now = now
        self.sent: list[SentEvent] = []
        self.started: list[StartedFSM] = []
        self.enqueued: list[OpenEffect] = []
        self.log: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self.refused: dict[str, Any] | None = None
        graph = behaviour.graph
        if owed := graph.entry if life.status == "starting" else graph.hard_event(life.state):
            self._deliver(Event(self._next_id(), owed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        life = self._life
        return f"<trial of {self._behaviour.name} {life.name!r}: {life.state}, {life.status}, version {life.version}>"

    def close(self) -> None:
        """Close the event loop on which async handlers ran; needed only where its end must not be left to chance."""
        self._driver.close()

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
        """The time that the next event finds in `t.now`: the real one, until it is set to another; aware, UTC."""
        ms = self._now_ms
        return datetime.now(UTC) if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

    @now.setter
    def now(self, value: datetime) -> None:
        given: Any = value
        if not isinstance(given, datetime) or given.utcoffset() is None:
            problem = f"the time of a trial is an aware datetime, as datetime(2026, 5, 1, tzinfo=UTC), not {given!r}"
            raise PayloadError(problem, "now")
        self._now_ms = _ms(value)

    def send(
        self,
        event: str,
        data: Any = None,
        *,
        meta: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> Outcome:
        """Send an event, and run what follows from it by itself: hard events, and mail of the FSM to itself.

        Args:
            event: The event, without marks.
            data: JSON values, which the handler's type must take as from any sender; or a value of that type.
            meta: JSON that goes to `t.meta` and the log.
            if_version: Refuse it if the FSM has moved on since this version.

        Returns:
            How this event ended, as `client.call` tells it. Where the FSM came to by hard events says `state`.

        Raises:
            RefusedError: It was refused; the class says why.
            FailedError: It failed.
            FSMFinishedError: The FSM has ended.
            CallTimeoutError: The FSM has failed, and applies no events.
            PayloadError: Event, data or meta are not what they should be.
        """
        letter = self._letter(event, data, meta, if_version)
        job_id = self._next_id()
        self._check_open(event, job_id)
        if letter.error is not None:
            raise letter.error
        if letter.if_version is not None and letter.if_version < self.version:
            # So much is seen when it is sent; what is newer than the FSM, the step refuses.
            reason = f"it was decided on version {if_version} of the FSM, which has version {self.version} now"
            details = {"version": self.version, "if_version": if_version}
            raise StaleVersionError(self.name, event, self.state, self.version, "", reason, details)
        sent_meta = JSON.decode(letter.meta) if letter.meta else {}
        sent = Event(job_id, event, letter.raw, sent_meta, if_version=letter.if_version)
        return self._told(self._deliver(sent))

    def succeed(self, effect: OpenEffect | str | Callable[..., Any], value: Any = None) -> Outcome | None:
        """End an effect as if its function had returned this value; the FSM gets its `on_success` event.

        A value that is not JSON cannot come back: then it ends with `on_failure`, of type "PayloadError".

        Args:
            effect: One of `enqueued`; or its function, or the dotted path of that, if only one such effect is open.
            value: What the function returned.

        Returns:
            How the event ended; `None` where the effect asked for none.

        Raises:
            PayloadError: No such effect is open; or it is not clear which one is meant.
            FSMError: Whatever `send` raises of the event.
        """
        found = find_open(self.enqueued, self._answered, effect)
        try:
            raw = verbs.success_data(value, self._behaviour.definition.settings.payload_limit)
        except PayloadError as error:
            return self.fail(found, error)
        return self._answer(found, found.on_success, raw)

    def fail(self, effect: OpenEffect | str | Callable[..., Any], error: BaseException | str) -> Outcome | None:
        """End an effect as if its function had raised this for the last time; the FSM gets its `on_failure` event.

        Args:
            effect: As in `succeed`.
            error: What it raised, or the text of that; the event's data are `{"type", "message"}`.

        Returns:
            How the event ended; `None` where the effect asked for none.

        Raises:
            PayloadError: As in `succeed`.
            FSMError: Whatever `send` raises of the event.
        """
        found = find_open(self.enqueued, self._answered, effect)
        told = Exception(error) if isinstance(error, str) else error
        raw = verbs.failure_data(type(told).__name__, said(told))
        return self._answer(found, found.on_failure, raw)

    def _answer(self, effect: OpenEffect, event: str | None, raw: bytes) -> Outcome | None:
        self.enqueued.remove(effect)
        self._answered.add(effect.job_id)
        if event is None:
            return None
        job_id = f"{effect.job_id}a"
        self._check_open(event, job_id)
        return self._told(self._deliver(Event(job_id, event, raw, {"effect": effect.job_id})))

    def _letter(self, event: str, data: Any, meta: Any, if_version: Any) -> verbs.Sending:
        """Encode what is sent: plain JSON as from a sender without the class, anything else by the handler's type."""
        definition = self._machine.definition
        known = verbs.sending(definition, self.name, event)
        if known.error is not None:
            return known
        try:
            return verbs.sending(None, self.name, event, data, meta, if_version=if_version)
        except PayloadError:
            return verbs.sending(definition, self.name, event, data, meta, if_version=if_version)

    def _next_id(self) -> str:
        self._ids += 1
        return f"trial-{self._ids}"

    def _check_open(self, event: str, job_id: str) -> None:
        """Raise what a caller is told of an FSM that takes no events."""
        if self.status == "finished":
            raise FSMFinishedError(self.name, self.state)
        if self.status == "failed":
            why = (self.error or self.refused or {}).get("message") or (self.refused or {}).get("reason", "")
            problem = f"the FSM has failed in state {self.state!r} and applies no events ({why})"
            raise CallTimeoutError(self.name, event, job_id, 0, problem)

    def _deliver(self, event: Event) -> Decision:
        """Apply an event and all mail that the FSM sends to itself because of it; give what became of the event."""
        self._mailbox.append(event)
        first: Decision | None = None
        try:
            for _ in range(_MOST_EVENTS):
                if not self._mailbox or self.status == "failed":
                    break
                decision = self._apply(self._mailbox.popleft())
                first = first or decision
        except BaseException:
            # What interrupts a step leaves the FSM as it was, and nothing behind for the next one.
            self._mailbox.clear()
            self._life.forget()
            raise
        if first is None or (self._mailbox and self.status != "failed"):
            self._mailbox.clear()
            reason = f"more than {_MOST_EVENTS} events followed from it: the FSM sends mail to itself in a circle"
            raise HandlerError(self.name, event.name, self.state, self.version, event.job_id, reason)
        return first

    def _apply(self, event: Event) -> Decision | None:
        """Apply one event of the mailbox, and the hard events behind it."""
        life = self._life
        if life.status == "finished":
            line = {"name": life.name, "event": event.name, "job": event.job_id, "refused": "finished"}
            self.log.append(line)
            return None
        life.now_ms = _ms(self.now)
        is_entry = life.status == "starting"
        decisions = self._driver.run(run_chain(self._behaviour, life, event), is_async=self._behaviour.is_async)
        for decision in decisions:
            self._write(decision)
            if (
                not (is_entry and decision.event.job_id == event.job_id)
                and (edge := self._walk.edge_of(decision)) is not None
            ):
                note(self._machine, edge)
        self._walk.forget()
        return next(decision for decision in decisions if decision.kind != "retry")

    def _write(self, decision: Decision) -> None:
        """Keep what a commit would write."""
        event, result = decision.event, _plain(decision.result)
        line: dict[str, Any] = {
            "name": self.name,
            "machine": self._behaviour.name,
            "event": event.name,
            "from": decision.source,
            "to": decision.state,
            "version": decision.version,
            "job": event.job_id,
        }
        if event.meta:
            line["meta"] = _plain(event.meta)
        if decision.kind == "retry":
            line |= {"attempt": event.attempt, "retry_in_ms": decision.wait_ms}
        if decision.kind == "done":
            self.error = None
        elif decision.kind != "retry" or "failed" in result:
            said_as = "refused" if decision.kind == "refused" else "error"
            line[said_as] = result["refused" if decision.kind == "refused" else "message"]
            if not decision.soft:
                kept = {"event": event.name, "job": event.job_id, "at_ms": self._life.now_ms, **result}
                setattr(self, said_as, kept)
        if decision.ending:
            line["ending"] = decision.ending
        self.log.append(line)
        for item in decision.outbox:
            self._send_out(item)

    def _send_out(self, item: Mail | NewFSM | Effect) -> None:
        if isinstance(item, Effect):
            self.enqueued.append(open_effect(item))
        elif isinstance(item, NewFSM):
            if item.name == self.name:
                line = {"name": item.name, "event": item.definition.graph.entry, "job": item.job_id, "error": "exists"}
                self.log.append(line)
            else:
                payload = item.definition.payload.decode(item.payload)
                self.started.append(StartedFSM(item.definition.name, item.name, payload))
        elif item.name == self.name:
            self._mailbox.append(Event(item.job_id, item.event, item.data))
        else:
            self.sent.append(SentEvent(item.name, item.event, JSON.decode(item.data)))

    def _told(self, decision: Decision) -> Outcome:
        """Tell how an event ended, as whoever waits for it is told."""
        word = "FAILED" if decision.kind == "failed" and not decision.soft else "DONE"
        event = decision.event
        seen = verbs.JobView(word, "", self.name, event.name, _plain(decision.result), decision.text, "")
        return verbs.ended(event.job_id, seen, self.name, event.name)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _plain(value: Any) -> Any:
    """Make the way through JSON that records make."""
    return orjson.loads(orjson.dumps(value))
