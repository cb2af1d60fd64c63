"""`python -m bench.timers [--json] [--save]`: how late what is due comes, and what it costs to arm a million timers.

Lateness. Events with a time of their own are armed while the workers are held; then these are let go, and are idle but
for what becomes due, by a schedule drawn from a fixed seed (exponential gaps, so that all runs get the same), each for
another FSM at rest. `fired` is when the event joined its mailbox, `committed` is `ended_at`, both by the clock of
Redis, as is the time at which it was due: nothing of this process is in the figures. The rates: 1, 100 and 1,000 a
second, with one worker process and with two. At 1 a second Redis itself is at rest in between: nobody's commands bring
it round to what waits in it.

`sent late in a sleep`: each event is sent with a delay of 100 ms to an idle worker, at a random moment of its sleep of
a second. Nobody looks just then, so somebody has to be woken.

Arming. `bench.machine.Wound` arms a timer of 30 days with every second swing, and takes it away with the next. What a
swing to and fro costs Redis, in µs of its scripts, is measured of the same thousand FSMs with no other timer armed, and
with as many as there are FSMs; `Pendulum`, which has no timer, beside it, in the same Redis. The bytes of a timer are
what Redis's memory grows by from all FSMs on the left to all on the right, divided by their number: the entry in the
snapshot, the member of `timers`, and what their growth costs; with the configuration that we recommend, and `plain`
with Redis's own, where a snapshot with 100 bytes of payload is a hash table. Payloads are 100 to 227 bytes long here:
Redis's allocator gives memory in steps, and it is the mean that a timer costs.

Who calls this: the person who measures, and a test in a small form.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import arrivals, meter, suite
from bench.lane import Lane, numbered
from bench.machine import EVENT, Pendulum, Wound
from bench.suite import Result, Row
from bench.worker import BenchError
from fsm.store import calls, codec
from fsm.store.embedded import EmbeddedServer
from fsm.store.keys import Keys
from fsm.store.requests import run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main", "measure"]

# Rate -> events a round: 5 s and more of each, but for the slow one.
_EVENTS = {1: 6, 100: 500, 1000: 5000}
_SMALL_EVENTS = {100: 20, 1000: 200}
_HEADLINE = 1000
_SHORT = 8
_DELAY_S = 0.1
_SLEEP_S = 1.0
# Armed so long before the first is due: all are armed by then, and the workers have slept.
_AHEAD_S = 1.5
_PAGE = 1000
_STUCK_S = 120.0
_TIMERS = 1_000_000
_SMALL_TIMERS = 3000
_SAMPLE = 1000
_PORTION = 100_000
_LOOK_S = 0.05
# Lengths of payloads, over which the bytes of a timer are averaged: twice the step of Redis's allocator between 256 and
# 512 bytes, where these snapshots are.
_SPREAD = 128


@dataclass(slots=True)
class _Samples:
    """How late one candidate's events were, in ms."""

    rounds: list[list[float]] = field(default_factory=list)
    fired: list[float] = field(default_factory=list)

    def more(self) -> dict[str, Any]:
        """Give the percentiles, and those of the first half of the way."""
        every, fired = sorted(value for part in self.rounds for value in part), sorted(self.fired)
        said: dict[str, Any] = {f"p{share}_ms": round(arrivals.percentile(every, share), 3) for share in (50, 90, 99)}
        said |= {"max_ms": round(every[-1], 3), "samples": len(every)}
        said |= {f"fired_p{share}_ms": round(arrivals.percentile(fired, share), 3) for share in (50, 99)}
        return said


def _fire(lane: Lane, names: Sequence[str], rate: float, samples: _Samples, seed: str) -> float:
    """Arm events by a schedule, and give the median of the ms by which they were committed late."""
    redis, keys = lane.client.redis, lane.client.keys
    schedule = arrivals.schedule(rate, len(names), seed)
    ids = codec.new_ids(len(names))
    seconds, us = redis.time()
    begin = seconds * 1000 + us // 1000 + round(_AHEAD_S * 1000) + len(names) // 20
    due = [begin + round(at * 1000) for at in schedule]
    letters = [
        calls.Letter(name, job_id, EVENT, more=("due", str(at)))
        for name, job_id, at in zip(names, ids, due, strict=True)
    ]
    for first in range(0, len(letters), _PAGE):
        words = run(redis, calls.send(keys, letters[first : first + _PAGE]))
        if set(words) != {"SENT"}:
            raise BenchError(f"events with a delay were not accepted: {sorted(set(words))}")
    return _end(lane, ids, due, samples)


