"""Which failures are run again, when, and what is left of the FSM meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import ConfigError, Goto, HandlerTimeoutError, Machine, Reject, Retry, RetryPolicy, Settings, Transition, on
from fsm.engine import Behaviour, Event, HandlerTimeout, Life, abandon, drive, give_up, step
from fsm.engine.retries import pause_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.engine import Decision

P = Transition[dict[str, Any]]
POLICY = RetryPolicy(attempts=3, delay="2s", factor=3, jitter=0, on=(OSError,))


class Broker(Machine[dict[str, Any]]):
    """One event to be tried again, and one that is not; `act` says what the handlers do."""

    settings = Settings(retry={"buy": POLICY, "ship": POLICY, "begin": POLICY}, timeout="80ms")
    diagram = """
    stateDiagram-v2
        [*] --> idle : begin
        idle --> bought : buy
        idle --> lost : buy fails
        idle --> bought : sell
        idle --> wares : load
        wares --> bought : ship!
        wares --> lost : ship fails
        bought --> idle : back
        lost --> [*]
    """

    def __init__(self, act: Callable[[P], Any]) -> None:
        self.act = act
        self.failures: list[str] = []

    @on("begin")
    def begin(self, t: P) -> Any:
        return self.act(t)

    @on("buy")
    def buy(self, t: P) -> Any:
        return self.act(t)

    @on("sell")
    def sell(self, t: P) -> Any:
        return self.act(t)

    @on("ship")
    def ship(self, t: P) -> Any:
        return self.act(t)

    def on_failure(self, t: P, error: Exception) -> None:
        self.failures.append(t.event)


def spoil(t: P) -> None:
    """Do all that must not be kept."""
    t.payload["n"] = 99
    t.send("other", "event")


def away(t: P) -> None:
    spoil(t)
    problem = "the exchange is away"
    raise ConnectionError(problem)


def tried(
    act: Callable[[P], Any], event: str = "buy", attempt: int = 1, state: str = "idle", status: str = "running"
) -> tuple[Decision, Life, Broker]:
    machine = Broker(act)
    behaviour = Behaviour(machine)
    life = Life("b", state, b'{"n":7}', 4, status, behaviour.definition)
    return drive(step(behaviour, life, Event("job", event, attempt=attempt))), life, machine


def assert_untouched(decision: Decision, life: Life, status: str = "running") -> None:
    assert (life.state, life.raw, life.version, life.status) == (decision.source, b'{"n":7}', 5, status)
    assert life.payload == {"n": 7}
    assert (decision.outbox, decision.ending, decision.entered, decision.soft) == ([], "", False, False)


@pytest.mark.parametrize(("attempt", "wait_ms"), [(1, 2000), (2, 6000)])
def test_what_the_policy_names_is_run_again_and_nothing_of_the_attempt_is_kept(attempt: int, wait_ms: int) -> None:
    decision, life, machine = tried(away, attempt=attempt)

    assert (decision.kind, decision.wait_ms) == ("retry", wait_ms)
    assert decision.result == {
        "failed": "handler",
        "type": "ConnectionError",
        "message": "the exchange is away",
        "attempt": attempt,
        "state": "idle",
        "version": 5,
    }
    assert "raise ConnectionError(problem)\nConnectionError: the exchange is away\n" in decision.text
    assert_untouched(decision, life)
    assert machine.failures == []


def test_the_last_attempt_fails_for_good_with_hook_and_fails_edge() -> None:
    decision, life, machine = tried(away, attempt=3)

    assert (decision.kind, decision.wait_ms, life.state) == ("failed", 0, "lost")
    assert machine.failures == ["buy"]


def test_an_event_without_a_policy_and_an_exception_that_it_does_not_name_fail_at_once() -> None:
    def confused(t: P) -> None:
        raise LookupError

    assert tried(away, "sell")[0].kind == "failed"
    assert tried(confused)[0].kind == "failed"


def test_a_time_out_is_a_timeout_error_to_the_policy() -> None:
    def hang(t: P) -> None:
        raise HandlerTimeout

    decision, life, _ = tried(hang)

    assert (decision.kind, decision.result["failed"], decision.result["type"]) == (
        "retry",
        "timeout",
        "HandlerTimeoutError",
    )
    assert_untouched(decision, life)
    assert not issubclass(HandlerTimeoutError, OSError)
    assert issubclass(TimeoutError, OSError)


@pytest.mark.parametrize("answer", [Goto("elsewhere"), "bought"], ids=repr)
def test_an_answer_that_the_diagram_does_not_allow_is_not_repeated(answer: Any) -> None:
    class Stubborn(Broker):
        settings = Settings(retry=RetryPolicy())

    behaviour = Behaviour(Stubborn(lambda _: answer))
    life = Life("b", "idle", b"{}", 4, "running", behaviour.definition)

    assert drive(step(behaviour, life, Event("job", "buy"))).kind == "failed"


def test_what_is_abandoned_or_given_up_is_not_repeated() -> None:
    class Stubborn(Broker):
        settings = Settings(retry=RetryPolicy())

    behaviour = Behaviour(Stubborn(lambda _: None))
    for ending in (
        abandon(behaviour, _life(behaviour), Event("job", "buy"), 4),
        give_up(behaviour, _life(behaviour), Event("job", "buy"), "no"),
    ):
        assert drive(ending).kind == "failed"


def _life(behaviour: Behaviour) -> Life:
    return Life("b", "idle", b"{}", 4, "running", behaviour.definition)


def test_a_refusal_is_not_repeated() -> None:
    def refuse(t: P) -> Reject:
        return Reject("no")

    assert tried(refuse)[0].kind == "refused"


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(("after", "wait_ms"), [(None, 6000), ("30s", 30_000), (0.25, 250)])
def test_a_handler_may_ask_for_another_run(after: Any, wait_ms: int, raises: bool) -> None:
    def ask(t: P) -> Retry:
        spoil(t)
        if raises:
            raise Retry(after)
        return Retry(after)

    decision, life, machine = tried(ask, attempt=2)

    assert (decision.kind, decision.wait_ms, decision.text) == ("retry", wait_ms, "")
    assert decision.result == {"retry": "asked for by its handler", "attempt": 2, "state": "idle", "version": 5}
    assert_untouched(decision, life)
    assert machine.failures == []


def test_asked_for_at_the_last_attempt_it_fails_and_without_a_policy_there_is_no_last() -> None:
    decision, life, machine = tried(lambda _: Retry(after=1), attempt=3)
    assert (decision.kind, life.state, machine.failures) == ("failed", "lost", ["buy"])
    assert "at the last of 3 attempts" in decision.result["message"]

    decision, _, _ = tried(lambda _: Retry(), "sell", attempt=1000)
    assert decision.kind == "retry"
    assert 270_000 <= decision.wait_ms <= 330_000


def test_entry_and_hard_events_are_run_again_as_well() -> None:
    decision, life, _ = tried(away, "begin", status="starting")
    assert decision.kind == "retry"
    assert_untouched(decision, life, "starting")
    decision, life, _ = tried(lambda _: Retry(after=1), "begin", status="starting")
    assert decision.kind == "retry"
    decision, life, _ = tried(away, "ship", state="wares")
    assert decision.kind == "retry"
    assert_untouched(decision, life)


def test_its_own_attempts_do_not_make_an_event_stale() -> None:
    behaviour = Behaviour(Broker(lambda _: None))
    first = Life("b", "idle", b"{}", 4, "running", behaviour.definition)
    again = Life("b", "idle", b"{}", 5, "running", behaviour.definition)

    assert drive(step(behaviour, first, Event("job", "buy", if_version=3))).kind == "refused"
    assert drive(step(behaviour, again, Event("job", "buy", if_version=4, attempt=2))).kind == "done"


def test_chance_is_the_same_for_the_same_attempt_and_within_its_bounds() -> None:
    policy = RetryPolicy(delay="10s", factor=1, jitter=0.2)
    waits = {pause_ms(policy, Event(f"job-{n}", "buy")) for n in range(500)}

    assert waits == {pause_ms(policy, Event(f"job-{n}", "buy")) for n in range(500)}
    assert 8000 <= min(waits) < 8200
    assert 11_800 < max(waits) <= 12_000
    assert len(waits) > 300


def test_an_answer_is_made_of_a_duration() -> None:
    with pytest.raises(ConfigError, match=r"Retry\(after=…\)"):
        Retry(after="soon")
