"""The grammar of labels on edges, the same in all syntaxes: `EVENT`, marks, guards, `after` and `fails`.

Who calls this: drafts, with what a syntax found behind an arrow. PURE.

    label  = part { "," part }
    part   = event [ "!" | "?" ] [ "[" [ "not" ] guard "]" ] [ "after" duration ]
           | event "fails"
    event, guard = letters of any script, digits and `_`, inside also `.` and `-`; no digit first
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fsm.errors import ConfigError
from fsm.machine.durations import duration_ms
from fsm.machine.graph import Guard
from fsm.machine.names import EVENT

__all__ = ["Label", "LabelFault", "read_label"]

_PART = re.compile(r"(?P<event>[^\s\[\]!?]+)(?P<mark>[!?]*)\s*(?:\[(?P<guard>[^\[\]]*)\])?\s*(?P<rest>.*)", re.DOTALL)
_GUARD = re.compile(r"\s*(?:(?P<negated>not)\s+)?(?P<name>\S+)\s*")
_FORMS = "`EVENT`, `EVENT [guard]`, `EVENT!`, `EVENT?`, `EVENT after 24h` or `EVENT fails`, several divided by commas"


@dataclass(frozen=True, slots=True)
class Label:
    """One part of a label: what an edge has beside its source and target."""

    event: str
    guard: Guard | None = None
    mark: str = ""
    fails: bool = False
    after_ms: int | None = None


class LabelFault(Exception):  # noqa: N818 - never leaves this room: a draft turns it into a fault with its line
    """A label that cannot be read.

    Args:
        what: What is wrong.
        remedy: What to write instead.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


def read_label(text: str) -> tuple[list[Label], list[LabelFault]]:
    """Read the parts of a label; those that are wrong come as faults, all of them."""
    labels, faults = [], []
    for part in text.split(","):
        try:
            labels.append(_read_part(part.strip()))
        except LabelFault as fault:
            faults.append(fault)
    return labels, faults


def _read_part(text: str) -> Label:
    if not text:
        raise LabelFault("an event is missing in the label", f"write {_FORMS}")
    found = _PART.fullmatch(text)
    if not found or not EVENT.fullmatch(found["event"]):
        problem = f"{text!r} does not begin with the name of an event"
        raise LabelFault(problem, f"write {_FORMS}; names are of letters, digits and `_`, inside also `.` and `-`")
    event, mark, rest = found["event"], found["mark"], found["rest"]
    if len(mark) > 1:
        raise LabelFault(
            f"event {event!r} has more than one mark", f"an event is hard, `{event}!`, or soft, `{event}?`"
        )
    guard = None if found["guard"] is None else _read_guard(found["guard"])
    if rest == "fails":
        if mark or guard:
            problem = f"the failure of {event!r} has a mark or a guard"
            raise LabelFault(problem, f"write `{event} fails` without them: that edge is taken whenever {event} fails")
        return Label(event, fails=True)
    return Label(event, guard, mark, after_ms=_read_after(event, mark, rest) if rest else None)


def _read_guard(text: str) -> Guard:
    found = _GUARD.fullmatch(text)
    if not found or not EVENT.fullmatch(found["name"]) or found["name"] == "not":
        raise LabelFault(f"the guard [{text}] cannot be read", "write `[guard]`, `[not guard]` or `[else]`")
    if found["name"] == "else" and found["negated"]:
        raise LabelFault("[not else] means nothing", "write the guard of the other edge here")
    return Guard(found["name"], found["negated"] is not None)


def _read_after(event: str, mark: str, rest: str) -> int:
    word, _, duration = rest.partition(" ")
    if word in {"!", "?"}:
        raise LabelFault(
            f"the mark of event {event!r} stands alone", f"write it directly behind the event: `{event}{word}`"
        )
    if word != "after":
        raise LabelFault(f"{rest!r} behind event {event!r} cannot be read", f"write {_FORMS}")
    if "[" in duration:
        raise LabelFault(f"the guard of event {event!r} stands behind its timer", f"write `{event} [guard] after 24h`")
    try:
        after_ms = duration_ms(duration.strip(), f"{event} after")
    except ConfigError as error:
        raise LabelFault(f"the timer of event {event!r} cannot be read", error.problem) from None
    if not after_ms:
        raise LabelFault(
            f"the timer of event {event!r} takes no time", f"write `{event}!` for what is to happen at once"
        )
    if mark == "!":
        problem = f"event {event!r} is hard and has a timer"
        raise LabelFault(problem, f"write `{event}!` if it is to happen at once, `{event} after …` if later")
    return after_ms
