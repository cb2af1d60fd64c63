"""How a step is driven where no handler is a coroutine: without an event loop.

Who calls this: the executors of workers and the test kit. PURE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["drive"]

R = TypeVar("R")


def drive(work: Coroutine[Any, Any, R]) -> R:
    """Drive a coroutine that never suspends to its end.

    Raises:
        RuntimeError: It suspended: it needs an event loop.

    >>> async def step():
    ...     return "done"
    >>> drive(step())
    'done'
    """
    try:
        work.send(None)
    except StopIteration as end:
        value: R = end.value
        return value
    work.close()
    message = "a plain handler returned something to be awaited: declare it with `async def`"
    raise RuntimeError(message)
