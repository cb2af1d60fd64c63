"""Whether an event that failed is run again, and when.

An event may be run again because its machine has a `RetryPolicy` for it and what was raised is among the policy's
exceptions, or because its handler asked for it with `Retry(after=…)`. What no repetition can mend is not run again: an
answer that the diagram does not allow, an event that workers died on, one whose record was edited by hand.

Who calls this: the step. PURE: chance is drawn from the id of the job, so that the same attempt always waits as long.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from fsm.engine.timers import TICK
from fsm.machine.durations import duration_ms
from fsm.machine.settings import RetryPolicy

if TYPE_CHECKING:
    from fsm.engine.life import Event
    from fsm.engine.outcomes import Retry
    from fsm.machine import Settings

__all__ = ["after_answer", "after_failure", "pause_ms"]

# What `Retry()` waits for on a machine without a policy.
_DEFAULT = RetryPolicy()


def after_failure(settings: Settings, event: Event, *kinds: type[BaseException]) -> int | None:
    """Say how many ms after a failure an event is run again; `None` where it failed for good.

    Args:
        settings: Of the machine.
        event: The event, with the number of this attempt.
        kinds: What was raised, for the policy's `on`; none where no repetition can help.
    """
    policy = settings.retry_for(event.name)
    # A tick is followed by the next one anyway.
    if policy is None or event.attempt >= policy.attempts or event.name == TICK:
        return None
    if not any(issubclass(kind, policy.on) for kind in kinds):
        return None
    return pause_ms(policy, event)


def after_answer(settings: Settings, event: Event, answer: Retry) -> int | None:
    """Say how many ms after `Retry(…)` an event is run again; `None` where the machine's policy has no attempt left.

    Without a policy there is no last attempt: the handler decides, `t.attempt` counts.
    """
    policy = settings.retry_for(event.name)
    if policy is not None and event.attempt >= policy.attempts:
        return None
    return pause_ms(policy or _DEFAULT, event) if answer.after is None else duration_ms(answer.after, "Retry(after=…)")


def pause_ms(policy: RetryPolicy, event: Event) -> int:
    """Give the wait in ms between this attempt and the next: longer each time, up to `max_delay`, plus or minus chance.

    >>> from fsm.engine.life import Event
    >>> policy = RetryPolicy(delay="1s", factor=3, max_delay="5s", jitter=0)
    >>> [pause_ms(policy, Event("a", "pay", attempt=attempt)) for attempt in (1, 2, 3, 1000)]
    [1000, 3000, 5000, 5000]
    """
    # Powers of large attempts are beyond what a float can hold; by then it is the longest wait long since.
    wait = min(policy.delay_ms * policy.factor ** min(event.attempt - 1, 100), policy.max_delay_ms)
    drawn = zlib.crc32(f"{event.job_id} {event.attempt}".encode()) / 0xFFFFFFFF
    return max(0, round(wait * (1 + policy.jitter * (2 * drawn - 1))))
