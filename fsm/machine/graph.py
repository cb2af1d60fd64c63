"""The graph of a machine: its states, its edges, and what one may ask of them.

Who calls this: the diagram syntaxes build it, the engine asks it for each transition, the command line shows it.
PURE: imports `fsm.errors` and its neighbours in this room only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fsm.errors import DefinitionError
from fsm.machine import paths, render
from fsm.machine.names import END

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["END", "Edge", "Format", "Graph", "Guard"]

Format: TypeAlias = Literal["mermaid", "plantuml", "dot"]


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition of an edge.

    Args:
        name: As in `@guard("name")`; `else` is the edge that is taken when no other guard held.
        negated: `[not name]`.
    """

    name: str
    negated: bool = False

    def __str__(self) -> str:
        return f"[not {self.name}]" if self.negated else f"[{self.name}]"


@dataclass(frozen=True, slots=True)
class Edge:
    """One line of the graph for one event.

    Args:
        source: State it leaves.
        event: Name without marks.
        target: State it enters, or `[*]`: the FSM ends and its state stays `source`.
        guard: Its condition, if it has one.
        mark: "", "!" hard or "?" soft.
        fails: Taken when the event has failed for good, not when it comes (`x fails`).
        after_ms: Durable timer that sends the event (`x after 24h`), in milliseconds.
        line: Line in the diagram, from 1; 0 when it came from elsewhere. Equality passes it over.
    """

    source: str
    event: str
    target: str
    guard: Guard | None = None
    mark: str = ""
    fails: bool = False
    after_ms: int | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Graph:
    """An immutable state diagram.

    Args:
        states: In order of first appearance.
        edges: In order of the text.
        start: First state.
        entry: Name of the entry event; `[*]` when the diagram gives none.
        ends: States whose entering ends the FSM.
    """

    states: tuple[str, ...]
    edges: tuple[Edge, ...]
    start: str
    entry: str = END
    ends: frozenset[str] = frozenset()
    _edges: dict[tuple[str, str], tuple[Edge, ...]] = field(init=False, repr=False, compare=False)
    _fails: dict[tuple[str, str], Edge] = field(init=False, repr=False, compare=False)
    _hard: dict[str, str] = field(init=False, repr=False, compare=False)
    _soft: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)
    _timers: dict[str, tuple[Edge, ...]] = field(init=False, repr=False, compare=False)
    _allowed: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The engine asks for each transition: each question must cost one look into a dict.
        normal = [edge for edge in self.edges if not edge.fails]
        leaving = _grouped((edge.source, edge) for edge in normal)
        tables: dict[str, Any] = {
            "_edges": _grouped(((edge.source, edge.event), edge) for edge in normal),
            "_fails": {(edge.source, edge.event): edge for edge in reversed(self.edges) if edge.fails},
            "_hard": {edge.source: edge.event for edge in reversed(normal) if edge.mark == "!"},
            "_soft": frozenset((edge.source, edge.event) for edge in normal if edge.mark == "?"),
            "_timers": _grouped((edge.source, edge) for edge in normal if edge.after_ms is not None),
            "_allowed": {
                state: tuple(dict.fromkeys(edge.event for edge in leaving.get(state, ()))) for state in self.states
            },
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table)

    @cached_property
    def events(self) -> tuple[str, ...]:
        """Events of the edges, in order of the text; an entry event is among them only if an edge bears it too."""
        return tuple(dict.fromkeys(edge.event for edge in self.edges))

    @cached_property
    def fingerprint(self) -> str:
        """8 hex digits that are the same for all texts and syntaxes that mean the same graph."""
        meaning = {
            "states": sorted(self.states),
            "edges": _meaning(self.edges),
            "start": self.start,
            "entry": self.entry,
            "ends": sorted(self.ends),
        }
        text = json.dumps(meaning, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]

    def edges_for(self, source: str, event: str) -> tuple[Edge, ...]:
        """Give the edges that the event may take from there, in order of the text; empty when there are none."""
        return self._edges.get((source, event), ())

    def fails_edge(self, source: str, event: str) -> Edge | None:
        """Give the edge that is taken when the event has failed there for good."""
        return self._fails.get((source, event))

    def hard_event(self, state: str) -> str | None:
        """Give the event that fires by itself when the state is entered."""
        return self._hard.get(state)

    @property
    def hard_events(self) -> Mapping[str, str]:
        """State -> the event that fires by itself when it is entered; not to be changed."""
        return self._hard

    def is_soft(self, source: str, event: str) -> bool:
        """Tell whether failing is no error for this event in this state."""
        return (source, event) in self._soft

    def timers_of(self, state: str) -> tuple[Edge, ...]:
        """Give the edges out of a state that a durable timer fires."""
        return self._timers.get(state, ())

    def allowed(self, state: str) -> tuple[str, ...]:
        """Give the events that may be sent in a state, in order of the text; hard ones are among them.

        Raises:
            DefinitionError: There is no such state.
        """
        try:
            return self._allowed[state]
        except KeyError:
            raise DefinitionError(self._no_state(state)) from None

    def responds(self, state: str, event: str) -> bool:
        """Tell whether the event may be sent in a state.

        Raises:
            DefinitionError: There is no such state.
        """
        return event in self.allowed(state)

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Give the ways from the start to an end that pass no state twice, each as it is asked for."""
        return paths.simple_paths(self.successors(), self.start, self.ending_states())

    def shortest_path(self, a: str, b: str) -> tuple[str, ...] | None:
        """Give a shortest way from a to b, both included.

        Returns:
            None when no way leads there.

        Raises:
            DefinitionError: There is no such state.
        """
        for state in (a, b):
            if state not in self._allowed:
                raise DefinitionError(self._no_state(state))
        return paths.shortest_path(self.successors(), a, b)

    def loops(self, limit: int = 1000) -> tuple[tuple[str, ...], ...]:
        """Give the cycles that pass no state twice, each from its first state in the order of `states`.

        Args:
            limit: At most so many: a dense graph has more cycles than anyone can count.
        """
        return paths.cycles(self.successors(), limit)

    def successors(self) -> dict[str, tuple[str, ...]]:
        """Give for each state the states that one edge leads to, `fails` edges included, each once."""
        leaving = _grouped((edge.source, edge) for edge in self.edges if edge.target != END)
        return {state: tuple(dict.fromkeys(edge.target for edge in leaving.get(state, ()))) for state in self.states}

    def ending_states(self) -> frozenset[str]:
        """Give the states in which an FSM can be when it ends."""
        return self.ends | {edge.source for edge in self.edges if edge.target == END}

    def render(
        self,
        format: Format = "mermaid",  # noqa: A002 - the word of the command line too: `--format`
        *,
        current: str = "",
        visited: Iterable[str] = (),
    ) -> str:
        """Write the graph as a diagram; `parse` reads the same graph from Mermaid and PlantUML.

        Args:
            format: The syntax.
            current: State that is to stand out, as that of one FSM; "" for none.
            visited: States that are to stand out a little.

        Raises:
            DefinitionError: There is no such format, or no such state.
        """
        try:
            writer = render.WRITERS[format]
        except KeyError:
            known = ", ".join(render.WRITERS)
            raise DefinitionError(f"unknown format {format!r} for a diagram: use one of {known}") from None
        marks = render.Marks(current, frozenset(visited))
        for state in sorted(marks.visited | ({current} if current else set())):
            if state not in self._allowed:
                raise DefinitionError(self._no_state(state))
        return writer(self, marks)

    def __format__(self, spec: str) -> str:
        # `format(graph, "mermaid")`, and in f-strings; an empty spec means what it means for any object.
        return self.render(spec) if spec else str(self)  # type: ignore[arg-type]  # `render` refuses other words

    def _no_state(self, state: str) -> str:
        return f"no state {state!r} in this diagram: its states are {', '.join(self.states)}"


def _grouped(pairs: Iterable[tuple[Any, Edge]]) -> dict[Any, tuple[Edge, ...]]:
    groups: dict[Any, list[Edge]] = {}
    for key, edge in pairs:
        groups.setdefault(key, []).append(edge)
    return {key: tuple(edges) for key, edges in groups.items()}


def _meaning(edges: tuple[Edge, ...]) -> list[list[Any]]:
    """Order edges by what they mean: the order of the text counts only where guards are tried one after the other."""
    rows = []
    for (source, event, fails), group in sorted(
        _grouped(((edge.source, edge.event, edge.fails), edge) for edge in edges).items()
    ):
        tail = [
            [
                edge.target,
                str(edge.guard) if edge.guard else "",
                edge.mark,
                -1 if edge.after_ms is None else edge.after_ms,
            ]
            for edge in group
        ]
        if not any(edge.guard for edge in group):
            tail.sort()
        rows += [[source, event, fails, *row] for row in tail]
    return rows
