"""The calls that take away FSMs which have finished long enough ago.

Who calls this: the plan behind `client.purge_finished`, and workers, for machines that say how long theirs are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys

__all__ = ["MOST_AT_ONCE", "Expired", "expire"]

# One call takes away so many: some ms, in which Redis serves nobody else.
MOST_AT_ONCE = 200


class Expired(NamedTuple):
    """What one call did.

    Args:
        gone: FSMs that were taken away: name -> id of the life.
        left: Those that only `purge` can take away, since they have mail, are in a worker's hand, or are damaged: with
            the id of the life, "" where that cannot be read.
        looked_at: How many there were, with those that did not belong there.
    """

    gone: dict[str, str]
    left: dict[str, str]
    looked_at: int

    @property
    def is_full(self) -> bool:
        """Whether there may be more of them."""
        return self.looked_at >= MOST_AT_ONCE


def expire(keys: Keys, machine: str, state: str, age_ms: int, skipped: int = 0) -> Request[Expired]:
    """Take away FSMs of a machine that finished in a state so long ago, at most `MOST_AT_ONCE`.

    On a crash: each is gone or there, and the next call goes on.

    Args:
        keys: Of the namespace.
        machine: Name of the machine.
        state: Name of the state.
        age_ms: How long ago at least.
        skipped: How many earlier calls have left.
    """
    names = (keys.finished_of(machine, state), keys.errors(machine), keys.held)
    arguments = [keys.prefix, age_ms, MOST_AT_ONCE, skipped, machine, state]
    return Request(_expired, "expire", names, arguments)


def _expired(reply: Sequence[Any]) -> Expired:
    gone, left = (dict(zip(map(text, flat[::2]), map(text, flat[1::2]), strict=True)) for flat in reply[1:3])
    return Expired(gone, left, int(reply[3]))
