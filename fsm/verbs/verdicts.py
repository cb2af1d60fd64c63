"""What became of one item of a call that does many.

Who calls this: the plans that start and send; applications read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fsm.errors import FSMError, StoreError

if TYPE_CHECKING:
    from fsm.store.keys import Keys

__all__ = ["Verdict", "broken"]


class Verdict(msgspec.Struct, frozen=True):
    """What became of one event of `transition_many`, or one FSM of `start_many`.

    Args:
        name: The FSM.
        job_id: The job of the event; "" where there is none.
        error: `None` where it was accepted.
    """

    name: str
    job_id: str
    error: FSMError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was accepted."""
        return self.error is None


def broken(keys: Keys, name: str) -> StoreError:
    """Give the error for an FSM under whose keys lies something else."""
    return StoreError(
        f"a key of FSM {name!r} is of another type than ours ({keys.snapshot(name)} should be a hash, "
        f"{keys.mailbox(name)} a list): something else writes under our names"
    )
