"""The arguments of one `commit`, as its header in `lua/commit.lua` lays them out.

Who calls this: the activation makes a `Block` for each FSM that it held, the worker commits many of them at once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from fsm.engine import Effect, NewFSM
from fsm.engine import Mail as OutgoingMail
from fsm.machine import Settings
from fsm.machine.settings import PAYLOAD_LIMIT
from fsm.store.calls import Claimed, blueprint_of
from fsm.store.codec import job_data, pack_result, pack_text
from fsm.store.keys import Keys
from fsm.store.places import Placer, pinned
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.engine import Decision

__all__ = ["LOG_LENGTH", "Block", "commit"]

# Entries of the log, one a commit. By arithmetic, not measured: a commit of 128 FSMs with a line of some 150 bytes each
# makes 20 kB, so at full load 2,000 of them are some 40 MB and, at 200 commits a second, ten seconds' past; at one
# transition a second they are half an hour.
LOG_LENGTH = 2000
# Where in a block begins what is of that FSM alone: before it are frame, name, token and lines of the log.
_OWN = 4


class Block(msgspec.Struct, eq=False):
    """All that one FSM's commit writes: fields of the snapshot, ids done, records, outgoing mail, lines of the log."""

    _keys: Keys
    _fsm: Claimed
    _settings: Settings
    _now_ms: int = 0
    _placer: Placer | None = None
    # Bytes of what users decide the size of: the payload, results, what goes out.
    size: int = 0
    count: int = 0
    _ending: str = ""
    _home: str = ""
    _fields: dict[str, Any] = msgspec.field(default_factory=dict)
    _drops: list[str] = msgspec.field(default_factory=list)
    _done: list[str] = msgspec.field(default_factory=list)
    # What was applied, as id and result, while nothing else is to be said: nearly always all there is.
    _plain: list[Any] = msgspec.field(default_factory=list)
    _operations: list[Any] = msgspec.field(default_factory=list)
    _lines: list[bytes] = msgspec.field(default_factory=list)

    def __repr__(self) -> str:
        """Tell whose commit this is, without what it writes."""
        return f"Block({self.name!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell the same to rich, which would take all fields of a struct in the place of its repr."""
        return [("name", self.name)]

    @property
    def name(self) -> str:
        """Name of the FSM."""
        return self._fsm.name

    @property
    def token(self) -> str:
        """Token of its lock."""
        return self._fsm.token

    def set(self, field: str, value: str | bytes | int) -> None:
        """Write a field of the snapshot."""
        self._fields[field] = value
        if field in self._drops:
            self._drops.remove(field)

    def drop(self, field: str) -> None:
        """Remove a field of the snapshot."""
        self._drops.append(field)

    @property
    def taken(self) -> int:
        """How many ids were taken out of the mailbox."""
        return len(self._done)

    @property
    def owes(self) -> bool:
        """Whether a hard event is left to the next claim."""
        return "owes" in self._fields

    @property
    def leaves_urgent(self) -> bool:
        """Whether urgent mail stays where it is, as a hard event does that is to be tried again."""
        return len(self._done) < self._fsm.urgent

    def move(self, queue: str) -> None:
        """Say in which queue the FSM waits from now on."""
        self._home = queue
        if queue == self._keys.default_queue:
            self.drop("queue")
        else:
            self.set("queue", queue)

    def place(self) -> None:
        """Move the FSM to the host whose it is by now; what waits goes with it, in its order."""
        queue, placement = self._fsm.queue, self._settings.placement
        if self._placer is not None and (placement == "ring" or "~" in queue):
            home = self._placer.next(queue, placement, self._fsm.name)
            if home:
                self.move(home)

    def clear_error(self, *, was_set: bool) -> None:
        """Forget the last failure: of an older commit, and of this one."""
        if was_set or "error" in self._fields:
            self.forget_error()
        self._fields.pop("error", None)
        if was_set and "error" not in self._drops:
            self._drops.append("error")

    def set_error(self, note: bytes) -> None:
        """Note the last failure, and have the FSM found by it."""
        self.set("error", note)
        self.note_error()

    def end(self, ending: str) -> None:
        """Say that the FSM ends ("finished") or cannot go on by itself ("failed")."""
        self._ending = ending

    def take(self, job_id: str) -> None:
        """Take the next id out of the mailbox."""
        self._done.append(job_id)

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to the log, and to the audit of the FSM where its machine wants that kept."""
        raw = orjson.dumps(line)
        self._lines.append(raw)
        if self._settings.audit_length:
            self._operation("H", self._settings.audit_length, raw)

    def _spread(self) -> None:
        """Lay out as operations what was applied so far, and is no mere list any more."""
        plain, self._plain = self._plain, []
        for at in range(0, len(plain), 2):
            self._operations += ("D", plain[at], plain[at + 1], "")

    def _operation(self, *arguments: Any) -> None:
        if self._plain:
            self._spread()
        self._operations.extend(arguments)
        self.count += 1

    def record(self, job_id: str, event: str) -> None:
        """Make a record for a hard event of this FSM."""
        data = job_data(self._keys.namespace, self._fsm.name, event, b"null")
        self._operation("N", job_id, event, data)

    def owe(self, job_id: str, *, is_keyed: bool = False) -> None:
        """Leave a hard event, whose record exists, to the next claim: before all other mail.

        Args:
            job_id: Its job.
            is_keyed: It follows from an event that was sent with a key, and is remembered as long.
        """
        self._operation("U", job_id, "1" if is_keyed else "")
        self.set("owes", job_id)

    def keep(self) -> None:
        """Keep the record of the event that is written next as long as the key of a send is remembered."""
        self._operation("K", math.ceil(max(self._settings.dedup_ms, self._settings.result_ttl_ms) / 1000))

    def applied(self, job_id: str, result: dict[str, Any], *, asked: bool) -> None:
        """Write that an event ended, and how: done, refused, or failed where that is no error."""
        raw = orjson.dumps(result)
        self.size += len(raw)
        if asked or self._operations:
            self._operation("D", job_id, raw, pack_result(raw) if asked else "")
        else:
            self._plain += (job_id, raw)
            self.count += 1

    def again(self, job_id: str, wait_ms: int, attempt: int, text: str) -> None:
        """Write that an event is to be tried again: it stays where it is, and the mail behind it waits."""
        text = text.encode("utf-8", "backslashreplace").decode()
        self._operation("R", job_id, wait_ms, attempt, text)

    def failed(self, job_id: str, result: dict[str, Any], text: str) -> None:
        """Write that an event failed, with its traceback."""
        text = text.encode("utf-8", "backslashreplace").decode()
        self._operation("F", job_id, orjson.dumps(result), text, pack_text(text))

    def gone(self, job_id: str) -> None:
        """Write that an operator took an event away, so that whoever waits is told."""
        self._operation("G", job_id)

    def alarm(self, at_ms: int, member: str) -> None:
        """Write when a member of `timers` is due, in ms by the clock of Redis; one that is there already moves."""
        self._operation("A", at_ms, member)

    def calm(self, member: str) -> None:
        """Take a member out of `timers`."""
        self._operation("X", member)

    def note_error(self) -> None:
        """Have the FSM found among those whose last event failed."""
        self._operation("Y")

    def forget_error(self) -> None:
        """Have it found there no more."""
        self._operation("Z")

    def replay(self, parts: Sequence[Sequence[Any]], lines: bytes = b"") -> None:
        """Take over what another block was to say: operations, each with its arguments, and lines of the log."""
        for part in parts:
            self._operation(*part)
        if lines:
            self._lines.append(lines)

    def send_out(self, decision: Decision) -> None:
        """Write what a decision sends."""
        namespace = self._keys.namespace
        for item in decision.outbox:
            if isinstance(item, OutgoingMail):
                data = job_data(namespace, item.name, item.event, item.data)
                self.size += len(data)
                if item.due:
                    self._operation("L", item.job_id, item.name, item.due, item.event, data)
                else:
                    self._operation("S", item.job_id, item.name, item.event, data)
            elif isinstance(item, NewFSM):
                about = blueprint_of(self._keys, item.definition)
                if item.host:
                    about = replace(about, queue=pinned(about.queue, item.host))
                elif self._placer is not None and about.placement == "ring":
                    about = replace(about, queue=self._placer.first(about.queue, about.placement, item.name))
                machine = about.arguments()
                data = job_data(namespace, item.name, item.definition.graph.entry, b"null")
                self.size += len(item.payload)
                self._operation("C", *machine, item.name, item.job_id, item.payload, data)
            elif isinstance(item, Effect):
                fields = _job_fields(item, self._fsm.name, namespace)
                self.size += len(item.call)
                limit = self._settings.payload_limit
                note = orjson.dumps(
                    {
                        "func": item.path,
                        "queue": item.queue,
                        "on_success": item.on_success,
                        "on_failure": item.on_failure,
                        "born": self._fsm.born,
                        "cause": decision.event.job_id,
                        "at_ms": self._now_ms,
                        **({} if limit == PAYLOAD_LIMIT else {"limit": limit}),
                    }
                )
                deadline = "" if item.deadline_ms is None else item.deadline_ms
                self._operation("E", item.job_id, item.queue, deadline, note, len(fields) // 2, *fields)

    def arguments(self, state: str) -> list[Any]:
        """Lay all of it out for `commit`; `state` is where the FSM stands now.

        Returns:
            The frame: what most FSMs of a commit have in common; name; token; lines of the log; then what the script
            wants of this FSM alone.
        """
        fsm, settings, fields, done = self._fsm, self._settings, self._fields, self._done
        drops, plain = self._drops, self._plain
        version = fields.pop("version", fsm.version)
        payload = fields.pop("payload", None)
        fields.pop("state", None)
        arguments: list[Any] = [None, fsm.name, fsm.token, b",".join(self._lines), str(version)]
        if payload is not None:
            arguments.append(payload)
        for pair in fields.items():
            arguments += pair
        arguments += drops
        count = self.count
        if plain and plain[::2] == done:
            count = -1
            arguments += plain
        else:
            self._spread()
            arguments += done
            arguments += self._operations
        arguments[0] = (
            fsm.token,
            fsm.queue,
            -(-settings.result_ttl_ms // 1000),
            -(-settings.failure_ttl_ms // 1000),
            fsm.machine,
            fsm.state,
            state,
            self._ending,
            0 if payload is None else 1,
            len(fields),
            len(drops),
            fsm.urgent and min(fsm.urgent, len(done)),
            len(done),
            count,
            len(arguments) - _OWN,
            self._home,
        )
        return arguments


def _job_fields(effect: Effect, name: str, namespace: str) -> list[Any]:
    """Give the fields of RQ's record of an effect; RQ calls back only where its end is to be told."""
    fields: list[Any] = ["data", effect.call, "description", effect.path, "timeout", effect.seconds]
    fields += ("fsm_of", name, "ns", namespace)
    if effect.waits:
        fields += ("retries_left", len(effect.waits), "retry_intervals", orjson.dumps(effect.waits))
    if effect.on_success or effect.on_failure:
        for end in ("success", "failure", "stopped"):
            fields += (f"{end}_callback_name", f"workers.answers.{end}")
    return fields


