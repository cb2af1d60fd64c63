"""The calls that take FSMs out of Redis whole and put them back: pages of names, and the scripts `dump` and `restore`.

Who calls this: the plans of `fsm.backup`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.store.codec import text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsm.store.keys import Keys

__all__ = [
    "MOST_AT_REST",
    "MOST_DUMPED",
    "MOST_RESTORED",
    "Dump",
    "Dumped",
    "Restore",
    "announced",
    "at_rest",
    "audit",
    "dump",
    "enlist",
    "names",
    "restore",
    "since",
]

# One call of `dump` looks at so many FSMs, and one of `restore` writes so many: a ms or a few in which Redis serves
# nobody else. A reply has to fit into what a socket takes at once (64 KiB of Redis): else Redis goes on only when it
# was read, and the two wait for each other in turn.
MOST_DUMPED = 50
MOST_RESTORED = 100
# Of those that rest, so many: what is asked about them are plain commands, between which others are served.
MOST_AT_REST = 100
# So many bytes are enough for one reply of `dump`, for the same reason; of an FSM with more mail there are more.
_ENOUGH_BYTES = 48 << 10
_SCANNED = 400
# Of so many FSMs it is asked at once whether any has more than a snapshot: one command for each costs as much again.
_TOGETHER = 10


class Dumped(NamedTuple):
    """One FSM as it stood at one moment.

    Args:
        name: Its name.
        since: When it came into its state, ms; "" where its index did not know.
        snapshot: Its hash, as HGETALL lists it; `None` where a key of it is of another type.
        urgent: Ids that go before its mailbox,
        mail: those of its mailbox,
        later: those of its delayed events, each followed by when it is due, soonest first.
        effects: Its open effects: id, note, and deadline in ms or "".
        records: Of each of these ids, as HGETALL lists it.
    """

    name: bytes
    since: bytes
    snapshot: list[bytes] | None
    urgent: Sequence[bytes] = ()
    mail: Sequence[bytes] = ()
    later: Sequence[bytes] = ()
    effects: Sequence[bytes] = ()
    records: Sequence[list[bytes]] = ()


class Dump(NamedTuple):
    """What one call gave: how many of the names were looked at, and those that there are."""

    looked_at: int
    fsms: list[Dumped]


@dataclass(slots=True)
class Restore:
    """One FSM to be put back.

    Args:
        name: Its name.
        since: When it came into its state, ms or "".
        snapshot: Its hash.
        urgent: Ids that go before its mailbox, oldest first,
        mail: those of its mailbox,
        later: its delayed events: id and when each is due, in the order in which they come.
        effects: Its open effects: id, note, and deadline in ms or "".
        records: Of each of these ids; empty where it has none.
    """

    name: str | bytes
    since: str
    snapshot: Mapping[str, str | bytes]
    urgent: Sequence[str | bytes] = ()
    mail: Sequence[str | bytes] = ()
    later: Sequence[tuple[str | bytes, str]] = ()
    effects: Sequence[tuple[str, str | bytes, str]] = ()
    records: Sequence[Mapping[str, str | bytes]] = field(default=())


def names(keys: Keys, cursor: int) -> Request[tuple[int, list[bytes]]]:
    """Read a page of the names of all FSMs of a namespace, and the cursor of the next: 0 after the last.

    Each that is there from the first page to the last comes at least once, however it moves meanwhile.
    """
    begin = keys.snapshot("").encode()
    # No character of a namespace has a meaning in a pattern.
    command = ("SCAN", cursor, "MATCH", f"{keys.snapshot('')}*", "COUNT", _SCANNED)

    def read(reply: list[Any]) -> tuple[int, list[bytes]]:
        return int(reply[0]), [key[len(begin) :] for key in reply[1]]

    return Request(read, commands=[command], is_ahead=True)


def dump(keys: Keys, wanted: Sequence[bytes | str], enough: int = _ENOUGH_BYTES) -> Request[Dump]:
    """Give FSMs as they stand, at most `MOST_DUMPED`; behind the last that was looked at, ask again."""

    def read(reply: list[Any]) -> Dump:
        found = []
        for one in reply[2:]:
            if one[1] == b"BROKEN":
                found.append(Dumped(one[0], b"", None))
            else:
                found.append(Dumped(*one))
        return Dump(reply[1], found)

    return Request(read, "dump", (), [keys.prefix, enough, *wanted], is_ahead=True)


def at_rest(keys: Keys, wanted: Sequence[bytes]) -> Request[tuple[int, list[list[bytes] | None]]]:
    """Give the snapshots of FSMs that have nothing else, and when it was asked who has more, ms: before any was read.

    By plain commands, in this order, which cost Redis half of what `dump` does. Of those that have more there is
    `None`; a few are asked about together, and where one of them has more, there is `None` of each of them.

    Raises:
        StoreError: A snapshot is of another type: `dump` tells which.
    """
    snapshot = keys.snapshot("").encode()
    more = [part("").encode() for part in (keys.mailbox, keys.urgent, keys.later, keys.effects_of)]
    commands: list[tuple[Any, ...]] = [("TIME",)]
    commands += [
        ("EXISTS", *[part + name for name in wanted[first : first + _TOGETHER] for part in more])
        for first in range(0, len(wanted), _TOGETHER)
    ]
    groups = len(commands)
    commands += [("HGETALL", snapshot + name) for name in wanted]

    def read(replies: list[Any]) -> tuple[int, list[list[bytes] | None]]:
        s, us = map(int, replies[0])
        found = list(map(_flat, replies[groups:])) if dict in set(map(type, replies)) else replies[groups:]
        for at, has_more in enumerate(replies[1:groups]):
            if has_more:
                first = at * _TOGETHER
                found[first : first + _TOGETHER] = [None] * len(found[first : first + _TOGETHER])
        return 1000 * s + us // 1000, found

    return Request(read, commands=commands, is_ahead=True)


def since(indexes: Sequence[tuple[str, Sequence[bytes]]]) -> Request[list[list[bytes]]]:
    """Tell since when FSMs are in the states of these indexes, ms; b"" of those that are not in theirs."""
    commands = [("ZMSCORE", index, *wanted) for index, wanted in indexes]

    def read(replies: list[Any]) -> list[list[bytes]]:
        all_of = replies if len(commands) > 1 else [replies]
        # redis-py may have made numbers of them.
        return [
            [b"" if at is None else b"%.17g" % at if isinstance(at, float) else at for at in scores]
            for scores in all_of
        ]

    return Request(read, commands=commands, is_ahead=True)


def _flat(found: Any) -> list[bytes]:
    """Give a hash as Redis lists it; redis-py may have made a mapping of it."""
    return [part for pair in found.items() for part in pair] if isinstance(found, dict) else found


def restore(keys: Keys, fsms: Iterable[Restore], *, is_check: bool = False) -> Request[list[str]]:
    """Put FSMs back, at most `MOST_RESTORED`; one word an FSM comes back.

    On a crash: of each call all FSMs were restored or none. Restored again, they are KEPT.

    Args:
        keys: Of the namespace.
        fsms: Each with a name of its own.
        is_check: Write nothing, and say what would be done.
    """
    arguments: list[Any] = [keys.prefix, keys.default_queue, keys.namespace, "check" if is_check else ""]
    for one in fsms:
        size = str(2 * len(one.snapshot))
        if not (one.records or one.effects):
            arguments += (
                one.name,
                one.since,
                size,
                "0",
                "0",
                "0",
                "0",
                "0",
                *chain.from_iterable(one.snapshot.items()),
            )
            continue
        counts = map(str, map(len, (one.urgent, one.mail, one.later, one.effects, one.records)))
        arguments += (one.name, one.since, size, *counts, *chain.from_iterable(one.snapshot.items()))
        arguments += one.urgent
        arguments += one.mail
        for parts in (*one.later, *one.effects):
            arguments += parts
        arguments += map(_packed, one.records)
    about = (keys.timers, keys.effects, keys.states)
    return Request(lambda reply: [text(word) for word in reply], "restore", about, arguments, is_ahead=True)


def _packed(record: Mapping[str, str | bytes]) -> bytes:
    """Write a record into one argument: Redis takes no more than a million of them, and an FSM may have much mail."""
    words = [word.encode() if isinstance(word, str) else word for pair in record.items() for word in pair]
    return b"".join([b"%d:%b" % (len(word), word) for word in words])


def announced(keys: Keys) -> Request[list[tuple[bytes, bytes]]]:
    """Read what was announced of machines: name and JSON of each."""
    return Request(lambda reply: sorted(reply.items()), commands=[("HGETALL", keys.machines)])


def enlist(keys: Keys, machines: Iterable[tuple[str | bytes, str | bytes]], states: Iterable[str]) -> Request[None]:
    """Announce machines as they were, with their states; what was announced since is left as it is.

    On a crash: some are announced, or their states are not listed; the next worker announces both.
    """
    commands: list[tuple[Any, ...]] = [("HSETNX", keys.machines, name, about) for name, about in machines]
    commands += [("SADD", keys.states, state) for state in states]
    return Request(lambda _: None, commands=commands)


def audit(keys: Keys, name: str, most: int) -> Request[list[tuple[bytes, dict[bytes, bytes]]]]:
    """Read the newest entries of the audit of an FSM, the newest first."""
    return Request(list, commands=[("XREVRANGE", keys.audit(name), "+", "-", "COUNT", most)])
