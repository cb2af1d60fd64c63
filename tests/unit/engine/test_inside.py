"""Nobody waits inside of a handler: it would hold its worker, and its FSM, meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fsm import HandlerError, Machine, Settings, Transition, on
from fsm.engine import Behaviour, Event, Life, inside, step
from tests.unit.engine.probe import Probe, apply, life_of

if TYPE_CHECKING:
    from collections.abc import Callable

WHERE: dict[str, tuple[str, str]] = {
    "a handler": ("loop", "loop"),
    "a guard": ("yes", "only"),
    "an enter hook": ("on_enter", "go"),
    "a leave hook": ("on_leave", "go"),
}


def ask(t: Transition[Any], *_: Any) -> None:
    inside.refuse_to_wait("call('pay') of FSM 'b'")


@pytest.mark.parametrize(("act", "event"), WHERE.values(), ids=WHERE)
def test_user_code_that_would_wait_fails_with_what_to_use_instead(act: str, event: str) -> None:
    decision = apply(Probe(**{act: ask}), life_of(Probe()), event)

    assert (decision.kind, decision.result["type"]) == ("failed", "HandlerError")
    for remedy in ("call('pay') of FSM 'b' would wait inside of a handler", "t.send(", "on_success=", "hard event"):
        assert remedy in decision.result["message"]
    # Which event of which FSM it was, who waits for it is told by the error around this.
    assert decision.result["message"].startswith("call(")


@pytest.mark.parametrize("hook", ["on_refused", "on_failure"])
def test_hooks_of_refusals_and_failures_may_not_wait_either(hook: str) -> None:
    def fail(t: Any) -> None:
        raise ValueError

    decision = apply(Probe(loop=fail, **{hook: ask}), life_of(Probe()), "loop" if hook == "on_failure" else "nonsense")

    assert decision.kind == "failed"
    assert "would wait inside of a handler" in decision.result["message"]


def test_before_and_after_a_step_one_may_wait_also_when_it_failed() -> None:
    seen = []

    def look(t: Any) -> None:
        seen.append(inside.current.get())
        raise ValueError

    inside.refuse_to_wait("before")
    apply(Probe(loop=look), life_of(Probe()), "loop")

    inside.refuse_to_wait("after")
    assert [t.event for t in seen] == ["loop"]


class Dreamer(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : dream
    """

    def __init__(self, act: Callable[..., None]) -> None:
        self.act = act

    @on("dream")
    async def dream(self, t: Transition[dict[str, Any]]) -> None:
        await asyncio.sleep(0)
        self.act(t)
        await asyncio.sleep(0)
        self.act(t)


def dreaming(act: Callable[..., None], name: str) -> Any:
    life = Life(name, "on", b"{}", 1, "running", Dreamer.definition.payload)
    return step(Behaviour(Dreamer(act)), life, Event(f"job-{name}", "dream"))


def test_a_coroutine_may_not_wait_either() -> None:
    decision = asyncio.run(dreaming(ask, "a"))

    assert "would wait inside of a handler" in decision.result["message"]


def test_coroutines_that_run_in_turn_are_each_in_their_own_transition() -> None:
    seen: list[tuple[str, str]] = []

    def look(t: Any) -> None:
        current = inside.current.get()
        assert current is not None
        seen.append((t.name, current.name))

    async def both() -> None:
        inside.refuse_to_wait("before")
        await asyncio.gather(dreaming(look, "a"), dreaming(look, "b"))
        inside.refuse_to_wait("after")

    asyncio.run(both())

    assert seen == [("a", "a"), ("b", "b"), ("a", "a"), ("b", "b")]


def test_the_error_names_the_transition_that_asked() -> None:
    caught: list[HandlerError] = []

    def look(t: Any) -> None:
        with pytest.raises(HandlerError) as raised:
            inside.refuse_to_wait("it")
        caught.append(raised.value)

    apply(Probe(loop=look), life_of(Probe()), "loop", job_id="j1")

    (error,) = caught
    assert (error.name, error.event, error.state, error.version, error.job_id) == ("fsm-1", "loop", "a", 7, "j1")
    assert error.message == error.reason
