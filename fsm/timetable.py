"""What applications ask of time: what is armed and delayed.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm import verbs
from fsm.carrier import PlanCarrier

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs import Timetable

__all__ = ["Clockwork"]


class Clockwork(PlanCarrier):
    """The verbs of a client that are about timers."""

    keys: Keys

    def timers(self, name: str | None = None, *, cursor: str = "", count: int = 100) -> Timetable:
        """Give what is to come, soonest first: of one FSM its timers and delayed events, or a page of those of all.

        Args:
            name: The FSM: all of it is given, also what has fired and waits in the mailbox. Without it, what is armed.
            cursor: Of all FSMs: where the page before ended, as its `cursor` says; "" begins.
            count: Of all FSMs: at most so many a page, up to 10,000.

        Raises:
            UnknownFSMError: No such FSM.
            PayloadError: The cursor is not one that a page gave, or the count is out of bounds.
            StoreError: Redis cannot be used.
        """
        plan = verbs.timetable(self.keys, cursor, count) if name is None else verbs.timers_of(self.keys, name)
        return self.do(plan)
