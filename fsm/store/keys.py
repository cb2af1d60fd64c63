"""The names of all keys in Redis, ours and those of RQ that we write. No key is built anywhere else in Python.

`<name>` stands last in a key, so it may hold any text. Times are ms by the clock of Redis, except inside RQ's records.

    fsm:<ns>:snapshot:<name>     hash    one FSM: machine, state, payload, version, …; status, unless it is running
    fsm:<ns>:mailbox:<name>      list    ids of jobs that it has yet to apply, oldest first
    fsm:<ns>:urgent:<name>       list    ids that go before the mailbox
    fsm:<ns>:lock:<name>         string  "<worker>/<token>", expires with the lease
    fsm:<ns>:ready:<queue>       zset    FSMs with mail and without holder -> ring number: the truth about who waits
    fsm:<ns>:ring                string  the last ring number
    fsm:<ns>:held                zset    FSMs that are claimed -> end of the lease
    fsm:<ns>:claims:<worker>     hash    FSM -> token
    fsm:<ns>:replies:<worker>    hash    number and time of the last claim, last verdicts: a repeat gets the same answer
    fsm:<ns>:hand:<worker>       list    ids that a sleeping worker just took off RQ's list
    fsm:<ns>:workers             zset    workers -> last seen at
    fsm:<ns>:sweep               string  worker whose turn it is to free what dead ones held, expires within a second
    fsm:<ns>:state:<m>:<state>   zset    FSMs of that machine in that state, those that have not finished -> since
    fsm:<ns>:finished:<m>:<state> zset   those that have finished there -> when
    fsm:<ns>:errors:<machine>    zset    those of its FSMs whose last event failed -> when
    fsm:<ns>:drops:<machine>     zset    "<born> <name>" of lives that are over and whose row lies in a storage -> since
    fsm:<ns>:states              set     "<machine>:<state>" of all states that machines have had
    fsm:<ns>:machines            hash    machine -> JSON: diagram, fingerprint, queue, seen at
    fsm:<ns>:timers              zset    what is to come, "<kind> …" as `alarms` writes it -> when
    fsm:<ns>:later:<name>        zset    ids of the delayed events of one FSM -> when they are due
    fsm:<ns>:hosts               zset    hosts -> until when they are taken to be alive
    fsm:<ns>:crew:<host>         zset    "<born> <worker>" of a host's workers -> until when they are taken to be alive
    fsm:<ns>:draining            hash    hosts that take no new work -> since when
    fsm:<ns>:places              set     queues of single hosts, as `places` writes them
    fsm:namespaces               set     the namespaces of this Redis
    fsm:clock                    string  in tests, ms by which the time of FSMs is ahead of the true one
    fsm:<ns>:steered:<id>        hash    what an operator's call answered, for a minute: a repeat gets the same answer
    fsm:<ns>:log                 stream  what every commit and every operator did, capped
    fsm:<ns>:audit:<name>        stream  what became of each event of one FSM, where its machine wants that kept, capped
    fsm:<ns>:synced              string  what `sync` writes last, to wait for it: once it is safe, so is all before it
    fsm:<ns>:effects             zset    "<id> <name>" of each open effect -> when it is looked after next
    fsm:<ns>:effects:<name>      hash    open effects of one FSM: id -> JSON: func, queue, on_success, on_failure, …
    fsm:<ns>:ended               zset    "<queue> <id> <id> …" -> second in which these records are dropped
    rq:job:<id>, rq:queue:<queue>, rq:finished:<queue>, rq:failed:<queue>, rq:results:<id>, rq:worker:<worker>
"""

from __future__ import annotations

__all__ = ["CLOCK", "NAMESPACES", "SUSPENDED", "Keys", "default_queue"]

# RQ's: while it exists, workers are suspended.
SUSPENDED = "rq:suspended"
NAMESPACES = "fsm:namespaces"
CLOCK = "fsm:clock"


def default_queue(namespace: str) -> str:
    """Give the queue of a namespace; never RQ's own `default`.

    >>> default_queue("default"), default_queue("shop")
    ('fsm', 'fsm.shop')
    """
    return "fsm" if namespace == "default" else f"fsm.{namespace}"


