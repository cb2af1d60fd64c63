"""What applications ask of FSMs by what they are: queries, errors, what became of events, what is purged in bulk.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from fsm.carrier import PlanCarrier

__all__ = ["Inquiry"]


class Inquiry(PlanCarrier):
    """The verbs of a client that find FSMs by more than their names."""
