"""A plan that says why an FSM stands where it stands: for who looks at it, and for who has waited too long.

Who calls this: the plans that wait; the command line, for `fsm state`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from fsm.errors import StoreError
from fsm.machine import span_text
from fsm.store import presence
from fsm.store.codec import rq_ms, text, whole
from fsm.store.keys import SUSPENDED, Keys
from fsm.store.places import parse
from fsm.store.requests import Request
from fsm.verbs.deploy import left_behind

if TYPE_CHECKING:
    from fsm.verbs.plans import Plan

__all__ = ["why"]

_FIELDS = (
    "born",
    "status",
    "queue",
    "machine",
    "state",
    "version",
    "error",
    "refused",
    "paused",
    "retry_at",
    "definition",
)
# A reason is one sentence: of what user code had to say so much of its first line.
_MOST_SAID = 200
# Of a mailbox and of open effects; Redis serves nobody else meanwhile.
_MOST_LOOKED = 1000


def why(keys: Keys, name: str, job_id: str = "") -> Plan[str]:
    """Say in a sentence without its period why an FSM stands where it stands; "" where nothing is known.

    What is told is true of one moment after the other, not of one moment: things go on meanwhile.

    Args:
        keys: Of the namespace.
        name: The FSM.
        job_id: The event that somebody waits for, so that it is said why that is not applied; "" where it is something
            else.
    """
    try:
        return (yield from _why(keys, name, job_id))
    except StoreError:
        # Whoever waited is to hear of that, and not of what came of asking.
        return ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One FSM at one look; a field that is not there is ""."""

    now_ms: int
    name: str
    born: str
    status: str
    queue: str
    machine: str
    state: str
    version: str
    error: str
    refused: str
    paused: str
    retry_at: str
    definition: str

    @property
    def is_paused(self) -> bool:
        """Whether it stands until it is resumed; what has ended does not."""
        return bool(self.paused) and self.status != "finished"


