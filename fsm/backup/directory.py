"""Where backups lie, which of them is the good one, and how a new one takes its place.

    DIR/<namespace>.fsm.gz           the stable one: the newest
    DIR/<namespace>.fsm.gz.old       the one before it
    DIR/<namespace>.fsm.gz.part      one that is being written, or whose writer died
    DIR/snapshots/<id>.<namespace>.fsm.gz   the newest few

Who calls this: those who save and restore, and the commands. It may import `file`, `form` and the errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fsm.backup.file import Writer

__all__ = ["Chosen", "Directory"]


class Chosen:
    """The file to restore from: `path`, `header`, `seal`, and `passed_over`, what is wrong with those before it."""

    path: Path
    passed_over: tuple[str, ...]


class Directory:
    """The backups of one namespace in one directory.

    Args:
        path: The directory; made by `writing`.
        namespace: Whose backups.

    Raises:
        ConfigError: It cannot be the name of a namespace.
    """

    def __init__(self, path: Path | str, namespace: str = "default") -> None:
        raise NotImplementedError

    def writing(self, *, redis: str = "", max_snapshots: int = 10) -> AbstractContextManager[Writer]:
        """Give a writer of a new backup, which becomes the stable one where the block ends without an error.

        On a crash: the stable one is as it was.

        Raises:
            BackupError: Somebody else writes here, or it cannot be written: disk full, no permission.
        """
        raise NotImplementedError

    def choose(self, wanted: str = "") -> Chosen:
        """Find the file to restore: the stable one, else the one before it, else a complete one that is being written.

        Args:
            wanted: The id of a snapshot; "" for the newest that verifies.

        Raises:
            BackupError: None verifies, or there is none; what is wrong with each is said.
        """
        raise NotImplementedError
