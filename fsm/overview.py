"""What applications ask of all FSMs at once: who is alive, what runs where, how many there are.

Nothing here costs more than what is shown: no call walks all FSMs, and a list of them comes a page at a time.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import registry, verbs
from fsm.carrier import PlanCarrier

if TYPE_CHECKING:
    from fsm.registry import Cluster
    from fsm.store.keys import Keys
    from fsm.verbs import Drained

__all__ = ["Overview"]


class Overview(PlanCarrier):
    """The verbs of a client that are about the whole namespace."""

    keys: Keys

    def cluster(self) -> Cluster:
        """Look at Redis, hosts, workers, queues and machines: what `fsm info` shows."""
        return self.do(registry.cluster(self.keys))

    def drain(self, host: str, *, timeout: float | None = None) -> Drained:
        """Ask the workers of a host to end, as SIGTERM does, and wait for that.

        What they do not finish goes on elsewhere. Workers that are started on this host later are not asked.

        Args:
            host: Name of the host.
            timeout: Seconds to wait at most; `None` for as long as it takes, 0 to ask only.

        Returns:
            Which workers have not ended by then, and how much each has in hand.

        Raises:
            UnknownHostError: No worker of it is alive.
        """
        return self.do(verbs.drain(self.keys, host, timeout))
