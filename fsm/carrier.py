"""How plans get to Redis and back from a process that blocks: one connection, opened at the first use.

A plan says what to ask, in which order, and what the replies mean (see `fsm.verbs`). What carries it is all that a
blocking client and an asyncio client have to differ in.

Who calls this: the client, which is such a carrier with verbs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from fsm import verbs
from fsm.store.ahead import Ahead, Ticket
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from fsm.store.connection import Redis
    from fsm.store.memory import World
    from fsm.verbs import Plan

__all__ = ["PlanCarrier"]

R = TypeVar("R")


class PlanCarrier:
    """A connection that carries requests and plans.

    Args:
        url: Where it leads, for messages.
        connect: Opens it.
        join: In the place of a connection: makes or joins a world in memory, which carries requests itself.
    """

    def __init__(self, url: str, connect: Callable[[], Redis], join: Callable[[], World] | None = None) -> None:
        self.url = url
        self._connect = connect
        self._join = join
        self._world: World | None = None
        self._joining = threading.Lock()
        self._connection: Redis | None = None

    def __enter__(self) -> Self:
        """Give the client, for `with`."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones. A world in memory is gone with its last client."""
        if self._world is not None:
            self._world.leave()
            self._world = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def world(self) -> World | None:
        """The world in memory, made or joined at the first use; `None` where Redis is real."""
        if self._world is None and self._join is not None:
            # Of threads that come at once one makes it: what another put into a second one would be lost.
            with self._joining:
                if self._world is None:
                    self._world = self._join()
        return self._world

    @property
    def redis(self) -> Redis:
        """The connection, made at the first use.

        Raises:
            StoreError: Redis cannot be reached, is too old, or in cluster mode.
        """
        if (world := self.world) is not None:
            return world.redis
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def ask(self, request: Request[R]) -> R:
        """Carry one request; for verbs of your own, as the handles are.

        Raises:
            StoreError: Redis cannot be used.
        """
        if (world := self.world) is not None:
            return world.carry(request)
        return run(self.redis, request, self.url)

    def do(self, plan: Plan[R]) -> R:
        """Carry a plan to its end: see `fsm.verbs`."""
        if self.world is not None:
            return verbs.carry(plan, self.ask)
        ahead = Ahead(lambda: self.redis, self.url)

        def ask(what: Request[Any] | Ticket[Any]) -> Any:
            if isinstance(what, Ticket):
                return ahead.result(what)
            return ahead.post(what) if what.is_ahead else run(self.redis, what, self.url)

        try:
            return verbs.carry(plan, ask)
        finally:
            ahead.close()
