"""What a syntax has read so far: states, edges, starts and ends by their ids, and every fault on the way.

Who calls this: the three syntaxes write into it, the checks read it, `parse` makes a graph of it. PURE.

A fault never stops the reading. A line that is wrong but whose arrow was understood leaves a *link*, so that the checks
do not call states unreachable only because of it; after a line that could be anything the draft is *blind*, and checks
that ask for something missing are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fsm.machine.graph import Edge, Graph
from fsm.machine.labels import read_label
from fsm.machine.names import END, state_name_remedy

if TYPE_CHECKING:
    import re

__all__ = ["Draft", "Fault", "Start"]

_UNSUPPORTED = {
    "choice": "write guards, `EVENT [guard]`, or let the handler of the event answer Goto(state)",
    "composite state": "write all states side by side, without the block",
    "concurrency": "make a machine of its own of each region",
    "entry and exit points": "let the edges lead to the states themselves",
    "fork": "send events to FSMs of their own, one for each branch",
    "history": "keep the state to return to in the payload, and let the handler answer Goto(state)",
    "join": "let the branches send events to one FSM, which counts them in its payload",
    "several nodes in one edge": "write one edge a line, each with one node on each side",
    "subgraph": "write all nodes side by side, without the block",
}
# A line longer than this is cut where a fault shows it.
_LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a diagram.

    Args:
        line: From 1.
        column: From 1.
        text: The line.
        what: What is wrong.
        remedy: What to do.
        is_syntax: The text cannot be read, as opposed to what it says being impossible.
    """

    line: int
    column: int
    text: str
    what: str
    remedy: str
    is_syntax: bool

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: `{self.text}`: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Start:
    """An edge out of the start.

    Args:
        state: Where it leads.
        entry: Name of the entry event, or `[*]`.
        line: From 1.
    """

    state: str
    entry: str
    line: int


