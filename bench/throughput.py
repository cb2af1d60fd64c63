"""`python -m bench.throughput [--json] [--save]`: one worker process of ours beside the queues one would use instead.

The same work for all: take a job for one of many entities, one at a time per entity, read its hash, change its state
and its payload, write them back, record the result. Ours is `python -m workers` with default settings; the peers are in
`bench.peers.catalogue`, most with two processes where we have one. Sizes: 30,000 entities, where each of our FSMs has
one event waiting, and 1,000, where each has ten.

Rounds: ours, half of the peers, ours, the other half, and again. A ratio is that of one drain of a peer and of our
drain of the same size before it. What stands in the figures is the median over the rounds, of the size at which it is
smaller.

How rates are read: ours from the times in the job records, from the first that began to the last commit but one
(`bench.meter`); the peers' from looks at how many jobs have written their entity, from a twentieth of them to the last
look at which some were undone (`bench.peers.drain`). At the end every entity and every FSM is read: it was changed as
often as it was to be, or the figure is none.

A peer that is not installed or that fails is named as missing, with the reason. All are in one Redis of the
benchmark's own, by TCP, with an append-only file. What a peer did twice (they promise at least once) is told.

Who calls this: `make bench`, and a test in the small form.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from bench import ceiling, quick
from bench.lane import Lane
from bench.peers import environment
from bench.peers.catalogue import PEERS
from bench.peers.drain import Book, Drain
from bench.suite import Result, Row, main, say
from bench.worker import BenchError
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bench.peers.catalogue import Peer
    from bench.peers.environment import Environment

__all__ = ["measure"]

_OURS = "fsm-workers"
_EVENTS = {30_000: 1, 1000: 10}
_SMALL_EVENTS = {200: 1, 20: 5}
# A drain of a peer: long enough for the looks, short enough for all of them in five rounds.
_DRAIN_S = 2.5
_SMALL_JOBS = 60
# What a second drain is made of, at the most: the first guess may have been far off.
_MOST_JOBS = 40_000
# `redis-benchmark` counts milliseconds: 60 requests may take none, and then it answers `inf`.
_BENCHMARK_REQUESTS, _SMALL_REQUESTS = 300_000, 10_000
_TARGETS = {
    "rq": "against_rq_simple",
    "python": "against_best_python_queue",
    "bullmq": "against_bullmq_100_without_lock",
}


@dataclass(slots=True)
class Measured:
    """What a run has found so far.

    Args:
        ours: Rates of ours, by size.
        peers: Rates of a peer, by name and size.
        ratios: Ours through theirs, by name and size.
        twice: How many jobs a peer did once too often, by name.
        missing: Who could not be measured, and why.
    """

    ours: dict[int, list[float]]
    peers: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    ratios: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    twice: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class Contest:
    """One run of all candidates on one Redis.

    Args:
        port: Of the Redis, which is empty.
        lane: Ours, with one worker, in its database 0.
        events: Our events for each FSM, by size.
        small: Whether all is to be tiny.
    """

    def __init__(self, port: int, lane: Lane, events: dict[int, int], *, small: bool) -> None:
        self._url = f"redis://127.0.0.1:{port}"
        self._events = events
        self._small = small
        self._sizes = sorted(events, reverse=True)
        plan = quick.Plan(large=self._sizes[0], small=self._sizes[1], peer_jobs=1, rounds=None)
        self.bench = quick.Bench(lane, plan)
        self._book = Book(f"{self._url}/2", self._sizes[0])
        self.found = Measured({size: [] for size in self._sizes})

    def close(self) -> None:
        """Close the connections."""
        self._book.close()

    def ours(self) -> None:
        """Drain both sizes with our worker."""
        for size in self._sizes:
            self.found.ours[size].append(self.bench.drain(size, self._events[size]).ours_per_s)
        say(f"{_OURS}: {self._told(self.found.ours)}")

    def peer(self, peer: Peer, where: Environment) -> None:
        """Drain both sizes with a peer, or note why that could not be; whom it failed once is not asked again."""
        if peer.name in self.found.missing:
            return
        rates: dict[int, float] = {}
        try:
            with Drain(peer, where, f"{self._url}/1", f"{self._url}/2", self._book) as drain:
                for size in self._sizes:
                    rates[size] = drain.drain(size, self._jobs(peer, size))
                twice = self._book.check()
        except BenchError as error:
            self.found.missing[peer.name] = f"it failed: {error}"
            # What it left undone is not to be held against the next one.
            self._book.close()
            self._book = Book(f"{self._url}/2", self._sizes[0])
            say(f"{peer.name} failed: {error}")
            return
        self.found.twice[peer.name] = self.found.twice.get(peer.name, 0) + twice
        for size, per_s in rates.items():
            key = peer.name, size
            self.found.peers.setdefault(key, []).append(per_s)
            self.found.ratios.setdefault(key, []).append(self.found.ours[size][-1] / per_s)
        say(f"{peer.name}: {self._told({size: [per_s] for size, per_s in rates.items()})}")

    def _jobs(self, peer: Peer, size: int) -> int:
        if self._small:
            return _SMALL_JOBS
        known = self.found.peers.get((peer.name, size))
        return min(_MOST_JOBS, round(_DRAIN_S * (known[-1] if known else peer.guess_per_s)))

    @staticmethod
    def _told(values: dict[int, list[float]]) -> str:
        return ", ".join(f"{size:,} entities {values[size][-1]:,.0f}/s" for size in values)


def measure(options: argparse.Namespace) -> Result:
    """Measure all that can be measured.

    Raises:
        BenchError: Ours did not do what it was sent.
        StoreError: There is no server program.
    """
    events = _SMALL_EVENTS if options.small else _EVENTS
    port = _free_port()
    with ExitStack() as stack:
        # A rewrite of the append-only file takes a core for a second, at whichever drain it falls into.
        by_tcp = {"bind": "127.0.0.1", "port": str(port)}
        stack.enter_context(EmbeddedServer({**by_tcp, "auto-aof-rewrite-percentage": "0"}))
        limit, benchmark = _ceiling(port, options)
        lane = stack.enter_context(Lane(f"redis://127.0.0.1:{port}/0"))
        contest = Contest(port, lane, events, small=options.small)
        stack.callback(contest.close)
        contest.bench.start()
        asked = _asked(options, contest.found.missing)
        half = (len(asked) + 1) // 2
        for number in range(options.rounds):
            say(f"round {number + 1}")
            for part in (asked[:half], asked[half:]):
                if part:
                    contest.ours()
                for peer, where in part:
                    contest.peer(peer, where)
        contest.bench.applied()
        version = str(lane.client.redis.info("server")["redis_version"])
    found = contest.found
    if not benchmark:
        found.missing["redis-benchmark"] = "it is not on PATH"
    return Result(
        unit="transitions a second",
        rows=[*_rows(found, events, dict(asked)), *limit, *benchmark],
        figures=_figures(found),
        redis_server=version,
        missing=found.missing,
    )


def _asked(options: argparse.Namespace, missing: dict[str, str]) -> list[tuple[Peer, Environment]]:
    """Give those that can be measured, with their environments, and note why others cannot."""
    asked = []
    for peer in PEERS:
        where = environment.found(peer.package)
        if where.missing:
            missing[peer.name] = where.missing
        elif options.peers and peer.package not in options.peers.split(","):
            missing[peer.name] = "it was not asked for"
        elif options.small and not options.peers and peer.group != "rq":
            missing[peer.name] = "the small form asks RQ's SimpleWorker only"
        else:
            asked.append((peer, where))
    return asked


def _ceiling(port: int, options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Measure what Redis can do: the commands of a transition, and what its own benchmark says."""
    url = f"redis://127.0.0.1:{port}/3"
    transitions = 200 if options.small else 10_000
    halves = [ceiling.measure(url, port, transitions) for _ in range(options.rounds)]
    rows = [
        Row(
            "ceiling",
            {"entities": transitions, "half": name},
            [pair[index].per_s for pair in halves],
            {
                "redis_us": round(median(pair[index].redis_us for pair in halves), 1),
                "commands": halves[0][index].commands,
            },
            "the commands of a transition in a pipeline, with nothing around them",
        )
        for index, name in enumerate(("send", "claim and commit"))
    ]
    rates = [
        ceiling.redis_benchmark(port, _SMALL_REQUESTS if options.small else _BENCHMARK_REQUESTS)
        for _ in range(options.rounds)
    ]
    hsets = [per_s for per_s in rates if per_s is not None]
    told = [Row("redis-benchmark", {"command": "HSET"}, hsets, note="single commands a second, 16 in a pipeline")]
    return rows, told if hsets else []


