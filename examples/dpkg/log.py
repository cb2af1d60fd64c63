"""Reads dpkg's log: its status lines, one by one, as dpkg(1) describes them under `--log`.

    2025-06-24 14:36:25 status half-configured libsystemd0:amd64 252.36-1~deb12u1

Who calls this: the replay. It knows neither Redis nor `fsm`.

A log is what a machine wrote while it may have crashed, been filled up or been copied: any line may be anything, in any
encoding. Lines are read as bytes and only those that are whole count; what other lines say is none of our business.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.dpkg.machine import STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

__all__ = ["LogError", "StatusLine", "parse", "read"]

_GZIP = b"\x1f\x8b"
# Longer lines are no dpkg's: this bounds what a file without newlines does to our memory.
_LONGEST_LINE = 65_536
# A name is as lib/dpkg/parsehelp.c allows it, with the architecture behind a colon: `libc6:i386` is another package
# than `libc6:amd64`. A line without a version was cut off, perhaps within the name. After a crash of the computer a
# line may follow upon a block of zeros.
_STATUS = re.compile(
    rb"\0*(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) status (?P<status>%s)"
    rb" (?P<package>[A-Za-z0-9][A-Za-z0-9+._-]{0,254}(?::[A-Za-z0-9-]{1,64})?) (?P<version>\S+)\s*"
    % "|".join(STATUSES).encode()
)


class LogError(Exception):
    """The log cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class StatusLine:
    """One status line.

    Args:
        at: `YYYY-MM-DD HH:MM:SS`, local time of that host.
        status: One of `STATUSES`.
        package: Name, with its architecture where dpkg wrote it.
        version: `<none>` where there is none.
    """

    at: str
    status: str
    package: str
    version: str


def parse(line: bytes) -> StatusLine | None:
    r"""Read one line; `None` for all that is not a whole status line.

    >>> parse(b"2025-06-24 14:36:25 status unpacked libsystemd0:amd64 252.38-1~deb12u1\n")
    StatusLine(at='2025-06-24 14:36:25', status='unpacked', package='libsystemd0:amd64', version='252.38-1~deb12u1')
    >>> parse(b"2025-06-24 14:36:25 startup archives unpack\n")
    """
    found = _STATUS.fullmatch(line)
    if found is None:
        return None
    parts = found.group("at", "status", "package", "version")
    return StatusLine(*(part.decode("utf-8", "backslashreplace") for part in parts))


def read(path: Path) -> Iterator[StatusLine]:
    """Read the status lines of a log, in the order of the file, one at a time; `.gz` as logrotate leaves them too.

    Raises:
        LogError: The file is not there, cannot be read, or its gzip data are damaged.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.peek(len(_GZIP)).startswith(_GZIP)
            yield from filter(None, map(parse, _whole(gzip.GzipFile(fileobj=file) if is_packed else file)))
    except OSError as error:
        # A gzip file with a wrong header or checksum is an OSError without an errno.
        raise LogError(f"{path} cannot be read ({error.strerror or error}): name a dpkg.log with --log") from error
    except (EOFError, zlib.error) as error:
        raise LogError(f"{path} is damaged gzip data ({error}): unpack it as far as it goes, and give that") from error


def _whole(lines: BufferedReader | gzip.GzipFile) -> Iterator[bytes]:
    """Give lines; of those that are too long only the beginning."""
    is_rest = False
    while piece := lines.readline(_LONGEST_LINE):
        if not is_rest:
            yield piece
        is_rest = not piece.endswith(b"\n")
