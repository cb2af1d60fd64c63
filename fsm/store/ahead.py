"""Requests that are sent before the reply to the one before is there, so that Redis and the caller work at once.

They go over one connection, and replies come in their order. When it breaks, nobody knows which of them were executed:
all that have no reply are carried again, in their order, over other connections; each script knows its repeats. The
first sending may be long ago by then, for a reply is waited for behind others: what was sent more than `REPEAT_WITHIN`
ago is not carried again, so that its last repeat stays within the time for which repeats are known (see `connection`).

Who calls this: the client's carrier, for plans that ask for it; one thread at a time.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import redis

from fsm.errors import StoreError
from fsm.store.connection import REPEAT_WITHIN, explain
from fsm.store.passing import is_demoted
from fsm.store.requests import Request, command, drop_demoted, read, run
from fsm.store.wire import read_all, send_all

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ahead", "Ticket"]

R = TypeVar("R")
_NO_ERRORS = frozenset((list, bytes, int))


@dataclass(slots=True, eq=False)
class Ticket(Generic[R]):
    """One request on its way, when it was sent, and what came of it."""

    request: Request[R]
    sent_at: float
    value: R | None = None
    error: StoreError | None = None
    is_read: bool = False


class Ahead:
    """One connection on which requests are sent ahead; none is opened before the first.

    Args:
        connect: Gives the client of whose pool the connection is.
        url: Where it leads, for messages.
    """

    def __init__(self, connect: Callable[[], redis.Redis], url: str) -> None:
        self._connect = connect
        self._url = url
        self._connection: Any = None
        # It stays with a server that takes no writes any more: it must not come back into the pool as it is.
        self._is_demoted = False
        self._under_way: deque[Ticket[Any]] = deque()

    def post(self, request: Request[R]) -> Ticket[R]:
        """Send a script or plain commands, whose replies are read as they come, and give the ticket for what they say.

        Raises:
            StoreError: Redis cannot be reached. What goes wrong after that is told with the result.
        """
        if self._connection is None:
            try:
                self._connection = self._connect().connection_pool.get_connection()
            except redis.RedisError as error:
                raise explain(error, self._url) from error
        ticket = Ticket(request, time.monotonic())
        self._under_way.append(ticket)
        try:
            if len(request.commands) > 1:
                send_all(self._connection, request.commands)
            else:
                self._connection.send_command(*command(request))
        except redis.RedisError as error:
            self._carry_all_again(error)
        return ticket

    def result(self, ticket: Ticket[R]) -> R:
        """Wait for a reply; those before it are read on the way.

        Raises:
            StoreError: Redis refused it, or is away.
        """
        while not ticket.is_read:
            self._read()
        if ticket.error is not None:
            raise ticket.error
        value: R = ticket.value  # type: ignore[assignment] # read, and no error: it is there
        return value

    def close(self) -> None:
        """Give the connection back; what is still under way is executed, and nobody hears of it."""
        if self._connection is not None:
            if self._under_way or self._is_demoted:
                self._connection.disconnect()
            self._connect().connection_pool.release(self._connection)
            self._connection = None
        self._under_way.clear()

    def _read(self) -> None:
        """Read the oldest reply."""
        ticket = self._under_way[0]
        try:
            reply = self._reply(ticket.request)
        except redis.exceptions.NoScriptError:
            # Those behind it keep their place: a plan sends ahead only what need not come after what is under way.
            self._carry_again(ticket)
        except redis.exceptions.ResponseError as error:
            self._is_demoted = self._is_demoted or is_demoted(error)
            drop_demoted(self._connect(), error)
            ticket.error = explain(error, self._url)
            ticket.error.__cause__ = error
        except redis.RedisError as error:
            self._carry_all_again(error)
            return
        else:
            try:
                ticket.value = read(ticket.request, reply)
            except StoreError as problem:
                ticket.error = problem
        self._end(ticket)

    def _reply(self, request: Request[Any]) -> Any:
        if len(request.commands) <= 1:
            return self._connection.read_response()
        replies = read_all(self._connection, len(request.commands))
        if not _NO_ERRORS.issuperset(map(type, replies)):
            for reply in replies:
                if isinstance(reply, redis.exceptions.ResponseError):
                    raise reply
        return replies

    def _carry_all_again(self, cause: redis.RedisError) -> None:
        """Carry all that has no reply by other connections, in order; this one is never read again."""
        self._connection.disconnect()
        while self._under_way:
            ticket = self._under_way[0]
            if time.monotonic() - ticket.sent_at > REPEAT_WITHIN:
                ticket.error = explain(cause, self._url)
                ticket.error.__cause__ = cause
            else:
                self._carry_again(ticket)
            self._end(ticket)

    def _carry_again(self, ticket: Ticket[Any]) -> None:
        try:
            ticket.value = run(self._connect(), ticket.request, self._url)
        except StoreError as problem:
            ticket.error = problem

    def _end(self, ticket: Ticket[Any]) -> None:
        ticket.is_read = True
        self._under_way.popleft()
