"""Mermaid flowcharts: `graph` and `flowchart`, with events on the arrows.

Who calls this: `parse`, when the first line says so. PURE.

    graph TD
        a["half-installed"] -->|configure| b -- remove --> c; b -->|"retry [again]"| a

Starts and ends are not written: a node is the start when no other node leads to it, and an end when it leads nowhere.
What is accepted here is also valid for Mermaid; that was tried out with Mermaid 11.17.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fsm.machine.draft import Start
from fsm.machine.names import END, flowchart_id_remedy
from fsm.machine.ornaments import CLASS, DIRECTION, next_statement, past_description, take_from_flowchart

if TYPE_CHECKING:
    from fsm.machine.draft import Draft

__all__ = ["HEADER", "read_flowchart"]

HEADER = re.compile(r"(?:graph|flowchart)(?:[ \t]+(?:TB|TD|BT|LR|RL)[ \t]*(?:;|$)|$)")

_SPACE = re.compile(r"[\s;]*")
_ID = re.compile(r"(?:[^\s;\[\](){}|<>&\":~=@-]|-(?![-.>])|=(?!=))+")
_SHAPES = {
    "(((": (")))",),
    "((": ("))",),
    "([": ("])",),
    "(": (")",),
    "[[": ("]]",),
    "[(": (")]",),
    "[/": ("/]", "\\]"),
    "[\\": ("\\]", "/]"),
    "[": ("]",),
    "{{": ("}}",),
    "{": ("}",),
    ">": ("]",),
}
_ARROW = re.compile(r"(?:-{2,}>|={2,}>|-\.+->)(?:\s*\|(?P<label>[^|]*)\|)?")
_WORDED = re.compile(
    r"--(?![->xo])\s*+(?P<thin>[^|]+?)(?<!\s)\s*(?<!-)-{2,}>"
    r"|==(?![=>xo])\s*+(?P<thick>[^|]+?)(?<!\s)\s*(?<!=)={2,}>"
    r"|-\.(?![-.])\s*+(?P<dotted>[^|]+?)(?<!\s)\s*(?<!\.)\.+->"
)
# Mermaid has arrows that begin with these letters.
_SWALLOWING = re.compile(r"(?<![-=.])[xo](?:--+|==+|-?\.+-)>$")
_OTHER_LINK = re.compile(r"[xo<]?(?:-{2,}[xo>-]?|={2,}[xo>=]?|-\.+-[xo>]?|~{3,})|<")
_IN_QUOTES_ONLY = re.compile(r"[\[\](){}\"]")
# Text of a node without quotes: beyond these, it depends on more than the text whether Mermaid can read it.
_BARE = re.compile(r"\s*\w(?:[\w \t.,!?'+*&:=…–]|-(?!-))*")
_QUOTED = re.compile(r'\s*"(?P<text>[^"]*)"\s*')
_FORMS = "write `a -->|EVENT| b`"


def read_flowchart(draft: Draft, at: int) -> None:
    """Read a flowchart.

    Args:
        draft: Where to put what is read.
        at: Index of the header.
    """
    draft.is_flowchart = True
    header = draft.lines[at].strip()
    found = HEADER.match(header)
    reader = _Reader(draft)
    reader.read_line(header[found.end() if found else 0 :], at + 1)
    at += 1
    while (at := next_statement(draft, at)) < len(draft.lines):
        text = draft.lines[at].strip()
        if re.match(r"accDescr\s*\{", text):
            at = past_description(draft, at)
            continue
        reader.read_line(text, at + 1)
        at += 1
    draft.is_muted = False
    for index, text in enumerate(draft.lines):
        if text.lstrip() == "%%":
            draft.fault(index + 1, "Mermaid takes an empty comment for a node", "write a word behind `%%`")
    _find_points(draft)


class _UnreadableError(Exception):
    """The rest of the line was given up; the fault is noted already."""


class _Reader:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.text = ""
        self.at = 0
        self.line = 0
        # How many subgraphs are open here.
        self.depth = 0
        self.arrows = 0

    def read_line(self, text: str, line: int) -> None:
        """Read the statements of one line."""
        self.text, self.at, self.line = text, 0, line
        found = DIRECTION.search(self.draft.lines[line - 1])
        if found and self.draft.lines[line - 1].strip("; \t") != found.group():
            remedy = "write the direction on a line of its own, or other words"
            self.draft.blind(line, "Mermaid takes this line for a direction", remedy, found.group())
            return
        try:
            self._take(_SPACE)
            while self.at < len(text):
                self._statement()
                self._take(_SPACE)
        except _UnreadableError:
            return

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def _give_up(self, what: str, remedy: str) -> _UnreadableError:
        self.draft.blind(self.line, what, remedy, self.text[self.at :])
        return _UnreadableError()

    def _statement(self) -> None:
        draft = self.draft
        if (end := take_from_flowchart(draft, self.text, self.at, self.line, self.arrows)) > self.at:
            self.at = end
            return
        if found := self._take(re.compile(r"subgraph\b(?!\s*[-=]).*")):
            draft.unsupported("subgraph", self.line, found.group())
            self.depth += 1
            draft.is_muted = True
            return
        if self.depth and self._take(re.compile(r"end(?=\s*(?:;|$))")):
            self.depth -= 1
            draft.is_muted = self.depth > 0
            return
        source = self._node()
        while (link := self._link()) is not None:
            target = self._node()
            self.arrows += 1
            label = link or None
            if source and target:
                draft.edge(source, target, label, self.line)
            elif label:
                draft.check_label(label, self.line)
            source = target
        self._end_of_statement()

    def _node(self) -> str:
        """Read a node; "" when its id is not good, which is noted."""
        self._take(re.compile(r"[ \t]*"))
        draft = self.draft
        found = self._take(_ID)
        if not found:
            raise self._give_up("a node is missing", _FORMS)
        node = found.group()
        remedy = flowchart_id_remedy(node)
        if remedy:
            draft.blind(self.line, f"{node!r} cannot be an id in a flowchart", remedy, node)
        elif node in {"x", "o"} and self.text.startswith(("--", "==", "-."), self.at):
            remedy = f"put a space behind it: `{node} -->`"
            draft.blind(self.line, f"Mermaid takes {node!r} for a part of the arrow", remedy, node)
        else:
            draft.mention(node, self.line)
        self._shape(node)
        self._take(CLASS)
        self._take(re.compile(r"[ \t]*"))
        if self.text.startswith("&", self.at):
            draft.unsupported("several nodes in one edge", self.line, "&")
            raise _UnreadableError
        return "" if remedy else node

    def _shape(self, node: str) -> None:
        """Read the brackets behind a node: quoted text is its name, other text is passed over."""
        rest = self.text[self.at :]
        if rest.startswith("@"):
            raise self._give_up("`@{…}` behind a node cannot be read", 'write `a["any name"]`')
        opener = next((one for one in _SHAPES if rest.startswith(one)), None)
        if opener is None:
            return
        inner = self.at + len(opener)
        quoted = _QUOTED.match(self.text, inner)
        closers = _SHAPES[opener]
        if quoted:
            if not quoted.group().startswith('"'):
                self.draft.fault(self.line, "Mermaid cannot read a space before these quotes", "take it away")
            if not self.text.startswith(closers, quoted.end()):
                raise self._give_up("the brackets behind a node are not closed", f"close them with `{closers[0]}`")
            self.draft.alias(node, quoted["text"], self.line)
            self.at = quoted.end() + len(closers[0])
            return
        places = [place for closer in closers if (place := self.text.find(closer, inner)) >= 0]
        if not places:
            raise self._give_up("the brackets behind a node are not closed", f"close them with `{closers[0]}`")
        end = min(places)
        if not _BARE.fullmatch(self.text, inner, end):
            raise self._give_up(
                "Mermaid may not read the text in these brackets", f'put it into quotes: `{node}["any name"]`'
            )
        self.at = end + len(closers[0])

    def _link(self) -> str | None:
        """Read an arrow; "" when it has no event, None when there is no arrow."""
        if found := self._take(_ARROW):
            if found["label"] is not None and (spaces := re.compile(r"[ \t]{2,}").match(self.text, self.at)):
                self.draft.fault(
                    self.line, "Mermaid cannot read two spaces behind a label", "write one", spaces.group()
                )
            return self._label(found["label"] or "", in_pipes=True)
        if found := self._take(_WORDED):
            if arrow := _SWALLOWING.search(found.group()):
                problem = f"Mermaid takes the {arrow.group()[0]!r} for a part of the arrow"
                self.draft.fault(self.line, problem, "put a space before the arrow", arrow.group())
            return self._label(found["thin"] or found["thick"] or found["dotted"], in_pipes=False)
        if found := _OTHER_LINK.match(self.text, self.at):
            raise self._give_up(f"{found.group()!r} is no arrow from one node to another", _FORMS)
        return None

    def _label(self, text: str, *, in_pipes: bool) -> str:
        if quoted := _QUOTED.fullmatch(text):
            if in_pipes and not text.startswith('"'):
                self.draft.fault(self.line, "Mermaid cannot read a space before these quotes", "take it away", text)
            return quoted["text"].strip()
        if in_pipes and _IN_QUOTES_ONLY.search(text):
            self.draft.fault(self.line, "Mermaid needs quotes round this label", f'write `|"{text.strip()}"|`', text)
        return text.strip()

    def _end_of_statement(self) -> None:
        if self.at >= len(self.text) or self.text[self.at] == ";":
            return
        rest = self.text[self.at :]
        if rest.startswith("%%"):
            raise self._give_up(
                "Mermaid reads a comment behind a statement as part of it", "put it on a line of its own"
            )
        if rest.startswith(":::"):
            raise self._give_up("Mermaid may not read this class", "write `a:::name`, with no word of Mermaid's own")
        if rest.startswith(":"):
            raise self._give_up("a flowchart has no labels behind a colon", _FORMS)
        raise self._give_up(f"{rest!r} cannot be read", f"{_FORMS}, one statement a line or divided by `;`")


def _find_points(draft: Draft) -> None:
    """Find starts and ends: nodes to which no other node leads, and nodes that lead nowhere."""
    arrows = [(edge.source, edge.target) for edge in draft.edges] + draft.links
    # An edge to itself does not make a node reachable, but it is a way on.
    entered = {target for source, target in arrows if source != target}
    left = {source for source, _ in arrows}
    starts = [Start(state, END, line) for state, line in draft.first.items() if state not in entered]
    draft.starts = starts[:1] if draft.is_blind else starts
    draft.ends = [(state, line) for state, line in draft.first.items() if state not in left]
