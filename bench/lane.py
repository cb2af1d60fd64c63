"""One namespace with FSMs and workers of its own: the lane in which one candidate runs.

FSMs are started, sent to in bulk, waited for, and what was applied is held against what was sent. Lanes of a benchmark
may share one Redis: those whose turn it is not are idle, nothing waits in them, and their workers look once a second.
So rounds can go A B A B without starting and ending processes between them.

What is asked of Redis while workers are at work is asked by ZCOUNT, which no script of ours uses: so `bench.overhead`
can tell it from what it measures.

Who calls this: all benchmarks in which a worker of ours runs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import orjson

from bench import meter
from bench.machine import EVENT, FIRST_COUNT, Pendulum, new_payload
from bench.worker import BenchError, WorkerProcess
from fsm import Client
from fsm.store.halves import PLACEHOLDER
from fsm.store.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from fsm import Machine
    from fsm.storage.protocol import BatchStorage

__all__ = ["QUIET", "Lane", "numbered"]

# Of workers that share a Redis with other lanes and have no effects: no process that looks whether there are some.
QUIET = ("--no-effects",)

_LOOK_S = 0.02
_STUCK_S = 60.0
_START_S = 120.0
# Sent in one call: bounds what the payloads of a million FSMs take here, and leaves no benchmark of calls in two.
_PORTION = 50_000
_PAGE = 1000
# More FSMs than these are looked at by a sample.
_CHECKED = 50_000


def numbered(prefix: str, count: int, first: int = 0) -> list[str]:
    """Give so many names.

    >>> numbered("fsm", 2)
    ['fsm-000000', 'fsm-000001']
    """
    return [f"{prefix}-{number:06d}" for number in range(first, first + count)]


class Lane:
    """A client, FSMs and workers, for the length of a `with` block.

    Args:
        url: Redis.
        namespace: Which no other lane has at the same time.
        machine: Of all its FSMs: `Pendulum` or one that is built on it.
        workers: How many processes.
        app: The module with the machine.
        options: Further options of the workers.
        program: As in `WorkerProcess`.
        spread: Payloads have 100 bytes; here one after the other has one more, and after so many it begins anew. Redis
            gives memory in steps, so of one length all that is told is on which side of a step it stands.
        durability: What must be true before something counts as sent, as in `Client`.
        environment: Further variables of the workers.
        storage: Where the machine keeps payloads, if not in Redis nor in the memory of its worker.
    """

    def __init__(  # noqa: PLR0913 - what tells one lane from another
        self,
        url: str,
        namespace: str = "bench",
        machine: type[Machine[Any]] = Pendulum,
        *,
        workers: int = 1,
        app: str = "bench.machine",
        options: Sequence[str] = (),
        program: Sequence[str] = ("-m", "workers"),
        spread: int = 1,
        durability: str | None = None,
        environment: Mapping[str, str] | None = None,
        storage: BatchStorage | None = None,
    ) -> None:
        self.url = url
        self._spread = spread
        self._storage = storage
        self.client = Client(url, namespace=namespace, durability=durability)
        self.machine = machine
        self.workers = [
            WorkerProcess(url, namespace, app=app, options=options, program=program, environment=environment)
            for _ in range(workers)
        ]
        self._stack = ExitStack()
        # By name, once for each event. Only noted here, and counted in the end: sending is measured.
        self._sent: list[str] = []
        self._entered: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.client)
            for worker in self.workers:
                stack.enter_context(worker)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def worker(self) -> WorkerProcess:
        """The worker of a lane that has one."""
        (worker,) = self.workers
        return worker

    def await_workers(self) -> None:
        """Wait until all workers are there.

        Raises:
            BenchError: One has ended, or they do not come.
        """
        deadline = time.monotonic() + _START_S
        while (there := self.client.redis.zcard(self.client.keys.workers)) < len(self.workers):
            self._look_after_workers()
            if time.monotonic() > deadline:
                raise BenchError(f"{there} of {len(self.workers)} workers have come after {_START_S:g} s")
            time.sleep(_LOOK_S)

    def populate(self, names: Sequence[str]) -> None:
        """Start FSMs without an entry event, so that they rest at once, and drop the records that tell of it.

        On a crash: some are started; they lie in the benchmark's own Redis.
        """
        self.forget(self._start(names, "left"))

    def start(self, names: Sequence[str]) -> list[str]:
        """Start FSMs, each with its entry event; the ids of those jobs come back.

        On a crash: as `populate`.
        """
        ids = self._start(names, None)
        self._entered += names
        return ids

    def rest(self, names: Sequence[str]) -> None:
        """Start FSMs with their entry events, have these applied, and drop the records that tell of it.

        On a crash: as `populate`.

        Raises:
            BenchError: As `work_off`.
        """
        ids = self.start(names)
        self.work_off()
        self.forget(ids)

    def _start(self, names: Sequence[str], state: str | None) -> list[str]:
        ids = []
        for part in _portions(names):
            births = [(name, new_payload(number % self._spread)) for number, name in enumerate(part)]
            for verdict in self.client.start_many(self.machine, births, state=state):
                if verdict.error is not None:
                    raise verdict.error
                ids.append(verdict.job_id)
        return ids

    def forget(self, job_ids: Sequence[str]) -> None:
        """Drop records of jobs, and what is kept of transitions for a while: no round is to pay for the one before.

        On a crash: some are left; they lie in the benchmark's own Redis.
        """
        for first in range(0, len(job_ids), _PAGE):
            self.client.redis.unlink(*map(Keys.job, job_ids[first : first + _PAGE]))
        meter.drop_traces(self.client.redis, self.client.keys)

    def send(self, names: Sequence[str]) -> list[str]:
        """Send each of these FSMs its event, one for each time it is named; the ids of the jobs come back.

        On a crash: some are sent; they lie in the benchmark's own Redis.
        """
        ids = []
        for part in _portions(names):
            for verdict in self.client.transition_many([(name, EVENT) for name in part], machine=self.machine):
                if verdict.error is not None:
                    raise verdict.error
                ids.append(verdict.job_id)
        self._sent += names
        return ids

    def hold(self) -> None:
        """Stop all workers where they are."""
        for worker in self.workers:
            worker.hold()

    def go_on(self) -> None:
        """Let them go on."""
        for worker in self.workers:
            worker.go_on()

    def drain(self, names: Sequence[str]) -> float:
        """Load a backlog while the workers are held, let them work it off, and give the transitions per second."""
        return meter.rate(self.spans(names))

    def spans(self, names: Sequence[str]) -> list[meter.Span]:
        """Load a backlog while the workers are held, let them work it off, and give when each job began and ended."""
        self.hold()
        ids = self.send(names)
        self.work_off()
        spans = meter.take_spans(self.client.redis, ids)
        meter.drop_traces(self.client.redis, self.client.keys)
        return spans

    def work_off(self) -> None:
        """Let the workers go on, and wait until no FSM has mail.

        Raises:
            BenchError: For a minute nothing has come nearer to it, or a worker has ended.
        """
        self.go_on()
        for _ in self.waiting(_LOOK_S):
            pass

    def waiting(self, look_s: float) -> Iterator[tuple[float, int]]:
        """Look so often how many FSMs wait, or are in hand, until there are none: seconds by our clock, number.

        Raises:
            BenchError: For a minute nothing has come nearer to it, or a worker has ended.
        """
        redis, keys = self.client.redis, self.client.keys
        asked = keys.ready(keys.default_queue), keys.held, keys.rq_registry("finished", keys.default_queue)
        least, most, since = -1, -1, time.monotonic()
        while True:
            # In one transaction: an FSM between ready and held is in one of them.
            with redis.pipeline() as pipeline:
                for key in asked:
                    pipeline.zcount(key, "-inf", "+inf")
                count, held, ended = pipeline.execute()
            now = time.monotonic()
            yield now, count + held
            if not count + held:
                return
            # One hot FSM stays one to the end; its jobs that have ended get more.
            if least < 0 or count + held < least or ended > most:
                least, most, since = count + held, ended, now
            if now - since > _STUCK_S:
                raise BenchError(
                    f"{count} FSMs wait and {held} are held, for {_STUCK_S:g} s now: what do the workers do (process "
                    f"{', '.join(str(worker.pid) for worker in self.workers)})?"
                )
            self._look_after_workers()
            time.sleep(look_s)

    def check(self) -> int:
        """Hold what was applied against what was sent by this lane, and give how many events were looked at.

        Each event has counted one in its FSM's payload, and made a version; so has each entry event, a version only.

        Raises:
            BenchError: It is not the same: then no figure means anything.
        """
        redis, keys = self.client.redis, self.client.keys
        events, entries = Counter(self._sent), Counter(self._entered)
        names = list(events)
        if len(names) > _CHECKED:
            names = random.sample(names, _CHECKED)
        applied = steps = 0
        for first in range(0, len(names), _PAGE):
            part = names[first : first + _PAGE]
            stored = self._storage.load_many(self.client.namespace, part) if self._storage is not None else {}
            with redis.pipeline(transaction=False) as pipeline:
                for name in part:
                    pipeline.hmget(keys.snapshot(name), "payload", "version")
                for name, (payload, version) in zip(part, pipeline.execute(), strict=True):
                    row = stored.get(name)
                    if self._storage is not None and (row is None or row.version != int(version)):
                        raise BenchError(
                            f"FSM {name!r} is at version {int(version)} in Redis, and in the storage {row}"
                        )
                    if row is None and payload == PLACEHOLDER:
                        # It lies in the memory of the worker: of this the versions tell.
                        applied += int(version) - entries[name]
                    else:
                        applied += orjson.loads(payload if row is None else row.payload)["count"] - FIRST_COUNT
                    steps += int(version)
        sent = sum(events[name] for name in names)
        steps -= sum(entries[name] for name in names)
        if not applied == steps == sent:
            raise BenchError(
                f"{sent} events were sent, and {applied} were applied in {steps} versions: look for a fault in what "
                "is measured, the figures mean nothing"
            )
        return applied

    def _look_after_workers(self) -> None:
        for worker in self.workers:
            _ = worker.pid  # it raises, with what the worker said, if that has ended


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _PORTION):
        yield names[first : first + _PORTION]
