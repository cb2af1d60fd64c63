"""What becomes of all that a worker holds when it ends: released, as if never claimed, or freed as by a death.

An FSM over which a worker died is charged for it: `recover` counts, since the next worker may die on it as well. One
that is released is not.

Who calls this: the worker at its end, in order or not; the host, for workers that it saw die; the rescuer, for those
that were silent for too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from fsm.store import calls, presence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fsm.store.keys import Keys
    from fsm.store.requests import Request

__all__ = ["Ask", "bury", "release"]

# A call of `recover` is bounded; one worker never holds as much as so many of them free.
_MOST_PORTIONS = 20
R = TypeVar("R")


class Ask(Protocol):
    """Carries a request to Redis."""

    def __call__(self, request: Request[R], /) -> R:
        """Give its reply."""


def release(ask: Ask, keys: Keys, worker: str, held: Iterable[tuple[str, str]], left: Collection[str] = ()) -> None:
    """Release what a worker holds, uncharged, and put back the ids in its hand.

    On a crash: the rest ends with its lease, or is freed by whoever takes this worker for dead.

    Args:
        ask: Carries a request.
        keys: Of the namespace.
        worker: Its name.
        held: What it knows to hold, for a Redis that carries out what it cannot answer just now.
        left: Tokens of what it left to its lease, which is to be charged.
    """
    pairs = list(held)
    if pairs:
        ask(calls.release(keys, worker, pairs))
    # Claims whose reply nobody read.
    more = [(name, token) for name, token in ask(calls.claimed(keys, worker)) if token not in left]
    if more:
        ask(calls.release(keys, worker, more))
    bury(ask, keys, worker)


def bury(ask: Ask, keys: Keys, worker: str) -> int:
    """Free what a dead worker held, charge each FSM for it, put back the ids in its hand, and forget the worker.

    On a crash: somebody else does the rest, by the end of the lease at the latest.

    Returns:
        How many FSMs were freed: with those, if any, whose lease was over just then.
    """
    total = 0
    for _ in range(_MOST_PORTIONS):
        freed, _rehung = ask(calls.recover(keys, [worker]))
        total += freed
        if not freed:
            break
    ask(presence.leave(keys, [worker]))
    return total
