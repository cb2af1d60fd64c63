"""One step of one FSM: (behaviour, life, event) -> decision.

Who calls this: the activation in a worker and the test kit. PURE: it runs user code and touches nothing else. It is one
`async def` for all machines: where no handler is a coroutine it never suspends, and the executor drives it without an
event loop.

The order of a transition: is the event allowed here -> guards -> handler -> decision, among this event's targets ->
leave hooks -> state -> enter hooks. Until the commit nothing has happened: a failure leaves state and payload as they
were.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fsm.engine import inside, retries
from fsm.engine.arming import Reschedule
from fsm.engine.around import in_time, within
from fsm.engine.faults import is_for_us, said, traceback_of
from fsm.engine.life import Decision
from fsm.engine.outcomes import Goto, HandlerTimeout, Reject, Retry, Stay
from fsm.engine.timers import TICK, next_tick
from fsm.engine.transition import Transition
from fsm.errors import (
    AbandonedError,
    FailedError,
    HandlerError,
    HandlerTimeoutError,
    InvalidDataError,
    NotAllowedError,
    PayloadError,
    RejectedError,
    StaleVersionError,
)
from fsm.machine.settings import check_size
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.engine.behaviour import Behaviour, Straight
    from fsm.engine.life import Event, Life
    from fsm.machine import Codec, Edge

__all__ = ["abandon", "give_up", "step"]

END = "[*]"
_NOT_ALLOWED = ("not_allowed", "guard")
_REFUSED = {
    "not_allowed": NotAllowedError,
    "guard": NotAllowedError,
    "rejected": RejectedError,
    "invalid_data": InvalidDataError,
    "stale_version": StaleVersionError,
}


class _WrongAnswerError(Exception):
    """A handler decided what the diagram does not allow."""


async def step(behaviour: Behaviour, life: Life, event: Event) -> Decision:  # noqa: C901, PLR0911 - one a way to end
    """Apply one event to one FSM.

    Args:
        behaviour: The machine, ready to run.
        life: The FSM; it is moved on where the event is done, and left as it was where not.
        event: The event; its job may have been tried before.

    Returns:
        What is to be committed.
    """
    source = life.state
    t: Transition[Any] = Transition(life, event, source, source, event.attempt)
    way = behaviour.straight.get((source, event.name))
    target: str | None
    try:
        if way is not None and event.if_version is None and life.status != "starting":
            # Nearly all events: nothing of the user's but a handler, so there is one place where it may have to wait.
            answer, target = _handled(way, event, t), way.target
            if answer is not None:
                answer = await _awaited(behaviour, way.method, answer, t)
                target = _target(answer, way.edges, event.name)
            ending, raw = "", life.encoded()
        else:
            # Not by way of `within` where there is no such context: a coroutine less.
            has_around = behaviour.around is not None
            done = await (
                within(behaviour, t, _work, behaviour, life, event, t)
                if has_around
                else _work(behaviour, life, event, t)
            )
            if isinstance(done, _RefusedHere):
                raise done  # noqa: TRY301 - it comes as a value, for the application's context is to see no failure
            target, ending, raw = done
    except Reject as rejection:
        if life.status != "starting":
            return await _refused(behaviour, life, t, "rejected", rejection.reason, rejection.details or {})
        problem = f"an entry event cannot be refused, and its handler said Reject({said(rejection)!r})"
        return await _failed(behaviour, life, event, HandlerError, _WrongAnswerError(problem))
    except Retry as answer:
        return await _asked_again(behaviour, life, event, answer)
    except _RefusedHere as refusal:
        return await _refused(behaviour, life, t, refusal.kind, refusal.reason, refusal.details)
    except HandlerTimeout:
        return await _failed(behaviour, life, event, HandlerTimeoutError, _timed_out(behaviour, event))
    except BaseException as error:  # user code may raise anything: its failure, not ours
        if is_for_us(error):
            raise
        return await _failed(behaviour, life, event, HandlerError, error)
    life.settle(raw)
    life.advance(source if target in (None, END) else target, ending, behaviour.settings.history)
    result = {"state": life.state, "version": life.version}
    if t.replied is not None:
        result["reply"] = t.replied
    entered = target not in (None, END)
    # By place: what is given by name costs as much again.
    state, version, out = life.state, life.version, t.outbox
    return Decision("done", event, source, state, version, result, out, "", ending, False, entered, t.changes)  # noqa: FBT003


async def abandon(behaviour: Behaviour, life: Life, event: Event, deaths: int) -> Decision:
    """Give up an event on which workers died too often: it fails without being run.

    Where they died as often again after that, it was of the failure's own hooks: then those are not run either, and
    no `fails` edge is taken, since to enter its state is to run hooks as well.
    """
    why = f"workers died {deaths} times on this event"
    is_bare = deaths > 2 * behaviour.definition.settings.max_attempts
    if is_bare:
        why += ", at last in the hooks of its failure, which are left out"
    return await _failed(behaviour, life, event, AbandonedError, _WrongAnswerError(why), is_bare=is_bare)


async def give_up(
    behaviour: Behaviour, life: Life, event: Event, why: str | Exception, *, final: bool = False
) -> Decision:
    """Fail an event without running it.

    Args:
        behaviour: The machine.
        life: The FSM.
        event: The event.
        why: The reason, and what to do; or what was raised where what came of it was to be stored, which is a failure
            as if its handler had raised it: it is run again where the machine's policy says so.
        final: Take no `fails` edge either: it is the failures that lead in a circle.
    """
    fault = _WrongAnswerError(why) if isinstance(why, str) else why
    return await _failed(behaviour, life, event, HandlerError, fault, final=final)


class _RefusedHere(Exception):  # noqa: N818 - a way out of the step, never seen outside this module
    def __init__(self, kind: str, reason: str, details: dict[str, Any]) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.details = details


async def _work(
    behaviour: Behaviour, life: Life, event: Event, t: Transition[Any]
) -> tuple[str | None, str, bytes] | _RefusedHere:
    """Run the user's code of one event: where it leads, whether the FSM ends there, and the payload as JSON."""
    target: str | None
    try:
        if life.status == "starting":
            target = await _begin(behaviour, t)
        else:
            target = await _decide(behaviour, life, event, t)
            if target is not None:
                await _move(behaviour, t, target)
    except _RefusedHere as refusal:
        return refusal
    is_end = target == END or target in behaviour.graph.ends
    return target, await _finish(behaviour, t) if is_end else "", life.encoded()


