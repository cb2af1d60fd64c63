"""The plan of the operator's verbs: retry what failed, skip what is at the head, pause an FSM, resume it.

Who calls this: the client, and the commands `fsm retry`, `fsm skip`, `fsm pause` and `fsm resume`.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from fsm.engine import checked_name, inside
from fsm.errors import (
    CallTimeoutError,
    FSMError,
    FSMFinishedError,
    RefusedError,
    StaleVersionError,
    StoreError,
    UnknownFSMError,
    UnknownMachineError,
)
from fsm.machine import END
from fsm.store import steering
from fsm.store.codec import new_ids, text, whole
from fsm.store.requests import Request
from fsm.verbs.plans import pause
from fsm.verbs.sending import checked_version
from fsm.verbs.starting import blueprint
from fsm.verbs.verdicts import broken
from fsm.verbs.why import why

if TYPE_CHECKING:
    from typing import TypeAlias

    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

    Verb: TypeAlias = Literal["retry", "skip", "pause", "resume"]

__all__ = ["Steered", "steer"]

_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Steered:
    """What came of an operator's verb.

    Args:
        word: "RETRIED", "SKIPPED", "PAUSED", "RESUMED"; "NOTHING" where there was nothing to do; "OTHER" where the
            event to be skipped is not at the head.
        job_id: Job of the event that was retried or skipped, or that is at the head; "" for none.
        event: That event; "" where its job has no record any more.
    """

    word: str
    job_id: str = ""
    event: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the FSM is as it was asked for."""
        return self.word not in ("NOTHING", "OTHER")


@dataclass(frozen=True, slots=True)
class _Seen:
    """One FSM at one look; a field that is not there is ""."""

    born: str
    status: str
    version: str
    machine: str
    state: str
    owes: str
    error: str
    refused: str
    failed_from: str
    history: str


_FIELDS = tuple(_Seen.__dataclass_fields__)


def steer(  # noqa: PLR0913 - one keyword an option of the verbs
    keys: Keys,
    verb: Verb,
    name: str,
    *,
    job_id: str = "",
    born: str = "",
    if_version: int | None = None,
    timeout: float = 10.0,
) -> Plan[Steered]:
    """Carry out an operator's verb; what touches the mailbox waits until no worker has the FSM in hand.

    On a crash: it was done, and is in the log, or nothing was.

    Args:
        keys: Of the namespace.
        verb: What is to be done.
        name: The FSM.
        job_id: Skip only this event, and only where it is the next one.
        born: Only if it is still this life of the name.
        if_version: Only if the FSM has still this version.
        timeout: Seconds to wait for a worker that has it in hand.

    Raises:
        UnknownFSMError: There is none of this name, or it is another life of it.
        FSMFinishedError: It has ended.
        StaleVersionError: It is not of that version any more.
        RefusedError: What is to be skipped is the entry event.
        CallTimeoutError: A worker was at it for all that time.
        HandlerError: Called inside of a handler, where it might wait.
        PayloadError: Name or version are not what they should be.
    """
    if verb in ("retry", "skip"):
        inside.refuse_to_wait(f"{verb} of FSM {name!r}")
    checked_name(name)
    if if_version is not None:
        checked_version(if_version)
    begin = time.monotonic()
    order: steering.Order | None = None
    while True:
        seen = yield from _look(keys, name)
        if not seen.born or seen.status == "purging" or (born and born != seen.born):
            raise UnknownFSMError(name, keys.namespace, born)
        # From here on it is this life and no other: a call that is repeated late must not touch the next one.
        born = seen.born
        order = order or steering.Order(verb, name, new_ids(1)[0], born, _caller(), if_version, job_id)
        failure = (yield from _last_failure(keys, seen)) if verb in ("retry", "skip") else None
        word, *rest = yield steering.steer(keys, order, seen.version, failure)
        if word not in ("HELD", "MOVED"):
            break
        if time.monotonic() - begin > timeout:
            reason = yield from why(keys, name)
            raise CallTimeoutError(name, verb, "", timeout, reason or "a worker has it in hand")
        if word == "HELD":
            # Redis waits for us: a blocking read of a key that nobody writes.
            yield pause(keys, _PAUSE_S)
    if (error := _error(keys, order, seen, word, rest)) is not None:
        raise error
    return Steered(word, *rest) if word in ("RETRIED", "SKIPPED", "OTHER") else Steered(word)