def _why(keys: Keys, name: str, job_id: str) -> Plan[str]:
    commands: list[tuple[Any, ...]] = [
        ("HMGET", keys.snapshot(name), *_FIELDS),
        ("GET", keys.lock(name)),
        ("LLEN", keys.urgent(name)),
        ("LLEN", keys.mailbox(name)),
        ("EXISTS", SUSPENDED),
        ("TIME",),
    ]
    if job_id:
        commands += [("LPOS", key, job_id, "MAXLEN", _MOST_LOOKED) for key in (keys.urgent(name), keys.mailbox(name))]
        commands.append(("HMGET", keys.job(job_id), "place", "due"))
    fields, lock, urgent, mail, is_suspended, now, *places = yield _many(commands)
    seen = _Seen(int(now[0]) * 1000 + int(now[1]) // 1000, name, *map(text, fields))
    if not seen.born:
        return "there is no FSM of this name any more"
    place, due = places.pop() if job_id else (None, None)
    due_ms = whole(due) if place == b"later" else 0
    if due_ms or seen.status in ("purging", "failed"):
        return _standing(seen, due_ms)
    count = urgent + mail
    if not count and (job_id or not seen.is_paused):
        # Who waits for an event that lies nowhere was overtaken by its end.
        return "" if job_id else (yield from _at_rest(keys, seen))
    before = _before(urgent, *places) if places else 0
    tail = f", and {_count(before, 'event')} before it" if before else ""
    if lock is not None:
        held = yield from _in_hand(keys, text(lock), seen.now_ms)
        held += tail if job_id else (yield from _with(keys, name, count))
        return f"{held}; and {_paused(seen)}" if seen.is_paused else held
    held_up = yield from _held_up(keys, seen, is_suspended=bool(is_suspended))
    if job_id:
        return held_up + tail
    return f"{_mail(seen, count)}: {held_up}" if count else held_up


def _standing(seen: _Seen, due_ms: int) -> str:
    """Say why no event is applied any more, and what helps; or that this one waits for its time."""
    if seen.status == "purging":
        return "it is being purged"
    if due_ms:
        return f"it is scheduled, and due in {span_text(due_ms - seen.now_ms)}"
    what = _fault(seen, max(_note(seen.refused), _note(seen.error), key=lambda note: _number(note.get("at_ms"))))
    fault = f": in {seen.state!r} {what}" if what else ""
    paused = f"; and {_paused(seen)}" if seen.is_paused else ""
    return f"it cannot go on by itself{fault}; `fsm retry {shlex.quote(seen.name)}` lets it go on{paused}"


def _held_up(keys: Keys, seen: _Seen, *, is_suspended: bool) -> Plan[str]:
    """Say why nobody has an FSM with mail in hand."""
    if seen.is_paused:
        return _paused(seen)
    if whole(seen.retry_at) > seen.now_ms:
        return (yield from _retried(keys, seen))
    if is_suspended:
        return "workers are suspended: `rq resume` lets them go on"
    unserved = yield from _unserved(keys, seen.name, seen.queue or keys.default_queue, seen.now_ms)
    return unserved + (yield from _strange(keys, seen))


def _strange(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say in a clause that the definition announced last could not run it: no more is in Redis of what workers know."""
    about = _note(text((yield Request(lambda reply: reply, commands=[("HGET", keys.machines, seen.machine)]))))
    return left_behind(about, seen.state, seen.status, seen.definition)


def _paused(seen: _Seen) -> str:
    """Say since when it is paused, and what helps."""
    when = _ago(seen, whole(seen.paused))
    return f"it was paused {when}: `fsm resume {shlex.quote(seen.name)}` lets it go on"


def _retried(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say which event is tried again, and when."""
    head = yield from _head(keys, seen.name)
    event, failed = yield Request(lambda reply: reply, commands=[("HMGET", keys.job(head), "event", "attempt")])
    attempt = f" (attempt {whole(failed) + 1})" if whole(failed) else ""
    when = f"is tried again in {span_text(int(seen.retry_at) - seen.now_ms)}{attempt}"
    if (note := _note(seen.error)).get("failed") == "migration":
        when = f"waits, for its FSM could not be migrated ({_reason(note)}): it {when}"
    return f"event {text(event)!r} {when}, `fsm retry {shlex.quote(seen.name)}` does it now"


def _head(keys: Keys, name: str) -> Plan[str]:
    """Find the id of the oldest mail: an id stays in its list until the commit."""
    heads = yield _many([("LINDEX", keys.urgent(name), 0), ("LINDEX", keys.mailbox(name), 0)])
    return text(heads[0] or heads[1])


def _mail(seen: _Seen, count: int) -> str:
    """Say what waits in the mailbox."""
    if seen.status != "starting":
        return _count(count, "event")
    others = f" and {count - 1} more" if count > 1 else ""
    return f"it has not begun: its entry event{others} {'wait' if others else 'waits'}"


def _with(keys: Keys, name: str, count: int) -> Plan[str]:
    """Say which event its worker has come to, and what waits behind it."""
    head = yield from _head(keys, name)
    event = text((yield Request(lambda reply: reply, commands=[("HGET", keys.job(head), "event")]))) if head else ""
    behind = f", and {_count(count - 1, 'event')} behind it" if count > 1 else ""
    return (f", at event {event!r}" if event else "") + behind


def _at_rest(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say what an FSM without mail waits for."""
    if seen.status == "finished":
        ended_ms = yield Request(
            lambda reply: reply, commands=[("ZSCORE", keys.finished_of(seen.machine, seen.state), seen.name)]
        )
        when = f", {_ago(seen, float(ended_ms))}" if ended_ms is not None else ""
        return f"it has finished in {seen.state!r}{when}"
    waits = (yield from _for_effect(keys, seen)) or (yield from _for_event(keys, seen))
    return waits + (yield from _delayed(keys, seen)) + _last(seen)


def _delayed(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say in a clause which events are to come; "" where none is."""
    first, count = yield _many([("ZRANGE", keys.later(seen.name), 0, 0), ("ZCARD", keys.later(seen.name))])
    if not first:
        return ""
    event, due = yield Request(lambda reply: reply, commands=[("HMGET", keys.job(text(first[0])), "event", "due")])
    others = f", the first of {count} delayed ones" if count > 1 else ""
    return f"; event {text(event)!r} is due in {span_text(whole(due) - seen.now_ms)}{others}"


def _for_effect(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say which effect an FSM waits for, and how that stands; "" where none is open that answers."""
    # A handler may ask for thousands: of so many, one that is read stands for those that are not.
    command = ("HSCAN", keys.effects_of(seen.name), 0, "COUNT", _MOST_LOOKED)
    _, notes = yield Request(lambda reply: reply, commands=[command])
    effects = [(text(effect_id), _note(text(raw))) for effect_id, raw in notes.items()]
    answering = [
        (effect_id, note)
        for effect_id, note in effects
        if note.get("born") == seen.born and (note.get("on_success") or note.get("on_failure"))
    ]
    if not answering:
        return ""
    effect_id, note = min(answering, key=lambda one: _number(one[1].get("at_ms")))
    queue = str(note.get("queue", ""))
    (status, origin, started_at, worker), due = yield _many(
        [
            ("HMGET", keys.job(effect_id), "status", "origin", "started_at", "worker_name"),
            ("ZSCORE", keys.rq_registry("scheduled", queue), effect_id),
        ]
    )
    match text(status):
        case "started":
            since = rq_ms(text(started_at))
            how = f"which worker {text(worker)} has run for {span_text(seen.now_ms - since)}" if since else "which runs"
        case "scheduled":
            left_ms = 0 if due is None else int(float(due)) * 1000 - seen.now_ms
            how = f"which is tried again in {span_text(left_ms)}" if left_ms > 0 else "which is to be tried again now"
        case "queued":
            queue = text(origin) or queue
            listening = yield from _listening(keys, queue, seen.now_ms)
            where = _count(listening, "worker", "listens", "listen") if listening else "no worker listens"
            how = f"asked for {_ago(seen, _number(note.get('at_ms')))}, which waits on queue {queue!r}, where {where}"
        case "":
            how = "whose job is gone: workers look after such, and tell it"
        case ended:
            how = f"whose job is {ended}: its answer is on the way"
    more = f"; and for {len(answering) - 1} more" if len(answering) > 1 else ""
    return f"it waits for the effect {note.get('func')}, {how}{more}"


def _for_event(keys: Keys, seen: _Seen) -> Plan[str]:
    """Say which events an FSM waits for, as far as its machine was announced."""
    about = _note(text((yield Request(lambda reply: reply, commands=[("HGET", keys.machines, seen.machine)]))))
    allowed = about.get("allowed")
    if not isinstance(allowed, dict):
        return "no event waits for it"
    events = [str(event) for event in allowed.get(seen.state) or ()]
    if not events:
        return f"no event leads out of {seen.state!r}"
    return f"it waits for {' or '.join(filter(None, (', '.join(events[:-1]), events[-1])))}"


def _last(seen: _Seen) -> str:
    """Say what went wrong last, if nothing was done since."""
    refused = _note(seen.refused)
    # A failure stands until an event is done; a refusal stays, and is news only where it was the last thing of all.
    notes = [_note(seen.error), refused if str(refused.get("version")) == seen.version else {}]
    what = _fault(seen, max(notes, key=lambda note: _number(note.get("at_ms"))))
    return f"; {what}" if what else ""


def _fault(seen: _Seen, note: dict[str, Any]) -> str:
    """Say in a clause what failed or was refused, and when; "" where nothing did."""
    if not note:
        return ""
    verb = "was refused" if "refused" in note else "failed"
    about = _reason(note)
    return f"{note.get('event')} {verb} {_ago(seen, _number(note.get('at_ms')))}{': ' if about else ''}{about}"


def _reason(note: dict[str, Any]) -> str:
    """Give what was said of a failure or refusal, bounded."""
    said = str(note.get("message") or note.get("reason") or "").strip().partition("\n")[0][:_MOST_SAID]
    return ": ".join(str(part) for part in (note.get("type") or "", said) if part)


def _ago(seen: _Seen, at_ms: float) -> str:
    return f"{span_text(seen.now_ms - int(at_ms))} ago" if at_ms else "some time ago"


def _note(raw: str) -> dict[str, Any]:
    """Read a JSON object; empty where there is none, for a reason is not worth an error."""
    try:
        value = orjson.loads(raw) if raw else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return value if isinstance(value, int) else 0


def _in_hand(keys: Keys, lock: str, now_ms: int) -> Plan[str]:
    """Say who holds it, and for how long."""
    # Of the lock's two parts the token is hexadecimal, so the last stroke divides them.
    worker = lock.rpartition("/")[0]
    since = yield Request(lambda reply: reply, commands=[("HGET", keys.replies(worker), "claimed_at")])
    how_long = f"has had it in hand for {(now_ms - whole(since)) / 1000:.1f} s" if whole(since) else "has it in hand"
    return f"worker {worker} {how_long}"


def _unserved(keys: Keys, name: str, queue: str, now_ms: int) -> Plan[str]:
    """Say why nobody has it in hand."""
    place = parse(queue)
    absent = (yield from _absent(keys, place.host, now_ms)) if place.host else ""
    if absent and place.is_pinned:
        return f"it waits for host {place.host}, which {absent}"
    # Workers of ours do not say in RQ's registry that they serve queues of hosts beside those that they listen on.
    listening = yield from _listening(keys, place.base, now_ms, place.host if place.is_pinned else "")
    if place.host:
        listening += yield from _listening(keys, queue, now_ms)
    if not listening:
        whose = f" of host {place.host}" if place.is_pinned else ""
        how = f"`fsm worker --host {place.host}`" if place.is_pinned else "`fsm worker`"
        return f"no worker{whose} listens on queue {place.base!r}: start one with {how}"
    if absent:
        return f"it waits for host {place.host}, which {absent}: others take over"
    rank = yield Request(lambda reply: reply, commands=[("ZRANK", keys.ready(queue), name)])
    waits = f"{_count(rank, 'FSM')} before it on queue {queue!r}" if rank else f"it waits on queue {queue!r}"
    return f"{waits}, where {_count(listening, 'worker', 'listens', 'listen')}"


def _absent(keys: Keys, host: str, now_ms: int) -> Plan[str]:
    """Say what a host does that takes no work; "" where it does."""
    commands: list[tuple[Any, ...]] = [("ZSCORE", keys.hosts, host), ("HEXISTS", keys.draining, host)]
    ends, is_draining = yield _many(commands)
    if ends is None or float(ends) <= now_ms:
        return "is not alive"
    return "drains" if is_draining else ""


def _before(urgent: int, in_urgent: int | None, in_mailbox: int | None) -> int:
    """Count the events before this one: urgent mail goes first."""
    if in_urgent is not None:
        return in_urgent
    return urgent + in_mailbox if in_mailbox is not None else 0


def _listening(keys: Keys, queue: str, now_ms: int, host: str = "") -> Plan[int]:
    """Count the workers that listen on a queue and live: ours by their heartbeats, those of RQ by their records.

    Of a host, where it is given, only those.
    """
    records = yield presence.on_queue(queue)
    if not records:
        return 0
    prefix = len(Keys.rq_worker(""))
    commands: list[tuple[Any, ...]] = []
    for record in records:
        commands += [("ZSCORE", keys.workers, record[prefix:]), ("HMGET", record, "birth", "death", "fsm", "hostname")]
    replies = yield _many(commands)
    count = 0
    for beat, (birth, death, ours, hostname) in zip(replies[::2], replies[1::2], strict=True):
        if host and text(hostname) != host:
            continue
        if beat is not None:
            count += now_ms - float(beat) < presence.SILENT_AFTER_MS
        else:
            # One of ours without a heartbeat in this namespace serves another one, or has just ended.
            count += birth is not None and not death and ours is None
    return count


def _many(commands: list[tuple[Any, ...]]) -> Request[list[Any]]:
    return Request(lambda reply: reply, commands=commands)


def _count(number: int, noun: str, one: str = "waits", many: str = "wait") -> str:
    """Say how many of something do something.

    >>> _count(1, "event"), _count(2, "event")
    ('1 event waits', '2 events wait')
    """
    return f"1 {noun} {one}" if number == 1 else f"{number} {noun}s {many}"
