"""What a Mermaid text holds beside the machine: frontmatter, directives, comments, descriptions, styles and links.

Who calls this: `parse`, and both of Mermaid's syntaxes. PURE.

All of it is passed over, and yet not all of it is harmless: Mermaid refuses a whole diagram for a style that it cannot
read, and draws a state that only a note or a class names. So each form is passed over in the shape in which Mermaid
reads it, and no other; tests/oracle holds that against Mermaid itself.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING

from fsm.machine.names import mermaid_id_remedy

if TYPE_CHECKING:
    from fsm.machine.draft import Draft

__all__ = ["CLASS", "DIRECTION", "next_statement", "past_description", "take_from_flowchart", "take_from_state_diagram"]

_DIRECTIVE = re.compile(
    r"%%\{\s*(?:wrap|init(?:ialize)?\s*:\s*(?P<settings>\{.*\}))\s*\}%%", re.ASCII | re.IGNORECASE | re.DOTALL
)
# The part of YAML that cannot be misread: `key: value`, indented keys under a key without one, comments.
_YAML_LINE = re.compile(
    r"(?P<indent> *)(?P<key>[A-Za-z_][\w-]*):(?: +(?P<value>\"[^\"\\]*\"|'[^']*'|[\w./][^:#\x00-\x1f\x7f-\xa0]*))? *"
)
# Words of Mermaid's flowcharts are words of theirs in a style or the name of a class, too.
_NO_WORD = (
    r"(?!(?:call|class|classDef|click|default|end|flowchart|graph|href|interpolate|linkStyle|style|subgraph|v)\b)"
)
_NAME = rf"{_NO_WORD}[A-Za-z][A-Za-z0-9_]*"
# Wherever it stands in a line, Mermaid takes the line for a direction.
DIRECTION = re.compile(r"direction\s+(?:TB|BT|LR|RL)", re.IGNORECASE)
# `:::name` behind a node or a state.
CLASS = re.compile(rf":::{_NAME}")
_VALUE = rf"(?:{_NO_WORD}[A-Za-z]\w*(?:-\w+)*|#[0-9A-Fa-f]+|\d[\w.]*%?)"
_PROPERTY = rf"{_NO_WORD}[a-z]+(?:-[a-z]+)*:[ \t]*{_VALUE}(?:[ \t]{_VALUE})*"
_STYLES = rf"{_PROPERTY}(?:,[ \t]*{_PROPERTY})*"

_OF_STATES = re.compile(
    r"(?:direction\s+(?:TB|BT|LR|RL)|hide empty description|scale\s+\d+\s+width|accTitle\s*:.*|accDescr\s*:.*"
    r"|classDef\s+(?!default\b)\w+\s+\S.*|class\s+\w+(?:,\s*\w+)*\s+\w+|style\s+\w+(?:,\w+)*\s+\S.*"
    r'|click\s+(?P<clicked>\w+)\s+(?:href\s+"[^"]*"|"[^"]*"\s+"[^"]*"))',
    re.ASCII | re.IGNORECASE,
)
_LIKE_OF_STATES = re.compile(r"(?P<word>classDef|class|style|click)\s+(?!-->|:|as\b)", re.IGNORECASE)
# One space, not several, where one is wanted: so does Mermaid.
_OF_NODES = (
    rf"(?:classDef[ \t]{_NAME}(?:,{_NAME})*[ \t]{_STYLES}|class[ \t]{_NAME}(?:,{_NAME})*[ \t]{_NAME}"
    rf"|style[ \t](?P<styled>{_NAME})[ \t]{_STYLES}"
    rf"|linkStyle[ \t](?:default|(?P<links>\d+(?:,\d+)*))[ \t](?:interpolate[ \t]{_NAME}[ \t])?{_STYLES}"
    rf'|click[ \t]{_NAME}[ \t](?:href[ \t])?"[^"]*"(?:[ \t]"[^"]*")?(?:[ \t]_(?:self|blank|parent|top))?'
    rf'|click[ \t]{_NAME}[ \t](?:call[ \t]{_NAME}\(\)|{_NAME})(?:[ \t]"[^"]*")?'
    r"|direction[ \t]+(?:TB|BT|LR|RL)|acc(?:Title|Descr)[ \t]*:.*)(?=[ \t]*(?:;|$))"
)
_LIKE_OF_NODES = re.compile(r"(?P<word>classDef|class|style|linkStyle|click)[ \t]+(?![-=])")
_REMEDIES = {
    "class": "write `class a,b name`, with the ids of states in ASCII letters, digits and `_`",
    "classDef": "write `classDef name fill:#eee,stroke:#333`",
    "click": 'write `click a href "https://…"`',
    "linkStyle": "write `linkStyle 0,1 stroke:#333`, with the numbers of arrows above it, from 0",
    "style": "write `style a fill:#eee,stroke:#333`",
}
_WORDS = {word.lower(): word for word in _REMEDIES}


def next_statement(draft: Draft, at: int) -> int:
    """Pass over empty lines, comments, `%%{init}%%` and frontmatter, in all diagrams of Mermaid.

    Args:
        draft: The diagram.
        at: Index of a line.

    Returns:
        Index of the next line that says something; the number of lines when there is none.
    """
    while at < len(draft.lines):
        line = draft.lines[at].strip()
        if line.startswith("%%{"):
            at = _past_directive(draft, at)
        elif line == "---" and not any(text.strip() for text in draft.lines[:at]):
            at = _past_frontmatter(draft, at)
        elif not line or line.startswith("%%"):
            if found := re.search("[\u2028\u2029]|.%%\\{", line):
                draft.fault(at + 1, "Mermaid does not take all of this for a comment", "take it away", found.group())
            at += 1
        else:
            break
    return at


def past_description(draft: Draft, at: int) -> int:
    """Pass over `accDescr { … }`, and give the index of the line behind it."""
    at = draft.past_block(at, re.compile(r".*\}.*"), "`accDescr {`", "`}`", skip=0)
    rest = draft.lines[at - 1].partition("}")[2].strip()
    if rest and "}" in draft.lines[at - 1]:
        draft.blind(at, "text stands behind the description", "write it on a line of its own", rest)
    return at


def take_from_state_diagram(draft: Draft, text: str, line: int) -> bool:
    """Pass over what is no part of the machine.

    Args:
        draft: Where faults are noted.
        text: A line of a state diagram.
        line: Its number.

    Returns:
        Whether it was passed over; also when Mermaid could not read it, which is noted.
    """
    found = _OF_STATES.fullmatch(text)
    if found and not (found["clicked"] and DIRECTION.search(text)):
        if found["clicked"] and mermaid_id_remedy(found["clicked"]):
            _cannot_be_read(draft, "click", line)
        if found["clicked"] and _ends_in_space(draft, line):
            _cannot_end_in_space(draft, line)
        return True
    if found := _LIKE_OF_STATES.match(text):
        _cannot_be_read(draft, found["word"], line)
        return True
    return False


@cache
def _of_nodes() -> re.Pattern[str]:
    # Not at import: it takes more than ten ms to compile, and who has no flowchart needs none.
    return re.compile(_OF_NODES, re.ASCII)


def take_from_flowchart(draft: Draft, text: str, at: int, line: int, arrows: int) -> int:
    """Pass over what is no part of the machine.

    Args:
        draft: Where faults are noted.
        text: A line of a flowchart.
        at: Where in it a statement begins.
        line: Its number.
        arrows: How many arrows were read so far.

    Returns:
        The end of the line; `at` itself when the statement is another one.
    """
    if found := _of_nodes().match(text, at):
        if found["styled"]:
            draft.decorate(found["styled"], line)
        if any(int(number) >= arrows for number in (found["links"] or "").split(",") if number):
            _cannot_be_read(draft, "linkStyle", line)
        if found.group().startswith(("class ", "class\t", "click")) and (
            text[found.end() :].startswith((" ", "\t")) or _ends_in_space(draft, line)
        ):
            _cannot_end_in_space(draft, line)
        if rest := text[found.end() :].strip("; \t"):
            # It takes a `;` behind a colour for a part of the colour.
            draft.blind(line, "Mermaid may misread what stands behind styles", "write it on a line of its own", rest)
        return len(text)
    if found := _LIKE_OF_NODES.match(text, at):
        _cannot_be_read(draft, found["word"], line)
        return len(text)
    return at


def _cannot_be_read(draft: Draft, word: str, line: int) -> None:
    word = _WORDS[word.lower()]
    draft.fault(line, f"Mermaid may not read this `{word}`", _REMEDIES[word])


def _ends_in_space(draft: Draft, line: int) -> bool:
    return draft.lines[line - 1] != draft.lines[line - 1].rstrip()


def _cannot_end_in_space(draft: Draft, line: int) -> None:
    draft.fault(line, "Mermaid cannot read spaces behind this statement", "take them away")


def _past_directive(draft: Draft, opened: int) -> int:
    at = draft.past_block(opened, re.compile(r".*\}%%"), "`%%{`", "`}%%`", skip=0)
    found = _DIRECTIVE.fullmatch("\n".join(draft.lines[opened:at]).strip())
    if (
        not (found and not re.search("[\u2028\u2029]|.%%\\{", found.group()) and _is_object(found["settings"]))
        and not draft.is_blind
    ):
        remedy = 'write `%%{init: {"theme": "neutral"}}%%`, with JSON in it'
        draft.fault(opened + 1, "Mermaid may not read this directive", remedy)
    return at


def _is_object(settings: str | None) -> bool:
    """Tell whether a directive's settings are JSON, in which Mermaid allows single quotes."""
    if settings is None:
        return True
    try:
        json.loads(settings.replace("'", '"'))
    except ValueError:
        return False
    return True


