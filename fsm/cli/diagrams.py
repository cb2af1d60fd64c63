"""Commands about diagrams: `fsm check`, `fsm draw`. Only `fsm check --against` and `fsm draw --fsm` ask Redis.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import click

from fsm import app, verbs
from fsm.cli.graphviz import svg
from fsm.cli.place import placed
from fsm.cli.printing import Styled, json_option, print_array, print_fields
from fsm.errors import ConfigError, DefinitionError, UnknownMachineError, ValidationError
from fsm.machine import Format, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.machine import Definition, Graph
    from fsm.store.codec import Snapshot

__all__ = ["check", "draw"]

_Form: TypeAlias = Format | Literal["svg"]
_FORMS: tuple[_Form, ...] = (*get_args(Format), "svg")
_FORM_OF: dict[str, _Form] = {
    "": "mermaid",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".txt": "mermaid",
    ".puml": "plantuml",
    ".plantuml": "plantuml",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
}
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
    """One diagram: its graph, or what is wrong with it; and the machine of which it is, "" for that of a file.

    `definition` is that of the machine, where its class could be made.
    """

    name: str
    graph: Graph | None
    problems: tuple[str, ...] = ()
    machine: str = ""
    definition: Definition | None = None


@click.command()
@click.argument("target", metavar="FILE_OR_CLASS")
@click.option("--endless", "is_endless", is_flag=True, help="A file's diagram need not have an end.")
@click.option("--against", metavar="URL", help="Hold it against the FSMs that live in this Redis, before a deploy.")
@click.option("--mail", "with_mail", is_flag=True, help="With --against: read all FSMs of it, their mail and timers.")
@json_option
@placed
def check(  # noqa: PLR0913 - one parameter an option
    place: Place, target: str, *, is_endless: bool, against: str | None, with_mail: bool, as_json: bool
) -> None:
    """Check diagrams and say all that is wrong with them.

    FILE_OR_CLASS is a file with a diagram (.mmd, .puml, .txt; .md: each mermaid block with a state diagram), or
    module:Class, or a module. With --json it prints one array, a diagram each.

    With --against it is a class, or a module of them, and says also what of the FSMs that live there its deploy would
    leave behind: those in states that it lacks, and with --mail events that no edge takes. Exits with 1 where there is
    any.
    """
    if with_mail and against is None:
        raise ConfigError("--mail", "goes with --against URL: mail waits in Redis")
    found = list(_diagrams(target, is_endless=is_endless))
    deploys: list[verbs.DeployCheck | None] = [None] * len(found)
    if against is not None:
        deploys = _held_against(replace(place, url=against), target, found, with_mail=with_mail)
    if as_json:
        print_array(map(_as_json, found, deploys))
    else:
        for number, (one, deploy) in enumerate(zip(found, deploys, strict=True)):
            if number:
                click.echo()
            _show(one)
            if deploy is not None:
                _show_deploy(deploy)
    if any(one.problems for one in found) or not all(deploy is None or deploy.is_ok for deploy in deploys):
        click.get_current_context().exit(1)


def _held_against(place: Place, target: str, found: list[_Found], *, with_mail: bool) -> list[verbs.DeployCheck | None]:
    """Check each machine against the FSMs of it that live; `None` for one that could not be made.

    Raises:
        ConfigError: These are diagrams of files, of which no FSM is.
    """
    if any(one.graph is not None and one.definition is None for one in found):
        raise ConfigError(
            f"--against of {target!r}", "FSMs are of machines: name a class, as module:Class, or a module"
        )
    with place.client() as client:
        return [
            None
            if one.definition is None
            else client.do(verbs.check_deploy(client.keys, one.definition, mail=with_mail))
            for one in found
        ]


def _show_deploy(deploy: verbs.DeployCheck) -> None:
    living = "1 FSM lives" if deploy.fsms == 1 else f"{deploy.fsms} FSMs live"
    against = "nothing stands against it" if deploy.is_ok else "this stands against it:"
    print_fields([("deploy", Styled(f"{living}, and {against}", "" if deploy.is_ok else "red"))])
    for one in deploy.findings:
        click.echo(f"  {one.text}")
    for note in deploy.notes:
        click.echo(f"  note: {note}")


@click.command()
@click.argument("target", metavar="[FILE_OR_CLASS]", required=False)
@click.option("--fsm", "name", metavar="NAME", help="Mark the state in which this FSM is, and where it was.")
@click.option("--format", "form", type=click.Choice(_FORMS), help="[by the suffix of --output, else mermaid]")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@placed
def draw(place: Place, target: str | None, *, name: str | None, form: _Form | None, output: Path | None) -> None:
    """Draw a machine, and where an FSM is in it.

    As Mermaid, PlantUML, DOT, or as a picture, SVG, for which Graphviz must be installed.

    FILE_OR_CLASS is as in `fsm check`, and must hold one diagram. With --fsm it may be left out: then the FSM's machine
    is drawn as the application has it, without an application as it was announced.
    """
    form = form or _form_of(output)
    if name is None:
        if target is None:
            raise ConfigError("fsm draw", "nothing to draw: name a file, module:Class, or an FSM with --fsm NAME")
        text = _rendered(_graph_in(target), form)
    else:
        with place.client() as client:
            snapshot = client.state(name)
            graph = _graph_in(target, snapshot.machine) if target else _graph_of(snapshot, place, client)
        known = set(graph.states)
        if snapshot.state not in known:
            problem = (
                f"it is in state {snapshot.state!r}, which this diagram of {snapshot.machine!r} has not: draw the "
                "one that its workers run, with --app or FILE_OR_CLASS"
            )
            raise ConfigError(f"--fsm {name!r}", problem)
        text = _rendered(graph, form, snapshot.state, known & set(snapshot.history))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {str(output)!r}", f"cannot be written ({error.strerror}): name another") from error


def _form_of(output: Path | None) -> _Form:
    """Tell by the name of a file what is to be written into it."""
    if output is None:
        return "mermaid"
    try:
        return _FORM_OF[output.suffix.lower()]
    except KeyError:
        known = " ".join(filter(None, _FORM_OF))
        problem = f"no format is known by the suffix {output.suffix!r}: use one of {known}, or --format"
        raise ConfigError(f"--output {str(output)!r}", problem) from None


def _rendered(graph: Graph, form: _Form, current: str = "", visited: Iterable[str] = ()) -> str:
    if form == "svg":
        return svg(graph.render("dot", current=current, visited=visited))
    return graph.render(form, current=current, visited=visited)


def _graph_in(target: str, machine: str = "") -> Graph:
    """Find the one diagram of a target, or that of a machine among several.

    Raises:
        ConfigError: There are several, or it is that of another machine.
        ValidationError: It cannot be read.
    """
    found = list(_diagrams(target, is_endless=True))
    found = [one for one in found if machine and one.machine == machine] or found
    if len(found) != 1:
        names = ", ".join(one.name for one in found)
        raise ConfigError(
            repr(target), f"holds {len(found)} diagrams ({names}), and one can be drawn: name one of them"
        )
    one = found[0]
    if one.graph is None:
        raise ValidationError("", one.problems)
    if machine and one.machine not in {"", machine}:
        raise ConfigError(repr(target), f"is machine {one.machine!r}, and this FSM is one of {machine!r}: name that")
    return one.graph


def _graph_of(snapshot: Snapshot, place: Place, client: Client) -> Graph:
    """Find the machine of an FSM in the application, else as it was announced.

    Raises:
        UnknownMachineError: It is in neither.
    """
    machine = place.machines().get(snapshot.machine)
    if machine is not None:
        return machine.graph
    announced = client.machines()
    diagram = announced.get(snapshot.machine, {}).get("diagram")
    if not isinstance(diagram, str):
        raise UnknownMachineError(snapshot.machine, tuple(announced))
    return parse(diagram, endless=True)


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
        definition = machine.definition
        yield _Found(definition.name, definition.graph, machine=definition.name, definition=definition)


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


def _as_json(one: _Found, deploy: verbs.DeployCheck | None) -> dict[str, Any]:
    graph = one.graph
    if graph is None:
        return {"name": one.name, "ok": False, "problems": one.problems}
    return {
        "name": one.name,
        "ok": deploy is None or deploy.is_ok,
        "problems": [],
        "states": graph.states,
        "events": graph.events,
        "start": graph.start,
        "ends": sorted(graph.ending_states()),
        "loops": len(graph.loops(_MOST_LOOPS)),
        "fingerprint": graph.fingerprint,
        **({} if deploy is None else {"deploy": deploy.as_json()}),
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
