"""What a deploy changes: who may run an FSM that another definition wrote last, and its snapshot made that of ours.

The mark of a snapshot says which definition wrote it last. One of a lower `definition_version` is brought up by the
machine's `migrate`, when its next event is applied, and written by the commit of that event. One of a higher version
is none of ours: a worker that was deployed later has touched it already.

Who calls this: the activation and the test kit migrate; whoever claims asks whether an FSM can be run here. PURE.
"""

from __future__ import annotations

import inspect
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.engine import inside
from fsm.engine.around import in_time
from fsm.engine.faults import said, traceback_of
from fsm.engine.life import Decision, Event
from fsm.engine.outcomes import HandlerTimeout
from fsm.engine.timers import TICK, Timer
from fsm.engine.transition import Transition
from fsm.errors import DefinitionError, PayloadError
from fsm.machine import JSON, DefinitionMark, read_mark
from fsm.machine.settings import check_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.engine.behaviour import Behaviour
    from fsm.engine.life import Life
    from fsm.machine import Definition

__all__ = ["MIGRATE", "Migration", "is_outdated", "migrate", "put_off", "strangeness"]

# The hook, and its name where that of an event is told.
MIGRATE = "migrate"
_ENDED = ("finished", "failed")
# What cannot be migrated is looked at again after so long, more or less: workers that can may have come.
_PAUSE_MS = 15_000


@dataclass(slots=True, kw_only=True)
class Migration:
    """A snapshot that an older definition wrote last, as `migrate` gets it: `state` and `payload` are its to change.

    Args:
        name: Of the FSM.
        state: Where it stands, by the older definition.
        payload: Plain JSON values, whatever its type was or is.
        status: "running", or "starting" before its entry event: then it will begin where the diagram does.
        version: Of the FSM.
        history: Its last states before this one, oldest first.
        definition: Fingerprint of the older definition.
    """

    name: str
    state: str
    payload: Any
    status: str = "running"
    version: int = 0
    history: tuple[str, ...] = ()
    definition: str = ""


def strangeness(definition: Definition | None, machine: str, state: str, status: str, mark: str) -> str:
    """Say in a clause, with both definitions, why an FSM cannot be run here; "" where it can.

    Args:
        definition: Of its machine as it is known here, if it is.
        machine: The name of that.
        state: Where it stands.
        status: Its status; of one that has finished nothing is run.
        mark: Of the definition that wrote it last.
    """
    theirs = read_mark(mark)
    why = _why_strange(definition, state, status, theirs) if definition is not None else "there is no such machine here"
    if not why:
        return ""
    about = f"it is in state {state!r} of machine {machine!r} as definition {_told(theirs.fingerprint, theirs.version)}"
    if definition is None:
        return f"{about} has it, and {why}"
    ours = _told(definition.fingerprint, definition.settings.definition_version)
    return f"{about} has it, and here is definition {ours}, which {why}"


def _why_strange(definition: Definition, state: str, status: str, theirs: DefinitionMark) -> str:
    ours = definition.settings.definition_version
    if status == "finished":
        return ""  # its mail is answered by that alone
    if theirs.version > ours:
        return "is older"
    if theirs.is_stored and definition.storage is None:
        return "has no storage to find its payload in"
    if state in definition.graph.states:
        return ""
    if theirs.version == ours:
        return "lacks that state and has the same version: raise Settings(definition_version), and write `migrate`"
    return (
        ""
        if MIGRATE in definition.hooks
        else "lacks that state and has no method migrate(self, snapshot, from_version)"
    )


def _told(fingerprint: str, version: int) -> str:
    return f"{fingerprint or '(none)'} (version {version})"


def is_outdated(behaviour: Behaviour, status: str, mark: str) -> bool:
    """Tell whether an FSM whose mark differs from ours is to be migrated before its next event."""
    if MIGRATE not in behaviour.hooks or status in _ENDED:
        return False
    return read_mark(mark).version < behaviour.settings.definition_version