def _past_frontmatter(draft: Draft, opened: int) -> int:
    at = draft.past_block(opened, re.compile("---"), "the frontmatter", "`---`")
    if draft.is_blind:
        return at
    # The keys seen at each depth that is open, by its indent, and whether a deeper one may follow.
    margin = len(draft.lines[opened]) - len(draft.lines[opened].lstrip())
    open_keys: list[tuple[int, set[str]]] = []
    may_deepen = True
    for index in range(opened + 1, at - 1):
        text = draft.lines[index][margin:] if not draft.lines[index][:margin].strip() else draft.lines[index]
        if not text.strip(" ") or re.fullmatch(r" *#.*", text):
            continue
        found = _YAML_LINE.fullmatch(text)
        depth = len(found["indent"]) if found else 0
        while open_keys and open_keys[-1][0] > depth:
            open_keys.pop()
        if found and may_deepen and (not open_keys or depth > open_keys[-1][0]):
            open_keys.append((depth, set()))
        is_known = bool(found and open_keys and open_keys[-1][0] == depth)
        if not found or not is_known or found["key"] in open_keys[-1][1]:
            remedy = "write `key: value`, with quotes round a value of more than words, each key once"
            draft.fault(index + 1, "Mermaid may not read this frontmatter", remedy)
            break
        open_keys[-1][1].add(found["key"])
        may_deepen = not found["value"]
    opening, closing = draft.lines[opened].rstrip(), draft.lines[at - 1].rstrip()
    if opening != closing or any(not text.startswith(opening[:margin]) for text in draft.lines if text.strip(" \t")):
        draft.fault(at, "Mermaid does not see the end of the frontmatter", "indent both lines `---` as all others")
    return at
