"""One event on its way through one FSM, as handlers, guards and hooks see it.

Who calls this: the step makes it, user code reads it and puts into it what is to leave with the commit. PURE.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from fsm.engine import arming
from fsm.engine.arming import Change
from fsm.engine.effects import Effect, call_of, checked_queue, deadline_of, path_of, seconds_of, waits_of
from fsm.engine.life import Event, Life
from fsm.engine.mail import (
    Mail,
    NewFSM,
    check_sent,
    checked_event,
    checked_host,
    checked_name,
    delay_ms,
    derived_id,
    due_of,
    encode_payload,
    moment_ms,
    plain,
)
from fsm.errors import HandlerError
from fsm.machine.names import hint
from fsm.machine.settings import EFFECTS_QUEUE, check_size
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fsm.engine.arming import Scope
    from fsm.machine import Machine
    from fsm.machine.durations import Duration
    from fsm.machine.settings import Overdue

__all__ = ["Transition"]

P = TypeVar("P")
_log = logging.getLogger("fsm.transition")
_UNREAD: Any = object()


class Transition(msgspec.Struct, Generic[P], eq=False):
    """What is being done: the event, the FSM, and what is to leave with the commit.

    All that is asked for here (`send`, `start_fsm`, `enqueue`, `after`, `at`, `cancel`, `reschedule`, `reply`) happens
    with the commit or not at all.
    """

    _life: Life
    _event: Event
    source: str
    target: str
    attempt: int
    _mark: str = ""
    outbox: list[Mail | NewFSM | Effect] = msgspec.field(default_factory=list)
    changes: tuple[Change, ...] = ()  # nearly always there are none, and a list would have to be made
    replied: Any = None
    _data: Any = _UNREAD
    _made: int = 0
    _size: int = 0
    _meta: dict[str, Any] | None = None
    _deadline: float | None = None

    def __repr__(self) -> str:
        """Tell which transition this is, without what the payload and the data hold."""
        return f"Transition({self.name!r}, {self.event!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell the same to rich, which would take all fields of a struct in the place of its repr."""
        return [("name", self.name), ("event", self.event)]

    @property
    def name(self) -> str:
        """Name of the FSM."""
        return self._life.name

    @property
    def machine(self) -> str:
        """Name of its machine."""
        return self._life.definition.name

    @property
    def event(self) -> str:
        """Name of the event, without marks."""
        return self._event.name

    @property
    def job_id(self) -> str:
        """Id of the RQ job of this event: the same in each attempt, so it serves as idempotency key."""
        return self._event.job_id

    @property
    def meta(self) -> dict[str, Any]:
        """What the sender gave as `meta=`: a private copy, for the log wants what was sent."""
        if self._meta is None:
            self._meta = JSON.decode(JSON.encode(self._event.meta))
        return self._meta

    @property
    def version(self) -> int:
        """Version of the FSM before this event."""
        return self._life.version

    @property
    def now(self) -> datetime:
        """The time of this event, aware, UTC: that of Redis at the claim."""
        return datetime.fromtimestamp(self._life.now_ms / 1000, UTC)

    @property
    def payload(self) -> P:
        """The FSM's payload, to be changed in place or replaced; kept only if the transition is done."""
        payload: P = self._life.payload
        return payload

    @payload.setter
    def payload(self, value: P) -> None:
        self._life.payload = value

    @property
    def data(self) -> Any:
        """The event's data: typed where the handler declares it, else plain JSON."""
        if self._data is _UNREAD:
            self._data = JSON.decode(self._event.raw)
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = value

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `fsm.transition`; each record has `fsm`, `machine`, `event`, `job_id`, `attempt` and `version`.

        What is given as `extra=` comes on top.
        """
        return _Log(
            _log,
            {
                "fsm": self.name,
                "machine": self.machine,
                "event": self.event,
                "job_id": self.job_id,
                "attempt": self.attempt,
                "version": self.version,
            },
        )

    def deadline(self, seconds: float) -> float:
        """Give the time of the event loop at which the methods of this transition must have ended, all together.

        Args:
            seconds: What they have from the first call on.
        """
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + seconds
        return self._deadline

    def _next(self, mark: str) -> str:
        self._made += 1
        return derived_id(self.job_id, f"{self._mark}{mark}{self._made}")

    def send(
        self,
        name: str,
        event: str,
        data: Any = None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> str:
        """Send an event to an FSM, also to this one; it goes with the commit.

        An unknown or finished target does not stop the commit: the job is then recorded as failed, with the reason.

        Args:
            name: The FSM.
            event: The event.
            data: JSON values.
            delay: How long after the commit it joins the mailbox, whatever the FSM does meanwhile.
            at: Or at which aware moment.

        Returns:
            The id of the job.

        Raises:
            PayloadError: The data are not JSON or too large; the name is empty, too long or not text; the time is not
                what it should be; or this transition sends too much.
        """
        raw, due = self._data_of(data), due_of(delay, at)
        return self._leave(Mail(self._next("s"), checked_name(name), checked_event(event), raw, due), len(raw))

    def start_fsm(self, machine: type[Machine[Any]], name: str, payload: Any = None, *, host: str | None = None) -> str:
        """Start an FSM; it begins with the commit.

        A name that exists already does not stop the commit: the job is then recorded as failed, with the reason.

        Args:
            machine: Its machine, whose type the payload has.
            name: Its name.
            payload: Without it the type's default.
            host: Its events are applied on this host alone, and wait while no worker of it is there.

        Returns:
            The id of the job of its entry event.

        Raises:
            PayloadError: The payload is not of the machine's type, or too large; name or host are not what they should
                be; or this transition sends too much.
        """
        definition = machine.definition
        raw, there = encode_payload(definition, payload), "" if host is None else checked_host(host)
        return self._leave(NewFSM(self._next("f"), checked_name(name), definition, raw, there), len(raw))

    def enqueue(  # noqa: PLR0913 - one keyword an option; all others are the function's own
        self,
        func: str | Callable[..., Any],
        *args: Any,
        queue: str = EFFECTS_QUEUE,
        retry: Any = None,
        on_success: str | None = None,
        on_failure: str | None = None,
        job_timeout: Duration | None = None,
        deadline: Duration | None = None,
        **kwargs: Any,
    ) -> str:
        """Enqueue an effect, an ordinary RQ job: once, with the commit.

        RQ may run it more than once, when its worker dies: hand it `t.job_id` as its idempotency key. Its end counts
        once, whatever dies.

        Args:
            func: An importable function or its dotted path.
            args: JSON values.
            queue: RQ queue, by default the one that effects workers serve.
            retry: A number of retries, at once; a `RetryPolicy`, whose `jitter` and `on` do not count here; or RQ's
                `Retry`.
            on_success: Event that this FSM gets when the effect is done; its data are what the function returned.
            on_failure: Event that this FSM gets when the effect has failed for the last time, or was taken away by an
                operator; its data are `{"type", "message"}`.
            job_timeout: Longest run, RQ's 180 s by default.
            deadline: If the effect has not ended so long after the commit, its `on_failure` event comes, of type
                "deadline"; what it says after that is refused.
            kwargs: JSON values.

        Returns:
            The id of the job.

        Raises:
            PayloadError: An argument is not JSON, an option is not what it should be, another process cannot import
                the function, or this transition sends too much.
            HandlerError: The machine has no such event.
        """
        path = path_of(func)
        call = check_size(call_of(path, args, kwargs), "the arguments of an effect have", self._limit)
        effect = Effect(
            self._next("e"),
            checked_queue(queue),
            path,
            call,
            self._own_event(on_success, "on_success"),
            self._own_event(on_failure, "on_failure"),
            waits_of(retry),
            seconds_of(job_timeout),
            deadline_of(deadline, on_failure),
        )
        return self._leave(effect, len(call))

    def after(  # noqa: PLR0913 - one argument an option
        self,
        delay: Duration,
        event: str,
        data: Any = None,
        key: str | None = None,
        scope: Scope = "state",
        overdue: Overdue | None = None,
    ) -> str:
        """Arm a timer with the commit: it sends this FSM an event, once.

        It is gone when the FSM ends, and with `scope="state"` when the FSM leaves the state in which it is after this
        commit; to enter the same state again is to leave it, and `Stay()` is not. A timer of the diagram has its event
        as key, so it can be replaced by `key="expire"`, until the state is entered again.

        Args:
            delay: Counted from the commit.
            event: One of this machine.
            data: JSON values.
            key: A timer of the same key is replaced. Without one it replaces none.
            scope: "state", or "fsm" for one that outlives the state.
            overdue: What becomes of it if no worker was there when it was due: "fire", "skip" or "restart"; `None` is
                what `Settings(overdue=)` says.

        Returns:
            The key, for `cancel`.

        Raises:
            PayloadError: An argument is not what it should be, or the FSM has too many timers or too large ones.
            HandlerError: The machine has no such event.
        """
        return self._arm(key, event, data, scope, overdue, delay_ms(delay))

    def at(  # noqa: PLR0913 - as `after`
        self,
        when: datetime,
        event: str,
        data: Any = None,
        key: str | None = None,
        scope: Scope = "state",
        overdue: Overdue | None = None,
    ) -> str:
        """Arm a timer, as `after` does, for an aware moment; one that is over means at once."""
        return self._arm(key, event, data, scope, overdue, None, moment_ms(when, "when"))

    def cancel(self, key: str) -> None:
        """Take a timer away with the commit, also one of the diagram, whose key is its event; else nothing happens.

        An event that its timer has sent already, and that still waits in the mailbox, is not applied either.

        Raises:
            PayloadError: It cannot be a key.
        """
        self.changes += (arming.Cancel(arming.checked_key(key)),)

    def reschedule(self, delay: Duration | None) -> None:
        """Have the next `on_timer` come so long after the commit; `None` stops it until the next `reschedule`.

        After that next one the interval of the settings counts again.

        Raises:
            PayloadError: It is no length of time.
            HandlerError: The machine has no `on_timer`.
        """
        if "on_timer" not in self._life.definition.hooks:
            raise self._problem(f"t.reschedule(…): machine {self.machine!r} has no method on_timer")
        self.changes += (arming.Reschedule(None if delay is None else delay_ms(delay)),)

    def _arm(self, key: str | None, event: str, data: Any, *options: Any) -> str:
        event = self._own_event(checked_event(event), "event")
        change = arming.arm(self._next("k") if key is None else key, event, self._data_of(data), *options)
        changes = (*self.changes, change)
        arming.check_room(self._life.timers, changes, self._limit)
        self.changes = changes
        return change.key

    def _data_of(self, data: Any) -> bytes:
        return check_size(plain(data), "the data of an event have", self._limit)

    @property
    def _limit(self) -> int:
        return self._life.definition.settings.payload_limit

    def _leave(self, item: Mail | NewFSM | Effect, size: int) -> str:
        """Put something into the outbox, unless the commit would hold up Redis for all others.

        Returns:
            The id of its job.
        """
        self._size += size
        check_sent(len(self.outbox), self._size, self._limit)
        self.outbox.append(item)
        return item.job_id

    def _own_event(self, event: str | None, option: str) -> str:
        """Check an event that is to come back to this FSM."""
        if event is None:
            return ""
        events = self._life.definition.graph.events
        if event not in events:
            reason = f"{option}={event!r}: machine {self.machine!r} has no such event"
            raise self._problem(f"{reason}{hint(event, events, 'events')}")
        return event

    def _problem(self, reason: str) -> HandlerError:
        return HandlerError(self.name, self.event, self.source, self.version, self.job_id, reason)

    def reply(self, value: Any) -> None:
        """Give a JSON value to whoever waits for this event.

        Raises:
            PayloadError: The value is not JSON, or too large.
        """
        # As it is now: what the handler does with it later is its own affair.
        self.replied = JSON.decode(check_size(JSON.encode(value), "a reply has", self._limit))


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Adds what it knows to the caller's own `extra`, in whose place `LoggerAdapter` puts it before Python 3.13."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}
