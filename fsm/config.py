"""Where settings come from: argument, environment, `[tool.fsm]` of the nearest pyproject.toml, default.

Who calls this: the client, the app, the command line and the workers, before they connect.
What it may import: `fsm.errors` only; it opens no connection.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Literal, overload

from fsm.errors import ConfigError

__all__ = ["Origin", "check_namespace", "origin", "resolve", "tool_settings"]

Origin = Literal["argument", "environment", "pyproject.toml", "default"]

_FILE = "pyproject.toml"
_KEYS = ("app", "namespace", "url")
_VARIABLES = {"url": "FSM_URL", "namespace": "FSM_NAMESPACE", "app": "FSM_APP"}
_DEFAULTS = {"url": "redis://localhost:6379/0", "namespace": "default"}
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def tool_settings(start: Path | None = None) -> dict[str, str]:
    """Read `[tool.fsm]` of the nearest pyproject.toml.

    The nearest file decides, also when it has no such table: settings of a project further up are another project's.

    Args:
        start: Where to begin to look upwards; the current directory when not given.

    Returns:
        Those of `app`, `namespace` and `url` that are set; empty when there is no file or no table.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a value that is not text.
    """
    here = (Path.cwd() if start is None else start).absolute()
    path = next((file for folder in (here, *here.parents) if (file := folder / _FILE).is_file()), None)
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror}): check its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not TOML ({error}): correct it there") from error
    tool = document.get("tool", {})
    table = tool.get("fsm", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.fsm", f"must be a table [tool.fsm] with keys out of {', '.join(_KEYS)}")
    for key, value in table.items():
        if key not in _KEYS:
            raise ConfigError(f"{path}: [tool.fsm] {key}", f"is unknown: the keys are {', '.join(_KEYS)}")
        if not isinstance(value, str):
            raise ConfigError(f"{path}: [tool.fsm] {key}", f"must be text in quotes, not {value!r}")
    return table


@overload
def resolve(name: Literal["url", "namespace"], argument: str | None) -> str: ...
@overload
def resolve(name: Literal["app"], argument: str | None) -> str | None: ...
def resolve(name: Literal["url", "namespace", "app"], argument: str | None) -> str | None:
    """Find one setting: the argument, else the environment, else `[tool.fsm]`, else the default.

    The variables are FSM_URL, FSM_NAMESPACE and FSM_APP; an empty variable counts as not set.

    Returns:
        The value, unchecked; the defaults are `redis://localhost:6379/0`, `default` and, for `app`, None.

    Raises:
        ConfigError: `[tool.fsm]` was needed and is wrong.
    """
    return _find(name, argument)[0]


def origin(name: Literal["url", "namespace", "app"], argument: str | None = None) -> Origin:
    """Tell where `resolve` takes this setting from.

    Raises:
        ConfigError: `[tool.fsm]` was needed and is wrong.
    """
    return _find(name, argument)[1]


def check_namespace(ns: str) -> str:
    """Return the namespace unchanged if it may be one.

    Raises:
        ConfigError: It has other characters than ASCII letters, digits and `_.-`, or not 1 to 64 of them.
    """
    if not _NAMESPACE.fullmatch(ns):
        raise ConfigError(f"namespace {ns!r}", "use 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return ns


def _find(name: Literal["url", "namespace", "app"], argument: str | None) -> tuple[str | None, Origin]:
    if argument is not None:
        return argument, "argument"
    # A variable is unset by emptying it in compose files and shells: "" says nothing.
    if value := os.environ.get(_VARIABLES[name]):
        return value, "environment"
    if value := tool_settings().get(name):
        return value, "pyproject.toml"
    return _DEFAULTS.get(name), "default"
