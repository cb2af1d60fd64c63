"""How a worker is seen by others: its machines, its heartbeats, what it did, and whether its name is still its own.

Nothing here decides what becomes of an FSM. RQ's own record of the worker is the worker's business.

Who calls this: the worker; heartbeats also come from the thread that keeps its locks, while a handler runs for long.
"""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from fsm.errors import StoreError
from fsm.store import presence
from fsm.store.keys import Keys
from fsm.store.requests import Request
from fsm.verbs import announce, enlist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsm.machine import Definition
    from workers.carrier import Carrier

__all__ = ["BEAT_S", "Pulse", "Record"]

_log = logging.getLogger("fsm.worker")
BEAT_S = 5.0
# What it could not tell is logged so often at most.
_TELL_S = 10.0


class Record(Enum):
    """What RQ's record of a worker turned out to be."""

    OURS = "ours"
    LOST = "lost"  # Redis was full, or has lost it
    ANOTHERS = "another's"


class Pulse:
    """Tells the registries of one worker.

    Args:
        carrier: Carries the requests.
        keys: Of the namespace.
        worker: Name of the worker.
    """

    def __init__(self, carrier: Carrier, keys: Keys, worker: str) -> None:
        self._carrier = carrier
        self._keys = keys
        self._worker = worker
        # Which life of its name it is: whoever finds another in RQ's record was replaced by one of the same name.
        self.life = secrets.token_hex(8)
        self.is_replaced = False
        self._beaten_at = 0.0
        self._told_at = -_TELL_S
        self._number = time.time_ns() // 1000
        self._done = self._failed = 0
        self._seconds = 0.0

    @contextmanager
    def unless_redis_is_in_trouble(self) -> Iterator[None]:
        """Go on without what is only for eyes when Redis is away or full: the claim says what is to be waited for."""
        try:
            yield
        except (RedisError, StoreError) as error:
            # A full Redis refuses it at each turn, for as long as it is full.
            now = time.monotonic()
            if now - self._told_at >= _TELL_S:
                self._told_at = now
                _log.warning("worker %s could not tell Redis how it is: %s", self._worker, error)

    def count(self, *, done: int = 0, failed: int = 0, seconds: float = 0.0) -> None:
        """Count what was done since the last heartbeat; for people's eyes, so without a lock between threads."""
        self._done += done
        self._failed += failed
        self._seconds += seconds

    def is_due(self, after: float = BEAT_S) -> bool:
        """Whether the last heartbeat is so many seconds ago; if so, the next one counts from now."""
        now = time.monotonic()
        if now - self._beaten_at < after:
            return False
        self._beaten_at = now
        return True

    def beat(self) -> Record:
        """Tell that the worker lives.

        It works in a full Redis, where RQ's heartbeat does not: who drains that must not be taken for dead.

        Returns:
            What RQ's record of it is.

        Raises:
            StoreError: Redis is away.
        """
        done, failed, seconds = self._done, self._failed, self._seconds
        self._done, self._failed, self._seconds = 0, 0, 0.0
        self._number += 1
        beat = presence.beat(self._keys, self._worker, self._number, done=done, failed=failed, seconds=seconds)
        self._carrier.once(beat)
        life, birth = self._carrier.once(
            Request(
                lambda reply: (reply[0], reply[1]),
                commands=[("HMGET", Keys.rq_worker(self._worker), "life", "birth")],
            )
        )
        if life == self.life.encode():
            return Record.OURS
        if life is None and birth is None:
            return Record.LOST
        self.is_replaced = True
        return Record.ANOTHERS

    def announce(self, definitions: Iterable[Definition], queues: Iterable[str]) -> None:
        """Announce machines, and warn of workers on our queues that are none of ours.

        Raises:
            StoreError: Redis is away, or full.
        """
        machines = list(definitions)
        if machines:
            self._carrier.once(announce(self._keys, machines, int(time.time() * 1000)))
            with suppress(StoreError):
                self._carrier.once(enlist(self._keys))
        for queue in queues:
            for record in self._carrier.once(presence.on_queue(queue)):
                if record != Keys.rq_worker(self._worker) and self._carrier.once(presence.is_stranger(record)):
                    _log.warning(
                        "%s on queue %s is no worker of fsm: it runs our jobs only with the JSON serializer",
                        record,
                        queue,
                    )
