"""Chance drives the scripts, and after each call Redis is compared with the plain model, to the last id.

Clients, workers, operators and the network are rules of a Hypothesis state machine. A request is made by the functions
that applications and workers use, events are run by the worker's own `Activation`, operators use RQ's own classes. Each
call that was made may be made again, at once or after many others, as a network does that repeats it or a process that
lost the reply.

Two things are asked after each rule. Does Redis hold what the model holds, and was the answer the model's? And, of
Redis alone, without the model: what we promise (`promises`). In the end a fresh worker drains what is left, and what
was applied is counted against what was accepted.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from fsm import Machine, RetryPolicy, Settings, Transition, on, verbs
from fsm.engine import Behaviour
from fsm.store import calls, commits, retention, steering
from fsm.store.alarms import Alarm, parse
from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import steering as plans
from tests.model.model import ATTEMPTS, END, MAX_ATTEMPTS, MAX_MAILBOX, Failure, Letter, Model, Order, Taken, Timer
from workers.activation import Activation
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis

    from fsm.store.calls import Claimed
    from fsm.store.requests import Request

NAMES = ["a", "b", "c"]
WORKERS = ["w1", "w2", "w3"]
EVENTS = ["note", "note", "note", "push", "break", "soft", "tell", "defer", "fall", "trip", "shut", "again", "again"]
# No lease ends by itself: the rule `lapse` ends it, so that an example is the same each time.
LEASE_MS = 600_000
# So long that it never passes by itself: the rule `come` lets it.
DELAY = "1h"
_MOST_PAST = 40
_HALF_AN_HOUR_MS = 1_800_000
_DRAWN = 24  # hex digits of an id that we draw
_MARKS = [JobStatus.STARTED, JobStatus.FAILED, JobStatus.FINISHED, JobStatus.DEFERRED, JobStatus.QUEUED]

pick = st.integers(0, 1000)
names = st.sampled_from(NAMES)
workers = st.sampled_from(WORKERS)


class Gate(Machine[dict[str, list[str]]]):
    """It writes down what it applied, so that no lost reply can hide it."""

    settings = Settings(
        max_mailbox=MAX_MAILBOX,
        max_attempts=MAX_ATTEMPTS,
        # So late that it never comes by itself: the rule `come` lets it.
        retry=RetryPolicy(attempts=ATTEMPTS, delay="1h", max_delay="1h", jitter=0, on=(TimeoutError,)),
    )
    diagram = """
    stateDiagram-v2
        [*] --> low
        low --> low : note
        low --> low : tell
        low --> low : defer
        low --> low : break
        low --> low : soft?
        low --> low : again
        low --> low : chime after 1h
        low --> high : push
        high --> low : fall!
        low --> odd : trip
        odd --> low : stumble!
        low --> over : shut
        over --> [*]
    """

    def on_start(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append(t.job_id)

    @on("note")
    @on("push")
    @on("fall")
    @on("trip")
    @on("shut")
    @on("chime")
    def apply(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append(t.job_id)

    @on("tell")
    def tell(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append(t.job_id)
        t.send(t.data, "note")

    @on("defer")
    def defer(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append(t.job_id)
        t.send(t.data, "note", delay=DELAY)

    @on("again")
    @on("stumble")
    def late(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append("never")
        raise TimeoutError("as it should")

    @on("break")
    @on("soft")
    def fail(self, t: Transition[dict[str, list[str]]]) -> None:
        t.payload["applied"].append("never")
        raise RuntimeError("as it should")


@dataclass
class Call:
    """A request, and what the model does for it."""

    who: str
    request: Request[Any]
    model: Callable[[], Any]
    read: Callable[[Any], Any] = lambda reply: reply
    ids: tuple[str, ...] = ()


@dataclass
class Held:
    """An FSM in a worker's hands: the claim, and what the model says that it is."""

    real: Claimed
    taken: Taken


@dataclass
class Ledger:
    """What was acknowledged, and what operators did: all that the end is judged by, without the model."""

    accepted: Counter[str] = field(default_factory=Counter)
    order: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    delayed: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    touched: set[str] = field(default_factory=set)  # by an operator: it stands elsewhere in the order, or nowhere
    erased: set[str] = field(default_factory=set)  # its record is gone
    fired: set[str] = field(default_factory=set)  # what the ids of the events of timers begin with

    def accept(self, name: str, job_id: str, *, is_delayed: bool = False) -> None:
        self.accepted[job_id] += 1
        (self.delayed if is_delayed else self.order)[name].append(job_id)


