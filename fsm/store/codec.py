"""How things are written in Redis: job data, ids, snapshots, results. Pure functions between bytes and values.

Who calls this: `calls`, the client and the workers.
"""

from __future__ import annotations

import base64
import os
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine.timers import read_timers
from fsm.errors import StoreError
from fsm.machine.marks import read_mark
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Snapshot",
    "call_arguments",
    "damaged",
    "event_data",
    "job_data",
    "new_ids",
    "pack_history",
    "pack_text",
    "read_history",
    "read_snapshot",
    "rq_ms",
    "text",
    "whole",
]

_CALL = b'["workers.jobs.transition",null,'
_END = b"],{}]"
_ID_BYTES = 12
# Of a version, a time, a count: what Lua and JSON hold exactly.
_MOST_DIGITS = 16
_MOST_UNPACKED = 64 << 20
# Which no name of a state holds, and neither does it hold the bracket with which a list in JSON begins.
_BETWEEN_STATES = ">"


def text(raw: bytes | None) -> str:
    """Decode what Redis gave as text; nothing is "", and bytes that are no UTF-8 are shown, never an error."""
    return raw.decode("utf-8", "backslashreplace") if raw else ""


def whole(raw: bytes | str | None) -> int:
    """Read a number as we write it; 0 where it is none, for fields can be edited by hand.

    >>> whole(b"12"), whole("-1"), whole(None), whole("9" * 5000)
    (12, 0, 0, 0)
    """
    return int(raw) if raw and len(raw) <= _MOST_DIGITS and raw.isascii() and raw.isdigit() else 0


def rq_ms(time: str) -> int | None:
    """Read a time as RQ writes it, in ms; `None` where it is none, for records can be edited by hand.

    >>> rq_ms("2026-11-21T13:12:06.277009Z"), rq_ms("soon")
    (1795266726277, None)
    """
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def new_ids(count: int) -> list[str]:
    """Draw job ids: 96 random bits each, as RQ allows them (`[A-Za-z0-9_-]+`)."""
    drawn = os.urandom(_ID_BYTES * count).hex()
    return [drawn[i : i + 2 * _ID_BYTES] for i in range(0, len(drawn), 2 * _ID_BYTES)]


def job_data(namespace: str, name: str, event: str, raw: bytes) -> bytes:
    """Write RQ's `data` field, as its JSON serializer reads it.

    >>> job_data("default", "order-42", "pay", b'{"amount":12}')
    b'["workers.jobs.transition",null,["default","order-42","pay",{"amount":12}],{}]'
    """
    return b"%b%b%b" % (_head(namespace, name, event), raw, _END)


def _head(namespace: str, name: str, event: str) -> bytes:
    """Write a call up to the event's data: a list of the three before them, which goes on in the place of its end."""
    return _CALL + orjson.dumps((namespace, name, event))[:-1] + b","


def event_data(data: bytes, namespace: str, name: str, event: str) -> bytes:
    """Read an event's data out of RQ's `data` field, also after RQ has compressed it (requeue does).

    Raises:
        ValueError: The record was edited by hand and is not of our form.
    """
    head = _head(namespace, name, event)
    if data.startswith(head) and data.endswith(_END):
        return data[len(head) : -len(_END)]
    call = orjson.loads(_unpacked(data))
    if not (isinstance(call, list) and len(call) == 4 and isinstance(call[2], list) and len(call[2]) == 4):  # noqa: PLR2004 - RQ's four parts, and our four arguments
        problem = "the job's data are not a call of workers.jobs.transition with four arguments"
        raise ValueError(problem)
    return orjson.dumps(call[2][3])


def _unpacked(data: bytes) -> bytes:
    """Undo RQ's compression, where there is one: of what is reasonable, since a megabyte may unpack to a thousand.

    Raises:
        ValueError: It is more.
    """
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, _MOST_UNPACKED)
    except zlib.error:
        return data
    if unpacker.unconsumed_tail:
        problem = f"its data unpack to more than {_MOST_UNPACKED >> 20} MiB"
        raise ValueError(problem)
    return plain


