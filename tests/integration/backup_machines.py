"""Machines that are saved while they move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import Machine, Settings, on

if TYPE_CHECKING:
    from fsm import Transition


class Ledger(Machine[dict[str, int]]):
    """Goes round, and notes the number of each turn: they come in their order, one by one."""

    settings = Settings(endless=True, max_mailbox=100_000)
    diagram = """
    stateDiagram-v2
        [*] --> east
        east --> west : turn
        west --> east : turn
    """

    @on("turn")
    def turn(self, t: Transition[dict[str, int]]) -> None:
        if t.data != t.payload.get("turns", 0) + 1:
            raise ValueError(f"turn {t.data} after {t.payload}")
        t.payload["turns"] = t.data


class Clock(Machine[dict[str, int]]):
    """Goes off some time after it was set."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> still
        still --> ringing : rang after 3s
        ringing --> still : stop
    """
