"""A Redis that has lost its tail is told by the storage where an FSM stands: the row is the truth.

A worker that dies between the two leaves the row ahead by the step that it stored, and that step is told as it is
(`stored.finish`), unless Redis has heard of its end. A row that is ahead by such a step, or further, means that Redis
went back: it was restored from a backup, another server took over, or it was killed before its last second was on disk.
Then nothing can be run from what Redis has; but the row has state, payload and version, and the other half of the last
step.

What is done: the snapshot gets what the row has. Events whose outcome the row already holds are answered, and not
run again. The last step sends what it sent, unless Redis has heard of its end. Timers of a state that was left go, and
those of the new one are armed, from now on where the last step does not tell.

**Which events have ended.** An FSM applies its mail in order, and the last step says with which event it was at work:
it was done, or it is to be tried again. Where that waits in the mailbox, all before it have ended. Where it does not,
Redis has forgotten it, so it was accepted after all that Redis remembers: what joined the mailbox before the row was
stored has ended, and what came later is new.

What is gone with the tail: mail to others, new FSMs and effects of the steps before the last; delayed events, and
timers of handlers, that were set in it; and what went off and was applied in it goes off once more.

A row without a half of ours was written by hand, and says nothing of mail: all of that is run.

Who calls this: `shelf`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsm.engine import Life, derived_id
from fsm.engine.timers import TICK, Timer, read_timers
from fsm.machine.marks import mark_of, read_mark
from fsm.store.codec import pack_history, read_history
from fsm.store.commits import Block
from fsm.store.halves import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fsm.engine import Behaviour
    from fsm.storage.protocol import Row
    from fsm.store.halves import Half
    from fsm.store.storing import Heard
    from workers.stored import StoredActivation

__all__ = ["ADOPT", "adopt", "last_ended", "marks_of"]

_log = logging.getLogger("fsm.worker")
# What the log calls it, in the place of an event.
ADOPT = "adopt"
# Fields of the snapshot that the last step may have written, and that no row has.
_TOLD = ("refused", "failed_from", "owes")
# What a step sends: mail, mail that is due later, new FSMs, effects.
_OUTGOING = ("S", "L", "C", "E")
# What stands before the id of an event that was restored where something else had that id.
_RESTORED = re.compile(r"^(?:r\d+-)+")


def marks_of(half: Half) -> list[tuple[str, bool]]:
    """Give the event with which the last step was at work, and whether it is done; then the one that brought it about.

    That of an FSM's own has the id of that other one in its own, see `derived_id`.
    """
    done = half.done
    tried = [part[1] for part in half.operations() if part[0] == "R"]
    if not (done or tried):
        return []
    last = done[-1] if done else tried[-1]
    marks = [(last, bool(done))]
    return [*marks, (last.partition("--")[0], True)] if "--" in last else marks


def last_ended(half: Half) -> str:
    """Give the last event of the mailbox that the step has ended; "" where it has ended none.

    What was only passed over may have ended long before, under the same id.
    """
    done = set(half.done)
    return next((part[1] for part in reversed(half.operations()) if part[0] in ("D", "F") and part[1] in done), "")


def adopt(work: StoredActivation, row: Row, half: Half | None, heard: Heard) -> list[Any]:
    """Give the block that makes an FSM in Redis what its row is.

    Where more events have ended than this claim has, it takes these out and does no more: the next claim goes on.

    Args:
        work: The FSM, claimed, with its row ahead.
        row: Of the same life, and of a greater version.
        half: What of the last step Redis was to be told; None where no worker stored the row.
        heard: What Redis has heard of the last event, and of the mail.
    """
    return _Adoption(work, row, half, heard).block()


@dataclass(slots=True)
class _Adoption:
    work: StoredActivation
    row: Row
    half: Half | None
    heard: Heard

    def block(self) -> list[Any]:
        fsm, row, behaviour = self.work.fsm, self.row, self.work.behaviour
        life = Life(fsm.name, row.state, row.payload, row.version, row.status, behaviour.definition, self.work.now_ms)
        life.timers = read_timers(fsm.timers) if fsm.timers else life.timers
        block = Block(self.work.keys, fsm, behaviour.settings, self.work.now_ms)
        ended = self._ended()
        if ended is None:
            self._answer(life, block, len(fsm.mail), {})
            if fsm.attempts is not None:
                block.drop("retry_at")
            return block.arguments(fsm.state)
        told = self.half.operations() if self.half is not None else []
        is_owed = self._owe(block, told, ended)
        if not is_owed:
            # What it owed itself is over, in a state that it has left.
            ended = max(ended, fsm.urgent)
        line = {"name": fsm.name, "machine": fsm.machine, "event": ADOPT, "from": fsm.state, "to": row.state}
        block.log({**line, "version": row.version, "ms": 0, "before": fsm.version, "answered": ended})
        self._answer(life, block, ended, {part[1]: part for part in told if part[0] in ("D", "F")})
        self._replay(block, told)
        self._write(life, block)
        before, life.timers = life.timers, self._timers(life.timers)
        self.work._arm(life, block, before)  # noqa: SLF001 - it is part of this work
        _log.warning(
            "FSM %r: Redis has version %d and lost what came after it; it has now what the storage has, version %d in "
            "state %r, and %d events that had ended are not run again: what earlier steps sent may be lost",
            *(fsm.name, fsm.version, row.version, row.state, ended),
        )
        return block.arguments(row.state)

    def _ended(self) -> int | None:
        """Count how many events of this claim have ended already; None where all of them have, and more."""
        fsm, row = self.work.fsm, self.row
        ids = [_first_id(mail.job_id) for mail in fsm.mail]
        # Nobody but a worker brings an FSM to life, nor by hand.
        least = int(fsm.status == "starting" != row.status and self.work._is_entry(fsm.mail[0]))  # noqa: SLF001 - as above
        if self.half is None:
            return least
        for (job_id, is_done), is_waiting in zip(marks_of(self.half), self.heard.waits, strict=True):
            if _first_id(job_id) in ids:
                return max(least, ids.index(_first_id(job_id)) + is_done)
            if is_waiting:
                return None
        ended = max(least, fsm.urgent)
        for mail, joined_ms in zip(fsm.mail[ended:], self.heard.joined_ms[ended:], strict=True):
            # What an operator took away may have no record any more, and says nothing of what is behind it.
            is_new = joined_ms is None or joined_ms > row.updated_ms
            if is_new and self.work._is_whole(mail):  # noqa: SLF001 - as above
                return ended
            ended += 1
        # There may be more of them, and after this step nothing would tell.
        return None if self.heard.mail > len(fsm.mail) - fsm.urgent else ended

    def _answer(self, life: Life, block: Block, count: int, told: Mapping[str, Sequence[Any]]) -> None:
        """Take events out of the mailbox, and tell whoever waits for them."""
        work = self.work
        for mail in work.fsm.mail[:count]:
            if mail.job_id not in told and not work._is_whole(mail):  # noqa: SLF001 - as above
                work._pass_over(life, block, mail)  # noqa: SLF001 - as above
                continue
            block.take(mail.job_id)
            if mail.is_keyed:
                block.keep()
            if mail.job_id in told:
                block.replay([told[mail.job_id]])
                continue
            result = {"state": life.state, "version": life.version, "recovered": True}
            block.applied(mail.job_id, result, asked=mail.asked)
            block.log({"name": life.name, "event": mail.event, "job": mail.job_id, "recovered": True})

    def _owe(self, block: Block, told: Sequence[Sequence[Any]], ended: int) -> bool:
        """Say what event the FSM owes itself; True where it is one that waits for it in Redis already."""
        fsm, row = self.work.fsm, self.row
        if any(part[0] == "U" for part in told):
            return False
        if fsm.owes and not ended and (fsm.state, fsm.status) == (row.state, row.status):
            return True
        if fsm.owes and not (self.half is not None and "owes" in self.half.fields):
            block.drop("owes")
        hard = self.work.behaviour.hard.get(row.state) if row.status == "running" else None
        if hard:
            # Nobody but itself leaves that state.
            job_id = derived_id(row.last_job or fsm.mail[0].job_id, f"a{row.version}")
            block.record(job_id, hard)
            block.owe(job_id)
        return False

    def _replay(self, block: Block, told: Sequence[Sequence[Any]]) -> None:
        """Have Redis told of the last step what is not lost with the events that brought it about."""
        if self.half is None:
            return
        known = {mail.job_id for mail in self.work.fsm.mail} | {part[1] for part in told if part[0] in ("N", "U")}
        mine = {mail.job_id for mail in self.work.fsm.mail}
        parts = []
        for part in told:
            # Alarms are set anew; the error is the row's; the ends of what waits here were told before.
            if part[0] in ("A", "X", "Y", "Z", "K") or (part[0] in ("D", "F", "G") and part[1] in mine):
                continue
            if part[0] in ("D", "F", "G", "R") and part[1] not in known:
                continue
            if part[0] in _OUTGOING and self.heard.is_told:
                continue
            parts.append(part)
        block.replay(parts, self.half.lines)
        for field in _TOLD:
            if field in self.half.fields:
                block.set(field, self.half.fields[field])

    def _write(self, life: Life, block: Block) -> None:
        """Write the fields of the snapshot that the row has."""
        fsm, row, behaviour = self.work.fsm, self.row, self.work.behaviour
        block.set("version", row.version)
        theirs = read_mark(row.definition)
        mark = mark_of(theirs.fingerprint or behaviour.definition.fingerprint, theirs.version, is_stored=True)
        if mark != fsm.definition:
            block.set("definition", mark)
        if not read_mark(fsm.definition).is_stored:
            block.set("payload", PLACEHOLDER)
        if row.status == "running":
            if fsm.status != "running":
                block.drop("status")
        else:
            block.set("status", row.status)
        if row.status in ("finished", "failed"):
            block.end(row.status)
        if row.error:
            block.set_error(row.error)
        else:
            block.clear_error(was_set=fsm.has_error)
        if fsm.tries or fsm.probation is not None:
            block.drop("tries")
            block.drop("probation")
        if fsm.attempts is not None:
            block.drop("retry_at")
        self._remember(life, block)

    def _remember(self, life: Life, block: Block) -> None:
        """Write the last states: as the last step left them, or with the one that Redis had last."""
        fsm, told = self.work.fsm, self.half.fields.get("history") if self.half is not None else None
        former = self.work.behaviour.settings.history - 1
        if told is not None:
            block.set("history", told)
        elif fsm.state != life.state and fsm.status != "starting" and former > 0:
            try:
                before = read_history(fsm.history) if fsm.history else ()
            except ValueError:
                before = ()
            block.set("history", pack_history((*before, fsm.state)[-former:]))

    def _timers(self, before: Mapping[str, Timer]) -> Mapping[str, Timer]:
        """Give the timers that it has now: as the last step left them, or as far as they can be told."""
        row, behaviour, half = self.row, self.work.behaviour, self.half
        if row.status == "finished":
            return {} if before else before
        if half is not None and "timers" in half.fields:
            raw = half.fields["timers"]
            return read_timers(raw.encode() if isinstance(raw, str) else raw)
        if half is not None and "timers" in half.dropped:
            return {} if before else before
        at_ms = self.work._redis_ms()  # noqa: SLF001 - as above
        return _armed(behaviour, before, row, at_ms, is_moved=self.work.fsm.state != row.state)


def _first_id(job_id: str) -> str:
    """Give the id that an event had before it was restored."""
    return _RESTORED.sub("", job_id)


def _armed(
    behaviour: Behaviour, before: Mapping[str, Timer], row: Row, at_ms: int, *, is_moved: bool
) -> Mapping[str, Timer]:
    """Keep the timers that the state does not end, and arm those of the state, from now on, that are not armed."""
    left = {key: timer for key, timer in before.items() if timer.scope == "fsm"} if is_moved else dict(before)
    if row.status == "running":
        for key, after_ms in behaviour.timers.get(row.state, ()):
            left.setdefault(key, Timer(row.version, at_ms + after_ms))
        if behaviour.settings.timer_ms is not None:
            left.setdefault(TICK, Timer(row.version, at_ms + behaviour.settings.timer_ms, scope="fsm"))
    return left if left != before else before
