"""Lock, lease, token and trust; and the thread that keeps a worker's locks alive.

**Lock.** At most one worker may write an FSM. The right to do so is the key `fsm:<ns>:lock:<name>`; it holds
`<worker>/<token>`. It is taken by `claim`, kept up by `extend`, and given up by `commit` or `release`.

**Lease.** The key expires by itself, by the clock of Redis: a worker that dies holds nobody up for longer than the
lease (15 s unless said otherwise). A living worker renews it at a third of the lease, every 5 s at least, from a thread
of its own, so also while a handler runs for minutes: two renewals may fail before a lock is lost. What lapsed is found
in `held` and made ready again by `recover`, which takes it for a death, and counts it.

**Token.** 128 random bits of one claim, the same for all FSMs of that claim, and of no other. Every write of a holder
is a script that first compares worker and token with the lock: a worker that slept through its lease and wakes up finds
another token, or none, even if it was itself that claimed the FSM anew. Its commit is `STALE` and nothing of it is
written; its `extend` renews nothing and its `release` frees nothing of the new holder. This comparison, in the same
atomic step as the write, is what makes it safe. No clock is.

**Trust.** The worker also knows, by its own monotonic clock, until when its locks must still be there: the moment
*before* the claim or the last successful renewal was sent, plus the lease, less a tenth of it. The lease began to count
later than that, when Redis had the request; the tenth is for the way to Redis and for clocks that do not run alike.
Past it the worker begins no events with that lock (`TransitionWorker.execute_job`), sends no commit of it, and carries
none again that Redis may not have had (`Committer`; redis-py's own repeats, some seconds, know nothing of it). Giving
it back is not forbidden: that writes nothing of the FSM.

    claim sent      Redis has it                             trust ends     lock expires
        |-------------->|                                        |               |
        |<------------------- 0.9 lease ------------------------>|               |
                        |<------------------------ lease ----------------------->|

Trust saves work in vain, and the log a surprise. It is not needed for safety, and cannot give it: a process may be
stopped between its last look at the clock and its next write, and on a host that is suspended the monotonic clock
stands still. It counts for each claim apart: what is known of an old lock of an FSM says nothing about a new one.

**Who holds what.** A worker renews what it knows that it holds. A claim whose reply it never heard is therefore not
renewed; its next claim, which names the tokens that it still holds, frees the others at once and charges nobody. If it
makes none, they lapse.

A lock may be lost though the worker lives: it was stopped for longer than the lease (SIGSTOP, a debugger, a swapping
host), Redis was away for so long, or code that never gives up the interpreter kept the thread below from running. In
each case the events are run again by who claims them next, and what was done here is dropped.

Who calls this: the worker. It may use `fsm.store`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import calls
from fsm.store.requests import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis

    from fsm.store.keys import Keys

__all__ = ["LeaseKeeper"]

_log = logging.getLogger("fsm.lease")
# Share of the lease that is left as margin for the way to Redis and for clocks that do not run alike.
_MARGIN = 0.1
# The thread also tells that the worker lives, and after 30 s of silence it is taken for dead, however long its lease.
_LONGEST_PAUSE_S = 5.0


class LeaseKeeper:
    """What a worker holds, and the thread that renews it.

    Args:
        connect: Makes a connection for the thread, of its own: the worker's may be busy.
        url: Where it leads, for messages.
        keys: Of the namespace.
        worker: Name of the worker.
        lease_ms: The lease.
        beat: Called at each turn of the thread, at least every 5 s: the worker's heartbeat while a handler runs.
    """

    def __init__(  # noqa: PLR0913 - what a renewal is made of
        self,
        connect: Callable[[], redis.Redis],
        url: str,
        keys: Keys,
        worker: str,
        lease_ms: int,
        beat: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._url = url
        self._keys = keys
        self._worker = worker
        self._lease_ms = lease_ms
        self._beat = beat
        # FSM and token -> until when, by `time.monotonic()`, the lock must still be there.
        self._held: dict[tuple[str, str], float] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fsm-lease", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it; what is held then ends with its lease, unless it is released."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def hold(self, names: Iterable[str], token: str, asked_at: float) -> None:
        """Note what a claim brought; `asked_at` is `time.monotonic()` before the claim was sent."""
        until = self._trust(asked_at)
        with self._guard:
            for name in names:
                self._held[name, token] = until

    def let_go(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """Forget what is committed or released, by FSM and token: a newer lock of the same FSM is kept.

        Returns:
            Until when each of them is trusted, by `time.monotonic()`; 0 of a lock that is known to be lost.
        """
        with self._guard:
            return [self._held.pop(pair, 0.0) for pair in pairs]

    def held(self) -> list[tuple[str, str]]:
        """Give the (FSM, token) pairs that are held."""
        with self._guard:
            return list(self._held)

    def is_trusted(self, name: str, token: str, now: float | None = None) -> bool:
        """Whether this lock must still be there; `now` is `time.monotonic()`, where it was just read."""
        # One look at a dict needs no guard.
        return (time.monotonic() if now is None else now) < self._held.get((name, token), 0.0)

    def _trust(self, asked_at: float) -> float:
        return asked_at + self._lease_ms / 1000 * (1 - _MARGIN)

    def _keep(self) -> None:
        client = None
        pause = min(self._lease_ms / 3000, _LONGEST_PAUSE_S)
        while not self._stop.wait(pause):
            try:
                client = client or self._connect()
                try:
                    self.renew(client)
                finally:
                    self._beat()
            except StoreError as error:
                _log.warning("locks of worker %s were not renewed: %s", self._worker, error)
            except Exception:  # noqa: BLE001 - a thread that ended here would let every lock go without a word
                _log.exception("locks of worker %s were not renewed", self._worker)
        if client is not None:
            client.close()

    def renew(self, client: redis.Redis) -> None:
        """Renew all that is held, and forget what turns out to be lost.

        Raises:
            StoreError: Redis cannot be used; trust ends by itself.
        """
        pairs = self.held()
        if not pairs:
            return
        asked_at = time.monotonic()
        words = run(client, calls.extend(self._keys, self._worker, pairs, self._lease_ms), self._url)
        until = self._trust(asked_at)
        with self._guard:
            for pair, word in zip(pairs, words, strict=True):
                if pair not in self._held:
                    continue  # committed or released meanwhile
                if word == "EXTENDED":
                    self._held[pair] = until
                else:
                    del self._held[pair]
                    _log.warning(
                        "the lock of FSM %r was lost: what this worker does with it will not be written", pair[0]
                    )
