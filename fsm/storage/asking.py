"""What a storage is asked for by `query`: its filters, read and checked, and the cursor of its pages.

A cursor says behind which FSM the next page begins, in the order of machine, state, since when and name; when the last
of all came into its state, as of the first page, since who moved after that may have been told already; and for which
filters all of that holds.

Who calls this: the storages.
"""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

import orjson

from fsm.errors import ConfigError, PayloadError
from fsm.machine.durations import duration_ms
from fsm.storage.protocol import FILTERS, MOST_ROWS
from fsm.storage.rows import ms_of

__all__ = ["Mark", "Question", "read_filters"]

_PAGE = 100
_STATUSES = ("starting", "running", "finished", "failed", "paused")


class Mark(NamedTuple):
    """Where an FSM stands in the order of a query."""

    machine: str
    state: str
    since_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; what is None does not matter.

    Args:
        machine: Its machine is this one.
        state: Its state is this one.
        status: Its status is this one.
        failed: Whether it has an error.
        started_after_ms: It was started later than in this ms.
        updated_before_ms: It was stored earlier than in this ms.
        since_before_ms: It came into its state earlier than in this ms.
        limit: Most a page.
        after: The FSM behind which the page begins.
        began_ms: When the last of all came into its state, as of the first page: who came later than that is left out.
        digest: Of the filters, for the cursor.
    """

    machine: str | None = None
    state: str | None = None
    status: str | None = None
    failed: bool | None = None
    started_after_ms: int | None = None
    updated_before_ms: int | None = None
    since_before_ms: int | None = None
    limit: int = _PAGE
    after: Mark | None = None
    began_ms: int | None = None
    digest: str = ""

    def cursor(self, last: Mark, began_ms: int) -> str:
        """Give the cursor of the page behind this FSM."""
        return base64.urlsafe_b64encode(orjson.dumps([self.digest, began_ms, *last])).decode().rstrip("=")


def read_filters(filters: dict[str, Any]) -> Question:
    """Read the filters of a query.

    Raises:
        ConfigError: There is no such filter, or a value is not allowed.
        PayloadError: The cursor is of other filters, or none at all.
    """
    for name in filters:
        if name not in FILTERS:
            close = get_close_matches(name, FILTERS, n=1)
            meant = f", did you mean {close[0]}?" if close else ":"
            raise ConfigError(f"query({name}=…)", f"no such filter{meant} there are {', '.join(FILTERS)}")
    given = {name: value for name, value in filters.items() if value is not None}
    for name in ("machine", "state", "status", "cursor"):
        if not isinstance(given.get(name, ""), str):
            raise ConfigError(f"query({name}=…)", f"{given[name]!r} is no text")
    if given.get("status", "running") not in _STATUSES:
        raise ConfigError(f"query(status={given['status']!r})", f"no such status: there are {', '.join(_STATUSES)}")
    if not isinstance(given.get("failed", True), bool):
        raise ConfigError("query(failed=…)", f"{given['failed']!r} is neither True nor False")
    limit = given.get("limit", _PAGE)
    if type(limit) is not int or not 1 <= limit <= MOST_ROWS:
        raise ConfigError("query(limit=…)", f"{limit!r} is no number from 1 to {MOST_ROWS}")
    asked = {name: value for name, value in given.items() if name not in ("limit", "cursor")}
    digest = hashlib.sha256(repr(sorted(asked.items())).encode("utf-8", "backslashreplace")).hexdigest()[:12]
    after, began_ms = _read_cursor(given.get("cursor", ""), digest)
    before = given.get("updated_before")
    longer = given.get("in_state_longer_than")
    return Question(
        machine=given.get("machine"),
        state=given.get("state"),
        status=given.get("status"),
        failed=given.get("failed"),
        started_after_ms=_ms(given["started_after"], "started_after") if "started_after" in given else None,
        # A ms that has only begun at that time is before it: what is stored has no parts of a ms.
        updated_before_ms=None if before is None else -(-_us(before, "updated_before") // 1000),
        since_before_ms=None
        if longer is None
        else int(time.time() * 1000) - duration_ms(longer, "query(in_state_longer_than=…)"),
        limit=limit,
        after=after,
        began_ms=began_ms,
        digest=digest,
    )


def _ms(at: Any, name: str) -> int:
    try:
        return ms_of(at, name)
    except PayloadError as error:
        raise ConfigError(f"query({name}=…)", error.problem) from error


def _us(at: Any, name: str) -> int:
    return _ms(at, name) * 1000 + (at.astimezone(UTC).microsecond % 1000 if isinstance(at, datetime) else 0)


def _read_cursor(text: str, digest: str) -> tuple[Mark | None, int | None]:
    if not text:
        return None, None
    try:
        parts = orjson.loads(base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True))
        of, began_ms, machine, state, since_ms, name = parts
        is_whole = all(type(number) is int and abs(number) < 2**63 for number in (began_ms, since_ms))
        is_ours = is_whole and all(type(one) is str for one in (of, machine, state, name))
        mark = Mark(machine, state, since_ms, name)
    except (ValueError, TypeError):
        of, began_ms, mark, is_ours = "", 0, Mark("", "", 0, ""), False
    if not is_ours:
        problem = "this is no cursor of a query: give the `cursor` of the page before, as it is"
        raise PayloadError(problem, "cursor")
    if of != digest:
        problem = "this cursor is of a query with other filters: go on with the same ones, or begin anew without it"
        raise PayloadError(problem, "cursor")
    return mark, began_ms
