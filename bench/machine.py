"""The application whose transitions are measured: `python -m workers --app bench.machine` runs it.

Two states and one event that leads to and fro, so that each transition changes the state and its index, as real ones
do, and one counter in a payload of 100 bytes, so that what was applied can be counted afterwards.
"""

from __future__ import annotations

from typing import Any

from fsm import Machine, Settings, Transition, on

__all__ = ["EVENT", "FIRST_COUNT", "PAYLOAD_BYTES", "Hot", "Pendulum", "Wound", "new_payload"]

EVENT = "swing"
PAYLOAD_BYTES = 100
# The counter keeps its width from the first transition to the last, so the payload keeps its 100 bytes.
FIRST_COUNT = 1_000_000
_FRAME_BYTES = len('{"count":1000000,"note":""}')


class Pendulum(Machine[dict[str, Any]]):
    """It swings for ever."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> left
        left --> right : swing
        right --> left : swing
    """

    @on("swing")
    def swing(self, t: Transition[dict[str, Any]]) -> None:
        """Count: the trivial handler of the benchmark."""
        t.payload["count"] += 1


class Hot(Pendulum):
    """A pendulum that may have a long way before it: `bench.scale` sends 100,000 events to one FSM."""

    # The records of all are read when the last has ended: on a loaded machine that may take more than a minute.
    settings = Settings(max_mailbox=1_000_000, result_ttl="10m")


class Wound(Pendulum):
    """A pendulum that has a timer while it is on the right: each second swing arms it, and the next takes it away."""

    # Else its memory grows by the states that it remembers.
    settings = Settings(endless=True, history=0)
    diagram = """
    stateDiagram-v2
        [*] --> left
        left --> right : swing
        right --> left : swing
        right --> right : expire after 30d
    """


def new_payload(more: int = 0) -> dict[str, Any]:
    """Give the payload of a new FSM, as JSON `PAYLOAD_BYTES` long and so many more."""
    return {"count": FIRST_COUNT, "note": "x" * (PAYLOAD_BYTES - _FRAME_BYTES + more)}
