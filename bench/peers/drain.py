"""One start of a peer: load its queue, let its workers drain it, read off how fast, see that all was done.

How fast: Redis is asked every 50 ms how many jobs have written their entity (`INFO commandstats` counts the peers'
HMSET; for BullMQ, whose scripts use that themselves, its own set of what is completed). The rate is that between the
first look that finds a twentieth done and the last that finds something undone: no start-up and no tail is in it, and
the peer pays for nothing but these looks.

Who calls this: `bench.throughput`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

import orjson
import redis

from bench.machine import FIRST_COUNT, new_payload
from bench.peers.door import entity
from bench.peers.environment import NODE
from bench.worker import ROOT, BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bench.peers.catalogue import Peer
    from bench.peers.environment import Environment

__all__ = ["Book", "Drain", "rate"]

_LOOK_S = 0.05
_BEGIN = 0.05
# Without progress for so long it is stuck: no start of a worker takes as long on a machine that does nothing else.
_STUCK_S = 30.0
_FED_S = 90.0
_TAIL_S = 0.1
_LATE_S = 5.0
_LOG_TAIL = 800
_PAGE = 1000

Look = tuple[float, int]


def rate(looks: Sequence[Look], total: int) -> float:
    """Give jobs per second of a drain, from (second, jobs done) of each look.

    >>> rate([(0.0, 0), (1.0, 10), (2.0, 110), (3.0, 160), (4.0, 200)], 200)
    75.0
    """
    inside = [look for look in looks if total * _BEGIN <= look[1] < total]
    # So few that no two looks fell into it: then from its begin to its end.
    first, last = (inside[0], inside[-1]) if len(inside) > 1 else (looks[0], looks[-1])
    return (last[1] - first[1]) / max(last[0] - first[0], 1e-6)


class Book:
    """The entities, and what has been sent to each.

    Args:
        url: Of the database that holds them and nothing else.
        entities: How many there are.
    """

    def __init__(self, url: str, entities: int) -> None:
        self.client = redis.Redis.from_url(url)
        self._sent = [0] * entities
        self._next = 0
        payload = orjson.dumps(new_payload())
        for first in range(0, entities, _PAGE):
            with self.client.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _PAGE, entities)):
                    pipeline.hset(f"bench:entity:{entity(number)}", mapping={"state": "left", "payload": payload})
                pipeline.execute()

    def next(self, entities: int, count: int) -> int:
        """Note `count` jobs for the first `entities` of them, each in its turn, and give the first number."""
        first, self._next = self._next, self._next + count
        for number in range(first, first + count):
            self._sent[number % entities] += 1
        return first

    def check(self) -> int:
        """See that each entity was changed as often as it was to be, and give how many jobs were done once too often.

        These queues promise that a job is done at least once: twice is theirs to do, and is told. None may be lost.

        Raises:
            BenchError: One was not done after some seconds.
        """
        deadline = time.monotonic() + _LATE_S
        while (lost := self._lost(done := self._read())) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if lost:
            raise BenchError(f"{len(lost)} entities were changed less often than they were sent jobs, {lost[0]} first")
        twice = sum(done) - sum(self._sent)
        self._sent = done
        return twice

    def _lost(self, done: Sequence[int]) -> list[str]:
        return [
            f"{entity(number)} ({sent} jobs, {changed} done)"
            for number, (sent, changed) in enumerate(zip(self._sent, done, strict=True))
            if changed < sent
        ]

    def _read(self) -> list[int]:
        """How often each entity was changed; its state must tell the same as its count.

        Raises:
            BenchError: It does not.
        """
        done = []
        for first in range(0, len(self._sent), _PAGE):
            last = min(first + _PAGE, len(self._sent))
            with self.client.pipeline(transaction=False) as pipeline:
                for number in range(first, last):
                    pipeline.hmget(f"bench:entity:{entity(number)}", "state", "payload")
                replies = pipeline.execute()
            for number, (state, payload) in enumerate(replies, first):
                changed = orjson.loads(payload)["count"] - FIRST_COUNT
                if state != (b"right" if changed % 2 else b"left"):
                    raise BenchError(f"{entity(number)} was changed {changed} times and is {state.decode()}")
                done.append(changed)
        return done

    def close(self) -> None:
        """Close its connection."""
        self.client.close()


class Drain:
    """A peer's feeder and workers, for the length of a `with` block.

    Args:
        peer: Who.
        environment: Where it is installed.
        queue_url: Of a database that is its own until the block ends; it is flushed then.
        entities_url: Of the entities.
        book: What is sent is noted in it.

    On a crash: processes of the peer may be left; most end when Redis is gone.
    """

    def __init__(self, peer: Peer, environment: Environment, queue_url: str, entities_url: str, book: Book) -> None:
        self._peer = peer
        self._program = environment.program
        self._environment = {
            **os.environ,
            "BENCH_QUEUE_URL": queue_url,
            "BENCH_ENTITIES_URL": entities_url,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._queue = redis.Redis.from_url(queue_url)
        self._book = book
        self._log: IO[bytes] | None = None
        self._feeder: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._queue.flushdb()
        self._feeder = self._start("feed", subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in (self._feeder, self._worker):
            if process is not None:
                _end(process)
        self._queue.flushdb()
        self._queue.close()
        if self._log is not None:
            self._log.close()

    def drain(self, entities: int, count: int) -> float:
        """Load so many jobs for so many entities while no worker runs, let them be drained, and give the rate.

        Raises:
            BenchError: They were not all done.
        """
        self._hold()
        self._feed(f"{entities} {self._book.next(entities, count)} {count}")
        before = self._done()
        self._go_on()
        looks: list[Look] = []
        moved = time.monotonic()
        while not looks or looks[-1][1] < count:
            look = (time.monotonic(), self._done() - before)
            if looks and look[1] != looks[-1][1]:
                moved = look[0]
            looks.append(look)
            if look[0] > moved + _STUCK_S or (self._worker is not None and self._worker.poll() is not None):
                raise BenchError(f"it did {look[1]} of {count} jobs, and then none: {self._said()}")
            time.sleep(_LOOK_S)
        # The last of them have still to be told their results.
        time.sleep(_TAIL_S)
        return rate(looks, count)

    def _done(self) -> int:
        if self._peer.counted:
            return int(self._queue.zcard(self._peer.counted))
        return int(self._book.client.info("commandstats").get("cmdstat_hmset", {}).get("calls", 0))

    def _feed(self, line: str) -> None:
        feeder = self._feeder
        if feeder is None or feeder.stdin is None or feeder.stdout is None:
            message = "the peer was not started: use it in a `with` block"
            raise BenchError(message)
        with suppress(BrokenPipeError):
            feeder.stdin.write(line.encode() + b"\n")
            feeder.stdin.flush()
        answered = select.select([feeder.stdout], [], [], _FED_S)[0]
        if not answered or feeder.stdout.readline() != b"fed\n":
            raise BenchError(f"its queue could not be loaded: {self._said()}")

    def _hold(self) -> None:
        if self._worker is not None:
            os.killpg(self._worker.pid, signal.SIGSTOP)

    def _go_on(self) -> None:
        if self._worker is None:
            self._worker = self._start("work")
        else:
            os.killpg(self._worker.pid, signal.SIGCONT)

    def _start(self, verb: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        if self._peer.group == "bullmq":
            command = [self._program, str(NODE / "bullmq.mjs"), verb]
        else:
            mode = self._peer.work if verb == "work" else self._peer.work[:1]
            command = [self._program, "-m", "bench.peers.door", verb, *mode]
        # A group of its own: its workers are held, and ended, with all their children.
        return subprocess.Popen(  # noqa: S603 - our own command, no shell
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=stdin,
            stdout=subprocess.PIPE if verb == "feed" else self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _said(self) -> str:
        if self._log is None:
            return "it was not started"
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-_LOG_TAIL:].strip() or "it said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children: nothing waits any more, and what they hold in Redis is flushed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
