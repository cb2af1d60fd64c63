"""Plans that send events.

Who calls this: the client.
"""

from __future__ import annotations

import hashlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from fsm.engine import checked_event, checked_name, due_of
from fsm.errors import (
    FSMError,
    FSMExistsError,
    FSMFinishedError,
    KeyConflictError,
    MailboxFullError,
    NotAllowedError,
    PayloadError,
    RefusedError,
    StaleVersionError,
    UnknownFSMError,
)
from fsm.machine import did_you_mean
from fsm.machine.settings import PAYLOAD_LIMIT, check_size
from fsm.machine.values import JSON
from fsm.store import calls
from fsm.store.ahead import Ticket
from fsm.store.codec import new_ids
from fsm.verbs.verdicts import Verdict, broken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from fsm.machine import Definition
    from fsm.machine.durations import Duration
    from fsm.store.blueprint import Blueprint
    from fsm.store.keys import Keys
    from fsm.store.places import Placer
    from fsm.store.requests import Request
    from fsm.verbs.plans import Plan

__all__ = ["Sending", "checked_version", "send_many", "sending", "sendings"]

_LONGEST_KEY = 512
# The largest integer that Lua compares exactly; no FSM gets so far.
_LARGEST_VERSION = 2**53
# Calls under way at once: one is executed by Redis, one is on its way there, and the next is written here.
_MOST_AHEAD = 2


class Sending(msgspec.Struct):
    """One event to be sent, checked.

    Args:
        name: The FSM.
        event: The event.
        raw: Its data as JSON.
        job_id: "" draws one; of a key its hash and ":".
        meta: JSON, or empty.
        key: What the sender calls it.
        if_version: The version of the FSM on which the sender decided.
        more: Fields of its record for key, version and when it is due, each with its value.
        error: Why it is not to be sent.
    """

    name: str
    event: str
    raw: bytes = b"null"
    job_id: str = ""
    meta: bytes = b""
    key: str = ""
    if_version: int | None = None
    more: tuple[Any, ...] = ()
    error: FSMError | None = None


def sending(  # noqa: PLR0913 - one keyword an option of a send
    definition: Definition | None,
    name: str,
    event: str,
    data: Any = None,
    meta: Mapping[str, Any] | None = None,
    *,
    job_id: str | None = None,
    key: str | None = None,
    if_version: int | None = None,
    delay: Duration | None = None,
    at: datetime | None = None,
) -> Sending:
    """Check and encode one event; with the definition at hand its data are typed, else plain JSON.

    The data are bounded as the payload is; by name alone nobody knows the machine's bound, so it is the default.

    An event that the machine does not have comes with its error: nobody has to ask Redis for that.

    Raises:
        PayloadError: Name, event, data or an option are not what they should be.
    """
    checked_name(name)
    checked_event(event)
    packed = b"" if meta is None else _meta(meta)
    if key is not None and job_id is not None:
        problem = "a key makes a job id of its own: give either key= or job_id="
        raise PayloadError(problem, "key")
    if definition is not None and event not in definition.graph.events:
        return Sending(name, event, error=_no_such_event(definition, name, event))
    limit = PAYLOAD_LIMIT if definition is None else definition.settings.payload_limit
    raw = check_size(encode_data(definition, event, data), f"the data of event {event!r} have", limit)
    more = _due(delay, at)
    if key is None and if_version is None:
        return Sending(name, event, raw, job_id or "", packed, more=more)
    if key is not None:
        job_id = _key_hash(name, _checked_key(key)) + ":"
        # Not of what it is: sent again with another delay, it is the same event, and due when it was.
        more = (*more, "key", key, "digest", _digest(event, raw))
    if if_version is not None:
        more = (*more, "if_version", checked_version(if_version))
    return Sending(name, event, raw, job_id or "", packed, key or "", if_version, more)


def sendings(
    definition: Definition | None,
    items: Iterable[tuple[str, str] | tuple[str, str, Any]],
    meta: Mapping[str, Any] | None = None,
    *,
    delay: Duration | None = None,
    at: datetime | None = None,
) -> list[Sending]:
    """Check and encode many events, as `sending` does; what is the same for all of them once.

    Raises:
        PayloadError: As `sending`, of the first that is not what it should be.
    """
    many: list[Sending] = []
    more = _due(delay, at)
    packed: bytes | None = None
    # Events that may be sent without data; a name is checked for each.
    plain: set[str] = set()
    for item in items:
        name, event = item[0], item[1]
        data = item[2] if len(item) > 2 else None  # noqa: PLR2004 - pair or triple
        if data is None and packed is not None and type(event) is str and event in plain:
            many.append(Sending(checked_name(name), event, b"null", "", packed, more=more))
            continue
        one = sending(definition, name, event, data, meta if packed is None else None)
        many.append(one)
        if one.error is None:
            if packed is None:
                packed = one.meta
            one.meta = packed
            one.more = more
            if data is None:
                plain.add(event)
    return many


