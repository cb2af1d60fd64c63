"""Lengths of time and times on the command line: seconds or text such as "1m30s"; "2026-11-22T05:00".

Who calls this: the commands, for `--timeout`, `--delay` and the filters of `ls`. It may import the machine's durations.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fsm.errors import ConfigError
from fsm.machine import duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["length", "moment", "timeout"]


def length(value: str) -> float:
    """Read a length of time; gives seconds."""
    try:
        given: float | str = float(value)
    except ValueError:
        given = value
    try:
        return duration_ms(given, "") / 1000
    except ConfigError as error:
        raise click.BadParameter(error.problem) from error


def moment(value: str) -> datetime:
    """Read a time: as ISO 8601 writes it, without a zone by the clock of this machine."""
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        problem = f"{value!r} is no time: write it as 2026-11-22T05:00, or with a zone as 2026-11-22T05:00+01:00"
        raise click.BadParameter(problem) from error


def timeout(default: str, what: str) -> Callable[[Any], Any]:
    """Give a command its option `--timeout`.

    Args:
        default: Such a length.
        what: What it waits for, the end of a sentence that begins "How long to wait".
    """
    words = f"How long to wait{what}: seconds, or as 1m30s."
    return click.option("--timeout", type=length, metavar="TIME", default=default, show_default=True, help=words)
