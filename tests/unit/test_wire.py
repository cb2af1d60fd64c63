"""The short way of scripts: what several threads do with its idle connections at once."""

from __future__ import annotations

from typing import Any

import redis

from fsm.store.wire import Wire


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
