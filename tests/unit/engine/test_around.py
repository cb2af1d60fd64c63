"""The application's context around user code: what it sees, and what it may not do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import pytest

from fsm import Goto, Machine, Reject, Settings, Transition, guard, on
from fsm.engine import Behaviour, Decision, Event, HandlerTimeout, Life, abandon, step
from fsm.engine.around import is_async_context
from fsm.engine.inside import refuse_to_wait
from workers.executors import InlineExecutor

T = Transition[dict[str, Any]]


class Desk(Machine):
    """Notes what is called into `seen`; `acts` says by name what a method does."""

    settings = Settings(timeout="30s")
    diagram = """
    stateDiagram-v2
        [*] --> a : born
        a --> b : go
        a --> b : ask [yes]
        a --> b : risky
        a --> c : risky fails
        b --> a : back
        c --> [*]
    """

    def __init__(self, seen: list[Any], **acts: Callable[[T], Any]) -> None:
        self.seen = seen
        self.acts = acts

    def _act(self, name: str, t: T) -> Any:
        self.seen.append(name)
        return self.acts[name](t) if name in self.acts else None

    @on("go")
    def go(self, t: T) -> Any:
        return self._act("go", t)

    @on("risky")
    def risky(self, t: T) -> Any:
        return self._act("risky", t)

    @guard("yes")
    def yes(self, t: T) -> Any:
        return self._act("yes", t)

    def on_start(self, t: T) -> None:
        self._act("on_start", t)

    def on_leave(self, t: T) -> None:
        self._act("on_leave", t)

    def on_enter(self, t: T) -> None:
        self._act("on_enter", t)

    def on_terminate(self, t: T) -> None:
        self._act("on_terminate", t)

    def on_refused(self, t: T, _error: Exception) -> None:
        self._act("on_refused", t)

    def on_failure(self, t: T, _error: Exception) -> None:
        self._act("on_failure", t)


class Context:
    """Notes when it is entered and left, and with what; may swallow it or raise."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen
        self.swallows = False
        self.entering: BaseException | None = None
        self.leaving: BaseException | None = None
        self.pause = 0.0

    @contextmanager
    def plain(self, t: T) -> Iterator[None]:
        self.seen.append(("in", t.event))
        if self.entering:
            raise self.entering
        try:
            yield
        except BaseException as fault:
            self.seen.append(("out", type(fault).__name__))
            if self.leaving:
                raise self.leaving from None
            if not self.swallows:
                raise
        else:
            self.seen.append("out")
            if self.leaving:
                raise self.leaving

    @asynccontextmanager
    async def awaited(self, t: T) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        with self.plain(t):
            yield
            await asyncio.sleep(self.pause)
        await asyncio.sleep(0)


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def context(seen: list[Any]) -> Context:
    return Context(seen)


@pytest.fixture(params=["plain", "awaited"])
def around(request: pytest.FixtureRequest, context: Context) -> Any:
    """Both kinds of context."""
    return getattr(context, request.param)


class Hasty(Desk):
    """One whose time is soon over, on a busy machine too soon for all that is not to be timed out."""

    settings = Settings(timeout="80ms")


def life_of(state: str = "a", status: str = "running") -> Life:
    return Life("desk-1", state, b"{}", 7, status, Desk.definition)


def run(machine: Desk, around: Any, life: Life, event: str, *, timed: bool = False, work: Any = None) -> Decision:
    """One step, as a worker runs it."""
    behaviour = Behaviour(machine, around)
    executor = InlineExecutor(timed=timed)

    async def bounded() -> Decision:
        with executor.timed(machine.settings.timeout_ms / 1000, is_async=behaviour.is_async):
            if work is not None:
                decision: Decision = await work(behaviour)
                return decision
            return await step(behaviour, life, Event("job", event))

    try:
        return executor.run(bounded(), is_async=behaviour.is_async)
    finally:
        executor.close()


def raising(error: BaseException) -> Callable[[T], Any]:
    def act(_t: T) -> None:
        raise error

    return act


def test_it_is_entered_once_around_guards_handler_and_hooks(seen: list[Any], around: Any) -> None:
    life = life_of()
    assert run(Desk(seen), around, life, "go").kind == "done"
    assert seen == [("in", "go"), "go", "on_leave", "on_enter", "out"]

    seen.clear()
    assert run(Desk(seen, yes=lambda _: True), around, life_of(), "ask").state == "b"
    assert seen == [("in", "ask"), "yes", "on_leave", "on_enter", "out"]


def test_it_is_entered_around_an_entry_event_and_the_end(seen: list[Any], around: Any) -> None:
    run(Desk(seen), around, life_of("a", "starting"), "born")
    assert seen == [("in", "born"), "on_start", "on_enter", "out"]


def test_an_exception_passes_through_it_before_the_failure_is_recorded(seen: list[Any], around: Any) -> None:
    decision = run(Desk(seen, go=raising(ValueError("as told"))), around, life_of(), "go")

    assert seen == [("in", "go"), "go", ("out", "ValueError"), ("in", "go"), "on_failure", "out"]
    assert (decision.kind, decision.result["type"], decision.result["message"]) == ("failed", "ValueError", "as told")


