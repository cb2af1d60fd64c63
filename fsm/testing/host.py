"""How a worker process gets the machines of a test module, which it may not be able to import by name.

`described` says in the test's process where they are. `python -m fsm.testing.host` finds them there, each in the module
that it was in, and goes on as `python -m workers`.

Who calls this: `fsm_worker`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import runpy
import sys
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from fsm.app import App
from fsm.errors import ConfigError
from fsm.machine import Machine

__all__ = ["Described", "described", "run"]

_MODULE = "fsm_test_app"
_SETTING = "fsm_worker"


@dataclass(frozen=True, slots=True)
class Described:
    """Where another process finds an application.

    Args:
        places: Of each of its parts the module, the file of that, and the name in it; as JSON.
        path: What it is to `--app` there.
        what: What it is to people.
    """

    places: str
    path: str
    what: str


def described(app: Any) -> Described:
    """Say where another process finds machines of this one, or an `App`.

    Args:
        app: A machine, a list of machines, or an `App`.

    Raises:
        ConfigError: It is none of these, or another process cannot find it.
    """
    parts = list(app) if isinstance(app, list | tuple) else [app]
    if isinstance(app, App) and _named(app) is None:
        parts = _bare(app)
    places = [_place(part) for part in parts]
    return Described(json.dumps(places), f"{_MODULE}:app", ", ".join(name for _, _, name in places))


def _bare(app: App) -> list[type[Machine[Any]]]:
    """Give the classes of an app that has no name, where they are all that there is to it."""
    if app.is_bare:
        return app.machines
    names = ", ".join(machine.__name__ for machine in app.machines)
    problem = (
        f"the App with {names} was made in the test, of more than classes, and a worker is another process: give it a "
        "name at the top of the module, as in `app = App([…])`, and pass that"
    )
    raise ConfigError(_SETTING, problem)


def _place(part: Any) -> tuple[str, str, str]:
    is_machine = isinstance(part, Machine) or (isinstance(part, type) and issubclass(part, Machine))
    if not is_machine and not isinstance(part, App):
        problem = f"runs a module ('shop.orders'), machines or an App, not {part!r}"
        raise ConfigError(_SETTING, problem)
    place = _named(part)
    if place is None:
        what = part.__qualname__ if isinstance(part, type) else f"this {type(part).__name__}"
        problem = f"{what} has no name at the top of a module, and a worker is another process: define it there"
        raise ConfigError(_SETTING, problem)
    return place


def _named(part: Any) -> tuple[str, str, str] | None:
    """Find something by its name in a module that has a file."""
    if isinstance(part, type):
        module = sys.modules.get(part.__module__)
        file = getattr(module, "__file__", None)
        try:
            is_there = attrgetter(part.__qualname__)(module) is part
        except AttributeError:
            is_there = False
        return (part.__module__, file, part.__qualname__) if file and is_there else None
    for module_name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file:
            for name, value in list(vars(module).items()):
                if value is part:
                    return module_name, file, name
    return None


def run(places: str) -> None:
    """Be a worker with an application that is made of these places; the other arguments are its options."""
    parts = [attrgetter(name)(_module(module, file)) for module, file, name in json.loads(places)]
    made = ModuleType(_MODULE)
    vars(made)["app"] = parts[0] if len(parts) == 1 else parts
    sys.modules[_MODULE] = made
    runpy.run_module("workers", run_name="__main__", alter_sys=True)


def _module(name: str, file: str) -> ModuleType:
    """Import a module by its name, if that leads to this file, else by the file."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        pass
    else:
        if Path(module.__file__ or "").resolve() == Path(file).resolve():
            return module
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(_SETTING, f"module {name!r} cannot be imported from {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    run(sys.argv.pop(1))
