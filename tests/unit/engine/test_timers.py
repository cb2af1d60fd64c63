"""What each decision makes of an FSM's timers, and when what fired is not to be applied any more."""

from __future__ import annotations

from typing import Any

import pytest

from fsm import Machine, RetryPolicy, Settings, Transition, guard, on
from fsm.engine import Behaviour, Decision, Event, Life, drive, step, timers
from fsm.engine.timers import TICK

T = Transition[dict[str, Any]]
NOW = 1_700_000_000_000
HOUR = 3_600_000
MINUTE = 60_000


class Booking(Machine):
    """A seat that is held for a while."""

    settings = Settings(
        timer="1m", payload_limit=400, retry=RetryPolicy(attempts=3, on=(OSError,)), refused={"nag": "ignore"}
    )
    diagram = """
    stateDiagram-v2
        [*] --> held
        held --> held : renew
        held --> held : nag after 10m
        held --> lost : expire [cold] after 1h
        held --> lost : expire [else] after 2h
        held --> paid : pay
        held --> lost : break
        held --> lost : break fails
        held --> held : try
        lost --> held : again
        paid --> paid : note
        paid --> [*] : go
        lost --> [*] : drop after 1d
    """

    def __init__(self) -> None:
        self.does: Any = lambda _: None
        self.ticks: Any = lambda _: None

    def on_timer(self, t: T) -> Any:
        t.payload["ticks"] = t.payload.get("ticks", 0) + 1
        return self.ticks(t)

    @on("renew")
    @on("try")
    @on("note")
    @on("pay")
    def do(self, t: T) -> Any:
        return self.does(t)

    @on("break")
    def fall(self, t: T) -> None:
        raise ValueError(t.event)

    def on_failure(self, t: T, error: Any) -> None:
        if t.event == "break":
            t.after("5s", "again", key="mend")

    @guard("cold")
    def cold(self, t: T) -> bool:
        return bool(t.payload.get("cold"))


class Bench:
    """One FSM whose timers are moved on as a worker moves them."""

    def __init__(self, machine: Machine[Any] | None = None) -> None:
        self.machine: Any = machine or Booking()
        self.behaviour = Behaviour(self.machine)
        definition = self.behaviour.definition
        self.life = Life("seat", definition.graph.start, b"{}", 0, "starting", definition, NOW)
        self.ids = 0

    def apply(self, event: Event, *, at_ms: int = NOW) -> Decision:
        decision: Decision = drive(step(self.behaviour, self.life, event))
        self.life.timers = timers.advance(self.life.timers, decision, self.behaviour, at_ms)
        return decision

    def send(self, event: str, does: Any = None, *, at_ms: int = NOW) -> Decision:
        self.ids += 1
        if does is not None:
            self.machine.does = does
        return self.apply(Event(f"job{self.ids}", event), at_ms=at_ms)

    def fire(self, key: str, *, attempt: int = 1) -> Event:
        """Give the event that a timer sends."""
        timer = self.life.timers[key]
        self.ids += 1
        name = timers.event_of(key, timer)
        job_id = f"nonce--t{self.ids}v{timer.arm}"
        return Event(job_id, name, timer.data, {"timer": key, "due_ms": timer.at_ms}, attempt)

    @property
    def armed(self) -> dict[str, tuple[int, int]]:
        return {key: (timer.arm, timer.at_ms - NOW) for key, timer in self.life.timers.items()}


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.send("[*]")
    return bench


def test_what_begins_has_the_timers_of_its_first_state_and_its_tick(bench: Bench) -> None:
    assert bench.armed == {
        "nag": (1, 10 * MINUTE),
        "expire": (1, HOUR),
        "expire/7200000": (1, 2 * HOUR),
        TICK: (1, MINUTE),
    }


def test_to_leave_a_state_takes_its_timers_away_and_arms_those_of_the_next(bench: Bench) -> None:
    bench.send("break")

    assert bench.armed == {"drop": (2, 24 * HOUR), "mend": (2, 5000), TICK: (1, MINUTE)}


def test_a_tick_is_applied_and_armed_again(bench: Bench) -> None:
    decision = bench.apply(bench.fire(TICK), at_ms=NOW + 5 * MINUTE)

    assert (decision.kind, decision.entered, bench.life.payload) == ("done", False, {"ticks": 1})
    assert bench.armed[TICK] == (2, 6 * MINUTE)
