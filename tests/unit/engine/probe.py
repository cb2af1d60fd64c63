"""A machine whose handlers, guards and hooks do what a test tells them, and which notes what is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm import Machine, Settings, Transition, enter, guard, leave, on
from fsm.engine import Behaviour, Decision, Event, Life, step
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

P = Transition[dict[str, Any]]
PAYLOAD = b'{"n":7}'


class Probe(Machine[dict[str, Any]]):
    """Every kind of edge once; `acts` says by name what a method does, `calls` what was called."""

    settings = Settings(refused={"beat": "ignore"}, payload_limit=300, timeout="80ms", history=3)
    diagram = """
    stateDiagram-v2
        [*] --> a : born
        a --> b : go
        a --> a : loop
        a --> b : maybe?
        a --> b : risky
        a --> c : risky fails
        a --> b : doomed
        a --> [*] : doomed fails
        a --> b : choose
        a --> c : choose
        a --> b : ask [yes]
        a --> c : ask [not no]
        a --> over : ask [else]
        a --> b : only [yes]
        a --> a : beat [yes]
        a --> over : last
        a --> [*] : quit
        a --> hard : dive
        a --> frail : slip
        hard --> c : rise!
        frail --> b : crack!
        frail --> c : crack fails
        b --> a : back
        c --> a : back
        over --> [*]
    """

    def __init__(self, **acts: Callable[..., Any]) -> None:
        self.acts = acts
        self.calls: list[tuple[Any, ...]] = []

    def _act(self, name: str, t: P, *more: Any) -> Any:
        self.calls.append((name, t.source, t.target, *more))
        return self.acts[name](t, *more) if name in self.acts else None

    @on("born")
    def born(self, t: P) -> Any:
        return self._act("born", t)

    @on("go")
    def go(self, t: P, number: int | None) -> Any:
        return self._act("go", t, number)

    @on("loop")
    def loop(self, t: P) -> Any:
        return self._act("loop", t)

    @on("maybe")
    def maybe(self, t: P) -> Any:
        return self._act("maybe", t)

    @on("risky")
    def risky(self, t: P) -> Any:
        return self._act("risky", t)

    @on("doomed")
    def doomed(self, t: P) -> Any:
        return self._act("doomed", t)

    @on("choose")
    def choose(self, t: P) -> Any:
        return self._act("choose", t)

    @on("ask")
    def ask(self, t: P) -> Any:
        return self._act("ask", t)

    @on("rise")
    def rise(self, t: P) -> Any:
        return self._act("rise", t)

    @on("crack")
    def crack(self, t: P) -> Any:
        return self._act("crack", t)

    @on("quit")
    def quit(self, t: P) -> Any:
        return self._act("quit", t)

    @guard("yes")
    def yes(self, t: P) -> Any:
        return self._act("yes", t)

    @guard("no")
    def no(self, t: P) -> Any:
        return self._act("no", t)

    @enter("b")
    def at_b(self, t: P) -> None:
        self._act("enter b", t)

    @leave("a")
    def from_a(self, t: P) -> None:
        self._act("leave a", t)

    def on_start(self, t: P) -> None:
        self._act("on_start", t)

    def on_enter(self, t: P) -> None:
        self._act("on_enter", t)

    def on_leave(self, t: P) -> None:
        self._act("on_leave", t)

    def on_refused(self, t: P, error: Any) -> None:
        self._act("on_refused", t, error)

    def on_failure(self, t: P, error: Any) -> None:
        self._act("on_failure", t, error)

    def on_terminate(self, t: P) -> None:
        self._act("on_terminate", t)

    def names(self) -> list[str]:
        """Names of what was called, in order."""
        return [call[0] for call in self.calls]


def life_of(
    machine: Machine[Any],
    state: str = "a",
    raw: bytes = PAYLOAD,
    *,
    status: str = "running",
    history: tuple[str, ...] = (),
) -> Life:
    """An FSM of version 7 in a state."""
    return Life("fsm-1", state, raw, 7, status, type(machine).definition, 1_700_000_000_123, history)


def apply(machine: Machine[Any], life: Life, event: str, raw: bytes = b"null", job_id: str = "job") -> Decision:
    """One step, as a worker runs it, but untimed."""
    return drive(machine, step(Behaviour(machine), life, Event(job_id, event, raw)))


def drive(machine: Machine[Any], work: Any, *, timed: bool = False) -> Any:
    """Drive a coroutine of the engine to its end."""
    executor = InlineExecutor(timed=timed)
    is_async = type(machine).definition.has_async
    try:
        if not timed:
            return executor.run(work, is_async=is_async)

        async def bounded() -> Any:
            with executor.timed(type(machine).definition.settings.timeout_ms / 1000, is_async=is_async):
                return await work

        return executor.run(bounded(), is_async=is_async)
    finally:
        executor.close()


def raising(error: BaseException) -> Callable[..., Any]:
    """An act that raises."""

    def act(*_: Any) -> None:
        raise error

    return act
