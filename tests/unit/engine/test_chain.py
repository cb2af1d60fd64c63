"""Hard events that follow an event by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import Goto, Machine, Settings, Stay, Transition, on
from fsm.engine import LONGEST_CHAIN, Behaviour, Decision, Event, follow_up, run_chain
from tests.unit.engine.probe import Probe, apply, drive, life_of, raising

if TYPE_CHECKING:
    from fsm.engine import Life


def chain(machine: Machine[Any], life: Life, event: str) -> list[Decision]:
    decisions: list[Decision] = drive(machine, run_chain(Behaviour(machine), life, Event("job", event)))
    return decisions


class Stairs(Machine):
    """Climbs by itself."""

    diagram = """
    stateDiagram-v2
        [*] --> ground
        ground --> first : climb
        first --> second : up!
        second --> top : up!
        top --> [*] : end!
    """


def test_hard_events_follow_one_after_the_other_with_ids_derived_from_their_cause() -> None:
    machine, life = Stairs(), life_of(Stairs(), "ground")

    decisions = chain(machine, life, "climb")

    assert [(one.event.job_id, one.event.name, one.state) for one in decisions] == [
        ("job", "climb", "first"),
        ("job--h1", "up", "second"),
        ("job--h1h1", "up", "top"),
        ("job--h1h1h1", "end", "top"),
    ]
    assert [one.version for one in decisions] == [8, 9, 10, 11]
    assert life.status == "finished"


def test_a_chain_ends_with_the_event_that_fails() -> None:
    machine = Probe(rise=raising(ValueError("stuck")))
    life = life_of(machine)

    decisions = chain(machine, life, "dive")

    assert [(one.kind, one.ending) for one in decisions] == [("done", ""), ("failed", "failed")]
    assert (life.state, life.status) == ("hard", "failed")


def test_a_fails_edge_goes_on_with_the_chain() -> None:
    machine = Probe(crack=raising(ValueError("glass")))

    decisions = chain(machine, life_of(machine), "slip")

    assert [(one.event.name, one.kind, one.state) for one in decisions] == [
        ("slip", "done", "frail"),
        ("crack", "failed", "c"),
    ]


def test_a_hard_event_that_stays_is_not_fired_again() -> None:
    machine = Probe(rise=lambda _: Stay())

    decisions = chain(machine, life_of(machine), "dive")

    assert [one.state for one in decisions] == ["hard", "hard"]


@pytest.mark.parametrize("event", ["go", "back", "quit"])
def test_nothing_follows_where_no_hard_state_was_entered(event: str) -> None:
    machine = Probe()
    life = life_of(machine)

    assert follow_up(Behaviour(machine), life, apply(machine, life, event)) is None


class Bomb(Machine):
    """Ends where its hard event fails."""

    diagram = """
    stateDiagram-v2
        [*] --> calm
        calm --> armed : arm
        armed --> calm : tick!
        armed --> [*] : tick fails
    """

    @on("tick")
    def tick(self, t: Transition[dict[str, Any]]) -> None:
        problem = "boom"
        raise ValueError(problem)


def test_nothing_follows_where_the_failure_of_a_hard_event_ends_the_fsm() -> None:
    machine, life = Bomb(), life_of(Bomb(), "calm")

    decisions = chain(machine, life, "arm")

    assert [(one.event.name, one.kind, one.ending) for one in decisions] == [
        ("arm", "done", ""),
        ("tick", "failed", "finished"),
    ]
    assert (life.state, life.status) == ("armed", "finished")


class Circle(Machine[dict[str, Any]]):
    """Its handlers lead in a circle, and with `escape` a failure leads out of it."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> out
        out --> left : enter
        left --> right : turn!
        left --> out : turn!
        right --> left : turn!
        right --> out : turn!
    """

    @on("turn")
    def turn(self, t: Transition[dict[str, Any]]) -> Goto:
        t.payload["turns"] = t.payload.get("turns", 0) + 1
        return Goto("right" if t.source == "left" else "left")


class Trap(Circle):
    """Failing leads on in the circle as well."""

    diagram = """
    stateDiagram-v2
        [*] --> out
        out --> left : enter
        left --> right : turn!
        left --> out : turn!
        left --> right : turn fails
        right --> left : turn!
        right --> out : turn!
        right --> left : turn fails
    """


class Way(Circle):
    """Failing leads out of the circle."""

    diagram = """
    stateDiagram-v2
        [*] --> out
        out --> left : enter
        left --> right : turn!
        left --> out : turn!
        left --> out : turn fails
        right --> left : turn!
        right --> out : turn!
        right --> out : turn fails
    """


@pytest.mark.parametrize(
    ("machine", "failed", "state", "status"),
    [(Circle(), 1, "left", "failed"), (Way(), 1, "out", "running"), (Trap(), 2, "right", "failed")],
    ids=["circle", "way out", "trap"],
)
def test_a_chain_has_at_most_a_hundred_hard_events(machine: Circle, failed: int, state: str, status: str) -> None:
    life = life_of(machine, "out", b"{}")

    decisions = chain(machine, life, "enter")

    assert [one.kind for one in decisions] == ["done"] * (1 + LONGEST_CHAIN) + ["failed"] * failed
    assert "more than 100 hard events in a row" in decisions[-1].result["message"]
    assert (life.state, life.status, life.raw) == (state, status, b'{"turns":100}')
    ids = [one.event.job_id for one in decisions]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 64


def test_ids_of_a_chain_are_the_same_after_a_crash() -> None:
    first, second = (
        [one.event.job_id for one in chain(Circle(), life_of(Circle(), "out", b"{}"), "enter")] for _ in range(2)
    )

    assert first == second
