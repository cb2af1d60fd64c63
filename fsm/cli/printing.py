r"""How commands print: tables where a person looks, tab-separated text where output is piped, and JSON.

Names and values of FSMs hold any text. What would break a line, or steer a terminal, is shown as Python writes it
(`\n`, `\x1b`), so that a line of output is always one row.

rich is imported where a terminal is written to: piped output needs none of it, and it costs a tenth of a start.

Who calls this: the commands. It imports nothing of ours.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import time
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.text import Text

__all__ = [
    "Styled",
    "clock_time",
    "complain",
    "is_terminal",
    "json_option",
    "print_array",
    "print_fields",
    "print_gap",
    "print_json",
    "print_line",
    "print_table",
    "safe",
    "spinner",
    "watch",
]

# Control characters, backslash, line separators, marks that turn the direction of text, halves of surrogate pairs.
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\\\\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True)
class Styled:
    """A value with a style that only terminals show, as rich names it: "red", "bold", "dim"."""

    value: Any
    style: str

    def __str__(self) -> str:
        return "" if self.value is None else str(self.value)


def is_terminal() -> bool:
    """Tell whether a person looks at what we print."""
    return sys.stdout.isatty()


def safe(value: Any) -> str:
    r"""Give a value as text of one line.

    >>> safe("two\nlines"), safe(None), safe(3)
    ('two\\nlines', '', '3')
    """
    text = "" if value is None else str(value)
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def clock_time(at: datetime | int | None) -> str:
    """Give a time, or ms since 1970, as text: local on a terminal, UTC in RFC 3339 where it is piped."""
    if at is None:
        return ""
    moment = datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else at
    if is_terminal():
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def print_json(value: Any, *, is_line: bool = False) -> None:
    """Print one JSON value; indented on a terminal, unless it is to be a line of its own."""
    is_indented = is_terminal() and not is_line
    _write_bytes(orjson.dumps(value, default=list, option=orjson.OPT_INDENT_2 if is_indented else None) + b"\n")


def print_array(values: Iterable[Any]) -> None:
    """Print one JSON array as its values come: a value a line, so that a million of them need no memory."""
    mark = b"["
    for value in values:
        _write_bytes(mark + orjson.dumps(value, default=list))
        mark = b",\n"
    _write_bytes(b"[]\n" if mark == b"[" else b"]\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows: a table with a header on a terminal, else tab-separated lines without one."""
    if not is_terminal():
        for row in rows:
            _write("\t".join(safe(cell) for cell in row))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - not where output is piped
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    _console().print(table)


def print_line(*cells: Any) -> None:
    """Print one row as it comes, where a table would have to wait for the last."""
    if not is_terminal():
        _write("\t".join(safe(cell) for cell in cells))
        sys.stdout.flush()
        return
    from rich.text import Text  # noqa: PLC0415 - not where output is piped

    _console().print(Text("  ").join(_cell(cell) for cell in cells if str(cell)), soft_wrap=True)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, aligned; values of several lines keep them, indented."""
    known = [(name, value) for name, value in fields if value is not None and str(value)]
    width = max((len(name) for name, _ in known), default=0) + 2
    for name, value in known:
        head = f"{name}:".ljust(width)
        style = value.style if isinstance(value, Styled) else ""
        lines = [safe(line) for line in str(value).split("\n")]
        body = ("\n" + " " * width).join(lines)
        if is_terminal():
            from rich.text import Text  # noqa: PLC0415 - not where output is piped

            _console().print(Text.assemble((head, "bold"), (body, style)), soft_wrap=True)
        else:
            _write(head + body)


def print_gap() -> None:
    """Print an empty line before a table, where the table does not bring it."""
    if not is_terminal():
        _write("")


def spinner(doing: str) -> AbstractContextManager[Any]:
    """Show a person that we wait; on stderr, for stdout is the outcome's."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console  # noqa: PLC0415 - not where output is piped

    return Console(stderr=True, markup=False, highlight=False).status(safe(doing))


class _Frame(io.StringIO):
    """What is to be on the screen next: taken for a terminal, so that it is written as for one."""

    def isatty(self) -> bool:
        return True


def watch(show: Callable[[], None], seconds: float, *, is_stream: bool = False) -> None:
    """Print again and again, until the caller is interrupted: on a terminal always to the same place.

    Args:
        show: Prints it once.
        seconds: To wait in between.
        is_stream: One below the other on a terminal too: lines for a program.
    """
    if is_stream or not is_terminal():
        while True:
            show()
            sys.stdout.flush()
            time.sleep(seconds)
    console = _console()
    # A screen of its own, as a pager has it: what stood there before comes back at the end.
    with console.screen(hide_cursor=True):
        while True:
            frame = _Frame()
            with redirect_stdout(frame):
                show()
            lines = frame.getvalue().splitlines()[: shutil.get_terminal_size().lines - 1]
            # Written over what is there: a screen that is cleared before flickers.
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            sys.stdout.flush()
            time.sleep(seconds)


def complain(problem: object) -> None:
    """Print one sentence on stderr: one of several things could not be done, and the others go on."""
    click.echo(f"fsm: {problem}", err=True)


def _cell(value: Any) -> Text:
    from rich.text import Text  # noqa: PLC0415 - not where output is piped

    return Text(safe(value), style=value.style if isinstance(value, Styled) else "")


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - not where output is piped

    # Made for each use: what stdout is may change, and rich asks NO_COLOR and the width of the terminal then.
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def _write(text: str) -> None:
    """Write a line, also where the encoding of stdout lacks some of its characters."""
    try:
        sys.stdout.write(f"{text}\n")
    except UnicodeEncodeError:
        sys.stdout.flush()
        _write_bytes(f"{text}\n".encode(sys.stdout.encoding, "backslashreplace"))


def _write_bytes(raw: bytes) -> None:
    """Write bytes as they are: JSON is UTF-8 whatever the encoding of stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(raw)
