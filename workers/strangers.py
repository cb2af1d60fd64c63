"""FSMs that a worker cannot run, for their machine or definition is another: met again and again, until somebody can.

They stay ready, so that whoever knows them gets them at once, and each claim may bring some. So that they hold up
nobody who can be run here, they count for nothing in a claim; and where it brought none but them, the next one is made
at once, and is a large one, until all were met. Then there is nothing to be done here, and it pauses: for ten times as
long as that took, so that rounds are cheap, but never for long, since the next event may be one for it.

Who calls this: the intake.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fsm.store.calls import Claimed

__all__ = ["SLICE_S", "Strangers"]

_log = logging.getLogger("fsm.worker")
# A pause is taken in pieces, between which all else is looked after.
SLICE_S = 0.2
_LEAST_S, _MOST_S = SLICE_S, 2.0
_TIMES = 10
# Names of one round; with more, a pause falls into the middle of it.
_MOST_MET = 100_000


class Strangers:
    """Tells them from the others, and knows how far a round has come.

    Args:
        strangeness: Says in a clause why this worker cannot run an FSM; "" where it can.
    """

    def __init__(self, strangeness: Callable[[Claimed], str]) -> None:
        self._strangeness = strangeness
        self._reported: set[tuple[str, ...]] = set()
        self._met: set[str] = set()
        self._seconds = 0.0

    def part(self, fsms: list[Claimed]) -> tuple[list[Claimed], Sequence[Claimed]]:
        """Part FSMs into those that can be run here, and the others; of each kind of these, one is told of, once."""
        # Asked once for all that are alike: of one machine, state and status, and written last by one definition.
        kinds = {_kind(fsm): fsm for fsm in fsms}
        unknown = {kind: why for kind, fsm in kinds.items() if (why := self._strangeness(fsm))}
        if not unknown:
            return fsms, ()
        known: list[Claimed] = []
        strange: list[Claimed] = []
        for fsm in fsms:
            kind = _kind(fsm)
            (strange if kind in unknown else known).append(fsm)
            if kind in unknown and kind not in self._reported:
                self._reported.add(kind)
                _log.warning("FSM %r waits for a worker that knows it: %s", fsm.name, unknown[kind])
        return known, strange

    def meet(self, names: Collection[str], seconds: float) -> float:
        """Note what a turn brought that had none but strange ones.

        Args:
            names: Of those.
            seconds: What the turn took.

        Returns:
            For how long to pause; 0 where there may be others that were not met yet.
        """
        self._seconds += seconds
        before = len(self._met)
        self._met.update(names)
        if before < len(self._met) <= _MOST_MET:
            return 0.0
        pause_s = min(max(_LEAST_S, _TIMES * self._seconds), _MOST_S)
        self._met.clear()
        self._seconds = 0.0
        return pause_s


def _kind(fsm: Claimed) -> tuple[str, str, str, str]:
    return fsm.machine, fsm.state, fsm.definition, fsm.status
