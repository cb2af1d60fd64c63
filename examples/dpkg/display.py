"""What a person sees while a replay runs: a bar and the counts per state on a terminal, plain lines elsewhere.

Who calls this: `__main__`. It prints and asks nothing.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.dpkg.machine import STATUSES, UNKNOWN

if TYPE_CHECKING:
    from types import TracebackType

    from examples.dpkg.replay import Standing

__all__ = ["Display"]

# Plain lines go to files and pipes: one a second is enough to see that it moves.
_PLAIN_EVERY_S = 1.0


class Display:
    """Shows how far a replay is, for the length of a `with` block.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._stack = ExitStack()
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("status lines", total=None)
        self._printed_at = 0.0
        self._printed = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # No thread of its own: it is drawn anew whenever there is news.
            self._live = self._stack.enter_context(Live(console=self._console, auto_refresh=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._live = None

    def show(self, standing: Standing, *, is_last: bool = False) -> None:
        """Show where the replay stands; `is_last` is shown in any case."""
        if self._live is not None:
            self._progress.update(self._task, completed=standing.applied, total=standing.sent)
            self._live.update(Group(self._progress, _table(standing)), refresh=True)
            return
        line = _line(standing)
        is_due = time.monotonic() - self._printed_at >= _PLAIN_EVERY_S
        if line != self._printed and (is_last or is_due):
            self._printed_at, self._printed = time.monotonic(), line
            self._console.out(line, highlight=False)

    def tell(self, text: str) -> None:
        """Say something above what is shown."""
        self._console.out(text, highlight=False)


def _counts(standing: Standing) -> list[tuple[str, int]]:
    return [(state, standing.states[state]) for state in (UNKNOWN, *STATUSES) if standing.states[state]]


def _table(standing: Standing) -> Table:
    table = Table("state", "packages")
    for state, count in _counts(standing):
        table.add_row(state, str(count))
    return table


def _line(standing: Standing) -> str:
    states = ", ".join(f"{count} {state}" for state, count in _counts(standing))
    return f"{standing.applied} of {standing.sent} status lines applied: {states or 'no packages yet'}"
