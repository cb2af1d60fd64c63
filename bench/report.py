"""What was measured, put together: medians, the conservative one of two sizes, a table, one JSON object.

Who calls this: `bench.quick`. Pure, but for `about`, which looks at the machine and the checkout.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEADLINE", "Measured", "Round", "about", "figures", "table"]

HEADLINE = {
    "ours_per_s": "transitions a second, one worker process, the slower of both sizes",
    "rq_simple_per_s": "RQ SimpleWorker, lock + HGETALL + HSET per job",
    "ratio": "ours / RQ, each pair measured side by side",
    "enqueue_many_per_s": "events a second into `transition_many`, one client",
    "redis_us": "µs in Redis's scripts per transition: send + claim + commit",
    "python_us": "µs of processor time of the worker per transition",
    "idle_fsm_bytes": "bytes of Redis memory for one FSM at rest, 100-byte payload",
}


@dataclass(frozen=True, slots=True)
class Round:
    """One drain of ours, and the drain of RQ's right after it.

    Args:
        fsms: How many FSMs had mail.
        ours_per_s: Transitions a second.
        rq_per_s: Jobs a second of the peer.
        enqueue_per_s: Events a second into `transition_many`.
        redis_us: µs in scripts per transition.
        server_us: µs of processor time of the server per transition, all it does included.
        python_us: µs of processor time of the worker per transition; `None` where the host does not tell.
    """

    fsms: int
    ours_per_s: float
    rq_per_s: float
    enqueue_per_s: float
    redis_us: float
    server_us: float
    python_us: float | None


@dataclass(slots=True)
class Measured:
    """All that a run measured.

    Args:
        rounds: In the order in which they ran.
        idle_fsm_bytes: Redis memory of one FSM at rest.
    """

    rounds: list[Round] = field(default_factory=list)
    idle_fsm_bytes: float = 0.0


def figures(measured: Measured) -> dict[str, Any]:
    """Give the seven headline figures, then those of each size by its number of FSMs.

    `ours_per_s` and `ratio` are those of the slower size. `redis_us`, `python_us` and `enqueue_many_per_s` are those
    of the largest size, where each FSM has one event, which is the dearest there is.
    """
    sizes = sorted({one.fsms for one in measured.rounds})
    of_size = {size: [one for one in measured.rounds if one.fsms == size] for size in sizes}
    ours = {size: median(one.ours_per_s for one in rounds) for size, rounds in of_size.items()}
    ratios = {size: median(one.ours_per_s / one.rq_per_s for one in rounds) for size, rounds in of_size.items()}
    largest = of_size[sizes[-1]]
    return {
        "ours_per_s": round(min(ours.values())),
        "rq_simple_per_s": round(median(one.rq_per_s for one in measured.rounds)),
        "ratio": round(min(ratios.values()), 1),
        "enqueue_many_per_s": round(median(one.enqueue_per_s for one in largest)),
        "redis_us": round(median(one.redis_us for one in largest), 1),
        "python_us": _python_us(largest),
        "idle_fsm_bytes": round(measured.idle_fsm_bytes),
        **{f"ours_{size}_per_s": round(ours[size]) for size in sizes},
        **{f"ratio_{size}": round(ratios[size], 1) for size in sizes},
        **{f"redis_us_{size}": round(median(one.redis_us for one in of_size[size]), 1) for size in sizes},
        **{f"redis_cpu_us_{size}": round(median(one.server_us for one in of_size[size]), 1) for size in sizes},
        **{f"python_us_{size}": _python_us(of_size[size]) for size in sizes},
    }


def _python_us(rounds: Sequence[Round]) -> float | None:
    known = [one.python_us for one in rounds if one.python_us is not None]
    return round(median(known), 1) if known else None


def about(server: str) -> dict[str, Any]:
    """Say on what it was measured: host, versions, commit. `server` is the version of Redis."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "redis_server": server,
        **{name: version(name) for name in ("fsm-workers", "redis", "hiredis", "rq", "orjson", "msgspec")},
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """Give the commit of this checkout, with a `+` if files differ from it; `None` outside of one.

    What benchmarks write themselves does not count: the second of a run would not be of the commit of the first.
    """
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git the person uses
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", ".", ":!bench/results", ":!docs"],  # noqa: S607 - as above
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "")


def table(result: dict[str, Any]) -> str:
    """Lay a result out for a person."""
    said = result["about"]
    lines = [f"{name:20} {_shown(result[name]):>10}  {text}" for name, text in HEADLINE.items()]
    more = [name for name in result if name not in HEADLINE and name != "about"]
    lines += ["", *(f"{name:20} {_shown(result[name]):>10}" for name in more), ""]
    lines += [f"{name}: {value}" for name, value in said.items()]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,}"
