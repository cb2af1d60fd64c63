"""Two definitions of one machine, for workers that run beside each other during a deploy."""

from __future__ import annotations

from typing import Any

from fsm import Machine, Migration, Settings, Transition, on

T = Transition[dict[str, Any]]


class First(Machine[dict[str, Any]]):
    """What is deployed."""

    settings = Settings(name="Order", max_attempts=1)
    diagram = """
    stateDiagram-v2
        [*] --> review
        review --> review : note
        review --> approving : approve
        approving --> approving : note
        approving --> [*] : close
    """

    @on("note")
    def note(self, t: T, number: int) -> None:
        t.payload.setdefault("notes", []).append([1, number])


class Second(Machine[dict[str, Any]]):
    """What is to take its place: it lacks a state, and its payloads have another form."""

    settings = Settings(name="Order", definition_version=2, max_attempts=1)
    diagram = """
    stateDiagram-v2
        [*] --> approving
        approving --> approving : note
        approving --> [*] : close
    """

    def migrate(self, snapshot: Migration, from_version: int) -> None:
        if snapshot.payload.get("poison"):
            problem = f"no way from version {from_version}"
            raise ValueError(problem)
        snapshot.state = "approving"
        snapshot.payload = {"lines": snapshot.payload.get("notes", [])}

    @on("note")
    def note(self, t: T, number: int) -> None:
        t.payload["lines"].append([2, number])
