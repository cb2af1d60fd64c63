"""`python -m bench.scale`: what grows with the number of FSMs, of events and of workers.

**Size.** Three servers hold 1,000, 100,000 and 1,000,000 FSMs. The same work is done in each: 1,000 FSMs, drawn by
chance from all that are there, get ten events each (one lock and one snapshot for up to ten), and then again and again
1,000 others get one (each transition pays for a lock and a snapshot of its own). What may differ is only what size
does: deeper indexes, colder memory. Bytes of an FSM are what Redis uses more than when it was empty, when all that goes
by itself within a minute is dropped.

**Views.** What is asked of all FSMs at once, in the largest size and while it rests: how many there are, any one of
them, the host of a name, and page after page of a hundred; medians of what the caller waits.

**Backlog.** All FSMs of the largest size are started before the worker begins, so their entry events wait, as many jobs
as FSMs: how fast that backlog shrinks in its first tenth, after the first moments, and in its last, and what Redis
takes for a claim there and then. From its 60th second on, commits also remove the records that ended a minute before,
as they always do under lasting load.

**Hot FSM.** One FSM with 100,000 events, which nothing can make parallel.

**Workers.** The same backlog for 1, 2 and 4 worker processes. On two cores, Redis needs one of them nearly to itself,
and one worker the other: more workers share what is left. It shows that they do not hinder each other, not how far
they would carry on a larger machine.

**Claim ahead.** A worker as it is, and one that never sends a claim while the former batch is run.

Who calls this: a person, `make bench`, and a test in a small form. The Redis are embedded ones of its own.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bench import meter, suite
from bench.lane import QUIET, Lane, numbered
from bench.machine import Hot
from bench.suite import Result, Row, say
from bench.worker import BenchError
from fsm.store.embedded import EmbeddedServer
from fsm.store.requests import script

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    import redis

    from fsm import Client

__all__ = ["main", "measure"]

_SIZES = (1000, 100_000, 1_000_000)
_SAMPLE = 1000
_EVENTS_EACH = 10
_HOT_EVENTS = 100_000
_CROWD = 20_000
_WORKERS = (1, 2, 4)
# A rewrite of the append-only file takes a core for seconds, at whichever round it falls into.
_OPTIONS = {"auto-aof-rewrite-percentage": "0"}
_LOOK_S = 0.05
# The parts of a backlog that count as its beginning and its end. Its first moments are those of a cold worker, and at
# the very end batches are no longer full.
_BEGINNING = (0.02, 0.10)
_END = (0.90, 0.98)
# Redis is asked to note commands that take at least so many µs: whole scripts, not what is called in them.
_NOTED_US = 200
_MOST_NOTED = 2000
# A page of so many; and how often each view is asked for.
_PAGE = 100
_VIEWS = 300
# `_FLOW` is the size of a claim from which on the next one is sent ahead.
_NEVER_AHEAD = """
from workers import intake
from workers.__main__ import run
intake._FLOW = 10**9
run()
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Args:
        sizes: Numbers of FSMs, growing.
        sample: FSMs that get events in each size.
        batches: How often as many FSMs get one event each, in a round.
        hot_events: Events of the hot FSM.
        crowd: FSMs with an event each, for workers.
        workers: Numbers of them.
        rounds: How many.
    """

    sizes: tuple[int, ...]
    sample: int
    batches: int
    hot_events: int
    crowd: int
    workers: tuple[int, ...]
    rounds: int


@dataclass(slots=True)
class Size:
    """One number of FSMs, in a lane of its own on a server of its own.

    Args:
        lane: With all of them.
        names: Theirs.
        bytes_each: Of Redis memory at rest.
    """

    lane: Lane
    names: list[str]
    bytes_each: float = 0.0

    def start(self) -> list[Row]:
        """Start all of them, let the worker apply their entry events, and say how that backlog went.

        Raises:
            BenchError: Not all of them are in their first state then.
        """
        client = self.lane.client.redis
        self.lane.await_workers()
        # Scripts and buffers are there before memory is read for the first time.
        self.lane.populate(["warm-up"])
        self.lane.spans(["warm-up"] * 10)
        meter.drop_traces(client, self.lane.client.keys)
        empty = meter.settled_memory(client)
        rows = _backlog(self.lane, self.names, empty)
        self.bytes_each = (meter.settled_memory(client) - empty) / len(self.names)
        there = client.zcard(self.lane.client.keys.state("Pendulum", "left"))
        if there != len(self.names) + 1:  # the one that warmed up
            raise BenchError(f"{len(self.names)} FSMs were started, and {there - 1} are in their first state")
        return rows

    def many(self, sample: int, events: int) -> float:
        """Give the rate at which so many FSMs of all these apply so many events each."""
        return self.lane.drain(random.sample(self.names, sample) * events)

    def singles(self, sample: int, batches: int) -> float:
        """Give the rate at which FSMs of all these apply one event each, so many FSMs at once, so often."""
        rates = [self.lane.drain(random.sample(self.names, sample)) for _ in range(batches)]
        return len(rates) / sum(1 / rate for rate in rates)


def measure(options: argparse.Namespace) -> Result:
    """Run it all.

    Raises:
        BenchError: Something was not applied, or a worker is stuck.
        StoreError: There is no server program.
    """
    plan = _plan(options)
    rows, figures, version = _sizes(plan)
    with ExitStack() as stack:
        url = stack.enter_context(EmbeddedServer(_OPTIONS)).url
        hot = stack.enter_context(Lane(url, "hot", Hot, options=QUIET))
        lanes = {
            str(count): stack.enter_context(Lane(url, f"of-{count}", workers=count, options=QUIET))
            for count in plan.workers
        }
        tardy = stack.enter_context(Lane(url, "tardy", options=QUIET, program=("-c", _NEVER_AHEAD)))
        names = numbered("fsm", plan.crowd)
        for lane in (*lanes.values(), tardy):
            lane.await_workers()
            lane.populate(names)
        hot.await_workers()
        hot.populate(names[:1])
        values = suite.in_turn(
            {
                "one hot FSM": lambda: hot.drain(names[:1] * plan.hot_events),
                **{f"{count} workers": lambda lane=lane: lane.drain(names) for count, lane in lanes.items()},
                "claim ahead off": lambda: tardy.drain(names),
            },
            plan.rounds,
        )
        say(f"checked: {sum(lane.check() for lane in (hot, tardy, *lanes.values())):,} events were applied")
    alone = values["1 workers"]
    rows.append(Row("one hot FSM", {"FSMs": 1, "events each": plan.hot_events}, values["one hot FSM"]))
    for count in plan.workers:
        shares = _ratios(values[f"{count} workers"], alone)
        more = {} if count == 1 else {"against one": round(median(shares), 2)}
        rows.append(Row("workers", {"workers": count, "FSMs": plan.crowd}, values[f"{count} workers"], more))
        if count > 1:
            figures[f"{_in_words(count)}_workers_against_one"] = round(median(shares), 2)
    ahead = round(median(_ratios(alone, values["claim ahead off"])), 2)
    rows += [
        Row("next claim sent ahead", {"workers": 1, "FSMs": plan.crowd}, alone, {"against waiting": ahead}),
        Row("next claim waits for the batch", {"workers": 1, "FSMs": plan.crowd}, values["claim ahead off"]),
    ]
    figures["hot_fsm_per_s"] = round(median(values["one hot FSM"]))
    figures["claim_ahead_against_waiting"] = ahead
    return Result("transitions a second", rows, figures, version)


def _sizes(plan: Plan) -> tuple[list[Row], dict[str, float], str]:
    with ExitStack() as stack:
        sizes: dict[int, Size] = {}
        waiting: list[Row] = []
        for count in plan.sizes:
            url = stack.enter_context(EmbeddedServer(_OPTIONS)).url
            size = sizes[count] = Size(stack.enter_context(Lane(url, options=QUIET)), numbered("fsm", count))
            say(f"starting {count:,} FSMs, whose entry events wait")
            waiting = size.start()
            say(f"{count:,} FSMs: {size.bytes_each:.0f} bytes each")
        candidates = {}
        for count, size in sizes.items():
            candidates[f"{count:,} FSMs, {_EVENTS_EACH} events each"] = lambda size=size: size.many(
                plan.sample, _EVENTS_EACH
            )
            candidates[f"{count:,} FSMs, 1 event each"] = lambda size=size: size.singles(plan.sample, plan.batches)
        values = suite.in_turn(candidates, plan.rounds)
        say(f"checked: {sum(size.lane.check() for size in sizes.values()):,} events were applied")
        views = _views(sizes[plan.sizes[-1]].lane.client)
        version = str(sizes[plan.sizes[0]].lane.client.redis.info("server")["redis_version"])
    rows, shares = [], []
    for events, words in ((_EVENTS_EACH, f"{_EVENTS_EACH} events each"), (1, "1 event each")):
        smallest = values[f"{plan.sizes[0]:,} FSMs, {words}"]
        for count in plan.sizes:
            found = values[f"{count:,} FSMs, {words}"]
            share = round(median(_ratios(found, smallest)), 2)
            more = {f"against {plan.sizes[0]:,}": share, "bytes an FSM": round(sizes[count].bytes_each)}
            rows.append(Row("a sample of all FSMs", {"FSMs": count, "events each": events}, found, more))
        shares.append(share)
    is_target = (plan.sizes[0], plan.sizes[-1]) == (_SIZES[0], _SIZES[-1])
    figures = {
        # The worse of the two kinds of work.
        "million_against_thousand" if is_target else "largest_against_smallest": min(shares),
        "bytes_each_fsm": round(sizes[plan.sizes[-1]].bytes_each),
        **{f"{'million' if is_target else 'largest'}_{view}_ms": took for view, took in views.items()},
        "backlog_end_against_beginning": round(waiting[-1].median / waiting[-2].median, 2),
    }
    return rows + waiting, figures, version


def _views(client: Client) -> dict[str, float]:
    """Give what the caller waits for each view of all FSMs, in ms."""
    cursor = ""

    def turn() -> None:
        nonlocal cursor
        cursor = client.all(cursor=cursor, count=_PAGE).cursor

    return {
        "count": _took_ms(client.count),
        "random": _took_ms(client.random),
        "whois": _took_ms(lambda: client.whois("fsm-1")),
        "page_of_all": _took_ms(turn),
    }


def _took_ms(ask: Callable[[], object]) -> float:
    took = []
    for _ in range(_VIEWS):
        begin = perf_counter()
        ask()
        took.append(1000 * (perf_counter() - begin))
    return round(median(took), 2)


def _backlog(lane: Lane, names: Sequence[str], empty: int) -> list[Row]:
    """Start FSMs, let the worker apply their entry events, and look at the beginning and at the end of that."""
    client = lane.client.redis
    lane.hold()
    ids = lane.start(names)
    waiting = meter.settled_memory(client)
    client.config_set("slowlog-max-len", _MOST_NOTED)
    client.config_set("slowlog-log-slower-than", _NOTED_US)
    lane.go_on()
    looks: list[tuple[float, int]] = []
    claims: dict[tuple[float, float], float] = {}
    spans = [_BEGINNING, _END]
    for at, left in lane.waiting(_LOOK_S):
        looks.append((at, left))
        done = 1 - left / len(names)
        if spans and done < spans[0][0]:
            client.slowlog_reset()
        elif spans and done > spans[0][1]:
            claims[spans.pop(0)] = _claim_ms(client)
    client.config_set("slowlog-log-slower-than", -1)
    say(f"a backlog of {len(names):,} took {looks[-1][0] - looks[0][0]:.1f} s")
    lane.forget(ids)
    more = {"bytes an FSM with its waiting job": round((waiting - empty) / len(names))}
    return [
        Row(
            name,
            {"FSMs": len(names), "events each": 1},
            [_rate(looks, len(names), part)],
            {**more, "ms of Redis for a claim": round(claims.get(part, 0.0), 2)},
        )
        for name, part in (("a backlog at its beginning", _BEGINNING), ("a backlog at its end", _END))
    ]


def _rate(looks: Sequence[tuple[float, int]], count: int, part: tuple[float, float]) -> float:
    """Give jobs per second while a backlog of so many shrank from one share to another.

    >>> _rate([(0.0, 1000), (1.0, 900), (2.0, 700), (3.0, 500), (4.0, 0)], 1000, (0.10, 0.50))
    200.0
    """
    inside = [look for look in looks if part[0] <= 1 - look[1] / count <= part[1]]
    if len(inside) < 2:  # noqa: PLR2004 - a line through two points
        # So small that it was over between two looks: the whole of it, then.
        inside = [looks[0], looks[-1]]
    (begin, first), (end, last) = inside[0], inside[-1]
    return (first - last) / max(end - begin, 1e-6)


def _claim_ms(client: redis.Redis) -> float:
    """Give the median of what claims took of late, in ms; 0 where none was so slow as to be noted."""
    sha = script("claim")[1].encode()
    noted = [one["duration"] / 1000 for one in client.slowlog_get(_MOST_NOTED) if sha in one["command"]]
    return median(noted) if noted else 0.0


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(values, others, strict=True)]


def _in_words(count: int) -> str:
    return {2: "two", 4: "four"}.get(count, str(count))


def _plan(options: argparse.Namespace) -> Plan:
    if options.small:
        return Plan((100, 300), sample=50, batches=2, hot_events=500, crowd=200, workers=(1, 2), rounds=options.rounds)
    sizes = (*(size for size in _SIZES if size < options.large), options.large)
    if sizes[0] < _SAMPLE:
        raise BenchError(f"--large {options.large} is less than {_SAMPLE}: so many FSMs get events in each size")
    return Plan(
        sizes,
        sample=_SAMPLE,
        batches=5,
        hot_events=_HOT_EVENTS,
        crowd=_CROWD,
        workers=_WORKERS,
        rounds=options.rounds,
    )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--large", type=int, default=_SIZES[-1], metavar="N", help=f"FSMs of the largest size ({_SIZES[-1]})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("scale", "Measure what grows with FSMs, events and workers.", measure, arguments, options=_options)


if __name__ == "__main__":
    main()
