"""A run of several hosts under load: one dies, one is cut off and comes back, one joins, one is drained.

Events come from `tests.chaos.producers`, who looks on is `tests.chaos.witness`, and what is wrong at the end is told by
`tests.chaos.verdict`: here is only what befalls hosts.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm import Client, Machine, Repair
from fsm.store.places import ringed
from tests.chaos.plan import Plan
from tests.chaos.verdict import Verdict, judge, left
from tests.chaos.voyage import Producers
from tests.chaos.witness import Orphan, Witness
from tests.cluster import machines
from tests.cluster.hosts import APP, ROOT, Host, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.store.embedded import EmbeddedServer

_PAUSE_S = 0.02
_STUCK_S = 60.0
# Events that wait, for each FSM: as much as keeps all busy, and no more, else one would measure their backlog.
_BACKLOG = 8
# How often more is sent, and how much of what may be sent: half of it within two seconds.
_PACE_S, _SHARE, _BURST = 0.05, 0.017, 0.05
_DELAY_S = 1.5
# By whom delayed events are sent, which the plan of the producers does not know of.
LATE = "p9"


@dataclass(frozen=True, slots=True)
class ClusterPlan(Plan):
    """A plan with delayed events.

    Args:
        delayed: How many are sent, to ledgers in turn.
        fuses: FSMs that move by their timers.
        processes: Workers of each host.
    """

    delayed: int = 60
    fuses: int = 6
    processes: int = 2

    def chaos(self) -> dict[str, Any]:
        """Give it for producers, who know nothing of hosts."""
        known = Plan.__dataclass_fields__
        return {name: value for name, value in self.as_dict().items() if name in known}

    def ledgers(self) -> list[str]:
        """Give the FSMs to which delayed events go."""
        return [name for name in self.names() if name.startswith("ledger")]

    def expected(self) -> dict[str, dict[str, int]]:
        """Say how many events each FSM gets, by sender; delayed ones too."""
        found = Plan.expected(self)
        for n in range(self.delayed):
            name = self.ledgers()[n % len(self.ledgers())]
            found[name][LATE] = found[name].get(LATE, 0) + 1
        return found


@dataclass(slots=True)
class Takeover:
    """How long it took until others went on with the FSMs of a host, in ms.

    Args:
        what: What befell the host.
        at_ms: When.
        held: FSMs that it had in hand.
        waited: FSMs that had mail and that the ring gave to it.
        freed: Until each of them was in nobody's hands, and
        taken: until another worker had it.
    """

    what: str
    at_ms: float
    held: int = 0
    waited: int = 0
    freed: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Say it in a line."""
        spans = f"freed after {_span(self.freed)}, taken after {_span(self.taken)}"
        return f"{self.what}: {self.held} FSMs in hand, {self.waited} waiting; {spans}"


