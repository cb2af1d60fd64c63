"""Graphs written as diagrams: Mermaid, PlantUML and DOT.

Who calls this: `Graph.render`. PURE. What is written in Mermaid and PlantUML, `parse` reads as the same graph, with
marks or without.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsm.machine.durations import duration_text
from fsm.machine.names import END, can_stand_bare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsm.machine.graph import Edge, Graph

__all__ = ["WRITERS", "Marks", "label_text"]

# Amber, and much of white in it: both carry black letters, on a light page and on a dark one.
_CURRENT, _VISITED = "#ffca28", "#fff3c4"
# What Mermaid takes for a state in a line `class a,b name`.
_CLASSED = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Marks:
    """What is to be seen of one FSM in the picture of its machine.

    Args:
        current: The state in which it is; "" for none.
        visited: States in which it was.
    """

    current: str = ""
    visited: frozenset[str] = frozenset()

    def colour(self, state: str) -> str:
        """Give the colour of a state, "" when it bears no mark."""
        if state == self.current:
            return _CURRENT
        return _VISITED if state in self.visited else ""


def label_text(edge: Edge) -> str:
    """Write the label of an edge such that it is read back as it is."""
    if edge.fails:
        return f"{edge.event} fails"
    guard = f" {edge.guard}" if edge.guard else ""
    after = "" if edge.after_ms is None else f" after {duration_text(edge.after_ms)}"
    return f"{edge.event}{edge.mark}{guard}{after}"


def _mermaid(graph: Graph, marks: Marks) -> str:
    ids = _ids(graph, lambda state: bool(_CLASSED.fullmatch(state) or not marks.colour(state)))
    lines = [_declaration(state, ids) for state in graph.states[: _declared(graph, ids)]]
    lines += _edges(graph, ids)
    if marks.current:
        lines.append(f"classDef current fill:{_CURRENT},stroke:#b26a00,stroke-width:3px,color:#000")
        lines.append(f"class {ids[marks.current]} current")
    if visited := [ids[state] for state in graph.states if marks.colour(state) == _VISITED]:
        lines.append(f"classDef visited fill:{_VISITED},color:#000")
        lines.append(f"class {','.join(visited)} visited")
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in lines), ""])


def _plantuml(graph: Graph, marks: Marks) -> str:
    ids = _ids(graph)
    # A colour stands in a declaration.
    least = max((place + 1 for place, state in enumerate(graph.states) if marks.colour(state)), default=0)
    lines = [
        _declaration(state, ids) + (f" {colour}" if (colour := marks.colour(state)) else "")
        for state in graph.states[: _declared(graph, ids, least)]
    ]
    return "\n".join(["@startuml", *lines, *_edges(graph, ids), "@enduml", ""])


def _dot(graph: Graph, marks: Marks) -> str:
    lines = [
        "digraph {",
        "    rankdir=LR",
        '    "[*]" [shape=point label=""]',
        '    "[*] end" [shape=doublecircle label="" width=0.15]',
        *(f"    {_quoted(state)} [{_node(state, marks)}]" for state in graph.states),
    ]
    entry = "" if graph.entry == END else f" [label={_label(graph.entry)}]"
    lines.append(f'    "[*]" -> {_quoted(graph.start)}{entry}')
    for edge in graph.edges:
        target = '"[*] end"' if edge.target == END else _quoted(edge.target)
        lines.append(f"    {_quoted(edge.source)} -> {target} [label={_label(label_text(edge))}]")
    lines += [f'    {_quoted(state)} -> "[*] end"' for state in graph.states if state in graph.ends]
    return "\n".join([*lines, "}", ""])


WRITERS: Mapping[str, Callable[[Graph, Marks], str]] = {"mermaid": _mermaid, "plantuml": _plantuml, "dot": _dot}


def _declaration(state: str, ids: Mapping[str, str]) -> str:
    return f"state {state}" if ids[state] == state else f'state "{state}" as {ids[state]}'


def _edges(graph: Graph, ids: Mapping[str, str]) -> list[str]:
    """Write what Mermaid and PlantUML have in common: start, edges, ends."""
    lines = [f"[*] --> {ids[graph.start]}" + ("" if graph.entry == END else f" : {graph.entry}")]
    lines += [f"{ids[edge.source]} --> {ids.get(edge.target, END)} : {label_text(edge)}" for edge in graph.edges]
    lines += [f"{ids[state]} --> [*]" for state in graph.states if state in graph.ends]
    return lines


def _declared(graph: Graph, ids: Mapping[str, str], least: int = 0) -> int:
    """Give how many states must be declared at the top.

    Those with an alias, what keeps the order of states, and `least`.
    """
    named = [graph.start]
    for edge in graph.edges:
        named += [edge.source] if edge.target == END else [edge.source, edge.target]
    named += [state for state in graph.states if state in graph.ends]
    least = max([least, *(place + 1 for place, state in enumerate(graph.states) if ids[state] != state)])
    return next(
        count
        for count in range(least, len(graph.states) + 1)
        if tuple(dict.fromkeys([*graph.states[:count], *named])) == graph.states
    )


def _ids(graph: Graph, is_good: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
    """Give the id of each state: its name where all syntaxes can carry it and `is_good` holds of it, else a number."""
    taken = set(graph.states)
    ids = {}
    number = 0
    for state in graph.states:
        ids[state] = state
        if not (can_stand_bare(state) and is_good(state)):
            number += 1
            while f"s{number}" in taken:
                number += 1
            ids[state] = f"s{number}"
    return ids


def _node(state: str, marks: Marks) -> str:
    """Write the attributes of a state in DOT."""
    # The id serves as label where it means the same in both places.
    label = "" if f'"{state}"' == _label(state) else f" label={_label(state)}"
    colour = marks.colour(state)
    if not colour:
        return f"shape=box style=rounded{label}"
    width = " penwidth=3" if colour == _CURRENT else ""
    return f'shape=box style="rounded,filled" fillcolor="{colour}"{width}{label}'


def _quoted(text: str) -> str:
    """Write an id in DOT: nothing in it is special but a quote, and a backslash before one."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(text: str) -> str:
    """Write a label in DOT, in which `&` begins an entity as in HTML."""
    return _quoted(text).replace("&", "&amp;").replace("\n", "\\n")
