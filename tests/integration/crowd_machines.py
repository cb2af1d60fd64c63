"""Machines that fill mailboxes, their own and those of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import Machine, Settings, on

if TYPE_CHECKING:
    from fsm import Transition

# So many hits of one FSM are answered; all later ones are only counted.
ANSWERED = 100


class Fighter(Machine[dict[str, int]]):
    """Answers each hit with three, until it is tired."""

    settings = Settings(endless=True, max_mailbox=20)
    diagram = """
    stateDiagram-v2
        [*] --> up
        up --> up : hit
    """

    @on("hit")
    def hit(self, t: Transition[dict[str, int]]) -> None:
        hits = t.payload["hits"] = t.payload.get("hits", 0) + 1
        if hits <= ANSWERED:
            t.payload["sent"] = t.payload.get("sent", 0) + 3
            for _ in range(3):
                t.send("right" if t.name == "left" else "left", "hit")


class Heap(Machine[dict[str, int]]):
    """Counts what it is told."""

    settings = Settings(endless=True, max_mailbox=1_000_000)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : count
    """
