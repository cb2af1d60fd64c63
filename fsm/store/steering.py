"""The call of `steer`: what an operator does with one FSM, as a request.

Who calls this: the plan of the operator verbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.store.calls import FAILURE_TTL_S, UNKNOWN_SECONDS
from fsm.store.codec import job_data, text
from fsm.store.commits import LOG_LENGTH
from fsm.store.requests import Request

if TYPE_CHECKING:
    from fsm.store.keys import Keys

__all__ = ["LastFailure", "Order", "steer"]


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The event of an FSM that failed last, as far as it is known.

    Args:
        kind: "entry" or "hard" where the FSM cannot go on without it, "mail" where it went on; "" where none failed.
        job_id: Its job.
        event: Its name, for a new record where there is none any more.
        seconds: Time-out and `result_ttl` of such a record.
        is_last: Whether nothing was committed for the FSM since it failed.
    """

    kind: str = ""
    job_id: str = ""
    event: str = ""
    seconds: tuple[int, int] = UNKNOWN_SECONDS
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """One verb for one FSM.

    Args:
        verb: "retry", "skip", "pause" or "resume".
        name: The FSM.
        nonce: A job id that nobody has; the same one in each repeat.
        born: This life of the name and no other.
        by: Who does it, for the log.
        if_version: The version that the FSM must have.
        job_id: Skip only this event; "" for whichever is at the head.
    """

    verb: str
    name: str
    nonce: str
    born: str
    by: str
    if_version: int | None = None
    job_id: str = ""


def steer(keys: Keys, order: Order, version: str = "", failure: LastFailure | None = None) -> Request[tuple[str, ...]]:
    """Carry out an order; a word comes back, and what belongs to it.

    On a crash: it was done, or not; whoever calls it again with the same nonce within a minute is told what was done.

    Args:
        keys: Of the namespace.
        order: What is to be done.
        version: That of the snapshot in which the failure was found.
        failure: The event that failed last.
    """
    found = failure or LastFailure()
    data = job_data(keys.namespace, order.name, found.event, b"null")
    arguments: list[Any] = [
        keys.prefix, keys.namespace, keys.default_queue, order.verb, order.name, order.nonce, order.born,
        "" if order.if_version is None else order.if_version, order.job_id, version,
        found.kind, found.job_id, found.event, data, *found.seconds, FAILURE_TTL_S, int(found.is_last),
        order.by, LOG_LENGTH,
    ]  # fmt: skip
    names = (keys.timers, keys.log, keys.steered(order.nonce), keys.held)
    return Request(lambda reply: tuple(map(text, reply)), "steer", names, arguments)
