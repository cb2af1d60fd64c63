"""A plan that says what is before an FSM: events in its mailbox, delayed ones, and effects that are still open.

Who calls this: the client, for `client.jobs` and `fsm jobs`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_name
from fsm.errors import UnknownFSMError
from fsm.store import alarms
from fsm.store.codec import call_arguments, event_data, rq_ms, text, whole
from fsm.store.requests import Request

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["Agenda", "EffectView", "EventView", "agenda"]

# Of each kind: a mailbox holds 10,000 where its machine says nothing else, and a person reads fewer.
_MOST = 1000


@dataclass(frozen=True, slots=True)
class EventView:
    """One event that waits.

    Args:
        job_id: RQ's id of its job.
        event: Its name; "" where the job has no record any more: it is passed over.
        data: Its data, plain JSON; `None` also where they were edited by hand.
        meta: What the sender gave along.
        since: When it was sent, aware, UTC; `None` where the record does not say.
        status: RQ's word for its job; "" without a record.
        is_held: Whether a worker has come to it.
        attempt: Which run of it this is, or will be: 1 where none has failed.
        next_at: When it is tried again, or due where it was delayed; aware, UTC; `None` where it waits for no time.
    """

    job_id: str
    event: str
    data: Any
    meta: dict[str, Any]
    since: datetime | None
    status: str
    is_held: bool
    attempt: int = 1
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EffectView:
    """One effect whose end is not told.

    Args:
        job_id: RQ's id of its job.
        func: Dotted path of the function.
        args: Its arguments, and
        kwargs: keyword arguments, plain JSON; empty where the job has no record any more.
        queue: RQ queue.
        status: RQ's word for its job: "queued", "started", "scheduled" (a retry waits), …; "" without a record.
        since: When it was asked for, aware, UTC; `None` where nobody noted it.
        retries_left: How often RQ will try it again.
        deaths: How many workers died on it.
        on_success: Event that brings back its result; "" for none.
        on_failure: Event that brings back its last failure; "" for none.
        cause: Id of the event that asked for it.
        deadline: When it has failed, if it has not ended by then, aware, UTC; `None` is never.
    """

    job_id: str
    func: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    status: str
    since: datetime | None
    retries_left: int
    deaths: int
    on_success: str
    on_failure: str
    cause: str
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is before an FSM.

    Args:
        name: The FSM.
        worker: The worker that has it in hand; "" for none.
        events: Those that wait, in the order in which they are applied.
        effects: Those that are open, the oldest first.
        more_events: How many events wait behind these.
        more_effects: How many effects are open beside these.
        delayed: Events that are not due yet, the next one first.
        more_delayed: How many are due after these.
    """

    name: str
    worker: str = ""
    events: list[EventView] = field(default_factory=list)
    effects: list[EffectView] = field(default_factory=list)
    more_events: int = 0
    more_effects: int = 0
    delayed: list[EventView] = field(default_factory=list)
    more_delayed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm jobs --json` prints it."""
        found = asdict(self)
        for one in (*found["events"], *found["delayed"], *found["effects"]):
            for moment in one.keys() & {"since", "next_at"}:
                one[moment] = None if one[moment] is None else one[moment].isoformat()
        return found


def agenda(keys: Keys, name: str, most: int = _MOST) -> Plan[Agenda]:
    """Read what waits for an FSM, and what it waits for.

    What is told is true of one moment after the other: an event may be applied, or an effect end, while it is read.

    Args:
        keys: Of the namespace.
        name: The FSM.
        most: At most so many events, as many delayed ones, and about so many effects.

    Raises:
        UnknownFSMError: There is none of this name.
    """
    fields, lock, urgent, mail, urgent_count, mail_count, (_, noted), effect_count, later, later_count = yield _many(
        ("HMGET", keys.snapshot(checked_name(name)), "born", "status", "retry_at"),
        ("GET", keys.lock(name)),
        ("LRANGE", keys.urgent(name), 0, most - 1),
        ("LRANGE", keys.mailbox(name), 0, most - 1),
        ("LLEN", keys.urgent(name)),
        ("LLEN", keys.mailbox(name)),
        ("HSCAN", keys.effects_of(name), 0, "COUNT", most),
        ("HLEN", keys.effects_of(name)),
        ("ZRANGE", keys.later(name), 0, most - 1),
        ("ZCARD", keys.later(name)),
    )
    if fields[0] is None or fields[1] == b"purging":
        raise UnknownFSMError(name, keys.namespace)
    ids = [text(raw) for raw in (*urgent, *mail)][:most]
    notes = {text(effect_id): _object(raw) for effect_id, raw in list(_pairs(noted))[:most]}
    effects = sorted(notes, key=lambda effect_id: (str(notes[effect_id].get("at_ms", "")).zfill(16), effect_id))
    off = [text(raw) for raw in later]
    what = ("event", "data", "meta", "enqueued_at", "status", "attempt")
    events = yield from _records(keys, ids, *what)
    records = yield from _records(keys, off, *what, "due", "alarm")
    delayed = _in_order(off, records)
    jobs = yield from _records(keys, effects, "data", "status", "retries_left", "deaths", "origin")
    deadlines = yield from _deadlines(keys, name, effects)
    return Agenda(
        name,
        text(lock).partition("/")[0],
        [
            _event(
                keys,
                name,
                job_id,
                record,
                is_held=lock is not None and place == 0,
                # Only the first one can wait for a time: the others wait for that one.
                next_at=_moment(_count(fields[2]) or None) if lock is None and place == 0 else None,
            )
            for place, (job_id, record) in enumerate(zip(ids, events, strict=True))
        ],
        [
            _effect(effect_id, notes[effect_id], record, deadline)
            for effect_id, record, deadline in zip(effects, jobs, deadlines, strict=True)
        ],
        max(0, int(urgent_count) + int(mail_count) - len(ids)),
        max(0, int(effect_count) - len(effects)),
        [
            _event(keys, name, job_id, record, is_held=False, next_at=_moment(_count(due) or None))
            for job_id, (*record, due, _) in delayed
        ],
        max(0, int(later_count) - len(off)),
    )


def _many(*commands: tuple[Any, ...]) -> Request[list[Any]]:
    """Send commands in one round trip; one reply each, also where there is one only."""
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)


def _records(keys: Keys, ids: list[str], *fields: str) -> Plan[list[list[bytes | None]]]:
    """Read some fields of the records of jobs."""
    if not ids:
        return []
    found: list[list[bytes | None]] = yield _many(*(("HMGET", keys.job(job_id), *fields) for job_id in ids))
    return found


def _deadlines(keys: Keys, name: str, ids: list[str]) -> Plan[list[float | None]]:
    """Read when these effects have failed, ms by the clock of Redis; `None` where they have no deadline."""
    if not ids:
        return []
    command = ("ZMSCORE", keys.timers, *(alarms.deadline(effect_id, name) for effect_id in ids))
    found: list[float | None] = yield Request(
        lambda reply: [None if score is None else float(score) for score in reply], commands=[command]
    )
    return found


def _in_order(ids: list[str], records: list[list[bytes | None]]) -> list[tuple[str, list[bytes | None]]]:
    """Put delayed events, which come by their time, into the order in which they join the mailbox.

    Of one time that is the order in which they were accepted, which is that of their alarms. One whose record is gone
    stays behind the one before it.
    """
    due, keyed = 0, []
    for job_id, record in zip(ids, records, strict=True):
        due = _count(record[-2]) or due
        keyed.append(((due, record[-1] or b"~"), (job_id, record)))
    return [one for _, one in sorted(keyed, key=itemgetter(0))]


def _event(  # noqa: PLR0913 - what is known of one event
    keys: Keys, name: str, job_id: str, record: list[bytes | None], *, is_held: bool, next_at: datetime | None
) -> EventView:
    event, data, meta, since, status, failed_runs = record
    try:
        value = orjson.loads(event_data(data or b"", keys.namespace, name, text(event)))
    except (ValueError, TypeError):
        value = None
    return EventView(
        job_id,
        text(event),
        value,
        _object(meta),
        _moment(rq_ms(text(since))),
        text(status),
        is_held,
        _count(failed_runs) + 1,
        next_at,
    )


def _effect(effect_id: str, note: dict[str, Any], record: list[bytes | None], deadline: float | None) -> EffectView:
    data, status, retries, deaths, origin = record
    args, kwargs = call_arguments(data or b"")
    at_ms = note.get("at_ms")
    return EffectView(
        effect_id,
        str(note.get("func", "")),
        args,
        kwargs,
        # Where RQ has it now: what was put on a queue that carries events is moved to the one for effects.
        text(origin) or str(note.get("queue", "")),
        text(status),
        _moment(at_ms if isinstance(at_ms, int) and at_ms > 0 else None),
        _count(retries),
        _count(deaths),
        str(note.get("on_success") or ""),
        str(note.get("on_failure") or ""),
        str(note.get("cause", "")),
        None if deadline is None else _moment(int(deadline)),
    )


def _pairs(flat: Any) -> list[tuple[bytes, bytes]]:
    """Read pairs as redis-py gives them: a dict, or a list of one after the other."""
    return list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))


def _object(raw: bytes | None) -> dict[str, Any]:
    try:
        value = orjson.loads(raw or b"{}")
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def _count(raw: bytes | None) -> int:
    return whole(raw)


def _moment(at_ms: int | None) -> datetime | None:
    try:
        return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # edited by hand
        return None