def _error(keys: Keys, order: steering.Order, seen: _Seen, word: str, rest: list[str]) -> FSMError | None:
    """Give the error for what the script refused."""
    match word:
        case "UNKNOWN":
            return UnknownFSMError(order.name, keys.namespace, order.born)
        case "FINISHED":
            return FSMFinishedError(order.name, rest[0])
        case "STALE":
            return _stale(order, *rest)
        case "CANNOT":
            return _entry(order.name, seen)
        case "BROKEN":
            return broken(keys, order.name)
    return None


def _look(keys: Keys, name: str) -> Plan[_Seen]:
    command = ("HMGET", keys.snapshot(name), *_FIELDS)
    try:
        fields = yield Request(lambda reply: reply, commands=[command])
    except StoreError as error:
        raise (broken(keys, name) if "WRONGTYPE" in error.problem else error) from error
    return _Seen(*map(text, fields))


def _last_failure(keys: Keys, seen: _Seen) -> Plan[steering.LastFailure]:
    """Find the event that failed last; of an FSM that cannot go on by itself, the one that it owes."""
    notes = sorted((_note(seen.refused), _note(seen.error)), key=_at_ms)
    if seen.status != "failed":
        # A refusal is an answer; who wants another one sends the event again.
        error = _note(seen.error)
        return steering.LastFailure("mail", _text(error.get("job")), is_last=str(error.get("version")) == seen.version)
    about = None
    with suppress(UnknownMachineError, StoreError):  # then the snapshot says what it can
        about = yield from blueprint(keys, seen.machine)
    entry = about.entry if about else END
    note = next((note for note in notes if note.get("job") == seen.owes), {}) if seen.owes else notes[-1]
    is_entry = seen.failed_from == "starting"
    if not seen.failed_from and not seen.owes:
        # Written by a version of ours that noted neither: in the state in which it began, with nothing behind it.
        is_start = about is None or seen.state == about.start
        is_entry = note.get("event") == entry and is_start and seen.history in ("", "[]")
    hard = about.hard.get(seen.state, "") if about else ""
    return steering.LastFailure(
        "entry" if is_entry else "hard",
        seen.owes or _text(note.get("job")),
        entry if is_entry else _text(note.get("event")) or hard,
        (about.timeout, about.result_ttl) if about else steering.LastFailure().seconds,
    )


def _note(raw: str) -> dict[str, Any]:
    """Read what a snapshot notes of a failure or refusal; empty where there is nothing that can be read."""
    try:
        value = orjson.loads(raw) if raw else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _at_ms(note: dict[str, Any]) -> int:
    at_ms = note.get("at_ms")
    return at_ms if isinstance(at_ms, int) else -1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _stale(order: steering.Order, version: str, state: str) -> StaleVersionError:
    number = whole(version)
    decided = f"`{order.verb}` was decided on version {order.if_version}, and it has version {version} now"
    reason = f"{decided}: look at it again, then decide"
    details = {"version": number, "if_version": order.if_version}
    return StaleVersionError(order.name, "", state, number, "", reason, details)


def _entry(name: str, seen: _Seen) -> RefusedError:
    quoted = shlex.quote(name)
    reason = (
        "its entry event cannot be skipped, for without it the FSM does not begin: "
        f"`fsm retry {quoted}` tries that once more, `fsm purge {quoted}` takes the FSM away"
    )
    return RefusedError(name, "", seen.state, whole(seen.version), "", reason)


def _caller() -> str:
    """Say who we are, for the log: user and host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # in a container whose user has no name
        user = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return f"{user}@{socket.gethostname()}"
