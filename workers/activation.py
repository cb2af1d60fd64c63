"""One claimed FSM: its events run in order, and all that is to be written for it laid out as one block.

Who calls this: the worker, once for each FSM of a claim. It touches no Redis: a block is written by the commit, or not
at all.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import (
    LONGEST_CHAIN,
    Decision,
    Event,
    HandlerTimeout,
    Life,
    abandon,
    break_circle,
    derived_id,
    follow_up,
    give_up,
    is_outdated,
    migrate,
    put_off,
    step,
)
from fsm.engine.faults import is_for_us
from fsm.engine.migrating import MIGRATE
from fsm.engine.timers import (
    advance,
    fired,
    moved,
    overdue,
    pass_over,
    read_timers,
    stale,
    write_timers,
)
from fsm.errors import PayloadError
from fsm.machine.values import JSON
from fsm.store import alarms
from fsm.store.codec import event_data, pack_history, read_history, text, whole
from fsm.store.commits import Block
from workers import points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.engine import Behaviour
    from fsm.engine.timers import Timer as Armed
    from fsm.store.calls import Claimed, Mail
    from fsm.store.keys import Keys
    from fsm.store.places import Placer
    from workers.executors import Timer

__all__ = ["Activation"]

_log = logging.getLogger("fsm.worker")
# Where mail lies that is to be applied, as its record says. One that is `later` waits for its time: its id lies in the
# mailbox where it was deleted, and sent again with a delay.
_PLACE = b"mail"


class Activation:
    """The work on one FSM, from its claim to the block for its commit.

    Args:
        behaviour: Its machine.
        fsm: The claim.
        keys: Of the namespace.
        executor: Who keeps the time of each event.
        now_ms: Time of the claim, by the clock of Redis.
        asked_at: `time.monotonic()` before the claim was sent; without it, now. What passed since then tells the time
            of Redis later on, so that a handler which takes long shortens no timer.
        placer: Says on which hosts FSMs are run, where that is left to the ring; without one they stay where they are.
    """

    # Of the class, until it is otherwise: there is one of these for each FSM of each claim.
    done = 0
    failed = 0
    is_retried = False
    # Whether an older definition wrote it last, and ours could not make it one of its own.
    is_unmigrated = False
    # About how many bytes its block has.
    size = 0
    # The event that is run, or was last.
    event = ""
    # Whether nothing further is to be run: it failed, it waits, or a suspect has had its one event.
    _is_over = False
    _is_keyed = False
    _is_starting = False
    _ended_at = 0.0

    def __init__(  # noqa: PLR0913 - what the work is done with
        self,
        behaviour: Behaviour,
        fsm: Claimed,
        keys: Keys,
        executor: Timer,
        now_ms: int,
        asked_at: float | None = None,
        placer: Placer | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.fsm = fsm
        self.keys = keys
        self.executor = executor
        self.now_ms = now_ms
        self._asked_at = time.monotonic() if asked_at is None else asked_at
        self.placer = placer
        self._born = fsm.born.encode()
        self._has_error = fsm.has_error

    async def run(self, until: float) -> list[Any]:  # noqa: C901 - one story, from the snapshot to the block
        """Run events until they are used up, the FSM ends, or the time is over; at least one is run.

        Args:
            until: `time.monotonic()` after which no further event is begun.

        Returns:
            The block for `commits.commit`.
        """
        behaviour, fsm = self.behaviour, self.fsm
        history = _history(fsm.history) if fsm.history else ()
        definition = behaviour.definition
        life = Life(fsm.name, fsm.state, fsm.payload, fsm.version, fsm.status, definition, self.now_ms, history)
        armed = life.timers = read_timers(fsm.timers) if fsm.timers else life.timers
        block = Block(self.keys, fsm, behaviour.settings, self.now_ms, self.placer)
        owed = text(fsm.owes) if fsm.owes and life.status == "running" else ""
        self._is_over = life.status == "failed"
        if fsm.definition != definition.mark and fsm.mail and is_outdated(behaviour, life.status, fsm.definition):
            await self._migrate(life, block)
            if not (owed or self.is_unmigrated) and life.status == "running" and life.state in behaviour.hard:
                # It has come to a state that nobody but itself leaves.
                owed = derived_id(fsm.mail[0].job_id, "m1")
        for mail in fsm.mail:
            if self._ended_at > until or self._is_over:
                break
            again = self._owed(life, mail, owed) if owed or life.status == "starting" else None
            owed = ""
            if again:
                # What was taken away goes first, and that is told: else it would lie before what is made in its place,
                # where that waits to be tried again.
                if is_gone := not self._is_whole(mail):
                    self._pass_over(life, block, mail)
                await self._make(life, block, *again)
                if is_gone:
                    continue
                if self._is_over:
                    break
            why = ""
            if (
                life.status == "finished"
                or not self._is_whole(mail)
                or (mail.meta is not None and (why := self._too_late(life, mail)))
            ):
                self._pass_over(life, block, mail, why)
                continue
            event, fault = self._read(life, mail)
            # What follows from an event with a key is remembered as long as that: who repeats it may want to settle.
            self._is_keyed = mail.is_keyed
            follower = await self._apply(life, block, event, asked=mail.asked, fault=fault)
            if not self.is_retried:
                block.take(mail.job_id)
                if follower is not None:
                    await self._follow(life, block, follower)
        self._snapshot(life, block, history)
        self._arm(life, block, armed)
        block.place()
        self.size = block.size
        return block.arguments(life.state)

    async def _migrate(self, life: Life, block: Block) -> None:
        """Make an FSM that an older definition wrote last one of ours; where that fails, it waits with all its mail."""
        behaviour, fsm = self.behaviour, self.fsm
        self.is_unmigrated = True
        if fsm.tries > 2 * behaviour.settings.max_attempts:
            return  # workers died on it again and again, perhaps in this very method: its event is given up without it
        self.event = MIGRATE
        state, timers, history = life.state, life.timers, life.history
        is_done = False
        try:
            with self.executor.timed(behaviour.settings.timeout_for(MIGRATE) / 1000, is_async=behaviour.is_async):
                await migrate(behaviour, life, fsm.definition, self._redis_ms())
                is_done = True
        except BaseException as fault:  # user code may raise anything: its failure, not ours
            if is_for_us(fault):
                raise
            if not is_done:
                # A time-out rings anywhere.
                life.state, life.raw, life.timers, life.history = state, fsm.payload, timers, history
                head = fsm.mail[0]
                # One that an operator took away stays so: then it is the FSM alone that waits.
                job_id = head.job_id if self._is_whole(head) else derived_id(head.job_id, "m0")
                self._put_off(block, put_off(life, fsm.definition, job_id, fsm.attempts or 0, fault))
                return
        self.is_unmigrated = False
        line = {"name": life.name, "machine": behaviour.name, "event": MIGRATE, "from": state, "to": life.state}
        block.log({**line, "version": life.version})

    def _put_off(self, block: Block, decision: Decision) -> None:
        """Write that nothing of an FSM can be applied for the time being; its events are as new as they were."""
        self.is_retried = self._is_over = True
        event = decision.event
        block.again(event.job_id, decision.wait_ms, event.attempt, decision.text)
        self._note(block, decision)
        block.log(
            {
                "name": self.fsm.name,
                "machine": self.behaviour.name,
                "event": event.name,
                "from": decision.source,
                "to": decision.state,
                "version": decision.version,
                "job": event.job_id,
                "error": decision.result["message"],
            }
        )
        about = "FSM %r in state %r is not migrated, and waits with its mail for %.1f s: %s"
        _log.warning(about, self.fsm.name, decision.source, decision.wait_ms / 1000, decision.text.rstrip())

    def _read(self, life: Life, mail: Mail) -> tuple[Event, str | Exception]:
        """Read an event of the mailbox, and say why it cannot be run, where it cannot."""
        fsm = self.fsm
        name: str = mail.event  # type: ignore[assignment] # it is whole
        attempt = 1 if fsm.attempts is None or mail is not fsm.mail[0] else fsm.attempts + 1
        meta = _meta(mail.meta) if mail.meta else {}
        if_version = None if mail.if_version is None else _version(mail.if_version)
        raw, fault = b"null", ""
        if life.status == "starting":  # an entry event carries no data, and is ours by whatever name
            name = self.behaviour.graph.entry
        else:
            try:
                raw = event_data(mail.data, self.keys.namespace, fsm.name, name)
            except (ValueError, TypeError) as error:
                fault = f"its job record was edited by hand: {error}"
        return Event(mail.job_id, name, raw, meta, attempt, if_version), fault

    def _pass_over(self, life: Life, block: Block, mail: Mail, why: str = "") -> None:
        """Take out of the mailbox what is not to be run, and tell whoever waits for it; `why` is of a timer's event."""
        self._is_keyed = mail.is_keyed
        block.take(mail.job_id)
        line = {"name": life.name, "event": mail.event, "job": mail.job_id}
        if why:
            result = {"refused": "timer", "reason": why, "state": life.state, "version": life.version}
            block.applied(mail.job_id, result, asked=mail.asked)
            block.log({**line, "refused": "timer", "reason": why})
            return
        if life.timers and "--t" in mail.job_id and mail.born in (None, self._born):
            self._lose(life, mail)
        if mail.event is not None and mail.place != _PLACE:
            return  # applied, failed or taken away already, or another FSM's: its id lies here twice, or was put here
        if mail.event is None or mail.status == b"canceled":
            how = "deleted" if mail.event is None else "cancelled"
            if mail.is_keyed:
                block.keep()
            block.gone(mail.job_id)
            block.log({**line, "error": f"{how} by an operator"})
        elif mail.born != self._born:
            block.gone(mail.job_id)
            block.log({**line, "error": "sent to an earlier life"})
        else:
            reason = f"the FSM has finished in state {life.state!r}"
            if mail.is_keyed:
                block.keep()
            block.applied(
                mail.job_id,
                {"refused": "finished", "reason": reason, "state": life.state, "version": life.version},
                asked=mail.asked,
            )
            block.log({**line, "refused": "finished"})

    def _lose(self, life: Life, mail: Mail) -> None:
        """Forget the timer whose event was taken away; a tick comes again, for it is what arms the next one."""
        event = Event(mail.job_id, "", meta=self._meta_of_lost(life, mail) if mail.event is None else _meta(mail.meta))
        mark = fired(event)
        if mark and not stale(life.timers, event) and life.timers[mark[0]].at_ms <= self.now_ms:
            life.timers = pass_over(self.behaviour, life, event, "skip", self._redis_ms())

    def _meta_of_lost(self, life: Life, mail: Mail) -> dict[str, Any]:
        """Find the timer whose event has no record any more: the id tells its arm, and they fire as they are due."""
        arm = mail.job_id.rpartition("v")[2]
        due = [(one.at_ms, key) for key, one in life.timers.items() if one.at_ms and str(one.arm) == arm]
        return {"timer": min(due)[1]} if due else {}

    def _too_late(self, life: Life, mail: Mail) -> str:
        """Say why the event of a timer is not to be applied any more; "" where it is, and for any other event."""
        if "--t" not in mail.job_id:
            return ""
        event = Event(mail.job_id, "", meta=_meta(mail.meta))
        # One that was begun already is late through its own failures, or those of the workers that died on it.
        is_new = not self.fsm.tries and (self.fsm.attempts is None or mail is not self.fsm.mail[0])
        if (why := stale(life.timers, event)) or not is_new:
            return why
        policy = overdue(self.behaviour, life.timers, event, self.now_ms)
        if policy == "fire":
            return ""
        life.timers = pass_over(self.behaviour, life, event, policy, self._redis_ms())
        return "overdue, skipped" if policy == "skip" else "overdue, its timer was restarted"

    def _redis_ms(self) -> int:
        """Tell the time by the clock of Redis: some ms late where the claim took long to come, but never early."""
        return self.now_ms + int((time.monotonic() - self._asked_at) * 1000)

    def _arm(self, life: Life, block: Block, before: Mapping[str, Armed]) -> None:
        """Write the timers that the FSM has now, in its snapshot and among all that is to come."""
        timers = life.timers
        if timers is before or timers == before:
            return
        if timers:
            raw = write_timers(timers)
            block.set("timers", raw)
            block.size += len(raw)
        elif self.fsm.timers:
            block.drop("timers")
        alarmed, calmed = moved(before, timers)
        for at_ms, key in alarmed:
            block.alarm(at_ms, alarms.timer(key, life.name))
        for key in calmed:
            block.calm(alarms.timer(key, life.name))

    def _is_whole(self, mail: Mail) -> bool:
        """Tell whether this is an event of this life that is to be applied."""
        return mail.born == self._born and mail.place == _PLACE and mail.status != b"canceled"

    def _owed(self, life: Life, mail: Mail, owed: str) -> tuple[str, str] | None:
        """Give id and name of the entry or hard event that was taken away: an FSM makes it again for itself."""
        graph = self.behaviour.graph
        if life.status == "starting":
            return None if self._is_entry(mail) else (derived_id(mail.job_id, "entry"), graph.entry)
        hard = graph.hard_event(life.state)
        # By another name where its FSM was migrated meanwhile.
        if mail.job_id == owed and self._is_whole(mail) and mail.event == hard:
            return None
        return (derived_id(owed, "again"), hard) if hard else None

    def _is_entry(self, mail: Mail) -> bool:
        """Tell whether this is the entry event of this life, to be applied: by its name of here or elsewhere."""
        graph, fsm = self.behaviour.graph, self.fsm
        is_former = fsm.definition != self.behaviour.definition.mark and mail.event not in graph.events
        return self._is_whole(mail) and (mail.event == graph.entry or (is_former and mail is fsm.mail[0]))

    async def _make(self, life: Life, block: Block, job_id: str, name: str) -> None:
        """Make an entry or hard event anew, and apply it."""
        block.record(job_id, name)
        follower = await self._apply(life, block, Event(job_id, name), asked=False)
        if self.is_retried:
            block.owe(job_id)
        elif follower is not None:
            await self._follow(life, block, follower)

    async def _apply(
        self, life: Life, block: Block, event: Event, *, asked: bool, fault: str | Exception = ""
    ) -> Event | None:
        """Run one event within its machine's time-out, or give it up: at a fault, or if too many workers died on it.

        Returns:
            The hard event that follows; whether this one is to be tried again, `is_retried` tells.
        """
        behaviour, tries = self.behaviour, self.fsm.tries
        self._is_starting = life.status == "starting"
        if tries:
            self._is_over = True
        if fault or tries > behaviour.settings.max_attempts:
            giving_up = give_up(behaviour, life, event, fault) if fault else abandon(behaviour, life, event, tries)
            decision = await giving_up
            return self._write(life, block, decision, asked=asked, ms=0)
        if points.armed is not None:
            points.armed.reach("before handler", (life.name,))
        self.event = event.name
        ended: Decision | None = None
        begin = time.monotonic()
        try:
            with self.executor.timed(behaviour.settings.timeout_for(event.name) / 1000, is_async=behaviour.is_async):
                ended = await step(behaviour, life, event)
        except HandlerTimeout:
            # The alarm rang between the end of the step and its own end: the step's decision stands. Where it rang in
            # the step's own code the FSM may be half moved: nothing of it must be written.
            if ended is None:
                problem = f"the time-out of event {event.name!r} of FSM {life.name!r} rang outside of its handlers"
                raise RuntimeError(problem) from None
        self._ended_at = time.monotonic()
        if points.armed is not None:
            points.armed.reach("after handler", (life.name,))
        return self._write(life, block, ended, asked=asked, ms=int((self._ended_at - begin) * 1000))

    async def _follow(self, life: Life, block: Block, first: Event) -> None:
        """Run the hard events that follow, each as a job of its own; a suspect's are left to a claim of their own."""
        event: Event | None = first
        count = 0
        while event is not None:
            block.record(event.job_id, event.name)
            if self.fsm.tries:
                block.owe(event.job_id, is_keyed=self._is_keyed)
                return
            if count < LONGEST_CHAIN:
                follower = await self._apply(life, block, event, asked=False)
                if self.is_retried:
                    block.owe(event.job_id, is_keyed=self._is_keyed)
                event = follower
            else:
                decision = await break_circle(self.behaviour, life, event, count - LONGEST_CHAIN)
                event = self._write(life, block, decision, asked=False, ms=0)
            count += 1

    def _write(  # noqa: C901 - one a part of the commit
        self, life: Life, block: Block, decision: Decision, *, asked: bool, ms: int
    ) -> Event | None:
        """Write one decision: the job's end, the snapshot's notes, what goes out, and a line of the log.

        Returns:
            The hard event that follows.
        """
        event = decision.event
        line: dict[str, Any] = {
            "name": life.name,
            "machine": self.behaviour.name,
            "event": event.name,
            "from": decision.source,
            "to": decision.state,
            "version": decision.version,
            "job": event.job_id,
            "ms": ms,
        }
        if event.meta:
            line["meta"] = event.meta
        if decision.kind == "retry":
            self._wait(block, decision, line)
            return None
        if decision.timers or life.timers or self.behaviour.timers:
            life.timers = advance(life.timers, decision, self.behaviour, self._redis_ms())
        follower = None
        if self.behaviour.hard and (follower := follow_up(self.behaviour, life, decision)):
            decision.result["next"] = follower.job_id
        if self._is_keyed:
            block.keep()
        if decision.kind == "failed" and not decision.soft:
            self.failed += 1
            block.failed(event.job_id, decision.result, decision.text)
            about = "event %r of FSM %r failed in state %r (job %s):\n%s"
            _log.warning(about, event.name, life.name, decision.source, event.job_id, decision.text.rstrip())
        else:
            self.done += 1
            block.applied(event.job_id, decision.result, asked=asked)
        if decision.kind == "done":
            if self._has_error:
                block.clear_error(was_set=self.fsm.has_error)
        else:
            is_refused = decision.kind == "refused"
            line["refused" if is_refused else "error"] = decision.result["refused" if is_refused else "message"]
            self._note(block, decision)
        if decision.ending:
            line["ending"] = decision.ending
            self._end(block, decision)
        block.log(line)
        if decision.outbox:
            block.send_out(decision)
        return follower

    def _end(self, block: Block, decision: Decision) -> None:
        block.end(decision.ending)
        if decision.ending == "failed":
            self._is_over = True
            # So that an operator can have it tried again: it is what its FSM owes itself.
            block.set("owes", decision.event.job_id)
            if self._is_starting:
                block.set("failed_from", "starting")

    def _wait(self, block: Block, decision: Decision, line: dict[str, Any]) -> None:
        """Write that an event is to be tried again: the FSM stands as it stood, and its mail waits behind it."""
        self.is_retried = self._is_over = True
        event, result = decision.event, decision.result
        block.again(event.job_id, decision.wait_ms, event.attempt, decision.text)
        if "failed" in result:
            self._note(block, decision)
            line["error"] = result["message"]
            about = "attempt %d of event %r of FSM %r failed in state %r, the next in %.1f s (job %s):\n%s"
            seconds = decision.wait_ms / 1000
            where = (event.attempt, event.name, self.fsm.name, decision.source, seconds, event.job_id)
            _log.warning(about, *where, decision.text.rstrip())
        line["attempt"] = event.attempt
        line["retry_in_ms"] = decision.wait_ms
        block.log(line)

    def _note(self, block: Block, decision: Decision) -> None:
        """Keep the last failure and the last refusal in the snapshot."""
        if not decision.soft:
            self._has_error = True
            note = {"event": decision.event.name, "job": decision.event.job_id, "at_ms": self.now_ms, **decision.result}
            if decision.kind == "refused":
                block.set("refused", orjson.dumps(note))
            else:
                block.set_error(orjson.dumps(note))

    def _snapshot(self, life: Life, block: Block, history: tuple[str, ...]) -> None:
        """Write the fields that changed: absent and unchanged ones cost nothing."""
        fsm = self.fsm
        block.set("version", life.version)
        if life.state != fsm.state:
            block.set("state", life.state)
        if life.raw is not fsm.payload and life.raw != fsm.payload:
            block.set("payload", life.raw)
            block.size += len(life.raw)
        if life.status != fsm.status:
            # Nearly all FSMs are running: that is what no field says.
            if life.status == "running":
                block.drop("status")
            else:
                block.set("status", life.status)
        if life.history != history:
            block.set("history", pack_history(life.history))
        mark = self.behaviour.definition.mark
        if fsm.definition != mark and not self.is_unmigrated and fsm.status != "finished":
            block.set("definition", mark)
        # What was taken away counts as well: the deaths were charged to it, and not to what lay behind it.
        if fsm.probation is not None and (self.done or self.failed or self.is_retried or block.taken):
            self._clear(block)
        if fsm.attempts is not None and not self.is_retried:
            block.drop("retry_at")
        if fsm.owes and not block.owes and not block.leaves_urgent:
            block.drop("owes")

    def _clear(self, block: Block) -> None:
        """Clear a suspect, step by step: what killed its worker may lie behind what was done now."""
        is_all_done = block.taken == len(self.fsm.mail)
        # The hard event that it owes is of the same mailbox, and has yet to be run.
        if is_all_done and not self.fsm.probation and not block.owes:
            block.drop("tries")
            block.drop("probation")
            return
        block.set("tries", 0)
        if is_all_done:
            block.set("probation", self.fsm.probation or 1)


@lru_cache(maxsize=1024)  # the FSMs of a machine have few different ones
def _history(raw: bytes) -> tuple[str, ...]:
    """Read the last states; where they were edited by hand they begin anew, for the FSM must go on."""
    try:
        return read_history(raw)
    except ValueError:
        return ()


def _version(raw: bytes | None) -> int | None:
    """Read `if_version`; where it was edited by hand, it is no version that an FSM ever has."""
    if raw is None:
        return None
    return whole(raw) if raw.isdigit() else -1


def _meta(raw: bytes | None) -> dict[str, Any]:
    """Read what the sender gave as `meta`; RQ's tools may have written there too."""
    if not raw:
        return {}
    try:
        meta = JSON.decode(raw)
    except PayloadError:
        return {}
    return meta if isinstance(meta, dict) else {}
