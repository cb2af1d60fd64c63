"""What must be known of a machine to start an FSM of it: out of its class, or out of what its workers announced.

A sender that has the class has a `Definition`; one that has only the machine's name reads what workers wrote into
`fsm:<ns>:machines`. Both make the same blueprint, and `calls` lays it out for the scripts.

Who calls this: `calls`, `commits`, and the plans that start and announce.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine.timers import TICK, lengths
from fsm.errors import DefinitionError, StoreError
from fsm.machine import END, did_you_mean, mark_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.machine import Definition

__all__ = ["Blueprint"]

# RQ's clock for a job runs while the process that a stock worker makes for it imports the application: with the second
# of a short handler it may never come to its end. `workers.jobs` stops that clock, and gives each event its own.
_LEAST_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A machine without its handlers.

    Args:
        name: Its name.
        start: State in which its FSMs begin.
        entry: Name of the entry event.
        queue: RQ queue of its transitions.
        fingerprint: Of its graph.
        definition_version: Of its payloads.
        max_mailbox: Most events that may wait for one FSM.
        payload_limit: Largest payload, in bytes.
        timeout: Of a job, in whole seconds as RQ wants them; a minute at least, however little its handlers have.
        result_ttl: Of a job, likewise.
        states: All of them.
        ends: Those that end the FSM.
        hard: State -> the event that fires by itself there.
        timers: State -> the timers that the diagram arms there, each as key and length in ms.
        tick_ms: Between two calls of `on_timer`; `None` where there are none.
        payload: What an FSM begins with if nobody gives it one, as JSON; `None` where that is not known here.
        placement: Whether the "ring" says on which host its FSMs are run, or "any" worker takes them.
    """

    name: str
    start: str
    entry: str
    queue: str
    fingerprint: str
    definition_version: int
    max_mailbox: int
    payload_limit: int
    timeout: int
    result_ttl: int
    states: tuple[str, ...]
    ends: frozenset[str]
    hard: Mapping[str, str] = field(default_factory=dict)
    payload: bytes | None = None
    timers: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    tick_ms: int | None = None
    placement: str = "any"

    @classmethod
    def of(cls, definition: Definition, default_queue: str) -> Blueprint:
        """Make it out of a class's definition; what its FSMs begin with the class itself knows."""
        graph, settings = definition.graph, definition.settings
        return cls(
            definition.name,
            graph.start,
            graph.entry,
            settings.queue or default_queue,
            definition.fingerprint,
            settings.definition_version,
            settings.max_mailbox,
            settings.payload_limit,
            max(_LEAST_TIMEOUT_S, math.ceil(settings.longest_timeout_ms / 1000)),
            math.ceil(settings.result_ttl_ms / 1000),
            graph.states,
            graph.ends,
            graph.hard_events,
            timers={state: own for state in graph.states if (own := lengths(graph, state))},
            tick_ms=settings.timer_ms,
            placement=settings.placement,
        )

    @classmethod
    def announced(cls, name: str, about: Any) -> Blueprint:
        """Make it out of what was announced.

        Raises:
            StoreError: That was edited by hand, or written by a version of ours that said less.
        """
        try:
            return cls(
                name,
                str(about["start"]),
                str(about["entry"]),
                str(about["queue"]),
                str(about["fingerprint"]),
                int(about["definition_version"]),
                int(about["max_mailbox"]),
                int(about["payload_limit"]),
                int(about["timeout"]),
                int(about["result_ttl"]),
                tuple(map(str, about["states"])),
                frozenset(map(str, about["ends"])),
                {str(state): str(event) for state, event in about["hard"].items()},
                orjson.dumps(about["payload"]) if "payload" in about else None,
                {
                    str(state): tuple((str(key), int(after_ms)) for key, after_ms in own)
                    for state, own in about.get("timers", {}).items()
                },
                int(about["tick_ms"]) if "tick_ms" in about else None,
                str(about.get("placement", "any")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = (
                f"what was announced of machine {name!r} cannot be read ({type(error).__name__}: {error}): "
                "start a worker that knows it, which announces it anew, or pass the class"
            )
            raise StoreError(problem) from error

    def announcement(self) -> dict[str, Any]:
        """Give what `announced` reads, JSON-ready."""
        about: dict[str, Any] = {
            "start": self.start,
            "entry": self.entry,
            "queue": self.queue,
            "fingerprint": self.fingerprint,
            "definition_version": self.definition_version,
            "max_mailbox": self.max_mailbox,
            "payload_limit": self.payload_limit,
            "timeout": self.timeout,
            "result_ttl": self.result_ttl,
            "states": self.states,
            "ends": sorted(self.ends),
            "hard": dict(self.hard),
            "placement": self.placement,
        }
        if self.timers:
            about["timers"] = dict(self.timers)
        if self.tick_ms is not None:
            about["tick_ms"] = self.tick_ms
        if self.payload is not None:
            about["payload"] = orjson.Fragment(self.payload)
        return about

    def arguments(self) -> list[Any]:
        """Give the eight arguments by which `start`, `send` and a start inside a commit know the machine."""
        return [
            self.name,
            self.start,
            self.entry,
            self.queue,
            # That of an FSM whose payload lies in Redis, as that of a new one does until its first commit.
            mark_of(self.fingerprint, self.definition_version),
            self.max_mailbox,
            self.timeout,
            self.result_ttl,
        ]

    def armed_in(self, state: str) -> list[tuple[str, int]]:
        """Give the timers that an FSM has that is adopted in this state, each as key and length in ms."""
        tick = [] if self.tick_ms is None else [(TICK, self.tick_ms)]
        return [*self.timers.get(state, ()), *tick]

    def check_adoptable(self, state: str) -> None:
        """Check that an FSM may be adopted in this state: one of the graph, in which it is alive.

        Raises:
            DefinitionError: It is none of this machine's, or ends the FSM.
        """
        living = tuple(one for one in self.states if one not in self.ends)
        if state == END or state in self.ends:
            problem = (
                f"FSMs of machine {self.name!r} end in {state!r}: one that is adopted is alive, in {_listed(living)}"
            )
            raise DefinitionError(problem)
        self.check_state(state)

    def check_state(self, state: Any) -> None:
        """Check that this is a state of the machine.

        Raises:
            DefinitionError: It is not; the text says which may have been meant.
        """
        if state not in self.states:
            hint = did_you_mean(str(state), self.states)
            raise DefinitionError(
                f"no state {state!r} in machine {self.name!r}{hint}; its states: {_listed(self.states)}"
            )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
