"""Plans that say what is to come: the timers of one FSM and its delayed events, or those of all FSMs a page at a time.

Who calls this: the client, for `client.timers` and `fsm timers`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsm.engine import checked_name
from fsm.engine.timers import TICK, event_of, read_timers
from fsm.errors import PayloadError, UnknownFSMError
from fsm.store import alarms
from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.engine.timers import Timer
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["TimerView", "Timetable", "timers_of", "timetable"]

_MOST = 10_000
# The score, in ms, and the member behind which a page begins.
_CURSOR = re.compile(r"(-?[0-9]{1,16}) (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TimerView:
    """One thing to come.

    Args:
        name: The FSM.
        kind: "timer"; "tick", of `on_timer`; or "delay", an event that was sent to join the mailbox later.
        key: Key of the timer; of a delayed event the id of its job.
        event: The event that the FSM gets.
        at: When, aware, UTC, by the clock of Redis; `None` of a timer that went off and whose event has failed.
        scope: "state": gone when the state is left; "fsm": stays.
        status: "armed"; "fired": its event waits in the mailbox; "failed": its event has failed, and may be retried.
        late: Seconds since it was due; 0 before that.
    """

    name: str
    kind: str
    key: str
    event: str
    at: datetime | None
    scope: str
    status: str
    late: float

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm timers --json` prints it."""
        return asdict(self) | {"at": None if self.at is None else self.at.isoformat()}


class Timetable(list[TimerView]):
    """What is to come, soonest first.

    Args:
        timers: What is on this page.
        cursor: Where the next page begins; "" where there is none.
    """

    def __init__(self, timers: Iterable[TimerView], cursor: str = "") -> None:
        super().__init__(timers)
        self.cursor = cursor


def timers_of(keys: Keys, name: str) -> Plan[Timetable]:
    """Read the timers of an FSM, and the events that were sent to it with a delay.

    Raises:
        UnknownFSMError: There is none of this name.
    """
    fields, delayed, time = yield _many(
        ("HMGET", keys.snapshot(checked_name(name)), "born", "status", "timers"),
        ("ZRANGE", keys.later(name), 0, _MOST - 1, "WITHSCORES"),
        ("TIME",),
    )
    if fields[0] is None or fields[1] == b"purging":
        raise UnknownFSMError(name, keys.namespace)
    now_ms = _ms(time)
    timers = read_timers(fields[2])
    delays = [(text(job_id), at_ms) for job_id, at_ms in _pairs(delayed)]
    commands: list[tuple[Any, ...]] = [("ZSCORE", keys.timers, alarms.timer(key, name)) for key in timers]
    commands += (("HMGET", keys.job(job_id), "event", "alarm") for job_id, _ in delays)
    replies = yield _many(*commands) if commands else _many(("TIME",))
    found = [
        (_timer(name, key, timer, now_ms, is_armed=score is not None), alarms.timer(key, name))
        for (key, timer), score in zip(timers.items(), replies, strict=False)
    ]
    found += (
        (_view(name, "delay", job_id, text(event), at_ms, now_ms), text(alarm))
        for (job_id, at_ms), (event, alarm) in zip(delays, replies[len(timers) :], strict=False)
    )
    return Timetable([view for view, _ in sorted(found, key=_when)])