def _handled(way: Straight, event: Event, t: Transition[Any]) -> Any:
    """Call the handler of an edge that has nothing else of the user's; `None` where it has none."""
    if way.method is None:
        return None
    if way.data is None:
        t.target = way.target
        return _called(way.method, t)
    t.data = _data(way.data, event)
    t.target = way.target
    return _called(way.method, t, t.data)


def _data(codec: Codec, event: Event) -> Any:
    try:
        return codec.decode(event.raw)
    except PayloadError as error:
        raise _RefusedHere("invalid_data", str(error), {"path": error.path}) from error


async def _run(behaviour: Behaviour, func: Callable[..., Any], t: Transition[Any], *more: Any) -> Any:
    """Run user code, plain or async."""
    answer = _called(func, t, *more)
    return None if answer is None else await _awaited(behaviour, func, answer, t)


def _called(func: Callable[..., Any], t: Transition[Any], *more: Any) -> Any:
    """Call user code; what it calls can see that it is inside."""
    current = inside.current
    before = current.get()
    current.set(t)
    try:
        return func(t, *more)
    finally:
        # Not by a token: that is bound to its context, and a coroutine that is thrown away is closed in another one.
        current.set(before)


async def _awaited(behaviour: Behaviour, func: Callable[..., Any] | None, answer: Any, t: Transition[Any]) -> Any:
    """Wait for what user code gave, if it is to be waited for; what that calls can see that it is inside as well."""
    if not inspect.isawaitable(answer):
        return answer
    if not behaviour.is_async:
        if inspect.iscoroutine(answer):
            answer.close()
        name = getattr(func, "__name__", "")
        problem = f"{name!r} is a plain method and returned something to await: declare it `async def`"
        raise _WrongAnswerError(problem)
    before = inside.current.get()
    inside.current.set(t)
    try:
        return await in_time(answer, t.deadline(behaviour.definition.settings.timeout_for(t.event) / 1000))
    finally:
        inside.current.set(before)  # not by a token, as above


