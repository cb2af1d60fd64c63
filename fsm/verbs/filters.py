"""What a query may ask for: filters, checked one by one, and the place where its next page begins.

Who calls this: the plan behind `client.query`, and storages, which take the same filters.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fsm.errors import ConfigError, PayloadError
from fsm.machine import did_you_mean
from fsm.machine.durations import duration_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LATEST_MS", "MOST_OF_QUERY", "STATUSES", "Filters", "Seat", "read_cursor", "read_filters"]

MOST_OF_QUERY = 1000
STATUSES = ("starting", "running", "paused", "finished", "failed", "damaged")
_KINDS = ("state", "finished", "errors")
# The last ms that a `datetime` can be.
LATEST_MS = 253_402_300_799_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is asked for; all of it holds together, and what is None was not asked.

    Args:
        machine: Name of the machine.
        state: Name of the state.
        status: One of `STATUSES`.
        failed: True for those whose last event failed, False for all others.
        started_after: µs since 1970; itself left out.
        updated_before: ms since 1970; itself left out.
        in_state_longer_than: ms; itself left out.
        limit: Most on a page.
        cursor: Where the page before ended; "" begins.
    """

    machine: str | None = None
    state: str | None = None
    status: str | None = None
    failed: bool | None = None
    started_after: int | None = None
    updated_before: int | None = None
    in_state_longer_than: int | None = None
    limit: int = 100
    cursor: str = ""

    def seal(self) -> str:
        """Give what ties a cursor to these filters; of how many a page has it is free."""
        asked = [getattr(self, one.name) for one in fields(self) if one.name not in ("limit", "cursor")]
        return f"{zlib.crc32(orjson.dumps(asked)):08x}"


def read_filters(what: str, given: Mapping[str, Any]) -> Filters:
    """Check filters as a caller gave them; one that is None was not given.

    Args:
        what: What the error names: the call.
        given: The filters.

    Raises:
        ConfigError: There is no such filter, or a value is not allowed.
    """
    known = [one.name for one in fields(Filters)]
    for name in given:
        if name not in known:
            problem = f"no such filter{did_you_mean(name, known) or ','} filters are {', '.join(known)}"
            raise ConfigError(f"{what}({name}=…)", problem)
    checked: dict[str, Any] = {
        name: _CHECKS[name](f"{what}({name}=…)", value) for name, value in given.items() if value is not None
    }
    return Filters(**checked)


def _name(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(what, f"{value!r} is no name: use text")
    return value


def _status(what: str, value: Any) -> str:
    if value not in STATUSES:
        raise ConfigError(what, f"{value!r} is no status: use {', '.join(STATUSES[:-1])} or {STATUSES[-1]}")
    return str(value)


def _bool(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(what, f"{value!r} is not allowed: use True or False")
    return value


def _time(what: str, value: Any) -> int:
    """Give µs since 1970: exact, where a float would not be."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError(what, f"{value!r} is not allowed: use an aware datetime, such as datetime.now(UTC)")
    whole, rest = divmod(value.timestamp(), 1)
    return int(whole) * 1_000_000 + (value.microsecond if rest or value.microsecond else 0)


def _time_ms(what: str, value: Any) -> int:
    # Times of commits are whole ms: before this one is before the next whole one.
    return -(-_time(what, value) // 1000)


def _limit(what: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_OF_QUERY:
        raise ConfigError(what, f"a page has 1 to {MOST_OF_QUERY} FSMs, not {value!r}")
    return value


def _length(what: str, value: Any) -> int:
    return duration_ms(value, what)


def _cursor(what: str, value: Any) -> str:
    if not isinstance(value, str):
        problem = f"{value!r} is no cursor: give the one of the page before, as it is, or none for the first page"
        raise PayloadError(problem, what)
    return value


_CHECKS = {
    "machine": _name,
    "state": _name,
    "status": _status,
    "failed": _bool,
    "started_after": _time,
    "updated_before": _time_ms,
    "in_state_longer_than": _length,
    "limit": _limit,
    "cursor": _cursor,
}


class Seat(NamedTuple):
    """A place in an index: the index, and the last FSM that was met in it.

    Args:
        kind: "state" or "finished" of a machine and state, or "errors" of a machine.
        machine: The machine.
        state: The state; "" of "errors".
        since: Score of that FSM in the index, ms; -1 at its beginning.
        name: Of that FSM.
        ties: How many FSMs of this very score were met by then, with that one.
    """

    kind: str
    machine: str
    state: str
    since: float = -1
    name: bytes = b""
    ties: int = 0

    @property
    def where(self) -> tuple[str, str, str]:
        """Which index it is in."""
        return self[:3]

    @property
    def rank(self) -> tuple[str, str, int]:
        """Where that index comes among the others."""
        return self.machine, self.state, _KINDS.index(self.kind)

    def written(self, began_ms: int, seal: str) -> str:
        """Give the cursor of a page that ends here."""
        about = [*self[:4], self.name.decode("latin-1"), self.ties, began_ms, seal]
        return urlsafe_b64encode(orjson.dumps(about)).decode().rstrip("=")


def read_cursor(cursor: str, seal: str) -> tuple[Seat, int]:
    """Read where a page begins, and when the first one was read.

    Raises:
        PayloadError: This is no cursor that a page with these filters gave.
    """
    try:
        raw = cursor.encode("ascii")
        kind, machine, state, since, name, ties, began_ms, of = orjson.loads(
            urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
        )
        seat = Seat(kind, machine, state, since, name.encode("latin-1"), ties)
        numbers = type(since) in (int, float) and type(ties) is int and type(began_ms) is int
        if not (numbers and kind in _KINDS and isinstance(machine, str) and isinstance(state, str)):
            raise ValueError(kind)  # noqa: TRY301 - one remedy for all that may be wrong with it
        if not (-1 <= since < 2**53 and 0 <= ties < 2**53 and 0 <= began_ms <= LATEST_MS):
            raise ValueError(since)  # noqa: TRY301 - as above
    except (AttributeError, TypeError, ValueError) as error:
        problem = f"{cursor!r} is no cursor: give the one of the page before, as it is, or none for the first page"
        raise PayloadError(problem, "cursor") from error
    if of != seal:
        problem = f"{cursor!r} is a cursor of other filters: give the same with each page, or none for the first page"
        raise PayloadError(problem, "cursor")
    return seat, began_ms