def _due(delay: Duration | None, at: datetime | None) -> tuple[Any, ...]:
    """Give the field of a record that says when an event is due; none where it is due at once."""
    due = due_of(delay, at)
    return ("due", due) if due else ()


def _no_such_event(definition: Definition, name: str, event: str) -> NotAllowedError:
    events = definition.graph.events
    reason = f"machine {definition.name!r} has no such event{did_you_mean(event, events)}"
    return NotAllowedError(name, event, reason=reason, details={"allowed": list(events)})


def _checked_key(key: Any) -> str:
    problem = ""
    if not isinstance(key, str) or not key:
        problem = f"a key is text, not empty, such as 'stripe:evt_1', not {key!r}"
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            problem = f"a key must be valid UTF-8 text, and {key!r} holds a lone surrogate"
        else:
            if size > _LONGEST_KEY:
                problem = f"a key has at most {_LONGEST_KEY} bytes, and {key[:40]!r}… has {size}"
    if problem:
        raise PayloadError(problem, "key")
    return str(key)


def checked_version(version: Any) -> int:
    """Check what a caller gave as `if_version=`.

    Raises:
        PayloadError: It is no version that an FSM can have.
    """
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= _LARGEST_VERSION:
        problem = f"if_version is the version of a snapshot, a whole number from 0, not {version!r}"
        raise PayloadError(problem, "if_version")
    return version


def _key_hash(name: str, key: str) -> str:
    # The length keeps apart what would read alike: name "a", key "bc" and name "ab", key "c".
    return hashlib.sha256(f"{len(name)}:{name}{key}".encode()).hexdigest()[:24]


def _digest(event: str, raw: bytes) -> str:
    """Tell one event with its data from another; the order of keys in an object means nothing."""
    with suppress(ValueError):  # deeper than orjson goes: then as it was written
        raw = orjson.dumps(orjson.loads(raw), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"%d:%s%s" % (len(event), event.encode(), raw)).hexdigest()[:16]


def _meta(meta: Mapping[str, Any]) -> bytes:
    if not isinstance(meta, dict):
        problem = f"meta is a dict of JSON values, not {type(meta).__name__}"
        raise PayloadError(problem, "meta")
    return check_size(JSON.encode(meta), "meta has")


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


def send_many(  # noqa: PLR0913 - one keyword an option of a send
    keys: Keys,
    items: Sequence[Sending],
    machine: Definition | Blueprint | None = None,
    *,
    asked: bool = False,
    born: str = "",
    first_payload: bytes | None = None,
    placer: Placer | None = None,
) -> Plan[list[Verdict]]:
    """Send events, thousands a few round trips; one verdict an event.

    On a crash: the events of the calls that Redis has had are accepted, the others are not.

    Args:
        keys: Of the namespace.
        items: The events.
        machine: Of their FSMs, where it is known.
        asked: Somebody waits for their ends.
        born: Ties them to one life of the name.
        first_payload: FSMs that do not exist are started with this, of that machine; all items are then of one FSM.
        placer: Says on which host that begins, where its machine leaves this to the ring.
    """
    if first_payload is not None and placer is not None and machine is not None and items:
        about = calls.blueprint_of(keys, machine)
        machine = replace(about, queue=placer.first(about.queue, about.placement, items[0].name))
    bulk = _Bulk(keys, machine, asked, born, first_payload)
    if len(items) <= calls.MOST_ITEMS:
        part = bulk.part(items)
        if part.letters:
            part.words = yield bulk.request(part)
        bulk.settle(part)
        return bulk.verdicts
    under_way: deque[_Part] = deque()
    for first in range(0, len(items), calls.MOST_ITEMS):
        some = items[first : first + calls.MOST_ITEMS]
        names = {item.name for item in some}
        # What was refused stays refused: an FSM's next events wait for the verdicts on those before them.
        while len(under_way) == _MOST_AHEAD or any(not names.isdisjoint(part.names) for part in under_way):
            yield from _settle_oldest(bulk, under_way)
        part = bulk.part(some, names)
        if part.letters:
            part.words = yield replace(bulk.request(part), is_ahead=True)
        under_way.append(part)
    while under_way:
        yield from _settle_oldest(bulk, under_way)
    return bulk.verdicts


