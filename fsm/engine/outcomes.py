"""What a handler may answer, and how a transition may end.

Who calls this: handlers (`Goto`, `Stay`, `Reject`, `Retry`), the step, the store's codec and the client. PURE: no
redis, no rq.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fsm.machine.durations import duration_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.machine.durations import Duration

__all__ = ["Goto", "HandlerTimeout", "Outcome", "Reject", "Retry", "Stay"]


@dataclass(frozen=True, slots=True)
class Goto:
    """Move to this state, which must be one of the targets of the event that is being handled.

    Args:
        state: Name of the state.
    """

    state: str


@dataclass(frozen=True, slots=True)
class Stay:
    """Keep the state and the payload's changes; run no hooks."""


class Reject(Exception):  # noqa: N818 - it is an answer, returned or raised, and no error of the program
    """Refuse the event: the FSM stays as it was. To be returned or raised.

    Args:
        reason: One sentence for the sender.
        details: JSON values for the sender's program.
    """

    # For subclasses that make themselves in their own way.
    reason: str = ""
    details: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, reason: str, **details: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


class Retry(Exception):  # noqa: N818 - as `Reject`: an answer, and no error of the program
    """Run this event again later, as if it had not been run: what the handler did so far is not kept.

    To be returned or raised. Meanwhile the FSM's other mail waits behind it. `t.attempt` counts the runs; where the
    machine has a `RetryPolicy` for the event, its `attempts` are the limit, else there is none.

    Args:
        after: Seconds, `timedelta`, or text such as "30s"; `None` takes the delays of the machine's
            `RetryPolicy` for the event, else those of `RetryPolicy()`.

    Raises:
        ConfigError: `after` is no duration.
    """

    # For subclasses that make themselves in their own way.
    after: Duration | None = None

    def __init__(self, after: Duration | None = None) -> None:
        super().__init__(after)
        self.after = after
        if after is not None:
            # When the answer is made, where the traceback shows the handler.
            duration_ms(after, "Retry(after=…)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an event ended that did not raise an error.

    Args:
        name: The FSM.
        event: The event.
        state: The FSM's state after it.
        version: The FSM's version after it.
        job_id: The RQ job of the event.
        ok: False where it was refused or failed and the machine says that this is no error.
        reply: What the handler gave to `t.reply`.
        reason: Why it was not done, where `ok` is False.
    """

    name: str
    event: str
    state: str
    version: int
    job_id: str
    ok: bool = True
    reply: Any = None
    reason: str = field(default="")


class HandlerTimeout(BaseException):
    """Raised inside a handler by its executor when its time is over.

    Not an `Exception`, so that a handler's own `except Exception` does not swallow it.
    """
