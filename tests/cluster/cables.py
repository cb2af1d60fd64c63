"""Ways to Redis that are real ones: a pair of interfaces, one end in a network namespace of its own, which can be cut.

It is the kernel that loses packets here, repeats them and gives up: no proxy of ours holds them back.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PORT = 6390
# For measurements of networks, and so nobody's address.
_FIRST = int(ipaddress.IPv4Address("198.18.0.0"))
_NETS = 1 << 15


class NotPermittedError(Exception):
    """This machine does not let us make network namespaces; its text says why."""


class Cable:
    """A host's cable to Redis, which listens at the address of this end of it.

    Args:
        number: Of the cables of this process.
    """

    def __init__(self, number: int) -> None:
        self.name = f"fsm-{os.getpid()}-{number}"
        net = _FIRST + 4 * ((os.getpid() * 4 + number) % _NETS)
        self.address, self._far = (str(ipaddress.IPv4Address(net + n)) for n in (1, 2))
        self.url = f"redis://{self.address}:{PORT}"
        self.begin = ("ip", "netns", "exec", self.name)
        # 15 characters at most.
        self._end, self._far_end = f"fsm{os.getpid()}n{number}", f"fsm{os.getpid()}f{number}"

    def __enter__(self) -> Self:
        """Lay it.

        Raises:
            NotPermittedError: Not here.
        """
        if sys.platform != "linux":
            raise NotPermittedError("network namespaces are of Linux")
        if not shutil.which("ip"):
            raise NotPermittedError("there is no `ip`: install iproute2")
        if os.geteuid():
            raise NotPermittedError("only root may make network namespaces")
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._end, "type", "veth", "peer", "name", self._far_end)
            _ip("link", "set", self._far_end, "netns", self.name)
            _ip("addr", "add", f"{self.address}/30", "dev", self._end)
            _ip("link", "set", self._end, "up")
            _ip("-n", self.name, "addr", "add", f"{self._far}/30", "dev", self._far_end)
            _ip("-n", self.name, "link", "set", self._far_end, "up")
        except NotPermittedError:
            self._clear()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._clear()

    def darken(self) -> None:
        """Cut it."""
        _ip("link", "set", self._end, "down")

    def lighten(self) -> None:
        """Heal it."""
        _ip("link", "set", self._end, "up")

    def _clear(self) -> None:
        for what in (("link", "del", self._end), ("netns", "del", self.name)):
            with suppress(NotPermittedError):
                _ip(*what)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise NotPermittedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
