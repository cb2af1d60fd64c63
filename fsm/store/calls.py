"""Every call of a script, as a request: how its arguments are laid out, and what its reply means.

The layouts are those of the headers in `lua/`. Pure: a request is carried by `requests.run`.

Who calls this: the client (start, send, purge) and the workers (claim, commit, release, extend, recover).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from fsm.machine.settings import EFFECTS_QUEUE
from fsm.store.blueprint import Blueprint
from fsm.store.codec import job_data, text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsm.machine import Definition
    from fsm.store.keys import Keys

__all__ = [
    "FAILURE_TTL_S",
    "MOST_ITEMS",
    "UNKNOWN_SECONDS",
    "Birth",
    "Claimed",
    "Claims",
    "Letter",
    "Mail",
    "blueprint_of",
    "cancel",
    "claim",
    "claimed",
    "due",
    "extend",
    "purge",
    "recover",
    "release",
    "send",
    "start",
]

# One call of `send` or `start`: large enough that the round trip costs next to nothing, and bounded, since Redis serves
# nobody else meanwhile.
MOST_ITEMS = 1000
# 30 days, RQ's records of what failed.
FAILURE_TTL_S = 2_592_000
# Time-out and result_ttl of jobs of whose machine we know nothing: the defaults of our settings.
UNKNOWN_SECONDS = (180, 60)
# The reply of `claim`: what stands before the FSMs, and what stands of each before its events.
_FIRST_OF_CLAIM = 6
_HEAD_OF_FSM = 17
_TURN_MS = 900  # less than the second between two looks of a worker: one alone always has the turn


@dataclass(frozen=True, slots=True)
class Birth:
    """One FSM to be started: `raw` is its payload, `job_id` that of its entry event."""

    name: str
    job_id: str
    raw: bytes


class Letter(msgspec.Struct):  # sooner made than a dataclass, as all that is made for each event
    """One event to be sent.

    Args:
        name: The FSM.
        job_id: Its id; of a key its hash and ":", and the script makes the id out of that and the life of the FSM.
        event: The event.
        raw: Its data.
        born: Ties it to one life of the name.
        asked: Somebody waits for its end.
        meta: JSON or empty.
        more: Further fields of its record, each with its value: those of `key=` and `if_version=`.
        birth: The FSM to be started if there is none; only where the call is told a machine.
    """

    name: str
    job_id: str
    event: str
    raw: bytes = b"null"
    born: str = ""
    asked: bool = False
    meta: bytes = b""
    more: tuple[Any, ...] = ()
    birth: Birth | None = None


def _words(reply: list[bytes]) -> list[str]:
    # Behind the word may stand what somebody wrote by hand.
    said = _Words()
    return [said[word] for word in reply]


def blueprint_of(keys: Keys, machine: Definition | Blueprint) -> Blueprint:
    """Give what the scripts want to know of a machine."""
    return machine if isinstance(machine, Blueprint) else Blueprint.of(machine, keys.default_queue)


def start(
    keys: Keys, machine: Definition | Blueprint, births: Sequence[Birth], *, state: str | None = None
) -> Request[list[str]]:
    """Create FSMs of one machine, at most `MOST_ITEMS`; one word an FSM comes back.

    Args:
        keys: Of the namespace.
        machine: Their machine.
        births: The FSMs.
        state: Adopt them in this state: they live already, so they run without an entry event.
    """
    blueprint = blueprint_of(keys, machine)
    about, event, adopt = blueprint.arguments(), blueprint.entry, ""
    armed: list[tuple[str, int]] = []
    if state is not None:
        hard = blueprint.hard.get(state)
        event, adopt = (hard, "owes") if hard else (event, "rest")
        about[1:3] = (state, event)
        armed = blueprint.armed_in(state)
    timers = [part for timer in armed for part in timer]
    arguments = [keys.prefix, keys.namespace, keys.default_queue, *about, adopt, len(armed), *timers]
    for birth in births:
        data = job_data(keys.namespace, birth.name, event, b"null")
        arguments += (birth.name, birth.job_id, birth.raw, data)
    return Request(_words, "start", (), arguments)


def send(
    keys: Keys,
    letters: Iterable[Letter],
    machine: Definition | Blueprint | None = None,
    *,
    starts: bool = False,
) -> Request[list[str]]:
    """Put events into mailboxes, at most `MOST_ITEMS`; one verdict an event comes back.

    Args:
        keys: Of the namespace.
        letters: The events.
        machine: Whose time-outs their jobs get.
        starts: FSMs that do not exist are started, of that machine; each letter has its `birth`.
    """
    namespace = keys.namespace
    blueprint = None if machine is None else blueprint_of(keys, machine)
    seconds = UNKNOWN_SECONDS if blueprint is None else (blueprint.timeout, blueprint.result_ttl)
    about = blueprint.arguments() if blueprint is not None and starts else ()
    arguments: list[Any] = [keys.prefix, namespace, keys.default_queue, *map(str, seconds), str(len(about)), *about]
    for letter in letters:
        data = job_data(namespace, letter.name, letter.event, letter.raw)
        arguments += (letter.name, letter.job_id, letter.born, letter.event, data)
        if letter.asked or letter.meta or letter.more:
            # A claim looks for the `if_version` of a drawn id only where `asked` stands.
            marked = letter.asked or "if_version" in letter.more
            fields = (
                *(("asked", "1" if letter.asked else "0") if marked else ()),
                *(("meta", letter.meta) if letter.meta else ()),
            )
            arguments += (str((len(fields) + len(letter.more)) // 2), *fields, *letter.more)
        else:
            arguments.append("0")
        if about and blueprint and letter.birth:
            birth = letter.birth
            entry = job_data(namespace, birth.name, blueprint.entry, b"null")
            arguments += (birth.job_id, birth.raw, entry)
    return Request(_words, "send", (), arguments)


class Mail(msgspec.Struct):
    """One event of a claimed FSM, as its record has it; without a record `event` is `None`."""

    job_id: str
    event: str | None
    data: bytes
    place: bytes | None
    status: bytes | None
    born: bytes | None
    meta: bytes | None
    asked: bool
    if_version: bytes | None = None
    is_keyed: bool = False


class Claimed(msgspec.Struct):
    """One FSM that this worker holds: its snapshot and its oldest mail, urgent mail first."""

    name: str
    token: str
    queue: str
    machine: str
    state: str
    payload: bytes
    version: int
    status: str
    born: str
    history: bytes | None
    tries: int
    owes: bytes | None
    has_error: bool
    definition: str
    attempts: int | None  # failed ones of its oldest event; `None` where it is not tried again
    probation: int | None  # of a suspect: how many events it may have next, 0 where it is cleared; else `None`
    timers: bytes | None
    urgent: int
    mail: list[Mail]


@dataclass(slots=True)
class Claims:
    """What one claim brought.

    Args:
        held: The FSMs, oldest first.
        broken: FSMs with a key of a wrong type: name and why.
        at: Time of the claim as RQ writes it.
        at_ms: The same in ms, by the clock of Redis.
        moved: Ids of jobs that are no events, and went to the list of effects.
        due_s: Seconds until the next of all that waits for its time is due; `None` where nothing does.
        asked_at: `time.monotonic()` before it was sent, as its sender notes it: so long ago, at most, was `at_ms`.
    """

    held: list[Claimed]
    broken: list[tuple[str, str]]
    at: str = ""
    at_ms: int = 0
    moved: list[str] = field(default_factory=list)
    due_s: float | None = None
    asked_at: float = 0.0

    @property
    def has_suspect(self) -> bool:
        """Whether it brought an FSM on which workers died: that comes alone."""
        return bool(self.held) and self.held[0].probation is not None


def claim(  # noqa: PLR0913 - the bounds of one claim
    keys: Keys,
    worker: str,
    queue: str,
    token: str,
    number: int,
    *,
    lease_ms: int,
    fsms: int,
    events: int = 1000,
    size: int = 4 << 20,
    name: str = "",
    leaves_suspects: bool = False,
    kept: Sequence[str] = (),
    found: Sequence[str] = (),
) -> Request[Claims]:
    """Take the locks of FSMs that have mail, with their snapshots and oldest events.

    On a crash: nothing to undo. The locks end after the lease, and `recover` makes the FSMs ready again.

    Args:
        keys: Of the namespace.
        worker: Name of the worker.
        queue: Whose FSMs.
        token: 128 random bits of this claim.
        number: Grows with each claim of this worker. Asked again with the same one, the same FSMs come back.
        lease_ms: How long the locks last unrenewed.
        fsms: At most so many FSMs,
        events: so many events in all,
        size: and about so many bytes.
        name: Only this FSM.
        leaves_suspects: Leave FSMs on which workers died to a later claim.
        kept: Tokens of older claims that the worker still holds: all others of it are freed.
        found: Job ids that the worker took off RQ's list itself.
    """
    arguments = [
        keys.prefix, worker, token, number, lease_ms, fsms, events, size, queue, keys.default_queue, EFFECTS_QUEUE,
        keys.namespace, name, int(leaves_suspects), *kept, *(f"id:{job_id}" for job_id in found),
    ]  # fmt: skip
    names = (
        keys.ready(queue),
        keys.rq_list(queue),
        keys.held,
        keys.claims(worker),
        keys.replies(worker),
        keys.hand(worker),
    )
    return Request(lambda reply: _read_claims(reply, token, queue), "claim", names, arguments)


def _read_claims(reply: list[Any], token: str, queue: str) -> Claims:
    if reply[0] == b"LATE":
        return Claims([], [])
    broken, moved, next_ms = reply[3:_FIRST_OF_CLAIM]
    due_s = int(next_ms) / 1000 if int(next_ms) >= 0 else None
    claims = Claims([], [], reply[1].decode(), int(reply[2]), [text(job_id) for job_id in moved], due_s)
    claims.broken += [(text(broken[at]), text(broken[at + 1])) for at in range(0, len(broken), 2)]
    # Names of machines, states, events, statuses: few, and each of them comes many times.
    said = _Words()
    at, end = _FIRST_OF_CLAIM, len(reply)
    while at < end:
        (
            raw, machine, state, payload, version, status, born, history, tries, owes, error, definition, attempts,
            probation, timers, urgent, count,
        ) = reply[at : at + _HEAD_OF_FSM]  # fmt: skip
        at += _HEAD_OF_FSM
        mail = []
        for first in range(at, at + 3 * count, 3):
            job_id, event, data = reply[first : first + 3]
            if event is None:
                mail.append(_mail(job_id, data))
                continue
            mail.append(Mail(job_id.decode(), said[event], data, b"mail", b"queued", born, None, False))  # noqa: FBT003 - by place, since this is the busiest line of all
        at += 3 * count
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            # Its lock ends with its lease: nothing can be written under a name that we cannot write.
            claims.broken.append((text(raw), "its name is no UTF-8"))
            continue
        claims.held.append(
            Claimed(
                name,
                token,
                queue,
                said[machine],
                said[state],
                payload or b"",
                int(version or 0),
                said[status] or "running",
                text(born),
                history,
                int(tries or 0),
                owes,
                error is not None,
                said[definition],
                None if attempts is None else int(attempts),
                None if probation is None else int(probation),
                timers,
                urgent,
                mail,
            )
        )
    return claims


class _Words(dict[bytes | None, str]):
    """Text by its bytes, decoded at the first look."""

    def __missing__(self, raw: bytes | None) -> str:
        word = self[raw] = text(raw)
        return word


def _mail(job_id: bytes, record: list[Any]) -> Mail:
    """Read an event of which more is to be said than its name and its data."""
    if record[0] is None:
        return Mail(text(job_id), None, b"", None, None, None, None, asked=False)
    event, data, place, status, born, meta, asked, if_version, key = record
    return Mail(
        text(job_id),
        text(event),
        data or b"",
        place,
        status,
        born,
        meta,
        asked is not None,
        if_version,
        key is not None,
    )


def release(keys: Keys, worker: str, pairs: Iterable[tuple[str, str]], *, tail: bool = False) -> Request[list[str]]:
    """Give (FSM, token) pairs back unworked, to the front of those that wait or to the tail.

    On a crash: what was not released ends with its lease.
    """
    arguments = [keys.prefix, worker, keys.default_queue, "tail" if tail else "front"]
    for name, token in pairs:
        arguments += (name, token)
    return Request(_words, "release", (keys.held, keys.claims(worker)), arguments)


def claimed(keys: Keys, worker: str) -> Request[list[tuple[str, str]]]:
    """Read the (FSM, token) pairs that are noted under the name of a worker; some may be free already."""
    return Request(_pairs, commands=[("HGETALL", keys.claims(worker))])


def _pairs(reply: Any) -> list[tuple[str, str]]:
    return [(text(name), text(token)) for name, token in reply.items()]


def extend(keys: Keys, worker: str, pairs: Iterable[tuple[str, str]], lease_ms: int) -> Request[list[str]]:
    """Renew the locks of (FSM, token) pairs for one more lease; one word a pair comes back: EXTENDED or STALE."""
    arguments: list[Any] = [keys.prefix, worker, lease_ms]
    for name, token in pairs:
        arguments += (name, token)
    return Request(_words, "extend", (keys.held, keys.claims(worker), keys.replies(worker)), arguments)


def recover(
    keys: Keys, dead: Iterable[str] = (), most: int = 200, *, sweeper: str = "", queues: Sequence[str] = ()
) -> Request[tuple[int, int]]:
    """Free FSMs whose lease is over, and all that the named workers held; bounded.

    Args:
        keys: Of the namespace.
        dead: Workers known to be dead.
        most: At most so many FSMs, and so many ids of each list.
        sweeper: Worker that asks for the turn to sweep: needed unless it is "" or `dead` are named.
        queues: Whose lists of RQ get what they lack where they are empty though FSMs wait.

    Returns:
        How many FSMs were freed, and how many ids went back to RQ's lists: 0 and 0 also where another has the turn.
    """
    arguments = [keys.prefix, keys.default_queue, most, sweeper, _TURN_MS, len(queues), *queues, *dead]
    return Request(_read_recovered, "recover", (keys.held, keys.ended, keys.sweep), arguments)


def _read_recovered(reply: list[Any]) -> tuple[int, int]:
    return (int(reply[1]), int(reply[2])) if len(reply) > 1 else (0, 0)


def due(
    keys: Keys, *, most: int = 200, ahead_ms: int = 0, kind: str = "", nonce: str | None = None
) -> Request[tuple[int, float | None]]:
    """Do what is to be done now, of all that `timers` holds; bounded.

    Args:
        keys: Of the namespace.
        most: At most so many members.
        ahead_ms: What is due within them counts as due.
        kind: Look at members of this kind only, and then at all of them.
        nonce: 24 hex digits, of which the ids of new records are made; by default they are drawn.

    Returns:
        How many members were done, and seconds until the next one is due, or `None` where nothing waits for its time.
    """
    return Request(
        lambda reply: (int(reply[1]), int(reply[2]) / 1000 if int(reply[2]) >= 0 else None),
        "due",
        (keys.timers,),
        [
            keys.prefix,
            keys.namespace,
            keys.default_queue,
            most,
            ahead_ms,
            kind,
            nonce or secrets.token_hex(12),
            *UNKNOWN_SECONDS,
            FAILURE_TTL_S,
        ],
    )


def purge(keys: Keys, name: str, born: str = "", most: int = 500) -> Request[str]:
    """Take one FSM away with its mail, in portions; the word tells whether to call again."""
    arguments = [keys.prefix, name, born, most, keys.default_queue, FAILURE_TTL_S]
    return Request(lambda reply: str(reply[0].decode()), "purge", (keys.held,), arguments)


def cancel(keys: Keys, job_id: str) -> Request[str]:
    """Take back an event: CANCELLED, ENDED, HELD or UNKNOWN comes back."""
    return Request(
        lambda reply: str(reply[0].decode()), "cancel", (keys.job(job_id),), [keys.prefix, job_id, FAILURE_TTL_S]
    )