async def _begin(behaviour: Behaviour, t: Transition[Any]) -> str:
    """Apply the entry event: `on_start`, its handler if it has a name of its own, then the hooks of the first state."""
    start = behaviour.graph.start
    t.target = start
    if (interval := behaviour.settings.timer_ms) is not None:
        t.changes += (Reschedule(interval, is_own=False),)
    if on_start := behaviour.hooks.get("on_start"):
        await _run(behaviour, on_start, t)
    if handler := behaviour.handlers.get(("", t.event)):
        if (codec := handler[1]) is not None:
            t.data = codec.decode(b"null")  # an entry event carries no data
        answer = await _call(behaviour, handler, t)
        if isinstance(answer, Retry):
            raise answer
        if answer is not None and answer != Goto(start):
            problem = f"the handler of an entry event answers nothing, not {answer!r}"
            raise _WrongAnswerError(problem)
    for hook in behaviour.enter[start]:
        await _run(behaviour, hook, t)
    return start


async def _call(behaviour: Behaviour, handler: tuple[Callable[..., Any], Any], t: Transition[Any]) -> Any:
    method, codec = handler
    if codec is None:
        return await _run(behaviour, method, t)
    return await _run(behaviour, method, t, t.data)


async def _decide(behaviour: Behaviour, life: Life, event: Event, t: Transition[Any]) -> str | None:
    """Find the state to move to; `None` stays and runs no hooks."""
    # At its first run only: each attempt makes a new version, and nothing else was applied since.
    if event.if_version is not None and event.if_version != life.version and event.attempt == 1:
        reason = f"it was decided on version {event.if_version} of the FSM, which has version {life.version} now"
        raise _RefusedHere("stale_version", reason, {"version": life.version, "if_version": event.if_version})
    if event.name == TICK:
        await _tick(behaviour, life, event, t)
        return None
    edges = behaviour.graph.edges_for(life.state, event.name)
    if not edges:
        if life.state not in behaviour.enter:
            problem = (
                f"this worker's machine {behaviour.name!r} has no state {life.state!r}: "
                "give its diagram that state again, or start newer workers; then try the event again with `fsm retry`"
            )
            raise _WrongAnswerError(problem)
        raise _RefusedHere("not_allowed", "not allowed here", {})
    handler = behaviour.handlers.get((life.state, event.name))
    if handler and (codec := handler[1]) is not None:
        t.data = _data(codec, event)
    if len(edges) > 1 or edges[0].guard:
        edges = await _holding(behaviour, edges, t)
        if not edges:
            raise _RefusedHere("guard", "no guard holds", {})
    if len(edges) == 1:
        t.target = life.state if edges[0].target == END else edges[0].target
    return _target(await _call(behaviour, handler, t) if handler else None, edges, event.name)


async def _tick(behaviour: Behaviour, life: Life, event: Event, t: Transition[Any]) -> None:
    """Apply a tick: `on_timer` is run, in whatever state; it may change the payload, and moves nothing by itself."""
    if (on_timer := behaviour.hooks.get("on_timer")) is None:
        raise _RefusedHere("not_allowed", f"machine {behaviour.name!r} has no on_timer here", {})
    t.changes += next_tick(behaviour, life, event, is_done=True)
    answer = await _run(behaviour, on_timer, t)
    if isinstance(answer, Reject):
        raise answer
    if answer is not None and not isinstance(answer, Stay):
        problem = f"on_timer answers nothing, not {answer!r}: send an event with t.send(t.name, …), or t.reschedule(…)"
        raise _WrongAnswerError(problem)


def _target(answer: Any, edges: tuple[Edge, ...], event: str) -> str | None:
    """Read a handler's answer: the target to move to, among those of this event, or `None` to stay."""
    if answer is None and len(edges) == 1:
        return edges[0].target
    if isinstance(answer, Stay):
        return None
    if isinstance(answer, (Reject, Retry)):
        raise answer
    leads = ", ".join(repr(edge.target) for edge in edges)
    if isinstance(answer, Goto):
        if any(edge.target == answer.state for edge in edges):
            return answer.state
        problem = f"Goto({answer.state!r}): {event!r} does not lead there from {edges[0].source!r}, only to {leads}"
    elif answer is None:
        problem = f"{event!r} has several targets here ({leads}): its handler must answer with Goto(…)"
    else:
        problem = f"a handler answers None, Goto, Stay, Reject or Retry, not {answer!r}"
    raise _WrongAnswerError(problem)


