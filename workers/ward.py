"""The ward of a host: tells Redis of workers that died, and finds out who is silent.

Who calls this: the host, which keeps the processes and never waits for Redis.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fsm.errors import StoreError
from fsm.store import presence
from fsm.store.connection import connect
from fsm.store.requests import run
from workers import handover
from workers.answers import EffectsWatch
from workers.carrier import Carrier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsm.store.keys import Keys
    from fsm.store.requests import Request

__all__ = ["Ward", "is_stopped"]

R = TypeVar("R")
_log = logging.getLogger("fsm.host")
_LOOK_S = 1.0
# Heartbeats come every 5 to 15 s. Counted in looks, one a second, that Redis answered: neither its absence nor that of
# this process makes anybody silent.
_SILENT_LOOKS = 60
# The last deaths are told to Redis within this time, at the end of the host; else by the end of their leases.
_LAST_WORDS_S = 3.0


@dataclass(slots=True)
class _Heard:
    """When a worker was last heard of, by the clock of Redis, and for how many looks that has been the last time."""

    beaten_ms: int | None
    silent_looks: int = 0


class Ward:
    """Tells Redis of workers that died, and asks it who is silent; a thread of its own, since Redis may be away.

    Args:
        url: Of Redis.
        keys: Of the namespace.
        tell_silent: Told the name of each worker that is silent, and for how many seconds, at each look.
        host: Name of the host.
        tell_drain: Called once when the host drains.

    Raises:
        StoreError: Redis is away, or will not do.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        tell_silent: Callable[[str, float], None],
        host: str,
        tell_drain: Callable[[], None],
    ) -> None:
        self._url = url
        self._client = connect(url)
        self._keys = keys
        self._tell_silent = tell_silent
        self._host = host
        self._tell_drain = tell_drain
        # Before any of its workers: what is asked from now on is for them.
        self._born_ms = self._ask(presence.time_ms())
        self._is_drained = False
        self._is_over = threading.Event()
        self._effects = EffectsWatch(self._client, Carrier(self._client, url, self._is_over.is_set), keys)
        # Names of workers that died; "" wakes the thread.
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._unburied: list[str] = []
        self._pids: dict[str, int] = {}
        self._heard: dict[str, _Heard] = {}
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._keep, name="fsm-ward", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Tell Redis the last deaths, if it is there, and end."""
        self._is_over.set()
        self._orders.put("")
        if self._thread.is_alive():
            self._thread.join(_LAST_WORDS_S)
        self._client.close()

    def watch(self, worker: str, pid: int) -> None:
        """Look after a worker that was started."""
        self._pids[worker] = pid

    def forget(self, worker: str) -> bool:
        """Look after a worker no more; tells whether another one is at work."""
        self._pids.pop(worker, None)
        self._heard.pop(worker, None)
        return any(self._heard.get(other) for other in self._pids)

    def bury(self, worker: str) -> None:
        """Free, soon, what a worker held that died."""
        self._orders.put(worker)

    def bury_effects(self, worker: str, queues: Sequence[str]) -> None:
        """Put back, soon, what an effects worker ran that died."""
        self._effects.bury(worker, queues)
        self._orders.put("")

    def _keep(self) -> None:
        while True:
            with suppress(queue.Empty):
                if order := self._orders.get(timeout=_LOOK_S):
                    self._unburied.append(order)
            try:
                self._bury_all()
                if self._effects.has_dead:
                    self._effects.look()
                self._look()
                self._look_for_drain()
            except StoreError as error:
                # Nobody could be heard, and what could not be told is told at the next look.
                self._heard.clear()
                _log.warning("Redis cannot be told of the workers of this host now: %s", error)
            except Exception:  # noqa: BLE001 - a thread that ended here would leave FSMs of dead workers to their leases
                _log.exception("the workers of this host are not looked after now")
            if self._is_over.is_set() and self._orders.empty():
                return

    def _ask(self, request: Request[R]) -> R:
        return run(self._client, request, self._url)

    def _bury_all(self) -> None:
        while self._unburied:
            worker = self._unburied[0]
            freed = handover.bury(self._ask, self._keys, worker)
            self._unburied.pop(0)
            if freed:
                _log.warning("freed %d FSMs of worker %s", freed, worker)

    def _look(self) -> None:
        """Count for how many looks each worker was silent, from its first heartbeat on: to start may take long."""
        now = time.monotonic()
        pids = dict(self._pids)
        if not pids or now - self._looked_at < _LOOK_S / 2:
            return
        self._looked_at = now
        beats = self._ask(presence.heard(self._keys, list(pids)))
        for (name, pid), beaten_ms in zip(pids.items(), beats, strict=True):
            heard = self._heard.get(name)
            if heard is None:
                if beaten_ms is not None and name in self._pids:
                    self._heard[name] = _Heard(beaten_ms)
            elif beaten_ms != heard.beaten_ms or is_stopped(pid):
                heard.beaten_ms, heard.silent_looks = beaten_ms, 0
            else:
                heard.silent_looks += 1
                if heard.silent_looks >= _SILENT_LOOKS:
                    self._tell_silent(name, heard.silent_looks * _LOOK_S)

    def _look_for_drain(self) -> None:
        """Look whether the host drains, as was asked since this process began."""
        if self._is_drained:
            return
        since_ms = self._ask(presence.drained_at(self._keys, self._host))
        if since_ms is not None and since_ms >= self._born_ms:
            self._is_drained = True
            self._tell_drain()


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped a process (SIGSTOP, a debugger); where that cannot be known, yes."""
    try:
        # "pid (command) state …", and the command may hold anything.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state in (b"T", b"t")
