"""The machines of `tests.chaos`, some of them placed by the ring: they note whatever reaches them twice or too late."""

from __future__ import annotations

from fsm import Settings
from tests.chaos import machines as chaos
from tests.chaos.machines import Chooser, Shaky

__all__ = ["Chooser", "Ledger", "Post", "Shaky", "Stepper"]


class Ledger(chaos.Ledger):
    """Plain numbering, on the hosts that the ring names; it gets letters from FSMs elsewhere, and delayed events."""

    settings = Settings(placement="ring")


class Post(chaos.Post):
    """Passes letters on, from the host that the ring names to that of another FSM."""

    settings = Settings(placement="ring")


class Stepper(chaos.Stepper):
    """Two hard events after each, on the host that the ring names."""

    settings = Settings(placement="ring")
