"""Timers of one FSM: what is armed, what each decision makes of it, and when what fired comes too late.

An FSM's timers stand in one field of its snapshot, and each has an alarm in `timers`, the sorted set of the namespace.
A timer comes from the diagram (`x after 24h`), from a handler (`t.after`, `t.at`), or it is the tick of `on_timer`.
They change with the commit of the event that changes them, in this order (`advance`):

    the timer whose event was applied has gone off; where that failed for good it is kept, due at 0: it may be retried
    where a state was entered, also the same one: those of the state that was left go, those of the new state are armed
    then what the handlers asked for, in their order: `Arm`, `Cancel`, `Reschedule`
    where the FSM has finished: none is left

When an alarm rings, the event joins the mailbox with an id that ends in `--t<i>v<arm>` and `{"timer": key}` in its
meta; the timer itself stays until that event was applied. `arm` is the version of the FSM whose commit armed it, so an
event of a timer that was taken away or armed anew since then is known (`stale`) and passed over. Callers cannot choose
such ids.

Who calls this: the step, for ticks; activation and trial, which keep `Life.timers`. PURE.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from fsm.engine.arming import MOST_TIMERS, Arm, Cancel, Reschedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.engine.arming import Change
    from fsm.engine.behaviour import Behaviour
    from fsm.engine.life import Decision, Event, Life
    from fsm.machine import Definition, Graph
    from fsm.machine.settings import Overdue

__all__ = [
    "LATE_MS",
    "OVERDUE",
    "TICK",
    "Timer",
    "adopted",
    "advance",
    "event_of",
    "fired",
    "lengths",
    "moved",
    "next_tick",
    "overdue",
    "pass_over",
    "read_timers",
    "stale",
    "write_timers",
]

# Event and key of the tick of `on_timer`. No diagram can have such an event, and no handler such a key.
TICK = "[timer]"
# So late is nothing that workers had a hand in: more than any hand-over takes while workers are there.
LATE_MS = 10_000

# What is told of a timer that was passed over, by what its machine wants of what is overdue.
OVERDUE = MappingProxyType({"skip": "overdue, skipped", "restart": "overdue, its timer was restarted"})

_FIRED = re.compile(r"--t[0-9]+v([0-9]+)\Z")
_SCOPES = {"s": "state", "f": "fsm"}


class Timer(msgspec.Struct, frozen=True):
    """A timer of an FSM.

    Args:
        arm: Version of the FSM whose commit armed it; 0 where it was adopted.
        at_ms: When it is due, by the clock of Redis; 0 where it went off and its event has failed.
        event: The event; "" where the key tells it, as of those of the diagram and of the tick.
        scope: "state": gone when the state is left; or "fsm".
        data: Data of the event, as JSON.
        overdue: What becomes of it where nobody was there when it was due; `None` leaves that to the settings.
        after_ms: Its whole length, where the diagram and the settings do not tell it.
    """

    arm: int
    at_ms: int
    event: str = ""
    scope: str = "state"
    data: bytes = b"null"
    overdue: str | None = None
    after_ms: int | None = None


def read_timers(raw: bytes | None) -> dict[str, Timer]:
    """Read the timers of a snapshot; what was edited by hand and cannot be read is left out, for the FSM must go on.

    >>> read_timers(b'{"expire":[3,1795266726277],"x":[1]}')
    {'expire': Timer(arm=3, at_ms=1795266726277, event='', scope='state', data=b'null', overdue=None, after_ms=None)}
    """
    if not raw:
        return {}
    try:
        found = orjson.loads(raw)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    read = ((key, _read(key, value)) for key, value in found.items())
    return {key: timer for key, timer in read if timer is not None}


def _read(key: str, value: Any) -> Timer | None:
    match value:
        case [int(arm), int(at_ms)]:
            return Timer(arm, at_ms, scope="fsm" if key == TICK else "state")
        case [int(arm), int(at_ms), str(event), "s" | "f" as scope, data, late, length]:
            is_whole = isinstance(data, str | None) and isinstance(late, str | None) and isinstance(length, int | None)
            if is_whole:
                return Timer(arm, at_ms, event, _SCOPES[scope], (data or "null").encode(), late, length)
    return None


def write_timers(timers: Mapping[str, Timer]) -> bytes:
    """Write the timers of a snapshot, as short as can be: beyond 64 bytes Redis needs 500 more for the hash.

    What a tool finds there: `{key: [arm, at_ms]}` for timers of the diagram and the tick, else
    `{key: [arm, at_ms, event, "s" or "f", data as JSON text or null, overdue or null, after_ms]}`.

    >>> write_timers({"expire": Timer(3, 1795266726277)})
    b'{"expire":[3,1795266726277]}'
    """
    return orjson.dumps({key: _written(timer) for key, timer in timers.items()})


def _written(timer: Timer) -> list[Any]:
    if not timer.event:
        return [timer.arm, timer.at_ms]
    data = None if timer.data == b"null" else timer.data.decode()
    return [timer.arm, timer.at_ms, timer.event, timer.scope[0], data, timer.overdue, timer.after_ms]


def lengths(graph: Graph, state: str) -> tuple[tuple[str, int], ...]:
    """Give the timers that the diagram arms on entering a state, as event and length in ms.

    An event has one of them at most, for the checks of diagrams refuse a second length; so the event is the key.
    """
    return tuple({edge.event: edge.after_ms or 0 for edge in graph.timers_of(state)}.items())


def event_of(key: str, timer: Timer) -> str:
    """Give the event that a timer sends."""
    return timer.event or key


def adopted(definition: Definition, state: str, at_ms: int) -> dict[str, Timer]:
    """Give the timers of an FSM that is adopted in a state.

    Args:
        definition: Of its machine.
        state: The state.
        at_ms: Now.
    """
    timers = {key: Timer(0, at_ms + after_ms) for key, after_ms in lengths(definition.graph, state)}
    if definition.settings.timer_ms is not None:
        timers[TICK] = Timer(0, at_ms + definition.settings.timer_ms, scope="fsm")
    return timers


def fired(event: Event) -> tuple[str, int] | None:
    """Give key and arm of the timer that sent an event; `None` where none did."""
    key = event.meta.get("timer") if event.meta else None
    if not isinstance(key, str):
        return None
    found = _FIRED.search(event.job_id)
    return (key, int(found[1])) if found else None


def stale(timers: Mapping[str, Timer], event: Event) -> str:
    """Say why an event is not to be applied, though its timer fired; "" where it is, and for any other event."""
    mark = fired(event)
    if mark is None:
        return ""
    timer = timers.get(mark[0])
    if timer is None:
        return "the state was left, or the timer was cancelled"
    return "" if timer.arm == mark[1] else "the timer was armed anew"


def overdue(behaviour: Behaviour, timers: Mapping[str, Timer], event: Event, now_ms: int) -> Overdue:
    """Say what is to become of an event that is not stale: "fire" it, "skip" it, or "restart" its timer.

    What counts is when it was fired, as its meta says, else now. Where it is skipped or restarted, `pass_over` gives
    the timers that are left, and the event is not applied.
    """
    mark = fired(event)
    timer = None if mark is None else timers.get(mark[0])
    # Where it was fired in time, somebody was there: it waited for its FSM, which was busy or paused.
    fired_ms = event.meta.get("fired_ms")
    fired_ms = fired_ms if type(fired_ms) is int else now_ms
    # What has failed and is retried by an operator is late on purpose.
    if timer is None or not timer.at_ms or fired_ms - timer.at_ms <= LATE_MS:
        return "fire"
    policy = timer.overdue
    return policy if policy in ("fire", "skip", "restart") else behaviour.settings.overdue  # type: ignore[return-value]


def pass_over(behaviour: Behaviour, life: Life, event: Event, policy: Overdue, now_ms: int) -> dict[str, Timer]:
    """Give the timers that an FSM has after an overdue event was passed over."""
    left = dict(life.timers)
    mark = fired(event)
    if mark is None or mark[0] not in left:
        return left
    key = mark[0]
    timer = left.pop(key)
    # A tick that is skipped must not be the last one.
    if policy == "restart" or key == TICK:
        length = timer.after_ms
        if length is None and not timer.event:
            own = behaviour.timers.get(life.state, ())
            length = behaviour.settings.timer_ms if key == TICK else dict(own).get(key)
        if length is not None:
            left[key] = msgspec.structs.replace(timer, arm=life.version, at_ms=now_ms + length)
    return left


def next_tick(behaviour: Behaviour, life: Life, event: Event, *, is_done: bool) -> tuple[Change, ...]:
    """Give what is to be asked for a tick that fired, before its handler says otherwise: the next one.

    So ticks never pile up: the next is armed when this one was applied. One by hand leaves all as it is.

    Args:
        behaviour: The machine.
        life: The FSM.
        event: Any event.
        is_done: It is applied; one that failed or was refused comes again after as long as it waited itself.
    """
    if event.name != TICK or fired(event) is None:
        return ()
    length = behaviour.settings.timer_ms
    own = life.timers[TICK].after_ms if TICK in life.timers else None
    if own is not None and not is_done:
        return (Reschedule(own),)
    return () if length is None else (Reschedule(length, is_own=False),)


def advance(timers: Mapping[str, Timer], decision: Decision, behaviour: Behaviour, at_ms: int) -> Mapping[str, Timer]:
    """Give the timers that an FSM has after a decision; those before it, the same object, where nothing changes.

    Args:
        timers: Those before it.
        decision: How an event ended.
        behaviour: The machine.
        at_ms: Now, by the clock of Redis: not before the end of the handler, for what it asks for begins then.
    """
    if decision.kind == "retry":
        return timers
    if decision.ending == "finished":
        return {} if timers else timers
    mark = fired(decision.event)
    own = behaviour.timers.get(decision.state, ()) if decision.entered else ()
    if not (own or decision.timers or (timers and (decision.entered or mark))):
        return timers
    left = dict(timers)
    if mark is not None:
        _go_off(left, *mark, decision)
    if decision.entered:
        left = {key: timer for key, timer in left.items() if timer.scope == "fsm"}
        for key, after_ms in own:
            left[key] = Timer(decision.version, at_ms + after_ms)
    for change in decision.timers:
        _change(left, change, decision.version, at_ms)
    return _bounded(left)


def _go_off(left: dict[str, Timer], key: str, arm: int, decision: Decision) -> None:
    """Take away the timer whose event was applied, or say that this has failed and may be retried."""
    timer = left.get(key)
    if timer is None or timer.arm != arm:
        return
    if decision.kind == "failed" and not decision.soft and key != TICK:
        left[key] = msgspec.structs.replace(timer, at_ms=0)
    else:
        del left[key]


def _change(left: dict[str, Timer], change: Change, version: int, at_ms: int) -> None:
    match change:
        case Arm(key, event, data, scope, late, None, due_ms):
            # One that is over is due now: by its own moment it would be overdue, or, at 0, look as if it had failed.
            left[key] = Timer(version, max(due_ms, at_ms), event, scope, data, late, max(0, due_ms - at_ms))
        case Arm(key, event, data, scope, late, int(after_ms)):
            left[key] = Timer(version, at_ms + after_ms, event, scope, data, late, after_ms)
        case Cancel(key):
            left.pop(key, None)
        case Reschedule(None):
            left.pop(TICK, None)
        case Reschedule(int(after_ms), is_own):
            event, length = (TICK, after_ms) if is_own else ("", None)
            left[TICK] = Timer(version, at_ms + after_ms, event, "fsm", after_ms=length)


def _bounded(left: dict[str, Timer]) -> dict[str, Timer]:
    """Give up the oldest of those that are kept only because they might be retried, where there are too many."""
    if len(left) > MOST_TIMERS:
        for key in sorted((key for key, timer in left.items() if not timer.at_ms), key=lambda key: left[key].arm):
            if len(left) <= MOST_TIMERS:
                break
            del left[key]
    return left


def moved(before: Mapping[str, Timer], after: Mapping[str, Timer]) -> tuple[list[tuple[int, str]], list[str]]:
    """Give what is to be written of alarms: those that are set, as when and key, and the keys of those that are gone.

    >>> moved({"a": Timer(1, 10), "b": Timer(1, 20)}, {"b": Timer(2, 30)})
    ([(30, 'b')], ['a'])
    """
    if before is after:
        return [], []
    armed = [(timer.at_ms, key) for key, timer in after.items() if timer.at_ms and timer != before.get(key)]
    return armed, [key for key in before if key not in after]
