"""Handlers that no time-out can interrupt.

A mutex of the C library that is locked twice by one thread blocks it for good; unlike most that waits, that wait goes
on after a signal.
"""

from __future__ import annotations

import ctypes
from typing import Any

from fsm import Machine, Settings, Transition, on

_MUTEX_BYTES = 64


def lock_twice(library: Any) -> None:
    """Block this thread in C: for good, with Python's own lock released (CDLL) or held (PyDLL)."""
    mutex = ctypes.create_string_buffer(_MUTEX_BYTES)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)


class Stubborn(Machine[list[str]]):
    """Notes what it is told, between handlers that do not come back."""

    settings = Settings(endless=True, timeout="200ms", max_attempts=1)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
        on --> on : block
        on --> on : grip
    """

    @on("note")
    def note(self, t: Transition[list[str]], word: str) -> None:
        t.payload.append(word)

    @on("block")
    def block(self, t: Transition[list[str]]) -> None:
        lock_twice(ctypes.CDLL(None))

    @on("grip")
    def grip(self, t: Transition[list[str]]) -> None:
        lock_twice(ctypes.PyDLL(None))


class StubbornLoop(Machine[list[str]]):
    """The same on an event loop."""

    settings = Settings(endless=True, timeout="200ms", max_attempts=1)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
        on --> on : block
    """

    @on("note")
    async def note(self, t: Transition[list[str]], word: str) -> None:
        t.payload.append(word)

    @on("block")
    async def block(self, t: Transition[list[str]]) -> None:
        lock_twice(ctypes.CDLL(None))


class Patient(Machine[list[str]]):
    """Blocks as well, and long before its time-out."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : block
    """

    @on("block")
    def block(self, t: Transition[list[str]]) -> None:
        lock_twice(ctypes.CDLL(None))
