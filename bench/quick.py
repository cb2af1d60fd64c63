"""`python -m bench.quick [--json]`: ours and RQ's `SimpleWorker` side by side, in one run on one Redis, under 40 s.

What is compared: "take a job for one of many entities, one at a time per entity, read its hash, change its state and
its payload, write them back, record the result". Ours: one `python -m workers` with default settings, machine
`bench.machine.Pendulum`, full RQ records, index, log, locks and recovery data. RQ: `bench.peer`. Both work off a
backlog that was loaded while they did not run.

Sizes: 30,000 FSMs with one event each (some 235 claims of 128: each transition pays for a lock and a snapshot of its
own), and 1,000 FSMs with ten events each (one lock and one snapshot for up to ten). The slower one is the headline.

Rounds: ours with 30,000, RQ, ours with 1,000, RQ, and again; three rounds, five if there is time. A ratio is that of
one drain of ours and of RQ's right after it; what is printed is the median.

What is not fair. In our favour: RQ is given 300 jobs a drain (more would not fit into the time), so it is in a colder
process than ours; our commits do not yet have to remove ended records, which begins after a minute (both workers'
records are dropped between the drains). Against us: Redis writes everything to an append-only file, which costs us more
than RQ, since Redis is what limits us; so does this process, which looks every 20 ms whether the backlog is empty.

Who calls this: `make bench`, and a test in a small form. The Redis is an embedded one of its own; FSM_SERVER names
another server program. `bench.throughput` takes our side of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from bench import meter, peer, report
from bench.machine import EVENT, FIRST_COUNT, Pendulum, new_payload
from bench.worker import ROOT, BenchError, WorkerProcess
from fsm import Client, FSMError
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bench", "Plan", "main", "measure"]

_NAMESPACE = "bench"
_LARGE = 30_000
_ENTITIES = 1000
_EVENTS_OF_SMALL = 10
_PEER_JOBS = 300
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 5
# Another round is begun only if one like the longest so far ends by then: 40 s, less what a slow shutdown may take.
_ENOUGH_S = 36.0
_LOOK_S = 0.02
_STUCK_S = 60.0
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Args:
        large: FSMs of the large size, one event each.
        small: FSMs of the small size, ten events each.
        peer_jobs: Jobs of RQ in each of its drains.
        rounds: How many; `None` for three to five, as time allows.
    """

    large: int
    small: int
    peer_jobs: int
    rounds: int | None


class Bench:
    """One run: a client, our worker, and what was measured so far.

    Args:
        url: An empty Redis.
        worker: Our worker, started.
        plan: What is to be run.
    """

    def __init__(self, url: str, worker: WorkerProcess, plan: Plan) -> None:
        self.client = Client(url, namespace=_NAMESPACE)
        self.events = 0
        self._url = url
        self._worker = worker
        self._plan = plan
        self._names = [f"fsm-{n:06d}" for n in range(plan.large)]
        self._entities = [f"entity-{n:06d}" for n in range(max(plan.peer_jobs, _ENTITIES))]
        self._peer_jobs = 0

    def start(self) -> float:
        """Start all FSMs, send each of them one event, and give the bytes that one takes when it rests.

        Memory is what Redis says it uses, before and after, with all that goes by itself within a minute dropped.
        """
        redis, keys = self.client.redis, self.client.keys
        # Scripts, worker's registration and buffers are there before memory is read for the first time.
        self._settle([verdict.job_id for verdict in self.client.start_many(Pendulum, [("warm-up", new_payload())])])
        self._settle(self._send(["warm-up"]))
        self.client.purge("warm-up")
        meter.drop_traces(redis, keys)
        before = meter.settled_memory(redis)
        ids = [
            verdict.job_id
            for verdict in self.client.start_many(Pendulum, [(name, new_payload()) for name in self._names])
        ]
        ids += self._send(self._names)
        self._settle(ids)
        meter.drop_traces(redis, keys)
        after = meter.settled_memory(redis)
        peer.create(redis, self._entities)
        self.events = len(self._names)
        return (after - before) / len(self._names)

    def round(self, fsms: int, events: int) -> report.Round:
        """Drain so many events for each of so many FSMs with our worker, and then RQ's jobs with RQ's."""
        return replace(self.drain(fsms, events), rq_per_s=self._drain_peer())

    def drain(self, fsms: int, events: int) -> report.Round:
        """Drain so many events for each of so many FSMs with our worker; nothing is said of RQ."""
        redis, worker = self.client.redis, self._worker
        # The n-th event of all FSMs comes before the next one of any: as the mail of many comes in.
        names = self._names[:fsms] * events
        worker.hold()
        scripts, server = meter.script_us(redis), meter.server_us(redis)
        begin = time.perf_counter()
        ids = self._send(names)
        enqueue_per_s = len(ids) / (time.perf_counter() - begin)
        python = worker.cpu_us()
        worker.go_on()
        self._wait()
        used = None if python is None else (worker.cpu_us() or python) - python
        scripts, server = meter.script_us(redis) - scripts, meter.server_us(redis) - server
        ours_per_s = meter.rate(meter.take_spans(redis, ids))
        meter.drop_traces(redis, self.client.keys)
        self.events += len(ids)
        count = len(ids)
        return report.Round(
            fsms=fsms,
            ours_per_s=ours_per_s,
            rq_per_s=0.0,
            enqueue_per_s=enqueue_per_s,
            redis_us=scripts / count,
            server_us=server / count,
            python_us=None if used is None else used / count,
        )

    def applied(self) -> int:
        """Count what was applied, by our FSMs' payloads and versions and by the peer's payloads.

        Raises:
            BenchError: It is not what was sent: then no figure means anything.
        """
        redis, keys = self.client.redis, self.client.keys
        swings = steps = 0
        for first in range(0, len(self._names), _PAGE):
            part = self._names[first : first + _PAGE]
            with redis.pipeline(transaction=False) as pipeline:
                for name in part:
                    pipeline.hmget(keys.snapshot(name), "payload", "version")
                for payload, version in pipeline.execute():
                    swings += orjson.loads(payload)["count"] - FIRST_COUNT
                    # The entry event is a step of its own.
                    steps += int(version) - 1
        if not swings == steps == self.events:
            raise BenchError(
                f"{self.events} events were sent, and {swings} were applied in {steps} versions: look for a fault in "
                "what is measured, the figures mean nothing"
            )
        done = peer.applied(redis, self._entities)
        if done != self._peer_jobs:
            raise BenchError(f"RQ was given {self._peer_jobs} jobs and did {done}: look into bench/peer.py")
        return swings

    def _send(self, names: Sequence[str]) -> list[str]:
        verdicts = self.client.transition_many([(name, EVENT) for name in names], machine=Pendulum)
        for verdict in verdicts:
            if verdict.error is not None:
                raise verdict.error
        return [verdict.job_id for verdict in verdicts]

    def _settle(self, job_ids: Sequence[str]) -> None:
        """Wait until these are done, and drop their records."""
        self._wait()
        meter.take_spans(self.client.redis, job_ids)

    def _wait(self) -> None:
        """Wait until no FSM has mail: none is ready, none is held."""
        redis, keys = self.client.redis, self.client.keys
        deadline = time.monotonic() + _STUCK_S
        ready = keys.ready(keys.default_queue)
        while True:
            # In one transaction: an FSM between both is in one of them.
            with redis.pipeline() as pipeline:
                pipeline.zcard(ready)
                pipeline.zcard(keys.held)
                waiting, held = pipeline.execute()
            if not waiting and not held:
                return
            if time.monotonic() > deadline:
                raise BenchError(
                    f"after {_STUCK_S:g} s {waiting} FSMs still wait and {held} are held: is the worker "
                    f"(process {self._worker.pid}) at work?"
                )
            _ = self._worker.pid  # it raises, with what the worker said, if that has ended
            time.sleep(_LOOK_S)

    def _drain_peer(self) -> float:
        redis = self.client.redis
        first = self._peer_jobs % len(self._entities)
        names = (self._entities[first:] + self._entities[:first])[: self._plan.peer_jobs]
        ids = peer.enqueue(redis, names)
        command = [sys.executable, "-m", "bench.peer", self._url]
        try:
            subprocess.run(  # noqa: S603 - our own command, no shell
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=_STUCK_S, check=True
            )
        except subprocess.SubprocessError as error:
            raise BenchError(
                f"RQ's worker did not do its {len(ids)} jobs ({error}): what it said stands above"
            ) from error
        self._peer_jobs += len(ids)
        return meter.rate(meter.take_spans(redis, ids))


