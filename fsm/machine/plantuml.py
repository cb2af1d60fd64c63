"""PlantUML state diagrams.

Who calls this: `parse`, when the first line is `@startuml`. PURE. What is accepted was tried out with PlantUML
1.2020.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fsm.machine.names import END, plantuml_id_remedy

if TYPE_CHECKING:
    from fsm.machine.draft import Draft

__all__ = ["HEADER", "first_statement", "read_plantuml"]

HEADER = re.compile(r"@startuml(?:\s.*)?$")

_FOOTER = re.compile(r"@enduml")
# Not before an arrow: there the word is an id, and a bad one.
_SKIPPED = re.compile(
    r"(?:hide|show|skinparam|title|scale|header|footer|caption|mainframe|left\s+header|right\s+header|center\s+header"
    r"|left\s+footer|right\s+footer|center\s+footer|legend\s+.*end\s?legend)\s+(?!-+.*>).*"
    r"|left\s+to\s+right\s+direction|top\s+to\s+bottom\s+direction|!(?:theme|pragma)\s.*",
    re.IGNORECASE,
)
_NOTE_LINE = re.compile(
    r'note\s+(?:(?:left|right|top|bottom)(?:\s+of\s+[\w.]+)?|on\s+link)\s*(?:#\w+\s*)?:.*|note\s+"[^"]*"\s+as\s+\w+.*',
    re.IGNORECASE,
)
_BLOCKS = (
    (re.compile(r"/'.*", re.DOTALL), re.compile(r".*'/"), "the comment", "`'/`", 0),
    (re.compile(r"skinparam\b.*\{", re.IGNORECASE), re.compile(r"\}"), "`skinparam`", "`}`", 1),
    (re.compile(r"<style>", re.IGNORECASE), re.compile(r"</style>", re.IGNORECASE), "`<style>`", "`</style>`", 1),
    (re.compile(r"title", re.IGNORECASE), re.compile(r"end\s?title", re.IGNORECASE), "the title", "`end title`", 1),
    (
        re.compile(r"legend(?:\s+(?:left|right|top|bottom|center))*", re.IGNORECASE),
        re.compile(r"end\s?legend", re.IGNORECASE),
        "the legend",
        "`end legend`",
        1,
    ),
    (
        re.compile(r"(?:(?:left|right|center)\s+)?header", re.IGNORECASE),
        re.compile(r"end\s?header", re.IGNORECASE),
        "the header",
        "`end header`",
        1,
    ),
    (
        re.compile(r"(?:(?:left|right|center)\s+)?footer", re.IGNORECASE),
        re.compile(r"end\s?footer", re.IGNORECASE),
        "the footer",
        "`end footer`",
        1,
    ),
    (
        re.compile(
            r"note\s+(?:(?:left|right|top|bottom)(?:\s+of\s+[\w.]+)?|on\s+link|as\s+\w+)\s*(?:#\w+)?", re.IGNORECASE
        ),
        re.compile(r"end\s?note", re.IGNORECASE),
        "the note",
        "`end note`",
        1,
    ),
)
_STEREOTYPE = re.compile(r"<<\s*(?P<name>\w+)\s*>>")
_FEATURES = {
    "fork": "fork",
    "join": "join",
    "choice": "choice",
    "history": "history",
    "entrypoint": "entry and exit points",
    "exitpoint": "entry and exit points",
    "inputpin": "entry and exit points",
    "outputpin": "entry and exit points",
    "expansioninput": "entry and exit points",
    "expansionoutput": "entry and exit points",
    "start": "entry and exit points",
    "end": "entry and exit points",
}
_HISTORY = re.compile(r"\[H\*?\]")
_STATE = re.compile(
    r'state\s+(?:"(?P<name>[^"]*)"\s+as\s+(?P<named>[^\s#<:{]+)|(?P<id>[^\s#<:{"-][^\s#<:{"]*)(?:\s+as\s+"(?P<late>[^"]*)")?)'
    r"(?P<rest>.*)",
    re.IGNORECASE,
)
_ARROW = re.compile(
    r"(?P<source>[^:]*?)"
    r"(?<!-)-+(?:\[[^\[\]]*\]-*)?(?:(?:left|right|up|down|[lrud])(?:\[[^\[\]]*\])?-+)?>"
    r"(?P<target>[^:#]*)(?:\#[^\s:]+\s*)?(?::(?P<label>.*))?"
)
_LIKE_ARROW = re.compile(r"(?<![-=.<>~])(?=[.<>~]*[-=])[-=.<>~]{2,}")
_DESCRIPTION = re.compile(r"(?P<id>[^:]*):.*")
_FORMS = 'write `a --> b : EVENT`, `[*] --> a`, `a --> [*]` or `state "name" as a`'


def first_statement(draft: Draft, at: int) -> int:
    """Pass over empty lines and comments.

    Args:
        draft: The diagram.
        at: Index of a line.

    Returns:
        Index of the next line that says something; the number of lines when there is none.
    """
    while at < len(draft.lines):
        line = draft.lines[at].strip()
        if line.startswith("/'"):
            at = draft.past_block(at, re.compile(r".*'/"), "the comment", "`'/`", skip=0)
        elif not line or line.startswith("'"):
            at += 1
        else:
            break
    return at


def read_plantuml(draft: Draft, at: int) -> None:
    """Read the statements that follow `@startuml`.

    Args:
        draft: Where to put what is read.
        at: Index of the line after it.
    """
    _Reader(draft).read(at)


class _Reader:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        # How many composite states are open here.
        self.depth = 0

    def read(self, at: int) -> None:
        draft = self.draft
        header = at
        while (at := first_statement(draft, at)) < len(draft.lines):
            text = draft.lines[at].strip()
            if _FOOTER.fullmatch(text):
                draft.is_muted = False
                at = first_statement(draft, at + 1)
                if at < len(draft.lines):
                    draft.fault(at + 1, "text stands behind `@enduml`", "write it before, or in a diagram of its own")
                return
            for opening, closing, what, closer, skip in _BLOCKS:
                if opening.fullmatch(text):
                    at = draft.past_block(at, closing, what, closer, skip=skip)
                    break
            else:
                if not (_SKIPPED.fullmatch(text) or _NOTE_LINE.fullmatch(text)):
                    self._statement(text, at + 1)
                at += 1
        draft.is_muted = False
        draft.blind(header, "the diagram is not closed", "write `@enduml` in the last line")

    def _statement(self, text: str, line: int) -> None:
        draft = self.draft
        if self._unsupported(text, line):
            return
        if found := _STATE.fullmatch(text):
            self._declaration(found, line)
        elif found := _ARROW.fullmatch(text):
            self._edge(found["source"].strip(), found["target"].strip(), found["label"], line)
        elif found := _LIKE_ARROW.search(text.partition(":")[0]):
            problem = f"{found.group()!r} is no arrow from one state to another"
            draft.blind(line, problem, "write `a --> b : EVENT`, from left to right", found.group())
        elif found := _DESCRIPTION.fullmatch(text):
            if self._is_id(found["id"].strip(), line):
                draft.mention(found["id"].strip(), line)
        else:
            draft.blind(line, "this statement cannot be read", _FORMS)

    def _unsupported(self, text: str, line: int) -> bool:
        """Refuse by name what PlantUML has and a flat machine has not."""
        draft = self.draft
        found = _STEREOTYPE.search(text)
        feature = _FEATURES.get(found["name"].lower()) if found else None
        if feature and found:
            draft.unsupported(feature, line, found.group())
        elif re.fullmatch(r"-{2,}|\|\|", text):
            draft.unsupported("concurrency", line, text)
        elif text.startswith("!"):
            remedy = "write out what it stands for; only !theme and !pragma are passed over"
            draft.blind(line, "the preprocessor is not supported", remedy)
        elif re.fullmatch(r"={2,}.*={2,}", text.partition(" ")[0]):
            draft.unsupported("fork", line, text)
        elif text == "}":
            if self.depth:
                self.depth -= 1
                draft.is_muted = self.depth > 0
            else:
                draft.blind(line, "`}` closes nothing", "take it away")
        elif text.endswith("{") and re.match(r"state\s", text, re.IGNORECASE):
            draft.unsupported("composite state", line, "{")
            self.depth += 1
            draft.is_muted = True
        else:
            return False
        return True

    def _declaration(self, found: re.Match[str], line: int) -> None:
        draft = self.draft
        state, name, rest = found["named"] or found["id"], found["name"], found["rest"].strip()
        name = found["late"] if name is None else name
        rest = _STEREOTYPE.sub("", rest).strip()
        if rest and not rest.startswith((":", "#")):
            draft.blind(line, f"{rest!r} behind a state cannot be read", 'write `state "any name" as id`', rest)
        elif self._is_id(state, line):
            if name is None:
                draft.mention(state, line)
            else:
                draft.alias(state, name, line)

    def _edge(self, source: str, target: str, label: str | None, line: int) -> None:
        draft = self.draft
        good = [point == END or self._is_id(point, line) for point in (source, target)]
        if not all(good):
            # What the label says is reported too, though the edge is lost.
            if label is not None and label.strip():
                draft.check_label(label, line)
        elif label is not None and not label.strip():
            draft.fault(line, "the label is empty", "write `a --> b : EVENT`")
            draft.link(source, target, line)
        else:
            draft.edge(source, target, label, line)

    def _is_id(self, text: str, line: int) -> bool:
        """Check an id; a bad one is a fault."""
        draft = self.draft
        if not text:
            draft.blind(line, "a state is missing", _FORMS)
        elif found := _HISTORY.search(text):
            draft.unsupported("history", line, found.group())
        elif text.startswith("=="):
            draft.unsupported("fork", line, text)
        elif remedy := plantuml_id_remedy(text):
            draft.blind(line, f"{text!r} cannot be an id in PlantUML", remedy, text)
        else:
            return True
        return False
