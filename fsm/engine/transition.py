"""One event on its way through one FSM, as handlers, guards and hooks see it.

Who calls this: the step makes it, user code reads it and puts into it what is to leave with the commit. PURE.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from fsm.engine.effects import Effect, call_of, checked_queue, path_of, seconds_of, waits_of
from fsm.engine.life import Event, Life
from fsm.errors import HandlerError, PayloadError
from fsm.machine.names import hint
from fsm.machine.settings import EFFECTS_QUEUE, check_size
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fsm.machine import Definition, Machine
    from fsm.machine.durations import Duration

__all__ = ["Mail", "NewFSM", "Transition", "checked_event", "checked_name", "derived_id", "encode_payload"]

P = TypeVar("P")
_log = logging.getLogger("fsm.transition")
# Ids grow by a few characters with each generation of mail; beyond this they are folded to a hash of themselves.
_LONGEST_ROOT = 64
_LONGEST_NAME = 512
# What one transition may send. One commit writes all of it while Redis serves nobody else: by arithmetic, 1,000 events
# at some 10 µs each are 10 ms.
_MOST_SENT = 1000
_MOST_SIZES = 16
_UNREAD: Any = object()


def derived_id(parent: str, mark: str) -> str:
    """Give the id of what an event makes: the same after a crash, and never one that a caller may choose.

    >>> derived_id("abc", "h1"), derived_id("abc--h1", "s2")
    ('abc--h1', 'abc--h1s2')
    """
    child = parent + mark if "--" in parent else f"{parent}--{mark}"
    if len(child) <= _LONGEST_ROOT:
        return child
    return f"{hashlib.sha256(child.encode()).hexdigest()[:24]}--{mark}"


@dataclass(frozen=True, slots=True)
class Mail:
    """An event for another FSM, part of the commit."""

    job_id: str
    name: str
    event: str
    data: bytes


@dataclass(frozen=True, slots=True)
class NewFSM:
    """An FSM to be started by the commit."""

    job_id: str
    name: str
    definition: Definition
    payload: bytes


class Transition(msgspec.Struct, Generic[P], eq=False):
    """What is being done: the event, the FSM, and what is to leave with the commit.

    All that is put in here (`send`, `start_fsm`, `enqueue`, `reply`) happens with the commit or not at all.
    """

    _life: Life
    _event: Event
    source: str
    target: str
    attempt: int
    _mark: str = ""
    outbox: list[Mail | NewFSM | Effect] = msgspec.field(default_factory=list)
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

    def send(self, name: str, event: str, data: Any = None) -> str:
        """Send an event to an FSM, also to this one; it goes with the commit.

        An unknown or finished target does not stop the commit: the job is then recorded as failed, with the reason.

        Returns:
            The id of the job.

        Raises:
            PayloadError: The data are not JSON or too large; the name is empty, too long or not text; or this
                transition sends too much.
        """
        raw = check_size(_plain(data), "the data of an event have", self._limit)
        return self._leave(Mail(self._next("s"), checked_name(name), checked_event(event), raw), len(raw))

    def start_fsm(self, machine: type[Machine[Any]], name: str, payload: Any = None) -> str:
        """Start an FSM; it begins with the commit.

        A name that exists already does not stop the commit: the job is then recorded as failed, with the reason.

        Returns:
            The id of the job of its entry event.

        Raises:
            PayloadError: The payload is not of the machine's type, or too large; the name is not what it should be; or
                this transition sends too much.
        """
        definition = machine.definition
        raw = encode_payload(definition, payload)
        return self._leave(NewFSM(self._next("f"), checked_name(name), definition, raw), len(raw))

    def enqueue(  # noqa: PLR0913 - one keyword an option; all others are the function's own
        self,
        func: str | Callable[..., Any],
        *args: Any,
        queue: str = EFFECTS_QUEUE,
        retry: Any = None,
        on_success: str | None = None,
        on_failure: str | None = None,
        job_timeout: Duration | None = None,
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
        )
        return self._leave(effect, len(call))

    @property
    def _limit(self) -> int:
        return self._life.definition.settings.payload_limit

    def _leave(self, item: Mail | NewFSM | Effect, size: int) -> str:
        """Put something into the outbox, unless the commit would hold up Redis for all others.

        Returns:
            The id of its job.
        """
        self._size += size
        if len(self.outbox) >= _MOST_SENT:
            problem = (
                f"a transition sends at most {_MOST_SENT} events, FSMs and effects: leave the rest to another event"
            )
            raise PayloadError(problem, "outbox")
        if self._size > _MOST_SIZES * self._limit:
            problem = (
                f"what a transition sends has {self._size} bytes, and at most {_MOST_SIZES} times "
                f"Settings(payload_limit=…) is allowed, {_MOST_SIZES * self._limit}: leave the rest to another event"
            )
            raise PayloadError(problem, "outbox")
        self.outbox.append(item)
        return item.job_id

    def _own_event(self, event: str | None, option: str) -> str:
        """Check an event that is to come back to this FSM."""
        if event is None:
            return ""
        events = self._life.definition.graph.events
        if event not in events:
            reason = f"{option}={event!r}: machine {self._life.definition.name!r} has no such event"
            raise HandlerError(
                self.name,
                self.event,
                self.source,
                self.version,
                self.job_id,
                f"{reason}{hint(event, events, 'events')}",
            )
        return event

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


def _plain(data: Any) -> bytes:
    return b"null" if data is None else JSON.encode(data)


def encode_payload(definition: Definition, payload: Any) -> bytes:
    """Write the first payload of an FSM as JSON; `None` is the default of its machine's type.

    Raises:
        PayloadError: It is not of that type, or larger than the machine allows.
    """
    codec = definition.payload
    raw = codec.encode(codec.default() if payload is None else payload)
    return check_size(raw, "the payload has", definition.settings.payload_limit)


def checked_name(name: Any) -> str:
    """Check the name of an FSM: any non-empty UTF-8 text up to 512 bytes.

    Raises:
        PayloadError: It is not; the text says why.
    """
    return _checked(name, "name", "an FSM")


def checked_event(event: Any) -> str:
    """Check the name of an event: any non-empty UTF-8 text up to 512 bytes.

    Raises:
        PayloadError: It is not; the text says why.
    """
    return _checked(event, "event", "an event")


def _checked(name: Any, path: str, of: str) -> str:
    if not isinstance(name, str):
        problem = f"the name of {of} is text, not {type(name).__name__} {name!r}"
        raise PayloadError(problem, path)
    if not name:
        problem = f"the name of {of} must not be empty"
        raise PayloadError(problem, path)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        problem = f"the name of {of} must be valid UTF-8 text, and {name!r} holds a lone surrogate"
        raise PayloadError(problem, path) from None
    if size > _LONGEST_NAME:
        problem = f"the name of {of} has at most {_LONGEST_NAME} bytes, and {name[:40]!r}… has {size}"
        raise PayloadError(problem, path)
    return name
