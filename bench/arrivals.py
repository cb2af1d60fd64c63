"""When events come, and how long they took: an open loop, and percentiles.

Who calls this: `bench.latency`.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["due", "percentile", "rate", "schedule"]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that `share` per cent of the values do not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50), percentile([1.0, 2.0, 3.0, 4.0], 99)
    (2.0, 4.0)
    """
    return ordered[max(0, -int(-len(ordered) * share // 100) - 1)]


def schedule(per_s: float, count: int, seed: str) -> list[float]:
    """Give the seconds, from the beginning, at which so many events come, `per_s` a second in the mean."""
    chance = random.Random(seed)
    times, at = [], 0.0
    for _ in range(count):
        at += chance.expovariate(per_s)
        times.append(at)
    return times


def rate(times: Sequence[float]) -> float:
    """Give how many came a second."""
    return len(times) / max(times[-1] - times[0], 1e-3)


def due(times: Sequence[float]) -> Iterator[tuple[list[float], float]]:
    """Wait for each time of a schedule, and give all that are due by then, and the time it is."""
    begin = time.time() + 0.01
    done = 0
    while done < len(times):
        now = time.time()
        wait = begin + times[done] - now
        if wait > 0:
            time.sleep(wait)
            continue
        first = done
        while done < len(times) and begin + times[done] <= now:
            done += 1
        yield [begin + at for at in times[first:done]], now