def _settle_oldest(bulk: _Bulk, under_way: deque[_Part]) -> Plan[None]:
    part = under_way.popleft()
    if isinstance(part.words, Ticket):
        part.words = yield part.words
    bulk.settle(part)


@dataclass(slots=True)
class _Part:
    """What is sent in one call: the events, those among them that are not sent, and what is said of the others."""

    items: Sequence[Sending]
    names: Collection[str]
    letters: list[calls.Letter]
    early: dict[int, Verdict]
    words: Sequence[str] | Ticket[list[str]] = ()


@dataclass(slots=True)
class _Bulk:
    """A send of many: what is common to its parts, the verdicts so far, and FSMs of which an event was refused."""

    keys: Keys
    machine: Definition | Blueprint | None
    asked: bool
    born: str
    first_payload: bytes | None
    verdicts: list[Verdict] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def part(self, items: Sequence[Sending], names: Collection[str] = ()) -> _Part:
        """Write the letters of some events. The script knows only its own call: what was refused stays refused."""
        letters: list[calls.Letter] = []
        early: dict[int, Verdict] = {}
        refused, born, asked, raw_payload = self.refused, self.born, self.asked, self.first_payload
        for n, (item, drawn) in enumerate(zip(items, new_ids(len(items)), strict=True)):
            name = item.name
            if item.error is not None or name in refused:
                early[n] = Verdict(name, drawn, _not_sent(item, drawn, is_first=name not in refused))
                refused.add(name)
                continue
            birth = None if raw_payload is None else calls.Birth(name, new_ids(1)[0], raw_payload)
            letters.append(
                calls.Letter(name, item.job_id or drawn, item.event, item.raw, born, asked, item.meta, item.more, birth)
            )
        return _Part(items, names, letters, early)

    def request(self, part: _Part) -> Request[list[str]]:
        return calls.send(self.keys, part.letters, self.machine, starts=self.first_payload is not None)

    def settle(self, part: _Part) -> None:
        """Read the words that were said of the events of a part."""
        assert not isinstance(part.words, Ticket)  # noqa: S101 - its reply was asked for
        verdicts, early = self.verdicts, part.early
        answers = zip(part.letters, part.words, strict=True)
        for n, item in enumerate(part.items):
            if early and n in early:
                verdicts.append(early[n])
                continue
            letter, word = next(answers)
            if word == "SENT":
                verdicts.append(Verdict(letter.name, letter.job_id))
                continue
            verdict = _verdict(self.keys, item, letter.job_id, word)
            verdicts.append(verdict)
            if verdict.error is not None:
                self.refused.add(item.name)


def _not_sent(item: Sending, job_id: str, *, is_first: bool) -> FSMError:
    if is_first and item.error is not None:
        return item.error
    reason = "not sent: an event for this FSM before it in the same call was refused"
    return RefusedError(item.name, item.event, job_id=job_id, reason=reason)


def _verdict(keys: Keys, item: Sending, job_id: str, word: str) -> Verdict:
    """Read the script's word for one event. Of a key, it tells the job id as well."""
    name, event = item.name, item.event
    kind, _, rest = word.partition(" ")
    if item.key:
        job_id = rest.rpartition(" ")[2] if kind in ("SENT", "DUPLICATE", "CONFLICT") else ""
    error: FSMError | None
    match kind:
        case "SENT" | "DUPLICATE":
            error = None
        case "UNKNOWN":
            error = UnknownFSMError(name, keys.namespace)
        case "FINISHED":
            error = FSMFinishedError(name, rest)
        case "FULL":
            error = MailboxFullError(name, int(rest))
        case "CONFLICT":
            error = KeyConflictError(item.key or job_id, name)
        case "EXISTS":
            error = FSMExistsError(name, keys.namespace, rest)
        case "STALE":
            version, _, state = rest.partition(" ")
            reason = f"it was decided on version {item.if_version} of the FSM, which has version {version} now"
            details = {"version": int(version), "if_version": item.if_version}
            error = StaleVersionError(name, event, state, int(version), "", reason, details)
        case "SKIPPED":
            error = _not_sent(item, job_id, is_first=False)
        case _:
            error = broken(keys, name)
    return Verdict(name, job_id, error)