class Driving(RuleBasedStateMachine):
    """Everybody who touches one Redis, one call after the other."""

    redis: Any = None  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.keys = Keys("default")
        self.model = Model(
            lambda name: self.redis.hget(self.keys.snapshot(name), "born").decode(),
            lambda name: self.redis.hget(self.keys.snapshot(name), "updated_at").decode(),
            lambda name: self.later[name],
        )
        self.later: dict[str, list[str]] = {}
        self.behaviour = Behaviour(Gate())
        self.executor = InlineExecutor(timed=False)
        self.hands: dict[str, list[Held]] = {worker: [] for worker in WORKERS}
        self.past: list[Call] = []
        self.sent: list[Letter] = []
        self.looks: dict[str, Any] = {}
        self.lives: dict[str, set[str]] = {name: {""} for name in NAMES}
        self.ledger = Ledger()
        self.number = 1_790_000_000_000_000  # as a worker's: µs since 1970
        self.is_sound = True

    def next_number(self, stride: int = 1) -> int:
        self.number += stride
        return self.number

    def do(self, call: Call) -> Any:
        """Make a call, and hold its answer against the model's; it may be made again later."""
        self.past = [*self.past[-_MOST_PAST:], call]
        return self.carry(call)

    def carry(self, call: Call) -> Any:
        self.is_sound = False
        self.later = {name: _plain(self.redis.zrange(self.keys.later(name), 0, -1)) for name in NAMES}
        reply = run(self.redis, call.request)
        expected = call.model()
        assert call.read(reply) == call.read(expected), call.request
        self.compare()
        self.is_sound = True
        return reply, expected

    # The network.

    @precondition(lambda self: self.past)
    @rule(pick=pick)
    def repeat(self, pick: int) -> None:
        """A call comes once more: the last one at once, or an old one after many others."""
        most = len(self.past) if pick % 3 == 0 else min(len(self.past), 4)
        self.carry(self.past[-1 - pick // 3 % most])

    # Clients.

    @initialize(is_served=st.booleans())
    def begin(self, is_served: bool) -> None:
        self.start(NAMES)
        if is_served:
            self.serve("w1", 1000)

    def start(self, some: list[str]) -> None:
        births = [(name, self.new_id("s")) for name in some]
        request = calls.start(self.keys, Gate.definition, [_birth(*birth) for birth in births])

        def model() -> list[str]:
            before = set(self.model.jobs)
            words = self.model.start(births)
            self.note_births()
            for name, entry in births:
                if entry in self.model.jobs and entry not in before:
                    self.ledger.accept(name, entry)
            return words

        self.do(Call("client", request, model, ids=tuple(entry for _, entry in births)))

    def new_id(self, mark: str) -> str:
        number = self.next_number()
        # Some as we draw them, some as callers choose them: the scripts trust the former not to come again.
        return f"{number:024x}" if number % 2 else f"{mark}{number}"

    def note_births(self) -> None:
        for name, fsm in self.model.fsms.items():
            self.lives[name].add(fsm.born)

    @rule(
        some=st.lists(st.tuples(names, st.sampled_from(EVENTS), names, pick), min_size=1, max_size=4),
        kind=st.sampled_from(
            ["new", "new", "new", "delayed", "delayed", "again", "born", "if_version", "key", "start"]
        ),
        starts=st.sampled_from([False, False, True]),
    )
    def send(self, some: list[tuple[str, str, str, int]], kind: str, starts: bool) -> None:
        if kind == "start":
            self.start([name for name, *_ in some])
            return
        letters = [self.letter(name, event, to, chosen, kind) for name, event, to, chosen in some]
        if starts:
            for letter in letters:
                letter.entry = letter.entry or self.new_id("s")
        self.post(letters, starts=starts)

    @rule(
        name=names,
        event=st.sampled_from(["note", "defer", "shut"]),
        count=st.integers(1, 3),
        then=st.sampled_from(
            ["", "", "come", "cancel", "cancel_by_rq", "delete", "enqueue", "again", "purge", "defer"]
        ),
    )
    def delay(self, name: str, event: str, count: int, then: str) -> None:
        """Delayed events are sent, and somebody does something about the first of them."""
        letters = [Letter(name, self.new_id("j"), event, to=name, is_delayed=True) for _ in range(count)]
        self.post(letters, starts=False)
        job = self.model.jobs.get(letters[0].job_id)
        if then == "defer":
            self.post([Letter(name, self.new_id("j"), "defer", to=name)], starts=False)
            self.serve("w1", 1000)
        elif then == "purge":
            self.purge(name, 1)
        elif then == "come":
            self.come()
        elif job is None or job.fsm is None:
            return
        elif then == "cancel":
            self.take_back(letters[0].job_id)
        elif then == "cancel_by_rq":
            self.fetch(letters[0].job_id).cancel()
            job.status = "canceled"
            self.relist()
        elif then == "enqueue":
            # As RQ's scheduler does, whose clock is fast.
            self.queue().enqueue_job(self.fetch(letters[0].job_id))
            job.status = "queued"
            self.relist()
            self.serve("w1", 1000)
        elif then in ("delete", "again"):
            self.erase(letters[0].job_id)
            if then == "again" and letters[0] in self.sent:
                self.post([replace(letters[0], is_delayed=count > 1)], starts=False)

    def letter(self, name: str, event: str, to: str, chosen: int, kind: str) -> Letter:
        if kind == "again" and self.sent:
            old = self.sent[chosen % len(self.sent)]
            # With or without the delay: it is the same event.
            is_delayed = old.is_delayed if chosen % 3 else not old.is_delayed
            return Letter(
                old.name, old.job_id, old.event, "", old.to, old.if_version, old.digest, is_delayed=is_delayed
            )
        letter = Letter(name, self.new_id("j"), event, to=to, is_delayed=kind == "delayed")
        if kind == "born":
            lives = sorted(self.lives[name])
            letter.born = lives[chosen % len(lives)]
        elif kind == "if_version":
            letter.if_version = chosen % 5
        elif kind == "key":
            letter.job_id, letter.digest = f"k{chosen % 2}:", f"{event}{to}"
        return letter

    def post(self, letters: Sequence[Letter], *, starts: bool) -> None:
        request = calls.send(
            self.keys,
            [_real(letter, starts=starts) for letter in letters],
            Gate.definition,
            starts=starts,
        )

        def model() -> list[str]:
            before = set(self.model.jobs)
            words = self.model.send([_as_sent(letter, starts=starts) for letter in letters])
            self.note_births()
            for letter in letters:
                if letter.entry in self.model.jobs and letter.entry not in before:
                    self.ledger.accept(letter.name, letter.entry)
            for letter, word in zip(letters, words, strict=True):
                if word.startswith("SENT"):
                    self.ledger.accept(letter.name, word[5:] or letter.job_id, is_delayed=letter.is_delayed)
            return words

        self.sent = [*self.sent[-20:], *letters]
        self.do(
            Call(
                "client",
                request,
                model,
                ids=tuple(some for letter in letters for some in (letter.job_id, letter.entry)),
            )
        )

    # Workers.

    @rule(
        worker=workers,
        fsms=st.integers(1, 4),
        events=st.sampled_from([1, 2, 3, 5, 1000]),
        forgets=st.booleans(),
        is_lost=st.booleans(),
        is_ahead=st.booleans(),
    )
    def claim(self, worker: str, fsms: int, events: int, forgets: bool, is_lost: bool, is_ahead: bool) -> None:
        self.take(worker, fsms=fsms, events=events, forgets=forgets, is_lost=is_lost, is_ahead=is_ahead)

    @rule(worker=workers, count=st.sampled_from([1000, 1000, 1]))
    def serve(self, worker: str, count: int) -> None:
        """What a worker does all day."""
        if not self.hands[worker]:
            self.take(worker, fsms=4, events=1000)
        if self.hands[worker]:
            self.write(worker, 4, [count] * 4)

    @rule(
        name=names,
        event=st.sampled_from(["push", "push", "trip", "note", "again"]),
        worker=workers,
        then=st.sampled_from(["", "", "delete", "cancel", "race"]),
    )
    def crash(self, name: str, event: str, worker: str, then: str) -> None:
        """A worker dies on an event: from then on its FSM is a suspect, whose hard events are left to later claims."""
        self.post([Letter(name, self.new_id("j"), event)], starts=False)
        self.take(worker, fsms=4, events=1000)
        self.die(worker)
        self.serve(worker, 1000)
        fsm = self.model.fsms.get(name)
        if fsm is None or fsm.owes not in self.model.jobs or self.model.jobs[fsm.owes].fsm is None:
            return
        if then == "delete":
            self.erase(fsm.owes)
        elif then == "cancel":
            self.fetch(fsm.owes).set_status(JobStatus.CANCELED)
            self.model.jobs[fsm.owes].status = "canceled"
            self.compare()
        elif then == "race":
            # Its mailbox is empty while it is held, so the next event rings it.
            self.take(worker, fsms=4, events=1000)
            self.post([Letter(name, self.new_id("j"), "note")], starts=False)
            self.take(WORKERS[WORKERS.index(worker) - 1], fsms=4, events=1000)

    @precondition(lambda self: any(self.hands.values()))
    @rule(pick=pick)
    def commit_what_was_deleted(self, pick: int) -> None:
        """An operator deletes a job that a worker has in its hands, and its sender repeats its call afterwards."""
        worker = self.busy(pick)
        ids = [job_id for job_id, _ in self.hands[worker][0].taken.mail if job_id in self.model.jobs]
        if ids:
            self.erase(ids[0])
        self.write(worker, 1, [1000])
        for letter in [letter for letter in self.sent if letter.job_id in ids[:1]]:
            self.post([letter], starts=False)

    @precondition(lambda self: self.model.listed)
    @rule(worker=workers)
    def serve_as_stock(self, worker: str) -> None:
        """As a stock worker of RQ's does, which has an id from RQ's list and wants that FSM."""
        job_id = self.redis.lpop(self.keys.rq_list(self.keys.default_queue)).decode()
        self.model.listed.pop(0)
        job = self.model.jobs.get(job_id)
        if job is not None and job.fsm is not None:
            self.take(worker, fsms=1, events=1000, name=job.fsm, found=(job_id,))

    def take(
        self,
        worker: str,
        *,
        fsms: int,
        events: int,
        forgets: bool = False,
        is_lost: bool = False,
        is_ahead: bool = False,
        name: str = "",
        found: tuple[str, ...] = (),
    ) -> None:
        number = self.next_number()
        token = f"t{number}"
        kept = () if forgets else tuple(held.real.token for held in self.hands[worker])
        request = calls.claim(
            self.keys, worker, self.keys.default_queue, token, number,
            lease_ms=LEASE_MS, fsms=fsms, events=events, kept=kept, name=name, found=found,
            leaves_suspects=is_ahead,
        )  # fmt: skip

        def model() -> list[Taken]:
            return self.model.claim(
                worker,
                token,
                number,
                fsms=fsms,
                events=events,
                kept=kept,
                name=name,
                found=found,
                leaves_suspects=is_ahead,
            )

        claims, taken = self.do(Call(worker, request, model, _read_claims))
        if not is_lost:
            self.hands[worker] += [Held(*both) for both in zip(claims.held, taken, strict=True)]

    @precondition(lambda self: any(self.hands.values()))
    @rule(
        pick=pick,
        most=st.integers(1, 4),
        counts=st.lists(st.sampled_from([1000, 1, 2]), min_size=4, max_size=4),
        stride=st.sampled_from([1, 16]),
        forger=st.sampled_from(["", "", "", "token", "worker"]),
    )
    def commit(self, pick: int, most: int, counts: list[int], stride: int, forger: str) -> None:
        self.write(self.busy(pick), most, counts, stride, forger)

    def write(self, worker: str, most: int, counts: list[int], stride: int = 1, forger: str = "") -> None:
        hand = self.hands[worker]
        part, self.hands[worker] = hand[:most], hand[most:]
        real, planned = [], []
        for held, count in zip(part, counts, strict=False):
            taken = held.taken
            claimed = calls.Claimed(**{name: getattr(held.real, name) for name in held.real.__slots__})
            claimed.mail = claimed.mail[:count]
            if forger == "token":
                claimed.token = "forged"
            work = Activation(self.behaviour, claimed, self.keys, self.executor, int(time.time() * 1000))
            real.append(self.executor.run(work.run(1e12), is_async=False))
            block = self.model.run(taken, count)
            if forger == "token":
                block.token = "forged"
            planned.append(block)
        nonce = self.next_number(stride)
        who = "w9" if forger == "worker" else worker
        request = commits.commit(self.keys, who, nonce, LEASE_MS, "2026-01-02T03:04:05.000006Z", real)
        self.do(Call(who, request, lambda: self.model.commit(who, nonce, planned)))

    def busy(self, pick: int) -> str:
        some = [worker for worker in WORKERS if self.hands[worker]]
        return some[pick % len(some)]

    @precondition(lambda self: any(self.hands.values()))
    @rule(
        pick=pick,
        most=st.integers(1, 4),
        what=st.sampled_from(["front", "tail", "extend", "extend"]),
        forger=st.sampled_from(["", "", "", "token", "worker"]),
    )
    def release_or_extend(self, pick: int, most: int, what: str, forger: str) -> None:
        worker = self.busy(pick)
        hand = self.hands[worker]
        part = hand[:most]
        pairs = [(held.real.name, "forged" if forger == "token" else held.real.token) for held in part]
        who = "w9" if forger == "worker" else worker
        if what == "extend":
            request: Request[Any] = calls.extend(self.keys, who, pairs, LEASE_MS)
            self.do(Call(who, request, lambda: self.model.extend(who, pairs)))
            return
        if not forger:
            self.hands[worker] = hand[most:]
        request = calls.release(self.keys, who, pairs, tail=what == "tail")
        self.do(Call(who, request, lambda: self.model.release(who, pairs, tail=what == "tail")))

    # Time.

    @rule(
        what=st.sampled_from(
            ["recover", "lapse", "lapse", "lapse", "misnote", "come", "come", "die", "sleep", "silence", "age"]
        ),
        worker=workers,
        pick=pick,
    )
    def time_passes(self, what: str, worker: str, pick: int) -> None:
        if what in ("lapse", "misnote"):
            getattr(self, what)(pick)
        elif what in ("recover", "age", "come"):
            getattr(self, what)()
        else:
            getattr(self, what)(worker)

    def sleep(self, worker: str) -> None:
        """An idle worker takes an id off RQ's list into its hand."""
        moved = self.redis.lmove(self.keys.rq_list("fsm"), self.keys.hand(worker), "LEFT", "RIGHT")
        if moved:
            self.model.worker(worker).hand.append(self.model.listed.pop(0))
        self.compare()

    def die(self, worker: str) -> None:
        """A worker dies, and its parent says so; a new one begins under its name."""
        self.hands[worker] = []
        self.do(Call("parent", calls.recover(self.keys, [worker]), lambda: self.model.recover([worker])))

    def recover(self) -> None:
        self.do(Call("worker", calls.recover(self.keys), lambda: self.model.recover([])))

    def lapse(self, pick: int) -> None:
        """The lease of an FSM ends; whoever has it does not know yet, and now and then somebody sees it at once."""
        held = sorted(self.model.held)
        if held:
            self.end_lease(held[pick // 2 % len(held)])
            self.compare()
            if pick % 2:
                self.recover()

    def come(self) -> None:
        """The time of all that waits to be tried again has come; a worker looks."""
        for name, fsm in self.model.fsms.items():
            if fsm.retry:
                self.redis.hset(self.keys.snapshot(name), "retry_at", 1)
            if fsm.timer and fsm.timer.when == "later":
                timers = orjson.dumps({"chime": [fsm.timer.arm, 1]})
                self.redis.hset(self.keys.snapshot(name), "timers", timers)
        for member in self.redis.zrange(self.keys.timers, 0, -1):
            self.redis.zadd(self.keys.timers, {member: 1})
        self.model.come()
        self.compare()
        nonce = f"{self.next_number():024x}"
        self.ledger.fired.add(nonce)
        request = calls.due(self.keys, nonce=nonce)
        self.do(Call("worker", request, lambda: (self.model.due(nonce), None), lambda reply: reply[0]))

    def misnote(self, pick: int) -> None:
        """The note of a lease is older than the lock: it was noted by a claim that found the lock taken."""
        held = sorted(self.model.held)
        if held:
            name = held[pick % len(held)]
            self.redis.zadd(self.keys.held, {name: 1})
            self.model.held[name] = True
            self.recover()

    def end_lease(self, name: str) -> None:
        self.redis.delete(self.keys.lock(name))
        self.redis.zadd(self.keys.held, {name: 1}, xx=True)
        self.model.lapse(name)

    def silence(self, worker: str) -> None:
        """A worker says nothing for longer than Redis remembers it; no call of its is under way for so long."""
        for name, fsm in self.model.fsms.items():
            if fsm.lock and fsm.lock[0] == worker:
                self.end_lease(name)
        self.redis.delete(self.keys.claims(worker), self.keys.replies(worker))
        self.model.forget(worker)
        self.past = [call for call in self.past if call.who != worker]
        self.compare()

    def age(self) -> None:
        """The time of all ended records is over: longer than any call is repeated."""
        for batch in self.redis.zrange(self.keys.ended, 0, -1):
            self.redis.zadd(self.keys.ended, {batch: 1})
        self.past = [call for call in self.past if call.who != "client"]
        self.sent = [letter for letter in self.sent if letter.job_id not in self.ending()]
        self.drop_ended()

    def ending(self) -> set[str]:
        """Ids of records whose time is over."""
        due = self.redis.zrangebyscore(self.keys.ended, 1, 1)
        return {word.decode() for batch in due for word in batch.split()[1:]}

    def drop_ended(self) -> None:
        while self.redis.zcount(self.keys.ended, 1, 1):
            due = self.ending()
            self.is_sound = False
            assert run(self.redis, calls.recover(self.keys)) == self.model.recover([])
            for job_id in due - self.ending():
                # Of an id that a caller chose, or that is derived, another event may have been sent meanwhile.
                job = self.model.jobs.get(job_id)
                if job is not None and (job.place == "done" or len(job_id) == _DRAWN):
                    del self.model.jobs[job_id]
                    self.ledger.erased.add(job_id)
            self.compare()
            self.is_sound = True

    # Operators.

    @precondition(lambda self: self.model.jobs)
    @rule(
        what=st.sampled_from(["cancel", "cancel", "delete", "requeue", "requeue", "enqueue", "marks", "cancel_by_rq"]),
        pick=pick,
    )
    def operate_on_a_job(self, what: str, pick: int) -> None:
        getattr(self, what)(pick)

    @rule(
        what=st.sampled_from(["purge", "expire", "empty", "lose_list", "cleanup"]),
        name=names,
        most=st.sampled_from([500, 1]),
    )
    def operate(self, what: str, name: str, most: int) -> None:
        if what == "purge":
            self.purge(name, most)
        else:
            getattr(self, what)()

    def cancel(self, pick: int) -> None:
        jobs = sorted(self.model.jobs)
        self.take_back(jobs[pick % len(jobs)])

    def take_back(self, job_id: str) -> None:
        word, _ = self.do(Call("operator", calls.cancel(self.keys, job_id), lambda: self.model.cancel(job_id)))
        if word == "CANCELLED":
            self.ledger.touched.add(job_id)

    def purge(self, name: str, most: int) -> None:
        fsm = self.model.fsms.get(name)
        born = fsm.born if fsm and most == 1 else ""
        request = calls.purge(self.keys, name, born, most)
        self.do(Call("operator", request, lambda: self.model.purge(name, born, most)))

    def expire(self) -> None:
        """All that has finished is taken away, a worker's retention or an operator says; those with mail are left."""
        request = retention.expire(self.keys, "Gate", END, 0)
        self.do(Call("operator", request, self.model.expire, lambda reply: tuple(reply[:2])))

    @rule(
        name=names,
        verb=st.sampled_from(["retry", "retry", "skip", "pause", "resume", "resume"]),
        is_late=st.sampled_from([False, False, True]),
    )
    def steer(self, name: str, verb: str, is_late: bool = False) -> None:  # noqa: FBT002 - a drawn value
        """An operator's verb, by the plan of the client: its look at the snapshot, now or long ago, then the script."""
        if not is_late or name not in self.looks:
            seen = verbs.carry(plans._look(self.keys, name), self.ask)
            if not seen.born:
                return
            self.looks[name] = (seen, verbs.carry(plans._last_failure(self.keys, seen), self.ask))
        seen, found = self.looks[name]
        order = steering.Order(verb, name, self.new_id("o"), seen.born, "ann")
        request = steering.steer(self.keys, order, seen.version, found)
        asked = Order(verb, name, order.nonce, seen.born)
        failure = Failure(int(seen.version), found.kind, found.job_id, found.event, found.is_last)

        def model() -> list[str]:
            words = self.model.steer(asked, failure)
            if words[0] in ("RETRIED", "SKIPPED"):
                self.ledger.touched.add(words[1])
            return words

        # Since when it is paused is Redis's to say.
        self.do(
            Call(
                "client",
                request,
                model,
                lambda words: list(words[:1] if words[0] == "PAUSED" else words),
                (order.nonce,),
            )
        )

    def ask(self, request: Request[Any]) -> Any:
        return run(self.redis, request)

    def one(self, pick: int, *places: str) -> str | None:
        """Choose a record that RQ can read."""
        jobs = self.model.jobs.items()
        some = sorted(job_id for job_id, job in jobs if job.fsm is not None and (not places or job.place in places))
        return some[pick % len(some)] if some else None

    def fetch(self, job_id: str) -> Job:
        self.ledger.touched.add(job_id)
        return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)

    def queue(self) -> Queue:
        return Queue(self.keys.default_queue, connection=self.redis, serializer=JSONSerializer)

    def relist(self) -> None:
        """RQ's tools did with RQ's list what they do."""
        self.model.listed = [item.decode() for item in self.redis.lrange(self.keys.rq_list("fsm"), 0, -1)]
        self.compare()

    def delete(self, pick: int) -> None:
        job_id = self.one(pick)
        if job_id is not None:
            self.erase(job_id)

    def erase(self, job_id: str) -> None:
        if self.model.jobs[job_id].fsm is None:
            return
        self.fetch(job_id).delete()
        self.disown(job_id)
        self.relist()

    def disown(self, job_id: str) -> None:
        """The record is gone, and with it the memory that an event was had before."""
        self.ledger.touched.add(job_id)
        self.ledger.erased.add(job_id)
        job = self.model.jobs.pop(job_id, None)
        if job is not None and job.place == "done" and len(job_id) == _DRAWN:
            # Ids that are drawn are trusted not to come again once they have ended.
            self.past = [call for call in self.past if job_id not in call.ids]
            self.sent = [letter for letter in self.sent if letter.job_id != job_id]

    @precondition(lambda self: self.sent)
    @rule(pick=pick)
    def resend(self, pick: int) -> None:
        """A job is deleted, and then its sender, which had no answer, repeats its call."""
        letters = [letter for letter in self.sent if letter.job_id in self.model.jobs]
        if pick % 4:
            letters = [letter for letter in letters if self.model.jobs[letter.job_id].place == "mail"]
        if letters:
            letter = letters[pick % len(letters)]
            self.erase(letter.job_id)
            if letter in self.sent:
                # What lay in the mailbox waits for its time now, or the other way round.
                self.post([replace(letter, is_delayed=pick % 3 > 0)], starts=False)

    def cancel_by_rq(self, pick: int) -> None:
        job_id = self.one(pick)
        if job_id is None:
            return
        try:
            self.fetch(job_id).cancel()
        except InvalidJobOperation:
            assert self.model.jobs[job_id].status == "canceled"
        self.model.jobs[job_id].status = "canceled"
        self.relist()

    def requeue(self, pick: int) -> None:
        """`rq requeue` takes what is in the registry of failed jobs."""
        job_id = self.one(pick, "failed", "gone")
        if job_id is None:
            return
        job = self.fetch(job_id)
        try:
            FailedJobRegistry(queue=self.queue()).requeue(job)
        except InvalidJobOperation:
            return
        self.model.jobs[job.id].status = "queued"
        self.model.jobs[job.id].has_ended = False
        self.relist()

    def enqueue(self, pick: int) -> None:
        """A tool puts any job on RQ's list, whatever became of it."""
        job_id = self.one(pick)
        if job_id is None:
            return
        self.queue().enqueue_job(self.fetch(job_id))
        self.model.jobs[job_id].status = self.redis.hget(self.keys.job(job_id), "status").decode()
        self.relist()

    def marks(self, pick: int) -> None:
        """A stock worker, or a clean-up of RQ's, writes what it believes of a job."""
        job_id = self.one(pick // len(_MARKS))
        status = _MARKS[pick % len(_MARKS)]
        if job_id is None:
            return
        self.fetch(job_id).set_status(status)
        self.model.jobs[job_id].status = status.value
        self.compare()

    def empty(self) -> None:
        """`rq empty` deletes the records of all ids on RQ's list."""
        for job_id in self.model.listed:
            self.disown(job_id)
        self.queue().empty()  # type: ignore[no-untyped-call]
        self.relist()
        assert self.model.listed == []

    def lose_list(self) -> None:
        """Somebody removes RQ's list by hand."""
        self.ledger.touched.update(self.model.listed)
        self.redis.delete(self.keys.rq_list(self.keys.default_queue))
        self.relist()

    def cleanup(self) -> None:
        for registry in (FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry):
            registry(queue=self.queue()).cleanup()
        self.compare()

    # What is asked.

    def compare(self) -> None:
        """Redis holds what the model holds."""
        self.is_sound = False
        model, world = self.model, World.of(self.redis, self.keys)
        assert world.fsms == {name: _fsm_view(fsm) for name, fsm in model.fsms.items()}
        assert world.ready == model.ready
        assert world.held == model.held
        assert world.listed == model.listed
        assert world.claims == {name: one.claims for name, one in model.workers.items() if one.claims}
        assert world.hands == {name: one.hand for name, one in model.workers.items() if one.hand}
        assert world.jobs == {job_id: (job.fsm, job.event, job.place, job.status) for job_id, job in model.jobs.items()}
        assert world.index == {state: some for state, some in model.index.items() if some}
        assert world.finished == {state: some for state, some in model.finished.items() if some}
        assert world.timers == model.timers
        assert world.chimes == model.chimes
        assert world.alarms == [(one.job_id, one.name, one.when) for one in model.alarms.values()]
        assert world.later == {name: some for name, some in model.later.items() if some}
        self.promises(world)
        self.is_sound = True

    def promises(self, world: World) -> None:
        """What holds in Redis at any moment, by itself."""
        assert world.errors == {name for name, fsm in world.fsms.items() if fsm["has_error"]}, "found by a failure"
        for name, fsm in world.fsms.items():
            counts = Counter(_root(job_id) for job_id in fsm["applied"])
            for job_id, count in counts.items():
                made = sum(_root(other) == job_id for other in set(fsm["applied"]))
                accepted = 1 if job_id in self.ledger.fired else self.ledger.accepted[job_id]
                assert count <= made * accepted, f"{job_id} applied twice"
            if fsm["lock"]:
                worker, token = fsm["lock"]
                assert name in world.held, "a lock that `recover` would not find"
                assert world.claims[worker][name] == token
            elif (fsm["mailbox"] or fsm["urgent"]) and not fsm["paused"] and fsm["status"] not in ("failed", "purging"):
                is_seen_to = name in world.ready or world.held.get(name) or name in world.timers
                assert is_seen_to, f"{name} has mail and is left asleep"

    def teardown(self) -> None:
        """Drain all that is left with a fresh worker, and count."""
        if self.is_sound and self.model.workers:
            self.drain()
            self.judge()
        self.executor.close()

    def drain(self) -> None:
        for worker in WORKERS:
            self.die(worker)
        for name in sorted(self.model.held):
            self.end_lease(name)
        self.recover()
        self.hands["w1"] = []
        for name, fsm in self.model.fsms.items():
            if fsm.paused:
                self.steer(name, "resume")
        for _ in range(100):
            self.take("w1", fsms=4, events=1000)
            if self.hands["w1"]:
                self.write("w1", 4, [1000] * 4)
                continue
            if not (self.model.ready or self.model.listed or self.model.timers or self.is_any_to_come()):
                return
            # Timers are armed again as they go off: only when nothing else is left to do.
            self.come()
        raise AssertionError("it does not come to rest")

    def is_any_to_come(self) -> bool:
        """Tell whether a delayed event will find room: an FSM that cannot go on by itself makes none."""
        fsms = self.model.fsms
        return any(
            alarm.name not in fsms or fsms[alarm.name].status != "failed" for alarm in self.model.alarms.values()
        )

    def judge(self) -> None:
        world = World.of(self.redis, self.keys)
        assert not world.held
        assert not world.claims
        assert not world.ready
        for name, fsm in world.fsms.items():
            assert fsm["lock"] is None
            if fsm["status"] not in ("failed", "purging"):
                assert not fsm["mailbox"]
                assert not fsm["urgent"]
            plain = [job_id for job_id in fsm["applied"] if job_id not in self.ledger.touched and "--" not in job_id]
            for order in (self.ledger.order[name], self.ledger.delayed[name]):
                known, done = set(order), set(plain)
                some = [job_id for job_id in plain if job_id in known]
                assert some == [job_id for job_id in order if job_id in done], "out of order"
        waiting = {job_id for fsm in world.fsms.values() for job_id in (*fsm["mailbox"], *fsm["urgent"])}
        waiting |= {job_id for job_id, _, _ in world.alarms}
        applied = {job_id for fsm in world.fsms.values() for job_id in fsm["applied"]}
        for job_id in self.ledger.accepted:
            if job_id in self.ledger.erased:
                continue
            assert job_id in world.jobs, f"the record of {job_id} was lost"
            place = world.jobs[job_id][2]
            assert place in ("done", "failed", "gone") or job_id in waiting, f"{job_id} was lost, it is {place}"
            assert place != "gone" or job_id not in applied or job_id in self.ledger.touched


@dataclass
class World:
    """What is in Redis, read without any script."""

    fsms: dict[str, dict[str, Any]]
    ready: list[str]
    held: dict[str, bool]
    listed: list[str]
    claims: dict[str, dict[str, str]]
    hands: dict[str, list[str]]
    jobs: dict[str, tuple[str | None, str | None, str, str]]
    index: dict[str, set[str]]
    finished: dict[str, set[str]]
    timers: dict[str, str]
    chimes: dict[str, str]
    alarms: list[tuple[str, str, str]]
    later: dict[str, set[str]]
    errors: set[str]

    @classmethod
    def of(cls, client: redis.Redis, keys: Keys) -> World:
        found: dict[str, dict[str, Any]] = {}
        every = sorted(key.decode() for key in client.keys("*"))
        reads = {
            "snapshot": "hgetall", "mailbox": "lrange", "urgent": "lrange", "lock": "get", "claims": "hgetall",
            "hand": "lrange", "state": "zrange", "finished": "zrange", "job": "hgetall", "later": "zrange",
        }  # fmt: skip
        wanted = []
        with client.pipeline(transaction=False) as pipeline:
            for key in every:
                kind, _, name = key.removeprefix(keys.prefix).removeprefix("rq:").partition(":")
                if kind in reads:
                    wanted.append((kind, name))
                    getattr(pipeline, reads[kind])(key, *((0, -1) if reads[kind].endswith("range") else ()))
            pipeline.zrange(keys.ready(keys.default_queue), 0, -1)
            pipeline.zrange(keys.held, 0, -1, withscores=True)
            pipeline.lrange(keys.rq_list(keys.default_queue), 0, -1)
            pipeline.zrange(keys.timers, 0, -1, withscores=True)
            pipeline.zrange(keys.errors("Gate"), 0, -1)
            *values, ready, held, listed, timers, errors = pipeline.execute()
        for (kind, name), value in zip(wanted, values, strict=True):
            found.setdefault(kind, {})[name] = _plain(value)
        assert set(found.get("lock", ())) <= set(found.get("snapshot", ()))
        return cls(
            {
                name: {
                    "born": one["born"],
                    "state": one["state"],
                    "status": one.get("status", "running"),
                    "version": int(one["version"]),
                    "applied": orjson.loads(one["payload"])["applied"],
                    "failed_from": one.get("failed_from", ""),
                    "paused": "paused" in one,
                    "retry": _when(one.get("retry_at")),
                    "tries": int(one.get("tries", 0)),
                    "is_suspect": "tries" in one,
                    "probation": int(one.get("probation", 0)),
                    "owes": one.get("owes", ""),
                    "mailbox": found.get("mailbox", {}).get(name, []),
                    "urgent": found.get("urgent", {}).get(name, []),
                    "timer": _timer(one.get("timers")),
                    "has_error": "error" in one,
                    "lock": _holder(found.get("lock", {}).get(name)),
                }
                for name, one in found.get("snapshot", {}).items()
            },
            _plain(ready),
            {name.decode(): score == 1 for name, score in held},
            _plain(listed),
            found.get("claims", {}),
            found.get("hand", {}),
            {
                job_id: (one.get("fsm"), one.get("event"), one.get("place", ""), one.get("status", ""))
                for job_id, one in found.get("job", {}).items()
            },
            {name.partition(":")[2]: set(members) for name, members in found.get("state", {}).items()},
            # RQ has a registry of this name for each queue.
            {
                name.partition(":")[2]: set(members)
                for name, members in found.get("finished", {}).items()
                if ":" in name
            },
            {alarm.of: _when(score) for alarm, score in alarms_of(timers) if alarm.kind == "retry"},
            {alarm.of: _when(score) for alarm, score in alarms_of(timers) if alarm.kind == "timer"},
            [(alarm.what, alarm.of, _when(score)) for alarm, score in alarms_of(timers) if alarm.kind == "mail"],
            {name: set(members) for name, members in found.get("later", {}).items()},
            set(_plain(errors)),
        )


def alarms_of(timers: list[tuple[bytes, float]]) -> list[tuple[Alarm, float]]:
    """What is to come, in the order of the members: that of delayed events is that of their acceptance."""
    return [(parse(member.decode()) or Alarm("", "", ""), score) for member, score in sorted(timers)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.decode(): item.decode("utf-8", "replace") for name, item in value.items()}
    return [item.decode() for item in value] if isinstance(value, list) else value.decode()


def _when(ms: Any) -> str:
    """Tell whether a time has come: one that has is 1 or a few seconds ago, one that has not is an hour ahead."""
    if ms is None:
        return ""
    return "due" if float(ms) <= time.time() * 1000 + _HALF_AN_HOUR_MS else "later"


def _timer(raw: str | None) -> Timer | None:
    if raw is None:
        return None
    ((key, (arm, at_ms)),) = orjson.loads(raw).items()
    assert key == "chime"
    return Timer(arm, _when(at_ms) if at_ms else "failed")


def _holder(lock: str | None) -> tuple[str, ...] | None:
    return tuple(lock.split("/")) if lock else None


def _fsm_view(fsm: Any) -> dict[str, Any]:
    return {name: getattr(fsm, name) for name in fsm.__dataclass_fields__}


def _root(job_id: str) -> str:
    return job_id.partition("--")[0]


def _birth(name: str, entry: str) -> calls.Birth:
    return calls.Birth(name, entry, b'{"applied":[]}')


def _as_sent(letter: Letter, *, starts: bool) -> Letter:
    return letter if starts else Letter(**{**letter.__dict__, "entry": ""})


def _real(letter: Letter, *, starts: bool) -> calls.Letter:
    more: tuple[Any, ...] = ("due", "+3600000") if letter.is_delayed else ()
    if letter.if_version is not None:
        more = (*more, "if_version", letter.if_version)
    if letter.digest:
        more = (*more, "key", letter.job_id, "digest", letter.digest)
    birth = _birth(letter.name, letter.entry) if starts else None
    return calls.Letter(
        letter.name, letter.job_id, letter.event, orjson.dumps(letter.to), letter.born, more=more, birth=birth
    )


def _read_claims(claims: Any) -> Any:
    """Bring a claim's reply into one form, Redis's and the model's."""
    if isinstance(claims, calls.Claims):
        assert claims.broken == []
        return [
            (
                one.name, one.token, one.born, one.state, one.version, one.status, one.tries, one.owes or b"",
                one.attempts, one.probation,
                orjson.loads(one.payload)["applied"], one.urgent,
                [(mail.job_id, mail.event, mail.place, mail.status if mail.event else None) for mail in one.mail],
            )
            for one in claims.held
        ]  # fmt: skip
    return [
        (
            one.name, one.token, one.fsm.born, one.fsm.state, one.fsm.version, one.fsm.status, one.fsm.tries,
            one.fsm.owes.encode(), one.attempts, one.probation, one.fsm.applied, one.urgent,
            [
                (job_id, job.event, job.place.encode(), job.status.encode()) if job else (job_id, None, None, None)
                for job_id, job in one.mail
            ],
        )
        for one in claims
    ]  # fmt: skip
