"""A way to Redis that a test can cut: connections refused for a while, or replies lost behind requests."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Proxy:
    """Passes bytes between TCP connections and the Unix socket of a server, in one thread.

    Args:
        path: The server's socket.
        seed: Of the chance with which replies are lost.
    """

    def __init__(self, path: str, seed: int = 0) -> None:
        self._path = path
        self._draw = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._pass, name="proxy", daemon=True)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_cut = False
        self.refused = 0
        # Of so many replies, one is lost together with its connection; 0 loses none.
        self.loses_one_in = 0
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(5)
        for connection in list(self._peers):
            connection.close()
        self._listener.close()
        self._selector.close()

    def _pass(self) -> None:
        while not self._is_over.is_set():
            if self.is_cut:
                for connection in list(self._servers):
                    self._drop(connection)
            for key, _ in self._selector.select(0.05):
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                if source is self._listener:
                    self._accept()
                elif source in self._peers:
                    self._forward(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.is_cut:
            self.refused += 1
            client.close()
            return
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._path)
        self._servers.add(server)
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = source.recv(1 << 20)
        if data and source in self._servers and self.loses_one_in and self._draw.random() * self.loses_one_in < 1:
            self.lost += 1
            data = b""
        try:
            if data:
                self._peers[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source)

    def _drop(self, connection: socket.socket) -> None:
        peer = self._peers.pop(connection)
        del self._peers[peer]
        for one in (connection, peer):
            self._servers.discard(one)
            self._selector.unregister(one)
            one.close()
