"""Replays a log: starts an FSM for each package, sends each status line as an event, and checks what came of it.

Who calls this: `__main__`. It talks to Redis through `fsm.Client`, and only `sweep` looks behind it, at keys; who runs
the workers is not its business.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from examples.dpkg.machine import Change, Package
from fsm import CallTimeoutError, FSMError, MailboxFullError, RefusedError, TransitionJob
from fsm.store.keys import NAMESPACES, Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from examples.dpkg.log import StatusLine
    from fsm import Client, Snapshot, Verdict

__all__ = ["Replay", "Report", "Standing"]

_CHUNK = 1000
# A worker takes hundreds of events out of a full mailbox in this time.
_PAUSE_S = 0.05
# How many of the events that were not applied are told one by one.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a replay is.

    Args:
        sent: Status lines that were sent.
        applied: How many of them have been served, refused and failed ones included.
        states: How many packages are in each state.
        is_settled: Whether all that was sent has been served.
    """

    sent: int
    applied: int
    states: Counter[str]
    is_settled: bool


@dataclass(slots=True)
class Report:
    """What came of a replay.

    Args:
        packages: Packages in the log.
        transitions: Status lines in the log.
        failed: Events that failed, or whose end nobody knows.
        refused: Events that the machine does not allow where they came.
        mismatches: Packages that are not in the state of their last line, or did not apply each of their lines once.
        told: Sentences about the first of these.
    """

    packages: int = 0
    transitions: int = 0
    failed: int = 0
    refused: int = 0
    mismatches: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether each package is where its log says, and nothing went wrong on the way."""
        return not (self.failed or self.refused or self.mismatches)

    def tell(self, text: str) -> None:
        """Keep a sentence, if there are not too many already."""
        if len(self.told) < _TOLD:
            self.told.append(text)


class Replay:
    """One log on its way through the client.

    Args:
        client: With a namespace that nobody else uses.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._born: dict[str, str] = {}
        self._sent: dict[str, list[tuple[str, str]]] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._report: Report | None = None

    def feed(self, lines: Iterable[StatusLine], meanwhile: Callable[[], None]) -> None:
        """Start what is new and send what happened, in the order of the log, some thousand lines a second.

        Args:
            lines: The log.
            meanwhile: Called after each chunk, and while a full mailbox makes us wait.

        Raises:
            FSMError: Redis cannot be used, or something else writes into our namespace.
        """
        lines = iter(lines)
        while chunk := list(islice(lines, _CHUNK)):
            self._start(dict.fromkeys(line.package for line in chunk))
            while chunk := list(self._send(chunk)):
                meanwhile()
                time.sleep(_PAUSE_S)
            meanwhile()

    def _start(self, packages: Iterable[str]) -> None:
        fresh = [package for package in packages if package not in self._sent]
        for verdict in self._client.start_many(Package, fresh):
            if verdict.error is not None:
                raise verdict.error
            self._born[verdict.name] = verdict.job_id
            self._sent[verdict.name] = []

    def _send(self, chunk: list[StatusLine]) -> Iterator[StatusLine]:
        """Send a chunk; give back the lines that found a mailbox full, and those of the same packages behind them."""
        items = [(line.package, line.status, Change(line.at, line.version)) for line in chunk]
        full: set[str] = set()
        for line, verdict in zip(chunk, self._client.transition_many(items, machine=Package), strict=True):
            if _is_full(verdict, full):
                yield line
            elif verdict.error is not None:
                raise verdict.error
            else:
                self._sent[line.package].append((line.status, verdict.job_id))

    def look(self) -> Standing:
        """Read all packages and say how far they are."""
        self._snapshots = {snapshot.name: snapshot for snapshot in self._client.snapshots(Package.definition.name)}
        sent = applied = 0
        is_settled = True
        for package, events in self._sent.items():
            sent += len(events)
            snapshot = self._snapshots.get(package)
            # The entry event made the first version, and each event one more, whatever came of it.
            served = max(0, snapshot.version - 1) if snapshot else 0
            applied += served
            is_settled = is_settled and served >= len(events) and snapshot is not None and snapshot.version > 0
        states = Counter(snapshot.state for snapshot in self._snapshots.values())
        return Standing(sent, applied, states, is_settled)

    def report(self) -> Report:
        """Hold what `look` saw last against the log.

        Raises:
            FSMError: Redis cannot be used.
        """
        report = self._report = Report(len(self._sent), sum(map(len, self._sent.values())))
        for package, events in self._sent.items():
            snapshot = self._snapshots.get(package)
            changes = snapshot.payload["changes"] if snapshot else 0
            faults = self._count_faults(report, package, events) if changes != len(events) else 0
            if problem := _mismatch(snapshot, events, faults):
                report.mismatches += 1
                report.tell(f"{package}: {problem}")
        return report

    def _count_faults(self, report: Report, package: str, events: list[tuple[str, str]]) -> int:
        """Ask each job of a package how it ended; gives how many did not end well."""
        before = report.refused + report.failed
        for event, job_id in [("its start", self._born[package]), *events]:
            try:
                TransitionJob(self._client, job_id, package, event).result(timeout=0)
            except RefusedError as error:
                report.refused += 1
                report.tell(str(error))
            except CallTimeoutError:
                continue  # it waits still: its package is not where it should be, and counted for that
            except FSMError as error:
                report.failed += 1
                report.tell(str(error))
        return report.refused + report.failed - before

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the report found something in Redis that one may want to look at."""
        return self._report is not None and not self._report.is_good

    def sweep(self) -> None:
        """Take away all that this replay left in Redis; the workers must have ended.

        On a crash: what is left lies in a namespace of its own, and disturbs nobody.

        Raises:
            FSMError: Redis cannot be used, or a worker that was killed still has a lock.
        """
        for package in self._sent:
            self._client.purge(package)
        redis, keys = self._client.redis, Keys(self._client.namespace)
        queue = keys.default_queue
        redis.unlink(keys.log, keys.machines, keys.ended, keys.ring, keys.workers, keys.ready(queue), keys.states)
        redis.unlink(keys.rq_list(queue), *(keys.rq_registry(kind, queue) for kind in ("finished", "failed", "wip")))
        redis.srem("rq:queues", keys.rq_list(queue))
        redis.srem(NAMESPACES, keys.namespace)
        jobs = [*self._born.values(), *(job_id for events in self._sent.values() for _, job_id in events)]
        for first in range(0, len(jobs), _CHUNK):
            part = jobs[first : first + _CHUNK]
            redis.unlink(*map(keys.job, part), *map(keys.result, part))


def _is_full(verdict: Verdict, full: set[str]) -> bool:
    """Tell whether an event was not sent because its package has too many waiting; those behind it are skipped."""
    if isinstance(verdict.error, MailboxFullError):
        full.add(verdict.name)
    return verdict.error is not None and verdict.name in full


def _mismatch(snapshot: Snapshot | None, events: list[tuple[str, str]], faults: int) -> str:
    """Say what is wrong with where a package is; "" when nothing is."""
    if snapshot is None:
        return "its FSM is not there"
    if snapshot.state != events[-1][0]:
        return f"is {snapshot.state}, and by the log {events[-1][0]}"
    if snapshot.version != len(events) + 1:
        return f"has version {snapshot.version} after its entry and {len(events)} events"
    if (applied := snapshot.payload["changes"]) != len(events) - faults:
        return f"applied {applied} changes out of {len(events)}, of which {faults} did not end well"
    return ""
