"""How a worker's requests get to Redis: ahead of their replies while all is well, and through it when Redis is away.

Redis and the worker are two processes. If one waits whenever the other works, a transition takes the sum of their
times; `Line` sends the next claim and the last commit ahead, so that both work at once.

Who calls this: all rooms of the worker that ask Redis for something, and the ward of a host.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redis.exceptions import NoScriptError, RedisError

from fsm.errors import StoreError
from fsm.store import passing
from fsm.store.connection import explain
from fsm.store.requests import Request, command, run, script

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

__all__ = ["Carrier", "Line", "Ticket", "is_passing"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")
_SENT_AHEAD = ("claim", "commit")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
# All workers lose Redis in the same moment: each pause is drawn anew, so that they do not come back in one.
_SHORTEST_SHARE = 0.5


def is_passing(error: StoreError) -> bool:
    """Whether Redis is only away, restarting, failing over or unable to save: the same request may succeed later."""
    return passing.is_passing(error.__cause__)


class Carrier:
    """Carries requests, and repeats them while Redis is away: each script knows its repeats.

    Args:
        client: The worker's connection.
        url: Where it leads, for messages.
        is_stopping: Whether the worker was asked to stop: then nothing is repeated.
    """

    def __init__(self, client: redis.Redis, url: str, is_stopping: Callable[[], bool]) -> None:
        self._client = client
        self.url = url
        self._is_stopping = is_stopping

    def carry(self, request: Request[R], until: float | None = None) -> R:
        """Carry one request.

        Args:
            request: The request.
            until: `time.monotonic()` after which it is sent no more; `None` goes on as long as the worker does.

        Raises:
            StoreError: Redis refused it, or is still away.
        """
        pause = _FIRST_PAUSE_S
        while True:
            if until is not None and time.monotonic() >= until:
                raise StoreError("its time was over before Redis could be asked (again)")
            try:
                return run(self._client, request, self.url)
            except StoreError as error:
                over = until is not None and time.monotonic() + pause > until
                if not is_passing(error) or self._is_stopping() or over:
                    raise
                _log.warning("waiting for Redis: %s", error)
                time.sleep(pause * random.uniform(_SHORTEST_SHARE, 1))  # noqa: S311 - chance without secrets
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def once(self, request: Request[R]) -> R:
        """Carry one request without repeating it."""
        return run(self._client, request, self.url)


@dataclass(slots=True)
class Ticket(Generic[R]):
    """One request on its way, and what came of it."""

    request: Request[R]
    until: float | None = None
    value: R | None = None
    error: Exception | None = None
    is_read: bool = False


class Line:
    """One connection on which scripts are sent without waiting; replies come in the same order.

    When it breaks, nobody knows which of the requests under way were executed. All of them are carried again, in their
    order: each script knows its repeats. A broken connection is never used again: redis-py would connect it anew in
    silence, and the reply to what is sent next would be taken for that to what was sent before.

    One thread at a time: the worker's batch sees to that.

    Args:
        client: The worker's connection pool.
        carrier: Carries them when the line is broken.
    """

    def __init__(self, client: redis.Redis, carrier: Carrier) -> None:
        self._pool = client.connection_pool
        self._carrier = carrier
        self._connection: Any = None
        self._under_way: deque[Ticket[Any]] = deque()

    def post(self, request: Request[R], until: float | None = None) -> Ticket[R]:
        """Send a request; its reply is read later. It does not raise: what went wrong is told with the result.

        Args:
            request: A script, or one plain command.
            until: `time.monotonic()` after which it is not carried again.
        """
        if self._connection is None:
            self._carry_all()
        ticket = Ticket(request, until)
        self._under_way.append(ticket)
        try:
            if self._connection is None:
                self._connect()
            self._connection.send_command(*command(request))
        except RedisError:
            self._carry_all()
        except BaseException:
            self._hang_up()
            raise
        return ticket

    def result(self, ticket: Ticket[R]) -> R:
        """Wait for a reply; those before it are read on the way.

        Raises:
            StoreError: Redis refused it, or is away and this worker is to stop.
        """
        while not ticket.is_read:
            self._read()
        if ticket.error is not None:
            raise ticket.error
        value: R = ticket.value  # type: ignore[assignment] # read, and no error: it is there
        return value

    def close(self) -> None:
        """Give the connection back; what is under way is executed, and nobody hears of it."""
        if self._under_way:
            self._hang_up()
            self._under_way.clear()
        elif self._connection is not None:
            self._pool.release(self._connection)
            self._connection = None

    def _connect(self) -> None:
        self._connection = self._pool.get_connection()
        for name in _SENT_AHEAD:
            # Known to the server before the first is sent: a request that has to be carried again loses its place.
            self._connection.send_command("SCRIPT", "LOAD", script(name)[0])
            self._connection.read_response()

    def _hang_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.disconnect()
            self._pool.release(connection)

    def _read(self) -> None:
        """Read the oldest reply."""
        if self._connection is None:
            self._carry_all()
            return
        ticket = self._under_way[0]
        try:
            reply = self._connection.read_response()
        except NoScriptError:
            self._again(ticket)
        except RedisError as error:
            problem = explain(error, self._carrier.url)
            problem.__cause__ = error
            if is_passing(problem):
                self._carry_all()
                return
            ticket.error = problem
        except BaseException:
            # A second signal, in the middle of a reply.
            self._hang_up()
            raise
        else:
            self._note(ticket, reply)
        self._end(ticket)

    def _carry_all(self) -> None:
        """Carry all that is under way by other connections, in order."""
        self._hang_up()
        while self._under_way:
            ticket = self._under_way[0]
            self._again(ticket)
            self._end(ticket)

    def _again(self, ticket: Ticket[Any]) -> None:
        try:
            ticket.value = self._carrier.carry(ticket.request, ticket.until)
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told of it, not who reads before him
            ticket.error = error

    def _note(self, ticket: Ticket[Any], reply: Any) -> None:
        try:
            ticket.value = ticket.request.read(reply)
        except Exception as error:  # noqa: BLE001 - as above: the reply is used up, those behind it must keep their place
            ticket.error = error

    def _end(self, ticket: Ticket[Any]) -> None:
        ticket.is_read = True
        self._under_way.popleft()
