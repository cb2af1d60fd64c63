"""Which edges of a machine the trials walked."""

from __future__ import annotations

from typing import Any

import pytest

from fsm import Goto, Machine, Settings, Stay, Transition, UnknownMachineError, guard, on
from fsm.testing import cover, trial

T = Transition[dict[str, Any]]


def maze() -> type[Machine[dict[str, Any]]]:
    """A class of its own, for what trials of it walk is kept by its process."""

    class Maze(Machine[dict[str, Any]]):
        settings = Settings(endless=True)
        diagram = """
        stateDiagram-v2
            [*] --> a : a
            a --> a : a
            a --> b : go [left]
            a --> b : go [not right]
            a --> b : go [else]
            a --> a : wait
            b --> a : choose
            b --> c : choose
            b --> c : risk
            b --> a : risk fails
            c --> a : back!
            b --> [*] : out
            b --> b : ask?
        """

        @guard("left")
        def left(self, t: T) -> bool:
            return t.data == "left"

        @guard("right")
        async def right(self, t: T) -> bool:
            return t.data != "not right"

        @on("wait")
        def wait(self, t: T) -> Stay:
            return Stay()

        @on("choose")
        def choose(self, t: T) -> Goto:
            return Goto("c" if t.data else "a")

        @on("risk")
        def risk(self, t: T) -> None:
            if t.data:
                problem = "too much"
                raise ValueError(problem)

    return Maze


def walk(machine: type[Machine[dict[str, Any]]], *steps: tuple[str, Any]) -> tuple[str, ...]:
    """What of a machine is walked by one trial."""
    with cover(machine) as walked, trial(machine) as one:
        for event, data in steps:
            try:
                one.send(event, data)
            except Exception as error:  # noqa: BLE001 - what ends how is not this test's business
                assert event in ("risk", "out", "wait", "nothing"), error  # noqa: PT017 - as above
    return walked.walked


@pytest.mark.parametrize(
    ("steps", "edges"),
    [
        ([], ()),
        ([("a", None)], ("a --> a : a",)),
        ([("go", "left")], ("a --> b : go [left]",)),
        ([("go", "not right")], ("a --> b : go [not right]",)),
        ([("go", None)], ("a --> b : go [else]",)),
        ([("wait", None)], ()),
        ([("nothing", None)], ()),
        ([("go", None), ("choose", 0)], ("a --> b : go [else]", "b --> a : choose")),
        ([("go", None), ("choose", 1)], ("a --> b : go [else]", "b --> c : choose", "c --> a : back!")),
        ([("go", None), ("risk", 0)], ("a --> b : go [else]", "b --> c : risk", "c --> a : back!")),
        ([("go", None), ("risk", 1)], ("a --> b : go [else]", "b --> a : risk fails")),
        ([("go", None), ("out", 1)], ("a --> b : go [else]", "b --> [*] : out")),
        ([("go", None), ("ask", 1)], ("a --> b : go [else]", "b --> b : ask?")),
    ],
)
def test_an_edge_is_told_as_the_diagram_tells_it(steps: list[tuple[str, Any]], edges: tuple[str, ...]) -> None:
    assert walk(maze(), *steps) == edges


def test_what_no_trial_walked_is_missing_and_counted_in_the_report() -> None:
    machine = maze()
    with cover(machine) as walked:
        for _ in range(2):
            trial(machine).send("go", "left")

    assert walked.missing[:2] == ("a --> a : a", "a --> b : go [not right]")
    assert len(walked.missing) == len(machine.graph.edges) - 1
    assert walked.counts["a --> b : go [left]"] == 2
    assert str(walked).splitlines()[:3] == [
        "Maze: 1 of 12 edges walked",
        "  a --> a : a               never",
        "  a --> b : go [left]       2 ×",
    ]
    assert repr(walked) == "<Maze: 1 of 12 edges walked>"


def test_a_block_tells_of_itself_and_a_plain_look_of_the_whole_process() -> None:
    machine = maze()
    trial(machine).send("a")
    with cover(machine) as walked:
        trial(machine).send("go", "left")
        assert walked.walked == ("a --> b : go [left]",)
    everything = cover(machine)
    trial(machine).send("a")
    trial(machine).send("go", None)

    assert walked.walked == ("a --> b : go [left]",)
    assert everything.counts["a --> a : a"] == 2
    assert "a --> b : go [else]" in everything.walked


def test_a_subclass_walks_the_edges_of_its_bases() -> None:
    machine = maze()

    class Other(machine):  # type: ignore[misc,valid-type]
        diagram = machine.diagram + "\n            b --> a : jump\n"

    one = trial(Other)
    one.send("go", "left")
    one.send("jump")

    assert cover(machine).walked == ("a --> b : go [left]",)
    assert cover(Other).walked == ("a --> b : go [left]", "b --> a : jump")


@pytest.mark.parametrize("thing", [7, "Maze", int])
def test_what_is_no_machine_is_refused(thing: Any) -> None:
    with pytest.raises(UnknownMachineError):
        cover(thing)
