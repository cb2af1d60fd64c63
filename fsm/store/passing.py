"""Which errors of Redis pass by themselves: who can wait asks again, and is answered some day.

Restarts, failovers, disks that are full. A Redis that is full is none of these: it takes what makes room in it.

Who calls this: `requests`, `connection` for its texts, and the workers, who can wait.
What it may import: `redis`.
"""

from __future__ import annotations

from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as SilentError

__all__ = ["BUSY", "DEMOTED", "FEW_REPLICAS", "UNSAVED", "is_demoted", "is_passing"]

# What the texts hold: redis-py has no class for most, and inside scripts Redis 6.2 hides the code in the text.
DEMOTED = ("READONLY", "read only replica", "MASTERDOWN", "Link with MASTER", "UNBLOCKED")
UNSAVED = "MISCONF"
FEW_REPLICAS = "NOREPLICAS"
BUSY = "BUSY Redis"


def is_passing(error: BaseException | None) -> bool:
    """Whether Redis is only away, restarting, failing over or unable to save: the same request may succeed later."""
    if isinstance(error, (BrokenError, SilentError)):
        return True
    return is_demoted(error) or _says(error, (UNSAVED, FEW_REPLICAS, BUSY))


def is_demoted(error: BaseException | None) -> bool:
    """Whether a replica said this. A connection stays with it, while the address may lead to the primary by now."""
    return isinstance(error, ReadOnlyError) or _says(error, DEMOTED)


def _says(error: BaseException | None, marks: tuple[str, ...]) -> bool:
    return isinstance(error, ResponseError) and any(mark in str(error) for mark in marks)
