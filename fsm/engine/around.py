"""`around`: the application's own context, entered around the user code of each transition.

A database connection for the time of a handler, a logging context, a transaction of another store: what would else be
written at the top of every handler. What user code raises passes through it, so that it can roll back, and is recorded
afterwards. Where an application has none, nothing is paid for it.

Who calls this: the step, for all that it runs of the user's; the app asks whether a context is async. PURE.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.engine import inside
from fsm.engine.faults import is_for_us, said
from fsm.engine.outcomes import HandlerTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from types import TracebackType
    from typing import TypeAlias

    from fsm.engine.behaviour import Behaviour
    from fsm.engine.transition import Transition

    Around: TypeAlias = Callable[[Transition[Any]], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]

__all__ = ["in_time", "is_async_context", "within"]

R = TypeVar("R")


def is_async_context(func: Any) -> bool:
    """Tell whether a call of this gives an async context manager, as far as can be told without calling it.

    >>> from contextlib import asynccontextmanager, contextmanager
    >>> async def steps():
    ...     yield
    >>> is_async_context(asynccontextmanager(steps)), is_async_context(contextmanager(lambda: iter(())))
    (True, False)

    Args:
        func: A function made by `@asynccontextmanager`, also as a method, partial or `__call__`; or a class whose
            instances can be entered by `async with` only.
    """
    while isinstance(func, functools.partial):
        func = func.func
    if inspect.isclass(func):
        return hasattr(func, "__aenter__") and not hasattr(func, "__enter__")
    if not inspect.isroutine(func):
        func = getattr(type(func), "__call__", func)  # noqa: B004 - the function is wanted, not whether there is one
    return inspect.isasyncgenfunction(inspect.unwrap(func))


async def in_time(answer: Awaitable[R], at: float) -> R:
    """Await something of the user's.

    Args:
        answer: What to await.
        at: The time of the event loop at which `HandlerTimeout` is raised in its place.
    """
    scope = asyncio.timeout_at(at)
    try:
        async with scope:
            return await answer
    except TimeoutError:
        if scope.expired():
            raise HandlerTimeout from None
        raise


def within(behaviour: Behaviour, t: Transition[Any], work: Callable[..., Awaitable[R]], *given: Any) -> Awaitable[R]:
    """Give what runs user code: within the application's context, where it has one."""
    return work(*given) if behaviour.around is None else _enclosed(_Context(behaviour, t), work, *given)


async def _enclosed(context: _Context, work: Callable[..., Awaitable[R]], *given: Any) -> R:
    async with context:
        return await work(*given)


class _Context:
    """The context of one transition, whichever kind it is."""

    __slots__ = ("_behaviour", "_manager", "_seconds", "_t")

    def __init__(self, behaviour: Behaviour, t: Transition[Any]) -> None:
        self._behaviour = behaviour
        self._t = t
        self._seconds = behaviour.definition.settings.timeout_for(t.event) / 1000
        self._manager: Any = None

    async def __aenter__(self) -> None:
        with self._inside():
            await self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._inside():
            await self._leave(kind, fault, trace)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Let what the context calls see that it is inside of a transition, where nobody may wait."""
        before = inside.current.get()
        inside.current.set(self._t)
        try:
            yield
        finally:
            inside.current.set(before)  # not by a token, as in the step

    async def _enter(self) -> None:
        behaviour = self._behaviour
        assert behaviour.around is not None  # noqa: S101 - for the type checker: `within` asked
        manager: Any = behaviour.around(self._t)
        kind = "async context manager" if behaviour.is_around_async else "context manager"
        if not hasattr(manager, "__aenter__" if behaviour.is_around_async else "__enter__"):
            problem = f"around gave {manager!r}, no {kind}: decorate it with @contextmanager or @asynccontextmanager"
            raise TypeError(problem)
        self._manager = manager
        if behaviour.is_around_async:
            await in_time(manager.__aenter__(), self._t.deadline(self._seconds))
        else:
            manager.__enter__()

    async def _leave(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._behaviour.is_around_async:
                # A roll-back may have to be made after the time-out of what failed, and has as long again.
                at = self._t.deadline(self._seconds) if fault is None else _now() + self._seconds
                is_swallowed = await in_time(self._manager.__aexit__(kind, fault, trace), at)
            else:
                is_swallowed = self._manager.__exit__(kind, fault, trace)
        except BaseException:
            if fault is not None and is_for_us(fault):
                return  # an interrupt goes on, whatever the context makes of it
            raise
        if fault is not None and is_swallowed and not is_for_us(fault):
            problem = f"around swallowed {type(fault).__name__}: {said(fault)}; let it pass, for the event has failed"
            raise RuntimeError(problem) from fault


def _now() -> float:
    return asyncio.get_running_loop().time()
