"""From the text of a diagram to its graph: which syntax it is, what it says, and everything that is wrong with it.

Who calls this: machines when they are defined, `fsm check` and `fsm draw`. PURE.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fsm.errors import DiagramError, ValidationError
from fsm.machine.draft import Draft, Fault
from fsm.machine.mermaid import HEADER as STATE_DIAGRAM
from fsm.machine.mermaid import read_mermaid
from fsm.machine.ornaments import next_statement
from fsm.machine.validate import check

if TYPE_CHECKING:
    from fsm.errors import DefinitionError
    from fsm.machine.graph import Graph

__all__ = ["error_of", "examine", "parse"]

_REMEDY = "begin with `stateDiagram-v2`, `flowchart TD` or `@startuml`"


def parse(text: str, *, endless: bool = False) -> Graph:
    """Read a diagram and check it.

    Args:
        text: Mermaid `stateDiagram`, `stateDiagram-v2`, `graph` or `flowchart`, or a PlantUML state diagram.
        endless: States from which no end can be reached are allowed.

    Raises:
        DiagramError: The text has one fault, and cannot be read for it.
        ValidationError: It has several faults, or one that is no matter of syntax; all are named, each with its line.
    """
    graph, faults = examine(text, endless=endless)
    if graph is None or faults:
        raise error_of(faults)
    return graph


def examine(text: str, *, endless: bool = False) -> tuple[Graph | None, tuple[Fault, ...]]:
    """Read a diagram and check it, and give all faults instead of raising.

    Returns:
        The graph, None when the text cannot be read, and the faults in order of their lines.

    Raises:
        DiagramError: It is no text at all.
    """
    if not isinstance(text, str):
        raise DiagramError(f"a diagram is text, not {type(text).__name__}: {_REMEDY}")
    draft = Draft(text)
    _read(draft)
    draft.settle()
    is_readable = not draft.faults
    check(draft, endless=endless)
    faults = tuple(sorted(draft.faults, key=lambda fault: (fault.line, fault.column)))
    return (draft.graph() if is_readable else None), faults


def error_of(faults: tuple[Fault, ...], machine: str = "", others: tuple[str, ...] = ()) -> DefinitionError:
    """Make the error that tells all faults.

    Args:
        faults: Those of the diagram.
        machine: Name of the machine, "" for a bare diagram.
        others: Faults of decorators and settings, one sentence each.
    """
    if len(faults) == 1 and not others and faults[0].is_syntax:
        fault = faults[0]
        return DiagramError(f"{fault.what}: {fault.remedy}", fault.line, fault.column, fault.text)
    return ValidationError(machine, (*map(str, faults), *others))


def _read(draft: Draft) -> None:
    at = next_statement(draft, 0)
    if draft.is_blind:
        return
    if at < len(draft.lines):
        line = draft.lines[at].strip()
        if STATE_DIAGRAM.fullmatch(line):
            read_mermaid(draft, at + 1)
            return
        # Their patterns take some ms to compile, and hardly an application has diagrams of all three.
        from fsm.machine.flowchart import HEADER as FLOWCHART  # noqa: PLC0415 - as said above
        from fsm.machine.flowchart import read_flowchart  # noqa: PLC0415 - as above

        if FLOWCHART.match(line):
            read_flowchart(draft, at)
            return
        from fsm.machine.plantuml import HEADER as PLANTUML  # noqa: PLC0415 - as above
        from fsm.machine.plantuml import first_statement, read_plantuml  # noqa: PLC0415 - as above

        at = first_statement(draft, at)
        if at < len(draft.lines) and PLANTUML.match(draft.lines[at].strip()):
            read_plantuml(draft, at + 1)
            return
    if at >= len(draft.lines):
        draft.blind(1, "the diagram is empty", f"{_REMEDY}, and write a line `[*] --> state`")
        return
    line = draft.lines[at].strip()
    if found := re.match(r"stateDiagram(?:-v2)?\b", line):
        rest = line[found.end() :].strip()
        draft.blind(at + 1, f"{rest!r} stands behind the header", "begin a new line behind `stateDiagram-v2`", rest)
        return
    draft.blind(at + 1, "the diagram does not begin with the name of a syntax that we read", _REMEDY)
