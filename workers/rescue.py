"""What dead workers left is freed, and a host is kept alive: by every worker that lives, whatever it does just now.

A worker looks once a second between its claims. While it is in a handler of minutes, or suspended, a thread does so in
its stead: else, where all workers that live are busy, nobody would free what a dead one held. Of all workers of a
namespace one at a time has the turn to look, for less than a second, so that one that dies holds nobody up; to the
others it costs a small request.

With each look it tells that its host is alive, and hears which queues of single hosts are to be served, and whether its
host drains. Where a host is about to be gone whose queues it would take over, or was just now, it looks more often.

Where a worker could not tell so for as long as its host is taken to live, that was gone, most likely for all others
with it: Redis was away. Whoever is back first sees no other host. So for some seconds it does not go by what it sees.

Who calls this: the worker.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import calls, presence
from workers.handover import bury

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsm.store.keys import Keys
    from workers.carrier import Carrier
    from workers.handover import Ask

__all__ = ["Rescuer"]

_log = logging.getLogger("fsm.worker")
# The thread's rhythm, and that of a worker that sleeps. Whoever comes a little early need not wait another second.
_LOOK_S = 1.0
_SOON = 0.9
# The rhythm while a host is about to be gone, and as long after as its locks may take to end.
_OFTEN_S = 0.2
# The shortest pause, and by how much a look is late on purpose: just before the end of a host nothing is to be seen.
_LEAST_S = 0.05
# On a busy machine a thread may come late: a host is not to be gone by that, whatever the lease of locks.
_LEAST_ALIVE_MS = 1500
# For so long others may take to come back as well: between two tries they pause for 2 s at most (`workers.carrier`).
_STEADY_AFTER_S = 5.0
# Who was not heard of for long is looked for in the rhythm of heartbeats.
_ROLL_CALL_S = 5.0
# Seen silent for so long, it is dead: after Redis was away, or its clock was set, all workers are, until their next
# heartbeats, which are up to 15 s apart while handlers run for long.
_SEEN_SILENT_S = 20.0


class Rescuer:
    """Frees what dead workers held, and the thread that does so while its worker cannot.

    Args:
        carrier: Carries the requests.
        keys: Of the namespace.
        worker: Name of the worker.
        queues: Names of queues, whose lists of RQ are filled again when they were emptied by somebody.
        host: Name of the host that this worker keeps alive.
        lease_ms: For how long, each time.
        hear: Told what Redis says to workers of this host, at each look; in either thread.
    """

    def __init__(  # noqa: PLR0913 - the worker, and the host
        self,
        carrier: Carrier,
        keys: Keys,
        worker: str,
        queues: Sequence[str],
        host: str,
        *,
        lease_ms: int,
        hear: Callable[[presence.HostWord], None],
    ) -> None:
        self._carrier = carrier
        self._keys = keys
        self._worker = worker
        self._queues = tuple(queues)
        self._host = host
        self._lease_ms = max(lease_ms, _LEAST_ALIVE_MS)
        self._hear = hear
        self._born_ms = 0
        # Three times within a lease, as its locks are renewed: a host must not seem gone between two looks.
        self._rhythm_s = min(_LOOK_S, self._lease_ms / 3000)
        self._pause_s = self._rhythm_s
        self._beside: tuple[str, ...] = ()
        self._due_at = 0.0
        self._told_at = self._steady_at = -math.inf
        self._called_roll_at = -_SEEN_SILENT_S
        self._silent: dict[str, float] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fsm-rescue", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; what it does just then harms nobody, so it is not waited for where Redis is away."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def leave(self) -> None:
        """Tell that this worker keeps its host alive no more; the last one takes the host with it.

        Raises:
            StoreError: Redis is away, or refused it: the host is gone with the lease.
        """
        if self._born_ms:
            self._carrier.once(presence.leave_host(self._keys, self._host, self._worker, self._born_ms))

    @property
    def pause_s(self) -> float:
        """How long to sleep at most until the next look."""
        return self._pause_s

    @property
    def is_steady(self) -> bool:
        """Whether this host lives, and has for some seconds or from the first: else it cannot be seen who else does.

        A worker that has told nothing yet has missed nothing.
        """
        now = time.monotonic()
        return now >= self._steady_at and (now < self._told_at + self._lease_ms / 1000 or math.isinf(self._told_at))

    def sweep(self) -> int:
        """Free what dead workers held, and keep the host alive, when it is time; gives how much there is to do now.

        On a crash: whoever looks next goes on.

        Raises:
            StoreError: Redis refused it, or is away and this worker is to stop.
        """
        return self._sweep(self._carrier.carry)

    def _run(self) -> None:
        is_told = False
        while not self._stop.wait(self._pause_s):
            try:
                self._sweep(self._carrier.once)
                is_told = False
            except StoreError as error:
                if not is_told:
                    _log.warning("worker %s could not look for what dead workers left: %s", self._worker, error)
                is_told = True
            except Exception:  # noqa: BLE001 - a thread that ended here would leave the dead to others without a word
                _log.exception("worker %s could not look for what dead workers left", self._worker)

    def _sweep(self, carry: Ask) -> int:
        if not self._guard.acquire(blocking=False):
            return 0  # the other thread is at it
        try:
            now = time.monotonic()
            if now < self._due_at:
                return 0
            self._due_at = now + _SOON * self._rhythm_s
            count = self._recover(carry)
            # After it: what was freed just now may be for us to take over.
            self._keep_host(carry, now)
            if now - self._called_roll_at >= _ROLL_CALL_S:
                self._called_roll_at = now
                for name in self._dead(carry, now):
                    freed = bury(carry, self._keys, name)
                    _log.warning("worker %s was silent for too long: freed %d FSMs that it held", name, freed)
                    count += freed
            return count
        finally:
            self._guard.release()

    def _keep_host(self, carry: Ask, now: float) -> None:
        """Tell that the host is alive, and hear what is said to it."""
        if not self._born_ms:
            self._born_ms = carry(presence.time_ms())
        word = carry(
            presence.host(
                self._keys, self._host, self._worker, self._born_ms, lease_ms=self._lease_ms, queues=self._queues
            )
        )
        # Not `now`, which may be long ago: where Redis was away, each request before this one waited for it.
        told_at = time.monotonic()
        if math.isfinite(self._told_at) and told_at - self._told_at > self._lease_ms / 1000:
            self._steady_at = told_at + _STEADY_AFTER_S
        self._told_at = told_at
        self._pause_s = self._rhythm_s
        if word.next_end_s is not None:
            soon = word.next_end_s + _LEAST_S if word.next_end_s else _OFTEN_S
            self._pause_s = min(self._rhythm_s, max(_LEAST_S, soon))
            self._due_at = now + _SOON * self._pause_s
        self._beside = word.queues
        self._hear(word)

    def _recover(self, carry: Ask) -> int:
        """Free in portions, since each call of the script is bounded, until nothing is left."""
        freed = count = 0
        while True:
            portion, rehung = carry(
                calls.recover(self._keys, sweeper=self._worker, queues=(*self._queues, *self._beside))
            )
            freed += portion
            count += portion + rehung
            if not portion:
                break
        if freed:
            _log.warning("freed %d FSMs whose worker died", freed)
        return count

    def _dead(self, carry: Ask, now: float) -> list[str]:
        """Name other workers that were silent at every look of the last seconds: once they may have had no chance."""
        now_ms = carry(presence.time_ms())
        silent = carry(presence.silent(self._keys, now_ms - presence.SILENT_AFTER_MS))
        self._silent = {name: self._silent.get(name, now) for name in silent if name != self._worker}
        return [name for name, since in self._silent.items() if now - since >= _SEEN_SILENT_S]
