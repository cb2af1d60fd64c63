"""Where settings come from: argument, environment, `[tool.fsm]` of the nearest pyproject.toml, default.

Who calls this: the client, the app, the command line and the workers, before they connect.
What it may import: `fsm.errors` and `fsm.machine`, for lengths of time and names of queues; it opens no connection.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fsm.errors import ConfigError
from fsm.machine import Settings, duration_ms
from fsm.machine.names import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "LARGEST_BATCH",
    "LOG_LEVELS",
    "MOST_CONCURRENT",
    "SETTINGS",
    "Found",
    "Origin",
    "Setting",
    "check_durability",
    "check_host",
    "check_namespace",
    "find",
    "origin",
    "resolve",
    "tool_file",
    "tool_settings",
    "unknown_variables",
]

Origin = Literal["argument", "environment", "pyproject.toml", "default"]

# One claim names its FSMs in one Redis command, and Lua's `unpack` carries some 8,000 arguments.
LARGEST_BATCH = 1000
# Threads, each with a stack; and a commit names as many FSMs as a claim.
MOST_CONCURRENT = 1000
LOG_LEVELS = ("debug", "info", "warning", "error")

_FILE = "pyproject.toml"
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# None of what divides the parts of a key or of a queue's name: a host stands in both.
_NO_HOST = re.compile(r"[^A-Za-z0-9_.-]")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_COUNT = re.compile(r"[0-9]{1,9}")
_DURABILITY = re.compile(r"memory|fsync(\+replicas:[1-9][0-9]?)?|replicas:[1-9][0-9]?")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\.([^\W\d]\w*|\*)")
_SHORTEST_LEASE_MS = 500
_LONGEST_LEASE_MS = 3_600_000
# Two signals within a second are taken for one, so that nothing shorter could be told from the first.
_SHORTEST_SHUTDOWN_MS = 1000
_LONGEST_SHUTDOWN_MS = 86_400_000
_MOST_PROCESSES = 500
_MOST_EFFECTS = 100
# What it was before it was a number: whether there is one.
_SWITCH = {"on": 1, "off": 0, "true": 1, "false": 0, "yes": 1, "no": 0}
# Read by others than `resolve`: the program that embedded:// starts, and faults that a test orders for a worker.
_OTHER_VARIABLES = ("FSM_SERVER", "FSM_FAULTS")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: what it is called, and how it is read.

    Args:
        name: Its key in `[tool.fsm]`.
        default: As it would be written in `[tool.fsm]`; None where there is none.
        read: Reads what was written, given with the place where it was: an option, a variable, a key of a file.
        option: Its option on the command line, "" where it has none.
    """

    name: str
    default: Any
    read: Callable[[Any, str], Any]
    option: str

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return f"FSM_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Found:
    """One setting as it was found.

    Args:
        setting: Which.
        given: As it was written.
        value: As it was read.
        origin: Where it was found.
    """

    setting: Setting
    given: Any
    value: Any
    origin: Origin


def _text(given: Any, place: str) -> str:
    if not isinstance(given, str):
        raise ConfigError(place, f"must be text in quotes, not {given!r}")
    return given


def _namespace(given: Any, place: str) -> str:
    try:
        return check_namespace(_text(given, place))
    except ConfigError as error:
        raise ConfigError(place, error.problem) from error


def _length(given: Any, place: str) -> int:
    is_number = isinstance(given, str) and _NUMBER.fullmatch(given)
    return duration_ms(float(given) if is_number else given, place)


def _lease(given: Any, place: str) -> int:
    lease_ms = _length(given, place)
    if not _SHORTEST_LEASE_MS <= lease_ms <= _LONGEST_LEASE_MS:
        raise ConfigError(place, f"{given!r} is not between 500ms and 1h")
    return lease_ms


def _shutdown_timeout(given: Any, place: str) -> int:
    timeout_ms = _length(given, place)
    if not _SHORTEST_SHUTDOWN_MS <= timeout_ms <= _LONGEST_SHUTDOWN_MS:
        raise ConfigError(place, f"{given!r} is not between 1s and 24h")
    return timeout_ms


def _processes(given: Any, place: str) -> int:
    if given == "auto":
        return _cores()
    if isinstance(given, str) and _COUNT.fullmatch(given):
        given = int(given)
    # As above: a boolean is an int.
    if type(given) is not int or not 1 <= given <= _MOST_PROCESSES:
        raise ConfigError(place, f"must be a whole number from 1 to {_MOST_PROCESSES}, or auto, not {given!r}")
    return given