async def _holding(behaviour: Behaviour, edges: tuple[Edge, ...], t: Transition[Any]) -> tuple[Edge, ...]:
    """Give the edges that may be taken: the first whose guard holds, else those without a guard.

    Edges are tried in the order of the diagram's text; `[else]` holds when no guard before it did.
    """
    free = []
    for edge in edges:
        if edge.guard is None:
            free.append(edge)
        elif edge.guard.name == "else":
            return (edge,) if not free else tuple(free)
        elif bool(await _run(behaviour, behaviour.guards[edge.guard.name], t)) != edge.guard.negated:
            return (edge,)
    return tuple(free)


async def _move(behaviour: Behaviour, t: Transition[Any], target: str) -> None:
    """Run the leave hooks of the source and the enter hooks of the target; the end is no state, and has none."""
    if target == END:
        t.target = t.source
        return
    t.target = target
    for hook in behaviour.leave[t.source]:
        await _run(behaviour, hook, t)
    for hook in behaviour.enter[target]:
        await _run(behaviour, hook, t)


async def _finish(behaviour: Behaviour, t: Transition[Any]) -> str:
    """Tell the FSM that it ends with this move."""
    if on_terminate := behaviour.hooks.get("on_terminate"):
        await _run(behaviour, on_terminate, t)
    return "finished"


def _timed_out(behaviour: Behaviour, event: Event) -> Exception:
    seconds = behaviour.definition.settings.timeout_for(event.name) / 1000
    return _WrongAnswerError(f"took longer than the time-out of {seconds:g} s: raise Settings(timeout=…)")


async def _refused(  # noqa: PLR0913 - the parts of one refusal
    behaviour: Behaviour, life: Life, t: Transition[Any], kind: str, reason: Any, details: Any
) -> Decision:
    """Refuse the event: nothing changes but the record, and what `on_refused` sends."""
    event = t._event  # noqa: SLF001 - the step made this transition
    life.forget()
    t.outbox, t.changes = [], next_tick(behaviour, life, event, is_done=False)
    allowed = behaviour.graph.allowed(life.state)
    try:
        if not isinstance(reason, str) or not isinstance(details, dict):
            problem = f"Reject({reason!r}, **{details!r}): a reason is text; give other values as details"
            raise _WrongAnswerError(problem)  # noqa: TRY301 - it ends as what hooks raise does
        check_size(JSON.encode([reason, details]), "a refusal has", behaviour.definition.settings.payload_limit)
        if on_refused := behaviour.hooks.get("on_refused"):
            more = {"allowed": allowed} if kind in _NOT_ALLOWED else details
            error = _REFUSED[kind](life.name, event.name, life.state, life.version, event.job_id, reason, more)
            await within(behaviour, t, _run, behaviour, on_refused, t, error)
            life.forget()
    except HandlerTimeout:
        return await _failed(behaviour, life, event, HandlerTimeoutError, _timed_out(behaviour, event))
    except BaseException as fault:  # as in `step`: whatever a hook raises is its failure
        if is_for_us(fault):
            raise
        return await _failed(behaviour, life, event, HandlerError, fault)
    soft = behaviour.graph.is_soft(life.state, event.name)
    # Nobody has sent a tick who could be told.
    soft = soft or event.name == TICK or behaviour.definition.settings.refused.get(event.name) == "ignore"
    # A hard event that is refused cannot be sent again by anybody: the FSM cannot go on by itself.
    # One that is stale was sent by somebody; it is not the FSM's own.
    is_own = behaviour.graph.hard_event(life.state) == event.name and kind != "stale_version"
    ending = "failed" if is_own and not soft else ""
    life.advance(life.state, ending, behaviour.definition.settings.history)
    result = {
        "refused": kind,
        "reason": reason,
        "state": life.state,
        "version": life.version,
        "allowed": list(allowed),
        **({"details": details} if details else {}),
        **({"soft": True} if soft else {}),
    }
    here, version = life.state, life.version
    return Decision("refused", event, here, here, version, result, t.outbox, reason, ending, soft, timers=t.changes)


