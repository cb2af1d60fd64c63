"""A connection to PostgreSQL that does not wait for ever for a server that says nothing.

The server itself ends a statement that takes too long, so there is an answer in any case, unless its process was
stopped, or its disk or its host hangs: then TCP is fine, and nobody ever ends the wait. A worker that waits so would
renew the locks of its FSMs for as long.

Who calls this: `engines`. It imports the driver, and so is imported where there is a PostgreSQL.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["connector"]


def connector(silence_s: float) -> Callable[..., Any]:
    """Give what opens connections, for SQLAlchemy's event `do_connect`.

    Args:
        silence_s: For how long a server may say nothing to what it was asked.
    """

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
            try:
                return super().wait(_heard(gen, silence_s), *arguments, **named)
            except _SilenceError as error:
                # Nobody knows what it would say later, and to which question.
                self.close()
                raise psycopg.OperationalError(str(error)) from None

    def connect(_dialect: object, _record: object, arguments: Any, named: Any) -> Any:
        return Bounded.connect(*arguments, **named)

    return connect


class _SilenceError(Exception):
    """The server has said nothing for too long."""


def _heard(gen: Any, silence_s: float) -> Generator[Any, Any, Any]:
    """Go on as `gen` does, and end it where nothing comes for too long: the driver asks some times a second."""
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                heard_at = now
            elif now - heard_at > silence_s:
                problem = f"the server has said nothing for {silence_s:g} s"
                raise _SilenceError(problem)
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
