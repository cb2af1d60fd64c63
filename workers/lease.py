"""Lock, lease, token and trust; and the thread that keeps a worker's locks alive.

**Lock.** At most one worker may write an FSM. The right to do so is the key `fsm:<ns>:lock:<name>`; it holds
`<worker>/<token>`.

**Lease.** The key expires by itself: a worker that dies holds nobody up for longer than the lease (15 s unless said
otherwise). A living worker renews it at a third of the lease, every 5 s at least, from a thread of its own, so also
while a handler runs for minutes.

**Token.** 128 random bits of one claim. Every write of a holder is a script that first compares the token: a worker
that slept through its lease and wakes up finds another token, or none, and its commit is `STALE`. Nothing of it is
written. That check, not the clock, is what makes it safe.

**Trust.** The worker also knows, by its own monotonic clock, until when its locks must still be there: the moment
before the last successful renewal was sent, plus the lease, less a margin. Past that it does not begin new events with
them. That saves work in vain; it is not needed for safety.

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
        self._held: dict[str, str] = {}
        self._trusted_until: dict[str, float] = {}
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
        until = asked_at + self._lease_ms / 1000 * (1 - _MARGIN)
        with self._guard:
            for name in names:
                self._held[name] = token
                self._trusted_until[name] = until

    def let_go(self, names: Iterable[str]) -> None:
        """Forget what was committed or released."""
        with self._guard:
            for name in names:
                self._held.pop(name, None)
                self._trusted_until.pop(name, None)

    def held(self) -> list[tuple[str, str]]:
        """Give the (FSM, token) pairs that are held."""
        with self._guard:
            return list(self._held.items())

    def is_trusted(self, name: str) -> bool:
        """Whether the lock of this FSM must still be there."""
        with self._guard:
            return time.monotonic() < self._trusted_until.get(name, 0)

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
        until = asked_at + self._lease_ms / 1000 * (1 - _MARGIN)
        with self._guard:
            for (name, token), word in zip(pairs, words, strict=True):
                if self._held.get(name) != token:
                    continue
                if word == "EXTENDED":
                    self._trusted_until[name] = until
                else:
                    del self._held[name], self._trusted_until[name]
                    _log.warning("the lock of FSM %r was lost: what this worker does with it will not be written", name)
