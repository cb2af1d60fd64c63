"""The time by which FSMs live, as plans read it: that of Redis, and what a test has moved it by.

Who calls this: plans that compare times, and to which no script tells the time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fsm.store.codec import whole
from fsm.store.keys import CLOCK
from fsm.store.requests import TEST_CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["clock", "read_clock"]


def clock() -> list[tuple[Any, ...]]:
    """Give the commands that ask for the time; their replies come first where others stand behind them."""
    return [("TIME",), ("GET", CLOCK)] if os.environ.get(TEST_CLOCK) == "1" else [("TIME",)]


def read_clock(replies: Sequence[Any], count: int) -> int:
    """Read the time in ms out of the replies to so many commands of `clock`, and others behind them."""
    seconds, micros = replies[0]
    return int(seconds) * 1000 + int(micros) // 1000 + (whole(replies[1]) if count > 1 else 0)
