"""What a plan is: a generator that yields requests and is given their replies.

For a request that is marked `is_ahead` it may be given a ticket instead: then it asks for the reply by yielding that.

Who calls this: the verbs, which are plans, and the client, which carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fsm.errors import StoreError
from fsm.store.ahead import Ticket
from fsm.store.requests import Request

if TYPE_CHECKING:
    from fsm.store.keys import Keys

__all__ = ["Plan", "carry", "pause"]

R = TypeVar("R")
Plan = Generator[Request[Any] | Ticket[Any], Any, R]


def carry(plan: Plan[R], ask: Callable[[Any], Any]) -> R:
    """Carry a plan to its end.

    Args:
        plan: What is to be done.
        ask: Carries one request; what it raises as `StoreError`, the plan may handle. Only where it gives tickets is it
            asked for the replies to them.
    """
    try:
        request = plan.send(None)
        while True:
            try:
                reply = ask(request)
            except StoreError as error:
                request = plan.throw(error)
            else:
                request = plan.send(reply)
    except StopIteration as end:
        return cast("R", end.value)


def pause(keys: Keys, seconds: float) -> Request[None]:
    """Let Redis wait for us: a blocking read of a key that nobody writes, which whoever may only look may do too."""
    # For Redis 0 ms is for ever.
    command = ("XREAD", "BLOCK", max(1, round(1000 * seconds)), "STREAMS", f"{keys.prefix}nobody", "$")
    return Request(lambda _: None, commands=[command])