def _rows(found: Measured, events: dict[int, int], environments: dict[Peer, Environment]) -> list[Row]:
    rows = [
        Row(
            _OURS,
            {"entities": size, "events of each": events[size]},
            values,
            note="1 process, default settings",
        )
        for size, values in found.ours.items()
    ]
    for peer, where in environments.items():
        told = ", ".join(f"{name} {(where.versions or {}).get(name, '?')}" for name in peer.told)
        rows += [
            Row(
                peer.name,
                {"entities": size},
                found.peers[peer.name, size],
                {
                    "ours_is_times_as_fast": round(median(found.ratios[peer.name, size]), 1),
                    **({"jobs_done_twice": found.twice[peer.name]} if found.twice[peer.name] else {}),
                },
                f"{peer.setting}; {told}",
            )
            for size in found.ours
            if (peer.name, size) in found.peers
        ]
    return rows


def _figures(found: Measured) -> dict[str, float]:
    """Give the ratios that are held against a target, each of the size at which it is smaller."""
    figures: dict[str, float] = {}
    for group, name in _TARGETS.items():
        members = [peer.name for peer in PEERS if peer.group == group]
        # The best of several is the one that we are the least ahead of.
        ratios = [median(values) for (peer, _), values in found.ratios.items() if peer in members]
        if ratios:
            figures[name] = round(min(ratios), 1)
    for size, values in found.ours.items():
        figures[f"ours_per_s_{size}"] = round(median(values))
    return figures


def _free_port() -> int:
    with suppress(OSError), socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
    message = "no TCP port is free on 127.0.0.1"
    raise BenchError(message)


def run(arguments: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    main(
        "throughput",
        "Measure transitions a second beside other queues, in some 9 minutes.",
        measure,
        arguments,
        options=_add_options,
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", default="", help="only these packages, as rq,celery,bullmq (all)")


if __name__ == "__main__":
    run()
