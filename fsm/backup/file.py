"""A backup as a file: compressed lines, and a seal over every byte of them.

    gzip member 1   the lines, compressed: header, machines, FSMs
    gzip member 2   {"kind":"end", …}: how many there were; stored as it is, of one length
    gzip member 3   {"kind":"seal", …}: size and SHA-256 of every byte before it, as it lies on the disk; as member 2

gzip checks its contents, but not its own header, and not that nothing is missing at the end or follows it. So the seal
is over the compressed bytes, and has one length and one form: it must be, byte for byte, what we would write for what
stands before it. Then any byte that is changed, missing or added is found before a line is parsed, `zcat` reads all
three members, and the last few bytes tell without reading the rest what the file holds.

It proves that the file is as it was written, not who wrote it: who can write the file can write a seal as well.

Who calls this: `directory`, and those who save and restore. It may import `form` and the errors.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

import msgspec

from fsm.backup.form import FORMAT, End, Header, SavedFSM, SavedLog, SavedMachine, SavedResting, read_line, write_line
from fsm.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from io import RawIOBase
    from pathlib import Path
    from types import TracebackType

__all__ = ["Reader", "Seal", "Writer", "peek", "told"]

# What gzip calls fastest: a backup is to be quick, and names and fields repeat so much that little more is to be had.
_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
# Of text a time to the thread that compresses, and so many of them ahead of it: a few MiB, however many FSMs there are.
_CHUNK = 256 << 10
_AHEAD = 4
_READ = 64 << 10
_STEP = 128

# Of the gzip format (RFC 1952): magic, deflate, no flags, no time, no extra flags, unknown system.
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# Numbers are padded to this width, so that these two lines have one length each.
_END = '{"kind":"end","fsms":%20d,"lines":%20d}\n'
_SEAL = '{"kind":"seal","bytes":%20d,"sha256":"%s"}\n'
_SEALED = re.compile(rb'\{"kind":"seal","bytes":[ ]*\d+,"sha256":"[0-9a-f]{64}"\}\n')


@dataclass(frozen=True, slots=True)
class Seal:
    """What the seal of a file says.

    Args:
        size: Bytes before it.
        sha256: Of these bytes, in hexadecimal digits.
    """

    size: int
    sha256: str


class _Format(msgspec.Struct):
    """What of the first line every format has."""

    kind: str = ""
    format: int = 0


def _stored(text: str) -> bytes:
    """Give a gzip member with a text as it is (RFC 1951, 3.2.4), by hand: no version of zlib writes it otherwise."""
    data = text.encode()
    block = struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF)
    return b"%b%b%b%b" % (_HEAD, block, data, struct.pack("<II", zlib.crc32(data), len(data)))


def _end_member(end: End) -> bytes:
    return _stored(_END % (end.fsms, end.lines))


def _seal_member(seal: Seal) -> bytes:
    return _stored(_SEAL % (seal.size, seal.sha256))


_END_SIZE = len(_end_member(End(0, 0)))
_SEAL_SIZE = len(_seal_member(Seal(0, "0" * 64)))
_TEXT = slice(len(_HEAD) + 5, -8)  # of a stored member


def told(path: Path | str, error: OSError, doing: str) -> BackupError:
    """Say what the system would not let us do with a file."""
    remedies = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        errno.EFBIG: "this disk, or a limit of this process, takes no file of this size",
        errno.EACCES: "give this user the right to it",
        errno.EPERM: "give this user the right to it",
        errno.EROFS: "choose a directory that can be written",
    }
    remedy = remedies.get(error.errno or 0)
    why = error.strerror or str(error)
    return BackupError(str(path), f"cannot {doing}: {why}" + (f"; {remedy}" if remedy else ""))


class Writer:
    """Writes lines into an open file, compressing in a thread of its own.

    Args:
        file: Open for writing without a buffer, empty. It stays open.
        path: What the file is going to be called; it may have another name as yet.
        header: The first line.

    `fsms`, `lines` and `size`, the bytes on the disk, tell how far it is; `stored` tells of how many FSMs the payload
    lies in a storage. `sha256` is there when it is sealed.
    """

    def __init__(self, file: RawIOBase, path: Path, header: Header) -> None:
        self.header = header
        self.path = path
        self.sha256 = ""
        self.fsms = 0
        self.stored = 0
        self.lines = 0
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        # zlib, SHA-256 and the disk go on without the interpreter's lock while the next lines are made.
        self._thread = ThreadPoolExecutor(1, "fsm-backup")
        self._ahead: deque[Future[None]] = deque()
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._add(header)

    def write(self, line: SavedMachine | SavedFSM | SavedResting | SavedLog) -> None:
        """Add a line, or those that were written already.

        Raises:
            BackupError: An earlier one could not be written.
        """
        if isinstance(line, SavedResting):
            self.fsms += len(line.lines)
            self.stored += line.stored
            return self._add_raw(line.lines)
        if type(line) is SavedFSM:
            self.fsms += 1
            self.stored += line.is_stored
        return self._add(line)

    def seal(self) -> Seal:
        """Write the end and the seal, and see all of it to the disk.

        On a crash: without its last byte it is no backup, and nobody takes it for one.

        Raises:
            BackupError: It cannot be written.
        """
        self.lines += 1
        self._send()
        while self._ahead:
            self._result()
        self._doing(self._close_member)
        seal = Seal(self.size, self._digest.hexdigest())
        self._doing(lambda: self._finish(seal))
        self.sha256 = seal.sha256
        return seal

    def close(self) -> None:
        """End the thread, and forget what waits for it; what was not sealed is no backup."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _add(self, line: Header | SavedMachine | SavedFSM | SavedLog) -> None:
        self._add_raw([write_line(line)])

    def _add_raw(self, lines: list[bytes]) -> None:
        self.lines += len(lines)
        self._waiting += lines
        self._waiting_size += sum(map(len, lines))
        if self._waiting_size >= _CHUNK:
            self._send()

    def _send(self) -> None:
        """Hand what waits to the thread; wait where it is far behind."""
        if len(self._ahead) >= _AHEAD:
            self._result()
        self._waiting.append(b"")
        self._ahead.append(self._thread.submit(self._pack, b"\n".join(self._waiting)))
        self._waiting = []
        self._waiting_size = 0

    def _result(self) -> None:
        self._doing(self._ahead.popleft().result)

    def _doing(self, doing: Callable[[], None]) -> None:
        try:
            doing()
        except OSError as error:
            raise told(self.path, error, "write it") from error

    def _pack(self, text: bytes) -> None:
        self._put(self._packer.compress(text))

    def _close_member(self) -> None:
        self._put(self._packer.flush())
        self._put(_end_member(End(self.fsms, self.lines)))

    def _finish(self, seal: Seal) -> None:
        self._put(_seal_member(seal))
        os.fsync(self._file.fileno())

    def _put(self, raw: bytes) -> None:
        self._digest.update(raw)
        self.size += len(raw)
        # Without a buffer, which would try again at the close what failed; the disk may take a part of it only.
        left = memoryview(raw)
        while left:
            left = left[self._file.write(left) or 0 :]


