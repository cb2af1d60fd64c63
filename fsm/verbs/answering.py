"""Plans for effects: what is open, and how the end of one comes back to its FSM.

Who calls this: the callbacks that RQ runs, the workers' watch over open effects, the client's lists,
and trials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from fsm.errors import PayloadError
from fsm.machine.settings import PAYLOAD_LIMIT, check_size
from fsm.machine.values import JSON
from fsm.store import effects
from fsm.store.requests import Request

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["fail", "failure_data", "note_of", "run_again", "succeed", "success_data"]


def succeed(keys: Keys, effect_id: str, name: str, value: Any) -> Plan[str]:
    """Bring back what an effect returned; where nobody wants to know, it may be anything.

    Raises:
        PayloadError: The value is not JSON, or too large: nothing was told, and the effect is open.
    """
    note = yield note_of(keys, effect_id, name)
    # Where nobody is to be told, it may return whatever it likes.
    limit = (note or {}).get("limit")
    limit = limit if isinstance(limit, int) else PAYLOAD_LIMIT
    raw = success_data(value, limit) if note is not None and note.get("on_success") else b"null"
    return (yield from _tell(keys, effect_id, name, note, "on_success", raw))


def fail(keys: Keys, effect_id: str, name: str, kind: str, message: str) -> Plan[str]:
    """Bring back how an effect failed for good.

    Args:
        keys: Of the namespace.
        effect_id: The job of the effect.
        name: The FSM that asked for it.
        kind: Class name of what was raised; or "gone", "cancelled", "abandoned" where nothing was.
        message: Its text.
    """
    note = yield note_of(keys, effect_id, name)
    return (yield from _tell(keys, effect_id, name, note, "on_failure", failure_data(kind, message)))


def success_data(value: Any, limit: int = PAYLOAD_LIMIT) -> bytes:
    """Write what an effect returned as the data of an event.

    Raises:
        PayloadError: It is not JSON, or larger than the machine that asked for it allows.
    """
    try:
        return check_size(JSON.encode(value), "it has", limit)
    except PayloadError as error:
        problem = f"an effect returns JSON values, for they travel as an event: {error.problem}"
        raise PayloadError(problem, error.path) from error


def failure_data(kind: str, message: str) -> bytes:
    """Write how an effect failed as the data of an event."""
    text = message.encode("utf-8", "backslashreplace").decode()
    return orjson.dumps({"type": kind, "message": text})


def run_again(keys: Keys, effect_id: str, name: str) -> Request[None]:
    """Mark an effect that has failed because the process that ran it died: the next look puts it back on its queue.

    On a crash between the two: it is looked at a few seconds later.
    """
    commands = [
        ("HSET", keys.job(effect_id), "abandoned", 1),
        ("ZADD", keys.effects, "XX", 0, f"{effect_id} {name}"),
    ]
    return Request(lambda _: None, commands=commands)


def note_of(keys: Keys, effect_id: str, name: str) -> Request[dict[str, Any] | None]:
    """Read what is kept of an open effect; `None` where it is not open (any more)."""
    return Request(_read_note, commands=[("HGET", keys.effects_of(name), effect_id)])


def _read_note(raw: bytes | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        note = orjson.loads(raw)
    except ValueError:
        note = {}
    return note if isinstance(note, dict) else {}


def _tell(  # noqa: PLR0913 - the parts of one answer
    keys: Keys, effect_id: str, name: str, note: dict[str, Any] | None, end: str, raw: bytes
) -> Plan[str]:
    """Send the event that was asked for this end; once, whoever else tells it at the same moment.

    Returns:
        The script's word.
    """
    if note is None:
        return "CLOSED"
    event, born = str(note.get(end) or ""), str(note.get("born") or "")
    word: str = yield effects.answer(keys, effect_id, name, born, event, raw)
    return word
