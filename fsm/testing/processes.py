"""Worker processes of tests: started, waited for until they are at work, stopped, and asked how they ended.

Who calls this: the fixture `fsm_worker`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm.store.requests import Request
from fsm.testing.faults import FaultPoint
from fsm.testing.host import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.client import Client

__all__ = ["Worker", "Workers"]

_BEGIN_S, _END_S = 30.0, 20.0
_PAUSE_S = 0.02


class Worker:
    """One worker process of a test.

    Args:
        what: What it runs, for messages.
        name: Its name among workers.
        process: The process.
        said: File that it writes to.
        may_die: Whether one of its faults kills it: that it has died so is then no fault of its own.
    """

    def __init__(
        self, what: str, name: str, process: subprocess.Popen[bytes], said: Path, *, may_die: bool = False
    ) -> None:
        self.name = name
        self._what = what
        self._process = process
        self._said = said
        self._kept: str | None = None
        self._was_asked = False
        self._was_killed = False
        self._may_die = may_die

    def __str__(self) -> str:
        return f"fsm_worker({self._what}), process {self.pid}"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has said so far, on both outputs."""
        return self._said.read_text(encoding="utf-8", errors="replace") if self._kept is None else self._kept

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); that it has died is then no fault."""
        self._was_killed = True
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        """Send it SIGTERM, once: it finishes the event that it has in hand. A second one would hurry it."""
        if self.is_alive and not self._was_asked:
            self._was_asked = True
            self._process.terminate()
            # One that was stopped by SIGSTOP would not hear it.
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> str:
        """Ask it to stop, and wait for it.

        Returns:
            What was wrong with its end; "" where nothing was.
        """
        if self.is_alive:
            self.ask_to_stop()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.kill()
                return f"{self} did not stop within {_END_S:g} s of SIGTERM, and was killed"
        if self._was_killed or not self._process.returncode:
            return ""
        if self._may_die and self._process.returncode == -signal.SIGKILL:
            return ""
        return f"{self} ended with code {self._process.returncode}"

    def forget(self) -> None:
        """Keep what it said, and drop the file."""
        self._kept = self.output
        self._said.unlink(missing_ok=True)


class Workers:
    """The worker processes of one test.

    Args:
        client: Whose Redis and namespace they serve.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.started: list[Worker] = []

    def start(self, app: Any, *options: str, faults: Sequence[FaultPoint] = ()) -> Worker:
        """Start a worker, and wait until it is at work.

        Args:
            app: A module, `module:attribute`, a machine, several, or an `App`.
            options: Of `fsm worker`.
            faults: Where it is killed, stopped or delayed.

        Raises:
            ConfigError: Another process cannot find it.
            AssertionError: The worker ended at once, or did not begin within 30 s.
        """
        __tracebackhide__ = True
        name = f"test-{os.getpid()}-{len(self.started) + 1}-{time.time_ns() % 1_000_000}"
        arguments, path, what = ["-m", "workers"], app, app
        if not isinstance(app, str):
            found = described(app)
            arguments, path, what = ["-m", "fsm.testing.host", found.places], found.path, found.what
        client = self._client
        handle, said = tempfile.mkstemp(prefix="fsm-worker-", suffix=".log")
        try:
            process = subprocess.Popen(  # noqa: S603 - our own modules, by our own interpreter
                [
                    sys.executable,
                    *arguments,
                    *("--namespace", client.namespace, "--app", path, "--name", name),
                    *options,
                ],
                # What this process can import, that one can. The URL may hold a password, which a command line shows.
                env={
                    **os.environ,
                    **(FaultPoint.environment_of(faults) if faults else {}),
                    "FSM_URL": client.url,
                    "PYTHONPATH": os.pathsep.join(str(Path(one).absolute()) for one in sys.path),
                },
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
            )
        finally:
            os.close(handle)
        may_die = any(fault.action == "kill" for fault in faults)
        worker = Worker(str(what), name, process, Path(said), may_die=may_die)
        self.started.append(worker)
        self._wait_for(worker)
        return worker

    def _wait_for(self, worker: Worker) -> None:
        __tracebackhide__ = True
        keys = self._client.keys
        seen = Request(lambda reply: reply is not None, commands=[("ZSCORE", keys.workers, worker.name)])
        deadline = time.monotonic() + _BEGIN_S
        while not self._client.ask(seen):
            why = "" if worker.is_alive else "ended before it was at work"
            if time.monotonic() > deadline:
                why = f"was not at work within {_BEGIN_S:g} s"
            if why:
                worker.kill()
                raise AssertionError(f"{worker} {why}:\n{worker.output}")
            time.sleep(_PAUSE_S)

    def end(self) -> list[str]:
        """Stop them all; say what was wrong with their ends."""
        for worker in self.started:
            worker.ask_to_stop()
        faults = [fault for worker in self.started if (fault := worker.stop())]
        for worker in self.started:
            worker.forget()
        return faults
