"""`python -m bench.quick [--json]`: ours and RQ's `SimpleWorker` side by side, in one run on one Redis, under 40 s.

What is compared: "take a job for one of many entities, one at a time per entity, read its hash, change its state and
its payload, write them back, record the result". Ours: one `python -m workers` with default settings, machine
`bench.machine.Pendulum`, full RQ records, index, log, locks and recovery data. RQ: `bench.peer`. Both work off a
backlog that was loaded while they did not run.

Sizes: 30,000 FSMs with one event each (some 235 claims of 128: each transition pays for a lock and a snapshot of its
own), and 1,000 FSMs with ten events each (one lock and one snapshot for up to ten). The slower one is the headline.

Rounds: ours with 30,000, RQ, ours with 1,000, and again; three rounds, five if there is time. A ratio is that of one
drain of ours and of RQ's right after it, or right before it; what is printed is the median.

What is not fair. In our favour: RQ is given 200 jobs a drain (more would not fit into the time), so it is in a colder
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
from bench.lane import Lane, numbered
from bench.machine import EVENT
from bench.worker import ROOT, BenchError
from fsm import FSMError
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bench", "Plan", "main", "measure"]

_LARGE = 30_000
_ENTITIES = 1000
_EVENTS_OF_SMALL = 10
_PEER_JOBS = 200
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 5
# Another round is begun only if one like the longest so far ends by then: 40 s, less what a slow shutdown may take.
_ENOUGH_S = 36.0
_STUCK_S = 60.0
# Of FSMs in the small form.
_TINY = 300


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
    """One run: our FSMs with their worker, RQ's entities, and how many events were sent so far.

    Args:
        lane: Ours, with one worker, on an empty Redis.
        plan: What is to be run.
    """

    def __init__(self, lane: Lane, plan: Plan) -> None:
        self.events = 0
        # Of Redis memory, what one takes when it rests; 0 until the first round.
        self.idle_fsm_bytes = 0.0
        self._empty = 0
        self._lane = lane
        self._plan = plan
        self._names = numbered("fsm", plan.large)
        self._entities = numbered("entity", max(plan.peer_jobs, _ENTITIES))
        self._peer_jobs = 0

    def start(self) -> None:
        """Start all FSMs, and send those of the small size events, as to a worker that is to be warm."""
        lane, redis = self._lane, self._lane.client.redis
        peer.create(redis, self._entities)
        # Scripts, worker's registration and buffers are there before memory is read for the first time.
        lane.rest(["warm-up"])
        job = lane.client.transition("warm-up", EVENT)
        lane.work_off()
        lane.client.purge("warm-up")
        lane.forget([job.id])
        self._empty = meter.settled_memory(redis)
        lane.populate(self._names)
        self.drain(self._plan.small, _EVENTS_OF_SMALL)

    def round(self) -> list[report.Round]:
        """Drain both sizes with our worker, and RQ's jobs with RQ's between them, so that it is beside either."""
        large = self.drain(self._plan.large, 1)
        if not self.idle_fsm_bytes:
            # Each has had an event and rests, and what goes by itself within a minute is dropped.
            used = meter.settled_memory(self._lane.client.redis) - self._empty
            self.idle_fsm_bytes = used / len(self._names)
        rq_per_s = self._drain_peer()
        small = self.drain(self._plan.small, _EVENTS_OF_SMALL)
        return [replace(one, rq_per_s=rq_per_s) for one in (large, small)]

    def drain(self, fsms: int, events: int) -> report.Round:
        """Drain so many events for each of so many FSMs with our worker; nothing is said of RQ."""
        lane, redis, worker = self._lane, self._lane.client.redis, self._lane.worker
        # The n-th event of all FSMs comes before the next one of any: as the mail of many comes in.
        names = self._names[:fsms] * events
        lane.hold()
        scripts, server = meter.script_us(redis), meter.server_us(redis)
        begin = time.perf_counter()
        ids = lane.send(names)
        enqueue_per_s = len(ids) / (time.perf_counter() - begin)
        python = worker.cpu_us()
        lane.work_off()
        used = None if python is None else (worker.cpu_us() or python) - python
        scripts, server = meter.script_us(redis) - scripts, meter.server_us(redis) - server
        ours_per_s = meter.rate(meter.take_spans(redis, ids))
        lane.forget([])
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
        applied = self._lane.check()
        done = peer.applied(self._lane.client.redis, self._entities)
        if done != self._peer_jobs:
            raise BenchError(f"RQ was given {self._peer_jobs} jobs and did {done}: look into bench/peer.py")
        return applied

    def _drain_peer(self) -> float:
        redis = self._lane.client.redis
        first = self._peer_jobs % len(self._entities)
        names = (self._entities[first:] + self._entities[:first])[: self._plan.peer_jobs]
        ids = peer.enqueue(redis, names)
        command = [sys.executable, "-m", "bench.peer", self._lane.url]
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
        Lane(server.url) as lane,
    ):
        bench = Bench(lane, plan)
        _say(begin, f"starting {plan.large:,} FSMs (worker {lane.worker.pid}, Redis {server.pid})")
        bench.start()
        count, longest = 0, 0.0
        while _goes_on(plan, count, time.monotonic() - begin + longest):
            since = time.monotonic()
            both = bench.round()
            measured.rounds += both
            count += 1
            ours = ", ".join(f"{one.fsms:,} FSMs {one.ours_per_s:,.0f}/s" for one in both)
            _say(begin, f"round {count}: {ours}, RQ {both[0].rq_per_s:,.0f}/s")
            longest = max(longest, time.monotonic() - since)
        measured.idle_fsm_bytes = bench.idle_fsm_bytes
        applied = bench.applied()
        version = str(lane.client.redis.info("server")["redis_version"])
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
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that it works, measures nothing")
    options = parser.parse_args(arguments)
    large = min(options.fsms, _TINY) if options.small else options.fsms
    plan = Plan(
        large=large,
        small=min(large, max(10, large * _ENTITIES // _LARGE)),
        peer_jobs=min(_PEER_JOBS, large),
        rounds=options.rounds,
    )
    try:
        result = measure(plan)
    except FSMError as error:
        sys.exit(f"bench: {error}")
    print(orjson.dumps(result).decode() if options.json else report.table(result))


if __name__ == "__main__":
    main()
