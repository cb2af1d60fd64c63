"""Which hosts live and take new work, as Redis knows them.

Who calls this: the client and the workers, each with a view of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fsm.errors import StoreError
from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.store.keys import Keys

__all__ = ["LiveHosts", "live_hosts"]

# For so long what was seen of the hosts is taken to be so. A worker that goes by an older view than another moves an
# FSM to another host than that would: it is run all the same, and moves again with its next event.
_FRESH_S = 1.0


class LiveHosts:
    """The hosts that live, as Redis knows them, looked at once a second at most.

    Args:
        keys: Of the namespace.
        ask: Carries a request.
    """

    def __init__(self, keys: Keys, ask: Callable[[Request[tuple[str, ...]]], tuple[str, ...]]) -> None:
        self._keys = keys
        self._ask = ask
        self._seen: tuple[str, ...] | StoreError | None = None
        self._fresh_until = 0.0

    def __call__(self) -> tuple[str, ...]:
        """Give their names, sorted.

        Raises:
            StoreError: Redis cannot be asked, or could not within the last second.
        """
        now = time.monotonic()
        if self._seen is None or now >= self._fresh_until:
            # Before it is asked: other threads go by the old view meanwhile.
            self._fresh_until = now + _FRESH_S
            try:
                self._seen = self._ask(live_hosts(self._keys))
            except StoreError as error:
                self._seen = error
        if isinstance(self._seen, StoreError):
            problem = f"the hosts of namespace {self._keys.namespace!r} are not known: {self._seen}"
            raise StoreError(problem) from self._seen
        return self._seen


def live_hosts(keys: Keys) -> Request[tuple[str, ...]]:
    """Read which hosts live and take new work, by the clock of Redis; sorted."""

    def read(reply: Any) -> tuple[str, ...]:
        ends, draining, (s, us) = reply
        now_ms = int(s) * 1000 + int(us) // 1000
        # The one or the other, by the protocol of the connection.
        pairs = ends if ends and isinstance(ends[0], list | tuple) else zip(ends[::2], ends[1::2], strict=True)
        living = {host for host, end_ms in pairs if float(end_ms) > now_ms}
        return tuple(sorted(map(text, living.difference(draining))))

    commands = [("ZRANGE", keys.hosts, 0, -1, "WITHSCORES"), ("HKEYS", keys.draining), ("TIME",)]
    return Request(read, commands=commands)
