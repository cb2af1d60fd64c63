"""An application: the machines that its workers know.

Who calls this: workers and the command line. `load` is the only place where a name from a setting becomes an import;
names from Redis never do.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm.engine import Behaviour
from fsm.errors import ConfigError, FSMError
from fsm.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from fsm.machine import Definition

__all__ = ["App", "classes", "load"]


class App:
    """The machines of an application, each instantiated once per worker process and frozen.

    Args:
        machines: Classes (made without arguments) or instances (made with their services).

    Raises:
        ConfigError: Two machines have one name, or a class cannot be made without arguments.
    """

    def __init__(self, machines: Iterable[type[Machine[Any]] | Machine[Any]]) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        for given in machines:
            machine = _made(given)
            behaviour = Behaviour(machine)
            other = self.behaviours.get(behaviour.name)
            if other is not None:
                problem = (
                    f"machines {_path(other.machine)} and {_path(machine)} are both named {behaviour.name!r}: "
                    "give one another name with Settings(name=…)"
                )
                raise ConfigError("app", problem)
            self.behaviours[behaviour.name] = behaviour

    @property
    def definitions(self) -> list[Definition]:
        """The definitions, in the order given."""
        return [behaviour.definition for behaviour in self.behaviours.values()]

    def queues(self, default: str) -> list[str]:
        """Give the queues of these machines, the namespace's own first."""
        named = [definition.settings.queue or default for definition in self.definitions]
        return list(dict.fromkeys([default, *named] if default in named or not named else named))

    def close(self) -> None:
        """Close what the application opened in this process."""


def _path(machine: Machine[Any]) -> str:
    return f"{type(machine).__module__}.{type(machine).__qualname__}"


def _made(given: type[Machine[Any]] | Machine[Any]) -> Machine[Any]:
    if isinstance(given, Machine):
        return given
    try:
        return given()
    except TypeError as error:
        problem = f"machine {given.__qualname__} cannot be made without arguments ({error}): pass an instance to App(…)"
        raise ConfigError("app", problem) from error
    except Exception as error:
        problem = f"machine {given.__qualname__} cannot be made: {type(error).__name__}: {error}"
        raise ConfigError("app", problem) from error


def load(path: str) -> App:
    """Import an application.

    Args:
        path: `module` (all machines defined or imported in it, or its `app` if that is an `App`) or `module:attribute`
            (an `App`, a machine, or a list of machines).

    Raises:
        ConfigError: It cannot be imported, or holds no machines.
    """
    found = _find(path)
    return found if isinstance(found, App) else App(found)


def classes(path: str) -> list[type[Machine[Any]]]:
    """Import the machines of an application as classes: none is made, so none of their services is needed.

    Args:
        path: As in `load`.

    Raises:
        ConfigError: It cannot be imported, or holds no machines.
    """
    found = _find(path)
    machines = [behaviour.machine for behaviour in found.behaviours.values()] if isinstance(found, App) else found
    return [type(machine) if isinstance(machine, Machine) else machine for machine in machines]


def _find(path: str) -> App | list[type[Machine[Any]] | Machine[Any]]:
    """Import what a path names."""
    module_name, _, attribute = path.partition(":")
    module = _import(module_name, path)
    if attribute:
        try:
            value = getattr(module, attribute)
        except AttributeError as error:
            problem = f"module {module_name!r} has no {attribute!r}"
            raise ConfigError(f"app {path!r}", problem) from error
    else:
        value = getattr(module, "app", None)
        value = value if isinstance(value, App) else _machines_of(module)
    if isinstance(value, App):
        return value
    machines = [value] if _is_machine(value) else list(value) if isinstance(value, list | tuple | set) else []
    if not machines or not all(_is_machine(machine) for machine in machines):
        problem = "no machines found: name a module that defines some, an App, a machine or a list of machines"
        raise ConfigError(f"app {path!r}", problem)
    return machines


def _import(module_name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        # As `python -m` does it: the application lies where the worker is started.
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except FSMError:
        raise
    except ModuleNotFoundError as error:
        problem = f"there is no module {error.name!r}: start where it can be imported, or set PYTHONPATH"
        raise ConfigError(f"app {path!r}", problem) from error
    except Exception as error:  # a user's module may raise anything; the cause goes along
        *_, last = traceback.extract_tb(error.__traceback__)
        # The text of a SyntaxError says where; its last frame is Python's own.
        where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        problem = f"importing {module_name!r} raised {type(error).__name__}: {error}{where}: correct it there"
        raise ConfigError(f"app {path!r}", problem) from error


def _is_machine(value: Any) -> bool:
    return isinstance(value, Machine) or (inspect.isclass(value) and issubclass(value, Machine))


def _machines_of(module: ModuleType) -> list[type[Machine[Any]]]:
    """Give the machines that can be run: those with a diagram."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Machine) and getattr(value, "definition", None) is not None
    ]
