"""One FSM in memory, for unit tests: the engine of the workers, and nothing else of them.

Who calls this: tests of applications. What is sent makes the same way as in production, out of Python into JSON and
back: what a worker would refuse, is refused here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from fsm import verbs
from fsm.engine import Behaviour, Effect, Event, Life, Mail, NewFSM, run_chain, timers
from fsm.engine.faults import said
from fsm.engine.mail import delay_ms, moment_ms
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
from fsm.testing.looks import Look
from fsm.testing.outbox import OpenEffect, SentEvent, StartedFSM, find_open, open_effect
from fsm.testing.walking import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from fsm.engine import Decision, Outcome
    from fsm.machine.durations import Duration

__all__ = ["Trial"]

P = TypeVar("P")

# Events that one event may bring about by mail of the FSM to itself; in production such a circle turns for ever.
_MOST_EVENTS = 1000
# What may come due while time is moved on: a tick a minute for two months.
_MOST_DUE = 100_000


class Trial(Look[P]):
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
        super().__init__(behaviour, life, now)
        self._walk = Walk(behaviour)
        self._driver = Driver()
        self._mailbox: deque[Event] = deque()
        self._answered: set[str] = set()
        self._ids = 0
        self.sent: list[SentEvent] = []
        self.started: list[StartedFSM] = []
        self.enqueued: list[OpenEffect] = []
        self.log: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self.refused: dict[str, Any] | None = None
        if life.status == "running":
            life.timers = timers.adopted(life.definition, life.state, moment_ms(self.now))
        graph = behaviour.graph
        if owed := graph.entry if life.status == "starting" else graph.hard_event(life.state):
            self._deliver(Event(self._next_id(), owed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the event loop on which async handlers ran; needed only where its end must not be left to chance."""
        self._driver.close()

    def advance(self, delay: Duration) -> list[str]:
        """Move the time on, and fire what becomes due on the way, in order, each at its own time.

        What was due before, for the time was set, fires first and late: more than ten seconds late it is overdue, and
        what becomes of a timer then, its machine says. Without timers this only moves `now`.

        Args:
            delay: How long; 0 fires what is due by now.

        Returns:
            The events that this FSM was given, in order. How they ended, `log` says: nobody waits for them.

        Raises:
            PayloadError: It is no length of time.
            HandlerError: More came due than any test can want: a timer arms itself again with no time between.
        """
        until_ms = (begin_ms := moment_ms(self.now)) + delay_ms(delay)
        given: list[str] = []
        with self._standing(begin_ms):  # else what passes meanwhile decided on what is still due before the end
            for _ in range(_MOST_DUE):
                due = self._agenda.next_due(self._life.timers, self.name if self.status == "failed" else "")
                if due is None or due.at_ms > until_ms:
                    self._go_to(until_ms)
                    return given
                self._go_to(max(begin_ms, due.at_ms))
                if event := self._become_due(due.what):
                    given.append(event.name)
                    self._arrive(event)
        reason = f"more than {_MOST_DUE} timers and delayed events came due: does one arm itself with no time between?"
        raise HandlerError(self.name, given[-1] if given else "", self.state, self.version, "", reason)

    def tick(self) -> Outcome:
        """Run `on_timer` now, on top of the ticks that come by themselves.

        Raises:
            FSMError: Whatever `send` raises of an event.
        """
        job_id = self._next_id()
        self._check_open(timers.TICK, job_id)
        return self._told(self._deliver(Event(job_id, timers.TICK)))

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

    def _become_due(self, what: Mail | Effect | str) -> Event | None:
        """Give the event that the FSM gets by something that is due, if it gets one."""
        if isinstance(what, str):
            return self._fire(what)
        self._agenda.drop(what.job_id)
        if isinstance(what, Effect):
            [effect] = [one for one in self.enqueued if one.job_id == what.job_id]
            self._close(effect)
            message = "it had not ended by then"
            raw = verbs.failure_data("deadline", message)
            return Event(f"{what.job_id}a", what.on_failure, raw, {"effect": what.job_id})
        if what.name == self.name:
            return Event(what.job_id, what.event, what.data)
        self.sent.append(SentEvent(what.name, what.event, JSON.decode(what.data)))
        return None

    def _fire(self, key: str) -> Event | None:
        """Give the event of a timer, unless it is overdue and its machine does not want it any more."""
        life, now_ms = self._life, moment_ms(self.now)
        timer = life.timers[key]
        event = Event(
            f"{self._next_id()}--t1v{timer.arm}",
            timers.event_of(key, timer),
            timer.data,
            {"timer": key, "due_ms": timer.at_ms},
        )
        policy = timers.overdue(self._behaviour, life.timers, event, now_ms)
        if policy == "fire":
            return event
        life.timers = timers.pass_over(self._behaviour, life, event, policy, now_ms)
        line = {"name": life.name, "event": event.name, "job": event.job_id, "refused": "timer"}
        self.log.append({**line, "reason": timers.OVERDUE[policy]})
        return None

    def _arrive(self, event: Event) -> None:
        """Apply an event that nobody waits for."""
        if self.status == "finished":
            self._apply(event)
        else:
            self._deliver(event)

    def _close(self, effect: OpenEffect) -> None:
        self.enqueued.remove(effect)
        self._answered.add(effect.job_id)
        self._agenda.drop(effect.job_id)

    def _answer(self, effect: OpenEffect, event: str | None, raw: bytes) -> Outcome | None:
        self._close(effect)
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
        life.now_ms = moment_ms(self.now)
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
            self._agenda.limit(item, self._life.now_ms)
        elif isinstance(item, NewFSM):
            if item.name == self.name:
                line = {"name": item.name, "event": item.definition.graph.entry, "job": item.job_id, "error": "exists"}
                self.log.append(line)
            else:
                payload = item.definition.payload.decode(item.payload)
                self.started.append(StartedFSM(item.definition.name, item.name, payload))
        elif item.due:
            self._agenda.delay(item, self._life.now_ms)
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


def _plain(value: Any) -> Any:
    """Make the way through JSON that records make."""
    return orjson.loads(orjson.dumps(value))
