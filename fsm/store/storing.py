"""The calls of those who keep snapshots by hand, or beside Redis: write one, note its failure, find some.

Who calls this: `RedisStorage`, and the command that holds databases against Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.store.codec import rq_ms, text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.keys import Keys

__all__ = ["Given", "Heard", "Span", "ends_of", "hashes", "heard", "kept_beside", "lives", "note", "put", "span"]


@dataclass(frozen=True, slots=True)
class Given:
    """A snapshot to be written from outside.

    Args:
        name: The FSM.
        expected: What is to be there: "none", "older", or the version that was read, of the same life.
        nonce: A job id that nobody has; the same one in each repeat.
        fields: Born, machine, state, status, version, payload, error or b"", mark of the definition, ms of the store.
        beside: Id of the last job, and what else is kept for as long as nobody writes a newer version.
        home: Queue and `max_mailbox`, where the FSM is new to Redis and its machine is known; else "" and "".
    """

    name: str
    expected: str
    nonce: str
    fields: tuple[Any, ...]
    beside: tuple[str, bytes] = ("", b"")
    home: tuple[str, str] = ("", "")


class Span(NamedTuple):
    """FSMs of one state: those behind a place in its order, up to a time, by since when and name; and their indexes."""

    keys: tuple[str, str]
    after: tuple[int, str] | None
    until: str
    most: int


class Heard(NamedTuple):
    """What Redis has heard of the last step of an FSM, and of its mail.

    Args:
        waits: Of each event of that step, whether it waits in the mailbox.
        is_told: The last event that the step ended has ended in Redis too, as its record says.
        mail: How many events wait in the mailbox.
        joined_ms: When each event of the mail joined the mailbox, by the clock of Redis; None where no record tells.
    """

    waits: tuple[bool, ...] = ()
    is_told: bool = False
    mail: int = 0
    joined_ms: tuple[int | None, ...] = ()


def heard(keys: Keys, name: str, marks: Sequence[str], last_job: str, mail: Sequence[str]) -> Request[Heard]:
    """Ask what Redis has heard of an FSM's last step, and of its mail.

    Args:
        keys: Of the namespace.
        name: The FSM.
        marks: Ids of events of that step.
        last_job: Id of the last event that it ended; "" where it ended none.
        mail: Ids, at least one.
    """
    commands: list[tuple[Any, ...]] = [("HGET", keys.job(last_job), "place"), ("LLEN", keys.mailbox(name))]
    commands += (("LPOS", keys.mailbox(name), job_id) for job_id in marks)
    commands += (("HGET", keys.job(job_id), "enqueued_at") for job_id in mail)

    def read(replies: list[Any]) -> Heard:
        place, length, *rest = replies
        waits = tuple(at is not None for at in rest[: len(marks)])
        joined = tuple(rq_ms(text(time)) if time else None for time in rest[len(marks) :])
        return Heard(waits, place in (b"done", b"failed"), int(length), joined)

    return Request(read, commands=commands)


def put(keys: Keys, given: Given) -> Request[tuple[str, str, str, str]]:
    """Write a snapshot from outside: a word, and of what is there version, life and state where it stays.

    On a crash: it was written, or it was not; repeated with the same nonce, it is told and not written again.
    """
    last_job, pending = given.beside
    arguments = [
        keys.prefix, given.name, given.expected, given.nonce, *given.fields, last_job.encode() + b" " + pending,
        *given.home, keys.default_queue,
    ]  # fmt: skip

    def read(reply: list[bytes]) -> tuple[str, str, str, str]:
        word, version, born, state = (*map(text, reply), "", "", "")[:4]
        return word, version, born, state

    return Request(read, "put", (), arguments)


def kept_beside(raw: bytes | None, version: int) -> tuple[str, bytes]:
    """Read what was kept beside a snapshot that was put: nothing, where it has another version by now."""
    parts = (raw or b"").split(b" ", 3)
    if len(parts) != 4 or parts[1] != str(version).encode():  # noqa: PLR2004 - nonce, version, last job, the rest
        return "", b""
    return text(parts[2]), parts[3]


def note(keys: Keys, name: str, error: bytes) -> Request[str]:
    """Note the last failure of an FSM beside its snapshot, or forget it where it is b"": a word."""
    return Request(lambda reply: text(reply[0]), "note", (), [keys.prefix, name, error])


def lives(keys: Keys, names: Sequence[str]) -> Request[dict[str, str]]:
    """Read which life each of these names has; "" where there is none.

    Args:
        keys: Of the namespace.
        names: At least one.
    """

    def read(replies: Any) -> dict[str, str]:
        found = replies if len(names) > 1 else [replies]
        return {name: text(born) for name, born in zip(names, found, strict=True)}

    return Request(read, commands=[("HGET", keys.snapshot(name), "born") for name in names])


def hashes(keys: Keys, names: Sequence[str]) -> Request[list[dict[bytes, bytes]]]:
    """Read snapshots as they are; empty where there is none.

    Args:
        keys: Of the namespace.
        names: At least one.
    """
    commands = [("HGETALL", keys.snapshot(name)) for name in names]
    return Request(lambda reply: reply if len(names) > 1 else [reply], commands=commands)


def ends_of(indexes: Sequence[str]) -> Request[list[int | None]]:
    """Read of each index when the last FSM came into it; None where it is empty.

    Args:
        indexes: At least two.
    """

    def read(replies: list[Any]) -> list[int | None]:
        return [int(float(pairs[0][1])) if pairs else None for pairs in map(_pairs, replies)]

    return Request(read, commands=[("ZRANGE", index, -1, -1, "WITHSCORES") for index in indexes])


def span(about: Span) -> Request[list[tuple[int, str]]]:
    """Read FSMs of one state, as they are at one moment: since when and name, in this order."""
    commands: list[tuple[Any, ...]] = []
    for index in about.keys:
        begin = "-inf"
        if about.after is not None:
            since = about.after[0]
            # Of those that came in the same ms all are read: only their names tell who is behind.
            commands.append(("ZRANGE", index, since, since, "BYSCORE", "WITHSCORES"))
            begin = f"({since}"
        commands.append(("ZRANGE", index, begin, about.until, "BYSCORE", "LIMIT", 0, about.most, "WITHSCORES"))

    def read(replies: list[Any]) -> list[tuple[int, str]]:
        found = [(int(float(score)), text(name)) for reply in replies for name, score in _pairs(reply)]
        return sorted(one for one in found if about.after is None or one > about.after)[: about.most]

    return Request(read, commands=commands, is_atomic=True)


def _pairs(reply: Any) -> list[tuple[bytes, Any]]:
    """Give pairs of member and score: they come as such, or one behind the other."""
    if reply and not isinstance(reply[0], bytes):
        return [(member, score) for member, score in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))
