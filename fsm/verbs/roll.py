"""Plans about all FSMs at once: how many there are, any one of them, and what runs where, a page at a time.

They read the indexes alone, one for each state of a machine, so they cost what is shown. What has finished stands in
indexes of its own, and is passed over without being looked at.

Who calls this: the client.
"""

from __future__ import annotations

import random
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from fsm.errors import PayloadError, StoreError
from fsm.store import places
from fsm.store.codec import text, whole
from fsm.store.requests import Request
from fsm.verbs.looking import indexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["MOST_OF_PAGE", "Page", "Running", "any_name", "count", "page"]

MOST_OF_PAGE = 1000
# With `host=` a page may find nobody: after so many looks it is given all the same, with the place where to go on.
_MOST_LOOKS = 20
_FIELDS = ("machine", "state", "status", "paused", "queue", "updated_at")
# A place in an index, as Redis gives it: a number of 64 bits.
_PLACE = re.compile("[0-9]{1,20}")
# Redis gives a small index whole, however few are asked for; none of them is larger than this by default.
_SMALL = 128


@dataclass(frozen=True, slots=True)
class Running:
    """One FSM that has not finished, and where it is.

    Args:
        machine: Its machine.
        state: Its state.
        status: "starting", "running", "paused" or "failed"; "damaged" where its keys were edited by hand.
        host: Host of the worker that has it in hand; else the host on which it is placed; "" where any may take it.
        worker: The worker that has it in hand, "" where none has.
        since: When it came to its state, aware, UTC.
        waiting: Events that it has yet to apply.
    """

    machine: str
    state: str
    status: str
    host: str
    worker: str
    since: datetime
    waiting: int


