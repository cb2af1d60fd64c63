"""One claimed FSM: its events run in order, and all that is to be written for it laid out as one block.

Who calls this: the worker, once for each FSM of a claim. It touches no Redis: a block is written by the commit, or not
at all.
"""

from __future__ import annotations

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
    derived_id,
    follow_up,
    give_up,
    step,
)
from fsm.store.codec import event_data
from fsm.store.commits import Block

if TYPE_CHECKING:
    from fsm.engine import Behaviour
    from fsm.store.calls import Claimed, Mail
    from fsm.store.keys import Keys
    from workers.executors import InlineExecutor

__all__ = ["Activation"]

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
    executor: InlineExecutor
    now_ms: int
    done: int = 0
    failed: int = 0

    async def run(self, until: float) -> list[Any]:
        """Run events until they are used up, the FSM ends, or the time is over; at least one is run.

        Args:
            until: `time.monotonic()` after which no further event is begun.

        Returns:
            The block for `commits.commit`.
        """
        behaviour, fsm = self.behaviour, self.fsm
        history = tuple(orjson.loads(fsm.history)) if fsm.history else ()
        life = Life(
            fsm.name,
            fsm.state,
            fsm.payload,
            fsm.version,
            fsm.status,
            behaviour.definition.payload,
            self.now_ms,
            history,
        )
        block = Block(self.keys, fsm, behaviour.definition.settings)
        for mail in fsm.mail:
            if self.done + self.failed and time.monotonic() > until:
                break
            if life.status == "failed":
                break
            block.take(mail.job_id)
            await self._one(life, block, mail)
        self._snapshot(life, block, history)
        return block.arguments(life.state)

    async def _one(self, life: Life, block: Block, mail: Mail) -> None:
        """Run one event of the mailbox, and what follows from it."""
        if mail.event is None or mail.status == b"canceled":
            how = "deleted" if mail.event is None else "cancelled"
            block.gone(mail.job_id)
            block.log({"name": life.name, "event": mail.event, "job": mail.job_id, "error": f"{how} by an operator"})
            return
        if mail.place not in (b"mail", b"later"):
            return  # applied, failed or taken away already: its id was put here again by hand
        if (mail.born or b"").decode() != self.fsm.born:
            block.gone(mail.job_id)
            line = {"name": life.name, "event": mail.event, "job": mail.job_id, "error": "sent to an earlier life"}
            block.log(line)
            return
        event = Event(mail.job_id, mail.event, b"null", _meta(mail.meta))
        if life.status == "finished":
            reason = f"the FSM has finished in state {life.state!r}"
            block.applied(
                mail.job_id,
                {"refused": "finished", "reason": reason, "state": life.state, "version": life.version},
                asked=mail.asked,
            )
            block.log({"name": life.name, "event": mail.event, "job": mail.job_id, "refused": "finished"})
            return
        try:
            event.raw = event_data(mail.data, self.keys.namespace, life.name, mail.event)
        except ValueError as error:
            decision = await give_up(self.behaviour, life, event, f"its job record was edited by hand: {error}")
            self._write(life, block, decision, asked=mail.asked, ms=0)
            return
        entry = self.behaviour.graph.entry
        if life.status == "starting" and mail.event != entry:
            # The record of its entry event was taken away: an FSM owes it to itself, and makes it again.
            begin = Event(derived_id(mail.job_id, "entry"), entry)
            block.record(begin.job_id, begin.name)
            await self._follow(life, block, await self._timed(life, block, begin, asked=False))
        settings = self.behaviour.definition.settings
        if self.fsm.tries > settings.max_attempts:
            decision = await abandon(self.behaviour, life, event, self.fsm.tries)
            self._write(life, block, decision, asked=mail.asked, ms=0)
        else:
            decision = await self._timed(life, block, event, asked=mail.asked)
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
            # The alarm rang between the end of the step and its own end: the step's decision stands.
            if decision is None:
                raise
        self._write(life, block, decision, asked=asked, ms=(time.perf_counter_ns() - begin) // _MS)
        return decision

    async def _follow(self, life: Life, block: Block, decision: Decision) -> None:
        """Run the hard events that follow, each as a job of its own; a suspect's are left to a claim of their own."""
        for count in range(LONGEST_CHAIN + 1):
            event = follow_up(self.behaviour, life, decision)
            if event is None:
                return
            block.record(event.job_id, event.name)
            if self.fsm.tries:
                block.owe(event.job_id)
                return
            if count == LONGEST_CHAIN:
                why = f"more than {LONGEST_CHAIN} hard events in a row: the handlers lead in a circle"
                decision = await give_up(self.behaviour, life, event, why)
                self._write(life, block, decision, asked=False, ms=0)
                return
            decision = await self._timed(life, block, event, asked=False)

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
        if decision.kind == "failed" and not decision.soft:
            self.failed += 1
            block.failed(event.job_id, decision.result, decision.text)
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


def _meta(raw: bytes | None) -> dict[str, Any]:
    """Read what the sender gave as `meta`; RQ's tools may have written there too."""
    try:
        meta = orjson.loads(raw) if raw else {}
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}
