"""Hosts: each is `fsm worker --processes N --host NAME`, whose processes reach Redis by one way, which can be cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType

    from redis import Redis

    from fsm.store.keys import Keys
    from tests.cluster.cables import Cable

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.cluster.machines"
_PAUSE_S = 0.02
_PATIENCE_S = 40.0


class Wire(Proxy):
    """A way on which nothing gets through while it is dark, and nobody is told: what was sent arrives when it is light.

    So it is where a cable is pulled, or a switch dies: TCP goes on trying. `is_cut` breaks connections instead.
    """

    is_dark = False
    # What a command begins with that is to go this way.
    begin: tuple[str, ...] = ()

    def darken(self) -> None:
        """Let nothing through."""
        self.is_dark = True

    def lighten(self) -> None:
        """Let through all that was sent, and all that comes."""
        self.is_dark = False

    def _accept(self) -> None:
        if self.is_dark:
            time.sleep(_PAUSE_S)
        else:
            super()._accept()

    def _forward(self, source: socket.socket) -> None:
        if self.is_dark:
            time.sleep(_PAUSE_S)
        else:
            super()._forward(source)


class Host:
    """One host.

    Args:
        name: Its name.
        way: From it to the server; it is there before the host, and goes after it.
        directory: Where its processes say what they have to say.
        keys: Of the namespace.
        client: Looks at Redis, by a way of its own.
        processes: Workers.
        lease_ms: Their lease.
        more: Of their environment.
    """

    def __init__(
        self,
        name: str,
        way: Wire | Cable,
        directory: Path,
        keys: Keys,
        client: Redis,
        *,
        processes: int = 2,
        lease_ms: int,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.processes = processes
        self.way = way
        self.said = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = ("--processes", str(processes), "--host", name, "--lease", f"{lease_ms}ms", "--no-effects")
        self._more = dict(more or {})
        self._keys = keys
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Start it; it is at work some time later."""
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [
                    *(*self.way.begin, sys.executable, "-m", "workers", "--url", self.way.url, "--app", APP),
                    *("--log-level", "warning", *self._options),
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT), "CHAOS_RETRIES": "1", **self._more},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def workers(self) -> list[str]:
        """Name its workers, as far as they are registered."""
        names: list[bytes] = self._client.zrange(self._keys.workers, 0, -1)
        return [name.decode() for name in names if self.is_mine(name.decode())]

    def is_mine(self, worker: str) -> bool:
        """Whether this is a worker of this host, by its name: `<host>-…`."""
        return worker.startswith(f"{self.name}-")

    def is_at_work(self) -> bool:
        """Whether all its workers are."""
        return len(self.workers()) == self.processes

    def holds(self) -> bool:
        """Whether its workers have FSMs in hand."""
        return any(self._client.hlen(self._keys.claims(worker)) for worker in self.workers())

    def stop_all(self) -> None:
        """Stop all its processes (SIGSTOP), the parent first: it would free what its children held."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all its processes, as a power failure does."""
        self.stop_all()
        # Its children first: they would notice that their parent has gone, and end in order.
        pids = descendants(self._process().pid)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process().kill()
        self._process().wait()

    def _signal(self, what: int) -> None:
        pid = self._process().pid
        for one in (pid, *descendants(pid)):
            with suppress(ProcessLookupError):
                os.kill(one, what)

    def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        process = self._process()
        process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended, and give its exit code."""
        return self._process().wait(_PATIENCE_S)

    def lines(self, *words: str) -> list[str]:
        """Give the lines of its logs that hold one of these."""
        if not self.said.exists():
            return []
        lines = self.said.read_text("utf-8", errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]

    def _process(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, f"host {self.name} was never started"
        return self.process


def descendants(pid: int) -> list[int]:
    """Give the children of a process, their children, and so on: no signal to a group reaches them all."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                # "pid (command) state parent …", and the command may hold anything.
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        more = children.get(left.pop(), [])
        found += more
        left += more
    return found
