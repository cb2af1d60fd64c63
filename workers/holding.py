"""What a storage has against some FSMs of many: who waits for how long, and what is kept of what it raised.

Who calls this: `shelf`. It imports nothing that talks to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fsm.engine.faults import said as text_of
from fsm.storage.persistable import RowBusyError
from workers.stored import StoredBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.errors import StoreError
    from fsm.store.calls import Claimed
    from workers.breaker import Breaker

__all__ = ["LEAST_MS", "apart", "bare", "said", "wait_ms"]

_FSM = TypeVar("_FSM", "Claimed", "StoredBlock")
# How long an FSM waits whose storage cannot be used: as long as that is left alone, and not in step with all others.
LEAST_MS = 1_000
# How long one waits whose row somebody holds: each look costs the bound of a statement.
_BUSY_MS = 5_000
# So many rows that are held are waited for in one claim, one after the other.
_MOST_BUSY = 2


def wait_ms(breaker: Breaker, error: StoreError) -> int:
    """Say how long an FSM waits for its storage, or for a row there that somebody holds."""
    if isinstance(error, RowBusyError) and not breaker.wait_s:
        return _BUSY_MS
    return max(LEAST_MS, int(breaker.wait_s * 1000) + 50)


def apart(
    all_of: Sequence[_FSM], error: RowBusyError, breaker: Breaker, busy: int
) -> tuple[Sequence[_FSM], Sequence[_FSM]]:
    """Divide those that have to wait from the others: where many rows are held, all of them wait for the storage."""
    if busy < _MOST_BUSY:
        mine = [one for one in all_of if _name(one) == error.name]
        if mine:
            return mine, [one for one in all_of if _name(one) != error.name]
    breaker.open(error.problem)
    return all_of, ()


def _name(one: Claimed | StoredBlock) -> str:
    return one.row.name if isinstance(one, StoredBlock) else one.name


def said(error: Exception) -> str:
    """Give class and text of an exception."""
    return f"{type(error).__name__}: {text_of(error)}"


def bare(error: Exception) -> Exception:
    """Give an exception without its frames, which would keep alive all that was to be stored with this row."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
