"""What applications ask of durability: where the data is, and what of it is on disk.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from fsm.carrier import PlanCarrier

__all__ = ["Durable"]


class Durable(PlanCarrier):
    """The verbs of a client that are about what survives."""
