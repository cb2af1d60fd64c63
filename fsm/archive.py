"""What applications ask of backups: saved, restored, one FSM taken out and put in.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from fsm.carrier import PlanCarrier

__all__ = ["Archive"]


class Archive(PlanCarrier):
    """The verbs of a client that are about backups."""
