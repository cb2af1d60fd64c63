"""Members of the sorted set `timers`: what is to come, in one word and what it needs; the score is when.

Of equal times Redis sorts by the bytes of the member: deadlines of effects come before delayed mail, that before events
that are to be tried again, those before timers; and delayed mail comes in the order in which it was accepted.

    deadline <id> <name>      an effect that has to have answered by then
    mail <number> <id> <name> a delayed event; the number, of 16 digits, is that of its acceptance
    retry <name>              the oldest event of this FSM is to be tried again
    timer <key> <name>        a timer of this FSM; no key holds a blank

Who calls this: what writes and reads these members in Python. The scripts write them alike.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Alarm", "deadline", "mail", "parse", "retry", "timer"]


class Alarm(NamedTuple):
    """What one member says: `what` is an id, a key or "", `of` is the name of an FSM."""

    kind: str
    what: str
    of: str


def deadline(job_id: str, name: str) -> str:
    """Give the member of the deadline of an effect."""
    return f"deadline {job_id} {name}"


def mail(number: int, job_id: str, name: str) -> str:
    """Give the member of a delayed event.

    >>> mail(42, "5f3a", "order 42")
    'mail 0000000000000042 5f3a order 42'
    """
    return f"mail {number:016d} {job_id} {name}"


def retry(name: str) -> str:
    """Give the member of an event that is to be tried again."""
    return f"retry {name}"


def timer(key: str, name: str) -> str:
    """Give the member of a timer."""
    return f"timer {key} {name}"


def parse(member: str) -> Alarm | None:
    """Read a member; `None` where it is none of ours.

    >>> parse("timer expire order 42")
    Alarm(kind='timer', what='expire', of='order 42')
    >>> parse("mail 0000000000000042 5f3a order 42")
    Alarm(kind='mail', what='5f3a', of='order 42')
    """
    kind, _, rest = member.partition(" ")
    if kind == "mail":
        rest = rest.partition(" ")[2]
    if kind == "retry" and rest:
        return Alarm(kind, "", rest)
    what, _, of = rest.partition(" ")
    return Alarm(kind, what, of) if kind in {"deadline", "mail", "timer"} and what and of else None
