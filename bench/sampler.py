"""`python -m bench.sampler FILE OPTION..`: a worker of ours that notes where it is, by the processor time that it uses.

A timer of the kernel (ITIMER_PROF) counts the processor time of the process and sends SIGPROF; Python runs the handler
between two instructions of the main thread, which notes the whole stack. So what is counted is time on the processor
and not time that waits for Redis, and a function that is called often is not made dearer than it is, as a profiler that
counts calls would make it. What runs in C is charged to the Python line that called it. It takes no other package and
no rights. The kernel rounds the interval up to its tick, 4 ms mostly: some hundred samples a second of work.

Noting begins with the first batch: how the worker starts is left out, and so is how it ends.

What the worker's other threads use is charged to where the main thread is: they renew locks and look after slow
handlers, which is next to nothing here.

Who calls this: `bench.overhead`, which reads FILE when the worker has ended.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from fsm.cli import main as fsm_command

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["GROUPS", "by_group", "group_of", "read", "run"]

_INTERVAL_S = 0.001
# Beginning of the path below its top, and who is charged for it; the first that fits is taken.
GROUPS = (
    ("bench/", "handler"),
    ("fsm/engine/", "engine: the step"),
    ("fsm/machine/", "machine: codecs of payload and data"),
    ("fsm/store/commits", "store: commits put together"),
    ("fsm/store/packing", "store: requests packed for the socket"),
    ("fsm/store/", "store: claims read, values encoded"),
    ("workers/activation", "activation"),
    ("workers/", "worker: claims, batches, locks, lines"),
    ("redis/", "redis-py, hiredis and the socket"),
    ("rq/", "RQ's loop"),
)
_OTHER = "the rest"
_BATCH = "TransitionWorker.execute_job"
_END = "TransitionWorker.teardown"

Stack = tuple[tuple[str, str], ...]


def run(path: Path, options: list[str]) -> None:
    """Be a worker until it ends, and leave its samples in the file."""
    counts: Counter[Stack] = Counter()
    is_at_work = False

    def note(_signal: int, frame: FrameType | None) -> None:
        nonlocal is_at_work
        if frame is not None and frame.f_code is note.__code__:
            return  # the timer ran out while this was at work
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname))
            frame = frame.f_back
        is_at_work = is_at_work or any(name == _BATCH for _, name in stack)
        if is_at_work:
            counts[tuple(stack)] += 1

    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
    try:
        fsm_command(["worker", *options])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_bytes(orjson.dumps([[stack, count] for stack, count in counts.items()]))


def read(path: Path) -> dict[Stack, int]:
    """Read the samples of a worker that has ended, but for those of its end."""
    found = {tuple((file, name) for file, name in stack): count for stack, count in orjson.loads(path.read_bytes())}
    return {stack: count for stack, count in found.items() if not any(name == _END for _, name in stack)}


def group_of(stack: Stack) -> tuple[str, str]:
    """Say who is charged for a sample: the innermost frame that is not of Python's own library, and its function.

    >>> group_of((("/usr/lib/python3/json/encoder.py", "encode"), ("/home/ann/fsm/store/codec.py", "pack_result")))
    ('store: claims read, values encoded', 'codec.pack_result')
    """
    for file, name in stack:
        parts = Path(file).parts
        for length in range(min(4, len(parts)), 1, -1):
            below = "/".join(parts[-length:])
            for beginning, group in GROUPS:
                if below.startswith(beginning):
                    return group, f"{Path(file).stem}.{name}"
    return _OTHER, ""


def by_group(samples: dict[Stack, int]) -> dict[str, Counter[str]]:
    """Sort samples by who is charged, and count the functions of each."""
    groups: dict[str, Counter[str]] = {}
    for stack, count in samples.items():
        group, function = group_of(stack)
        groups.setdefault(group, Counter())[function] += count
    return dict(sorted(groups.items(), key=lambda pair: -pair[1].total()))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
