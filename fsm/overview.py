"""What applications ask of all FSMs at once: who is alive, what runs where, how many there are.

Nothing here costs more than what is shown: a list of FSMs comes a page at a time, and only
`synch` walks all of them.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm import verbs
from fsm.carrier import PlanCarrier
from fsm.engine import checked_name
from fsm.errors import UnknownMachineError
from fsm.machine import Definition
from fsm.ring import answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.machine import Machine
    from fsm.registry import Cluster
    from fsm.ring import ClusterInfo
    from fsm.store.keys import Keys
    from fsm.store.synching import Repair
    from fsm.verbs import DeployCheck, Drained, Page

__all__ = ["Overview", "name_of"]


class Overview(PlanCarrier):
    """The verbs of a client that are about the whole namespace."""

    keys: Keys
    _ring: ClusterInfo

    def cluster(self) -> Cluster:
        """Look at Redis, hosts, workers, queues and machines: what `fsm info` shows."""
        from fsm import registry  # noqa: PLC0415 - most clients never ask

        return self.do(registry.cluster(self.keys))

    def count(
        self, machine: type[Machine[Any]] | str | None = None, state: str | None = None, *, finished: bool = False
    ) -> int:
        """Count FSMs that have not finished: of a machine, in a state, or all. What nobody knows has none.

        It is exact, also while they move, and takes no longer with a million of them.

        Args:
            machine: Their machine: the class or its name.
            state: The state in which they are.
            finished: Those that have finished too.
        """
        return self.do(verbs.count(self.keys, name_of(machine), state, finished=finished))

    def random(self, machine: type[Machine[Any]] | str | None = None) -> str | None:
        """Draw an FSM that has not finished, each as likely as any other; `None` at once where there is none."""
        return self.do(verbs.any_name(self.keys, name_of(machine)))

    def all(
        self,
        machine: type[Machine[Any]] | str | None = None,
        *,
        host: str | None = None,
        cursor: str = "",
        count: int = 100,
    ) -> Page:
        """Read one page of the FSMs that have not finished: where each of them is, and who has it in hand.

        Whoever stays in its state while the pages are read is met; who changes it meanwhile may be left out, or come on
        two pages.

        Args:
            machine: Only FSMs of this machine: the class or its name.
            host: Only FSMs that a worker of this host has in hand, or that are placed on it. Then a page may be short,
                or empty, though there are more.
            cursor: Of the page before: `page.cursor`. It is "" after the last page.
            count: About so many on a page, 1,000 at most; Redis may give some more at once.

        Returns:
            `Running` by name.

        Raises:
            PayloadError: The cursor is none, or the count is not what it should be.
        """
        return self.do(verbs.page(self.keys, name_of(machine), host=host, cursor=cursor, most=count))

    def synch(self) -> list[Repair]:
        """Hold what is noted of FSMs, events and workers against the truth, and put right what differs.

        Of a healthy namespace nothing comes back, also while workers are at it and die: what is under way, or waits for
        the end of a lease, is left alone. It walks all FSMs, so it takes about a minute for a million.

        Returns:
            What differed: name, what, how. Called again, only what cannot be repaired.
        """
        return self.do(verbs.synch(self.keys))

    def check(self, machine: type[Machine[Any]], *, mail: bool = False) -> DeployCheck:
        """Hold a machine that is to be deployed against its FSMs that live here: what would it leave behind?

        It is what `fsm check CLASS --against` asks. It is true of the moment at which it looked: FSMs go on meanwhile.

        Args:
            machine: The class that is to be deployed; workers need not have it yet.
            mail: Read each FSM of it: its mail, delayed events, open effects and timers, and which definition wrote it
                last. Without it the index tells, with one question a state, however many FSMs there are.

        Returns:
            `findings`, none where nothing stands against it (`is_ok`); and `notes`, of what is good to know.

        Raises:
            UnknownMachineError: This is no machine.
            StoreError: Redis cannot be used.
        """
        return self.do(verbs.check_deploy(self.keys, definition_of(machine), mail=mail))

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

    def nodes(self) -> Sequence[str]:
        """Give the names of the hosts that live and take new work, sorted: as `fsm worker --host` called them.

        With `Client(cluster=…)` it is that which says so.

        Raises:
            StoreError: Redis cannot be used.
        """
        return self._ring.nodes()

    def whois(self, name: str) -> str | None:
        """Give the host to which the ring gives a name, whether there is such an FSM or not; `None` without any host.

        It is where an FSM of a machine with `placement="ring"` is run, or will be with its next event. Others are run
        anywhere. Every client and every worker gives the same answer, as soon as it has seen the same hosts: it looks
        once a second.

        Raises:
            PayloadError: It cannot be the name of an FSM.
            ConfigError: The cluster that was passed in raised something, or gave what cannot be the name of a host.
            StoreError: Redis cannot be used.
        """
        return answered(self._ring, checked_name(name))


def definition_of(machine: Any) -> Definition:
    """Give the definition of a machine.

    Raises:
        UnknownMachineError: This is none.
    """
    definition = getattr(machine, "definition", None)
    if not isinstance(definition, Definition):
        raise UnknownMachineError(str(machine))
    return definition


def name_of(machine: type[Machine[Any]] | str | None) -> str | None:
    """Give the name of a machine.

    Raises:
        UnknownMachineError: This is none.
    """
    if machine is None or isinstance(machine, str):
        return machine
    return definition_of(machine).name
