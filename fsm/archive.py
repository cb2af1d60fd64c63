"""What applications ask of backups: saved, restored, one FSM taken out and put in.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm import config, verbs
from fsm.backup import DIRECTORY, MAX_SNAPSHOTS
from fsm.carrier import PlanCarrier
from fsm.engine import checked_name
from fsm.errors import BackupError, StoreError
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.backup.choosing import Backup
    from fsm.backup.file import Writer

    Progress = Callable[[int, int], None]

__all__ = ["Archive", "Restored", "Saved"]

_TELL_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Saved:
    """A backup that was written.

    Args:
        path: The file.
        id: Of the backup.
        fsms: How many lines of FSMs it has.
        size: Of the file, in bytes.
        broken: Names of FSMs that are not in it, since a key of them is of another type.
        stored: Of so many of its FSMs the payload is not in it, but in the storage of their machine.
    """

    path: Path
    id: str
    fsms: int
    size: int
    broken: tuple[str, ...] = ()
    stored: int = 0

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm backup save --json` prints it."""
        return {
            "path": str(self.path),
            "id": self.id,
            "fsms": self.fsms,
            "size": self.size,
            "broken": list(self.broken),
            "stored": self.stored,
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
        stored: Of so many of those that were restored the payload was not in the backup, but is in the storage of their
            machine.
        repeated: So many lines are a later look at an FSM that an earlier line has restored: it is as it was then.
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
    passed_over: tuple[Backup, ...]
    is_dry_run: bool
    stored: int = 0
    repeated: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not there now, in words: what was done after the backup was begun is never in it."""
        why = (
            (self.existing, "whose names are taken"),
            (self.held, "that a worker had in hand"),
            (self.broken, "that cannot be written"),
            (self.stored, "have their payloads in a storage alone"),
        )
        told = [f"{count} FSM{'' if count == 1 else 's'} {which}" for count, which in why if count]
        return (f"what was done after {self.created_at}", *told)

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
            "passed_over": [one.as_json() for one in self.passed_over],
            "dry_run": self.is_dry_run,
            "stored": self.stored,
            "repeated": self.repeated,
            "missing": list(self.missing),
        }


class Archive(PlanCarrier):
    """The verbs of a client that are about backups."""

    keys: Keys

    def backup(
        self,
        directory: Path | str = DIRECTORY,
        *,
        max_snapshots: int = MAX_SNAPSHOTS,
        progress: Progress | None = None,
    ) -> Saved:
        """Save all FSMs of this namespace into a directory, while they run.

        Each FSM is whole, with its mailbox, delayed events, timers and open effects, as it was at one moment between
        the beginning and the end; two of them may be of different moments. Memory does not grow with their number.

        On a crash: the backup before this one is as it was.

        Args:
            directory: Made where there is none. One that two namespaces share has a file of each.
            max_snapshots: How many are kept by their ids beside it, this one among them.
            progress: Is told, now and then, how many FSMs were saved, and of about how many.

        Raises:
            BackupError: It cannot be written: the disk is full, there is no permission, or somebody else writes there.
            StoreError: Redis cannot be used.
        """
        # Here and below: each client has these verbs, few call them, and what writes files takes a while to import.
        from fsm.backup import saving  # noqa: PLC0415 - as said above
        from fsm.backup.directory import Backups  # noqa: PLC0415 - as above

        target = Backups(directory, self.keys.namespace)
        with target.writing(redis=self._version(), max_snapshots=max_snapshots) as writer:
            total = 0 if progress is None else self.do(verbs.count(self.keys, finished=True))
            broken = self.do(saving.save(self.keys, _reporting(writer, progress, total)))
        return Saved(target.stable, writer.header.id, writer.fsms, writer.size, tuple(broken), writer.stored)

    def restore(  # noqa: PLR0913 - one keyword an option of a restore
        self,
        source: Path | str = DIRECTORY,
        snapshot: str = "",
        *,
        into: str | None = None,
        replace: bool = False,
        effects: bool = True,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Restored:
        """Put the FSMs of a backup back: those that are not there.

        One that is there, the same life and not older, is kept; one whose name was given to another life, or that is
        older than its backup, is left alone and told, unless `replace` is set. So a restore may be repeated, and while
        workers are at it. What was due meanwhile goes off.

        On a crash: each FSM was restored whole or not at all; begin again.

        Args:
            source: A directory: then the newest backup in it that verifies; or a file, then that, or what lies beside
                it as the one before.
            snapshot: The id of one that is kept in that directory.
            into: The namespace; by default that which was saved.
            replace: Purge what is in the way of an FSM of the backup, with its mail.
            effects: Keep what is noted of open effects. Their jobs are in no backup, so their FSMs are told that they
                failed; without, nobody tells them anything.
            dry_run: Verify and count, and write nothing.
            progress: Is told, now and then, how many FSMs were looked at, and of how many.

        Raises:
            BackupError: There is none, none verifies, or it is of another namespace: nothing was touched.
            ConfigError: The namespace cannot be one.
            StoreError: Redis cannot be used.
        """
        from fsm.backup import restoring  # noqa: PLC0415 - as above
        from fsm.backup.choosing import choose_file  # noqa: PLC0415 - as above
        from fsm.backup.directory import Backups  # noqa: PLC0415 - as above

        path = Path(source)
        if snapshot and path.is_file():
            raise BackupError(str(path), "it is a file: an id names a snapshot in a directory")
        is_file = not path.is_dir() and (path.exists() or path.name.endswith(".gz"))
        chosen = choose_file(path) if is_file else Backups(path, self.keys.namespace).choose(snapshot)
        with chosen:
            header = chosen.reader.header
            if into is None and header.namespace != self.keys.namespace:
                problem = (
                    f"it is of namespace {header.namespace!r}, and this client of {self.keys.namespace!r}: "
                    "say into which it is to go"
                )
                raise BackupError(str(chosen.backup.path), problem)
            keys = self.keys if into is None else Keys(config.check_namespace(into))
            wish = restoring.Wish(replace=replace, effects=effects, is_check=dry_run)

            def told(done: int) -> None:
                if progress is not None:
                    progress(done, chosen.backup.fsms)

            if not dry_run:
                with suppress(StoreError):
                    self.ask(verbs.enlist(keys))
            count = self.do(restoring.restore(keys, chosen.reader, header.namespace, wish, told))
        return Restored(
            chosen.backup.path,
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
            chosen.passed_over,
            dry_run,
            count.stored,
            count.repeated,
        )

    def export_fsm(self, name: str, file: Path | str) -> Saved:
        """Save one FSM with its last lines of the log and its audit: to look at it elsewhere, or to bring it there.

        On a crash: there is no such file.

        Args:
            name: Of the FSM.
            file: To be made; it must not be there.

        Raises:
            UnknownFSMError: There is none of this name.
            BackupError: The file cannot be written.
            StoreError: Redis cannot be used.
        """
        from fsm.backup import saving  # noqa: PLC0415 - as above
        from fsm.backup.directory import writing_file  # noqa: PLC0415 - as above

        checked_name(name)
        with writing_file(file, self.keys.namespace, redis=self._version()) as writer:
            self.do(saving.export(self.keys, name, writer.write))
        return Saved(Path(file), writer.header.id, writer.fsms, writer.size, stored=writer.stored)

    def import_fsm(
        self, file: Path | str, *, into: str | None = None, replace: bool = False, dry_run: bool = False
    ) -> Restored:
        """Put an FSM back that was exported: as `restore`. Lines of log and audit stay in the file.

        Raises:
            BackupError: The file does not verify, is of another namespace, or of a whole one.
            StoreError: Redis cannot be used.
        """
        from fsm.backup.choosing import choose_file  # noqa: PLC0415 - as above

        with choose_file(Path(file)) as chosen:
            if chosen.reader.header.scope != "fsm":
                raise BackupError(str(chosen.backup.path), "it is of a whole namespace: `fsm backup restore` takes it")
        return self.restore(file, into=into, replace=replace, dry_run=dry_run)

    def _version(self) -> str:
        """Name the version of Redis; "" where we may not ask."""
        with suppress(StoreError):
            return str(self.ask(Request(lambda about: about["redis_version"], commands=[("INFO", "server")])))
        return ""


def _reporting(writer: Writer, progress: Progress | None, total: int) -> Callable[[Any], None]:
    """Tell every thousand FSMs how many there are."""
    if progress is None:
        return writer.write

    told = -1

    def write(line: Any) -> None:
        nonlocal told
        writer.write(line)
        if writer.fsms // _TELL_EVERY > told:
            told = writer.fsms // _TELL_EVERY
            progress(writer.fsms, total)

    return write
