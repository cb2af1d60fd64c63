"""The lifespan of an application in one process: its services are opened, handed out, and closed.

Who calls this: the app. It may import the engine and what is below.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fsm.engine.around import is_async_context
from fsm.engine.faults import said
from fsm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import TypeAlias

    Services: TypeAlias = Mapping[str, Any] | None
    Context: TypeAlias = AbstractContextManager[Services] | AbstractAsyncContextManager[Services]
    Drive: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]

__all__ = ["Lifespan", "check_context", "path_of", "takes", "told"]

_log = logging.getLogger("fsm.app")


class Lifespan:
    """The services of one process, between their opening and their closing.

    Args:
        function: The user's: gives the context manager.
        app: What it is called with, where it must have an argument.
    """

    def __init__(self, function: Any, app: object) -> None:
        check_context("lifespan", function)
        self._is_given_app = not takes(function)
        if self._is_given_app and not takes(function, app):
            raise ConfigError("App(lifespan=…)", f"{function!r} must take no argument, or one, the app")
        self._app = app
        self._function = function
        self._runner: asyncio.Runner | None = None
        self._leave: Callable[[], Any] | None = None

    def enter(self, drive: Drive | None) -> Mapping[str, Any]:
        """Open the services.

        Args:
            drive: Runs a coroutine on the event loop that is to have what an async lifespan opens; `None` makes a loop.

        Raises:
            ConfigError: They are open; or the lifespan raised, or gave something else. Nothing stays open.
        """
        if self._leave is not None:
            raise ConfigError("App", "is open already in this process: close it first")
        try:
            manager: Any = self._function(self._app) if self._is_given_app else self._function()
            services = self._enter(manager, drive)
        except ConfigError:
            raise
        except Exception as error:
            _log.debug("the lifespan raised", exc_info=True)
            problem = f"raised {told(error)}{self._where(error)}: correct it there, or start what it needs"
            raise ConfigError(f"lifespan {path_of(self._function)}", problem) from error
        if services is None:
            return {}
        if not isinstance(services, Mapping) or not all(isinstance(name, str) for name in services):
            self.leave()
            problem = f"yields a mapping of name to service, or None, not {type(services).__name__}"
            raise ConfigError(f"lifespan {path_of(self._function)}", problem)
        return services

    def _enter(self, manager: Any, drive: Drive | None) -> Any:
        if hasattr(manager, "__enter__") and not is_async_context(self._function):
            services = manager.__enter__()
            self._leave = lambda: manager.__exit__(None, None, None)
            return services
        if not hasattr(manager, "__aenter__"):
            problem = f"gave {manager!r}, no context manager: decorate it with @contextmanager or @asynccontextmanager"
            raise ConfigError(f"lifespan {path_of(self._function)}", problem)
        if drive is None:
            drive = self._own_loop()
        held = _Held(manager)
        try:
            services = drive(held.enter())
        except BaseException:
            # Whoever interrupts the opening must not leave half of it behind.
            drive(held.cancel())
            self._close_runner()
            raise
        self._leave = lambda: drive(held.leave())
        return services

    def leave(self) -> None:
        """Close the services, if they are open; an error of theirs is logged."""
        leave, self._leave = self._leave, None
        if leave is None:
            return
        try:
            leave()
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whoever closes them is about to end
            _log.exception("lifespan %s raised on closing", path_of(self._function))
        finally:
            self._close_runner()

    def _own_loop(self) -> Drive:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner = asyncio.Runner()
            return self._runner.run
        problem = "is async, and a loop runs here already: open the app outside of it, or give it a sync lifespan"
        raise ConfigError(f"lifespan {path_of(self._function)}", problem)

    def _close_runner(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _where(self, error: Exception) -> str:
        """Tell the last line of the lifespan's own file that led to an error."""
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        own = code.co_filename if code else ""
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        return f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""


class _Held:
    """An async context that one task of its own enters and leaves: asyncio's groups and time-outs must have it so."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def enter(self) -> Any:
        given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(given))
        await asyncio.wait([self._task, given], return_when=asyncio.FIRST_COMPLETED)
        if not given.done():
            await self._task  # it ended before it was entered: by raising
        return given.result()

    async def _hold(self, given: asyncio.Future[Any]) -> None:
        async with self._manager as services:
            given.set_result(services)
            await self._closing.wait()

    async def leave(self) -> None:
        self._closing.set()
        if self._task is not None:
            await self._task

    async def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def check_context(option: str, function: Any) -> None:
    """Check, as far as can be seen without calling it, that a function gives a context manager."""
    setting = f"App({option}=…)"
    if not callable(function):
        raise ConfigError(setting, f"{function!r} is no function: give one that is decorated with @contextmanager")
    if inspect.isgeneratorfunction(function):
        raise ConfigError(setting, f"{path_of(function)} is a bare generator: decorate it with @contextmanager")
    if inspect.isasyncgenfunction(function):
        raise ConfigError(setting, f"{path_of(function)} is a bare generator: decorate it with @asynccontextmanager")
    if inspect.iscoroutinefunction(function):
        problem = f"{path_of(function)} is a coroutine: let it yield once, and decorate it with @asynccontextmanager"
        raise ConfigError(setting, problem)


def takes(function: Any, *arguments: Any) -> bool:
    """Tell whether a function can be called with these arguments; one that does not tell can."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def path_of(of: Any) -> str:
    """Give module and name of a class or function, or of the class of anything else."""
    name = getattr(of, "__qualname__", None) or type(of).__qualname__
    return f"{getattr(of, '__module__', None) or type(of).__module__}.{name}"


def told(error: BaseException) -> str:
    """Give class and text of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(said(error).split())}"