def _fire_soon(lane: Lane, names: Sequence[str], samples: _Samples, chance: random.Random) -> float:
    """Send each a moment before it is due, to a worker that sleeps, and give the same."""
    redis = lane.client.redis
    ids, due = [], []
    for name in names:
        time.sleep(chance.uniform(0.3, 0.3 + _SLEEP_S))
        ids.append(lane.client.transition(name, EVENT, delay=_DELAY_S).id)
        # Soon gone: it is read at once.
        due.append(int(redis.hget(Keys.job(ids[-1]), "due") or 0))
    if not all(due):
        raise BenchError("an event with a delay of 100 ms was due before it could be looked at")
    return _end(lane, ids, due, samples)


def _end(lane: Lane, ids: Sequence[str], due: Sequence[int], samples: _Samples) -> float:
    """Wait until all have ended, and note by how many ms each was late."""
    redis = lane.client.redis
    deadline = time.monotonic() + _STUCK_S
    left, late = list(zip(ids, due, strict=True)), []
    while left:
        time.sleep(_LOOK_S)
        # The last is due last; the rest is read when that is done.
        if not redis.hexists(Keys.job(left[-1][0]), "ended_at"):
            if time.monotonic() > deadline:
                raise BenchError(
                    f"not all of {len(ids)} events have ended after {_STUCK_S:g} s: is the worker at work?"
                )
            continue
        part, left = left[-_PAGE:], left[:-_PAGE]
        with redis.pipeline(transaction=False) as pipeline:
            for job_id, _ in part:
                pipeline.hmget(Keys.job(job_id), "enqueued_at", "ended_at")
            replies = pipeline.execute()
        for (job_id, at), times in zip(part, replies, strict=True):
            if not all(times):
                left.append((job_id, at))
                continue
            fired, ended = (datetime.fromisoformat(text.decode()).timestamp() * 1000 - at for text in times)
            samples.fired.append(fired)
            late.append(ended)
    samples.rounds.append(late)
    lane.forget(ids)
    return median(late)


