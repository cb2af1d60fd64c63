"""A backup as a file: compressed lines, and a seal over every byte of them.

    gzip member 1   the lines: header, machines, FSMs, end
    gzip member 2   {"kind": "seal", "bytes": …, "sha256": …}: of every byte before it, as it lies on the disk

gzip checks its contents, not its own header, and not that nothing follows. So the seal is over the compressed bytes,
and it is of one length and one form: its bytes must be the very ones that we would write for what stands before them.
Then any byte that is changed, missing or added is found before a line is parsed. `zcat` reads both members.

It proves that the file is what was written, not who wrote it: who can write the file can write a seal as well.

Who calls this: `directory`, and those who save and restore. It may import `form` and the errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from fsm.backup.form import End, Header, SavedFSM, SavedLog, SavedMachine

__all__ = ["Reader", "Seal", "Writer"]


class Writer:
    """Writes lines into an open file, compressing in a thread of its own; as a context, it seals at the end.

    Args:
        file: Open for writing in binary, at its beginning.
        header: The first line.

    `bytes_written` and `fsms` tell how far it is.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        raise NotImplementedError

    def write(self, line: SavedMachine | SavedFSM | SavedLog) -> None:
        """Add a line."""
        raise NotImplementedError

    def seal(self) -> Seal:
        """Write the end and the seal, and see them to the disk."""
        raise NotImplementedError

    def close(self) -> None:
        """End the thread; what was not sealed is no backup."""
        raise NotImplementedError


class Seal:
    """What the seal of a file says: `size` of the whole file, `sha256`."""


class Reader:
    """Reads a backup that verifies: `for line in reader`, after which `reader.end` is there.

    Args:
        path: Of the file.

    Raises:
        BackupError: It is not there, or not as it was written.
    """

    header: Header
    end: End | None

    def __init__(self, path: Path) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[SavedMachine | SavedFSM | SavedLog]:
        """Give the lines between the header and the end, in their order."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
