"""What a row says beside what Redis has of the same FSM: where no worker can mend it, and what is left to be told.

Who calls this: `shelf`, of each FSM that is claimed. PURE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm.machine.marks import read_mark
from fsm.store.halves import read_half

if TYPE_CHECKING:
    from fsm.storage.protocol import Row
    from fsm.store.calls import Claimed
    from fsm.store.halves import Half

__all__ = ["half_of", "trouble"]


def trouble(fsm: Claimed, row: Row | None) -> tuple[str, str]:
    """Say of what kind the difference between Redis and the storage is, where no worker can mend it; and which."""
    if row is None or row.born != fsm.born:
        if read_mark(fsm.definition).is_stored:
            there = "no row of it" if row is None else f"a row of another life (born {row.born})"
            what = f"Redis says that version {fsm.version} lies in the storage, which has {there}"
            return "StorageLost", f"{what}: restore the storage, or purge the FSM"
        if row is not None and _is_later(row.born, fsm.born):
            what = f"the storage has a later life of it (born {row.born}) than Redis (born {fsm.born})"
            return "RedisLost", f"{what}: restore Redis, or delete the row"
        return "", ""
    both = f"the storage has version {row.version}, and Redis version {fsm.version}"
    if row.version < fsm.version:
        return "StorageLost", f"{both}: restore the storage, or purge the FSM"
    return "", both


def half_of(row: Row) -> Half | None:
    """Read what of its step Redis was to be told; None where the row was written by hand, and keeps an older one.

    Raises:
        ValueError: It cannot be read here.
    """
    if not row.pending:
        return None
    half = read_half(row.pending)
    return half if half.version == row.version else None


def _is_later(born: str, than: str) -> bool:
    """Compare two lives; what is no number was written by hand, and is later than none."""
    return born.isdecimal() and than.isdecimal() and int(born) > int(than)