def call_arguments(data: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Read arguments and keyword arguments out of RQ's `data` field, compressed or not; none where there is no call.

    >>> call_arguments(b'["shop.bank.charge",null,["order-42"],{"coins":24}]')
    (['order-42'], {'coins': 24})
    """
    try:
        _, _, args, kwargs = orjson.loads(_unpacked(data))
    except (ValueError, TypeError):
        return [], {}
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else ([], {})


def pack_text(value: str) -> str:
    """Pack a traceback as RQ keeps it in a result stream."""
    return base64.b64encode(zlib.compress(value.encode("utf-8", "backslashreplace"))).decode()


def pack_result(raw: bytes) -> str:
    """Pack a JSON result as RQ keeps it in a result stream."""
    return base64.b64encode(raw).decode()


def pack_history(states: Iterable[str]) -> str:
    """Write the field `history` of a snapshot, in fewer bytes than JSON would take.

    >>> pack_history(("cart", "paying"))
    'cart>paying'
    """
    return _BETWEEN_STATES.join(states)


def read_history(raw: bytes | None) -> tuple[str, ...]:
    """Read the field `history`, also as JSON: so an earlier version of ours wrote it.

    >>> read_history(b"cart>paying"), read_history(b'["cart","paying"]'), read_history(None)
    (('cart', 'paying'), ('cart', 'paying'), ())

    Raises:
        ValueError: It begins like JSON and is none: it was edited by hand.
    """
    if not raw:
        return ()
    if raw.startswith(b"["):
        return tuple(map(str, orjson.loads(raw)))
    return tuple(text(raw).split(_BETWEEN_STATES))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One FSM as it stands in Redis.

    Args:
        name: Its name.
        machine: Name of its machine.
        state: State of the graph.
        payload: Plain JSON, or of the machine's type where the class was given; None where it lies in a storage, and no
            class was given that says which.
        version: Grows with every attempt that ended in a commit.
        status: "starting", "running", "finished", "failed", "paused" or "purging"; "paused" stands for the first two.
        born: Id of this life of the name: the µs by the clock of Redis at which it was started.
        queue: RQ queue of its events.
        started_at: When it was started, aware, UTC.
        updated_at: Time of the last commit, aware, UTC.
        error: The last failure, until an event is done; else `None`.
        refused: The last refusal, however long ago; else `None`.
        history: The last states, oldest first, the present one last.
        tries: Deaths of workers that held it, since its last commit.
        definition: Fingerprint of the definition that wrote it last.
        definition_version: `Settings(definition_version)` of the same.
        retry_at: When its next event is tried again, aware, UTC; in the past it is due, or being run; else `None`.
        timers: When each of its timers goes off, aware, UTC, by key; in the past it is due, or its event waits.
        is_stored: Whether its payload lies in the storage of its machine, and not in Redis.
    """

    name: str
    machine: str
    state: str
    payload: Any
    version: int
    status: str
    born: str
    queue: str
    started_at: datetime
    updated_at: datetime
    error: dict[str, Any] | None = None
    refused: dict[str, Any] | None = None
    history: tuple[str, ...] = field(default=())
    tries: int = 0
    definition: str = ""
    retry_at: datetime | None = None
    timers: Mapping[str, datetime] = field(default_factory=dict)
    definition_version: int = 1
    is_stored: bool = False

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values, as `fsm state --json` prints it."""
        return {
            "name": self.name,
            "machine": self.machine,
            "state": self.state,
            "status": self.status,
            "version": self.version,
            "payload": self.payload,
            "error": self.error,
            "refused": self.refused,
            "history": list(self.history),
            "born": self.born,
            "queue": self.queue,
            "tries": self.tries,
            "definition": self.definition,
            "definition_version": self.definition_version,
            "is_stored": self.is_stored,
            "started_at": self.started_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
            "retry_at": None if self.retry_at is None else self.retry_at.isoformat(),
            "timers": {key: at.isoformat() for key, at in self.timers.items()},
        }


def read_snapshot(name: str, fields: Mapping[bytes, bytes], default_queue: str) -> Snapshot:
    """Read a snapshot's hash; the payload stays plain JSON.

    Raises:
        StoreError: The hash was edited by hand and is not of our form.
    """
    try:
        state = text(fields[b"state"])
        mark = read_mark(text(fields.get(b"definition")))
        # Older versions of ours wrote it into a field of its own, when the FSM was started.
        version = mark.version if mark.version != 1 else whole(fields.get(b"definition_version")) or 1
        retry_at = fields.get(b"retry_at")
        return Snapshot(
            name=name,
            machine=text(fields[b"machine"]),
            state=state,
            payload=None if mark.is_stored else JSON.decode(fields[b"payload"]),
            version=_number(fields[b"version"]),
            status=_status(fields),
            born=text(fields[b"born"]),
            queue=text(fields.get(b"queue")) or default_queue,
            started_at=datetime.fromtimestamp(int(fields[b"born"]) / 1_000_000, UTC),
            updated_at=datetime.fromtimestamp(int(fields[b"updated_at"]) / 1000, UTC),
            error=_json(fields.get(b"error")),
            refused=_json(fields.get(b"refused")),
            history=(*read_history(fields.get(b"history")), state),
            tries=_number(fields.get(b"tries", b"0")),
            definition=mark.fingerprint,
            definition_version=version,
            is_stored=mark.is_stored,
            retry_at=datetime.fromtimestamp(int(retry_at) / 1000, UTC) if retry_at else None,
            timers={
                key: datetime.fromtimestamp(timer.at_ms / 1000, UTC)
                for key, timer in read_timers(fields.get(b"timers")).items()
                if timer.at_ms
            },
        )
    except (KeyError, ValueError, TypeError, OverflowError, OSError) as error:
        problem = (
            f"the snapshot of FSM {name!r} cannot be read ({type(error).__name__}: {error}): was it edited by hand?"
        )
        raise StoreError(problem) from error


def _status(fields: Mapping[bytes, bytes]) -> str:
    """Read the phase of an FSM's life; a pause is noted apart from it, so that no commit undoes it."""
    status = text(fields.get(b"status")) or "running"
    return "paused" if b"paused" in fields and status in ("starting", "running") else status


def damaged(name: str, fields: Mapping[bytes, bytes], why: str) -> Snapshot:
    """Give what can be told of an FSM whose snapshot cannot be read."""
    never = datetime.fromtimestamp(0, UTC)
    return Snapshot(
        name=name,
        machine=text(fields.get(b"machine")),
        state=text(fields.get(b"state")),
        payload=None,
        version=0,
        status="damaged",
        born=text(fields.get(b"born")),
        queue=text(fields.get(b"queue")),
        started_at=never,
        updated_at=never,
        error={"message": why},
    )


def _number(raw: bytes) -> int:
    if len(raw) > _MOST_DIGITS:
        problem = f"a number of {len(raw)} digits"
        raise ValueError(problem)
    return int(raw)


def _json(raw: bytes | None) -> dict[str, Any] | None:
    value = orjson.loads(raw) if raw else None
    if value is not None and not isinstance(value, dict):
        problem = "a note of a failure or refusal is no object"
        raise TypeError(problem)
    return value
