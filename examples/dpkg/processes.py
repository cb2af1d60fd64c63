"""The workers of a replay: real processes, `python -m workers`, that end with it.

Who calls this: `__main__`, and that of all examples for workers of theirs. It knows nothing of dpkg but the name of the
module that holds the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Workers"]

_APP = "examples.dpkg.machine"
_ROOT = Path(__file__).parents[2]
# A worker that is asked to stop finishes what it has in hand, some milliseconds of work here.
_PATIENCE_S = 10.0
# Waits for a line. When its input ends without one, our process was killed, and the workers must not outlive it.
_WATCH = 'logs=$1; shift; read -r line || { kill -TERM "$@"; rm -rf "$logs"; sleep 5; kill -KILL "$@"; } 2>/dev/null'


class Workers:
    """Worker processes for the length of a `with` block.

    They run in process groups of their own, so that Ctrl-C reaches only us and we stop them in order. What they say
    goes to files, of which the end is shown when one dies.

    Args:
        count: How many.
        url: Redis.
        namespace: The namespace they serve.
        app: The application whose machines they run.
        folder: Where they are started; by default where we are.
    """

    def __init__(self, count: int, url: str, namespace: str, app: str = _APP, folder: Path | None = None) -> None:
        self._count = count
        self._url = url
        self._namespace = namespace
        self._app = app
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._reported: set[int] = set()
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._logs = TemporaryDirectory(prefix="fsm-dpkg-")
        try:
            for number in range(self._count):
                self._running.append(self._start(number))
            self._watcher = self._watch()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        return [process.pid for process in self._running if process.poll() is None]

    def deaths(self) -> list[str]:
        """Tell of the workers that have ended since the last call, with the end of what they said: one text each."""
        found = []
        for number, process in enumerate(self._running):
            if process.poll() is not None and number not in self._reported:
                self._reported.add(number)
                code = process.returncode
                how = f"killed by signal {-code}" if code < 0 else f"with code {code}"
                said = self._log(number).read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
                found.append("\n".join([f"worker {number} (process {process.pid}) has ended, {how}", *said]))
        return found

    def _log(self, number: int) -> Path:
        return Path(self._logs.name, f"worker-{number}.log")

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with self._log(number).open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own module, run by the Python that runs us
                [sys.executable, "-m", "workers", "--app", self._app, "--namespace", self._namespace],
                # The URL may hold a password, which a command line would show to everyone.
                env={**os.environ, "FSM_URL": self._url, "PYTHONPATH": path},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own line of shell
            ["/bin/sh", "-c", _WATCH, "sh", self._logs.name, *(str(process.pid) for process in self._running)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _stop(self) -> None:
        try:
            for process in self._running:
                process.terminate()
            deadline = time.monotonic() + _PATIENCE_S
            for process in self._running:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            if self._watcher is not None:
                self._watcher.communicate(b"stopped\n")
                self._watcher = None
            self._logs.cleanup()