async def migrate(behaviour: Behaviour, life: Life, mark: str, at_ms: int) -> None:
    """Make an FSM one of this definition: state, payload and timers; its version stays, for nothing was applied.

    Where this raises, all of it is as it was.

    Args:
        behaviour: The machine, with a `migrate`.
        life: The FSM as its snapshot has it.
        mark: Of the definition that wrote it last.
        at_ms: Now, by the clock of Redis, when timers begin that it did not have.

    Raises:
        DefinitionError: What came back is no snapshot, or in no state in which it can live.
        PayloadError: Its payload cannot be read as JSON before, or is not of the machine's type after.
        BaseException: Whatever the method raises.
    """
    theirs = read_mark(mark)
    before = Migration(
        name=life.name,
        state=life.state,
        payload=JSON.decode(life.raw),
        status=life.status,
        version=life.version,
        history=life.history,
        definition=theirs.fingerprint,
    )
    after = await _run(behaviour, life, before, theirs.version)
    if after is None:
        after = before
    if not isinstance(after, Migration):
        problem = f"`migrate` gives nothing, or the snapshot, not {type(after).__name__}: change its state and payload"
        raise DefinitionError(problem)
    raw = check_size(
        behaviour.definition.payload.encode(after.payload), "the payload has", behaviour.settings.payload_limit
    )
    state = behaviour.graph.start if life.status == "starting" else after.state
    _check_state(behaviour, state)
    former = behaviour.settings.history - 1
    if state != life.state and life.status == "running" and former > 0:
        life.history = (*life.history, life.state)[-former:]
    life.state = state
    life.forget()
    life.settle(raw)
    life.timers = _timers(behaviour, life, at_ms)


async def _run(behaviour: Behaviour, life: Life, before: Migration, from_version: int) -> Any:
    """Run the method, plain or async, within the time that a handler has; what it calls can see that it is inside."""
    t: Transition[Any] = Transition(life, Event("", MIGRATE), life.state, life.state, 1)
    outside = inside.current.get()
    inside.current.set(t)
    try:
        answer = behaviour.hooks[MIGRATE](before, from_version)
        if not inspect.isawaitable(answer):
            return answer
        if not behaviour.is_async:
            if inspect.iscoroutine(answer):
                answer.close()
            raise DefinitionError("`migrate` is a plain method and returned something to await: declare it `async def`")
        return await in_time(answer, t.deadline(behaviour.settings.timeout_for(MIGRATE) / 1000))
    finally:
        inside.current.set(outside)


def _check_state(behaviour: Behaviour, state: Any) -> None:
    graph = behaviour.graph
    living = [one for one in graph.states if one not in graph.ends]
    if state not in living:
        what = "FSMs end in" if state in graph.states else "it has not"
        problem = (
            f"`migrate` of machine {behaviour.name!r} gave state {state!r}, which {what}: set snapshot.state to one "
            f"of {', '.join(living)}"
        )
        raise DefinitionError(problem)


def _timers(behaviour: Behaviour, life: Life, at_ms: int) -> Mapping[str, Timer]:
    """Keep the timers that mean something to this definition, and arm those of the state that are not armed."""
    if life.status != "running":
        return life.timers
    own, events = dict(behaviour.timers.get(life.state, ())), behaviour.graph.events
    kept = {
        key: timer
        for key, timer in life.timers.items()
        if (
            ("on_timer" in behaviour.hooks) if key == TICK else key in own if not timer.event else timer.event in events
        )
    }
    for key, after_ms in own.items():
        if key not in kept:
            kept[key] = Timer(life.version, at_ms + after_ms)
    if behaviour.settings.timer_ms is not None and TICK not in kept:
        kept[TICK] = Timer(life.version, at_ms + behaviour.settings.timer_ms, scope="fsm")
    return kept if kept != life.timers else life.timers


def put_off(life: Life, mark: str, job_id: str, attempt: int, fault: BaseException) -> Decision:
    """Leave an FSM that could not be migrated as it was, with its mail before it, to a later try or a newer worker.

    Its version stays too: mail that was decided on it must find it when it is applied at last.

    Args:
        life: The FSM, as it was.
        mark: Of the definition that wrote it last.
        job_id: The event that waits.
        attempt: How often that was tried before; this does not count.
        fault: What the migration raised.
    """
    kind = type(fault).__name__
    theirs = read_mark(mark)
    why = "it took longer than Settings(timeout=…)" if isinstance(fault, HandlerTimeout) else said(fault)
    result: dict[str, Any] = {
        "failed": "migration",
        "type": kind,
        "message": f"`migrate` from version {theirs.version} (definition {theirs.fingerprint}): {why}",
        "state": life.state,
        "version": life.version,
    }
    # By its id and not by chance, and spread: of many FSMs that wait, not all come back at once.
    drawn = zlib.crc32(f"{life.name} {life.version}".encode()) / 0xFFFFFFFF
    wait_ms = round(_PAUSE_MS * (0.5 + drawn))
    event = Event(job_id, MIGRATE, attempt=attempt)
    text = (
        result["message"] if isinstance(fault, (DefinitionError, PayloadError, HandlerTimeout)) else traceback_of(fault)
    )
    return Decision("retry", event, life.state, life.state, life.version, result, text=text, wait_ms=wait_ms)
