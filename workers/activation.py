"""One claimed FSM: its events run in order, and all that is to be written for it laid out as one block.

Who calls this: the worker, once for each FSM of a claim. It touches no Redis: a block is written by the commit, or not
at all.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
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
    step,
)
from fsm.errors import PayloadError
from fsm.machine.values import JSON
from fsm.store.codec import event_data
from fsm.store.commits import Block

if TYPE_CHECKING:
    from fsm.engine import Behaviour
    from fsm.store.calls import Claimed, Mail
    from fsm.store.keys import Keys
    from workers.executors import Executor

__all__ = ["Activation"]

_log = logging.getLogger("fsm.worker")
_MS = 1_000_000


@dataclass(slots=True)
class Activation:
    """The work on one FSM, from its claim to the block for its commit.

    Args:
        behaviour: Its machine.
        fsm: The claim.
        keys: Of the namespace.
        executor: Who keeps the time of each event.
        now_ms: Time of the claim, by the clock of Redis.
    """

    behaviour: Behaviour
    fsm: Claimed
    keys: Keys
    executor: Executor
    now_ms: int
    done: int = 0
    failed: int = 0
    _is_keyed: bool = False

    async def run(self, until: float) -> list[Any]:
        """Run events until they are used up, the FSM ends, or the time is over; at least one is run.

        Args:
            until: `time.monotonic()` after which no further event is begun.

        Returns:
            The block for `commits.commit`.
        """
        behaviour, fsm = self.behaviour, self.fsm
        history = _history(fsm.history) if fsm.history else ()
        life = Life(
            fsm.name,
            fsm.state,
            fsm.payload,
            fsm.version,
            fsm.status,
            behaviour.definition,
            self.now_ms,
            history,
        )
        block = Block(self.keys, fsm, behaviour.definition.settings, self.now_ms)
        for mail in fsm.mail:
            if self.done + self.failed and time.monotonic() > until:
                break
            if life.status == "starting" and not self._is_entry(mail):
                # The entry event was taken away: an FSM owes it to itself, and makes it again before anything else.
                await self._begin(life, block, mail.job_id)
                if fsm.tries:
                    break
            if life.status == "failed":
                break
            block.take(mail.job_id)
            await self._one(life, block, mail)
        self._snapshot(life, block, history)
        return block.arguments(life.state)

    async def _one(self, life: Life, block: Block, mail: Mail) -> None:
        """Run one event of the mailbox, and what follows from it."""
        # What follows from an event with a key is remembered as long as that event: who repeats it may want to settle.
        self._is_keyed = mail.is_keyed
        if mail.event is None or mail.status == b"canceled":
            how = "deleted" if mail.event is None else "cancelled"
            self._keep(block)
            block.gone(mail.job_id)
            block.log({"name": life.name, "event": mail.event, "job": mail.job_id, "error": f"{how} by an operator"})
            return
        if mail.place not in (b"mail", b"later"):
            return  # applied, failed or taken away already: its id was put here again by hand
        if mail.born != self.fsm.born.encode():
            block.gone(mail.job_id)
            line = {"name": life.name, "event": mail.event, "job": mail.job_id, "error": "sent to an earlier life"}
            block.log(line)
            return
        event = Event(mail.job_id, mail.event, b"null", _meta(mail.meta), if_version=_version(mail.if_version))
        if life.status == "finished":
            reason = f"the FSM has finished in state {life.state!r}"
            self._keep(block)
            block.applied(
                mail.job_id,
                {"refused": "finished", "reason": reason, "state": life.state, "version": life.version},
                asked=mail.asked,
            )
            block.log({"name": life.name, "event": mail.event, "job": mail.job_id, "refused": "finished"})
            return
        if life.status != "starting":  # an entry event carries no data
            try:
                event.raw = event_data(mail.data, self.keys.namespace, life.name, mail.event)
            except (ValueError, TypeError) as error:
                decision = await give_up(self.behaviour, life, event, f"its job record was edited by hand: {error}")
                self._write(life, block, decision, asked=mail.asked, ms=0)
                await self._follow(life, block, decision)
                return
        await self._apply(life, block, event, asked=mail.asked)

    def _is_entry(self, mail: Mail) -> bool:
        """Tell whether this is the entry event of this life, to be applied."""
        is_whole = mail.place in (b"mail", b"later") and mail.status != b"canceled"
        return is_whole and mail.event == self.behaviour.graph.entry and mail.born == self.fsm.born.encode()

    async def _begin(self, life: Life, block: Block, job_id: str) -> None:
        """Make an entry event anew, with an id derived from that of the event that found it missing, and apply it."""
        event = Event(derived_id(job_id, "entry"), self.behaviour.graph.entry)
        block.record(event.job_id, event.name)
        await self._apply(life, block, event, asked=False)

    async def _apply(self, life: Life, block: Block, event: Event, *, asked: bool) -> None:
        """Run an event, or give it up where too many workers died on it; then what follows from it."""
        tries = self.fsm.tries
        if tries > self.behaviour.definition.settings.max_attempts:
            decision = await abandon(self.behaviour, life, event, tries)
            self._write(life, block, decision, asked=asked, ms=0)
        else:
            decision = await self._timed(life, block, event, asked=asked)
        await self._follow(life, block, decision)

    async def _timed(self, life: Life, block: Block, event: Event, *, asked: bool) -> Decision:
        """Run one event within its machine's time-out."""
        behaviour = self.behaviour
        seconds = behaviour.definition.settings.timeout_ms / 1000
        begin = time.perf_counter_ns()
        decision: Decision | None = None
        try:
            with self.executor.timed(seconds, is_async=behaviour.is_async):
                decision = await step(behaviour, life, event)
        except HandlerTimeout:
            # The alarm rang between the end of the step and its own end: the step's decision stands. Where it rang in
            # the step's own code the FSM may be half moved: nothing of it must be written.
            if decision is None:
                problem = f"the time-out of event {event.name!r} of FSM {life.name!r} rang outside of its handlers"
                raise RuntimeError(problem) from None
        self._write(life, block, decision, asked=asked, ms=(time.perf_counter_ns() - begin) // _MS)
        return decision

    async def _follow(self, life: Life, block: Block, decision: Decision) -> None:
        """Run the hard events that follow, each as a job of its own; a suspect's are left to a claim of their own."""
        count = 0
        while event := follow_up(self.behaviour, life, decision):
            block.record(event.job_id, event.name)
            if self.fsm.tries:
                block.owe(event.job_id, is_keyed=self._is_keyed)
                return
            if count < LONGEST_CHAIN:
                decision = await self._timed(life, block, event, asked=False)
            else:
                decision = await break_circle(self.behaviour, life, event, count - LONGEST_CHAIN)
                self._write(life, block, decision, asked=False, ms=0)
            count += 1

    def _write(self, life: Life, block: Block, decision: Decision, *, asked: bool, ms: int) -> None:
        """Write one decision: the job's end, the snapshot's notes, what goes out, and a line of the log."""
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
        if follower := follow_up(self.behaviour, life, decision):
            decision.result["next"] = follower.job_id
        self._keep(block)
        if decision.kind == "failed" and not decision.soft:
            self.failed += 1
            block.failed(event.job_id, decision.result, decision.text)
            about = "event %r of FSM %r failed in state %r (job %s):\n%s"
            _log.warning(about, event.name, life.name, decision.source, event.job_id, decision.text.rstrip())
        else:
            self.done += 1
            block.applied(event.job_id, decision.result, asked=asked)
        if decision.kind == "refused":
            line["refused"] = decision.result["refused"]
        elif decision.kind == "failed":
            line["error"] = decision.result["message"]
        self._note(block, decision)
        if decision.ending:
            line["ending"] = decision.ending
            block.end(decision.ending)
        block.log(line)
        if decision.outbox:
            block.send_out(decision)

    def _keep(self, block: Block) -> None:
        if self._is_keyed:
            block.keep()

    def _note(self, block: Block, decision: Decision) -> None:
        """Keep the last failure and the last refusal in the snapshot; an event that is done clears the failure."""
        if decision.kind == "done":
            block.clear_error(was_set=self.fsm.has_error)
        elif not decision.soft:
            note = {"event": decision.event.name, "job": decision.event.job_id, "at_ms": self.now_ms, **decision.result}
            block.set("refused" if decision.kind == "refused" else "error", orjson.dumps(note))

    def _snapshot(self, life: Life, block: Block, history: tuple[str, ...]) -> None:
        """Write the fields that changed: absent and unchanged ones cost nothing."""
        fsm = self.fsm
        block.set("version", life.version)
        if life.state != fsm.state:
            block.set("state", life.state)
        if life.raw is not fsm.payload and life.raw != fsm.payload:
            block.set("payload", life.raw)
        if life.status != fsm.status:
            # Nearly all FSMs are running: that is what no field says.
            if life.status == "running":
                block.drop("status")
            else:
                block.set("status", life.status)
        if life.history != history:
            block.set("history", orjson.dumps(life.history))
        if fsm.definition != self.behaviour.definition.fingerprint:
            block.set("definition", self.behaviour.definition.fingerprint)
        if fsm.tries and (self.done or self.failed):
            block.drop("tries")
        if fsm.owes and not block.owes:
            block.drop("owes")


def _history(raw: bytes) -> tuple[str, ...]:
    """Read the last states; where they were edited by hand they begin anew, for the FSM must go on."""
    try:
        return tuple(map(str, orjson.loads(raw)))
    except (ValueError, TypeError):
        return ()


def _version(raw: bytes | None) -> int | None:
    """Read `if_version`; where it was edited by hand, it is no version that an FSM ever has."""
    if raw is None:
        return None
    return int(raw) if raw.isdigit() else -1


def _meta(raw: bytes | None) -> dict[str, Any]:
    """Read what the sender gave as `meta`; RQ's tools may have written there too."""
    if not raw:
        return {}
    try:
        meta = JSON.decode(raw)
    except PayloadError:
        return {}
    return meta if isinstance(meta, dict) else {}
