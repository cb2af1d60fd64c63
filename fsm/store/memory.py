"""`memory://`: a world in this process, with a worker in the calling thread; what the client knows of it.

The worker lives in the package `workers`, which `fsm` may not import: it is looked up by name when it is wanted.

Who calls this: the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fsm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from fsm.machine import Machine
    from fsm.store.keys import Keys
    from fsm.store.requests import Request

__all__ = ["World", "joining"]

R = TypeVar("R")
_SETTING = "memory://"


class World(Protocol):
    """A Redis in memory, and the worker that applies events at once, as one client has it."""

    redis: redis.Redis

    def carry(self, request: Request[R]) -> R:
        """Carry a request, and do whatever is to be done because of it."""

    def know(self, machine: type[Machine[Any]]) -> None:
        """Learn a machine."""

    def leave(self) -> None:
        """Leave it; with its last client it ends."""


def joining(url: str, keys: Keys, app: Any) -> Callable[[], World] | None:
    """Give what makes the world of a URL, or joins it where it has a name and is there; `None` for a real Redis.

    Args:
        url: `memory://`, `memory://name`, `memory://name?effects=off`, or any other.
        keys: Of the namespace.
        app: An `App` with machines for it, or None.

    Raises:
        ConfigError: There is an app for a real Redis.
    """
    if url.startswith(_SETTING):
        return lambda: _join(url, keys, app)
    if app is not None:
        raise ConfigError("Client(app=…)", "is for memory:// alone: elsewhere workers have it, `fsm worker --app …`")
    return None


def _join(url: str, keys: Keys, app: Any) -> World:
    try:
        # fakeredis goes without it too, and does not know our scripts then.
        importlib.import_module("lupa")
        inline = importlib.import_module("workers.inline")
    except ModuleNotFoundError as error:
        if error.name in ("fakeredis", "lupa"):
            problem = f"needs the package {error.name!r}: install this package with its extra `testing`"
        else:
            problem = f"cannot find its worker, module {error.name!r}: is there a package `workers` of your own?"
        raise ConfigError(_SETTING, problem) from error
    world: World = inline.join(url, keys, app)
    return world
