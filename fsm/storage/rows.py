"""How a snapshot that people see becomes the row that is stored, and comes back; what may be stored at all.

Who calls this: the storages. It imports nothing that talks to anybody.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_name
from fsm.errors import PayloadError, StaleVersionError
from fsm.machine.values import JSON
from fsm.storage.protocol import Row, Stored

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "error_text",
    "fits",
    "is_newer",
    "ms_of",
    "read_error",
    "refuse_older",
    "row_of",
    "since_of",
    "stored_of",
    "time_of",
]

_STATUSES = ("starting", "running", "finished", "failed")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
# What a column of 64 bits, and µs since 1970 for some thousand years, can hold.
_MOST_VERSION = 2**63 - 1
_MOST_DIGITS = 18


def ms_of(at: Any, path: str) -> int:
    """Give a time as ms since 1970; parts of a ms are cut off.

    Raises:
        PayloadError: It is no aware time.
    """
    if not isinstance(at, datetime) or at.tzinfo is None or at.utcoffset() is None:
        problem = f"{at!r} is no aware datetime: give it a time zone, such as datetime.now(UTC)"
        raise PayloadError(problem, path)
    return (at - _EPOCH) // _MS


def time_of(ms: int) -> datetime:
    """Give ms since 1970 as a time, UTC."""
    return _EPOCH + ms * _MS


def error_text(error: Mapping[str, Any] | None) -> bytes:
    """Give the note of a failure as JSON; b"" where there is none.

    Raises:
        PayloadError: It is no JSON object.
    """
    if error is None:
        return b""
    try:
        return JSON.encode(dict(error))
    except PayloadError as fault:
        raise PayloadError(fault.problem, fault.path.replace("$", "error", 1)) from fault
    except (TypeError, ValueError) as fault:
        problem = f"the note of a failure is an object of JSON or None, not {type(error).__name__}"
        raise PayloadError(problem, "error") from fault


def read_error(raw: bytes) -> dict[str, Any] | None:
    """Read the note of a failure."""
    value: dict[str, Any] | None = orjson.loads(raw) if raw else None
    return value


def row_of(name: str, snapshot: Stored, base: int, over: str | None) -> Row:
    """Give what is stored of a snapshot.

    Args:
        name: Under which it is to be stored.
        snapshot: The snapshot.
        base: The version before it.
        over: As of `Row`.

    Raises:
        PayloadError: It is of another name, or something in it cannot be kept.
    """
    if checked_name(name) != snapshot.name:
        problem = f"the snapshot is of FSM {snapshot.name!r}, not of {name!r}: store it under its own name"
        raise PayloadError(problem, "name")
    if type(snapshot.version) is not int or not 0 <= snapshot.version <= _MOST_VERSION:
        problem = f"{snapshot.version!r} is no version: it is a whole number from 0 on"
        raise PayloadError(problem, "version")
    if not snapshot.born.isdecimal() or not snapshot.born.isascii() or len(snapshot.born) > _MOST_DIGITS:
        problem = f"{snapshot.born!r} is no id of a life: it is µs since 1970 as digits, as Redis drew it"
        raise PayloadError(problem, "born")
    if snapshot.status not in _STATUSES:
        problem = f"{snapshot.status!r} is no status that is stored: it is one of {', '.join(_STATUSES)}"
        raise PayloadError(problem, "status")
    for path in ("machine", "state"):
        if not isinstance(getattr(snapshot, path), str) or not getattr(snapshot, path):
            raise PayloadError("a name is wanted: text that is not empty", path)
    return Row(
        name=name,
        born=snapshot.born,
        machine=snapshot.machine,
        state=snapshot.state,
        status=snapshot.status,
        version=snapshot.version,
        base=base,
        payload=JSON.encode(snapshot.payload),
        definition=snapshot.definition,
        started_ms=ms_of(snapshot.started_at, "started_at"),
        updated_ms=ms_of(snapshot.updated_at, "updated_at"),
        error=error_text(snapshot.error),
        last_job=snapshot.last_job,
        pending=snapshot.pending,
        over=over,
    )


def stored_of(row: Row) -> Stored:
    """Give a row as people see it."""
    return Stored(
        name=row.name,
        machine=row.machine,
        state=row.state,
        payload=orjson.loads(row.payload),
        version=row.version,
        status=row.status,
        born=row.born,
        definition=row.definition,
        started_at=time_of(row.started_ms),
        updated_at=time_of(row.updated_ms),
        error=read_error(row.error),
        last_job=row.last_job,
        pending=row.pending,
    )


def fits(row: Row, born: str | None, version: int) -> bool:
    """Tell whether a row may take the place of what is there: that is what was loaded when it was made.

    Args:
        row: To be stored.
        born: Of what is there; None where nothing is.
        version: Of what is there.
    """
    if born is None or row.over is None:
        return born is None and row.over is None
    # Of a life that is over the version says nothing any more.
    return born == row.over and (row.over != row.born or version == row.base)


def is_newer(born: str, version: int, row: Row) -> bool:
    """Tell whether what is there is newer than a row that somebody wants to put there."""
    return int(born) > int(row.born) or (born == row.born and version > row.version)


def refuse_older(row: Row, state: str, born: str, version: int) -> StaleVersionError:
    """Word the refusal to put an older snapshot over a newer one."""
    what = f"version {version} of it is there" if born == row.born else f"a later life of it, born {born}, is there"
    reason = f"{what}, and version {row.version} born {row.born} was to be put in its place: read it again"
    details = {"version": version, "born": born, "put": row.version}
    return StaleVersionError(row.name, "", state, version, "", reason, details)


def since_of(row: Row, before: tuple[str, str, str, int] | None) -> int:
    """Tell since when an FSM is in the state of a row.

    Args:
        row: To be stored.
        before: `born`, machine, state and since when of what is there; None where nothing is.
    """
    if before is not None and before[:3] == (row.born, row.machine, row.state):
        return before[3]
    return row.updated_ms