def test_a_fails_edge_runs_inside_of_the_entry_of_its_failure_hook(seen: list[Any], around: Any) -> None:
    decision = run(Desk(seen, risky=raising(ValueError("as told"))), around, life_of(), "risky")

    assert seen[3:] == [("in", "risky"), "on_failure", "on_leave", "on_enter", "on_terminate", "out"]
    assert decision.state == "c"


@pytest.mark.parametrize("act", [raising(Reject("no")), lambda _: Reject("no")])
def test_a_reject_passes_through_it_as_an_exception_whether_raised_or_returned(
    seen: list[Any], around: Any, act: Any
) -> None:
    decision = run(Desk(seen, go=act), around, life_of(), "go")

    assert seen == [("in", "go"), "go", ("out", "Reject"), ("in", "go"), "on_refused", "out"]
    assert decision.kind == "refused"


def test_a_wrong_answer_passes_through_it_as_an_exception(seen: list[Any], around: Any) -> None:
    decision = run(Desk(seen, go=lambda _: Goto("c")), around, life_of(), "go")

    assert seen[2] == ("out", "_WrongAnswerError")
    assert "does not lead there" in decision.result["message"]


def test_a_payload_that_cannot_be_kept_fails_inside_of_it(seen: list[Any], around: Any) -> None:
    def spoil(t: T) -> None:
        t.payload["x"] = object()

    assert run(Desk(seen, go=spoil), around, life_of(), "go").kind == "failed"
    assert ("out", "PayloadError") in seen


@pytest.mark.parametrize("event", ["ask", "back"])
def test_an_event_that_is_refused_before_its_handler_leaves_it_as_if_done(
    seen: list[Any], around: Any, event: str
) -> None:
    decision = run(Desk(seen), around, life_of(), event)

    assert decision.kind == "refused"
    assert [call for call in seen if isinstance(call, tuple)] == [("in", event), ("in", event)]
    assert seen.count("out") == 2


def test_one_that_raises_before_user_code_fails_the_event(seen: list[Any], context: Context, around: Any) -> None:
    context.entering = OSError("no connection")

    decision = run(Desk(seen), around, life_of(), "go")

    assert (decision.kind, decision.result["type"]) == ("failed", "OSError")
    assert "no connection; and then its failure hook raised OSError" in decision.result["message"]
    assert seen == [("in", "go"), ("in", "go")]


def test_one_that_raises_after_user_code_undoes_what_the_handler_did(
    seen: list[Any], context: Context, around: Any
) -> None:
    def pay(t: T) -> None:
        t.payload["paid"] = True
        t.send("desk-2", "go")

    context.leaving = OSError("commit failed")
    life = life_of()

    decision = run(Desk(seen, go=pay), around, life, "go")

    assert (decision.kind, decision.result["type"], decision.outbox) == ("failed", "OSError", [])
    assert (life.state, life.payload) == ("a", {})


def test_one_that_rejects_refuses_the_event(seen: list[Any], context: Context, around: Any) -> None:
    class Bare(Desk):
        on_refused = None  # type: ignore[assignment] # takes the inherited hook away

    context.entering = Reject("closed for today")

    decision = run(Bare(seen), around, Life("d", "a", b"{}", 7, "running", Bare.definition), "go")

    assert (decision.kind, decision.result["reason"]) == ("refused", "closed for today")
    assert seen == [("in", "go")]


def test_one_that_rejects_the_hook_of_a_refusal_too_fails_the_event(
    seen: list[Any], context: Context, around: Any
) -> None:
    context.entering = Reject("closed for today")

    assert run(Desk(seen), around, life_of(), "go").kind == "failed"
    assert seen == [("in", "go"), ("in", "go"), ("in", "go")]


def test_one_that_swallows_fails_the_event_and_says_so(seen: list[Any], context: Context, around: Any) -> None:
    context.swallows = True

    decision = run(Desk(seen, go=raising(ValueError("as told"))), around, life_of(), "go")

    assert decision.kind == "failed"
    assert "around swallowed ValueError: as told; let it pass" in decision.result["message"]
    assert "in act" in decision.text  # the traceback leads to the handler


@pytest.mark.parametrize("fault", [KeyboardInterrupt])
@pytest.mark.parametrize("leaving", [None, OSError("roll-back failed")])
def test_an_interrupt_goes_on_whatever_it_makes_of_it(
    seen: list[Any], context: Context, around: Any, fault: type[BaseException], leaving: Any
) -> None:
    context.swallows = True
    context.leaving = leaving
    life = life_of()

    with pytest.raises(fault):
        run(Desk(seen, go=raising(fault())), around, life, "go")

    assert seen == [("in", "go"), "go", ("out", fault.__name__)]
    assert life.version == 7


