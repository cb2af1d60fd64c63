"""A machine made ready to run: its methods looked up once per worker process, not once per event.

Who calls this: the app builds one `Behaviour` per machine, the step reads it. PURE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.engine.around import is_async_context
from fsm.engine.timers import lengths
from fsm.machine.names import END

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.engine.around import Around
    from fsm.machine import Codec, Definition, Edge, Machine

__all__ = ["Behaviour", "Straight"]


@dataclass(frozen=True, slots=True)
class Straight:
    """An event that leads from its state to one other, with nothing of the user's on the way but a handler.

    Args:
        target: Where it leads.
        edges: The one edge.
        method: The handler, if there is one.
        data: The codec of the event's data, where the handler declares their type.
    """

    target: str
    edges: tuple[Edge, ...]
    method: Callable[..., Any] | None
    data: Codec | None


class Behaviour:
    """One frozen instance of a machine with its handlers, guards and hooks bound.

    Args:
        machine: The instance; services came in by its constructor. It is frozen here.
        around: The application's context of each transition, if it has one.
    """

    __slots__ = (
        "around", "definition", "enter", "graph", "guards", "handlers", "hard", "hooks", "is_around_async", "is_async",
        "leave", "machine", "name", "settings", "straight", "timers",
    )  # fmt: skip

    def __init__(self, machine: Machine[Any], around: Around | None = None) -> None:
        definition: Definition = type(machine).definition
        machine.freeze()
        self.machine = machine
        self.definition = definition
        self.name = definition.name
        self.settings = definition.settings
        self.graph = definition.graph
        self.hard = definition.graph.hard_events
        self.around = around
        self.is_around_async = around is not None and is_async_context(around)
        self.is_async = definition.has_async or self.is_around_async
        self.hooks: dict[str, Callable[..., Any]] = {name: getattr(machine, name) for name in definition.hooks}
        self.guards: dict[str, Callable[..., Any]] = {
            name: getattr(machine, method) for name, method in definition.guards.items()
        }
        catch_all = self.hooks.get("on_transition")
        self.handlers: dict[tuple[str, str], tuple[Callable[..., Any], Codec | None]] = {}
        if catch_all:
            self.handlers = {(edge.source, edge.event): (catch_all, None) for edge in self.graph.edges}
        for key, handler in definition.handlers.items():
            self.handlers[key] = (getattr(machine, handler.method), handler.data)
        self.enter = {state: self._bound(definition.enter, state, "on_enter") for state in self.graph.states}
        self.leave = {state: self._bound(definition.leave, state, "on_leave") for state in self.graph.states}
        self.straight = dict(self._straight())
        # State -> what its diagram arms there, as key and length in ms; nothing of most states.
        armed = {state: lengths(self.graph, state) for state in self.graph.states}
        self.timers = {state: timers for state, timers in armed.items() if timers}

    def _straight(self) -> Iterator[tuple[tuple[str, str], Straight]]:
        """Find by (state, event) what the step may take straight: no guard, no hook, no end, no context around it."""
        if self.around is not None:
            return
        for key in {(edge.source, edge.event) for edge in self.graph.edges}:
            edges = self.graph.edges_for(*key)
            if len(edges) != 1 or edges[0].guard or edges[0].target == END or edges[0].target in self.graph.ends:
                continue
            if not self.leave[key[0]] and not self.enter[edges[0].target]:
                yield key, Straight(edges[0].target, edges, *self.handlers.get(key, (None, None)))

    def _bound(self, decorated: Any, state: str, every: str) -> tuple[Callable[..., Any], ...]:
        """Give the hooks of one state: those decorated for it, then the one for every state."""
        methods = [getattr(self.machine, method) for method in decorated.get(state, ())]
        if every in self.hooks:
            methods.append(self.hooks[every])
        return tuple(methods)
