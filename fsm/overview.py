"""What applications ask of all FSMs at once: who is alive, what runs where, how many there are.

Nothing here costs more than what is shown: no call walks all FSMs, and a list of them comes a page at a time.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import registry
from fsm.carrier import PlanCarrier

if TYPE_CHECKING:
    from fsm.registry import Cluster
    from fsm.store.keys import Keys

__all__ = ["Overview"]


class Overview(PlanCarrier):
    """The verbs of a client that are about the whole namespace."""

    keys: Keys

    def cluster(self) -> Cluster:
        """Look at Redis, hosts, workers, queues and machines: what `fsm info` shows."""
        return self.do(registry.cluster(self.keys))
