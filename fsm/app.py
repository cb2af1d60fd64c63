"""An application: the machines that its workers know, and the services that come with them.

A lifespan opens services in each worker process and closes them when it ends; machines take them by the names of their
constructors' parameters. What is known of machines without their services (names, definitions, queues) is known of the
classes, so a producer never opens anything.

Who calls this: workers and the command line. `load` is the only place where a name from a setting becomes an import;
names from Redis never do.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fsm.engine import Behaviour
from fsm.errors import ConfigError, FSMError
from fsm.lifespan import Lifespan, check_context, path_of, takes, told
from fsm.machine import Machine
from fsm.machine.signatures import constructor
from fsm.ring import checked_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from fsm.engine.around import Around
    from fsm.lifespan import Context, Drive
    from fsm.machine import Definition
    from fsm.ring import ClusterInfo

__all__ = ["App", "classes", "cluster_of", "load"]


class App:
    """The machines of an application, and what they need: one frozen instance of each in each worker process.

    Workers open it before they begin and close it when they end. Elsewhere `with app:` does both. Without a lifespan
    nothing need be opened: machines are made when they are first asked for.

    Args:
        machines: Classes, made when the app is opened with those services whose names are parameters of their
            `__init__`; or instances, which are taken as they are.
        lifespan: Gives a context manager, sync or async, that yields a mapping of name to service, or None. Called
            without arguments or, where it must have one, with the app.
        around: Given the `Transition`, gives a context manager, sync or async, that is entered around the user code of
            each transition, and around each hook of a failure or refusal. What user code raises passes through it; if
            it raises itself or swallows that, the event fails.
        cluster: Who knows the hosts and whose an FSM is, for machines with `placement="ring"`; give clients the same.
            Without it a ring of the hosts that live.

    Raises:
        ConfigError: Two machines have one name, something is none, lifespan, around or cluster are not what they should
            be, or a class needs a service and there is no lifespan.
    """

    def __init__(
        self,
        machines: Iterable[type[Machine[Any]] | Machine[Any]],
        *,
        lifespan: Callable[[], Context] | Callable[[Any], Context] | None = None,
        around: Around | None = None,
        cluster: ClusterInfo | None = None,
    ) -> None:
        self.cluster = checked_cluster(cluster, "App(cluster=…)")
        self._given = _checked(machines)
        self._lifespan = Lifespan(lifespan, self) if lifespan is not None else None
        self._around = around
        self._behaviours: dict[str, Behaviour] | None = None
        if around is not None:
            check_context("around", around)
            if not takes(around, None):
                raise ConfigError("App(around=…)", f"{around!r} must take one argument, the transition")
        if lifespan is None:
            # Told here and not by the first worker, since nothing will come.
            for given in self._given:
                if not isinstance(given, Machine):
                    _arguments(given, {}, "there is no lifespan to give it: write App(…, lifespan=…), or make it here")

    @property
    def machines(self) -> list[type[Machine[Any]]]:
        """The classes of the machines, in the order given."""
        return [_class(given) for given in self._given]

    @property
    def definitions(self) -> list[Definition]:
        """The definitions, in the order given."""
        return [machine.definition for machine in self.machines]

    @property
    def behaviours(self) -> dict[str, Behaviour]:
        """The machines by name, made and frozen.

        Raises:
            ConfigError: The app has a lifespan and is not open; or a machine cannot be made.
        """
        if self._behaviours is None:
            if self._lifespan is not None:
                problem = "is not open, and its machines need what its lifespan gives: use it inside `with app:`"
                raise ConfigError("App", problem)
            self._behaviours = self._made({})
        return self._behaviours

    @property
    def is_open(self) -> bool:
        """Whether its machines are made."""
        return self._behaviours is not None

    @property
    def is_bare(self) -> bool:
        """Whether classes are all there is to it, so that another process can make the same of them."""
        has_more = self._lifespan is not None or self._around is not None or self.cluster is not None
        return not has_more and not any(isinstance(one, Machine) for one in self._given)

    def queues(self, default: str) -> list[str]:
        """Give the queues of these machines, the namespace's own first."""
        named = [definition.settings.queue or default for definition in self.definitions]
        return list(dict.fromkeys([default, *named] if default in named or not named else named))

    def open(self, drive: Drive | None = None) -> None:
        """Open the services in this process, and make the machines.

        Args:
            drive: Runs a coroutine on the event loop on which async handlers will run, so that what an async lifespan
                opens belongs to that loop; a loop of the app's own when not given.

        Raises:
            ConfigError: The lifespan raised or gave something else than services, one of them is missing, a machine
                cannot be made, or the app is open. Nothing stays open.
        """
        if self._lifespan is None:
            _ = self.behaviours
            return
        services = self._lifespan.enter(drive)
        try:
            self._behaviours = self._made(services)
        except BaseException:
            self._lifespan.leave()
            raise

    def close(self) -> None:
        """Close the services; an error of theirs is logged, for whoever closes them is about to end."""
        if self._lifespan is not None:
            self._behaviours = None
            self._lifespan.leave()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _made(self, services: Mapping[str, Any]) -> dict[str, Behaviour]:
        given = ", ".join(map(repr, services)) or "nothing"
        behaviours = {}
        for one in self._given:
            machine = (
                one if isinstance(one, Machine) else _make(one, services, f"the lifespan gave {given}: add it there")
            )
            behaviours[machine.definition.name] = Behaviour(machine, self._around)
        return behaviours


