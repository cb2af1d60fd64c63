"""`python -m bench.latency [--json] [--save]`: how long an event takes until it is committed, and a `call` both ways.

Open loop: events come by a schedule that knows nothing of how the former ones fare, at random (exponential gaps, drawn
from a fixed seed, so that all candidates and all runs get the same), each for another FSM at rest. A latency counts
from the scheduled time, so what is sent late because something hangs counts as slow, and is not left out (coordinated
omission). What is due at the same moment is sent in one `transition_many`, else each by its own `transition`.

"Committed" is `ended_at` of the job record, by the clock of Redis, taken as the commit's script begins; nobody sees
what it writes before it ends, which is a few dozen µs an FSM later. The schedule is by the clock of this process. On
one machine both are one clock. A `call` is measured by this process alone, from the scheduled time to the outcome: the
commit's end, the way back and the threads of the caller are in it. RQ's `ended_at` is the worker's clock before it
writes the end of the job, so some of RQ's writing is not counted.

The floor of this machine is measured beside it, by the same schedule: a `PING` of redis-py, from the scheduled time to
its reply. For that two processes wake each other once each; until an event is committed, Redis and worker do so five
times, one after the other.

The rates: 10, 100 and 1,000 a second, and half of the maximum, measured first in the same run: for `committed` the rate
at which the worker drains a backlog; for `call` what one client of 64 threads gets when each calls again at once. RQ's
`SimpleWorker` (`bench.peer.swing`) is given 10 and 100 a second, as it cannot do 1,000.

Where the time goes: `until_accepted` is when `send` wrote the record (RQ: when its client was about to), and
`until_claimed` when a worker took it; `sent_late` is how much too late the sender woke, which Python's sleep makes.

The values of a row are the medians (p50) of its rounds. Its percentiles are those of all samples of all rounds: one bad
second in one round shows in p99. One worker process of ours and one of RQ's, both there from the beginning, both idle
while the other is measured. Sender, Redis and worker share the machine's cores.

Who calls this: the person who measures, and a test in a small form.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.serializers import JSONSerializer

from bench import arrivals, peer, suite
from bench.lane import Lane, numbered
from bench.machine import EVENT
from bench.suite import Result, Row
from bench.worker import ROOT, BenchError, WorkerProcess
from fsm.store.embedded import EmbeddedServer
from fsm.store.keys import Keys

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main", "measure"]

_FSMS = 30_000
_ENTITIES = 1000
# Rate -> events a round. In five rounds that is 300 samples at 10 a second, in 30 s, and 1,500 at 100.
_EVENTS = {10: 60, 100: 300, 1000: 1000}
_PEER_RATES = (10, 100)
_PING_RATES = (10, 100)
_HEADLINE = 100
_HALF_S = 1.0
_MAXIMA = 3
_WARM_UP = 20
_THREADS = 64
_CLOSED_S = 1.0
_STUCK_S = 120.0
_LOOK_S = 0.05
# A maximum this little above the rate would show how a queue grows, not a latency.
_ROOM = 1.1
_QUEUE = "bench-peer"


@dataclass(slots=True)
class _Samples:
    """What one candidate's rounds gave, in ms."""

    rounds: list[list[float]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    claimed: list[float] = field(default_factory=list)
    most_at_once: int = 1
    per_s: list[float] = field(default_factory=list)

    def more(self) -> dict[str, Any]:
        """Give the percentiles, and what explains them."""
        every = sorted(value for part in self.rounds for value in part)
        said: dict[str, Any] = {f"p{share}_ms": round(arrivals.percentile(every, share), 3) for share in (50, 90, 99)}
        said["max_ms"] = round(every[-1], 3)
        said["p99_ms_rounds"] = [round(arrivals.percentile(sorted(part), 99), 3) for part in self.rounds]
        said["samples"] = len(every)
        said["sent_per_s"] = round(median(self.per_s), 1)
        if self.late:
            said |= _two("sent_late", self.late)
            said["most_sent_at_once"] = self.most_at_once
        if self.claimed:
            said |= {**_two("until_accepted", self.accepted), **_two("until_claimed", self.claimed)}
        return said


def _two(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"{name}_p{share}_ms": round(arrivals.percentile(ordered, share), 3) for share in (50, 99)}


class _Bench:
    """One run: client, workers, and what was measured so far.

    Args:
        lane: Our client and worker.
        names: Of FSMs at rest.
        entities: Of RQ's.
        plan: Rate → events a round.
    """

    def __init__(self, lane: Lane, names: list[str], entities: list[str], plan: dict[float, int]) -> None:
        self.committed: dict[float, _Samples] = {}
        self.called: dict[float, _Samples] = {}
        self.peer: dict[float, _Samples] = {}
        self.pinged: dict[float, _Samples] = {}
        self.plan = plan
        self._lane = lane
        self._names = names
        self._entities = entities
        self._next = 0
        self._queue = Queue(_QUEUE, connection=lane.client.redis, serializer=JSONSerializer)

    def start(self, peer_worker: _PeerWorker) -> None:
        """Have all FSMs at rest, RQ's entities written, and both workers idle."""
        redis = self._lane.client.redis
        self._lane.rest(self._names)
        peer.create(redis, self._entities)
        deadline = time.monotonic() + _STUCK_S
        while not peer_worker.is_there(redis):
            if time.monotonic() > deadline:
                raise BenchError(f"RQ's worker is not there after {_STUCK_S:g} s: is the machine overloaded?")
            time.sleep(_LOOK_S)
        # Its first jobs import what they need, and wait for its first maintenance.
        now = time.time()
        warm_up = [(now, self._queue.enqueue(peer.swing, name).id) for name in self._entities[:_WARM_UP]]
        self._end(self.peer.setdefault(0, _Samples()), warm_up)

    def check(self) -> None:
        """See that what was sent was applied, by ours and by RQ.

        Raises:
            BenchError: It was not: then no figure means anything.
        """
        redis, keys = self._lane.client.redis, self._lane.client.keys
        failed = sum(redis.zcard(Keys.rq_registry("failed", queue)) for queue in (keys.default_queue, _QUEUE))
        done, sent = (
            peer.applied(redis, self._entities),
            sum(len(part) for one in self.peer.values() for part in one.rounds),
        )
        if failed or done != sent:
            raise BenchError(f"{failed} jobs failed, and RQ did {done} of {sent}: the figures mean nothing")

    def take(self, count: int) -> list[str]:
        """Give so many names, in turn: an FSM comes again after all others."""
        first = self._next % len(self._names)
        self._next += count
        return (self._names[first:] + self._names[:first])[:count]

    def drain_rate(self) -> float:
        """Give how many transitions a second the worker makes of a backlog of one event for each FSM."""
        return self._lane.drain(self._names)

    def call_rate(self, pool: ThreadPoolExecutor, seconds: float) -> float:
        """Give how many calls a second `_THREADS` threads of one client get, each calling again at once."""
        names = self.take(min(len(self._names), 200 * _THREADS))
        done: list[int] = []

        def call_on(number: int, end: float) -> None:
            count = 0
            for name in names[number::_THREADS]:
                if count and time.monotonic() > end:
                    break
                self._lane.client.call(name, EVENT)
                count += 1
            done.append(count)

        list(pool.map(lambda number: call_on(number, 0.0), range(_THREADS)))  # connections and threads are there
        done.clear()
        begin = time.monotonic()
        list(pool.map(lambda number: call_on(number, begin + seconds), range(_THREADS)))
        rate = sum(done) / (time.monotonic() - begin)
        self._drop_called()
        return rate

    def commit_at(self, rate: float, seed: str) -> float:
        """Let events come at this rate, and give the median of the ms until they are committed."""
        samples = self.committed.setdefault(rate, _Samples())
        client = self._lane.client
        names = iter(self.take(self.plan[rate]))
        sent: list[tuple[float, str]] = []
        for due, now in arrivals.due(arrivals.schedule(rate, self.plan[rate], seed)):
            if len(due) == 1:
                sent.append((due[0], client.transition(next(names), EVENT).id))
            else:
                ids = self._lane.send([next(names) for _ in due])
                sent.extend(zip(due, ids, strict=True))
            samples.late.extend((now - at) * 1000 for at in due)
            samples.most_at_once = max(samples.most_at_once, len(due))
        self._end(samples, sent)
        self._lane.forget([])
        return median(samples.rounds[-1])

    def call_at(self, rate: float, seed: str, pool: ThreadPoolExecutor) -> float:
        """Let calls come at this rate, and give the median of the ms until their outcome is here."""
        samples = self.called.setdefault(rate, _Samples())
        names = iter(self.take(self.plan[rate]))
        taken: list[float] = []
        due_at: list[float] = []

        def call(name: str, at: float) -> None:
            self._lane.client.call(name, EVENT)
            taken.append((time.time() - at) * 1000)

        calls = []
        for due, now in arrivals.due(arrivals.schedule(rate, self.plan[rate], seed)):
            calls += [pool.submit(call, next(names), at) for at in due]
            samples.late.extend((now - at) * 1000 for at in due)
            samples.most_at_once = max(samples.most_at_once, len(due))
            due_at += due
        for one in calls:
            one.result(_STUCK_S)
        samples.rounds.append(taken)
        samples.per_s.append(arrivals.rate(due_at))
        self._drop_called()
        return median(taken)

    def ping_at(self, rate: float, seed: str) -> float:
        """Let pings come at this rate, and give the median of the ms until they are answered."""
        samples = self.pinged.setdefault(rate, _Samples())
        ping = self._lane.client.redis.ping
        taken: list[float] = []
        due_at: list[float] = []
        for due, now in arrivals.due(arrivals.schedule(rate, self.plan[rate], seed)):
            for at in due:
                ping()
                taken.append((time.time() - at) * 1000)
            samples.late.extend((now - at) * 1000 for at in due)
            samples.most_at_once = max(samples.most_at_once, len(due))
            due_at += due
        samples.rounds.append(taken)
        samples.per_s.append(arrivals.rate(due_at))
        return median(taken)

    def peer_at(self, rate: float, seed: str) -> float:
        """Let jobs of RQ's come at this rate, and give the median of the ms until they have ended."""
        samples = self.peer.setdefault(rate, _Samples())
        entities = iter(self._entities)
        sent: list[tuple[float, str]] = []
        for due, now in arrivals.due(arrivals.schedule(rate, self.plan[rate], seed)):
            sent.extend((at, self._queue.enqueue(peer.swing, next(entities)).id) for at in due)
            samples.late.extend((now - at) * 1000 for at in due)
        self._end(samples, sent)
        self._lane.client.redis.unlink(Keys.rq_registry("finished", _QUEUE))
        return median(samples.rounds[-1])

    def _end(self, samples: _Samples, sent: list[tuple[float, str]]) -> None:
        """Wait until what was sent has ended, and note how long each took."""
        redis = self._lane.client.redis
        ids = [job_id for _, job_id in sent]
        deadline = time.monotonic() + _STUCK_S
        while True:
            time.sleep(_LOOK_S)
            with redis.pipeline(transaction=False) as pipeline:
                for job_id in ids:
                    pipeline.hmget(Keys.job(job_id), "enqueued_at", "started_at", "ended_at")
                replies = pipeline.execute()
            # RQ writes empty ones first.
            if all(all(times) for times in replies):
                break
            if time.monotonic() > deadline:
                raise BenchError(f"not all of {len(ids)} jobs have ended after {_STUCK_S:g} s: is the worker at work?")
        at = [due for due, _ in sent]
        enqueued, started, ended = (
            [
                (datetime.fromisoformat(times[n].decode()).timestamp() - due) * 1000
                for times, due in zip(replies, at, strict=True)
            ]
            for n in range(3)
        )
        samples.accepted += enqueued
        samples.claimed += started
        samples.rounds.append(ended)
        samples.per_s.append(arrivals.rate(at))
        redis.unlink(*map(Keys.job, ids), *map(Keys.result, ids))

    def _drop_called(self) -> None:
        """Drop the records of calls, which told nobody their ids: they stand in RQ's registry of ended jobs."""
        redis, keys = self._lane.client.redis, self._lane.client.keys
        ended = Keys.rq_registry("finished", keys.default_queue)
        ids = [job_id.decode() for job_id in redis.zrange(ended, 0, -1)]
        if ids:
            redis.unlink(*map(Keys.result, ids))
        self._lane.forget(ids)


class _PeerWorker(WorkerProcess):
    """RQ's own `SimpleWorker`, as its command line starts it, for the length of a `with` block.

    Args:
        url: Redis.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, _QUEUE)
        options = ["--quiet", "--worker-class", "rq.SimpleWorker", "--serializer", "json", "--path", str(ROOT)]
        self._arguments = ["-m", "rq.cli", "worker", *options, "--url", url, _QUEUE]

    def is_there(self, redis: Any) -> bool:
        """Tell whether it waits for jobs; it raises, with what the worker said, if that has ended."""
        return bool(self.pid and redis.scard(Keys.rq_workers(_QUEUE)))


def measure(options: argparse.Namespace) -> Result:
    """Run it all, on a Redis of its own.

    Raises:
        BenchError: A worker is stuck, or what was sent was not applied.
        StoreError: There is no server program.
    """
    fsms, plan = (_FSMS, dict(_EVENTS)) if not options.small else (300, {10: 5, 100: 20, 1000: 50})
    with (
        EmbeddedServer({"auto-aof-rewrite-percentage": "0"}) as server,
        Lane(server.url) as lane,
        _PeerWorker(server.url) as peer_worker,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        names, entities = numbered("fsm", fsms), numbered("entity", _ENTITIES)
        bench = _Bench(lane, names, entities, dict(plan))
        suite.say(f"starting {len(names):,} FSMs")
        bench.start(peer_worker)
        maxima = 1 if options.small else _MAXIMA
        drained = median(bench.drain_rate() for _ in range(maxima))
        suite.say(f"the worker drains {drained:,.0f} a second")
        called = median(bench.call_rate(pool, _CLOSED_S / (5 if options.small else 1)) for _ in range(maxima))
        suite.say(f"{_THREADS} threads get {called:,.0f} calls a second")
        half, half_calls = round(drained / 2), round(called / 2)
        for rate in (half, half_calls):
            bench.plan.setdefault(rate, min(len(names), max(10, round(rate * (0.05 if options.small else _HALF_S)))))
        # All rounds of a rate are of one length: in a small run that of the highest is much shorter.
        missing = {}
        candidates: dict[str, Callable[[int], float]] = {}
        for rate in (*plan, half):
            candidates[f"committed at {rate:,}/s"] = lambda n, rate=rate: bench.commit_at(rate, f"{rate} {n}")
        for rate in (*plan, half_calls):
            if rate * _ROOM > called and rate != half_calls:
                missing[f"call at {rate:,}/s"] = f"{_THREADS} threads of one client get {called:,.0f} a second at most"
                continue
            candidates[f"call at {rate:,}/s"] = lambda n, rate=rate: bench.call_at(rate, f"{rate} {n}", pool)
        for rate in _PING_RATES:
            candidates[f"PING at {rate:,}/s"] = lambda n, rate=rate: bench.ping_at(rate, f"{rate} {n}")
        for rate in _PEER_RATES:
            candidates[f"RQ at {rate:,}/s"] = lambda n, rate=rate: bench.peer_at(rate, f"{rate} {n}")
        missing["RQ at 1,000/s"] = "one SimpleWorker does some hundred jobs a second"
        rounds = dict.fromkeys(candidates, 0)

        def turn(name: str) -> float:
            rounds[name] += 1
            return candidates[name](rounds[name])

        suite.in_turn({name: lambda name=name: turn(name) for name in candidates}, options.rounds)
        bench.check()
        version = str(lane.client.redis.info("server")["redis_version"])
    rows = [
        *_rows("ours, enqueue to committed", bench.committed, {half: "half of what the worker drains"}),
        *_rows("ours, call round trip", bench.called, {half_calls: f"half of what {_THREADS} threads get"}),
        *_rows("RQ SimpleWorker, enqueue to ended", bench.peer, {}),
        *_rows("redis-py, PING round trip", bench.pinged, dict.fromkeys(_PING_RATES, "the floor of this machine")),
    ]
    figures = {"drained_per_s": float(round(drained)), "calls_per_s": float(round(called))}
    for prefix, measured in (
        ("", bench.committed),
        ("call_", bench.called),
        ("rq_", bench.peer),
        ("ping_", bench.pinged),
    ):
        if _HEADLINE in measured:
            more = measured[_HEADLINE].more()
            figures |= {f"{prefix}{kind}_ms_at_{_HEADLINE}": more[f"{kind}_ms"] for kind in ("p50", "p99")}
    return Result("ms, p50", rows, figures, version, missing)


def _rows(name: str, measured: dict[float, _Samples], notes: dict[float, str]) -> list[Row]:
    return [
        Row(name, {"per_s": rate}, [round(median(part), 3) for part in one.rounds], one.more(), notes.get(rate, ""))
        for rate, one in sorted(measured.items())
        if rate
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("latency", "Measure how long an event takes until it is committed.", measure, arguments)


if __name__ == "__main__":
    main()
