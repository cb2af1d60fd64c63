"""A plan that finds FSMs by what they are: a page at a time, by the indexes, in an order that stays.

FSMs come by machine, state, and since when they are in it; those of the same ms by name. The cursor of a page is a
place in that order and no number, so nobody who leaves shifts the others over the edge of a page. Who came to his state
after the first page was read is left out: so each FSM comes once at most, and each that stands still comes.
Machines and states come by their names: a deploy may give those of a diagram another order while somebody turns pages.

Plain commands, and no script: who may only look must be able to.

Who calls this: the client.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.errors import StoreError
from fsm.store.codec import text, whole
from fsm.store.requests import Request
from fsm.verbs.filters import LATEST_MS, Seat, read_cursor
from fsm.verbs.looking import indexed, states
from fsm.verbs.moments import clock, read_clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fsm.store.codec import Snapshot
    from fsm.store.keys import Keys
    from fsm.verbs.filters import Filters
    from fsm.verbs.plans import Plan

__all__ = ["Snapshots", "query"]

# With filters that no index serves a page may find nobody: after so many looks it is given all the same.
_MOST_LOOKS = 1000
_LOOKS_AT_ONCE = 250
# Of FSMs of the same ms so many are read again, in case that some of them have left: as many times more, if they have.
_OVERLAP = 16
# A clock that stands still (in memory that of this process, which tests stop) is not waited for any longer.
_MOST_ROUNDS = 1000
_Index = tuple[str, str, str]


class Snapshots(list["Snapshot"]):
    """FSMs as a query found them, and where the next page begins.

    Attributes:
        cursor: For `query(cursor=…)` with the same filters; "" after the last page.
        as_of: When the first page was read: who came to his state later is left out. Aware, UTC. Where the clock of
            Redis was set back, the latest time at which anybody came to his state.
    """

    def __init__(self, found: Iterable[Snapshot] = (), cursor: str = "", as_of: datetime | None = None) -> None:
        super().__init__(found)
        self.cursor = cursor
        self.as_of = as_of or datetime.now(UTC)

    def __repr__(self) -> str:
        """Show what is in it, and whether more is to come."""
        return f"Snapshots({super().__repr__()}, cursor={self.cursor!r})"


class _Facts(NamedTuple):
    """What filters look at, where no index tells it."""

    machine: str
    state: str
    status: str
    has_error: bool
    born: int
    updated_ms: int


def query(keys: Keys, filters: Filters) -> Plan[Snapshots]:
    """Read one page.

    Raises:
        PayloadError: The cursor is none that a page with these filters gave.
    """
    seal = filters.seal()
    start, began_ms = read_cursor(filters.cursor, seal) if filters.cursor else (None, 0)
    order = yield from _seats(keys, filters)
    if start is not None:
        # Also where nobody knows that state any more: it has its place in the order of names.
        order = [start, *(seat for seat in order if seat.rank > start.rank)]
    began_ms, room = yield from _begin(keys, filters, order, began_ms)
    # Those that are empty now are passed over: who comes to them meanwhile has changed his state.
    seats = order = [seat for seat in order if room[seat.where]]
    low, high = _scores(filters, began_ms)
    found: list[Snapshot] = []
    looks = 0
    while seats and len(found) < filters.limit and looks < _MOST_LOOKS:
        wanted = filters.limit - len(found)
        if _needs_looks(filters):
            wanted = max(wanted, min(_LOOKS_AT_ONCE, _MOST_LOOKS - looks))
        met, seats = yield from _next(keys, seats, room, (low, high), wanted)
        looks += len(met)
        hits = yield from _hits(keys, filters, met, began_ms)
        if len(found) + len(hits) > filters.limit:
            # What is too much is met again by the next page.
            hits = hits[: filters.limit - len(found)]
            last = hits[-1][0]
            at = next(at for at, seat in enumerate(order) if seat.where == last.where)
            seats = [last, *order[at + 1 :]]
        found += (snapshot for _, snapshot in hits)
    cursor = seats[0].written(began_ms, seal) if seats else ""
    return Snapshots(found, cursor, datetime.fromtimestamp(began_ms / 1000, UTC))


def _seats(keys: Keys, filters: Filters) -> Plan[list[Seat]]:
    """Give the beginnings of all indexes that may hold what is asked for, in their order."""
    machine, state = filters.machine, filters.state
    if machine is not None and (filters.failed or state is not None):
        pairs = [(machine, state or "")]
    else:
        every = yield indexed(keys)
        pairs = [pair for pair in every if machine in (None, pair[0]) and state in (None, pair[1])]
    if filters.failed:
        return [Seat("errors", name, "") for name in dict.fromkeys(name for name, _ in pairs)]
    kinds: tuple[str, ...] = ("state", "finished")
    # A damaged one may be anywhere.
    if filters.status not in (None, "damaged"):
        kinds = ("finished",) if filters.status == "finished" else ("state",)
    return [Seat(kind, *pair) for pair in pairs for kind in kinds]


def _begin(keys: Keys, filters: Filters, seats: Sequence[Seat], began_ms: int) -> Plan[tuple[int, dict[_Index, int]]]:
    """Tell when the first page was read, and how many FSMs are in each index.

    Of a first page nothing is read in the ms in which it began: who comes to his state while it is read comes later.
    Where the clock of Redis was set back, some came to their state after that ms: they are to be found all the same.
    """
    sized = [("ZCARD", _key(keys, seat)) for seat in seats]
    if began_ms:
        sizes = (yield _each(sized)) if sized else []
        return began_ms, {seat.where: int(size) for seat, size in zip(seats, sizes, strict=True)}
    last = [("ZRANGE", _key(keys, seat), 0, 0, "REV", "WITHSCORES") for seat in seats]
    time = clock()
    count = len(time)
    began_ms = read_clock((yield _each(time)), count)
    sizes = ends = []
    for _ in range(_MOST_ROUNDS):
        replies = yield _each([*time, *sized, *last])
        sizes, ends = replies[count : count + len(seats)], replies[count + len(seats) :]
        if read_clock(replies, count) != began_ms:
            break
    if filters.in_state_longer_than is None:
        latest = max((score for end in ends for _, score in _rows(end)), default=0.0)
        began_ms = int(max(began_ms, min(latest, LATEST_MS)))
    return began_ms, {seat.where: int(size) for seat, size in zip(seats, sizes, strict=True)}


def _key(keys: Keys, seat: Seat) -> str:
    if seat.kind == "errors":
        return keys.errors(seat.machine)
    return (keys.state if seat.kind == "state" else keys.finished_of)(seat.machine, seat.state)


def _scores(filters: Filters, began_ms: int) -> tuple[int, int]:
    """Give the scores between which all lies that is asked for: nobody came to his state before he was started."""
    low = 0 if filters.started_after is None else max(0, filters.started_after // 1000)
    high = began_ms
    # A failure may be noted long after the last commit, of which `updated_at` tells.
    if filters.updated_before is not None and not filters.failed:
        high = min(high, filters.updated_before - 1)
    if filters.in_state_longer_than is not None and not filters.failed:
        high = min(high, began_ms - filters.in_state_longer_than - 1)
    return low, high


def _next(
    keys: Keys, seats: list[Seat], room: Mapping[_Index, int], scores: tuple[int, int], wanted: int
) -> Plan[tuple[list[Seat], list[Seat]]]:
    """Read who comes next, as places at which one can go on; and what is left then.

    Several small indexes are read in one round trip: a machine may have many states with few FSMs in each.
    """
    if seats[0].since >= 0:
        met, is_over = yield from _behind(keys, seats[0], scores[1], wanted)
        return met, seats[1:] if is_over else [met[-1], *seats[1:]]
    asked, expected = [], 0
    for seat in seats:
        asked.append(seat)
        expected += room[seat.where]
        if expected >= wanted:
            break
    replies = yield _each([_range(keys, seat, *scores, 0, wanted) for seat in asked])
    met = []
    for at, (seat, reply) in enumerate(zip(asked, replies, strict=True)):
        rows = _rows(reply)
        met += _counted(seat, rows, 0)
        if len(rows) == wanted:
            return met, [met[-1], *seats[at + 1 :]]
    return met, seats[len(asked) :]


def _behind(keys: Keys, seat: Seat, high: int, wanted: int) -> Plan[tuple[list[Seat], bool]]:
    """Read who comes behind a place, and whether those are the last; who stood there may have left.

    Of those with the same score some are passed over unread, as many as were met by then. If some of them have left,
    that is too many: so what is read begins a little before, and further before if even that is behind the place.
    """
    overlap = _OVERLAP
    skipped = max(0, seat.ties - overlap)
    while True:
        count = wanted + overlap
        (reply,) = yield _each([_range(keys, seat, seat.since, high, skipped, count)])
        rows = _rows(reply)
        place = (seat.since, seat.name)
        if skipped and (not rows or (rows[0][1], rows[0][0]) > place):
            overlap *= 8
            skipped = max(0, skipped - overlap)
            continue
        met = [one for one in _counted(seat, rows, skipped) if (one.since, one.name) > place]
        if len(rows) < count:
            return met, True
        if met:
            return met, False
        # As many have come to this score, before the place.
        skipped += len(rows) - 1


def _range(keys: Keys, seat: Seat, low: float, high: float, skipped: int, count: int) -> tuple[Any, ...]:  # noqa: PLR0913 - the arguments of one command
    return ("ZRANGE", _key(keys, seat), low, high, "BYSCORE", "LIMIT", skipped, count, "WITHSCORES")


def _rows(reply: Any) -> list[tuple[bytes, float]]:
    """Read members with their scores, which redis-py gives as pairs, or one after the other."""
    if reply and isinstance(reply[0], list | tuple):
        return [(member, float(score)) for member, score in reply]
    return [(member, float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]


def _counted(seat: Seat, rows: Iterable[tuple[bytes, float]], skipped: int) -> list[Seat]:
    """Make places of FSMs, each with how many of its score were met by then."""
    met: list[Seat] = []
    since, ties = seat.since, skipped
    for name, score in rows:
        ties = ties + 1 if score == since else 1
        since = score
        met.append(Seat(*seat.where, score, name, ties))
    return met


def _needs_looks(filters: Filters) -> bool:
    """Tell whether the indexes that are read hold more than what is asked for."""
    by_snapshot = (filters.started_after, filters.updated_before)
    if any(one is not None for one in by_snapshot) or filters.status not in (None, "finished"):
        return True
    if filters.failed:
        return any(one is not None for one in (filters.state, filters.status, filters.in_state_longer_than))
    return filters.failed is False


def _hits(keys: Keys, filters: Filters, met: list[Seat], began_ms: int) -> Plan[list[tuple[Seat, Snapshot]]]:
    """Read those of them that are asked for; who was purged meanwhile is left out."""
    if _needs_looks(filters) and filters.status != "damaged":
        met = yield from _looked(keys, filters, met, began_ms)
    snapshots = yield from states(keys, [text(seat.name) for seat in met], damaged_too=True)
    return [
        (seat, snapshot)
        for seat, snapshot in zip(met, snapshots, strict=True)
        if snapshot is not None and _is_asked(filters, seat, snapshot)
    ]


def _is_asked(filters: Filters, seat: Seat, snapshot: Snapshot) -> bool:
    """Tell whether an FSM is what is asked for: it may have moved since the index was read."""
    if snapshot.status == "damaged":
        # What it says of itself cannot be trusted; where it was found, the index says.
        unknown = (filters.failed, filters.started_after, filters.updated_before)
        return filters.status in (None, "damaged") and all(one is None for one in unknown)
    # Where they are not asked for, numbers cost more than they tell.
    born = whole(snapshot.born) if filters.started_after is not None else 0
    updated_ms = round(snapshot.updated_at.timestamp() * 1000) if filters.updated_before is not None else 0
    has_error = snapshot.error is not None
    facts = _Facts(snapshot.machine, snapshot.state, snapshot.status, has_error, born, updated_ms)
    if filters.in_state_longer_than is not None and not filters.failed and _place_of(facts).where != seat.where:
        return False  # it has moved since
    return _fits(filters, facts)


def _looked(keys: Keys, filters: Filters, met: list[Seat], began_ms: int) -> Plan[list[Seat]]:
    """Look at the few fields that filters speak of, to read those FSMs alone that are asked for."""
    fields = _fields(filters)
    commands = [("HMGET", keys.snapshot(text(seat.name)), *fields) for seat in met]
    if not commands:
        return []
    try:
        replies = yield _each(commands)
    except StoreError as error:
        if "WRONGTYPE" not in error.problem:
            raise
        # Redis does not say of which key it speaks: each is read by itself, and that tells.
        return met
    facts = [_facts(filters, dict(zip(fields, reply, strict=True))) for reply in replies]
    hits = [(seat, one) for seat, one in zip(met, facts, strict=True) if _fits(filters, one)]
    if hits and filters.failed and filters.in_state_longer_than is not None:
        high = began_ms - filters.in_state_longer_than
        scores = yield _each([("ZSCORE", _key(keys, _place_of(one)), seat.name) for seat, one in hits])
        hits = [hit for hit, score in zip(hits, scores, strict=True) if score is not None and float(score) < high]
    return [seat for seat, _ in hits]


def _place_of(one: _Facts) -> Seat:
    return Seat("finished" if one.status == "finished" else "state", one.machine, one.state)


def _fields(filters: Filters) -> list[str]:
    """Name the fields that tell what no index does; machine and state, where an index is theirs, it does."""
    fields = []
    if filters.failed and (filters.state is not None or filters.in_state_longer_than is not None):
        fields += ["machine", "state"]
    if filters.status is not None or (filters.failed and filters.in_state_longer_than is not None):
        fields += ["status", "paused"]
    asked = {"error": filters.failed, "born": filters.started_after, "updated_at": filters.updated_before}
    return fields + [field for field, value in asked.items() if value is not None]


def _facts(filters: Filters, known: Mapping[str, bytes | None]) -> _Facts:
    """Read the fields that were asked for; of all else it is what is asked for."""
    phase = filters.status or ""
    if "status" in known:
        phase = text(known["status"]) or "running"
        if known["paused"] is not None and phase in ("starting", "running"):
            phase = "paused"
    is_placed = "machine" in known
    return _Facts(
        text(known["machine"]) if is_placed else filters.machine or "",
        text(known["state"]) if is_placed else filters.state or "",
        phase,
        known["error"] is not None if "error" in known else False,
        whole(known["born"]) if "born" in known else 0,
        whole(known["updated_at"]) if "updated_at" in known else 0,
    )


def _fits(filters: Filters, one: _Facts) -> bool:
    return (
        filters.machine in (None, one.machine)
        and filters.state in (None, one.state)
        and filters.status in (None, one.status)
        and filters.failed in (None, one.has_error)
        and (filters.started_after is None or one.born > filters.started_after)
        and (filters.updated_before is None or one.updated_ms < filters.updated_before)
    )


def _each(commands: Sequence[tuple[Any, ...]]) -> Request[list[Any]]:
    """Send commands in one round trip; one reply each, also where there is one only."""
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)
