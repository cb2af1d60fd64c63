"""What states, events and guards may be called, and which names a syntax can carry without an alias.

Who calls this: labels, drafts, the three syntaxes, rendering, and all who were given a name that is not known. PURE:
imports nothing of ours.

Names end up in keys of Redis, in file names of drawings and on command lines: no colons, nothing unprintable. What the
syntaxes would misread was tried out with Mermaid 11.17 and PlantUML 1.2020.2; Mermaid's reader of state diagrams does
not distinguish upper and lower case in its own words.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "END",
    "EVENT",
    "HOST",
    "can_stand_bare",
    "did_you_mean",
    "flowchart_id_remedy",
    "hint",
    "mermaid_id_remedy",
    "plantuml_id_remedy",
    "state_name_remedy",
]

# Start and end in the text of a diagram; never the name of a state.
END = "[*]"
# Letters of any script, digits, `_`, and inside also `.` and `-`: `order.paid`, `half-configured`, `zurück`.
EVENT = re.compile(r"[^\W\d]\w*(?:[.-]\w+)*")
# A host, as it stands in the names of its queues.
HOST = re.compile(r"[A-Za-z0-9_.-]{1,100}")

_STATE_ID = re.compile(r"\w[\w.]*")
# In flowcharts Mermaid knows the letters of Unicode 6, and of digits only ours: these are the scripts of which it lacks
# no letter.
_FLOW_LETTER = "(?:[0-9A-Za-z_ªµº]|(?=\\w)[À-ʯΆ-ԧԱ-Ֆա-ֆא-תؠ-يऄ-हก-ะა-ჺḀ-ỿぁ-ゖァ-ヺ一-鿌가-힣])"
_FLOW_ID = rf"{_FLOW_LETTER}(?:{_FLOW_LETTER}|\.|-(?={_FLOW_LETTER}))*"
# In quoted text these would end the text, begin a comment, an escape or another construct in one of the syntaxes.
_NOT_IN_NAMES = re.compile(r"""[":;#{}<>\[\]\\|`]|%%|direction\s+(?:TB|BT|LR|RL)""", re.IGNORECASE)
_MERMAID_WORDS = frozenset(
    {
        "accdescr",
        "acctitle",
        "class",
        "classdef",
        "click",
        "default",
        "href",
        "note",
        "scale",
        "state",
        "statediagram",
        "style",
    }
)
# Names of start and end in Mermaid itself, and what every object of JavaScript has: it loses such states.
_MERMAID_OWN = frozenset(
    {
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "root_end",
        "root_start",
        "toLocaleString",
        "toString",
        "valueOf",
    }
)
# Mermaid takes these for its own even as the beginning of a longer id, up to a character outside ASCII's words.
_MERMAID_PREFIX = re.compile(r"(?:click|href|default)\b", re.ASCII | re.IGNORECASE)
_FLOW_WORDS = re.compile(
    r"(?:call|end|graph|flowchart|subgraph|style|linkStyle|class|classDef|click|href|interpolate|_self|_blank|_parent|_top)\b",
    re.ASCII,
)
_PLANTUML_WORDS = frozenset(
    {
        "as",
        "bottom",
        "caption",
        "center",
        "end",
        "footer",
        "header",
        "hide",
        "left",
        "legend",
        "mainframe",
        "newpage",
        "note",
        "remove",
        "restore",
        "right",
        "scale",
        "set",
        "show",
        "skinparam",
        "state",
        "title",
        "top",
    }
)


def state_name_remedy(name: str) -> str:
    """Say what to do about the name of a state; "" when it is good."""
    if not name.strip() or name != name.strip():
        return "give the state a name that neither is empty nor begins or ends with a space"
    if ":" in name:
        return "take the colon out of the name: names of states stand in keys of Redis, which colons divide"
    if found := _NOT_IN_NAMES.search(name):
        return f"take {found.group()} out of the name: a diagram cannot carry it"
    if not name.isprintable():
        return "use printable characters and plain spaces only"
    return ""


def mermaid_id_remedy(text: str) -> str:
    """Say what to write instead of an id in a Mermaid state diagram; "" when it is good."""
    if not _STATE_ID.fullmatch(text):
        return _alias(text)
    if text in _MERMAID_OWN or text.lower() in _MERMAID_WORDS or _MERMAID_PREFIX.match(text):
        return f"Mermaid takes this id for its own word: {_alias(text)}"
    return ""


@cache
def _flow_id() -> re.Pattern[str]:
    # Not at import: it takes some ms to compile, and who has no flowchart needs none.
    return re.compile(_FLOW_ID)


def flowchart_id_remedy(text: str) -> str:
    """Say what to write instead of an id in a Mermaid flowchart; "" when it is good."""
    if not _flow_id().fullmatch(text):
        return 'use letters, digits, `_` and `.` for ids, and quoted text for other names: `a["any name"]`'
    if _FLOW_WORDS.match(text):
        return f'Mermaid takes this id for its own word: write `{_plain(text)}["{text}"]`'
    return ""


def plantuml_id_remedy(text: str) -> str:
    """Say what to write instead of an id in a PlantUML state diagram; "" when it is good."""
    if not _STATE_ID.fullmatch(text):
        return _alias(text)
    if text.lower() in _PLANTUML_WORDS:
        return f"PlantUML takes this id for its own word: {_alias(text)}"
    return ""


def hint(name: Any, known: Iterable[str], what: str) -> str:
    """Say what may have been meant instead of a name that is not known, and what there is.

    >>> hint("pya", ("pay", "cancel"), "events")
    ", did you mean 'pay'? events of this machine: pay, cancel"
    """
    known = tuple(known)
    meant = did_you_mean(name, known) if isinstance(name, str) else ""
    return f"{meant or ','} {what} of this machine: {', '.join(known) or 'none'}"


def can_stand_bare(name: str) -> bool:
    """Tell whether a state can be written by its name in Mermaid and PlantUML alike."""
    return not (mermaid_id_remedy(name) or plantuml_id_remedy(name) or "." in name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which of the known names a misspelt one may be; "" where none is close.

    >>> did_you_mean("payy", ["add", "pay"]), did_you_mean("x", ["add", "pay"])
    (", did you mean 'pay'?", '')
    """
    # A name may have been given with the marks of the diagram.
    close = difflib.get_close_matches(name.rstrip("!?"), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _alias(text: str) -> str:
    name = text if not state_name_remedy(text) else "any name"
    return f'declare `state "{name}" as {_plain(text)}` and use `{_plain(text)}`'


def _plain(text: str) -> str:
    """Make an id out of any text that no syntax misreads."""
    plain = re.sub(r"\W+", "_", text).strip("_")[:40]
    bad = (
        not plain
        or plain in _MERMAID_OWN
        or plain.lower() in _MERMAID_WORDS | _PLANTUML_WORDS
        or _MERMAID_PREFIX.match(plain)
    )
    return f"{plain or 'a'}_state" if bad or _FLOW_WORDS.match(plain) else plain
