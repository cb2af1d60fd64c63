"""The Redis of a run, which dies and comes back with its files, and the ways of the workers to it, which break."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from contextlib import suppress

from fsm.store import embedded
from fsm.store.embedded import EmbeddedServer, start_or_join
from tests.integration.proxy import Proxy

_PAUSE_S = 0.01


class Server(EmbeddedServer):
    """A server that keeps what it acknowledged: each write is on its disk before it is answered.

    Attributes:
        outages: From when until when it was away, in ms.
    """

    def __init__(self) -> None:
        super().__init__({"appendfsync": "always"})
        self.outages: list[tuple[float, float]] = []
        self._outage = (math.inf, 0.0)

    def is_away(self, since_ms: float, until_ms: float) -> bool:
        """Whether it was away at some time in between."""
        return any(begin < until_ms and end > since_ms for begin, end in [*self.outages, self._outage])

    def crash(self) -> None:
        """Kill it, and start another one on its files."""
        begin, pid = time.time() * 1000, self.pid
        self._outage = (begin, math.inf)
        if pid is None:
            problem = "the server of this run has died by itself"
            raise AssertionError(problem)
        os.kill(pid, signal.SIGKILL)
        while self.pid is not None:
            time.sleep(_PAUSE_S)
        self.url = start_or_join(self.directory, self._options)
        # Who watches over it knew the old process.
        before, self._watcher = self._watcher, embedded._watch(self.directory)
        if before is not None:
            before.communicate(b"stopped\n")
        self.outages.append((begin, time.time() * 1000))
        self._outage = (math.inf, 0)


class Way(Proxy):
    """The way of one worker to the server, also while that is away; a cut loses the next reply with its connection."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._was_lost = 0

    def cut(self) -> None:
        """Lose the next reply."""
        self._was_lost, self.loses_one_in = self.lost, 1

    def _accept(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._path)
            except OSError:
                client.close()
                server.close()
                return
            self._servers.add(server)
            for one, other in ((client, server), (server, client)):
                self._peers[one] = other
                self._selector.register(one, 1)  # to be read

    def _forward(self, source: socket.socket) -> None:
        super()._forward(source)
        if self.lost > self._was_lost:
            self.loses_one_in = 0

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._peers:
            super()._drop(connection)