class Reader:
    """Reads a backup that is as it was written: `for line in reader`.

    Args:
        path: Of the file.

    `header`, `end` and `seal` are there at once.

    Raises:
        BackupError: It is not there, not as it was written, or of a format that this program does not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        try:
            self.seal = _proven(self._file, path)
            self.header = _header(self._file, path)
            self.end = _end(self._file, path, self.seal.size)
        except OSError as error:
            self._file.close()
            raise told(path, error, "read it") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[SavedMachine | SavedFSM | SavedLog]:
        """Give the lines between the header and the end, in their order; memory holds a few of them.

        Raises:
            BackupError: A line is none, or there are more or fewer than the end says. No file that this program wrote
                is like this: the seal proves it to be as it was written.
        """
        lines = fsms = 0
        for raw in _lines(self._file, self.path, self.seal.size - _END_SIZE):
            lines += 1
            try:
                line = read_line(raw)
            except ValueError as error:
                raise BackupError(str(self.path), f"line {lines} is none of format {FORMAT}: {error}") from error
            if isinstance(line, (SavedFSM, SavedMachine, SavedLog)):
                fsms += type(line) is SavedFSM
                yield line
        if (fsms, lines + 1) != (self.end.fsms, self.end.lines):
            problem = f"its end tells of {self.end.fsms} FSMs and {self.end.lines} lines, it has {fsms} and {lines + 1}"
            raise BackupError(str(self.path), problem)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def peek(path: Path) -> tuple[Header, End | None]:
    """Read the header and the end of a file without reading what is between: nothing of it is proven.

    Returns:
        No end, where it does not end like a backup.

    Raises:
        BackupError: It does not begin like one, or cannot be read.
    """
    file = _opened(path)
    try:
        with file:
            header = _header(file, path)
            with suppress(BackupError):
                return header, _end(file, path, os.fstat(file.fileno()).st_size - _SEAL_SIZE)
            return header, None
    except OSError as error:
        raise told(path, error, "read it") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BackupError(str(path), "there is no such file") from None
    except OSError as error:
        raise told(path, error, "read it") from error


def _proven(file: BinaryIO, path: Path) -> Seal:
    """Compare the seal of a file with its bytes."""
    size = os.fstat(file.fileno()).st_size - _SEAL_SIZE
    digest = hashlib.sha256()
    file.seek(0)
    left = size
    while left > 0 and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    tail = file.read()
    seal = Seal(size, digest.hexdigest())
    if tail == _seal_member(seal):
        return seal
    if _SEALED.fullmatch(tail[_TEXT]):
        raise BackupError(str(path), "its bytes are not those that were sealed: it was changed, or the disk lost some")
    raise BackupError(str(path), "it does not end with a seal: it was cut off, or is being written, or is no backup")


def _header(file: BinaryIO, path: Path) -> Header:
    """Read the first line."""
    file.seek(0)
    unpacker = zlib.decompressobj(_GZIP)
    first = b""
    # In small steps: of a file that is damaged behind it, it can be read all the same.
    with suppress(zlib.error):
        while b"\n" not in first and len(first) < _READ and (packed := file.read(_STEP)):
            first += unpacker.decompress(packed)
    line = first.partition(b"\n")[0]
    try:
        kind = msgspec.json.decode(line, type=_Format)
        if kind.kind == "header" and kind.format != FORMAT:
            other = f"it is of format {kind.format}, and this program reads {FORMAT}: use the version that wrote it"
            raise BackupError(str(path), other)
        header = read_line(line)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BackupError(str(path), "it does not begin like a backup") from error
    if not isinstance(header, Header):
        raise BackupError(str(path), "it does not begin like a backup")
    return header


def _end(file: BinaryIO, path: Path, size: int) -> End:
    """Read the end; `size` bytes stand before the seal."""
    problem = "it does not end like a backup: it was cut off, or is being written"
    if size < _END_SIZE:
        raise BackupError(str(path), problem)
    file.seek(size - _END_SIZE)
    try:
        end = read_line(file.read(_END_SIZE)[_TEXT])
    except ValueError as error:
        raise BackupError(str(path), problem) from error
    if not isinstance(end, End):
        raise BackupError(str(path), problem)
    return end


def _lines(file: BinaryIO, path: Path, size: int) -> Iterator[bytes]:
    """Give the lines of the first member, which is `size` bytes long."""
    unpacker = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    file.seek(0)
    while size > 0 and (packed := file.read(min(size, _READ))):
        size -= len(packed)
        try:
            text = unpacker.decompress(packed)
        except zlib.error as error:
            raise BackupError(str(path), f"it cannot be unpacked: {error}") from error
        # A line may be longer than many pieces: they are joined once.
        first, *others = text.split(b"\n")
        parts.append(first)
        if others:
            yield b"".join(parts)
            parts = [others.pop()]
            yield from others
    if size or any(parts) or not unpacker.eof or unpacker.unused_data:
        raise BackupError(str(path), "its lines end in the middle")
