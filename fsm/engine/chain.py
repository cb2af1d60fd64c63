"""An event and what follows from it by itself: the hard events of the states that it leads to.

Who calls this: the activation in a worker and the test kit. PURE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fsm.engine.life import Event
from fsm.engine.mail import derived_id
from fsm.engine.step import give_up, step
from fsm.engine.timers import advance

if TYPE_CHECKING:
    from fsm.engine.behaviour import Behaviour
    from fsm.engine.life import Decision, Life

__all__ = ["LONGEST_CHAIN", "break_circle", "follow_up", "run_chain"]

# The checks refuse a cycle of hard events whose targets are certain; `Goto` among several targets can still build one.
LONGEST_CHAIN = 100
# A handler may answer `Retry` without end, for it waits for something that here never comes.
_MOST_ATTEMPTS = 1000


def follow_up(behaviour: Behaviour, life: Life, decision: Decision) -> Event | None:
    """Give the hard event that a decision owes, or `None`: a job of its own, with an id derived from its cause."""
    if not decision.entered or decision.ending:
        return None
    name = behaviour.hard.get(life.state)
    return Event(derived_id(decision.event.job_id, "h1"), name) if name else None


async def run_chain(behaviour: Behaviour, life: Life, event: Event) -> list[Decision]:
    """Apply an event, then the hard events that follow, each with a decision and a job of its own.

    Nobody waits here: what is to be tried again, is so at once.

    Returns:
        At least one decision, one for each attempt. The hard event beyond the hundredth is not run: it fails.
    """
    decisions = await _attempts(behaviour, life, event)
    life.timers = advance(life.timers, decisions[-1], behaviour, life.now_ms)
    follower = follow_up(behaviour, life, decisions[-1])
    while follower:
        over = sum(decision.kind != "retry" for decision in decisions) - 1 - LONGEST_CHAIN
        if over < 0:
            decisions += await _attempts(behaviour, life, follower)
        else:
            decisions.append(await break_circle(behaviour, life, follower, over))
        life.timers = advance(life.timers, decisions[-1], behaviour, life.now_ms)
        follower = follow_up(behaviour, life, decisions[-1])
    return decisions


async def _attempts(behaviour: Behaviour, life: Life, event: Event) -> list[Decision]:
    """Apply one event, again and again until it ends."""
    decisions = [await step(behaviour, life, event)]
    while decisions[-1].kind == "retry":
        event = msgspec.structs.replace(event, attempt=event.attempt + 1)
        if event.attempt > _MOST_ATTEMPTS:
            why = f"it was tried {_MOST_ATTEMPTS} times, and nobody waits here: does its handler wait for something?"
            decisions.append(await give_up(behaviour, life, event, why))
        else:
            decisions.append(await step(behaviour, life, event))
    return decisions


async def break_circle(behaviour: Behaviour, life: Life, event: Event, over: int) -> Decision:
    """Fail a hard event that is one too many.

    Args:
        behaviour: The machine.
        life: The FSM.
        event: The hard event, which is not run.
        over: 0 for the first one too many, which may still take its `fails` edge; more where that led on in the circle.
    """
    why = f"more than {LONGEST_CHAIN} hard events in a row: the handlers lead in a circle, let one of them lead out"
    return await give_up(behaviour, life, event, why, final=over > 0)
