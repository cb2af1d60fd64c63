"""A machine whose payloads lie in a database, for workers in processes of their own, beside one without."""

from __future__ import annotations

import os

from fsm import Machine, Settings, Transition, on
from fsm.storage.sql import SqlStorage
from tests.integration.machines import Journal

__all__ = ["Diary", "Journal"]


class Diary(Machine[list[int]]):
    """Notes each number that it is given, in a database, and has a journal note it too."""

    storage = SqlStorage(os.environ.get("FSM_TEST_SQL", "sqlite:////nowhere/at/all.db"), timeout="100ms")
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> even
        even --> odd : note
        odd --> even : note
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        t.payload.append(number)
        t.send("echo", "note", number)
