"""Commands about diagrams, without Redis: `fsm check`, `fsm draw`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from fsm import app
from fsm.cli.place import placed
from fsm.cli.printing import json_option, print_array, print_fields
from fsm.errors import ConfigError, DefinitionError, ValidationError
from fsm.machine import Format, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.machine import Graph

__all__ = ["check", "draw"]

_SUFFIXES = (".mmd", ".mermaid", ".puml", ".plantuml", ".txt", ".md")
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*mermaid\b[^\n]*\n(?P<text>.*?)^[ \t]*(?P=fence)",
    re.MULTILINE | re.DOTALL,
)
_STATE_DIAGRAM = re.compile(r"^[ \t]*stateDiagram(-v2)?\b", re.MULTILINE)
_MOST_LOOPS = 1000
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")


@dataclass(frozen=True, slots=True)
class _Found:
    """One diagram: its graph, or what is wrong with it."""

    name: str
    graph: Graph | None
    problems: tuple[str, ...] = ()


@click.command()
@click.argument("target", metavar="FILE_OR_CLASS")
@click.option("--endless", "is_endless", is_flag=True, help="A file's diagram need not have an end.")
@json_option
@placed
def check(_place: Place, target: str, *, is_endless: bool, as_json: bool) -> None:
    """Check diagrams and say all that is wrong with them.

    FILE_OR_CLASS is a file with a diagram (.mmd, .puml, .txt; .md: each mermaid block with a state diagram), or
    module:Class, or a module. With --json it prints one array, a diagram each.
    """
    found = list(_diagrams(target, is_endless=is_endless))
    if as_json:
        print_array(map(_as_json, found))
    else:
        for number, one in enumerate(found):
            if number:
                click.echo()
            _show(one)
    if any(one.problems for one in found):
        click.get_current_context().exit(1)


@click.command()
@click.argument("target", metavar="FILE_OR_CLASS")
@click.option("--format", "form", type=click.Choice(get_args(Format)), default="mermaid", show_default=True)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@placed
def draw(_place: Place, target: str, *, form: Format, output: Path | None) -> None:
    """Print a machine's diagram in another syntax.

    FILE_OR_CLASS is as in `fsm check`, and must hold one diagram. For a picture by Graphviz:
    fsm draw … --format dot | dot -Tsvg
    """
    found = list(_diagrams(target, is_endless=True))
    if len(found) != 1:
        names = ", ".join(one.name for one in found)
        raise ConfigError(
            repr(target), f"holds {len(found)} diagrams ({names}), and one can be drawn: name one of them"
        )
    one = found[0]
    if one.graph is None:
        raise ValidationError("", one.problems)
    text = one.graph.render(form)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {str(output)!r}", f"cannot be written ({error.strerror}): name another") from error


def _diagrams(target: str, *, is_endless: bool) -> Iterator[_Found]:
    """Find the diagrams of a target.

    Raises:
        ConfigError: There is no such file or module, or no diagram in it.
    """
    path = Path(target)
    if path.is_file() or path.suffix in _SUFFIXES or not _MODULE.fullmatch(target):
        yield from _in_file(path, is_endless=is_endless)
        return
    try:
        machines = app.classes(target)
    except DefinitionError as error:
        # Raised while its class was made: the other machines of the module are not known yet.
        yield _faulty(target, error)
        return
    for machine in machines:
        yield _Found(machine.definition.name, machine.graph)


def _in_file(path: Path, *, is_endless: bool) -> Iterator[_Found]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}): name a file with a diagram, a module, or module:Class"
        raise ConfigError(f"file {str(path)!r}", problem) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {str(path)!r}", f"is not UTF-8 ({error.reason}): save it as UTF-8") from error
    if path.suffix != ".md":
        yield _parsed(str(path), text, is_endless=is_endless)
        return
    blocks = [found for found in _FENCE.finditer(text) if _STATE_DIAGRAM.search(found["text"])]
    if not blocks:
        raise ConfigError(
            f"file {str(path)!r}", "has no ```mermaid block with a stateDiagram: write one, or name another"
        )
    for block in blocks:
        line = text.count("\n", 0, block.start("text"))
        # Empty lines in front: then the faults name the lines of the file.
        yield _parsed(f"{path}:{line + 1}", "\n" * line + block["text"], is_endless=is_endless)


def _parsed(name: str, text: str, *, is_endless: bool) -> _Found:
    try:
        return _Found(name, parse(text, endless=is_endless))
    except DefinitionError as error:
        return _faulty(name, error)


def _faulty(name: str, error: DefinitionError) -> _Found:
    problems = error.problems if isinstance(error, ValidationError) else (str(error),)
    machine = error.machine if isinstance(error, ValidationError) else ""
    return _Found(f"{name} ({machine})" if machine else name, None, problems)


def _as_json(one: _Found) -> dict[str, Any]:
    graph = one.graph
    if graph is None:
        return {"name": one.name, "ok": False, "problems": one.problems}
    return {
        "name": one.name,
        "ok": True,
        "problems": [],
        "states": graph.states,
        "events": graph.events,
        "start": graph.start,
        "ends": sorted(graph.ending_states()),
        "loops": len(graph.loops(_MOST_LOOPS)),
        "fingerprint": graph.fingerprint,
    }


def _show(one: _Found) -> None:
    graph = one.graph
    if graph is None:
        count = "1 problem" if len(one.problems) == 1 else f"{len(one.problems)} problems"
        click.echo(f"{one.name}: {count}")
        for problem in one.problems:
            click.echo(f"  {problem}")
        return
    loops = len(graph.loops(_MOST_LOOPS))
    print_fields(
        [
            ("ok", one.name),
            ("states", f"{len(graph.states)}: {', '.join(graph.states)}"),
            ("events", f"{len(graph.events)}: {', '.join(graph.events)}"),
            ("start", graph.start),
            ("ends", ", ".join(sorted(graph.ending_states())) or "none"),
            ("loops", f"{_MOST_LOOPS} or more" if loops == _MOST_LOOPS else loops),
        ]
    )
