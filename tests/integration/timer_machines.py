"""Machines with timers that the integration tests run in real worker processes."""

from __future__ import annotations

import time
from typing import Any

from fsm import Machine, Settings, Transition, enter, on

T = Transition[dict[str, Any]]


class Meter(Machine[dict[str, Any]]):
    """It expires once and ticks three times, and notes both."""

    settings = Settings(timer="150ms", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> waiting
        waiting --> expired : expire after 200ms
        waiting --> left : leave
    """

    def on_timer(self, t: T) -> None:
        t.payload["ticks"] = t.payload.get("ticks", 0) + 1
        if t.payload["ticks"] == 3:
            t.reschedule(None)

    @enter("expired")
    def expired(self, t: T) -> None:
        t.payload["expired"] = t.payload.get("expired", 0) + 1


class Slow(Machine[dict[str, Any]]):
    """Its `on_timer` takes three times as long as what is between two ticks."""

    settings = Settings(timer="50ms", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> busy
        busy --> busy : touch
    """

    def on_timer(self, t: T) -> None:
        time.sleep(0.15)
        t.payload["ticks"] = t.payload.get("ticks", 0) + 1
        if t.payload["ticks"] == 5:
            t.reschedule(None)


class Reminder(Machine[dict[str, Any]]):
    """Arms in code what its data say."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> quiet
        quiet --> quiet : ask
        quiet --> quiet : ring
    """

    @on("ask")
    def ask(self, t: T, data: dict[str, Any]) -> None:
        t.after(data["delay"], "ring", data, key=data.get("key"), scope="fsm")

    @on("ring")
    def ring(self, t: T, data: dict[str, Any]) -> None:
        t.payload.setdefault("rung", []).append(data["n"])
