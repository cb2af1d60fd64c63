"""What is noted of lives that are over and whose rows lie in a storage: who purges may have no access to that.

Who calls this: workers that know the storage, and the command that looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsm.store.keys import Keys

__all__ = ["MOST_AT_ONCE", "Over", "counts", "forget", "noted", "over"]

# One look takes so many of a machine: one transaction of its storage.
MOST_AT_ONCE = 200
# The id of a life is µs since 1970.
_MOST_DIGITS = 18


class Over(NamedTuple):
    """What is noted of one machine.

    Args:
        notes: As they lie there, the oldest first.
        lives: What they say: name -> `born`, of two of one name the later; without what was written there by hand.
    """

    notes: list[bytes]
    lives: dict[str, str]


def over(keys: Keys, machines: Sequence[str], age_ms: int) -> Request[dict[str, Over]]:
    """Read what is noted of machines, at most `MOST_AT_ONCE` of each; who has nothing is not in it.

    Args:
        keys: Of the namespace.
        machines: Their names, at least one.
        age_ms: Only what was noted so long ago, at least.
    """

    def read(replies: list[Any]) -> dict[str, Over]:
        (s, us), *noted = replies
        until_ms = int(s) * 1000 + int(us) // 1000 - age_ms
        found = {machine: _read(scored, until_ms) for machine, scored in zip(machines, noted, strict=True)}
        return {machine: one for machine, one in found.items() if one.notes}

    looks = [("ZRANGE", keys.drops(machine), 0, MOST_AT_ONCE - 1, "WITHSCORES") for machine in machines]
    return Request(read, commands=[("TIME",), *looks])


def _read(scored: list[Any], until_ms: int) -> Over:
    # As pairs, or one behind the other.
    pairs = scored if scored and not isinstance(scored[0], bytes) else zip(scored[::2], scored[1::2], strict=True)
    notes = [note for note, at_ms in pairs if float(at_ms) <= until_ms]
    lives: dict[str, str] = {}
    for note in notes:
        born, _, name = text(note).partition(" ")
        if born.isdecimal() and born.isascii() and len(born) <= _MOST_DIGITS and int(born) > int(lives.get(name, "0")):
            lives[name] = born
    return Over(notes, lives)


def forget(keys: Keys, machine: str, notes: Iterable[bytes]) -> Request[int]:
    """Take notes away, those and no others: of a later life of a name there may be one by now.

    On a crash: they are there, and what they are about is dropped once more, which is nothing.

    Args:
        keys: Of the namespace.
        machine: Name of the machine.
        notes: As they were read, at least one.
    """
    return Request(int, commands=[("ZREM", keys.drops(machine), *notes)])


def counts(keys: Keys, machines: Sequence[str]) -> Request[dict[str, int]]:
    """Count what is noted of machines.

    Args:
        keys: Of the namespace.
        machines: Their names, at least one.
    """

    def read(reply: Any) -> dict[str, int]:
        replies = reply if len(machines) > 1 else [reply]
        return {machine: int(count) for machine, count in zip(machines, replies, strict=True)}

    return Request(read, commands=[("ZCARD", keys.drops(machine)) for machine in machines])


def noted(keys: Keys, machines: Sequence[str], lives: Mapping[str, str]) -> Request[set[str]]:
    """Tell which of these lives are noted as over, by name.

    Args:
        keys: Of the namespace.
        machines: Those that they may be of, at least one.
        lives: Name -> `born`, at least one.
    """
    notes = [f"{born} {name}" for name, born in lives.items()]

    def read(replies: Any) -> set[str]:
        found = replies if len(machines) > 1 else [replies]
        return {name for scores in found for name, score in zip(lives, scores, strict=True) if score is not None}

    return Request(read, commands=[("ZMSCORE", keys.drops(machine), *notes) for machine in machines])