# The alarm may ring while garbage of other tests is collected: what is raised there is dropped, and it rings again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_time_out_of_plain_code_passes_through_it(seen: list[Any], context: Context) -> None:
    decision = run(Hasty(seen, go=lambda _: time.sleep(60)), context.plain, life_of(), "go", timed=True)

    assert ("out", "HandlerTimeout") in seen
    assert decision.result["failed"] == "timeout"


class Dreamer(Hasty):
    @on("go")
    async def go(self, t: T) -> Any:
        await asyncio.sleep(60)


def test_a_time_out_of_async_code_passes_through_it_and_leaves_time_to_roll_back(
    seen: list[Any], context: Context
) -> None:
    @asynccontextmanager
    async def around(_t: T) -> AsyncIterator[None]:
        try:
            yield
        except HandlerTimeout:
            await asyncio.sleep(0.01)
            seen.append("rolled back")
            raise

    machine = Dreamer(seen)
    decision = run(machine, around, Life("d", "a", b"{}", 7, "running", Dreamer.definition), "go")

    assert seen == ["rolled back", "on_failure"]
    assert decision.result["failed"] == "timeout"


@pytest.mark.parametrize("where", ["entering", "leaving", "rolling back"])
def test_an_async_one_that_hangs_is_ended_by_the_time_out(seen: list[Any], where: str) -> None:
    entries: list[str] = []

    @asynccontextmanager
    async def around(_t: T) -> AsyncIterator[None]:
        entries.append("in")
        is_first = len(entries) == 1
        if where == "entering" and is_first:
            await asyncio.sleep(60)
        try:
            yield
        except ValueError:
            await asyncio.sleep(60)
        if where == "leaving" and is_first:
            await asyncio.sleep(60)

    acts = {"go": raising(ValueError("as told"))} if where == "rolling back" else {}
    decision = run(Hasty(seen, **acts), around, life_of(), "go")

    assert decision.result["failed"] == "timeout"


def test_what_it_sets_in_the_context_of_the_task_is_seen_by_handlers(seen: list[Any], around: Any) -> None:
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="nothing")

    @contextmanager
    def outer(t: T) -> Iterator[None]:
        token = current.set(t.name)
        with around(t) if not is_async_context(around) else nullcontext():
            yield
        current.reset(token)

    run(Desk(seen, go=lambda _: seen.append(current.get())), outer, life_of(), "go")

    assert "desk-1" in seen
    assert current.get() == "nothing"


@pytest.mark.parametrize("where", ["entering", "leaving"])
def test_it_may_not_wait_for_fsms_as_little_as_a_handler(seen: list[Any], where: str) -> None:
    def wait(here: str) -> None:
        if here == where:
            refuse_to_wait("call('go')")

    @contextmanager
    def plain(_t: T) -> Iterator[None]:
        wait("entering")
        yield
        wait("leaving")

    @asynccontextmanager
    async def awaited(_t: T) -> AsyncIterator[None]:
        wait("entering")
        await asyncio.sleep(0)
        yield
        wait("leaving")

    for around in (plain, awaited):
        decision = run(Desk(seen), around, life_of(), "go")
        assert "would wait inside of a handler" in decision.result["message"]
    refuse_to_wait("nothing is left of it, so that this")


def test_an_abandoned_event_enters_it_for_its_failure_only(seen: list[Any], around: Any) -> None:
    life = life_of()
    run(Desk(seen), around, life, "go", work=lambda behaviour: abandon(behaviour, life, Event("job", "go"), 4))

    assert seen == [("in", "go"), "on_failure", "out"]


@pytest.mark.parametrize("given", [None, 7])
def test_one_that_is_no_context_manager_fails_the_event_and_says_what_to_do(seen: list[Any], given: Any) -> None:
    decision = run(Desk(seen), lambda _t: given, life_of(), "go")

    assert f"around gave {given!r}, no context manager: decorate it" in decision.result["message"]
    assert "go" not in seen


def test_an_async_one_in_plain_clothes_is_told_from_a_plain_one(seen: list[Any], context: Context) -> None:
    decision = run(Desk(seen), lambda t: context.awaited(t), life_of(), "go")  # noqa: PLW0108 - hides what it is

    assert "no context manager: decorate it with @contextmanager or @asynccontextmanager" in decision.result["message"]


def test_an_async_one_makes_every_machine_async_and_a_plain_one_none(context: Context) -> None:
    assert Behaviour(Desk([]), context.awaited).is_async
    assert not Behaviour(Desk([]), context.plain).is_async
    assert not Behaviour(Desk([])).is_async
    assert Behaviour(Dreamer([]), context.plain).is_async


def test_async_contexts_are_known_by_what_they_are_made_of(context: Context) -> None:
    class Both:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    class Called:
        @asynccontextmanager
        async def __call__(self, _t: T) -> AsyncIterator[None]:
            yield

    class Plain(nullcontext[None]):
        pass

    for found in (context.awaited, functools.partial(context.awaited), Both, Called()):
        assert is_async_context(found)
    for found in (context.plain, functools.partial(context.plain), Plain, Called, nullcontext, lambda _t: None, 3):
        assert not is_async_context(found)
