"""A plan that says why an FSM does not get on: asked once, when somebody has waited too long for it.

Who calls this: the plans that wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm.errors import StoreError
from fsm.store import presence
from fsm.store.codec import text
from fsm.store.keys import SUSPENDED, Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from fsm.verbs.plans import Plan

__all__ = ["why"]

# A status in which no event is applied -> what is to be said of it; `{}` is the FSM's name.
_STANDING = {
    "failed": "it has failed and cannot go on by itself: `fsm state {}` says why",
    "paused": "it is paused: `fsm state {}`",
    "purging": "it is being purged",
}


def why(keys: Keys, name: str, job_id: str = "") -> Plan[str]:
    """Say in a sentence without its period why an FSM does not get on; "" where nothing is known.

    What is told is true of one moment after the other, not of one moment: things go on meanwhile.

    Args:
        keys: Of the namespace.
        name: The FSM.
        job_id: The event that somebody waits for; "" where it is something else.
    """
    try:
        return (yield from _why(keys, name, job_id))
    except StoreError:
        # Whoever waited is to hear of that, and not of what came of asking.
        return ""


def _why(keys: Keys, name: str, job_id: str) -> Plan[str]:
    commands: list[tuple[Any, ...]] = [
        ("HMGET", keys.snapshot(name), "born", "status", "queue"),
        ("GET", keys.lock(name)),
        ("LLEN", keys.urgent(name)),
        ("LLEN", keys.mailbox(name)),
        ("EXISTS", SUSPENDED),
        ("TIME",),
    ]
    if job_id:
        commands += [("LPOS", keys.urgent(name), job_id), ("LPOS", keys.mailbox(name), job_id)]
    (born, status, queue), lock, urgent, mail, is_suspended, now, *places = yield _many(commands)
    if born is None:
        return "there is no FSM of this name any more"
    if text(status) in _STANDING:
        return _STANDING[text(status)].format(name)
    if not urgent + mail:
        # Who waits for an event that lies nowhere was overtaken by its end.
        return "" if job_id else "no event waits for it"
    before = _before(urgent, *places) if places else 0
    tail = f", and {_count(before, 'event')} before it" if before else ""
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    if lock is not None:
        return (yield from _in_hand(keys, text(lock), now_ms)) + tail
    if is_suspended:
        return f"workers are suspended: `rq resume` lets them go on{tail}"
    return (yield from _unserved(keys, name, text(queue) or keys.default_queue, now_ms)) + tail


def _in_hand(keys: Keys, lock: str, now_ms: int) -> Plan[str]:
    """Say who holds it, and for how long."""
    # Of the lock's two parts the token is hexadecimal, so the last stroke divides them.
    worker = lock.rpartition("/")[0]
    since = yield Request(lambda reply: reply, commands=[("HGET", keys.replies(worker), "claimed_at")])
    how_long = f"has had it in hand for {(now_ms - int(since)) / 1000:.1f} s" if since else "has it in hand"
    return f"worker {worker} {how_long}"


def _unserved(keys: Keys, name: str, queue: str, now_ms: int) -> Plan[str]:
    """Say why nobody has it in hand."""
    listening = yield from _listening(keys, queue, now_ms)
    if not listening:
        return f"no worker listens on queue {queue!r}: start one with `fsm worker`"
    rank = yield Request(lambda reply: reply, commands=[("ZRANK", keys.ready(queue), name)])
    waits = f"{_count(rank, 'FSM')} before it on queue {queue!r}" if rank else f"it waits on queue {queue!r}"
    return f"{waits}, where {_count(listening, 'worker', 'listens', 'listen')}"


def _before(urgent: int, in_urgent: int | None, in_mailbox: int | None) -> int:
    """Count the events before this one: urgent mail goes first."""
    if in_urgent is not None:
        return in_urgent
    return urgent + in_mailbox if in_mailbox is not None else 0


def _listening(keys: Keys, queue: str, now_ms: int) -> Plan[int]:
    """Count the workers that listen on a queue and live: ours by their heartbeats, those of RQ by their records."""
    records = yield presence.on_queue(queue)
    if not records:
        return 0
    prefix = len(Keys.rq_worker(""))
    commands: list[tuple[Any, ...]] = []
    for record in records:
        commands += [("ZSCORE", keys.workers, record[prefix:]), ("HMGET", record, "birth", "death", "fsm")]
    replies = yield _many(commands)
    count = 0
    for beat, (birth, death, ours) in zip(replies[::2], replies[1::2], strict=True):
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