def _lateness(server: EmbeddedServer, options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """Measure how late events come, with one worker and with two."""
    plan = _SMALL_EVENTS if options.small else _EVENTS
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for workers in (1,) if options.small else (1, 2):
        with Lane(server.url, f"late{workers}", workers=workers) as lane:
            names = numbered("fsm", max(plan.values()))
            lane.rest(names)
            # All are woken while they work; from here on they are idle.
            lane.await_workers()
            measured = {rate: _Samples() for rate in plan}
            soon, chance = _Samples(), random.Random("sleep")
            short = names[: 2 if options.small else _SHORT]
            for number in range(options.rounds):
                for rate, count in plan.items():
                    late = _fire(lane, names[:count], rate, measured[rate], f"{rate} {number}")
                    suite.say(f"round {number + 1}, {workers} workers, {rate:,} a second: {late:.1f} ms late")
                suite.say(f"round {number + 1}, sent in a sleep: {_fire_soon(lane, short, soon, chance):.1f} ms late")
        for rate, samples in measured.items():
            rows.append(_row("due", {"per_s": rate, "workers": workers}, samples))
        rows.append(_row("sent late in a sleep", {"per_s": 1, "workers": workers}, soon))
        if workers == 1:
            more = measured[_HEADLINE].more()
            figures |= {f"{kind}_ms_at_{_HEADLINE}": more[f"{kind}_ms"] for kind in ("p50", "p99", "max")}
            figures["p99_ms_alone"] = measured[min(plan)].more()["p99_ms"]
            figures["p99_ms_in_a_sleep"] = soon.more()["p99_ms"]
    return rows, figures


def _swing(lane: Lane, names: Sequence[str]) -> float:
    """Let each swing once, and give the µs that Redis spent in scripts for one of them."""
    redis = lane.client.redis
    lane.hold()
    ids = lane.send(names)
    before = meter.script_us(redis)
    lane.work_off()
    spent = meter.script_us(redis) - before
    lane.forget(ids)
    return spent / len(names)


def _size(lane: Lane, names: Sequence[str]) -> float:
    """Start FSMs, arm a timer of each, and give the bytes that one takes."""
    redis = lane.client.redis
    portions = [names[first : first + _PORTION] for first in range(0, len(names), _PORTION)]
    for part in portions:
        lane.rest(part)
    before = meter.settled_memory(redis)
    for part in portions:
        _swing(lane, part)
    size = (meter.settled_memory(redis) - before) / len(names)
    there = redis.zcard(lane.client.keys.timers)
    if there != len(names):
        raise BenchError(f"{there} timers are armed, not {len(names)}: what did the worker do?")
    suite.say(f"{there:,} timers armed, {size:.0f} bytes each")
    return size


def _arming(server: EmbeddedServer, options: argparse.Namespace) -> dict[str, float]:
    """Measure what timers cost: with none beside, and with as many as there are FSMs."""
    count = _SMALL_TIMERS if options.small else options.timers
    with (
        Lane(server.url, "plain", Pendulum) as plain,
        Lane(server.url, "armed", Wound, app="bench.machine", spread=_SPREAD) as armed,
    ):
        names = numbered("fsm", count)
        sample, rest = names[:_SAMPLE], names[_SAMPLE:]
        plain.rest(sample)
        armed.rest(sample)
        costs: dict[tuple[str, int], list[float]] = {}

        def measure_both(others: int) -> None:
            for number in range(options.rounds):
                for name, lane in (("no timer", plain), ("arming, then taking away", armed)):
                    us = (_swing(lane, sample) + _swing(lane, sample)) / 2
                    costs.setdefault((name, others), []).append(round(us, 2))
                    suite.say(f"round {number + 1}, {others:,} others armed, {name}: {us:.1f} µs a swing")

        measure_both(0)
        size = _size(armed, rest)
        measure_both(len(rest))
    of = {key: median(values) for key, values in costs.items()}
    few, many = (of["arming, then taking away", others] for others in (0, len(rest)))
    return {
        "timer_bytes": round(size, 1),
        "swing_us_no_timer": round(of["no timer", 0], 2),
        "swing_us_no_timer_among_all": round(of["no timer", len(rest)], 2),
        "swing_us_timer": round(few, 2),
        "swing_us_timer_among_all": round(many, 2),
        "timers_armed": float(len(rest)),
        # What else the growth of Redis costs, costs both.
        "among_all_against_alone": round(many / few / (of["no timer", len(rest)] / of["no timer", 0]), 3),
    }


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timers", type=int, default=_TIMERS, help=f"how many are armed ({_TIMERS:,})")


def _row(name: str, setting: dict[str, Any], samples: _Samples) -> Row:
    return Row(name, setting, [round(median(part), 3) for part in samples.rounds], samples.more())


def measure(options: argparse.Namespace) -> Result:
    """Run it all, on a Redis of its own.

    Raises:
        BenchError: A worker is stuck, or something was not accepted.
        StoreError: There is no server program.
    """
    with EmbeddedServer({"auto-aof-rewrite-percentage": "0"}) as server:
        rows, figures = _lateness(server, options)
    with (
        EmbeddedServer({"auto-aof-rewrite-percentage": "0", "hash-max-ziplist-value": "64"}) as server,
        Lane(server.url, "plain", Wound, spread=_SPREAD) as lane,
    ):
        plain = _size(lane, numbered("fsm", _SAMPLE if options.small else min(options.timers, _PORTION)))
    with EmbeddedServer({"auto-aof-rewrite-percentage": "0", "hash-max-ziplist-value": "1024"}) as server:
        costs = {**_arming(server, options), "timer_bytes_plain": round(plain, 1)}
        with Lane(server.url) as lane:
            version = str(lane.client.redis.info("server")["redis_version"])
    return Result("ms late, p50", rows, figures | costs, version)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("timers", "Measure how late timers fire, and what they cost.", measure, arguments, options=_options)


if __name__ == "__main__":
    main()
