"""The application of `bench.slow`: the pendulum of `bench.machine`, with handlers that take their time.

They are those of a worker that asks a bank or a database (a wait), draws a picture (computing), or calls something that
is really slow.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.machine import Pendulum
from fsm import Settings, Transition, on

__all__ = ["WAIT_S", "Computes", "Lingers", "Waits", "WaitsAsync"]

WAIT_S = 0.050
COMPUTE_S = 0.005
LINGER_S = 1.0


class Waits(Pendulum):
    """Its handler blocks its thread."""

    @on("swing")
    def swing(self, t: Transition[dict[str, Any]]) -> None:
        """Wait as for a reply, and count."""
        time.sleep(WAIT_S)
        t.payload["count"] += 1


class WaitsAsync(Pendulum):
    """Its handler waits on the event loop."""

    @on("swing")
    async def swing(self, t: Transition[dict[str, Any]]) -> None:
        """Wait as for a reply, and count."""
        await asyncio.sleep(WAIT_S)
        t.payload["count"] += 1


class Computes(Pendulum):
    """Its handler needs the processor."""

    @on("swing")
    def swing(self, t: Transition[dict[str, Any]]) -> None:
        """Use so much time of the processor, however long that takes, and count."""
        end = time.thread_time() + COMPUTE_S
        while time.thread_time() < end:
            pass
        t.payload["count"] += 1


class Lingers(Pendulum):
    """Its handler takes a second."""

    # The records of all are read when the last has ended, and after a minute they would begin to go.
    settings = Settings(result_ttl="10m")

    @on("swing")
    def swing(self, t: Transition[dict[str, Any]]) -> None:
        """Wait for long, and count."""
        time.sleep(LINGER_S)
        t.payload["count"] += 1