class Draft:
    """A diagram while it is read.

    Args:
        text: The whole diagram.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.faults: list[Fault] = []
        self.first: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.starts: list[Start] = []
        self.ends: list[tuple[str, int]] = []
        self.edges: list[Edge] = []
        self.links: list[tuple[str, str]] = []
        self.decorated: list[tuple[str, int]] = []
        self.is_blind = False
        # In flowcharts starts and ends are not written but found.
        self.is_flowchart = False
        # Inside a construct that we do not support, faults are still collected and edges are not.
        self.is_muted = False

    def fault(self, line: int, what: str, remedy: str, at: str = "", *, is_syntax: bool = True) -> None:
        """Note a fault.

        Args:
            line: From 1.
            what: What is wrong.
            remedy: What to do.
            at: Text in that line at which it is wrong.
            is_syntax: The text cannot be read.
        """
        text = self.lines[line - 1]
        place = max(text.find(at), 0) if at else len(text) - len(text.lstrip())
        shown = text.strip()
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        self.faults.append(Fault(line, place + 1, shown, what, remedy, is_syntax))

    def blind(self, line: int, what: str, remedy: str, at: str = "") -> None:
        """Note a fault of a line that might have held anything."""
        self.is_blind = True
        self.fault(line, what, remedy, at)

    def unsupported(self, feature: str, line: int, at: str) -> None:
        """Refuse by name what a syntax has and a flat machine has not."""
        self.blind(line, f"{feature} is not supported", _UNSUPPORTED[feature], at)

    def past_block(self, opened: int, closing: re.Pattern[str], what: str, closer: str, *, skip: int = 1) -> int:
        """Pass over a block; one that is never closed is a fault and swallows the rest.

        Args:
            opened: Index of its first line.
            closing: What its last line looks like.
            what: What the fault names.
            closer: What the fault shows.
            skip: 0 if the first line may be the last.

        Returns:
            Index of the line behind it.
        """
        for index in range(opened + skip, len(self.lines)):
            if closing.fullmatch(self.lines[index].strip()):
                return index + 1
        self.blind(opened + 1, f"{what} is not closed", f"close it with {closer} on a line of its own")
        return len(self.lines)

    def mention(self, state: str, line: int) -> None:
        """Note that a state is mentioned, by its id."""
        if not self.is_muted:
            self.first.setdefault(state, line)

    def decorate(self, state: str, line: int) -> None:
        """Note that a note or a style names a state, by its id: it does not bring the state about."""
        self.decorated.append((state, line))

    def alias(self, state: str, name: str, line: int) -> None:
        """Note the name of the state with this id."""
        if remedy := state_name_remedy(name):
            self.fault(line, f"{name!r} cannot be the name of a state", remedy, name)
        elif self.names.get(state, name) != name:
            problem = f"the id {state!r} has two names, {self.names[state]!r} and {name!r}"
            self.fault(line, problem, "give each state an id of its own")
        else:
            self.names[state] = name
        self.mention(state, line)

    def edge(self, source: str, target: str, label: str | None, line: int) -> None:
        """Note an arrow between two ids, either of which may be `[*]`.

        Args:
            source: Where it leaves.
            target: Where it leads.
            label: Its text; None when it has none.
            line: From 1.
        """
        for state in (source, target):
            if state != END:
                self.mention(state, line)
        if source == END:
            self._start(target, label, line)
        elif label is None:
            self._unlabelled(source, target, line)
        else:
            self._labelled(source, target, label, line)

    def link(self, source: str, target: str, line: int) -> None:
        """Note that a faulty line led from one id to the other."""
        for state in (source, target):
            if state != END:
                self.mention(state, line)
        if not self.is_muted:
            self.links.append((source, target))

    def check_label(self, label: str, line: int) -> None:
        """Note what is wrong with the label of an edge that is lost for other reasons."""
        for fault in read_label(label)[1]:
            self.fault(line, fault.what, fault.remedy, label.strip())

    def settle(self) -> None:
        """Put names in the place of ids; to be called once, when all is read."""
        for state, line in self.decorated:
            if state not in self.first and not self.is_blind:
                problem = f"{state!r} is no state of this diagram, and Mermaid would draw it as one"
                self.fault(line, problem, "name a state by its id, or take the line away", state)
        owners: dict[str, str] = {}
        for state, line in self.first.items():
            name = self.names.get(state, state)
            if name in owners:
                problem = f"the ids {owners[name]!r} and {state!r} both mean the state {name!r}"
                self.fault(line, problem, f"use {owners[name]!r} in both places, or give one of them another name")
            owners.setdefault(name, state)
        named = {END: END, **{state: self.names.get(state, state) for state in self.first}}
        first: dict[str, int] = {}
        for state, line in self.first.items():
            first.setdefault(named[state], line)
        self.first = first
        self.starts = [replace(start, state=named[start.state]) for start in self.starts]
        self.ends = [(named[state], line) for state, line in self.ends]
        self.edges = [replace(edge, source=named[edge.source], target=named[edge.target]) for edge in self.edges]
        self.links = [(named[source], named[target]) for source, target in self.links]

    def graph(self) -> Graph:
        """Make the graph; one without a start gets an empty one, which only the checks of decorators ever see."""
        start = self.starts[0] if self.starts else Start("", END, 0)
        ends = frozenset(state for state, _ in self.ends)
        return Graph(tuple(self.first), tuple(self.edges), start.state, start.entry, ends)

    def _start(self, target: str, label: str | None, line: int) -> None:
        if target == END:
            self.fault(line, "the start leads to the end", "put a state between them")
            return
        entry = END
        if label is not None:
            labels, faults = read_label(label)
            for fault in faults:
                self.fault(line, fault.what, fault.remedy, label.strip())
            bare = [one for one in labels if not (one.guard or one.mark or one.fails or one.after_ms)]
            if not faults and (len(labels) != 1 or not bare):
                remedy = f"write one event without marks, guard or timer, or none: `[*] --> {target}`"
                self.fault(line, "the entry event is more than a name", remedy, label.strip())
            entry = bare[0].event if bare else END
        if not self.is_muted:
            self.starts.append(Start(target, entry, line))

    def _unlabelled(self, source: str, target: str, line: int) -> None:
        if target == END:
            if not self.is_muted:
                self.ends.append((source, line))
            return
        self.fault(line, f"the edge from {source!r} to {target!r} has no event", "name the event that takes it")
        self.link(source, target, line)

    def _labelled(self, source: str, target: str, label: str, line: int) -> None:
        labels, faults = read_label(label)
        for fault in faults:
            self.fault(line, fault.what, fault.remedy, label.strip())
        if faults:
            self.link(source, target, line)
        if not self.is_muted:
            self.edges += [
                Edge(source, one.event, target, one.guard, one.mark, one.fails, one.after_ms, line) for one in labels
            ]
