"""What a handler sends: events for FSMs and FSMs to be started, with their ids, and the checks of what callers give.

Who calls this: the transition; the client, for what is sent from outside has to pass the same checks. PURE.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsm.errors import ConfigError, PayloadError
from fsm.machine.durations import duration_ms
from fsm.machine.names import HOST
from fsm.machine.settings import check_size
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from fsm.machine import Definition
    from fsm.machine.durations import Duration

__all__ = [
    "Mail",
    "NewFSM",
    "check_sent",
    "checked_event",
    "checked_host",
    "checked_name",
    "delay_ms",
    "derived_id",
    "due_of",
    "encode_payload",
    "moment_ms",
    "plain",
]

# Ids grow by a few characters with each generation of mail; beyond this they are folded to a hash of themselves.
_LONGEST_ROOT = 64
_LONGEST_NAME = 512
# What one transition may send. One commit writes all of it while Redis serves nobody else: by arithmetic, 1,000 events
# at some 10 µs each are 10 ms.
_MOST_SENT = 1000
_MOST_SIZES = 16
# The last ms that a datetime can say: 9999-12-31T23:59:59.999Z.
_LAST_MS = int(datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1000 + 999


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
    """An event for an FSM, part of the commit.

    Args:
        job_id: RQ's id of its job.
        name: The FSM.
        event: The event.
        data: Its data, as JSON.
        due: When it joins the mailbox, as `due_of` says it: "" at once.
    """

    job_id: str
    name: str
    event: str
    data: bytes
    due: str = ""


@dataclass(frozen=True, slots=True)
class NewFSM:
    """An FSM to be started by the commit; where a host is given, that one alone is to run it."""

    job_id: str
    name: str
    definition: Definition
    payload: bytes
    host: str = ""


def checked_host(host: Any) -> str:
    """Check what a caller gave as `host=`.

    Raises:
        PayloadError: It cannot be the name of a host.
    """
    if not isinstance(host, str) or not HOST.fullmatch(host):
        problem = f"the name of a host is 1 to 100 of the characters A-Z a-z 0-9 _ . -, not {host!r}"
        raise PayloadError(problem, "host")
    return host


def delay_ms(delay: Duration, option: str = "delay") -> int:
    """Give a delay in ms.

    Raises:
        PayloadError: It is no length of time.
    """
    try:
        return duration_ms(delay, option)
    except ConfigError as error:
        raise PayloadError(error.problem, option) from error


def moment_ms(moment: Any, option: str = "at") -> int:
    """Give a moment in ms since 1970; what lies before that is 0, and what lies after 9999 in UTC is the end of it.

    >>> moment_ms(datetime.max.replace(tzinfo=UTC)), moment_ms(datetime.min.replace(tzinfo=UTC))
    (253402300799999, 0)

    Raises:
        PayloadError: It is no aware datetime.
    """
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        problem = f"must be an aware datetime, as datetime(2026, 12, 1, 8, tzinfo=UTC), not {moment!r}"
        raise PayloadError(problem, option)
    return min(max(0, round(moment.timestamp() * 1000)), _LAST_MS)


def due_of(delay: Duration | None, at: datetime | None) -> str:
    """Say when an event is to join the mailbox: "" at once, "+ms" from when Redis has it, or "ms" since 1970.

    >>> due_of("10m", None), due_of(0, None), due_of(None, None)
    ('+600000', '', '')

    Args:
        delay: A length of time.
        at: Or an aware moment; one that is over means at once.

    Raises:
        PayloadError: Both are given, or one is not what it should be.
    """
    if delay is None:
        return "" if at is None else str(moment_ms(at))
    if at is not None:
        problem = "delay and at exclude one another: give a length of time or a moment"
        raise PayloadError(problem, "delay")
    wait_ms = delay_ms(delay)
    return f"+{wait_ms}" if wait_ms else ""


def check_sent(count: int, size: int, limit: int) -> None:
    """Check that a commit does not hold up Redis for all others.

    Args:
        count: What leaves with it so far, events, FSMs and effects.
        size: Bytes of it, with what is to be added.
        limit: `payload_limit` of the machine.

    Raises:
        PayloadError: Nothing may be added.
    """
    if count >= _MOST_SENT:
        problem = f"a transition sends at most {_MOST_SENT} events, FSMs and effects: leave the rest to another event"
        raise PayloadError(problem, "outbox")
    if size > _MOST_SIZES * limit:
        problem = (
            f"what a transition sends has {size} bytes, and at most {_MOST_SIZES} times "
            f"Settings(payload_limit=…) is allowed, {_MOST_SIZES * limit}: leave the rest to another event"
        )
        raise PayloadError(problem, "outbox")


def plain(data: Any) -> bytes:
    """Write the data of an event as JSON."""
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
