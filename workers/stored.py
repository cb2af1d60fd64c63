"""One claimed FSM whose payload lies in a storage: how it is run, put off, and cut into what each side is told.

Who calls this: `shelf`, and the worker in the place of `Activation`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from fsm.engine import Life, derived_id
from fsm.engine.timers import read_timers
from fsm.machine.marks import read_mark
from fsm.storage.protocol import Row
from fsm.store.calls import Claimed
from fsm.store.commits import Block
from fsm.store.halves import PLACEHOLDER, Half, unpack
from workers.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.engine import Event
    from fsm.store.calls import Mail

__all__ = ["Lent", "StoredActivation", "StoredBlock", "finish", "lent", "stored_names"]

_log = logging.getLogger("fsm.worker")


class Lent(Claimed):
    """A claimed FSM of a machine with a storage, and what that had of it.

    Args:
        row: What lay there when it was claimed; None where nothing did.
        ready: What is to be committed without a run: it is put off, or somebody else's work is finished.
        fault: What the storage raised for what its oldest event would make of it.
        is_alone: Run one event and no more: it is not known yet which of them cannot be stored.
    """

    row: Row | None = None
    ready: list[Any] | None = None
    fault: Exception | None = None
    is_alone: bool = False


_FIELDS = msgspec.structs.fields(Claimed)


def lent(fsm: Claimed, row: Row | None) -> Lent:
    """Give a claimed FSM with its row, and with the payload that lies there if that is of this life."""
    values = {field.name: getattr(fsm, field.name) for field in _FIELDS}
    if row is not None and row.born == fsm.born:
        values["payload"] = row.payload
    return Lent(**values, row=row)


class StoredBlock(list[Any]):
    """A block that goes to Redis once its row is stored.

    Args:
        block: Its half for Redis.
        row: Its half for the storage.
        work: The activation that made it.
    """

    def __init__(self, block: list[Any], row: Row, work: StoredActivation) -> None:
        super().__init__(block)
        self.row = row
        self.work = work


class StoredActivation(Activation):
    """As `Activation`, of an FSM whose payload lies in a storage."""

    fsm: Lent

    def anew(self) -> StoredActivation:
        """Give the same work, as if nothing of it had been begun."""
        return StoredActivation(self.behaviour, self.fsm, self.keys, self.executor, self.now_ms, self._asked_at)

    async def run(self, until: float) -> list[Any]:
        """Run events as ever; where there is a new version, the block is one that is stored before it is committed."""
        fsm = self.fsm
        if fsm.ready is not None:
            return fsm.ready
        block = await super().run(0.0 if fsm.is_alone else until)
        half = Half(block)
        is_stored = read_mark(fsm.definition).is_stored
        if half.version == fsm.version:
            # Nothing for the storage: and so the mark must not say that the payload lies there.
            return block if is_stored else half.without("definition")
        if not is_stored and "definition" not in half.fields:
            # It waits to be migrated, and lies in Redis until it is.
            return block
        return self._cut(half, is_stored=is_stored)

    def _cut(self, half: Half, *, is_stored: bool) -> StoredBlock:
        fsm, before = self.fsm, self.fsm.row
        payload = half.payload
        told = half.with_payload(None if is_stored else PLACEHOLDER)
        fields, is_same_life = half.fields, before is not None and before.born == fsm.born
        status = fields.get("status") or ("running" if "status" in half.dropped else fsm.status)
        done = half.done
        row = Row(
            name=fsm.name,
            born=fsm.born,
            machine=fsm.machine,
            state=half.state,
            status=status,
            version=half.version,
            base=fsm.version,
            payload=fsm.payload if payload is None else payload,
            definition=fields.get("definition", fsm.definition),
            started_ms=int(fsm.born) // 1000 if fsm.born.isdecimal() else 0,
            updated_ms=self._redis_ms(),
            error=half.error(before.error if before is not None and is_same_life else b""),
            last_job=done[-1] if done else before.last_job if before is not None and is_same_life else "",
            token=fsm.token,
            pending=Half(told).pack(),
            over=None if before is None else before.born,
            seen=before.payload if before is not None and is_same_life else b"",
        )
        return StoredBlock(told, row, self)

    def _read(self, life: Life, mail: Mail) -> tuple[Event, str | Exception]:
        """Read an event; one that was found not to be storable has failed, and is not run in this claim."""
        event, fault = super()._read(life, mail)
        return event, fault or (self.fsm.fault if mail is self.fsm.mail[0] and self.fsm.fault else "")

    def put_off(self, wait_ms: int, kind: str, message: str) -> list[Any]:
        """Give the block of an FSM that waits for its storage: nothing is consumed, no attempt is used up.

        Args:
            wait_ms: After how long it is tried again.
            kind: Name of the error.
            message: What is told of it, masked.
        """
        fsm = self.fsm
        life = Life(fsm.name, fsm.state, fsm.payload, fsm.version, fsm.status, self.behaviour.definition, self.now_ms)
        armed = life.timers = read_timers(fsm.timers) if fsm.timers else life.timers
        block = Block(self.keys, fsm, self.behaviour.settings, self.now_ms)
        head = None
        for mail in fsm.mail:
            # An entry or hard event that was taken away is made again in its place, once the storage can be used.
            if fsm.owes is None and fsm.status != "starting" and not self._is_whole(mail):
                self._pass_over(life, block, mail)
                continue
            head = mail
            break
        if head is not None:
            # Under the id of a job that there is not, the FSM waits and no record changes: not that of a cancelled one.
            job_id = head.job_id if self._is_whole(head) else derived_id(head.job_id, "waits")
            attempts = fsm.attempts if head is fsm.mail[0] else None
            block.again(job_id, wait_ms, attempts or 0, f"{kind}: {message}")
            note: dict[str, Any] = {"event": head.event, "job": head.job_id, "at_ms": self.now_ms}
            note |= {"failed": "storage", "type": kind, "message": message, "state": fsm.state, "version": fsm.version}
            block.set_error(orjson.dumps(note))
            line: dict[str, Any] = {"name": fsm.name, "machine": fsm.machine, "event": head.event, "from": fsm.state}
            line |= {"to": fsm.state, "version": fsm.version, "job": head.job_id, "ms": 0}
            block.log({**line, "error": message, "retry_in_ms": wait_ms, "waits_for": "storage"})
        elif fsm.attempts is not None:
            block.drop("retry_at")
        self._arm(life, block, armed)
        self.size = block.size
        return block.arguments(fsm.state)


def stored_names(blocks: Sequence[list[Any]]) -> list[str]:
    """Give the names of those FSMs that a storage was told of."""
    return [block[1] for block in blocks if isinstance(block, StoredBlock)]


def finish(fsm: Lent, row: Row) -> list[Any]:
    """Give what is left of the work of whoever stored a row, as the block of the worker that has the FSM now.

    Raises:
        ValueError: It cannot be read here.
    """
    block = unpack(row.pending, fsm, clears_error=fsm.has_error and not row.error)
    if Half(block).version != row.version:
        problem = f"it is of version {Half(block).version}, and its row of version {row.version}"
        raise ValueError(problem)
    _log.warning(
        "FSM %r: version %d was stored and Redis was not told, by a worker that did not come to it: it is told now",
        fsm.name,
        row.version,
    )
    return block