class Keys:
    """The keys of one namespace.

    >>> Keys("default").mailbox("order-42")
    'fsm:default:mailbox:order-42'
    """

    __slots__ = (
        "default_queue",
        "draining",
        "effects",
        "ended",
        "held",
        "hosts",
        "log",
        "machines",
        "namespace",
        "places",
        "prefix",
        "ring",
        "states",
        "sweep",
        "synced",
        "timers",
        "workers",
    )

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.default_queue = default_queue(namespace)
        self.prefix = f"fsm:{namespace}:"
        self.draining = f"{self.prefix}draining"
        self.effects = f"{self.prefix}effects"
        self.ended = f"{self.prefix}ended"
        self.held = f"{self.prefix}held"
        self.hosts = f"{self.prefix}hosts"
        self.log = f"{self.prefix}log"
        self.machines = f"{self.prefix}machines"
        self.places = f"{self.prefix}places"
        self.ring = f"{self.prefix}ring"
        self.states = f"{self.prefix}states"
        self.sweep = f"{self.prefix}sweep"
        self.synced = f"{self.prefix}synced"
        self.timers = f"{self.prefix}timers"
        self.workers = f"{self.prefix}workers"

    def snapshot(self, name: str) -> str:
        """Hash of one FSM."""
        return f"{self.prefix}snapshot:{name}"

    def mailbox(self, name: str) -> str:
        """List of the job ids that an FSM has yet to apply."""
        return f"{self.prefix}mailbox:{name}"

    def urgent(self, name: str) -> str:
        """List of the job ids that go before its mailbox."""
        return f"{self.prefix}urgent:{name}"

    def later(self, name: str) -> str:
        """Sorted set of the ids of an FSM's delayed events."""
        return f"{self.prefix}later:{name}"

    def effects_of(self, name: str) -> str:
        """Hash of the open effects of one FSM."""
        return f"{self.prefix}effects:{name}"

    def audit(self, name: str) -> str:
        """Stream of what became of each event of an FSM."""
        return f"{self.prefix}audit:{name}"

    def lock(self, name: str) -> str:
        """Lock of one FSM."""
        return f"{self.prefix}lock:{name}"

    def ready(self, queue: str) -> str:
        """Sorted set of the FSMs of a queue that have mail and no holder."""
        return f"{self.prefix}ready:{queue}"

    def claims(self, worker: str) -> str:
        """Hash of what a worker holds."""
        return f"{self.prefix}claims:{worker}"

    def replies(self, worker: str) -> str:
        """Hash of a worker's last verdicts."""
        return f"{self.prefix}replies:{worker}"

    def hand(self, worker: str) -> str:
        """List of ids that a sleeping worker took."""
        return f"{self.prefix}hand:{worker}"

    def crew(self, host: str) -> str:
        """Sorted set of the workers of a host."""
        return f"{self.prefix}crew:{host}"

    def steered(self, nonce: str) -> str:
        """Answer to one call of an operator's."""
        return f"{self.prefix}steered:{nonce}"

    def state(self, machine: str, state: str) -> str:
        """Sorted set of the FSMs of a machine in a state, without those that have finished."""
        return f"{self.prefix}state:{machine}:{state}"

    def finished_of(self, machine: str, state: str) -> str:
        """Sorted set of the FSMs of a machine that have finished in a state."""
        return f"{self.prefix}finished:{machine}:{state}"

    def errors(self, machine: str) -> str:
        """Sorted set of the FSMs of a machine whose last event failed."""
        return f"{self.prefix}errors:{machine}"

    def drops(self, machine: str) -> str:
        """Sorted set of the lives of a machine's FSMs that are over, and of which its storage has a row."""
        return f"{self.prefix}drops:{machine}"

    @staticmethod
    def job(job_id: str) -> str:
        """RQ's record of a job."""
        return f"rq:job:{job_id}"

    @staticmethod
    def result(job_id: str) -> str:
        """RQ's stream of a job's results."""
        return f"rq:results:{job_id}"

    @staticmethod
    def rq_lists() -> str:
        """RQ's set of the lists of all queues."""
        return "rq:queues"

    @staticmethod
    def queue_of(rq_list: str) -> str:
        """Name of the queue of one of RQ's lists.

        >>> Keys.queue_of(Keys.rq_list("fsm"))
        'fsm'
        """
        return rq_list.removeprefix("rq:queue:")

    @staticmethod
    def rq_list(queue: str) -> str:
        """RQ's list of a queue."""
        return f"rq:queue:{queue}"

    @staticmethod
    def rq_registry(kind: str, queue: str) -> str:
        """RQ's registry (`failed`, `finished`, `wip`, …) of a queue."""
        return f"rq:{kind}:{queue}"

    @staticmethod
    def rq_worker(worker: str) -> str:
        """RQ's record of a worker."""
        return f"rq:worker:{worker}"

    @staticmethod
    def rq_all_workers() -> str:
        """RQ's set of all workers."""
        return "rq:workers"

    @staticmethod
    def rq_workers(queue: str) -> str:
        """RQ's set of the workers on a queue."""
        return f"rq:workers:{queue}"