def commit(  # noqa: PLR0913 - the parts of one commit
    keys: Keys,
    worker: str,
    nonce: int,
    lease_ms: int,
    claimed_at: str,
    blocks: Sequence[list[Any]],
) -> Request[list[str]]:
    """Write what was done with the FSMs that a worker holds; one verdict an FSM comes back.

    On a crash before Redis has it: nothing happened, the lease ends and the events are run again. After: all of it.

    Args:
        keys: Of the namespace.
        worker: Name of the worker.
        nonce: Grows with each commit of this worker. Asked again with the same one, the same verdicts come back.
        lease_ms: For how long the worker's own keys are kept.
        claimed_at: Time of the claim, as RQ writes it: when these jobs were started.
        blocks: `Block.arguments` of each FSM.
    """
    # Numbers as text: packed in one go, where all else is text or bytes as well.
    frames: dict[tuple[Any, ...], str] = {}
    own: list[Any] = []
    for block in blocks:
        own.append(frames.get(block[0]) or frames.setdefault(block[0], str(len(frames) + 1)))
        own += block[_OWN:]
    lines = [block[3] for block in blocks]
    arguments: list[Any] = [
        keys.prefix,
        keys.namespace,
        keys.default_queue,
        worker,
        str(nonce),
        str(lease_ms),
        str(LOG_LENGTH),
        claimed_at,
        "180",
        b"[%b]" % b",".join(filter(None, lines)),
        ",".join([str(len(line)) for line in lines]),
        str(len(blocks)),
        str(len(frames)),
        *map(orjson.dumps, frames),
        *[block[1] for block in blocks],
        *own,
    ]
    names = (keys.held, keys.claims(worker), keys.replies(worker), keys.log, keys.ended)
    return Request(lambda reply: [word.decode() for word in reply[1:]], "commit", names, arguments)