def timetable(keys: Keys, cursor: str, count: int) -> Plan[Timetable]:
    """Read a page of what is armed, over all FSMs, soonest first; what fires or moves meanwhile may be left out.

    Args:
        keys: Of the namespace.
        cursor: That of the page before; "" begins.
        count: At most so many.

    Raises:
        PayloadError: The cursor is none, or the count is.
    """
    if not (type(count) is int and 0 < count <= _MOST):
        problem = f"a page has 1 to {_MOST} timers, not {count!r}"
        raise PayloadError(problem, "count")
    first = yield from _rank_behind(keys, cursor)
    page, time = yield _many(("ZRANGE", keys.timers, first, first + count - 1, "WITHSCORES"), ("TIME",))
    now_ms = _ms(time)
    members = _pairs(page)
    found = [(alarm, at_ms) for raw, at_ms in members if (alarm := alarms.parse(text(raw))) is not None]
    found = [(alarm, at_ms) for alarm, at_ms in found if alarm.kind in ("timer", "mail")]
    commands = [
        ("HMGET", keys.snapshot(alarm.of), "timers", "born")
        if alarm.kind == "timer"
        else ("HMGET", keys.job(alarm.what), "event", "due")
        for alarm, _ in found
    ]
    replies = (yield _many(*commands)) if commands else []
    views = []
    for (alarm, at_ms), (one, _) in zip(found, replies, strict=True):
        if alarm.kind == "mail":
            views.append(_view(alarm.of, "delay", alarm.what, text(one), at_ms, now_ms))
        elif (timer := read_timers(one).get(alarm.what)) is not None:
            views.append(_timer(alarm.of, alarm.what, timer, now_ms, is_armed=True))
    last = f"{members[-1][1]} {text(members[-1][0])}" if len(members) == count else ""
    return Timetable(views, last)


def _rank_behind(keys: Keys, cursor: str) -> Plan[int]:
    """Give the rank at which a page begins; what it is to stand behind may be gone."""
    if not cursor:
        return 0
    if (parts := _CURSOR.fullmatch(cursor)) is None:
        problem = f"cursor is what an earlier page gave, or empty, not {cursor!r}"
        raise PayloadError(problem, "cursor")
    at_ms, member = int(parts[1]), parts[2]
    score, rank, low, equal = yield _many(
        ("ZSCORE", keys.timers, member),
        ("ZRANK", keys.timers, member),
        ("ZCOUNT", keys.timers, "-inf", f"({at_ms}"),
        ("ZCOUNT", keys.timers, at_ms, at_ms),
    )
    if rank is not None and score is not None and int(score) == at_ms:
        return int(rank) + 1
    # Of equal times members stand in the order of their bytes: some 20 looks for a million of one time.
    low, high = int(low), int(low) + int(equal)
    while low < high:
        middle = (low + high) // 2
        (found,) = yield _many(("ZRANGE", keys.timers, middle, middle))
        if found and found[0] <= member.encode():
            low = middle + 1
        else:
            high = middle
    return low


def _many(*commands: tuple[Any, ...]) -> Request[list[Any]]:
    """Send commands in one round trip; one reply each, also where there is one only."""
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)


def _pairs(reply: Any) -> list[tuple[bytes, int]]:
    """Read members with their scores, which redis-py gives as pairs, or one after the other."""
    if reply and isinstance(reply[0], list | tuple):
        return [(member, int(score)) for member, score in reply]
    return [(member, int(float(score))) for member, score in zip(reply[::2], reply[1::2], strict=True)]


def _timer(name: str, key: str, timer: Timer, now_ms: int, *, is_armed: bool) -> TimerView:
    status = "armed" if is_armed else "fired" if timer.at_ms else "failed"
    kind = "tick" if key == TICK else "timer"
    return _view(name, kind, key, event_of(key, timer), timer.at_ms, now_ms, timer.scope, status)


def _view(  # noqa: PLR0913 - the parts of one view
    name: str, kind: str, key: str, event: str, at_ms: int, now_ms: int, scope: str = "fsm", status: str = "armed"
) -> TimerView:
    late = max(0, now_ms - at_ms) / 1000 if at_ms else 0.0
    return TimerView(name, kind, key, event, _moment(at_ms), scope, status, late)


def _moment(at_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
    except (ValueError, OverflowError, OSError):  # edited by hand
        return None


def _ms(time: Any) -> int:
    seconds, micros = time
    return int(seconds) * 1000 + int(micros) // 1000


def _when(one: tuple[TimerView, str]) -> tuple[bool, float, str]:
    """Give what timers are sorted by: of one time they are done in the order of their members."""
    view, member = one
    return view.at is None, view.at.timestamp() if view.at else 0.0, member
