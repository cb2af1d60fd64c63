"""One namespace with its FSMs and workers of its own: the lane in which one candidate runs.

All lanes of a benchmark share one Redis, and those whose turn it is not are idle: nothing waits in them, and their
workers look once a second. So rounds can go A B A B without starting and ending processes between them.

Who calls this: `bench.scale` and `bench.slow`.
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
from fsm.store.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from fsm import Machine

__all__ = ["Lane", "names_of"]

_LOOK_S = 0.02
_STUCK_S = 60.0
_START_S = 120.0
_PORTION = 20_000
_PAGE = 1000
# More FSMs than these are looked at by a sample.
_CHECKED = 50_000


def names_of(count: int) -> list[str]:
    """Give the names of so many FSMs."""
    return [f"fsm-{number:07d}" for number in range(count)]


class Lane:
    """A client, FSMs and workers, for the length of a `with` block.

    Args:
        url: Redis.
        namespace: Which no other lane has.
        machine: Of all its FSMs: `Pendulum` or one that is built on it.
        workers: How many processes.
        app: The module with the machine.
        options: Further options of the workers.
        program: As in `WorkerProcess`.
    """

    def __init__(  # noqa: PLR0913 - what tells one lane from another
        self,
        url: str,
        namespace: str,
        machine: type[Machine[Any]] = Pendulum,
        *,
        workers: int = 1,
        app: str = "bench.machine",
        options: Sequence[str] = (),
        program: Sequence[str] = ("-m", "workers"),
    ) -> None:
        self.client = Client(url, namespace=namespace)
        self.machine = machine
        # Nothing here has effects: the process that would run them is one less that looks whether there are some.
        options = ("--no-effects", *options)
        self.workers = [
            WorkerProcess(url, namespace, app=app, options=options, program=program) for _ in range(workers)
        ]
        self._stack = ExitStack()
        self._sent: Counter[str] = Counter()

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
        return self._start(names, None)

    def _start(self, names: Sequence[str], state: str | None) -> list[str]:
        ids = []
        for part in _portions(names):
            for verdict in self.client.start_many(self.machine, [(name, new_payload()) for name in part], state=state):
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
        self._sent.update(names)
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
        self.go_on()
        self.wait()
        spans = meter.take_spans(self.client.redis, ids)
        meter.drop_traces(self.client.redis, self.client.keys)
        return spans

    def wait(self) -> None:
        """Wait until no FSM has mail.

        Raises:
            BenchError: For a minute nothing has come nearer to it, or a worker has ended.
        """
        for _ in self.waiting(_LOOK_S):
            pass

    def waiting(self, look_s: float) -> Iterator[tuple[float, int]]:
        """Look so often how many FSMs wait, or are in hand, until there are none: time by the clock of Redis, number.

        Raises:
            BenchError: For a minute nothing has come nearer to it, or a worker has ended.
        """
        redis, keys = self.client.redis, self.client.keys
        ready = keys.ready(keys.default_queue)
        least, since = -1, time.monotonic()
        while True:
            # In one transaction: an FSM between both is in one of them.
            with redis.pipeline() as pipeline:
                pipeline.time()
                pipeline.zcard(ready)
                pipeline.zcard(keys.held)
                pipeline.llen(keys.mailbox(names_of(1)[0]))
                (seconds, micros), count, held, mail = pipeline.execute()
            yield seconds + micros / 1e6, count + held
            if not count + held:
                return
            # One hot FSM stays one to the end; its mail gets less.
            if least < 0 or count + held + mail < least:
                least, since = count + held + mail, time.monotonic()
            if time.monotonic() - since > _STUCK_S:
                raise BenchError(f"{count} FSMs wait and {held} are held, for {_STUCK_S:g} s now: what do workers do?")
            self._look_after_workers()
            time.sleep(look_s)

    def check(self) -> int:
        """Hold what was applied against what was sent, and give how many events were looked at.

        Raises:
            BenchError: It is not the same: then no figure means anything.
        """
        redis, keys = self.client.redis, self.client.keys
        names = list(self._sent)
        if len(names) > _CHECKED:
            names = random.sample(names, _CHECKED)
        applied = 0
        for first in range(0, len(names), _PAGE):
            with redis.pipeline(transaction=False) as pipeline:
                for name in names[first : first + _PAGE]:
                    pipeline.hget(keys.snapshot(name), "payload")
                applied += sum(orjson.loads(payload)["count"] - FIRST_COUNT for payload in pipeline.execute())
        sent = sum(self._sent[name] for name in names)
        if applied != sent:
            raise BenchError(
                f"{sent} events were sent and {applied} were applied: look for a fault in what is measured, the "
                "figures mean nothing"
            )
        return applied

    def _look_after_workers(self) -> None:
        for worker in self.workers:
            _ = worker.pid  # it raises, with what the worker said, if that has ended


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _PORTION):
        yield names[first : first + _PORTION]