def _cores() -> int:
    """Count the cores that this process may use, which a container may have fewer of than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batch(given: Any, place: str) -> int:
    if isinstance(given, str) and _COUNT.fullmatch(given):
        given = int(given)
    # Not `isinstance`: a boolean is an int in Python.
    if type(given) is not int or not 1 <= given <= LARGEST_BATCH:
        raise ConfigError(place, f"must be a whole number from 1 to {LARGEST_BATCH}, not {given!r}")
    return given


def _concurrency(given: Any, place: str) -> int:
    if isinstance(given, str) and _COUNT.fullmatch(given):
        given = int(given)
    # As above: a boolean is an int.
    if type(given) is not int or not 1 <= given <= MOST_CONCURRENT:
        raise ConfigError(place, f"must be a whole number from 1 to {MOST_CONCURRENT}, not {given!r}")
    return given


def _log_level(given: Any, place: str) -> str:
    if not isinstance(given, str) or given.lower() not in LOG_LEVELS:
        raise ConfigError(place, f"must be one of {', '.join(LOG_LEVELS)}, not {given!r}")
    return given.lower()


def _queues(given: Any, place: str) -> tuple[str, ...]:
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise ConfigError(place, f"must be names of queues, as a list or divided by commas, not {given!r}")
    for name in names:
        try:
            Settings(queue=name)
        except ConfigError as error:
            raise ConfigError(place, error.problem) from error
    return tuple(dict.fromkeys(names))


def _effects_allow(given: Any, place: str) -> tuple[str, ...]:
    paths = [path.strip() for path in given.split(",")] if isinstance(given, str) else given
    if not isinstance(paths, list | tuple):
        raise ConfigError(place, f"must be dotted paths, as a list or divided by commas, not {given!r}")
    for path in paths:
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            problem = f"{path!r} is neither a function such as shop.bank.charge nor all of a module as shop.bank.*"
            raise ConfigError(place, problem)
    return tuple(dict.fromkeys(paths))


def _effects(given: Any, place: str) -> int:
    count = given
    if isinstance(given, str):
        word = given.strip().lower()
        count = int(word) if _COUNT.fullmatch(word) else _SWITCH.get(word)
    elif isinstance(given, bool):
        count = int(given)
    if type(count) is not int or not 0 <= count <= _MOST_EFFECTS:
        raise ConfigError(place, f"must be a whole number from 0 to {_MOST_EFFECTS}, on (1) or off (0), not {given!r}")
    return count


def check_durability(given: Any, place: str) -> str:
    """Return what somebody wrote of durability unchanged if it is a word for it.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(given, str) or not _DURABILITY.fullmatch(given):
        problem = f"must be memory, fsync, replicas:N or fsync+replicas:N with N from 1 to 99, not {given!r}"
        raise ConfigError(place, problem)
    return given


def _host(given: Any, place: str) -> str:
    if given == "":
        # Of the name of this machine, what may not stand in a key becomes a hyphen.
        return _NO_HOST.sub("-", socket.gethostname())[:100] or "localhost"
    try:
        return check_host(_text(given, place))
    except ConfigError as error:
        raise ConfigError(place, error.problem) from error


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("url", "redis://localhost:6379/0", _text, "--url"),
        Setting("namespace", "default", _namespace, "--namespace"),
        Setting("app", None, _text, "--app"),
        Setting("queues", [], _queues, "--queue"),
        Setting("batch", 128, _batch, "--batch"),
        Setting("concurrency", 1, _concurrency, "--concurrency"),
        Setting("lease", "15s", _lease, "--lease"),
        Setting("host", "", _host, "--host"),
        Setting("processes", None, _processes, "--processes"),
        Setting("shutdown_timeout", "30s", _shutdown_timeout, "--shutdown-timeout"),
        Setting("effects", 1, _effects, "--effects"),
        Setting("effects_allow", [], _effects_allow, ""),  # no option: what may be run is no matter of one command
        Setting("durability", "memory", check_durability, ""),  # no option: it is a matter of who wants an answer
        Setting("log_level", "info", _log_level, "--log-level"),
    )
}
_KEYS = ", ".join(sorted(SETTINGS))
_parsed = lru_cache(maxsize=1)(tomllib.loads)  # a worker at its start reads the file ten times, mostly unchanged
# Checked by those who use them, in their own words: as an argument, a setting is somebody's parameter.
_UNREAD_ARGUMENTS = ("url", "namespace", "app")


def tool_file(start: Path | None = None) -> Path | None:
    """Find the nearest pyproject.toml.

    The nearest file decides, also when it has no table of ours: settings further up are another project's.

    Args:
        start: Where to begin to look upwards; the current directory when not given.
    """
    here = (Path.cwd() if start is None else start).absolute()
    return next((file for folder in (here, *here.parents) if (file := folder / _FILE).is_file()), None)


