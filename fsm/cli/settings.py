"""`fsm config`: which settings hold here, and where each comes from.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fsm import config
from fsm.cli.place import placed
from fsm.cli.printing import Styled, complain, json_option, print_fields, print_gap, print_json, print_table
from fsm.store.connection import mask

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["show_config"]

_STYLES = {"default": "dim", "argument": "bold"}


@click.command(name="config")
@json_option
@placed
def show_config(place: Place, *, as_json: bool) -> None:
    """Show settings, and where each comes from.

    An option of the command line goes before its variable, that before [tool.fsm] in the nearest pyproject.toml, and
    that before the default. Piped, after the file, a line is: setting, value, origin, variable.
    """
    given = {"url": place.url, "namespace": place.namespace, "app": place.app}
    found = [config.find(name, given.get(name)) for name in config.SETTINGS]
    config.check_namespace(config.resolve("namespace", place.namespace))
    file = config.tool_file()
    for variable, meant in config.unknown_variables().items():
        complain(f"warning: {variable} is no variable of ours{f', did you mean {meant}?' if meant else ''}")
    if as_json:
        print_json({"file": None if file is None else str(file), "settings": [_as_json(one) for one in found]})
        return
    print_fields([("file", "none: there is no pyproject.toml here or further up" if file is None else file)])
    print_gap()
    print_table(
        ("setting", "value", "origin", "variable"),
        (
            (one.setting.name, _text(one), Styled(one.origin, _STYLES.get(one.origin, "")), one.setting.variable)
            for one in found
        ),
    )


_LENGTHS = ("lease", "shutdown_timeout")


def _as_json(found: config.Found) -> dict[str, Any]:
    return {
        "name": found.setting.name,
        "value": _shown(found),
        "origin": found.origin,
        "variable": found.setting.variable,
    }


def _shown(found: config.Found) -> Any:
    """Give a value as one would write it: a length of time as text, a URL without its password."""
    if found.setting.name == "url":
        return mask(found.value)
    return found.given if found.setting.name in _LENGTHS else found.value


def _text(found: config.Found) -> str:
    value = _shown(found)
    return ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
