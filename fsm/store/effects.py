"""The calls of the scripts for open effects, as requests: `answer` and `look`.

Who calls this: the plans of `fsm.verbs.answering`, and the workers' watch over open effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from fsm.store.calls import FAILURE_TTL_S, UNKNOWN_SECONDS
from fsm.store.codec import job_data, text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys

__all__ = ["OpenEffect", "answer", "look", "open_effects"]


def answer(  # noqa: PLR0913 - the parts of one answer
    keys: Keys, effect_id: str, name: str, born: str, event: str, raw: bytes
) -> Request[str]:
    """Bring back the end of an effect as an event, or close it where `event` is "".

    On a crash: it stays open, and is looked after.

    Returns:
        ANSWERED and the id of the event's job, CLOSED, SILENT, FULL, BROKEN, UNKNOWN, or FINISHED and the state.
    """
    data = job_data(keys.namespace, name, event, raw)
    meta = orjson.dumps({"effect": effect_id})
    arguments = [
        keys.prefix, keys.namespace, keys.default_queue, effect_id, name, born, event, data, meta, *UNKNOWN_SECONDS,
        FAILURE_TTL_S,
    ]  # fmt: skip
    return Request(lambda reply: text(reply[0]), "answer", (keys.effects, keys.effects_of(name)), arguments)


@dataclass(frozen=True, slots=True)
class OpenEffect:
    """An effect that was looked after.

    Args:
        job_id: RQ's id of the job.
        name: The FSM that asked for it.
        note: What is kept of it, JSON.
        status: RQ's word; "" where its job has no record.
    """

    job_id: str
    name: str
    note: bytes
    status: str


def look(  # noqa: PLR0913 - the parts of one look
    keys: Keys, nonce: str, pause_ms: int, most_deaths: int, dead: Sequence[tuple[str, str]] = (), most: int = 100
) -> Request[list[OpenEffect]]:
    """Look after open effects whose time has come; those whose worker died go back to their queue, up to so often.

    On a crash: they are looked at again after the pause.

    Args:
        keys: Of the namespace.
        nonce: Drawn for each look: what is there to be seen at two of them is not settled by one that is repeated.
        pause_ms: How long each of them is left alone now.
        most_deaths: So many workers may die on one; then it has failed.
        dead: Workers that are known to be dead, each with a queue that it served.
        most: At most so many.
    """
    arguments: list[Any] = [keys.prefix, most, pause_ms, most_deaths, nonce]
    for pair in dead:
        arguments += pair
    return Request(
        lambda reply: [OpenEffect(text(one[0]), text(one[1]), one[2], text(one[3])) for one in reply[1:]],
        "look",
        (keys.effects,),
        arguments,
    )


def open_effects(keys: Keys) -> Request[dict[str, str]]:
    """Give all effects that are open: id of the job -> FSM that asked for it. For tests; there may be many."""

    def read(reply: list[bytes]) -> dict[str, str]:
        pairs = (text(member).partition(" ") for member in reply)
        return {job_id: name for job_id, _, name in pairs}

    return Request(read, commands=[("ZRANGE", keys.effects, 0, -1)])
