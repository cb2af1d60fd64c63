"""Machines whose handlers run side by side in real workers; each notes when it ran, by the clock of this host."""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path
from typing import Any

from fsm import Machine, Settings, Transition, on
from tests.integration.stubborn import lock_twice

T = Transition[list[dict[str, Any]]]
_LONGEST_S = 60.0


class Walker(Machine[list[dict[str, Any]]]):
    """Plain handlers, for threads."""

    settings = Settings(endless=True, timeout={"spin": "300ms", "block": "200ms", "*": "2m"}, max_attempts=3)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : nap
        on --> on : hold
        on --> on : spin
        on --> on : block
    """

    @on("nap")
    def nap(self, t: T, data: dict[str, Any]) -> None:
        """Take so many seconds."""
        begin = time.time()
        time.sleep(data["seconds"])
        t.payload.append({"n": data.get("n", 0), "begin": begin, "end": time.time()})

    @on("hold")
    def hold(self, t: T, until: str) -> None:
        """Take as long as the test wants: until there is a file."""
        Path(until + t.name).touch()
        deadline = time.monotonic() + _LONGEST_S
        while not Path(until).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        t.payload.append({"held": t.name})

    @on("spin")
    def spin(self, t: T) -> None:
        """Never end, in Python."""
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            time.sleep(0.001)

    @on("block")
    def block(self, t: T) -> None:
        """Never end, in C."""
        lock_twice(ctypes.CDLL(None))


class Dreamer(Machine[list[dict[str, Any]]]):
    """The same on the event loop; its `spin` blocks that, and `dream` does not."""

    settings = Settings(endless=True, timeout={"spin": "100ms", "dream": "300ms", "*": "2m"}, max_attempts=3)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : nap
        on --> on : hold
        on --> on : spin
        on --> on : dream
    """

    @on("nap")
    async def nap(self, t: T, data: dict[str, Any]) -> None:
        """Take so many seconds."""
        begin = time.time()
        await asyncio.sleep(data["seconds"])
        t.payload.append({"n": data.get("n", 0), "begin": begin, "end": time.time()})

    @on("hold")
    async def hold(self, t: T, until: str) -> None:
        """Take as long as the test wants."""
        there = Path(until).exists
        Path(until + t.name).touch()  # noqa: ASYNC240 - a file is how it talks to its test
        deadline = time.monotonic() + _LONGEST_S
        while not there() and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        t.payload.append({"held": t.name})

    @on("spin")
    async def spin(self, t: T) -> None:
        """Never end, nor let others run."""
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            time.sleep(0.001)  # noqa: ASYNC251 - that is the fault

    @on("dream")
    async def dream(self, t: T) -> None:
        """Never end, and let others run."""
        await asyncio.sleep(_LONGEST_S)
