"""Which edge a step walked: for that one must know which guards held, and a decision does not tell.

Who calls this: the trial, whose behaviour is its own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fsm.machine import END

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.engine import Behaviour, Decision, Transition
    from fsm.machine import Edge

__all__ = ["Walk"]


class Walk:
    """Listens to the guards of a behaviour, and tells edges from what they said.

    Args:
        behaviour: Its guards are wrapped.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._held: dict[tuple[str, str], bool] = {}
        behaviour.guards = {name: self._listening(name, guard) for name, guard in behaviour.guards.items()}

    def _listening(self, name: str, guard: Callable[..., Any]) -> Callable[..., Any]:
        def listening(t: Transition[Any]) -> Any:
            answer = guard(t)
            if inspect.isawaitable(answer) and self._behaviour.is_async:
                return self._later(t.job_id, name, answer)
            self._held[t.job_id, name] = bool(answer)
            return answer

        # A guard that is no guard is told by its name.
        listening.__name__ = getattr(guard, "__name__", name)
        return listening

    async def _later(self, job_id: str, name: str, answer: Any) -> Any:
        held = await answer
        self._held[job_id, name] = bool(held)
        return held

    def forget(self) -> None:
        """Forget what guards said so far."""
        self._held.clear()

    def edge_of(self, decision: Decision) -> Edge | None:
        """Tell which edge a decision walked; `None` where it stayed, was refused, or failed without a `fails` edge."""
        graph, event = self._behaviour.graph, decision.event
        if decision.kind == "failed":
            return graph.fails_edge(decision.source, event.name) if decision.entered else None
        if decision.kind != "done" or not (decision.entered or decision.ending):
            return None
        target = decision.state if decision.entered else END
        edges = [edge for edge in graph.edges_for(decision.source, event.name) if edge.target == target]
        for edge in edges:
            # Guards are asked in the order of the text, up to the first that holds.
            if edge.guard and self._held.get((event.job_id, edge.guard.name), edge.guard.negated) != edge.guard.negated:
                return edge
        return next((edge for edge in edges if edge.guard is None or edge.guard.name == "else"), None)
