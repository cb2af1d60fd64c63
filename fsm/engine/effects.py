"""Effects: ordinary RQ jobs that a handler asks for, and that leave with the commit.

Who calls this: the transition, for `t.enqueue`; the store writes what comes of it. PURE: what RQ wants to know of a job
is computed here, and RQ is not imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.errors import ConfigError, PayloadError
from fsm.machine.durations import duration_ms
from fsm.machine.settings import RetryPolicy
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fsm.machine.durations import Duration

__all__ = ["Effect", "call_of", "checked_queue", "deadline_of", "path_of", "seconds_of", "waits_of"]

# RQ's own, for a job that says nothing else.
_JOB_SECONDS = 180
_MOST_RETRIES = 1000


@dataclass(frozen=True, slots=True)
class Effect:
    """An ordinary RQ job to be enqueued by the commit.

    Args:
        job_id: RQ's id of the job, derived from that of the event.
        queue: RQ queue.
        path: Dotted path of the function.
        call: RQ's job data: dotted path, instance, arguments and keyword arguments as JSON.
        on_success: Event that brings back what the function returned; "" for none.
        on_failure: Event that brings back its last failure; "" for none.
        waits: Seconds before each retry: as many retries as there are waits.
        seconds: RQ's time-out of the job.
        deadline_ms: How long after the commit it fails, if it has not ended by then; `None` is never.
    """

    job_id: str
    queue: str
    path: str
    call: bytes
    on_success: str = ""
    on_failure: str = ""
    waits: tuple[int, ...] = ()
    seconds: int = _JOB_SECONDS
    deadline_ms: int | None = None


def path_of(func: Any) -> str:
    """Give the dotted path by which another process imports a function.

    Raises:
        PayloadError: No other process can: a lambda, a closure, a method, something of `__main__`, or no path.
    """
    if isinstance(func, str):
        parts = func.split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):  # noqa: PLR2004 - a module and a name in it
            problem = f"an effect is a function or a dotted path such as 'shop.bank.charge', not {func!r}"
            raise PayloadError(problem, "func")
        module, path = parts[0], ".".join(parts[1:])
    else:
        module, path = getattr(func, "__module__", None) or "", getattr(func, "__qualname__", "")
    if not module or module == "__main__" or not path or "<" in path or hasattr(func, "__self__"):
        problem = f"an effect runs in another process, which cannot import {func!r}: use a function of a module"
        raise PayloadError(problem, "func")
    return f"{module}.{path}"


def call_of(path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Write RQ's job data, as its JSON serializer reads them.

    Raises:
        PayloadError: An argument is not JSON.
    """
    return b"[%s,null,%s,%s]" % (JSON.encode(path), JSON.encode(list(args)), JSON.encode(dict(kwargs)))


def checked_queue(queue: Any) -> str:
    """Check the name of an RQ queue: one that Redis cannot be given would break the commit of all FSMs beside this one.

    Raises:
        PayloadError: It is no printable text.
    """
    if not isinstance(queue, str) or not queue or not queue.isprintable():
        problem = f"the queue of an effect is its name, printable text, not {queue!r}"
        raise PayloadError(problem, "queue")
    return queue


def waits_of(retry: Any) -> tuple[int, ...]:
    """Give the seconds before each retry of an effect, whole ones as RQ counts them.

    Args:
        retry: `None`; a number of retries, each at once; a `RetryPolicy`, whose `jitter` and `on` RQ does not know; or
            RQ's own `Retry(max=…, interval=…)`.

    Raises:
        PayloadError: It is none of these, or beyond 1,000 retries.

    >>> waits_of(2), waits_of(RetryPolicy(attempts=4, delay="1s", factor=10, max_delay="20s"))
    ((0, 0), (1, 10, 20))
    """
    if retry is None:
        return ()
    count: Any
    if isinstance(retry, RetryPolicy):
        count = retry.attempts - 1
        delay, longest = retry.delay_ms / 1000, retry.max_delay_ms / 1000
        intervals: list[int] = []
        for _ in range(min(count, _MOST_RETRIES)):
            intervals.append(math.ceil(min(delay, longest)))
            delay = min(delay * retry.factor, longest)
    else:
        # RQ is not imported here: its Retry is known by what it carries.
        count = getattr(retry, "max", retry)
        intervals = list(getattr(retry, "intervals", (0,)))
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST_RETRIES:
        problem = (
            f"the retries of an effect are a number from 0 to {_MOST_RETRIES}, a RetryPolicy or rq.Retry, not {retry!r}"
        )
        raise PayloadError(problem, "retry")
    # Beyond its list of intervals RQ goes on with the first, and begins so too: the list is for the last retries.
    return tuple(intervals[max(0, len(intervals) - left)] for left in range(count, 0, -1))


def seconds_of(job_timeout: Duration | None) -> int:
    """Give RQ's time-out of an effect in whole seconds, at least one.

    Raises:
        PayloadError: It is no duration.
    """
    if job_timeout is None:
        return _JOB_SECONDS
    try:
        return max(1, math.ceil(duration_ms(job_timeout, "job_timeout") / 1000))
    except ConfigError as error:
        raise PayloadError(error.problem, "job_timeout") from error


def deadline_of(deadline: Duration | None, on_failure: str | None) -> int | None:
    """Give the deadline of an effect in ms.

    Raises:
        PayloadError: It is no duration, or none at all; or nobody would be told, for there is no `on_failure`.
    """
    if deadline is None:
        return None
    if on_failure is None:
        problem = "the deadline of an effect tells its FSM by the on_failure event: give one, or leave the deadline out"
        raise PayloadError(problem, "deadline")
    try:
        length = duration_ms(deadline, "deadline")
    except ConfigError as error:
        raise PayloadError(error.problem, "deadline") from error
    if not length:
        problem = f"{deadline!r} is too short: a deadline is more than 0"
        raise PayloadError(problem, "deadline")
    return length
