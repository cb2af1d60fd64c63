"""Checks of what a diagram says: all of them, each fault with line, text and remedy.

Who calls this: `parse`, with a draft whose ids are settled. PURE. What needs the methods of a machine as well, such as
several targets without a handler, is checked where the machine is defined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsm.machine import paths
from fsm.machine.names import END

if TYPE_CHECKING:
    from fsm.machine.draft import Draft
    from fsm.machine.graph import Edge

__all__ = ["check"]


def check(draft: Draft, *, endless: bool) -> None:
    """Add to the draft the faults of what it says.

    Args:
        draft: Read and settled.
        endless: States from which no end can be reached are allowed.
    """
    by_state = _by_state(draft.edges)
    _check_starts(draft)
    _check_duplicates(draft)
    for state, edges in by_state.items():
        _check_dead_ends(draft, state, edges)
        _check_hard(draft, state, edges)
        _check_guards(draft, edges)
        _check_fails(draft, state, edges)
        _check_timers(draft, state, edges)
    _check_hard_cycles(draft, by_state)
    # What is missing may stand in a line that could not be read.
    if not draft.is_blind:
        _check_ways(draft, endless=endless)


def _by_state(edges: list[Edge]) -> dict[str, list[Edge]]:
    groups: dict[str, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(edge.source, []).append(edge)
    return groups


def _by_event(edges: list[Edge]) -> dict[str, list[Edge]]:
    groups: dict[str, list[Edge]] = {}
    for edge in edges:
        if not edge.fails:
            groups.setdefault(edge.event, []).append(edge)
    return groups


def _check_starts(draft: Draft) -> None:
    for start in draft.starts[1:]:
        problem = f"several starts: line {draft.starts[0].line} has one too"
        remedy = "keep one; where to go from there can be decided by an event of the first state"
        draft.fault(start.line, problem, remedy, is_syntax=False)


def _check_duplicates(draft: Draft) -> None:
    seen: dict[object, int] = {}
    for edge in draft.edges:
        key = (edge.source, edge.event, edge.target, edge.guard, edge.fails)
        if key in seen:
            same = f"from {edge.source!r} to {edge.target!r} by {edge.event!r}"
            problem = f"duplicate edge: line {seen[key]} leads {same} too"
            draft.fault(edge.line, problem, "take one of them away", is_syntax=False)
        seen.setdefault(key, edge.line)
    ended: dict[str, int] = {}
    for state, line in draft.ends:
        if state in ended:
            problem = f"duplicate edge: line {ended[state]} ends in {state!r} too"
            draft.fault(line, problem, "take one of them away", is_syntax=False)
        ended.setdefault(state, line)


def _check_dead_ends(draft: Draft, state: str, edges: list[Edge]) -> None:
    """Refuse edges out of a state whose entering ends the FSM: nobody can ever take them."""
    line = next((line for ended, line in draft.ends if ended == state), None)
    if line is not None:
        for edge in edges:
            problem = f"this edge can never be taken: entering {state!r} ends the FSM, by line {line}"
            remedy = f"give the edge of line {line} an event, `{state} --> [*] : EVENT`, or take this one away"
            draft.fault(edge.line, problem, remedy, is_syntax=False)


def _check_hard(draft: Draft, state: str, edges: list[Edge]) -> None:
    hard = next((edge for edge in edges if edge.mark == "!"), None)
    if hard is None:
        return
    for edge in edges:
        if edge.event != hard.event:
            problem = f"the hard event {hard.event!r} of line {hard.line} is not the only way out of {state!r}"
            remedy = f"take the `!` away, or leave beside it only `{hard.event} fails`"
            draft.fault(edge.line, problem, remedy, is_syntax=False)
        elif edge.mark == "?" and not edge.fails:
            problem = f"the event {edge.event!r} is hard in line {hard.line} and soft here"
            draft.fault(edge.line, problem, "give it one mark in each state", is_syntax=False)


def _check_guards(draft: Draft, edges: list[Edge]) -> None:
    for event, group in _by_event(edges).items():
        seen: dict[object, int] = {}
        other: int | None = None
        for edge in group:
            if other is not None:
                problem = f"[else] of line {other} is not the last edge of {event!r} in {edge.source!r}"
                draft.fault(edge.line, problem, "write the edge with [else] behind all others", is_syntax=False)
            elif edge.guard in seen and edge.guard is not None:
                problem = f"this edge can never be taken: line {seen[edge.guard]} has the same guard {edge.guard}"
                # Two edges that are alike in their target as well are reported as duplicates.
                if not any(one.target == edge.target and one.guard == edge.guard for one in group if one is not edge):
                    draft.fault(edge.line, problem, "give it another guard, or take it away", is_syntax=False)
            seen.setdefault(edge.guard, edge.line)
            if edge.guard and edge.guard.name == "else":
                other = edge.line
                if None in seen:
                    problem = f"[else] can never be taken: line {seen[None]} has no guard"
                    draft.fault(edge.line, problem, "give that edge a guard, or take this one away", is_syntax=False)


def _check_fails(draft: Draft, state: str, edges: list[Edge]) -> None:
    events = _by_event(edges)
    is_sure = not draft.is_blind and not any(source == state for source, _ in draft.links)
    seen: dict[str, Edge] = {}
    for edge in edges:
        if not edge.fails:
            continue
        if is_sure and edge.event not in events:
            problem = f"{edge.event!r} cannot fail in {state!r}: no edge there takes it"
            remedy = f"write `{state} --> … : {edge.event}` as well, or take this edge away"
            draft.fault(edge.line, problem, remedy, is_syntax=False)
        first = seen.setdefault(edge.event, edge)
        if first.target != edge.target:
            problem = f"the failure of {edge.event!r} in {state!r} leads elsewhere in line {first.line}"
            draft.fault(edge.line, problem, "keep one of them", is_syntax=False)


def _check_timers(draft: Draft, state: str, edges: list[Edge]) -> None:
    """Refuse two timers of one event: whichever came first would find the guards of the other as well."""
    for event, group in _by_event(edges).items():
        timed = [edge for edge in group if edge.after_ms is not None]
        for edge in timed:
            first = timed[0]
            if edge.after_ms != first.after_ms:
                problem = f"the timer of {event!r} in {state!r} takes another time in line {first.line}"
                draft.fault(edge.line, problem, "give it one time, or use two events", is_syntax=False)


def _check_hard_cycles(draft: Draft, by_state: dict[str, list[Edge]]) -> None:
    """Refuse circles of hard events that nothing can leave.

    Only events with a single target count: where there are several, a guard or the handler may lead out of the circle.
    """
    following: dict[str, Edge] = {}
    for state, edges in by_state.items():
        hard = [edge for edge in edges if edge.mark == "!" and not edge.fails]
        event = hard[0].event if hard else ""
        targets = {edge.target for edge in edges if edge.event == event and not edge.fails}
        if len(targets) == 1 and END not in targets:
            following[state] = hard[0]
    seen: set[str] = set()
    for state in following:
        trail: list[str] = []
        here = state
        while here in following and here not in seen:
            seen.add(here)
            trail.append(here)
            here = following[here].target
        if here in trail:
            cycle = trail[trail.index(here) :]
            problem = f"hard events go round for ever: {' --> '.join((*cycle, here))}"
            draft.fault(following[here].line, problem, "take the `!` away from one of them", is_syntax=False)


def _check_ways(draft: Draft, *, endless: bool) -> None:
    """Check that each state can be reached, and that from each an end can be reached."""
    successors: dict[str, list[str]] = {state: [] for state in draft.first}
    enders = {state for state, _ in draft.ends}
    starts = {start.state for start in draft.starts}
    for source, target in [(edge.source, edge.target) for edge in draft.edges] + draft.links:
        if source == END:
            starts.add(target)
        elif target == END:
            enders.add(source)
        else:
            successors[source].append(target)
    if not starts:
        _fault_no_start(draft)
        reached = set(draft.first)
    else:
        reached = paths.reachable(successors, starts - {END})
    for state, line in draft.first.items():
        if state not in reached:
            problem = f"state {state!r} is unreachable: no way leads there from the start"
            draft.fault(line, problem, "write an edge that leads there, or take the state away", is_syntax=False)
    if endless or not starts:
        return
    hopeful = paths.reachable(paths.reverse(successors), enders)
    remedy = "write `… --> [*]` where the FSM ends, or say Settings(endless=True)"
    for state, line in draft.first.items():
        if state in reached and state not in hopeful:
            draft.fault(line, f"no end can be reached from state {state!r}", remedy, is_syntax=False)


def _fault_no_start(draft: Draft) -> None:
    line = next((number for number, text in enumerate(draft.lines, 1) if text.strip()), 1)
    if draft.is_flowchart:
        remedy = "leave one node without incoming edges, or write a `stateDiagram-v2` with `[*] --> state`"
    else:
        remedy = "write `[*] --> state` for the first state"
    draft.fault(line, "the diagram has no start", remedy, is_syntax=False)