class Journey:
    """One run.

    Args:
        plan: Of the load.
        server: Redis.
        directory: For the logs of hosts.
    """

    def __init__(self, plan: ClusterPlan, server: EmbeddedServer, directory: Path) -> None:
        self.plan = plan
        self.verdict = Verdict()
        self.takeovers: list[Takeover] = []
        self.pinned: dict[str, str] = {}
        self.fuses = [f"fuse-{number}" for number in range(plan.fuses)]
        self.repairs: list[Repair] = []
        self.synched = 0
        self.client = Client(server.url, namespace="default")
        self.keys = self.client.keys
        self.witness = Witness(server.url, self.keys, retries=plan.retries)
        path = server.url.removeprefix("unix://")
        self.hosts = [
            Host(
                f"edge-{number}",
                Wire(path),
                directory,
                self.keys,
                self.client.redis,
                processes=plan.processes,
                lease_ms=plan.lease_ms,
            )
            for number in range(1, 5)
        ]
        self.producers: Producers
        self._url = server.url
        self._is_calm = threading.Event()
        self._late = 0
        self._most = self._part = self._burst = 0.0
        self._orphans: set[tuple[str, str]] = set()

    @contextmanager
    def under_way(self, *running: Host) -> Iterator[None]:
        """Start the FSMs, these hosts, and who sends; all of it ends with the block."""
        with ExitStack() as stack:
            stack.enter_context(self.client)
            for host in self.hosts:
                stack.enter_context(host.way)
                stack.callback(host.way.lighten)
                stack.enter_context(host)
            for host in running:
                host.start()
            self.until(lambda: all(host.is_at_work() for host in running), "the hosts are at work")
            self._start_fsms()
            self.witness.start()
            stack.callback(self.witness.stop)
            self.producers = Producers(Plan(**self.plan.chaos()), self._url)
            stack.callback(self.producers.end)
            for target in (self._synch, self._pace):
                thread = threading.Thread(target=target, daemon=True)
                thread.start()
                stack.callback(thread.join, 20)
            stack.callback(self._is_calm.set)
            yield

    def _start_fsms(self) -> None:
        """Start them: a chooser for each of the last two hosts is pinned there, though one of these has yet to join."""
        for kind, births in self.plan.births().items():
            machine, left = getattr(machines, kind.__name__), births
            if kind.__name__ == "Chooser":
                for host, (name, payload) in zip(self.hosts[2:], births, strict=False):
                    self.client.start_fsm(machine, name, payload, host=host.name)
                    self.pinned[host.name] = name
                left = births[len(self.pinned) :]
            self._start(machine, left)
        self._start(machines.Fuse, [(name, {}) for name in self.fuses])

    def _start(self, machine: type[Machine[Any]], births: list[tuple[str, dict[str, Any]]]) -> None:
        for verdict in self.client.start_many(machine, births):
            if verdict.error is not None:
                raise verdict.error

    def _synch(self) -> None:
        """Hold all against the truth, again and again: where nobody edits Redis, whatever is told is a lie."""
        with Client(self._url, namespace="default") as client:
            while not self._is_calm.wait(0.1):
                self.repairs += client.synch()
                self.synched += 1

    def load(self, part: float) -> None:
        """Send up to this part of the events from now on: the nearer to it, the slower, so that it never ends."""
        self._most = part

    def burst(self) -> None:
        """Send many events at once: so that everybody has something in hand."""
        self._burst = _BURST

    def _pace(self) -> None:
        """Send as much as `load` says, and no more than keeps all busy: else one would measure their backlog."""
        with Client(self._url, namespace="default") as client:
            while not self._is_calm.wait(_PACE_S):
                if sum(self.producers.sent) - self.witness.noted < _BACKLOG * self.plan.fsms:
                    more, self._burst = self._burst + max(0.0, self._most - self._part) * _SHARE, 0.0
                    self._part = min(1.0, self._part + more) if self._most < 1 else 1.0
                    self.producers.allow(self._part)
                if self._late < round(self.plan.delayed * self._part):
                    self._send_late(client)

    def _send_late(self, client: Client) -> None:
        """Send a delayed event; of each FSM they come due in the order in which they are sent."""
        ledgers = self.plan.ledgers()
        name, n = ledgers[self._late % len(ledgers)], self._late // len(ledgers) + 1
        about = {"by": LATE, "n": n}
        client.transition(name, "note", about, delay=_DELAY_S, key=f"{LATE} {n}", meta=about)
        self._late += 1

    def goes_on(self, events: int = 100) -> None:
        """Wait until so many more events are done."""
        wanted = self.witness.noted + events
        # Never all of it before the end, which `calm` waits for.
        self.load(max(self._most, min(0.98, self._part + 3 * events / self.plan.events)))
        self.until(lambda: self.witness.noted >= wanted, f"{events} more events are done")

    def orphan(self, host: Host, what: str, at_ms: float) -> Takeover:
        """Take the time until all that a host has in hand is in others' hands."""
        found: list[Orphan] = []
        redis: Any = self.client.redis
        for worker in host.workers():
            noted = {name.decode(): token.decode() for name, token in redis.hgetall(self.keys.claims(worker)).items()}
            owners = redis.mget([self.keys.lock(name) for name in noted]) if noted else []
            found += [
                Orphan(name, worker, at_ms, has_parent=False)
                for (name, token), owner in zip(noted.items(), owners, strict=True)
                # One that is pinned there waits for its host.
                if owner == f"{worker}/{token}".encode() and name != self.pinned.get(host.name)
            ]
        held = len(found)
        names = {one.name for one in found}
        for raw in redis.zrange(self.keys.ready(ringed(self.keys.default_queue, host.name)), 0, -1):
            if raw.decode() not in names:
                found.append(Orphan(raw.decode(), f"waiting for {host.name}", at_ms, has_parent=False))
        self.witness.orphaned(found)
        self._orphans = {(one.name, one.worker) for one in found}
        return Takeover(what, at_ms, held, len(found) - held)

    def strike(self, host: Host, what: str, blow: Callable[[], None], undo: Callable[[], None]) -> Takeover:
        """Let a blow fall on a host, at a moment when it has something in hand."""
        while True:
            self.burst()
            self.until(host.holds, f"{host.name} has something in hand")
            blow()
            takeover = self.orphan(host, f"{host.name} {what}", time.time() * 1000)
            if takeover.held:
                self.takeovers.append(takeover)
                return takeover
            undo()

    def taken_over(self, takeover: Takeover) -> None:
        """Wait until that is so."""
        self.until(lambda: not self.witness.waiting(), f"others go on: {takeover}")
        for one in self.witness.recoveries:
            if (one.name, one.worker) in self._orphans and one.at_ms == takeover.at_ms:
                takeover.freed.append(one.freed_ms - one.at_ms)
                takeover.taken.append(one.until_ms - one.at_ms)

    def calm(self) -> None:
        """Send what is left, and wait until all is done and nothing is left in anybody's hands."""
        self.load(1)
        self.until(
            lambda: (
                sum(self.producers.sent) >= self.plan.events
                and self._late == self.plan.delayed
                and not self.client.redis.zcard(self.keys.timers)
                and not self.client.redis.exists(self.keys.held)
                and not any(left(self.client.redis, self.keys).values())
            ),
            "all is done",
            _STUCK_S + self.plan.events / 200,
        )
        self._is_calm.set()

    def judge(self) -> list[str]:
        """Say what is wrong, in the end."""
        self.witness.stop()
        for fault in self.producers.faults():
            self.verdict.blame("other", fault)
        judge(self.plan, self.client.redis, self.keys, self.witness, self.verdict)
        for what, count in left(self.client.redis, self.keys).items():
            self.verdict.blame("left", what, count)
        for repair in self.repairs:
            self.verdict.blame("synch", str(repair))
        steps = [f"s{n}" for n in range(machines.STEPS)]
        for name in self.fuses:
            fuse = self.client.state(name, machines.Fuse)
            if fuse.payload != {"burnt": steps} or fuse.status != "finished" or fuse.version != machines.STEPS + 1:
                self.verdict.blame("timers", f"{name} is {fuse.status} with version {fuse.version}, {fuse.payload}")
        return self.verdict.faults

    def lines_of(self, host: Host) -> list[float]:
        """Give the times, in ms, of what its workers committed, by the log."""
        entries: Any = self.client.redis.xrange(self.keys.log)
        return [
            float(entry.partition(b"-")[0]) for entry, fields in entries if host.is_mine(fields[b"worker"].decode())
        ]

    def views(self, client: Client) -> dict[str, Any]:
        """Say what a client sees: how many FSMs there are, by state and in all, and which."""
        page = client.all(count=7)
        running = dict(page)
        while page.cursor:
            page = client.all(cursor=page.cursor, count=7)
            running |= page
        return {
            "count": client.count(),
            "finished": client.count(finished=True) - client.count(),
            "counts": client.counts(),
            "nodes": list(client.nodes()),
            "whois": {name: client.whois(name) for name in self.plan.names()},
            "all": running,
        }

    def until(self, condition: Callable[[], object], what: str, seconds: float = _STUCK_S) -> None:
        """Wait for a condition; fail by its words."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not so after {seconds:g} s: {what}; {self._standing()}"
            time.sleep(_PAUSE_S)

    def _standing(self) -> str:
        return f"{sum(self.producers.sent)} sent, {self.witness.noted} noted, {left(self.client.redis, self.keys)}"


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `fsm` as an operator does."""
    code = "from fsm.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments, "--url", url, "--app", APP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _span(times: list[float]) -> str:
    if not times:
        return "no time"
    times = sorted(times)
    return f"{times[len(times) // 2]:.0f} ms (most {times[-1]:.0f} ms)"
