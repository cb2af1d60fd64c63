"""The calls of those who keep snapshots by hand, or beside Redis: which lives there are.

Who calls this: `RedisStorage`, and the command that holds databases against Redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys

__all__ = ["lives"]


def lives(keys: Keys, names: Sequence[str]) -> Request[dict[str, str]]:
    """Read which life each of these names has; "" where there is none.

    Args:
        keys: Of the namespace.
        names: At least one.
    """

    def read(replies: Any) -> dict[str, str]:
        found = replies if len(names) > 1 else [replies]
        return {name: text(born) for name, born in zip(names, found, strict=True)}

    return Request(read, commands=[("HGET", keys.snapshot(name), "born") for name in names])