def tool_settings(start: Path | None = None) -> dict[str, Any]:
    """Read `[tool.fsm]` of the nearest pyproject.toml.

    Args:
        start: As in `tool_file`.

    Returns:
        Those that are set, as they are written; empty when there is no file or no table.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    path = tool_file(start)
    if path is None:
        return {}
    try:
        document = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror}): check its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not TOML ({error}): correct it there") from error
    tool = document.get("tool", {})
    table = tool.get("fsm", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.fsm", f"must be a table [tool.fsm] with keys out of {_KEYS}")
    for key, value in table.items():
        place = f"{path}: [tool.fsm] {key}"
        if key not in SETTINGS:
            meant = f", did you mean {close}?" if (close := _closest(key, SETTINGS)) else ":"
            raise ConfigError(place, f"is unknown{meant} the keys are {_KEYS}")
        SETTINGS[key].read(value, place)
    return dict(table)


@overload
def resolve(
    name: Literal["url", "namespace", "durability", "log_level", "host"], argument: str | None = None
) -> str: ...
@overload
def resolve(name: Literal["app"], argument: str | None = None) -> str | None: ...
@overload
def resolve(
    name: Literal["lease", "batch", "concurrency", "shutdown_timeout", "effects"], argument: str | int | None = None
) -> int: ...
@overload
def resolve(name: Literal["processes"], argument: str | int | None = None) -> int | None: ...
@overload
def resolve(name: Literal["queues", "effects_allow"], argument: Sequence[str] | None = None) -> tuple[str, ...]: ...
def resolve(name: str, argument: Any = None) -> Any:
    """Find one setting: the argument, else the environment, else `[tool.fsm]`, else the default.

    A variable is called as its setting, with FSM_ before it; an empty one counts as not set.

    Returns:
        The value; `lease` and `shutdown_timeout` in milliseconds. As arguments, `url`, `namespace` and `app` are not
        checked.

    Raises:
        ConfigError: The value is wrong, or `[tool.fsm]` was needed and is wrong.
    """
    return find(name, argument).value


def origin(name: str, argument: Any = None) -> Origin:
    """Tell where `resolve` takes this setting from.

    Raises:
        ConfigError: As `resolve`.
    """
    return find(name, argument).origin


def find(name: str, argument: Any = None) -> Found:
    """Find one setting, with all that is known of it.

    Raises:
        ConfigError: As `resolve`.
    """
    setting = SETTINGS[name]
    if argument is not None:
        is_read = name not in _UNREAD_ARGUMENTS
        value = setting.read(argument, setting.option) if is_read else argument
        return Found(setting, argument, value, "argument")
    # A variable is unset by emptying it in compose files and shells: "" says nothing.
    if given := os.environ.get(setting.variable):
        return Found(setting, given, setting.read(given, setting.variable), "environment")
    # An empty text or list in the file says nothing, for the same reason; but `false` is a value.
    if (given := tool_settings().get(name)) not in (None, "", []):
        if name == "url":
            given = _from_its_file(given)
        return Found(setting, given, setting.read(given, name), "pyproject.toml")
    value = None if setting.default is None else setting.read(setting.default, name)
    return Found(setting, setting.default, value, "default")


def _from_its_file(url: Any) -> Any:
    """Make the folder of an embedded server absolute: what stands in a file is meant from there, wherever one works."""
    file = tool_file()
    scheme, separator, rest = str(url).partition("://")
    path, question, options = rest.partition("?")
    if scheme != "embedded" or not path or path.startswith("/") or file is None:
        return url
    return f"{scheme}{separator}{file.parent / path}{question}{options}"


def unknown_variables() -> dict[str, str]:
    """Give the variables that look like ours and are not, each with the one that may have been meant, or ""."""
    known = [setting.variable for setting in SETTINGS.values()]
    return {
        variable: _closest(variable, known)
        for variable in sorted(os.environ)
        if variable.startswith("FSM_") and variable not in (*known, *_OTHER_VARIABLES)
    }


def check_namespace(ns: str) -> str:
    """Return the namespace unchanged if it may be one.

    Raises:
        ConfigError: It has other characters than ASCII letters, digits and `_.-`, or not 1 to 64 of them.
    """
    if not _NAMESPACE.fullmatch(ns):
        raise ConfigError(f"namespace {ns!r}", "use 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return ns


def check_host(host: Any) -> str:
    """Return the name of a host unchanged if it may be one.

    Raises:
        ConfigError: It is no text, has other characters than ASCII letters, digits and `_.-`, or not 1 to 100 of them.
    """
    if not isinstance(host, str) or not HOST.fullmatch(host):
        raise ConfigError(f"host {host!r}", "use 1 to 100 of the characters A-Z a-z 0-9 _ . -")
    return host


def _closest(name: str, known: Iterable[str]) -> str:
    return next(iter(get_close_matches(name, list(known), n=1)), "")