class Page(dict[str, Running]):
    """FSMs by name, and where the next page begins.

    Attributes:
        cursor: For `all(cursor=…)`; "" after the last page.
    """

    def __init__(self, found: Iterable[tuple[str, Running]] = (), cursor: str = "") -> None:
        super().__init__(found)
        self.cursor = cursor

    def __repr__(self) -> str:
        """Show what is in it, and whether more is to come."""
        return f"Page({super().__repr__()}, cursor={self.cursor!r})"


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where a page begins: at a state of a machine, at a place that Redis gave, "0" for its beginning."""

    pair: tuple[str, str]
    at: str = "0"

    def written(self) -> str:
        return urlsafe_b64encode(orjson.dumps([*self.pair, self.at])).decode().rstrip("=")


def _read_cursor(cursor: str) -> _Seat | None:
    """Read where a page begins.

    Raises:
        PayloadError: This is no cursor that a page gave.
    """
    if cursor == "":
        return None
    try:
        raw = cursor.encode("ascii")
        machine, state, at = orjson.loads(urlsafe_b64decode(raw + b"=" * (-len(raw) % 4)))
        if not (isinstance(machine, str) and isinstance(state, str) and _PLACE.fullmatch(at) and int(at) < 2**64):
            raise ValueError(at)  # noqa: TRY301 - one remedy for all that may be wrong with it
        return _Seat((machine, state), at)
    except (AttributeError, TypeError, ValueError) as error:
        problem = f"{cursor!r} is no cursor: give the one of the page before, as it is, or none for the first page"
        raise PayloadError(problem, "cursor") from error


def _of(machine: str | None, state: str | None, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if machine in (None, pair[0]) and state in (None, pair[1])]


def count(keys: Keys, machine: str | None = None, state: str | None = None, *, finished: bool = False) -> Plan[int]:
    """Count FSMs: exact, and as dear with a million of them as with one."""
    pairs = _of(machine, state, (yield indexed(keys)))
    if not pairs:
        return 0
    indexes = (keys.state, keys.finished_of) if finished else (keys.state,)
    commands = [("ZCARD", index(*pair)) for pair in pairs for index in indexes]
    # An FSM that moves meanwhile is counted once: nothing moves inside of a transaction.
    return sum(map(int, (yield _each(commands, is_atomic=True))))


def any_name(keys: Keys, machine: str | None = None) -> Plan[str | None]:
    """Draw an FSM that has not finished, each of them as likely as any other; `None` where there is none."""
    pairs = _of(machine, None, (yield indexed(keys)))
    if not pairs:
        return None
    indexes = [keys.state(*pair) for pair in pairs]
    commands = [*(("ZCARD", index) for index in indexes), *(("ZRANDMEMBER", index, 1) for index in indexes)]
    replies = yield _each(commands, is_atomic=True)
    counts, names = [int(size) for size in replies[: len(indexes)]], replies[len(indexes) :]
    if not any(counts):
        return None
    return text(random.choices(names, counts)[0][0])  # noqa: S311 - chance without secrets


def page(
    keys: Keys, machine: str | None = None, *, host: str | None = None, cursor: str = "", most: int = 100
) -> Plan[Page]:
    """Read one page of the FSMs that have not finished.

    Whoever stays in its state while the pages are read is met; who changes it may be left out or come twice.

    Args:
        keys: Of the namespace.
        machine: Only FSMs of this machine.
        host: Only FSMs that are on this host: see `Running`.
        cursor: Of the page before.
        most: About so many: Redis may give some more at once.

    Raises:
        PayloadError: The cursor is none, or so many do not go on a page.
    """
    if type(most) is not int or not 1 <= most <= MOST_OF_PAGE:
        problem = f"a page has 1 to {MOST_OF_PAGE} FSMs, not {most!r}"
        raise PayloadError(problem, "count")
    seat = _read_cursor(cursor)
    pairs = _of(machine, None, (yield indexed(keys)))
    left = [pair for pair in pairs if seat is None or pair >= seat.pair]
    if not left:
        return Page()
    sizes = yield _each([("ZCARD", keys.state(*pair)) for pair in left])
    # Those that are empty now are passed over: what comes to them meanwhile has changed its state.
    seats = [
        _Seat(pair, seat.at if seat is not None and seat.pair == pair else "0")
        for pair, size in zip(left, sizes, strict=True)
        if int(size)
    ]
    room = dict(zip(left, map(int, sizes), strict=True))
    found: dict[str, Running] = {}
    hosts: dict[str, str] = {}
    for _ in range(_MOST_LOOKS):
        if not seats or len(found) >= most:
            break
        rows, seats = yield from _next(keys, seats, room, most - len(found))
        seen = yield from _running(keys, rows, hosts)
        found |= {name: one for name, one in seen if host in (None, one.host)}
    return Page(found.items(), seats[0].written() if seats else "")


def _each(commands: Sequence[tuple[Any, ...]], *, is_atomic: bool = False) -> Request[list[Any]]:
    """Send commands in one round trip; one reply each, also where there is one only."""
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands, is_atomic=is_atomic)


_Row = tuple[tuple[str, str], bytes, float]


def _next(
    keys: Keys, seats: list[_Seat], room: dict[tuple[str, str], int], wanted: int
) -> Plan[tuple[list[_Row], list[_Seat]]]:
    """Read the names that come next, with their states and since when they are in them; and what is left then.

    Several small indexes are read in one round trip: a machine may have many states with few FSMs in each.
    """
    asked, expected = [], 0
    for seat in seats:
        asked.append(seat)
        expected += room[seat.pair]
        if expected >= wanted or room[seat.pair] > _SMALL:
            break
    replies = yield _each([("ZSCAN", keys.state(*seat.pair), seat.at, "COUNT", wanted) for seat in asked])
    rows: list[_Row] = []
    for at, (seat, (cursor, members)) in enumerate(zip(asked, replies, strict=True)):
        rows += ((seat.pair, name, float(score)) for name, score in members)
        if int(cursor):
            # What was read of those behind it is read again in its turn.
            return rows, [_Seat(seat.pair, str(int(cursor))), *seats[at + 1 :]]
    return rows, seats[len(asked) :]


def _running(keys: Keys, rows: Sequence[_Row], hosts: dict[str, str]) -> Plan[list[tuple[str, Running]]]:
    """Read what is to be said of these FSMs; those that have finished or were purged meanwhile are left out.

    Args:
        keys: Of the namespace.
        rows: The FSMs.
        hosts: Of the workers that are known already; more are added.
    """
    if not rows:
        return []
    names = [text(name) for _, name, _ in rows]
    asked = [command for name in names for command in _commands(keys, name)]
    try:
        *replies, locks = yield _each([*asked, ("MGET", *map(keys.lock, names))])
    except StoreError as error:
        if "WRONGTYPE" not in error.problem:
            raise
        # Redis does not say of which key it speaks.
        return (yield from _one_by_one(keys, rows))
    holders = [text(lock).rpartition("/")[0] for lock in locks]
    workers = sorted(set(holders) - hosts.keys() - {""})
    if workers:
        named = yield _each([("HGET", keys.rq_worker(worker), "hostname") for worker in workers])
        hosts.update(zip(workers, map(text, named), strict=True))
    return [
        (name, one)
        for at, (row, name, holder) in enumerate(zip(rows, names, holders, strict=True))
        if (one := _read(row, replies[3 * at : 3 * at + 3], holder, hosts.get(holder, ""))) is not None
    ]


def _commands(keys: Keys, name: str) -> list[tuple[Any, ...]]:
    return [("HMGET", keys.snapshot(name), *_FIELDS), ("LLEN", keys.urgent(name)), ("LLEN", keys.mailbox(name))]


def _one_by_one(keys: Keys, rows: Sequence[_Row]) -> Plan[list[tuple[str, Running]]]:
    """Read FSMs each by itself, where a key of one of them is of another type: so that the others can be told."""
    found: list[tuple[str, Running]] = []
    for pair, name, since_ms in rows:
        try:
            replies = yield _each(_commands(keys, text(name)))
            one = _read((pair, name, since_ms), replies, "", "")
        except StoreError:
            one = Running(*pair, "damaged", "", "", datetime.fromtimestamp(since_ms / 1000, UTC), 0)
        if one is not None:
            found.append((text(name), one))
    return found


def _read(row: _Row, replies: Sequence[Any], worker: str, host: str) -> Running | None:
    """Read what Redis said of one FSM; `None` where there is none any more that has not finished."""
    pair, _, since_ms = row
    raw_machine, raw_state, raw_status, paused, queue, updated_at = replies[0]
    status = text(raw_status) or "running"
    if not raw_machine or status in ("finished", "purging"):
        return None
    machine, state = text(raw_machine), text(raw_state)
    if (machine, state) != pair:
        # It has moved since the index was read.
        since_ms = float(whole(updated_at)) or since_ms
    if paused is not None and status in ("starting", "running"):
        status = "paused"
    if not host and queue is not None:
        host = places.parse(text(queue)).host
    since = datetime.fromtimestamp(since_ms / 1000, UTC)
    return Running(machine, state, status, host, worker, since, int(replies[1]) + int(replies[2]))
