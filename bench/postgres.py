"""A PostgreSQL of the benchmark's own, for the length of a `with` block.

It lies in a directory of its own and listens on a socket there. It syncs what it commits, as it does by itself: without
that it would be another database.

Who calls this: `bench.persistence`.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.worker import BenchError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Postgres", "programs"]

_DEBIAN = Path("/usr/lib/postgresql")
_PATIENCE_S = 120


def programs() -> Path | None:
    """Tell where `initdb` and `pg_ctl` are: on the `PATH`, or where Debian keeps them."""
    for found in (shutil.which("initdb"), *map(str, sorted(_DEBIAN.glob("*/bin/initdb"), reverse=True))):
        if found and (place := Path(found).resolve().parent) and (place / "pg_ctl").exists():
            return place
    return None


class Postgres:
    """A server; its programs refuse to be root, so root has them run as `postgres`.

    Args:
        place: Where its programs are.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._directory = Path()
        self._user = getpass.getuser()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._user = "postgres"
            self._as = ["runuser", "-u", self._user, "--"]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://{self._user}@/postgres?host={self._directory}"

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="fsm-bench-pg-"))
        try:
            if self._as:
                shutil.chown(self._directory, self._user)
            data = str(self._directory / "data")
            self._run("initdb", "-D", data, "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync")
            listens = f"-c listen_addresses= -c unix_socket_directories={self._directory}"
            log = str(self._directory / "log")
            self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", listens, "start")
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._run("pg_ctl", "-D", str(self._directory / "data"), "-w", "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._place / program), *arguments]
        try:
            # Not with pipes: the server would keep them open.
            done = subprocess.run(  # noqa: S603 - our own command, no shell
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=_PATIENCE_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"{program} cannot be run: {error}") from error
        if done.returncode:
            raise BenchError(f"{program} ended with {done.returncode}: run {' '.join(command)} and see")
