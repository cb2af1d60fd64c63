"""A plan that tells what became of the events of one FSM: from its audit, or as far as the log still knows.

Who calls this: the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_name
from fsm.errors import PayloadError, UnknownFSMError
from fsm.store.codec import text, whole
from fsm.store.requests import Request
from fsm.verbs.looking import read_log

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["history"]

_MOST = 10_000


def history(keys: Keys, name: str, after: str = "", limit: int = 100) -> Plan[list[dict[str, Any]]]:
    """Read what became of events, oldest first; each line has the `id` to be given as `after`.

    Raises:
        UnknownFSMError: There is none of this name.
        PayloadError: `after` or the limit is not what it should be.
    """
    if type(limit) is not int or not 1 <= limit <= _MOST:
        problem = f"a page has 1 to {_MOST} lines, not {limit!r}"
        raise PayloadError(problem, "limit")
    place = _checked_id(after)
    reply = yield Request(
        lambda reply: reply,
        commands=[
            ("HMGET", keys.snapshot(checked_name(name)), "born", "status"),
            ("EXISTS", keys.audit(name)),
        ],
    )
    (born, status), is_audited = reply
    if born is None or status == b"purging":
        raise UnknownFSMError(name, keys.namespace)
    if is_audited:
        kept: list[dict[str, Any]] = yield _audit(keys, name, place, limit)
        return kept
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        lines = yield read_log(keys, place)
        if not lines:
            break
        place = lines[-1][0]
        found += (
            {"id": entry, **line}
            for entry, line in lines
            # What is older is of an earlier life of the name.
            if line.get("name") == name and line["at_ms"] >= whole(born) // 1000
        )
    return found


def _checked_id(after: str) -> str:
    """Give an entry of a stream; "" is the place before the first."""
    if after == "":
        return "0-0"
    parts = str(after).split("-")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) < 2**64 for part in parts):  # noqa: PLR2004 - ms and number
        problem = f"`after` is the `id` of a line, or empty, not {after!r}"
        raise PayloadError(problem, "after")
    return after


def _audit(keys: Keys, name: str, after: str, limit: int) -> Request[list[dict[str, Any]]]:
    def read(reply: Any) -> list[dict[str, Any]]:
        return [_line(text(entry), fields) for _, entries in reply or () for entry, fields in entries]

    return Request(read, commands=[("XREAD", "COUNT", limit, "STREAMS", keys.audit(name), after)])


def _line(entry: str, fields: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        line = orjson.loads(fields[b"line"])
        if not isinstance(line, dict):
            raise TypeError(line)  # noqa: TRY301 - one answer for all that may be wrong with it
    except (ValueError, TypeError, KeyError):
        line = {"error": f"entry {entry} cannot be read: was it edited by hand?"}
    return {"id": entry, **line, "at_ms": int(entry.partition("-")[0])}
