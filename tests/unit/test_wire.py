"""The short way of scripts: what several threads do with its idle connections at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA

from fsm.store.wire import Wire, read_all


class _Emptied(list[Any]):
    """A list from which another thread takes the last one, between a look at it and the taking."""

    def pop(self, *_: Any) -> Any:
        self.clear()
        return super().pop()


def test_two_threads_may_hand_back_what_is_idle_at_once() -> None:
    # Seen to fail where it is looked whether one is there, and then taken: IndexError in the place of what Redis said.
    wire = Wire(connection_pool=redis.ConnectionPool())
    wire._idle = _Emptied([object()])

    wire.hand_back()

    assert wire._idle == []


class _Served:
    """A connection on which all replies came at once, behind the first of which they lie in hiredis."""

    protocol = 2

    def __init__(self, replies: bytes) -> None:
        def error(text: str) -> Exception:
            kind = redis.exceptions.BusyLoadingError if text.startswith("LOADING") else redis.exceptions.ResponseError
            return kind(text)

        reader = hiredis.Reader(replyError=error, notEnoughData=NOT_ENOUGH_DATA)
        reader.feed(replies)
        self._parser = SimpleNamespace(_reader=reader)
        self.asked = 0
        self.is_closed = False

    def read_response(self) -> Any:
        self.asked += 1
        return self._parser._reader.gets()

    def disconnect(self) -> None:
        self.is_closed = True


def test_what_came_with_the_first_reply_is_taken_with_it_and_no_more() -> None:
    connection = _Served(b"+one\r\n-ERR two\r\n:3\r\n+another's\r\n")

    first, second, third = read_all(connection, 3)

    assert (first, third, connection.asked) == (b"one", 3, 1)
    assert isinstance(second, redis.exceptions.ResponseError)
    assert connection._parser._reader.gets() == b"another's"
    assert not connection.is_closed


def test_an_error_after_which_nothing_can_be_asked_closes_the_connection() -> None:
    # Seen to fail where such an error was a reply like others.
    connection = _Served(b"+one\r\n-LOADING Redis is loading\r\n+three\r\n")

    with pytest.raises(redis.exceptions.BusyLoadingError):
        read_all(connection, 3)

    assert connection.is_closed
