"""How a worker's requests get through while Redis is away.

Who calls this: the worker and its intake.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fsm.errors import StoreError
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

__all__ = ["Carrier", "is_passing"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


def is_passing(error: StoreError) -> bool:
    """Whether Redis is only away, restarting or failing over: the same request may succeed later."""
    return isinstance(error.__cause__, _TRANSIENT)


class Carrier:
    """Carries requests, and repeats them while Redis is away: each script knows its repeats.

    Args:
        client: The worker's connection.
        is_stopping: Whether the worker was asked to stop: then nothing is repeated.
    """

    def __init__(self, client: redis.Redis, is_stopping: Callable[[], bool]) -> None:
        self._client = client
        self._is_stopping = is_stopping

    def carry(self, request: Request[R], until: float | None = None) -> R:
        """Carry one request.

        Args:
            request: The request.
            until: `time.monotonic()` after which it is given up; `None` goes on as long as the worker does.

        Raises:
            StoreError: Redis refused it, or is still away.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return run(self._client, request)
            except StoreError as error:
                over = until is not None and time.monotonic() + pause > until
                if not is_passing(error) or self._is_stopping() or over:
                    raise
                _log.warning("waiting for Redis: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def once(self, request: Request[R]) -> R:
        """Carry one request without repeating it."""
        return run(self._client, request)
