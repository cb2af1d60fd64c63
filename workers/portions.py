"""How much each of several queues may give a worker at one turn, and in which order they are asked.

A worker that serves queues of single hosts beside those of its machines asks all of them at once, so that each more of
them costs Redis a look and the worker no round trip. Nobody knows before which of them has something: each gets a
small share, and one that had as much as that gets twice as much the next time, as far as those before it leave room.

Who calls this: the intake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Portions"]

# Of what a turn may claim, the small shares are a quarter in all.
_SHARED = 4
# Where queues are asked one by one, every so many turns begins with those that were not asked for longest: queues that
# are full starve nobody.
_FAIR = 4


class Portions:
    """Says how much is asked of each queue, and learns from what came."""

    def __init__(self) -> None:
        self._appetites: dict[str, int] = {}
        self._turns = 0
        self._asked_in: dict[str, int] = {}

    def order(self, beside: Sequence[str], own: Sequence[str]) -> Sequence[str]:
        """Give the order in which queues are asked one by one."""
        if not beside:
            return own
        self._turns += 1
        order = (*beside, *own)
        if self._turns % _FAIR:
            return order
        self._asked_in = {queue: self._asked_in.get(queue, 0) for queue in reversed(order)}
        return sorted(self._asked_in, key=self._asked_in.__getitem__)

    def note(self, queue: str) -> None:
        """Note that a queue is asked in this turn, one by one."""
        self._asked_in[queue] = self._turns

    def asked(self, queues: Sequence[str], ahead: Collection[str], want: int, come: int) -> dict[str, int]:
        """Say how many FSMs are asked of each queue.

        Args:
            queues: In order of preference; no more of them than are wanted.
            ahead: Those of them that have given already.
            want: As many in all,
            come: of which so many are there.
        """
        least = max(1, want // (_SHARED * len(queues)))
        left = want - come
        asked: dict[str, int] = {}
        others = [queue for queue in queues if queue not in ahead]
        for behind, queue in zip(reversed(range(len(others))), others, strict=True):
            asked[queue] = max(least, min(self._appetites.get(queue, least), left - least * behind))
            left -= asked[queue]
        return asked

    def learn(self, queue: str, asked: int, came: int) -> None:
        """Note how much came of a queue."""
        if came >= asked:
            self._appetites[queue] = 2 * asked
        else:
            self._appetites.pop(queue, None)

    def is_full(self, queue: str) -> bool:
        """Whether a queue gave as much as it was asked for, and so may have more."""
        return queue in self._appetites

    @staticmethod
    def ahead(want: int) -> int:
        """Say how many are claimed ahead of one queue, so that the small shares of the others have room."""
        return max(1, want - want // _SHARED)
