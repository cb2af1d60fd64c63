"""Backup files as they are found, and which of them is restored.

Who calls this: `directory`, those who restore, and the commands. It may import `file`, `form` and the errors.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from fsm.backup.file import Reader, peek
from fsm.errors import BackupError

if TYPE_CHECKING:
    from types import TracebackType

    from fsm.backup.form import End, Header

__all__ = ["OLD", "PART", "Backup", "Chosen", "Role", "beside", "choose_file", "looked_at", "verify_file"]

# What is beside a file: the one before it, and one that is being written.
OLD = ".old"
PART = ".part"

Role: TypeAlias = Literal["stable", "old", "part", "snapshot", "file"]


@dataclass(frozen=True, slots=True)
class Backup:
    """A file of a backup, as it was found.

    Args:
        path: Of the file.
        role: What it is in its directory.
        id: Of the backup; "" where the file cannot be read.
        namespace: The one that was saved.
        created_at: When it was begun; `None` where the file cannot be read.
        scope: Everything, or one FSM that was exported.
        size: Of the file, in bytes.
        fsms: How many FSMs it holds.
        problem: What is wrong with it, in a sentence; "" where nothing is known to be.
    """

    path: Path
    role: Role
    id: str = ""
    namespace: str = ""
    created_at: datetime | None = None
    scope: str = ""
    size: int = 0
    fsms: int = 0
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "path": str(self.path),
            "role": self.role,
            "id": self.id,
            "namespace": self.namespace,
            "created_at": self.created_at.isoformat(timespec="milliseconds") if self.created_at else None,
            "scope": self.scope,
            "size": self.size,
            "fsms": self.fsms,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backup to restore, open and proven; as a context, it is closed at the end.

    Args:
        reader: Reads it.
        backup: The file.
        passed_over: Those that would have been taken before it, each with its problem.
    """

    reader: Reader
    backup: Backup
    passed_over: tuple[Backup, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.reader.close()


def choose_file(path: Path | str, role: Role = "file") -> Chosen:
    """Open a backup file, else what lies beside it as the one before it, else as a whole one that was being written.

    Raises:
        BackupError: None verifies, or there is none: what is wrong with each is said.
    """
    stable = Path(path)
    candidates: tuple[tuple[Path, Role], ...] = (
        (stable, role),
        (beside(stable, OLD), "old"),
        (beside(stable, PART), "part"),
    )
    passed: list[Backup] = []
    for candidate, as_what in candidates:
        try:
            reader = Reader(candidate)
        except BackupError as error:
            if candidate is stable or os.path.lexists(candidate):
                passed.append(looked_at(candidate, as_what, error.problem))
            continue
        return Chosen(reader, _found(candidate, as_what, reader), tuple(passed))
    problems = "; ".join(f"{one.path.name}: {one.problem}" for one in passed)
    raise BackupError(str(stable), f"none can be restored, and nothing was touched: {problems}")


def verify_file(path: Path | str, role: Role = "file") -> Backup:
    """Read a backup file from its first byte to its last line.

    Raises:
        BackupError: It is not there, or not as it was written.
    """
    with Reader(Path(path)) as reader:
        for _ in reader:
            pass
        return _found(reader.path, role, reader)


def beside(path: Path, suffix: str) -> Path:
    """Give the path of what lies beside a file."""
    return path.with_name(path.name + suffix)


def looked_at(path: Path, role: Role, problem: str = "") -> Backup:
    """Tell what can be told of a file without reading all of it."""
    try:
        header, end = peek(path)
    except BackupError as error:
        return Backup(path, role, size=_size(path), problem=problem or error.problem)
    if end is None:
        problem = problem or "it does not end like a backup: it was cut off, or is being written"
    return replace(_backup(path, role, header, end), problem=problem)


def _found(path: Path, role: Role, reader: Reader) -> Backup:
    return _backup(path, role, reader.header, reader.end)


def _backup(path: Path, role: Role, header: Header, end: End | None) -> Backup:
    created = None
    with suppress(ValueError):
        created = datetime.fromisoformat(header.created_at)
    fsms = end.fsms if end else 0
    return Backup(path, role, header.id, header.namespace, created, header.scope, _size(path), fsms)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
