"""One worker of ours as a process that can be held and let go, and whose processor time can be read.

It is held by SIGSTOP while its backlog is loaded, so that a drain begins with everything waiting and ends with nothing,
and no start-up is measured. Its sleep in Redis, its locks and its registration outlast a few seconds of that.

Who calls this: `bench.lane`; `bench.latency` for RQ's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from fsm import FSMError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["ROOT", "BenchError", "WorkerProcess"]

ROOT = Path(__file__).resolve().parent.parent
_END_S = 10.0
_LOG_TAIL = 2000
# After the name, which is in brackets, `/proc/<pid>/stat` goes on with field 3: utime is field 14, stime field 15.
_UTIME = 14 - 3


class BenchError(FSMError):
    """The benchmark cannot go on, or measured something that is not so; the text says what and what to look at."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class WorkerProcess:
    """`python -m workers --app bench.machine`, for the length of a `with` block.

    Args:
        url: Redis.
        namespace: Of the FSMs.
        app: The module with the machines.
        options: Further options of `fsm worker`.
        program: What Python is told to run: a worker that is not quite the usual one is a program of its own.
        environment: Further variables.
    """

    def __init__(  # noqa: PLR0913 - one keyword a difference between workers
        self,
        url: str,
        namespace: str,
        *,
        app: str = "bench.machine",
        options: Sequence[str] = (),
        program: Sequence[str] = ("-m", "workers"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._arguments = [*program, "--app", app, "--namespace", namespace, *options]
        self._environment = {**os.environ, "FSM_URL": url, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [sys.executable, *self._arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def pid(self) -> int:
        """Process id, for profilers.

        Raises:
            BenchError: It has ended; the text shows what it said last.
        """
        process = self._process
        if process is None or self._log is None:
            message = "the worker was not started: use it in a `with` block"
            raise BenchError(message)
        if process.poll() is not None:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")[-_LOG_TAIL:].strip()
            raise BenchError(f"the worker ended with code {process.returncode}: {said or 'it said nothing'}")
        return process.pid

    def hold(self) -> None:
        """Stop it where it is, and return when it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def cpu_us(self) -> float | None:
        """Give the µs of processor time that it has used, user and system; `None` where there is no /proc."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        fields = stat.rpartition(")")[2].split()
        return sum(map(int, fields[_UTIME : _UTIME + 2])) * 1e6 / os.sysconf("SC_CLK_TCK")
