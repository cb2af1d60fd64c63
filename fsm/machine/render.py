"""Graphs written as diagrams: Mermaid, PlantUML and DOT.

Who calls this: `Graph.render`. PURE. What is written in Mermaid and PlantUML, `parse` reads as the same graph.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fsm.machine.durations import duration_text
from fsm.machine.names import END, can_stand_bare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsm.machine.graph import Edge, Graph

__all__ = ["WRITERS", "label_text"]


def label_text(edge: Edge) -> str:
    """Write the label of an edge such that it is read back as it is."""
    if edge.fails:
        return f"{edge.event} fails"
    guard = f" {edge.guard}" if edge.guard else ""
    after = "" if edge.after_ms is None else f" after {duration_text(edge.after_ms)}"
    return f"{edge.event}{edge.mark}{guard}{after}"


def _mermaid(graph: Graph) -> str:
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _statements(graph)), ""])


def _plantuml(graph: Graph) -> str:
    return "\n".join(["@startuml", *_statements(graph), "@enduml", ""])


def _dot(graph: Graph) -> str:
    lines = [
        "digraph {",
        "    rankdir=LR",
        '    "[*]" [shape=point label=""]',
        '    "[*] end" [shape=doublecircle label="" width=0.15]',
        *(f"    {_quoted(state)} [shape=box style=rounded]" for state in graph.states),
    ]
    entry = "" if graph.entry == END else f" [label={_quoted(graph.entry)}]"
    lines.append(f'    "[*]" -> {_quoted(graph.start)}{entry}')
    for edge in graph.edges:
        target = '"[*] end"' if edge.target == END else _quoted(edge.target)
        lines.append(f"    {_quoted(edge.source)} -> {target} [label={_quoted(label_text(edge))}]")
    lines += [f'    {_quoted(state)} -> "[*] end"' for state in graph.states if state in graph.ends]
    return "\n".join([*lines, "}", ""])


WRITERS: Mapping[str, Callable[[Graph], str]] = {"mermaid": _mermaid, "plantuml": _plantuml, "dot": _dot}


def _statements(graph: Graph) -> list[str]:
    """Write what Mermaid and PlantUML have in common: declarations, then start, edges, ends."""
    ids = _ids(graph)
    lines = [
        f"state {ids[state]}" if ids[state] == state else f'state "{state}" as {ids[state]}'
        for state in graph.states[: _declared(graph, ids)]
    ]
    lines.append(f"[*] --> {ids[graph.start]}" + ("" if graph.entry == END else f" : {graph.entry}"))
    lines += [f"{ids[edge.source]} --> {ids.get(edge.target, END)} : {label_text(edge)}" for edge in graph.edges]
    lines += [f"{ids[state]} --> [*]" for state in graph.states if state in graph.ends]
    return lines


def _declared(graph: Graph, ids: Mapping[str, str]) -> int:
    """Give how many states must be declared at the top: those with an alias, and what keeps the order of states."""
    named = [graph.start]
    for edge in graph.edges:
        named += [edge.source] if edge.target == END else [edge.source, edge.target]
    named += [state for state in graph.states if state in graph.ends]
    least = max((place + 1 for place, state in enumerate(graph.states) if ids[state] != state), default=0)
    return next(
        count
        for count in range(least, len(graph.states) + 1)
        if tuple(dict.fromkeys([*graph.states[:count], *named])) == graph.states
    )


def _ids(graph: Graph) -> dict[str, str]:
    taken = set(graph.states)
    ids = {}
    number = 0
    for state in graph.states:
        ids[state] = state
        if not can_stand_bare(state):
            number += 1
            while f"s{number}" in taken:
                number += 1
            ids[state] = f"s{number}"
    return ids


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
