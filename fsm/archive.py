"""What applications ask of backups: saved, restored, one FSM taken out and put in.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm import config
from fsm.backup import restoring, saving
from fsm.backup.directory import Directory
from fsm.backup.file import Reader
from fsm.carrier import PlanCarrier
from fsm.engine import checked_name
from fsm.errors import BackupError
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Archive", "Restored", "Saved"]


@dataclass(frozen=True, slots=True)
class Saved:
    """A backup that was written.

    Args:
        path: The file.
        id: Of the backup.
        fsms: How many lines of FSMs it has.
        size: Of the file, in bytes.
        sha256: Of all before its seal.
        broken: Names of FSMs that are not in it, since a key of them is of another type.
    """

    path: Path
    id: str
    fsms: int
    size: int
    sha256: str
    broken: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm backup save --json` prints it."""
        return {
            "path": str(self.path),
            "id": self.id,
            "fsms": self.fsms,
            "size": self.size,
            "sha256": self.sha256,
            "broken": list(self.broken),
        }


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Args:
        path: The file that was used.
        id: Of the backup.
        created_at: When it was begun, RFC 3339: what was done since is not in it.
        namespace: Into which it went.
        restored: So many FSMs are as the backup has them.
        replaced: So many of these took the place of another.
        kept: They were there, the same life, and not older.
        existing: Their names were taken: by another life, or by an older version of this one.
        held: They were to be replaced, and a worker had them in hand all the time.
        broken: A key of theirs is of another type, or what was saved was no snapshot.
        left: Names of those that were not restored, the first thousand, each with which of the last three it is.
        passed_over: Files that come before this one, and what is wrong with each.
        is_dry_run: Nothing was written, and this is what would be done.
    """

    path: Path
    id: str
    created_at: str
    namespace: str
    restored: int
    replaced: int
    kept: int
    existing: int
    held: int
    broken: int
    left: tuple[tuple[str, str], ...]
    passed_over: tuple[str, ...]
    is_dry_run: bool

    @property
    def is_whole(self) -> bool:
        """Whether each FSM of the backup is there now."""
        return not (self.existing or self.held or self.broken)

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm backup restore --json` prints it."""
        return {
            "path": str(self.path),
            "id": self.id,
            "created_at": self.created_at,
            "namespace": self.namespace,
            "restored": self.restored,
            "replaced": self.replaced,
            "kept": self.kept,
            "existing": self.existing,
            "held": self.held,
            "broken": self.broken,
            "left": [{"name": name, "why": why} for name, why in self.left],
            "passed_over": list(self.passed_over),
            "dry_run": self.is_dry_run,
        }


class Archive(PlanCarrier):
    """The verbs of a client that are about backups."""

    keys: Keys

    def backup(
        self,
        directory: Path | str,
        *,
        max_snapshots: int = 10,
        progress: Callable[[int], None] | None = None,
    ) -> Saved:
        """Save all FSMs of this namespace into a directory, while they run.

        Each FSM is whole, with its mailbox, delayed events, timers and open effects, as it was at one moment between
        the beginning and the end; two of them may be of different moments. Memory does not grow with their number.

        On a crash: the backup before this one is as it was.

        Args:
            directory: Made where there is none. One that two namespaces share has a file of each.
            max_snapshots: How many older ones are kept beside it.
            progress: Is told, now and then, how many FSMs were saved.

        Raises:
            BackupError: It cannot be written: the disk is full, there is no permission, or somebody else writes there.
            StoreError: Redis cannot be used.
        """
        target = Directory(directory, self.keys.namespace)
        with target.writing(redis=self._version(), max_snapshots=max_snapshots) as writer:
            broken = self.do(saving.save(self.keys, _reporting(writer.write, progress)))
        return Saved(writer.path, writer.header.id, writer.fsms, writer.size, writer.sha256, tuple(broken))

    def restore(  # noqa: PLR0913 - one keyword an option of a restore
        self,
        source: Path | str,
        snapshot: str = "",
        *,
        into: str | None = None,
        replace: bool = False,
        effects: bool = True,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Restored:
        """Put the FSMs of a backup back: those that are not there.

        One that is there, the same life and not older, is kept; one whose name was given to another life, or that is
        older than its backup, is left alone and told, unless `replace` is set. So a restore may be repeated, and while
        workers are at it. What was due meanwhile goes off.

        On a crash: each FSM was restored whole or not at all; begin again.

        Args:
            source: A directory: then the newest backup in it that verifies; or a file.
            snapshot: The id of one that is kept in that directory.
            into: The namespace; by default that which was saved.
            replace: Purge what is in the way of an FSM of the backup, with its mail.
            effects: Keep what is noted of open effects. Their jobs are in no backup, so their FSMs are told that they
                failed; without, nobody tells them anything.
            dry_run: Verify and count, and write nothing.
            progress: Is told, now and then, how many FSMs were looked at.

        Raises:
            BackupError: There is none, none verifies, or it is of another namespace: nothing was touched.
            ConfigError: The namespace cannot be one.
            StoreError: Redis cannot be used.
        """
        path, passed_over = Path(source), ()
        if path.is_dir():
            chosen = Directory(path, self.keys.namespace).choose(snapshot)
            path, passed_over = chosen.path, chosen.passed_over
        elif snapshot:
            raise BackupError(str(path), "is a file: an id belongs to a directory")
        with Reader(path) as reader:
            header = reader.header
            if into is None and header.namespace != self.keys.namespace:
                problem = f"is of namespace {header.namespace!r}, and not of {self.keys.namespace!r}: name the \
namespace that is to have it, with --into (into=) or --namespace"
                raise BackupError(str(path), problem)
            keys = self.keys if into is None else Keys(config.check_namespace(into))
            count = self.do(
                restoring.restore(
                    keys,
                    reader,
                    header.namespace,
                    replace=replace,
                    effects=effects,
                    is_check=dry_run,
                    progress=progress,
                )
            )
        return Restored(
            path,
            header.id,
            header.created_at,
            keys.namespace,
            count.restored,
            count.replaced,
            count.kept,
            count.existing,
            count.held,
            count.broken,
            tuple(count.left),
            passed_over,
            dry_run,
        )

    def export_fsm(self, name: str, file: Path | str) -> Saved:
        """Save one FSM with its last lines of the log and its audit: to look at it elsewhere, or to bring it there.

        On a crash: a file that was there is as it was.

        Raises:
            UnknownFSMError: There is none of this name.
            BackupError: The file cannot be written.
            StoreError: Redis cannot be used.
        """
        checked_name(name)
        with writing_file(Path(file), self.keys.namespace, redis=self._version()) as writer:
            self.do(saving.export(self.keys, name, writer.write))
        return Saved(Path(file), writer.header.id, writer.fsms, writer.size, writer.sha256)

    def import_fsm(
        self, file: Path | str, *, into: str | None = None, replace: bool = False, dry_run: bool = False
    ) -> Restored:
        """Put an FSM back that was exported: as `restore`. Lines of log and audit stay in the file.

        Raises:
            BackupError: The file does not verify, or is of another namespace.
            StoreError: Redis cannot be used.
        """
        return self.restore(file, into=into, replace=replace, dry_run=dry_run)

    def _version(self) -> str:
        """Name the version of Redis; "" where we may not ask."""
        return ""


def _reporting(write: Callable[[Any], None], progress: Callable[[int], None] | None) -> Callable[[Any], None]:
    """Tell every thousand lines how many there are."""
    if progress is None:
        return write
    count = 0

    def counted(line: Any) -> None:
        nonlocal count
        write(line)
        count += 1
        if count % _TELL_EVERY == 0:
            progress(count)

    return counted
