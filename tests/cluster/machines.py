"""The machines of `tests.chaos`, some of them placed by the ring, and one that moves by its timers.

They note whatever reaches them twice or too late.
"""

from __future__ import annotations

import os
import time
from typing import Any

from fsm import Machine, Settings, Transition, on
from tests.chaos import machines as chaos
from tests.chaos.machines import Chooser, Shaky

__all__ = ["STEPS", "Chooser", "Fuse", "Ledger", "Post", "Shaky", "Stepper", "Tally"]


STEPS = 10


class Fuse(Machine):
    """Burns down by its timers alone, on the host that the ring names, and notes each step."""

    settings = Settings(placement="ring")
    diagram = "\n".join(
        [
            "stateDiagram-v2",
            "[*] --> s0",
            *(f"s{n} --> s{n + 1} : burn after 2s" for n in range(STEPS)),
            f"s{STEPS} --> [*]",
        ]
    )

    @on("burn")
    def burn(self, t: Transition[dict[str, Any]]) -> None:
        t.payload.setdefault("burnt", []).append(t.source)


class Tally(Machine):
    """Notes numbers in their order, and lingers on a host that is told to, longer than its lease."""

    settings = Settings(placement="ring", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> open : linger
    """

    @on("note")
    def note(self, t: Transition[dict[str, Any]]) -> None:
        t.payload.setdefault("noted", []).append(t.data)

    @on("linger")
    def linger(self, t: Transition[dict[str, Any]]) -> None:
        time.sleep(float(os.environ.get("CLUSTER_LINGER_S", "0")))
        self.note(t)


class Ledger(chaos.Ledger):
    """Plain numbering, on the hosts that the ring names; it gets letters from FSMs elsewhere, and delayed events."""

    settings = Settings(placement="ring")


class Post(chaos.Post):
    """Passes letters on, from the host that the ring names to that of another FSM."""

    settings = Settings(placement="ring")


class Stepper(chaos.Stepper):
    """Two hard events after each, on the host that the ring names."""

    settings = Settings(placement="ring")
