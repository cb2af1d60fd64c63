"""A way to Redis that a test can cut: refused for a while, replies lost, or broken at any byte; or lead elsewhere."""

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
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.is_cut = False
        self.refused = 0
        # Of so many replies, one is lost together with its connection; 0 loses none.
        self.loses_one_in = 0
        self.lost = 0
        # Bytes that passed in either direction, and how often a connection was broken at one of them.
        self.requested = self.replied = 0
        self.breaks = 0
        # Of which direction, behind how many more bytes of it; and within how many the one after that is drawn.
        self._next_break: tuple[bool, int] | None = None
        self._within: tuple[int, int] | None = None

    def lead_to(self, path: str) -> None:
        """Lead new connections to another server, as an address does after a failover; others stay where they are."""
        self._path = path

    def break_once(self, *, of_replies: bool, at: int) -> None:
        """Break the connection that carries the next byte behind `at` more of a direction; what is before it passes."""
        self._within = None
        self._next_break = (of_replies, at)

    def break_within(self, requests: int, replies: int) -> None:
        """Break again and again, each time in a direction and behind so many bytes at most as chance has it."""
        self._within = (requests, replies)
        self._draw_break()

    def break_no_more(self) -> None:
        """Let all pass from now on."""
        self._within = self._next_break = None

    def _draw_break(self) -> None:
        within = self._within
        if within is None:
            self._next_break = None
        else:
            of_replies = self._draw.random() < 0.5
            self._next_break = (of_replies, self._draw.randint(0, within[of_replies]))

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
        data, is_over = self._until_break(data, of_replies=source in self._servers)
        try:
            if data:
                self._peers[source].sendall(data)
        except OSError:
            is_over = True
        if is_over:
            self._drop(source)

    def _until_break(self, data: bytes, *, of_replies: bool) -> tuple[bytes, bool]:
        """What passes of these bytes, and whether the connection ends behind them."""
        before, is_broken = self._next_break, False
        if before is not None and before[0] is of_replies:
            if len(data) > before[1]:
                data, is_broken = data[: before[1]], True
                self.breaks += 1
                self._draw_break()
            else:
                self._next_break = (of_replies, before[1] - len(data))
        if of_replies:
            self.replied += len(data)
        else:
            self.requested += len(data)
        return data, is_broken or not data

    def _drop(self, connection: socket.socket) -> None:
        peer = self._peers.pop(connection)
        del self._peers[peer]
        for one in (connection, peer):
            self._servers.discard(one)
            self._selector.unregister(one)
            one.close()
