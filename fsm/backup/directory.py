"""Where backups lie, which of them is the good one, and how a new one takes its place.

    DIR/<namespace>.fsm.gz                  the stable one: the newest
    DIR/<namespace>.fsm.gz.old              the one before it
    DIR/<namespace>.fsm.gz.part             one that is being written, or whose writer died
    DIR/snapshots/<id>.<namespace>.fsm.gz   the newest few, by ids in the order of time

A new one is written as `.part`, sealed and seen to the disk; the stable one becomes `.old` where it verifies, so that
never a damaged one takes the place of a good one; then `.part` is renamed, and the directory is seen to the disk. At
each moment there is a stable one or, where the file system knows no links, an old one and a whole `.part`. Writers
exclude each other by a lock on `.part`, which ends with its writer.

Who calls this: those who save and restore, and the commands. It may import `file`, `form` and the errors.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fsm.backup import DIRECTORY, MAX_SNAPSHOTS
from fsm.backup.choosing import OLD, PART, beside, choose_file, looked_at, verify_file
from fsm.backup.file import Reader, Writer, told
from fsm.backup.form import Header
from fsm.config import check_namespace
from fsm.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.backup.choosing import Backup, Chosen, Role

__all__ = ["Backups", "new_header", "writing_file"]

_SUFFIX = ".fsm.gz"
_FOLLOWING = ".old.new"
_COPY = ".copy"
_SNAPSHOTS = "snapshots"
# In the order of time, as texts as well; what is random keeps two of one millisecond apart.
_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{6}", re.ASCII)
# File systems that know no links, or not so many, or not across this mount.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS}


class Backups:
    """The backups of one namespace in one directory.

    Args:
        directory: Made by `writing`, where it is not there.
        namespace: Whose backups.

    Raises:
        ConfigError: It cannot be the name of a namespace.
    """

    def __init__(self, directory: Path | str = DIRECTORY, namespace: str = "default") -> None:
        self.namespace = check_namespace(namespace)
        self.directory = Path(directory)
        self.stable = self.directory / f"{namespace}{_SUFFIX}"
        self.old = beside(self.stable, OLD)
        self.part = beside(self.stable, PART)
        self.snapshots = self.directory / _SNAPSHOTS

    def all(self) -> list[Backup]:
        """Give what is there, by a look at the beginning and the end of each: the stable one first, then by time.

        Raises:
            BackupError: The directory cannot be read.
        """
        roles: list[tuple[Path, Role]] = [(self.stable, "stable"), (self.old, "old"), (self.part, "part")]
        found = [looked_at(path, role) for path, role in roles if os.path.lexists(path)]
        return found + [looked_at(self.snapshot(one), "snapshot") for one in reversed(self.ids())]

    def ids(self) -> list[str]:
        """Give the ids of the snapshots, oldest first.

        Raises:
            BackupError: The directory cannot be read.
        """
        end = f".{self.namespace}{_SUFFIX}"
        try:
            names = [path.name for path in self.snapshots.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise told(self.snapshots, error, "read it") from error
        ids = (name.removesuffix(end) for name in names if name.endswith(end))
        return sorted(one for one in ids if _ID.fullmatch(one))

    def snapshot(self, wanted: str) -> Path:
        """Give the file of an id.

        Raises:
            BackupError: That is no id.
        """
        if not _ID.fullmatch(wanted):
            problem = "that is no id of a backup, which is like 20261122T041500.123Z-0a1b2c: `fsm backup list` has them"
            raise BackupError(repr(wanted), problem)
        return self.snapshots / f"{wanted}.{self.namespace}{_SUFFIX}"

    def verify(self, wanted: str = "") -> Backup:
        """Read a backup from its first byte to its last.

        Args:
            wanted: The id of a snapshot; "" for the stable one.

        Raises:
            BackupError: It is not there, or not as it was written.
        """
        return verify_file(self.snapshot(wanted), "snapshot") if wanted else verify_file(self.stable, "stable")

    def choose(self, wanted: str = "") -> Chosen:
        """Find what to restore: the stable one, else the one before it, else a whole one that was being written.

        Args:
            wanted: The id of a snapshot, and then no other will do.

        Raises:
            BackupError: None verifies, or there is none: what is wrong with each is said.
        """
        if not wanted:
            return choose_file(self.stable, "stable")
        path = self.snapshot(wanted)
        if not os.path.lexists(path):
            there = self.ids()
            known = f"the newest there is {there[-1]}" if there else "there are none"
            raise BackupError(repr(wanted), f"no snapshot of this id is in {self.snapshots}: {known}")
        return choose_file(path, "snapshot")

    @contextmanager
    def writing(self, *, redis: str = "", max_snapshots: int = MAX_SNAPSHOTS) -> Iterator[Writer]:
        """Give a writer of a new backup, which becomes the stable one when the block ends without an error.

        On a crash: the stable one is as it was, or the new one is in its place; the next writer puts the rest in order.

        Args:
            redis: Version of the server from which is saved.
            max_snapshots: How many are kept under `snapshots/`; older ones are removed at the end. 0: none is made.

        Raises:
            BackupError: Somebody else writes here, or it cannot be written: disk full, no permission.
        """
        if max_snapshots < 0:
            raise BackupError(str(self.directory), f"max_snapshots={max_snapshots}: it is 0 or more")
        with _telling(self.part):
            self._make()
            while (file := self._take_part(max_snapshots)) is None:
                continue
        with file:
            header = new_header(self.namespace, redis)
            with _removed_on_error(self.part), Writer(file, self.stable, header) as writer:
                yield writer
                writer.seal()
            # From here on it is whole: whatever happens, it is not to be removed.
            with _telling(self.stable):
                self._publish(header.id, max_snapshots)

    def _make(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _take_part(self, max_snapshots: int) -> FileIO | None:
        """Open and lock an empty `.part`; `None` where another look is needed."""
        file = _locked(self.part)
        try:
            if not _is_at(file, self.part):
                file.close()  # its writer was done, and renamed it, between our opening and our lock
                return None
            if not os.fstat(file.fileno()).st_size:
                return file
            # Its writer died. What is whole was about to become the stable one, and is newer than that.
            if made := self._whole_part():
                self._publish(made, max_snapshots)
            else:
                # Not emptied but removed: it may be linked from elsewhere.
                self.part.unlink(missing_ok=True)
            file.close()
        except BaseException:
            file.close()
            raise
        return None

    def _whole_part(self) -> str:
        """Give the id of a `.part` that is whole and of this namespace; "" where it is not."""
        with suppress(BackupError), Reader(self.part) as reader:
            if reader.header.namespace == self.namespace and _ID.fullmatch(reader.header.id):
                return reader.header.id
        return ""

    def _publish(self, made: str, max_snapshots: int) -> None:
        """Give `.part`, which is whole and ours, its place.

        On a crash: `.part` is there, whole, and the next writer does this again; or the stable one is the new one.
        """
        if max_snapshots:
            self._keep(made)
        if _is_good(self.stable):
            self._make_old()
        self.part.replace(self.stable)
        _see_to_disk(self.directory)
        self._prune(made, max_snapshots)

    def _keep(self, made: str) -> None:
        """Put `.part` among the snapshots, under its id."""
        self.snapshots.mkdir(mode=0o700, exist_ok=True)
        kept = self.snapshot(made)
        try:
            kept.hardlink_to(self.part)
        except FileExistsError:
            return  # by a writer that died after this
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            copy = beside(kept, _COPY)
            shutil.copyfile(self.part, copy)
            copy.chmod(0o600)
            _see_to_disk(copy)
            copy.replace(kept)
        _see_to_disk(self.snapshots)

    def _make_old(self) -> None:
        """Let the stable one be the old one as well, without a moment in which there is no stable one."""
        following = beside(self.stable, _FOLLOWING)
        following.unlink(missing_ok=True)
        try:
            following.hardlink_to(self.stable)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.stable.replace(self.old)
            return
        following.replace(self.old)
        # Of two names of one file, rename(2) leaves both.
        following.unlink(missing_ok=True)

    def _prune(self, made: str, most: int) -> None:
        """Remove the oldest snapshots; never the one just made, also where a clock went back."""
        others = [one for one in self.ids() if one != made]
        for one in others[: max(len(others) - max(most - 1, 0), 0)]:
            self.snapshot(one).unlink(missing_ok=True)
        # Of writers that died.
        for path in self.snapshots.glob(f"*.{self.namespace}{_SUFFIX}{_COPY}"):
            path.unlink(missing_ok=True)


def new_header(namespace: str, redis: str = "", scope: Literal["namespace", "fsm"] = "namespace") -> Header:
    """Give the first line of a backup that begins now, with an id of its own."""
    now = datetime.now(UTC)
    moment = now.isoformat(timespec="milliseconds")
    made = f"{now:%Y%m%dT%H%M%S}.{moment[20:23]}Z-{os.urandom(3).hex()}"
    return Header(made, moment, namespace, f"fsm-workers {metadata.version('fsm-workers')}", redis, scope)


@contextmanager
def writing_file(path: Path | str, namespace: str, *, redis: str = "") -> Iterator[Writer]:
    """Give a writer of one exported FSM: the file is there, whole, when the block has ended without an error.

    A file of this name that is there already is an error, and stays as it is.

    On a crash: a `.part` beside it may be left, and is removed by the next writer.

    Raises:
        BackupError: There is such a file, somebody else writes it, or it cannot be written.
    """
    whole = Path(path)
    part = beside(whole, PART)
    # Before anything is touched: a `.part` beside it may be a whole one that somebody wants to restore.
    _refuse_what_is_there(whole)
    with _telling(whole):
        file = _locked(part)
    with file:
        if not _is_at(file, part):
            raise BackupError(str(whole), "another process has just written it: choose another name")
        with _removed_on_error(part):
            _refuse_what_is_there(whole)
            with _telling(whole):
                file.truncate(0)
            with Writer(file, whole, new_header(namespace, redis, "fsm")) as writer:
                yield writer
                writer.seal()
            with _telling(whole):
                part.rename(whole)
        with _telling(whole):
            _see_to_disk(whole.parent)


def _refuse_what_is_there(path: Path) -> None:
    if os.path.lexists(path):
        raise BackupError(str(path), "there is such a file: choose another name, or remove it")


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise told(path, error, "write it") from error


def _locked(part: Path) -> FileIO:
    """Open a `.part` for ourselves alone."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return FileIO(descriptor, "r+b")
    except BlockingIOError:
        os.close(descriptor)
        raise BackupError(str(part), "another process is writing it: wait for it") from None
    except BaseException:
        os.close(descriptor)
        raise


def _is_at(file: FileIO, path: Path) -> bool:
    """Tell whether this open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _removed_on_error(part: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _is_good(path: Path) -> bool:
    try:
        Reader(path).close()
    except BackupError:
        return False
    return True


def _see_to_disk(path: Path) -> None:
    """Let the disk have a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
