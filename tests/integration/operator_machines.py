"""A machine for the tests of the operator's verbs, run in real worker processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from fsm import Machine, Retry, Settings, Transition, on

# Where this file is there, the wind blows.
WIND = "FSM_TEST_WIND"


class Mill(Machine[dict[str, Any]]):
    """Notes what it is told, grinds by itself where there is wind, and may kill whoever turns it."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> idle
        idle --> idle : note
        idle --> idle : jam
        idle --> idle : wait
        idle --> milling : mill
        milling --> idle : grind!
    """

    @on("note")
    def note(self, t: Transition[dict[str, Any]], number: int) -> None:
        t.payload.setdefault("notes", []).append(number)

    @on("wait")
    def wait(self, t: Transition[dict[str, Any]]) -> Retry | None:
        return None if Path(os.environ[WIND]).exists() else Retry(after="1h")

    @on("jam")
    def jam(self, t: Transition[dict[str, Any]]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @on("grind")
    def grind(self, t: Transition[dict[str, Any]]) -> None:
        if not Path(os.environ[WIND]).exists():
            problem = "no wind"
            raise RuntimeError(problem)