async def _failed(  # noqa: PLR0913 - the parts of one failure
    behaviour: Behaviour,
    life: Life,
    event: Event,
    kind: type[FailedError],
    fault: BaseException,
    *,
    final: bool = False,
    is_bare: bool = False,
) -> Decision:
    """Record a failure: it is run again, or state and payload stay, or the `fails` edge is taken.

    `is_bare`: without code of the user.
    """
    life.forget()
    source = life.state
    ours = isinstance(fault, _WrongAnswerError)
    name = kind.__name__ if ours else type(fault).__name__
    text = "" if ours else traceback_of(fault)
    # What we raise in user code says its reason alone: event, FSM and state are told around it.
    message = fault.reason if type(fault) is HandlerError else said(fault)
    kinds = (kind, TimeoutError) if kind is HandlerTimeoutError else () if ours else (type(fault),)
    wait_ms = retries.after_failure(behaviour.definition.settings, event, *kinds)
    if wait_ms is not None:
        failure = {"failed": _FAILED[kind], "type": name, "message": message}
        return _again(life, event, wait_ms, failure, text or message)
    details = {"type": name, "message": message, "traceback": text}
    error = kind(life.name, event.name, source, life.version, event.job_id, message, details)
    # An event may fail, be requeued and fail again: what each failure sends has ids of its own.
    t: Transition[Any] = Transition(life, event, source, source, event.attempt, f"v{life.version}")
    t.data = {"type": name, "message": message}
    t.changes = next_tick(behaviour, life, event, is_done=False)
    target, ending = source, ""
    edge = None if final or is_bare or life.status == "starting" else behaviour.graph.fails_edge(source, event.name)
    try:
        if edge or ("on_failure" in behaviour.hooks and not is_bare):
            ending, raw = await within(behaviour, t, _mend, behaviour, life, t, error, edge)
            if edge:
                life.settle(raw)
                target = source if edge.target == END else edge.target
    except BaseException as second:  # as in `step`; the first is the reason
        if is_for_us(second):
            raise
        life.forget()
        t.outbox, edge, ending = [], None, ""
        t.changes = next_tick(behaviour, life, event, is_done=False)
        text += traceback_of(second)
        message += f"; and then its failure hook raised {type(second).__name__}: {said(second)}"
    soft = behaviour.graph.is_soft(source, event.name)
    if not edge and (life.status == "starting" or behaviour.graph.hard_event(source) == event.name):
        ending = "failed"
    life.advance(target, ending, behaviour.definition.settings.history)
    result = {
        "failed": _FAILED[kind],
        "type": name,
        "message": message,
        "state": life.state,
        "version": life.version,
        **({"soft": True} if soft else {}),
        **({"fails": target} if edge else {}),
    }
    return Decision(
        "failed",
        event,
        source,
        life.state,
        life.version,
        result,
        t.outbox,
        text or message,
        ending,
        soft,
        edge is not None,
        t.changes,
    )


async def _asked_again(behaviour: Behaviour, life: Life, event: Event, answer: Retry) -> Decision:
    """Run the event again, as its handler asks; or fail it where the machine's policy has no attempt left."""
    if event.name == TICK:
        problem = "on_timer cannot be run again by Retry(…): t.reschedule(…) says when it comes next"
        return await _failed(behaviour, life, event, HandlerError, _WrongAnswerError(problem))
    wait_ms = retries.after_answer(behaviour.definition.settings, event, answer)
    if wait_ms is None:
        problem = f"its handler answered Retry(…) at the last of {event.attempt} attempts that its RetryPolicy allows"
        return await _failed(behaviour, life, event, HandlerError, _WrongAnswerError(problem))
    life.forget()
    return _again(life, event, wait_ms, {"retry": "asked for by its handler"}, "")


def _again(life: Life, event: Event, wait_ms: int, why: dict[str, Any], text: str) -> Decision:
    """Leave the FSM as it was, with the event still before it."""
    life.version += 1
    result = {**why, "attempt": event.attempt, "state": life.state, "version": life.version}
    return Decision("retry", event, life.state, life.state, life.version, result, text=text, wait_ms=wait_ms)


async def _mend(
    behaviour: Behaviour, life: Life, t: Transition[Any], error: FailedError, edge: Edge | None
) -> tuple[str, bytes]:
    """Run the user's code of a failure, its hook and those of the `fails` edge; see `_work` for what comes of it."""
    if on_failure := behaviour.hooks.get("on_failure"):
        await _run(behaviour, on_failure, t, error)
        life.forget()
    if edge is None:
        return "", life.raw
    await _move(behaviour, t, edge.target)
    is_end = edge.target == END or edge.target in behaviour.graph.ends
    return await _finish(behaviour, t) if is_end else "", life.encoded()


_FAILED: dict[type[FailedError], str] = {
    HandlerError: "handler",
    HandlerTimeoutError: "timeout",
    AbandonedError: "abandoned",
}
