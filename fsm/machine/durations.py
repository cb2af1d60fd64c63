"""Lengths of time as users write them: seconds, `timedelta`, or text such as "1d12h".

Who calls this: the settings, the labels of diagrams (`x after 24h`) and everything that takes a delay.
PURE: imports `fsm.errors` only. Inside, times are ints named `…_ms`.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

from fsm.errors import ConfigError

__all__ = ["Duration", "duration_ms", "duration_text", "span_text"]

Duration: TypeAlias = float | int | timedelta | str

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
# A thousand years in ms stay far below 2**53, so scores of sorted sets and JSON numbers hold them exactly.
_LONGEST_MS = 365_250 * _UNITS["d"]
_ALLOWED = 'write seconds (2.5), a timedelta, or text of the units ms s m h d w, such as "30s" or "1d12h"'


def duration_ms(value: Duration, what: str) -> int:
    """Give a length of time in milliseconds.

    >>> duration_ms("1d12h", "timeout"), duration_ms(2.5, "timeout"), duration_ms("500ms", "timeout")
    (129600000, 2500, 500)

    Args:
        value: A number is seconds.
        what: What the error names: the setting or argument.

    Returns:
        At least 0; parts of a millisecond are rounded.

    Raises:
        ConfigError: It is negative, not finite, longer than 1000 years, or no length of time at all.
    """
    milliseconds: float
    if isinstance(value, timedelta):
        milliseconds = value / timedelta(milliseconds=1)
    elif isinstance(value, str):
        milliseconds = _read(value, what)
    elif type(value) in {int, float}:
        # An int beyond what a float can hold would overflow in the product below.
        milliseconds = value * 1000 if abs(value) <= _LONGEST_MS else math.inf
    else:
        raise ConfigError(what, f"{value!r} is no length of time: {_ALLOWED}")
    if not 0 <= milliseconds <= _LONGEST_MS:
        raise ConfigError(what, f"{value!r} is negative, not finite or longer than 1000 years: {_ALLOWED}")
    return round(milliseconds)


def duration_text(milliseconds: int) -> str:
    """Write a length of time such that `duration_ms` reads the same back.

    >>> duration_text(129_600_000), duration_text(0)
    ('1d12h', '0s')
    """
    parts = []
    for unit, size in _UNITS.items():
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def span_text(milliseconds: int) -> str:
    """Write for people how long something takes or took: in its two largest units, of days to seconds.

    >>> span_text(93_784_000), span_text(3_050), span_text(-1)
    ('1d2h', '3s', '0s')
    """
    parts: list[str] = []
    left = max(0, milliseconds)
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def _read(text: str, what: str) -> float:
    if not _WHOLE.fullmatch(text):
        raise ConfigError(what, f"{text!r} is no length of time: {_ALLOWED}")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
