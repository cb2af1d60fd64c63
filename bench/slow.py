"""`python -m bench.slow`: handlers that take their time, where the worker is not what limits.

**Waits.** A handler that waits 50 ms, as for a database or a bank: blocking its thread (`time.sleep`) and on the event
loop (`asyncio.sleep`), with `--concurrency` 1, 16 and 128. What could be reached is the concurrency times 20 a second.

**Computes.** A handler that uses 5 ms of the processor, with one worker process and with two. What could be reached is
200 a second for each core that is free for it: Redis has next to nothing to do. Threads would not help here: Python
runs one at a time.

**Lingers.** Handlers of a second, with one worker process and with two: no worker may sit on what the other could
begin. Two should need half of the time.

Each candidate has FSMs and workers of its own (a lane), and lanes take turns; every event is of an FSM of its own.

Who calls this: a person, `make bench`, and a test in a small form. The Redis is an embedded one of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import suite
from bench.lane import QUIET, Lane, numbered
from bench.slow_machines import COMPUTE_S, LINGER_S, WAIT_S, Computes, Lingers, Waits, WaitsAsync
from bench.suite import Result, Row, say
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fsm import Machine

__all__ = ["main", "measure"]

_APP = "bench.slow_machines"
_CONCURRENCY = (1, 16, 128)
_KINDS: dict[str, type[Machine[Any]]] = {"sync": Waits, "async": WaitsAsync}
# So long should each turn take, if nothing but the handlers took time.
_TURN_S = 2.0
_SMALL_TURN_S = 0.2
_COMPUTING = 300
_LINGERING = 100
_SMALL = 4


def measure(options: argparse.Namespace) -> Result:
    """Run it all.

    Raises:
        BenchError: Something was not applied, or a worker is stuck.
        StoreError: There is no server program.
    """
    turn_s = _SMALL_TURN_S if options.small else _TURN_S
    computing, lingering = (_SMALL, _SMALL) if options.small else (_COMPUTING, _LINGERING)
    concurrency = _CONCURRENCY[:-1] if options.small else _CONCURRENCY
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        lanes: dict[str, tuple[Lane, list[str]]] = {}

        def enter(name: str, machine: type[Machine[Any]], fsms: int, workers: int, *more: str) -> None:
            lane = Lane(server.url, name, machine, workers=workers, app=_APP, options=(*QUIET, *more))
            lanes[name] = stack.enter_context(lane), numbered("fsm", fsms)

        for kind, machine in _KINDS.items():
            for count in concurrency:
                events = max(_SMALL, round(count * turn_s / WAIT_S))
                enter(f"{kind}-{count}", machine, events, 1, "--concurrency", str(count))
        for workers in (1, 2):
            enter(f"compute-{workers}", Computes, computing, workers)
            enter(f"linger-{workers}", Lingers, lingering, workers)
        for lane, names in lanes.values():
            lane.await_workers()
            lane.populate(names)
        say("two workers, and one, with handlers of a second")
        seconds = _linger(lanes)
        values = suite.in_turn(
            {
                name: lambda lane=lane, names=names: lane.drain(names)
                for name, (lane, names) in lanes.items()
                if not name.startswith("linger")
            },
            options.rounds,
        )
        say(f"checked: {sum(lane.check() for lane, _ in lanes.values()):,} events were applied")
        version = str(lanes["sync-1"][0].client.redis.info("server")["redis_version"])
    rows = [
        _row(f"{kind}, waits {WAIT_S * 1000:.0f} ms", {"concurrency": count}, values[f"{kind}-{count}"], count / WAIT_S)
        for kind in _KINDS
        for count in concurrency
    ]
    rows += [
        _row(
            f"computes {COMPUTE_S * 1000:.0f} ms", {"workers": workers}, values[f"compute-{workers}"],
            workers / COMPUTE_S,
        )
        for workers in (1, 2)
    ]  # fmt: skip
    rows += [
        _row(f"lingers {LINGER_S:g} s", {"workers": workers}, [len(lanes["linger-1"][1]) / seconds[workers]],
             workers / LINGER_S)
        for workers in (1, 2)
    ]  # fmt: skip
    figures = {
        **{f"{kind}_50ms_at_{count}_per_s": round(median(values[f"{kind}-{count}"]))
           for kind in _KINDS for count in concurrency},
        "computing_two_workers_against_one": round(
            median(two / one for two, one in zip(values["compute-2"], values["compute-1"], strict=True)), 2
        ),
        "two_workers_time_share": round(seconds[2] / seconds[1], 3),
    }  # fmt: skip
    return Result("transitions a second", rows, figures, version)


def _linger(lanes: dict[str, tuple[Lane, list[str]]]) -> dict[int, float]:
    """Give the seconds that one worker and two take, side by side: they sleep, and so do not disturb each other."""

    def seconds(workers: int) -> float:
        lane, names = lanes[f"linger-{workers}"]
        spans = lane.spans(names)
        return (max(ended for _, ended in spans) - min(began for began, _ in spans)).total_seconds()

    with ThreadPoolExecutor(2) as both:
        return dict(zip((1, 2), both.map(seconds, (1, 2)), strict=True))


def _row(name: str, setting: dict[str, Any], values: list[float], most: float) -> Row:
    return Row(name, setting, values, {"of what could be": f"{median(values) / most:.0%}"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("slow", "Measure handlers that wait, compute and linger.", measure, arguments)


if __name__ == "__main__":
    main()
