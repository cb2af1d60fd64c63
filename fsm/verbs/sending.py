"""Plans that change something: start, send, purge.

Who calls this: the client.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_event, checked_name, encode_payload
from fsm.errors import (
    CallTimeoutError,
    FSMError,
    FSMExistsError,
    FSMFinishedError,
    KeyConflictError,
    MailboxFullError,
    PayloadError,
    RefusedError,
    StoreError,
    UnknownFSMError,
)
from fsm.machine.values import JSON
from fsm.store import calls
from fsm.store.codec import new_ids, text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsm.machine import Definition
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["Sending", "Verdict", "announce", "purge", "send_many", "sending", "start_many"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event of `transition_many`, or one FSM of `start_many`.

    Args:
        name: The FSM.
        job_id: The job of the event.
        error: `None` where it was accepted.
    """

    name: str
    job_id: str
    error: FSMError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was accepted."""
        return self.error is None


def announce(keys: Keys, definitions: Iterable[Definition], seen_at: int) -> Request[Any]:
    """Tell everyone which machines there are: for lists, and for senders that do not have the class."""
    command: list[Any] = ["HSET", keys.machines]
    for definition in definitions:
        graph, settings = definition.graph, definition.settings
        about = {
            "fingerprint": definition.fingerprint,
            "definition_version": settings.definition_version,
            "queue": settings.queue or keys.default_queue,
            "seen_at": seen_at,
            "start": graph.start,
            "states": graph.states,
            "ends": sorted(graph.ends),
            "events": graph.events,
            "allowed": {state: graph.allowed(state) for state in graph.states},
            "diagram": graph.render("mermaid"),
        }
        command += (definition.name, orjson.dumps(about))
    return Request(lambda reply: reply, commands=[tuple(command)])


def start_many(keys: Keys, definition: Definition, items: Iterable[tuple[str, Any]]) -> Plan[list[Verdict]]:
    """Start FSMs of one machine, many a round trip.

    On a crash: those of the calls that Redis has had exist, the others do not.
    """
    births = [calls.Birth(checked_name(name), "", encode_payload(definition, payload)) for name, payload in items]
    verdicts: list[Verdict] = []
    for first in range(0, len(births), calls.MOST_ITEMS):
        part = births[first : first + calls.MOST_ITEMS]
        ids = new_ids(len(part))
        part = [calls.Birth(birth.name, job_id, birth.raw) for birth, job_id in zip(part, ids, strict=True)]
        words = yield calls.start(keys, definition, part)
        for birth, word in zip(part, words, strict=True):
            verdicts.append(Verdict(birth.name, birth.job_id, _start_error(keys, birth.name, word)))
    return verdicts


def _start_error(keys: Keys, name: str, word: str) -> FSMError | None:
    if word == "CREATED":
        return None
    if word == "EXISTS":
        return FSMExistsError(name, keys.namespace)
    return _broken(keys, name)


def _broken(keys: Keys, name: str) -> StoreError:
    return StoreError(
        f"a key of FSM {name!r} is of another type than ours ({keys.snapshot(name)} should be a hash, "
        f"{keys.mailbox(name)} a list): something else writes under our names"
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """One event to be sent, checked: `raw` is its data as JSON."""

    name: str
    event: str
    raw: bytes = b"null"
    job_id: str = ""
    meta: bytes = b""


def sending(
    definition: Definition | None, name: str, event: str, data: Any = None, meta: Mapping[str, Any] | None = None
) -> Sending:
    """Check and encode one event; with the definition at hand its data are typed, else plain JSON."""
    raw = encode_data(definition, checked_event(event), data)
    return Sending(checked_name(name), event, raw, meta=b"" if meta is None else _meta(meta))


def _meta(meta: Mapping[str, Any]) -> bytes:
    if not isinstance(meta, dict):
        problem = f"meta is a dict of JSON values, not {type(meta).__name__}"
        raise PayloadError(problem, "meta")
    return JSON.encode(meta)


def encode_data(definition: Definition | None, event: str, data: Any) -> bytes:
    """Write an event's data as JSON; typed where the machine's handlers agree on a type."""
    if data is None:
        return b"null"
    if definition is not None:
        codecs = {
            id(handler.data): handler.data
            for (_, handled), handler in definition.handlers.items()
            if handled == event and handler.data is not None
        }
        if len(codecs) == 1:
            raw: bytes = next(iter(codecs.values())).encode(data)
            return raw
    return JSON.encode(data)


def send_many(
    keys: Keys, items: Sequence[Sending], definition: Definition | None = None, *, asked: bool = False, born: str = ""
) -> Plan[list[Verdict]]:
    """Send events, thousands a few round trips; one verdict an event.

    On a crash: the events of the calls that Redis has had are accepted, the others are not.
    """
    verdicts: list[Verdict] = []
    refused: set[str] = set()
    refused_now: set[str] = set()
    for first in range(0, len(items), calls.MOST_ITEMS):
        part = items[first : first + calls.MOST_ITEMS]
        letters = [
            calls.Letter(item.name, item.job_id or job_id, item.event, item.raw, born, asked, item.meta)
            for item, job_id in zip(part, new_ids(len(part)), strict=True)
        ]
        # The script knows only its own call: what was refused in an earlier one stays refused in this one.
        sent = [letter for letter in letters if letter.name not in refused] if refused else letters
        words = iter((yield calls.send(keys, sent, definition)) if sent else ())
        for letter in letters:
            word = "SKIPPED" if letter.name in refused else next(words)
            error = None if word == "SENT" else _send_error(keys, letter, word)
            if error is not None and word != "SKIPPED":
                refused_now.add(letter.name)
            verdicts.append(Verdict(letter.name, letter.job_id, error))
        refused |= refused_now
    return verdicts


def _send_error(keys: Keys, letter: calls.Letter, word: str) -> FSMError | None:
    kind, _, rest = word.partition(" ")
    match kind:
        case "DUPLICATE":
            error: FSMError | None = None
        case "UNKNOWN":
            error = UnknownFSMError(letter.name, keys.namespace)
        case "FINISHED":
            error = FSMFinishedError(letter.name, rest)
        case "FULL":
            error = MailboxFullError(letter.name, int(rest))
        case "CONFLICT":
            error = KeyConflictError(letter.job_id, letter.name)
        case "SKIPPED":
            reason = "not sent: an event for this FSM before it in the same call was refused"
            error = RefusedError(letter.name, letter.event, job_id=letter.job_id, reason=reason)
        case _:
            error = _broken(keys, letter.name)
    return error


def purge(keys: Keys, name: str, born: str, timeout: float) -> Plan[None]:
    """Take one FSM away with its mail.

    Raises:
        UnknownFSMError: There is none of this name.
        CallTimeoutError: A worker was at it for all that time.
    """
    begin = time.monotonic()
    # From here on it is this life and no other: a call that is repeated late must not purge the next one.
    try:
        known = yield Request(text, commands=[("HGET", keys.snapshot(checked_name(name)), "born")])
    except StoreError as error:
        raise (_broken(keys, name) if "WRONGTYPE" in error.problem else error) from error
    if not known or (born and born != known):
        raise UnknownFSMError(name, keys.namespace)
    while True:
        word = yield calls.purge(keys, name, known)
        if word in ("PURGED", "UNKNOWN"):
            return
        if word == "BROKEN":
            raise _broken(keys, name)
        if word == "HELD":
            if time.monotonic() - begin > timeout:
                raise CallTimeoutError(name, "purge", "", timeout, "a worker has it in hand")
            # Redis waits for us: a blocking read of a key that nobody writes.
            yield Request(lambda reply: reply, commands=[("BLPOP", f"{keys.prefix}purge:nobody", 0.05)])
