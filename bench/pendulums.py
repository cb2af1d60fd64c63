"""The FSMs that a benchmark sends to: started, sent to in bulk, waited for, and cleaned up after.

Who calls this: `bench.enqueue`, `bench.latency` and `bench.overhead`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import meter
from bench.machine import EVENT, Pendulum, new_payload
from bench.worker import BenchError
from fsm.store.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.worker import WorkerProcess
    from fsm import Client

__all__ = ["NAMESPACE", "Pendulums", "numbered"]

NAMESPACE = "bench"
_LOOK_S = 0.02
_STUCK_S = 120.0
_PAGE = 1000


def numbered(prefix: str, count: int, first: int = 0) -> list[str]:
    """Give so many names.

    >>> numbered("fsm", 2)
    ['fsm-000000', 'fsm-000001']
    """
    return [f"{prefix}-{number:06d}" for number in range(first, first + count)]


class Pendulums:
    """FSMs of `bench.machine.Pendulum`, and the one worker that runs them.

    Args:
        client: Sends to them.
        worker: Runs them; started.
    """

    def __init__(self, client: Client, worker: WorkerProcess) -> None:
        self.client = client
        self.worker = worker

    def start(self, names: Iterable[str]) -> list[str]:
        """Start FSMs of these names; the ids of their entry events come back."""
        pairs = [(name, new_payload()) for name in names]
        return [verdict.job_id for verdict in self._accepted(self.client.start_many(Pendulum, pairs))]

    def send(self, names: Iterable[str]) -> list[str]:
        """Send one event to each of these names in bulk; the ids of the jobs come back."""
        items = [(name, EVENT) for name in names]
        return [verdict.job_id for verdict in self._accepted(self.client.transition_many(items, machine=Pendulum))]

    def rest(self, names: Sequence[str]) -> None:
        """Start FSMs of these names and have each at rest, with all that goes by itself within a minute dropped."""
        ids = self.start(names)
        self.drain()
        self.forget(ids)

    def drain(self) -> None:
        """Let the worker go on, and wait until no FSM has mail: none is ready, none is held.

        Raises:
            BenchError: That takes too long, or the worker has ended.
        """
        self.worker.go_on()
        redis, keys = self.client.redis, self.client.keys
        deadline = time.monotonic() + _STUCK_S
        while True:
            # In one transaction: an FSM between both is in one of them. Not by ZCARD, which our scripts use: so what
            # is asked here can be told from what is measured.
            with redis.pipeline() as pipeline:
                pipeline.zcount(keys.ready(keys.default_queue), "-inf", "+inf")
                pipeline.zcount(keys.held, "-inf", "+inf")
                waiting, held = pipeline.execute()
            if not waiting and not held:
                return
            if time.monotonic() > deadline:
                raise BenchError(
                    f"after {_STUCK_S:g} s {waiting} FSMs still wait and {held} are held: is the worker "
                    f"(process {self.worker.pid}) at work?"
                )
            _ = self.worker.pid  # it raises, with what the worker said, if that has ended
            time.sleep(_LOOK_S)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Drop the records of jobs that have ended, and the traces of them: no round is to pay for the one before.

        On a crash: some are left; they lie in the benchmark's own Redis.
        """
        redis = self.client.redis
        for first in range(0, len(job_ids), _PAGE):
            redis.unlink(*map(Keys.job, job_ids[first : first + _PAGE]))
        meter.drop_traces(redis, self.client.keys)

    def _accepted(self, verdicts: Sequence) -> Sequence:
        for verdict in verdicts:
            if verdict.error is not None:
                raise verdict.error
        return verdicts