def measure(plan: Plan) -> dict[str, Any]:
    """Run it all, on a Redis of its own.

    Raises:
        BenchError: Something was not applied, or a worker is stuck.
        StoreError: There is no server program.
    """
    begin = time.monotonic()
    measured = report.Measured()
    # A rewrite of the append-only file takes a core for a second, at whichever drain it falls into.
    with (
        EmbeddedServer({"auto-aof-rewrite-percentage": "0"}) as server,
        WorkerProcess(server.url, _NAMESPACE) as worker,
    ):
        bench = Bench(server.url, worker, plan)
        with bench.client:
            _say(begin, f"starting {plan.large:,} FSMs (worker {worker.pid}, Redis {server.pid})")
            measured.idle_fsm_bytes = bench.start()
            count, longest = 0, 0.0
            while _goes_on(plan, count, time.monotonic() - begin + longest):
                since = time.monotonic()
                for fsms, events in ((plan.large, 1), (plan.small, _EVENTS_OF_SMALL)):
                    one = bench.round(fsms, events)
                    measured.rounds.append(one)
                    _say(begin, f"round {count + 1}, {fsms:,} FSMs: {one.ours_per_s:,.0f}/s, RQ {one.rq_per_s:,.0f}/s")
                count += 1
                longest = max(longest, time.monotonic() - since)
            applied = bench.applied()
            version = str(bench.client.redis.info("server")["redis_version"])
    return {
        **report.figures(measured),
        "about": {
            **report.about(version),
            "rounds": count,
            "events": bench.events,
            "applied": applied,
            "seconds": round(time.monotonic() - begin, 1),
        },
    }


def _goes_on(plan: Plan, count: int, ends_at: float) -> bool:
    if plan.rounds is not None:
        return count < plan.rounds
    return count < _LEAST_ROUNDS or (count < _MOST_ROUNDS and ends_at < _ENOUGH_S)


def _say(begin: float, text: str) -> None:
    print(f"{time.monotonic() - begin:5.1f} s  {text}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    parser = argparse.ArgumentParser(prog="python -m bench.quick", description="Measure speed and memory, under 40 s.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--fsms", type=_positive, default=_LARGE, help="FSMs of the large size (30000)")
    parser.add_argument("--rounds", type=_positive, help="how many (3 to 5, as many as fit into 40 s)")
    options = parser.parse_args(arguments)
    plan = Plan(
        large=options.fsms,
        small=min(options.fsms, max(10, options.fsms * _ENTITIES // _LARGE)),
        peer_jobs=min(_PEER_JOBS, options.fsms),
        rounds=options.rounds,
    )
    try:
        result = measure(plan)
    except FSMError as error:
        sys.exit(f"bench: {error}")
    print(orjson.dumps(result).decode() if options.json else report.table(result))


if __name__ == "__main__":
    main()