def _checked(machines: Any) -> list[type[Machine[Any]] | Machine[Any]]:
    """Check that all are machines of different names."""
    if _is_machine(machines):
        raise ConfigError("App(…)", f"takes a list of machines: write App([{_class(machines).__name__}])")
    known: dict[str, type[Machine[Any]]] = {}
    given = list(machines)
    for one in given:
        if not _is_machine(one):
            raise ConfigError("App(…)", f"takes machines, classes or instances, and {one!r} is neither")
        machine = _class(one)
        name = machine.definition.name
        if name in known:
            problem = (
                f"machines {path_of(known[name])} and {path_of(machine)} are both named {name!r}: "
                "give one another name with Settings(name=…)"
            )
            raise ConfigError("app", problem)
        known[name] = machine
    return given


def _class(given: type[Machine[Any]] | Machine[Any]) -> type[Machine[Any]]:
    return type(given) if isinstance(given, Machine) else given


def _arguments(machine: type[Machine[Any]], services: Mapping[str, Any], hint: str) -> inspect.BoundArguments:
    """Pick the services that a machine takes.

    Raises:
        ConfigError: It needs one that is not there.
    """
    signature = constructor(machine)
    bound = signature.bind_partial()
    missing = []
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in services:
            bound.arguments[name] = services[name]
        elif parameter.default is parameter.empty:
            missing.append(name)
    if missing:
        needed = " and ".join(map(repr, missing))
        raise ConfigError("app", f"machine {path_of(machine)} needs {needed}, and {hint}")
    return bound


def _make(machine: type[Machine[Any]], services: Mapping[str, Any], hint: str) -> Machine[Any]:
    bound = _arguments(machine, services, hint)
    try:
        return machine(*bound.args, **bound.kwargs)
    except Exception as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        problem = f"machine {path_of(machine)} cannot be made: its __init__ raised {told(error)}"
        raise ConfigError("app", f"{problem} ({last.filename}, line {last.lineno})") from error


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
    return found.machines if isinstance(found, App) else [_class(machine) for machine in found]


def cluster_of(path: str) -> ClusterInfo | None:
    """Import who knows the hosts for an application; `None` where it leaves that to us.

    Args:
        path: As in `load`.

    Raises:
        ConfigError: It cannot be imported, or holds no machines.
    """
    found = _find(path)
    return found.cluster if isinstance(found, App) else None


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
