"""`python -m bench.enqueue [--json] [--save]`: how many events a second one client process can enqueue.

Ours: `transition` one by one, by one thread and by eight that share one client; `transition_many`, with one event for
each of many FSMs and with ten for each of a few; `start_many`. RQ: `Queue.enqueue` one by one, `enqueue_many`, which
sends all in one pipeline. And a `PING` of redis-py, one by one, which is a round trip that does nothing. Each call is
counted whole, from the arguments to the reply.

All is written into one Redis by one process, in turn, round after round. The worker is held meanwhile, so every FSM is
at rest when its first event comes, which is the dearest there is; after each turn it drains what was sent, and the
records are dropped, so nothing grows from round to round but the FSMs that `start_many` has started.

What is not fair. In our favour: `enqueue_many` is bound by RQ's Python, and a client of one's own could write RQ's
records faster. Against us: `transition` checks that the FSM lives and has room, looks for a repeat of the same job and
makes the FSM ready; RQ only writes.

Who calls this: the person who measures, and a test in a small form.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Barrier
from typing import TYPE_CHECKING

from rq import Queue
from rq.serializers import JSONSerializer

from bench import suite
from bench.lane import Lane, numbered
from bench.machine import EVENT
from bench.suite import Result, Row
from fsm.store.embedded import EmbeddedServer
from fsm.store.keys import Keys

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main", "measure"]

_FSMS = 30_000
_FEW, _EVENTS_OF_FEW = 1000, 10
_ONE_BY_ONE = 2000
_THREADS = 8
_STARTED = 6000
_PEER_ONE_BY_ONE = 1000
_PEER_MANY = 5000
_PINGS = 1000
_SMALL = 100
_QUEUE = "bench-enqueue"


class _Round:
    """What is measured; each measure gives events a second, and leaves nothing behind.

    Args:
        lane: The worker and the client.
        names: Of FSMs at rest.
        part: 1, or by how much everything is made smaller.
    """

    def __init__(self, lane: Lane, names: list[str], part: int) -> None:
        self._lane = lane
        self._names = names
        self._part = part
        self._started = 0
        self._queue = Queue(_QUEUE, connection=lane.client.redis, serializer=JSONSerializer)

    def one_by_one(self) -> float:
        transition = self._lane.client.transition
        names = self._names[: _ONE_BY_ONE // self._part]
        return self._held(lambda: [transition(name, EVENT).id for name in names])

    def threads(self) -> float:
        transition = self._lane.client.transition
        names = self._names[: 2 * _ONE_BY_ONE // self._part]
        with ThreadPoolExecutor(_THREADS) as pool:
            ready = Barrier(_THREADS)
            # Each has its connection before it is measured: a thread keeps it as long as it is used.
            list(pool.map(lambda _: (ready.wait(), self._lane.client.redis.ping()), range(_THREADS)))

            def send(number: int) -> list[str]:
                return [transition(name, EVENT).id for name in names[number::_THREADS]]

            return self._held(lambda: [job_id for ids in pool.map(send, range(_THREADS)) for job_id in ids])

    def many(self) -> float:
        return self._held(lambda: self._lane.send(self._names))

    def many_of_few(self) -> float:
        # The n-th event of all FSMs comes before the next one of any: as the mail of many comes in.
        names = self._names[: _FEW // self._part] * _EVENTS_OF_FEW
        return self._held(lambda: self._lane.send(names))

    def start(self) -> float:
        names = numbered("started", _STARTED // self._part, self._started)
        self._started += len(names)
        return self._held(lambda: self._lane.start(names))

    def peer_one_by_one(self) -> float:
        enqueue = self._queue.enqueue
        names = self._names[: _PEER_ONE_BY_ONE // self._part]
        return self._cleared(lambda: [enqueue("bench.peer.swing", name).id for name in names])

    def peer_many(self) -> float:
        names = self._names[: _PEER_MANY // self._part]

        def send() -> list[str]:
            jobs = self._queue.enqueue_many([Queue.prepare_data("bench.peer.swing", (name,)) for name in names])
            return [job.id for job in jobs]

        return self._cleared(send)

    def ping(self) -> float:
        ping = self._lane.client.redis.ping
        count = _PINGS // self._part
        begin = time.perf_counter()
        for _ in range(count):
            ping()
        return count / (time.perf_counter() - begin)

    def _held(self, send: Callable[[], list[str]]) -> float:
        self._lane.hold()
        rate, ids = _timed(send)
        self._lane.work_off()
        self._lane.forget(ids)
        return rate

    def _cleared(self, send: Callable[[], list[str]]) -> float:
        rate, ids = _timed(send)
        redis = self._lane.client.redis
        redis.unlink(Keys.rq_list(_QUEUE), *map(Keys.job, ids))
        return rate


def _timed(send: Callable[[], list[str]]) -> tuple[float, list[str]]:
    begin = time.perf_counter()
    ids = send()
    return len(ids) / (time.perf_counter() - begin), ids


def measure(options: argparse.Namespace) -> Result:
    """Run it all, on a Redis of its own.

    Raises:
        BenchError: The worker is stuck.
        StoreError: There is no server program.
    """
    part = _SMALL if options.small else 1
    with (
        EmbeddedServer({"auto-aof-rewrite-percentage": "0"}) as server,
        Lane(server.url) as lane,
    ):
        names = numbered("fsm", _FSMS // part)
        suite.say(f"starting {len(names):,} FSMs")
        lane.rest(names)
        one = _Round(lane, names, part)
        values = suite.in_turn(
            {
                "transition": one.one_by_one,
                "transition, 8 threads": one.threads,
                "transition_many": one.many,
                "transition_many, 10 each": one.many_of_few,
                "start_many": one.start,
                "RQ enqueue": one.peer_one_by_one,
                "RQ enqueue_many": one.peer_many,
                "PING": one.ping,
            },
            options.rounds,
        )
        version = str(lane.client.redis.info("server")["redis_version"])
    single, threads, many, few, started, peer_single, peer_many, pings = values.values()
    rows = [
        Row("ours, transition", {"threads": 1, "events": _ONE_BY_ONE // part}, single),
        Row(
            "ours, transition",
            {"threads": _THREADS, "events": 2 * _ONE_BY_ONE // part},
            threads,
            note="the threads share one client",
        ),
        Row("ours, transition_many", {"FSMs": _FSMS // part, "events each": 1}, many),
        Row("ours, transition_many", {"FSMs": _FEW // part, "events each": _EVENTS_OF_FEW}, few),
        Row("ours, start_many", {"FSMs": _STARTED // part}, started, note="each with a payload of 100 bytes"),
        Row("RQ, enqueue", {"threads": 1, "events": _PEER_ONE_BY_ONE // part}, peer_single),
        Row("RQ, enqueue_many", {"events": _PEER_MANY // part}, peer_many, note="one pipeline"),
        Row("redis-py, PING, one by one", {"events": _PINGS // part}, pings, note="a round trip that does nothing"),
    ]
    names_of_figures = (
        "single_per_s", "threads_per_s", "bulk_per_s", "bulk_few_per_s", "start_many_per_s", "rq_single_per_s",
        "rq_bulk_per_s", "ping_per_s",
    )  # fmt: skip
    figures = {name: round(row.median) for name, row in zip(names_of_figures, rows, strict=True)}
    figures["single_ratio"] = _ratio(single, peer_single)
    figures["bulk_ratio"] = _ratio(many, peer_many)
    return Result("events a second", rows, figures, version)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Give the median of the ratios of each round."""
    return round(median(a / b for a, b in zip(ours, theirs, strict=True)), 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("enqueue", "Measure how many events a second one client can enqueue.", measure, arguments)


if __name__ == "__main__":
    main()
