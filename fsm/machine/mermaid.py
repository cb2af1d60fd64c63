"""Mermaid state diagrams: `stateDiagram` and `stateDiagram-v2`.

Who calls this: `parse`, when the first line says so. PURE.

What is accepted here is also valid for Mermaid; what Mermaid would misread in silence is refused with the remedy. Both
were tried out with Mermaid 11.17, whose reader takes the longest text up to a space, colon or hyphen for an id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fsm.machine.names import END, mermaid_id_remedy
from fsm.machine.ornaments import DIRECTION, next_statement, past_description, take_from_state_diagram

if TYPE_CHECKING:
    from fsm.machine.draft import Draft

__all__ = ["HEADER", "read_mermaid"]

HEADER = re.compile(r"stateDiagram(?:-v2)?")

_NOTE_LINE = re.compile(r"note\s+(?:left|right) of\s+(?P<id>[^:\s-]+)\s*:(?P<text>.*)", re.IGNORECASE)
_NOTE_BLOCK = re.compile(r"note\s+(?:left|right) of\s+(?P<id>[^:\s-]+)", re.IGNORECASE)
_NOTE_FLOATING = re.compile(r'note\s+"[^"]*"\s+as\s+\w+', re.IGNORECASE)
_NOTE_END = re.compile(r"end note\b(?P<rest>.*)", re.IGNORECASE)
_FORK = re.compile(r"<<(?P<a>fork|join|choice|history)>>|\[\[(?P<b>fork|join|choice)\]\]", re.IGNORECASE)
_HISTORY = re.compile(r"\[H\*?\]")
_STATE = re.compile(r'state\s+(?!-->)(?:"(?P<name>[^"]*)"\s+as\s+)?(?P<id>[^\s{:"]+)(?P<rest>.*)', re.IGNORECASE)
_BARE_DECLARATION = re.compile(r"state\s+\w+", re.ASCII | re.IGNORECASE)
_CLASS = r"(?!(?:class|classDef|click|default|href|note|scale|state|stateDiagram|style)\b)[A-Za-z][A-Za-z0-9_]*"
_BAD_CLASS = re.compile(rf":::(?!{_CLASS}(?:[\s:]|-->|$))", re.IGNORECASE)
_STYLED = re.compile(r"(?P<id>.*?):::\w+")
_ARROW = re.compile(r"(?P<source>[^:]*?(?::::\w+\s*)?)-->(?P<target>[^:]*(?::::\w+\s*)?)(?::(?!::)(?P<label>.*))?")
_OTHER_ARROW = re.compile(r"(?<![-=.<>~])(?=[.<>~]*[-=])[-=.<>~]{2,}")
_DESCRIPTION = re.compile(r"(?P<id>[^:]*)(?::::\w+\s*)?:(?!::)(?P<text>.*)")
_FORMS = 'write `a --> b : EVENT`, `[*] --> a`, `a --> [*]` or `state "name" as a`'


def read_mermaid(draft: Draft, at: int) -> None:
    """Read the statements that follow the header.

    Args:
        draft: Where to put what is read.
        at: Index of the line after the header.
    """
    _Reader(draft).read(at)


class _Reader:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        # How many composite states are open here.
        self.depth = 0
        # The last line was `state a`: Mermaid looks from there for a `{`, over the end of the line.
        self.is_declared = False

    def read(self, at: int) -> None:
        draft = self.draft
        while (at := next_statement(draft, at)) < len(draft.lines):
            text = draft.lines[at].strip()
            if self.is_declared and "{" in text and re.match(r"\w", text, re.ASCII) and not text.startswith("state"):
                problem = "Mermaid takes the `{` for that of a composite state, declared in the line before"
                draft.fault(at + 1, problem, "write this line above that one", "{")
            self.is_declared = bool(_BARE_DECLARATION.fullmatch(text))
            if note := _NOTE_BLOCK.fullmatch(text):
                at = self._past_note(note["id"], at)
            elif re.match(r"accDescr\s*\{", text, re.IGNORECASE):
                at = past_description(draft, at)
            else:
                if not self._passed_over(text, at + 1):
                    self._statement(text, at + 1)
                at += 1
        draft.is_muted = False

    def _past_note(self, state: str, at: int) -> int:
        draft = self.draft
        draft.decorate(state, at + 1)
        first = next((index for index in range(at + 1, len(draft.lines)) if draft.lines[index].strip()), at)
        if draft.lines[first].strip().startswith(":"):
            draft.fault(first + 1, "Mermaid takes this line for the whole note", "begin the note without a colon", ":")
        at = draft.past_block(at, _NOTE_END, "the note", "`end note`")
        end = _NOTE_END.fullmatch(draft.lines[at - 1].strip())
        if end and end["rest"].strip():
            draft.blind(at, "text stands behind `end note`", "write it on a line of its own", end["rest"].strip())
        return at

    def _passed_over(self, text: str, line: int) -> bool:
        """Pass over what carries no meaning for us."""
        note = _NOTE_LINE.fullmatch(text)
        if note:
            self.draft.decorate(note["id"], line)
        if note and re.search("[:;]", note["text"]):
            remedy = "write the note over several lines, with `end note` in the last"
            self.draft.fault(line, "Mermaid ends a note of one line at a colon or `;`", remedy, note["text"].strip())
        return bool(note or _NOTE_FLOATING.fullmatch(text)) or take_from_state_diagram(self.draft, text, line)

    def _statement(self, text: str, line: int) -> None:
        draft = self.draft
        if self._unsupported(text, line) or self._misread(text, line):
            return
        arrow = _ARROW.fullmatch(text)
        if found := None if arrow and text.lower().startswith("state -") else _STATE.fullmatch(text):
            self._declaration(found["name"], found["id"], found["rest"].strip(), line)
        elif arrow:
            self._edge(arrow["source"], arrow["target"], arrow["label"], line)
        elif found := _OTHER_ARROW.search(text.partition(":")[0]):
            draft.blind(
                line, f"{found.group()!r} is no arrow of a state diagram", "write `a --> b : EVENT`", found.group()
            )
        elif found := _DESCRIPTION.fullmatch(text):
            if re.search("::|:$", found["text"]):
                problem = "Mermaid cannot read `::` or a last `:` in a description"
                draft.fault(line, problem, "take it away", found["text"])
            if self._is_id(found["id"].strip(), line):
                draft.mention(found["id"].strip(), line)
        elif found := re.fullmatch(r"(?P<id>\S+)", _unstyled(text)):
            if self._is_id(found["id"], line):
                draft.mention(found["id"], line)
        else:
            draft.blind(line, "this statement cannot be read", _FORMS)

    def _unsupported(self, text: str, line: int) -> bool:
        """Refuse by name what Mermaid has and a flat machine has not."""
        draft = self.draft
        if text == "--":
            draft.unsupported("concurrency", line, "--")
        elif text == "}":
            if self.depth:
                self.depth -= 1
                draft.is_muted = self.depth > 0
            else:
                draft.blind(line, "`}` closes nothing", "take it away")
        elif found := _FORK.search(text):
            feature = (found["a"] or found["b"]).lower()
            draft.unsupported(feature, line, found.group())
        elif text.endswith("{") and re.match(r"state\s", text, re.IGNORECASE):
            draft.unsupported("composite state", line, "{")
            self.depth += 1
            draft.is_muted = True
        else:
            return False
        return True

    def _misread(self, text: str, line: int) -> bool:
        """Refuse what Mermaid would read as something else than it looks."""
        draft = self.draft
        if ";" in text:
            remedy = "write one statement a line, without `;`"
            draft.blind(line, "Mermaid does not take `;` for the end of a statement", remedy, ";")
        elif "%%" in text:
            remedy = "put the comment on a line of its own"
            draft.blind(line, "Mermaid reads a comment behind a statement as part of it", remedy, "%%")
        elif found := _BAD_CLASS.search(text):
            remedy = "write `a:::name`, in ASCII letters, digits and `_`, with no word of Mermaid's own"
            draft.blind(line, "Mermaid may not read this class", remedy, ":::")
        elif found := DIRECTION.search(text):
            remedy = "write the direction on a line of its own, or other words"
            draft.blind(line, "Mermaid takes this line for a direction", remedy, found.group())
        elif re.match(r"direction\s+\w+$", text, re.IGNORECASE):
            draft.fault(line, "Mermaid knows no such direction and makes states of the words", "use TB, BT, LR or RL")
        else:
            return False
        return True

    def _declaration(self, name: str | None, state: str, rest: str, line: int) -> None:
        draft = self.draft
        state = _unstyled(state + rest) if rest.startswith(":::") else state
        if rest and not rest.startswith(":"):
            draft.blind(line, f"{rest!r} behind a state cannot be read", 'write `state "any name" as id`', rest)
        elif state.lower() == "as" or re.search(r"[{\"]|\sas\s", rest):
            remedy = "write a description as `a : text`, without `state`"
            draft.blind(line, "Mermaid may take this for an alias or a composite state", remedy, rest)
        elif self._is_id(state, line):
            if name is None:
                draft.mention(state, line)
            else:
                draft.alias(state, name, line)

    def _edge(self, source: str, target: str, label: str | None, line: int) -> None:
        draft = self.draft
        source, target = _unstyled(source.strip()), _unstyled(target.strip())
        if "-->" in target or (label and "-->" in label):
            draft.blind(line, "two arrows in one statement", "write one edge a line", "-->")
            return
        good = [self._is_point(point, line) for point in (source, target)]
        if not all(good):
            # What the label says is reported too, though the edge is lost.
            if label is not None and label.strip():
                draft.check_label(label, line)
            return
        if label is not None and not label.strip():
            draft.fault(line, "the label is empty", "write `a --> b : EVENT`")
            draft.link(source, target, line)
            return
        draft.edge(source, target, label, line)

    def _is_point(self, text: str, line: int) -> bool:
        return text == END or self._is_id(text, line)

    def _is_id(self, text: str, line: int) -> bool:
        """Check an id; a bad one is a fault."""
        draft = self.draft
        if not text:
            draft.blind(line, "a state is missing", _FORMS)
        elif found := _HISTORY.search(text):
            draft.unsupported("history", line, found.group())
        elif "," in text:
            dropped = text.split(",", maxsplit=1)[0].strip()
            remedy = "write one edge a line, each with one state on each side"
            draft.blind(line, f"Mermaid drops {dropped!r} of {text!r}", remedy, text)
        elif remedy := mermaid_id_remedy(text):
            draft.blind(line, f"{text!r} cannot be an id in Mermaid", remedy, text)
        else:
            return True
        return False


def _unstyled(text: str) -> str:
    """Take `:::class` away."""
    found = _STYLED.fullmatch(text)
    return found["id"].strip() if found else text
