"""The short way of a script, of many commands at once, or of a worker's sleep, to Redis and back.

redis-py takes a connection out of its pool for each command, looks whether something lies on it unread, counts for an
observer that nobody has here, and puts it back: that costs more than all else that is done for one event. What a client
runs a million times are scripts, so these keep their connections: one that is idle is taken up again by the next thread
that asks for a script, and whatever goes wrong goes the way that redis-py would take, over the same repeats.

Nothing may lie unread on a connection: one on which anything was broken off, also by a signal, is closed. One that the
server has closed is noticed when it is used, and the repeat connects anew; each script knows its repeats.

Who calls this: `connection` makes it, `requests` runs scripts over it; `ahead` sends and reads as it does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis.client import Pipeline
from redis.utils import HIREDIS_AVAILABLE

from fsm.store.packing import packed

if HIREDIS_AVAILABLE:
    from hiredis import Reader
    from redis._parsers.hiredis import NOT_ENOUGH_DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Wire", "read_all", "send_all"]

R = TypeVar("R")


class Wire(redis.Redis):
    """A client of redis-py, which may be shared by threads and used after a fork, with a short way for scripts.

    Attributes:
        run_id: Which process of the server it met first; "" where nobody asked, or it did not tell.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.run_id = ""
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def at_once(self, *command: Any) -> Any:
        """Run a command, most often a script, whose reply redis-py would give as it came.

        Raises:
            RedisError: As of any command.
        """

        def attempt(connection: Any) -> Any:
            connection.send_command(*command)
            return connection.read_response()

        return self._over_one(attempt)

    def all_at_once(self, commands: Sequence[tuple[Any, ...]], *, as_it_came: bool = False) -> list[Any]:
        """Run commands in one round trip, whose replies redis-py would give as a pipeline of its own does.

        Args:
            commands: Each with its arguments.
            as_it_came: Leave the replies as Redis gave them: redis-py takes longer to read an INFO than Redis to write
                it.

        Raises:
            RedisError: As of any command; an error that is a reply only when all other replies have been read.
        """

        def attempt(connection: Any) -> list[Any]:
            send_all(connection, commands)
            return read_all(connection, len(commands))

        replies = self._over_one(attempt)
        for reply in replies:
            if isinstance(reply, redis.exceptions.ResponseError):
                raise reply
        if as_it_came:
            return replies
        # Few names, each of them many times.
        known: dict[str, Any] = self.response_callbacks
        readers = {name: known.get(name) for name in {command[0] for command in commands}}
        if any(readers.values()):
            for at, (command, reply) in enumerate(zip(commands, replies, strict=True)):
                if (read := readers[command[0]]) is not None:
                    replies[at] = read(reply)
        return replies

    def _over_one(self, attempt: Callable[[Any], R]) -> R:
        """Use an idle connection, anew where it breaks."""
        if self._pid != os.getpid():
            # The parent's: two processes would take each other's replies.
            self._idle, self._pid = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.connection_pool.get_connection()
        reply: R
        try:
            reply = connection.retry.call_with_retry(
                lambda: attempt(connection), lambda _error: connection.disconnect()
            )
        except redis.exceptions.ResponseError:
            # A reply like others: it is read.
            self._idle.append(connection)
            raise
        except BaseException:
            connection.disconnect()
            self.connection_pool.release(connection)
            raise
        self._idle.append(connection)
        return reply

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> _Pipeline:  # noqa: FBT002 - redis-py's signature
        """Give a pipeline that leaves no reply behind either."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def _send_command_parse_response(self, conn: Any, command_name: Any, *args: Any, **options: Any) -> Any:
        # redis-py closes a connection where sending or reading is broken off, and not in between: it went back into the
        # pool, and the next command was given the reply to this one.
        try:
            return super()._send_command_parse_response(conn, command_name, *args, **options)  # type: ignore[no-untyped-call]
        except redis.RedisError:
            raise
        except BaseException:
            conn.disconnect()
            raise

    def hand_back(self) -> None:
        """Give idle connections back to the pool, for those that are to be closed there."""
        # Other threads take from them meanwhile, and do this too: after a failover all of them hear of it at once.
        with suppress(IndexError):
            while True:
                self.connection_pool.release(self._idle.pop())


def send_all(connection: Any, commands: Sequence[tuple[Any, ...]]) -> None:
    """Send commands over a connection of redis-py, in one piece.

    Raises:
        RedisError: The connection broke.
    """
    connection.send_packed_command([packed(commands, connection)])


def read_all(connection: Any, count: int) -> list[Any]:
    """Read the replies to so many commands, as they come; an error of the server is one of them.

    Raises:
        RedisError: The connection broke.
    """
    replies: list[Any] = []
    while len(replies) < count:
        replies.append(_reply_or_error(connection))
        _take_ready(connection, replies, count)
    return replies


def _take_ready(connection: Any, replies: list[Any], count: int) -> None:
    """Take what came together with the reply before, out of hiredis: by way of redis-py it costs four times as much."""
    reader = getattr(getattr(connection, "_parser", None), "_reader", None)
    if not HIREDIS_AVAILABLE or type(reader) is not Reader or connection.protocol not in (2, "2"):
        return
    take = reader.gets
    for _ in range(count - len(replies)):
        if (reply := take()) is NOT_ENOUGH_DATA:
            return
        if type(reply) is not list and isinstance(reply, redis.exceptions.ConnectionError):
            # As redis-py does with an error after which nothing else can be asked.
            connection.disconnect()
            raise reply
        replies.append(reply)


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


class _Pipeline(Pipeline):
    """A pipeline whose connection is closed where a signal breaks it off between its commands and their replies."""

    def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: Any) -> Any:
        try:
            return super()._execute_pipeline(connection, commands, raise_on_error)  # type: ignore[no-untyped-call]
        except redis.RedisError:
            raise
        except BaseException:
            connection.disconnect()
            raise

    def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: Any) -> Any:
        try:
            return super()._execute_transaction(connection, commands, raise_on_error)
        except redis.RedisError:
            raise
        except BaseException:
            connection.disconnect()
            raise
