"""What applications call: start FSMs, send them events, wait for the end, look at them.

`Client` gives the plans of `fsm.verbs` to a carrier with a blocking connection, and nothing more: what to ask and how
to read the answer is theirs. It connects at the first call, and may be shared by threads and used after a fork.

Who calls this: applications, the command line, the test kit.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fsm import config, verbs
from fsm.archive import Archive
from fsm.durable import Durable
from fsm.engine import checked_name, inside
from fsm.engine.timers import TICK
from fsm.errors import CallTimeoutError, PayloadError, StoreError, TransitionError, UnknownMachineError
from fsm.handles import FSMHandle, TransitionJob
from fsm.inquiry import Inquiry
from fsm.machine import Definition, Machine
from fsm.overview import Overview
from fsm.ring import HashRing, checked_cluster
from fsm.storage.fetching import fetched
from fsm.store import records
from fsm.store.connection import connect, mask
from fsm.store.durability import MEMORY, read_durability
from fsm.store.hosts import LiveHosts
from fsm.store.keys import Keys
from fsm.store.memory import joining
from fsm.store.places import Placer
from fsm.timetable import Clockwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from fsm.app import App
    from fsm.durable import Keeping
    from fsm.engine import Outcome
    from fsm.handles import Start
    from fsm.machine.durations import Duration
    from fsm.ring import ClusterInfo
    from fsm.store.blueprint import Blueprint
    from fsm.store.codec import Snapshot
    from fsm.verbs import Agenda, Plan, Verdict

__all__ = ["Client"]

P = TypeVar("P")
_FOLLOW_MS = 1000


class Client(Overview, Clockwork, Durable, Inquiry, Archive):
    """A connection to the FSMs of one namespace.

    Args:
        url: `redis://`, `rediss://`, `unix://` or `embedded:///dir`; else `FSM_URL`, else `[tool.fsm] url`, else
            `redis://localhost:6379/0`. In tests `memory://`: a world of its own in this process, in which events and
            effects are applied at once, in the calling thread; `memory://name` is shared until all its clients are
            closed, `?effects=off` leaves effects in their queue.
        namespace: Else `FSM_NAMESPACE`, else `[tool.fsm] namespace`, else "default".
        app: Machines with their services, for `memory://` alone; bare classes are known when they are used.
        cluster: Who knows the hosts and whose an FSM is, the same as the `App` of the workers has; without it a ring of
            the hosts that live.
        durability: What must be true before a call that starts or sends returns: "memory", Redis has it and keeps it as
            it is configured; "fsync", it is on disk; "replicas:2", so many replicas have it; "fsync+replicas:1", both.
            Else `FSM_DURABILITY`, else `[tool.fsm] durability`, else "memory". In `memory://` any of them is at once.

    Raises:
        ConfigError: The URL, the namespace or the durability is wrong, or `cluster` is none; or an app is given to a
            Redis that workers serve.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        app: App | None = None,
        cluster: ClusterInfo | None = None,
        durability: str | None = None,
    ) -> None:
        self.namespace = config.check_namespace(config.resolve("namespace", namespace) or "default")
        self.keys = Keys(self.namespace)
        url = config.resolve("url", url) or ""
        self._durability = read_durability(
            config.resolve("durability") if durability is None else durability, "Client(durability=…)"
        )
        self._barriers = {}
        super().__init__(url, lambda: self._met(connect(self.url)), joining(url, self.keys, app))
        self._ring = checked_cluster(cluster, "Client(cluster=…)") or HashRing(LiveHosts(self.keys, self.ask))
        self._placer = Placer(self._ring.whois)
        self._announced: set[str] = set()

    def __repr__(self) -> str:
        """Name the Redis and the namespace, without the password."""
        return f"Client({mask(self.url)!r}, namespace={self.namespace!r})"

    def _known(self, machine: type[Machine[Any]] | str) -> Definition | Blueprint:
        """Find a machine to be started: by its name as it was announced; a class is announced, once per client."""
        if isinstance(machine, str):
            return self.do(verbs.blueprint(self.keys, machine))
        definition = self._definition(machine)
        if definition.name not in self._announced:
            self.ask(verbs.announce(self.keys, [definition], int(time.time() * 1000)))
            if not self._announced:
                with suppress(StoreError):
                    self.ask(verbs.enlist(self.keys))
            self._announced.add(definition.name)
        return definition

    def _definition(self, machine: type[Machine[Any]]) -> Definition:
        """Give the definition of a machine; a world in memory learns it."""
        definition = definition_of(machine)
        if (world := self.world) is not None:
            world.know(machine)
        return definition

    def fsm(self, name: str | type[Machine[P]], of: str | None = None, /) -> FSMHandle[Any]:
        """Give a handle with the same verbs: `client.fsm("order-42")`, or typed, `client.fsm(Order, "order-42")`.

        It asks nothing: an FSM of that name need not exist yet.
        """
        if isinstance(name, str):
            return FSMHandle(self, checked_name(name), None)
        return FSMHandle(self, checked_name(of), name)

    @overload
    def start_fsm(
        self,
        machine: type[Machine[P]],
        name: str,
        payload: Any = ...,
        *,
        state: str | None = ...,
        exist_ok: bool = ...,
        host: str | None = ...,
        durability: str | None = ...,
    ) -> FSMHandle[P]: ...
    @overload
    def start_fsm(
        self,
        machine: str,
        name: str,
        payload: Any = ...,
        *,
        state: str | None = ...,
        exist_ok: bool = ...,
        host: str | None = ...,
        durability: str | None = ...,
    ) -> FSMHandle[Any]: ...
    def start_fsm(  # noqa: PLR0913 - one keyword an option of a start
        self,
        machine: type[Machine[Any]] | str,
        name: str,
        payload: Any = None,
        *,
        state: str | None = None,
        exist_ok: bool = False,
        host: str | None = None,
        durability: str | None = None,
    ) -> FSMHandle[Any]:
        """Start an FSM; it begins with its entry event, run by a worker.

        Args:
            machine: Its machine: the class, or the name under which workers announced it; then values are plain JSON.
            name: Any non-empty text up to 512 bytes, unique in the namespace.
            payload: Of the machine's type, or JSON of that shape; without it the type's default.
            state: Adopt what is alive already, in this state: no entry event and no hooks are run. A hard event that
                is the way out of it is.
            exist_ok: Where an FSM of this name and machine exists, give its handle; it is left as it is.
            host: Its events are applied on this host alone, and wait while no worker of it is there.
            durability: What must be true before this returns, where it is another than the client's.

        Raises:
            FSMExistsError: The name is taken, also by an FSM that has finished.
            UnknownMachineError: Nobody announced a machine of this name.
            DefinitionError: The machine has no such state, or ends in it.
            PayloadError: The name, the payload or the host is not what it should be.
            StoreError: Redis cannot be used.
        """
        verdict = self.start_many(
            machine, [(name, payload)], state=state, exist_ok=exist_ok, host=host, durability=durability
        )[0]
        if verdict.error is not None:
            raise verdict.error
        return FSMHandle(self, name, None if isinstance(machine, str) else machine)

    def start_many(  # noqa: PLR0913 - as `start_fsm`
        self,
        machine: type[Machine[Any]] | str,
        items: Iterable[str | tuple[str, Any]],
        *,
        state: str | None = None,
        exist_ok: bool = False,
        host: str | None = None,
        durability: str | None = None,
    ) -> list[Verdict]:
        """Start many FSMs of one machine, as `start_fsm` does: names, or pairs of name and payload; one verdict each.

        Raises:
            PayloadError: One of the names or payloads is not what it should be: then none is started.
            StoreError: Redis cannot be used. Each FSM was started whole or not at all, in this order (of each host for
                itself): begin again with `exist_ok=True`.
        """
        pairs = [(item, None) if isinstance(item, str) else item for item in items]
        known, placer = self._known(machine), self._placer
        plan = verbs.start_many(self.keys, known, pairs, state=state, exist_ok=exist_ok, host=host, placer=placer)
        return self._do_many(plan, self._keeping(durability), is_one=len(pairs) == 1)

    def _do_many(self, plan: Plan[list[Verdict]], kept: Keeping | None, *, is_one: bool) -> list[Verdict]:
        """Carry a plan for many, or one; where some of it was taken, until that is safe."""
        if kept is None:
            return self.do(plan)
        verdicts = self.do(kept.noting(plan, is_one=is_one))
        taken = [verdict.ok for verdict in verdicts]
        if any(taken):
            while not kept.hold(is_repeatable=all(taken)):
                self._announced.clear()
        return verdicts

    def transition(  # noqa: PLR0913 - one keyword an option of a send
        self,
        name: str,
        event: str,
        data: Any = None,
        *,
        key: str | None = None,
        if_version: int | None = None,
        start: Start | None = None,
        meta: Mapping[str, Any] | None = None,
        result: bool = False,
        job_id: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        machine: type[Machine[Any]] | None = None,
        durability: str | Keeping | None = None,
    ) -> TransitionJob:
        """Send an event. When this returns, the event is in the FSM's mailbox, and as safe as `durability` says.

        Args:
            name: The FSM.
            event: The event, without marks.
            data: JSON; with the class at hand (a handle, `machine=`) of the type that the handler declares.
            key: Your own name for this event, up to 512 bytes of text ("stripe:evt_1"): sent again with it, the event
                is not applied twice, and the job is the first one's. Remembered for this FSM from its end on for
                `Settings(dedup=)`, however long its result is kept.
            if_version: The version of the snapshot on which this was decided: refused when the FSM has another one.
            start: `(Order, payload)` or `Order`, or the name of an announced machine in the place of the class: start
                the FSM if there is none, in the same step. It begins where its machine says: who wants it on one host
                alone starts it with `start_fsm(…, host=)`.
            meta: JSON that goes to `t.meta` and the log.
            result: Tell that somebody will wait: the result is then pushed, not looked for.
            job_id: An id of your own (`[A-Za-z0-9_-]+`, no `--`) in the place of a key: it is unique over all FSMs, and
                remembered as long as the record lives.
            delay: Seconds, a `timedelta` or text such as "10m": it joins the mailbox so long after Redis has it, behind
                what waits there then; of several, in the order in which they are due. It is as durable meanwhile, and
                `TransitionJob.cancel` takes it back.
            at: Or when, an aware `datetime`; one that is over means at once.
            machine: The class, for typed data and known events.
            durability: What must be true before this returns, where it is another than the client's: "memory", "fsync",
                "replicas:2", "fsync+replicas:1".

        Raises:
            UnknownFSMError: No such FSM.
            FSMFinishedError: It has ended.
            FSMExistsError: With `start`: it is of another machine.
            UnknownMachineError: With `start`: nobody announced a machine of this name.
            MailboxFullError: It has too many events waiting, or, of those with a delay, as many again.
            KeyConflictError: The key or `job_id` was used for another event, or other data.
            StaleVersionError: The FSM is newer than `if_version`; where it becomes so later, `result` raises this.
            NotAllowedError: With the class at hand: the machine has no such event.
            PayloadError: Name, event, data or an option are not what they should be.
            StoreError: Redis cannot be used, or the event is there and not as safe as was asked for. After a broken
                connection nobody knows whether the event was taken: repeat it with the same key.
        """
        definition = None if machine is None else self._definition(machine)
        known, payload = (definition, None) if start is None else self._to_start(start)
        definition = definition or (known if isinstance(known, Definition) else None)
        checked_id = None if job_id is None else records.checked_id(job_id)
        item = verbs.sending(
            definition, name, event, data, meta, job_id=checked_id, key=key, if_version=if_version, delay=delay, at=at
        )
        placer = None if start is None else self._placer
        plan = verbs.send_many(self.keys, [item], known, asked=result, first_payload=payload, placer=placer)
        if durability is None and self._durability is MEMORY:
            verdict = self.do(plan)[0]
        elif (kept := self._keeping(durability)) is durability and kept is not None:
            # Somebody else's call, who holds it when it is over.
            verdict = self.do(kept.noting(plan))[0]
        else:
            verdict = self._do_many(plan, kept, is_one=True)[0]
        if verdict.error is not None:
            raise verdict.error
        return TransitionJob(self, verdict.job_id, name, event)

    def _to_start(self, start: Start) -> tuple[Definition | Blueprint, bytes]:
        """Read `start=`: the machine, and what its FSM begins with."""
        pair = start if isinstance(start, tuple) else (start, None)
        if len(pair) != 2:  # noqa: PLR2004 - machine and payload
            problem = f"start= is a machine or a pair of machine and payload, not {start!r}"
            raise PayloadError(problem, "start")
        known = self._known(pair[0])
        return known, verbs.first_payload(known, pair[1])

    def transition_many(  # noqa: PLR0913 - as `transition`
        self,
        items: Iterable[tuple[str, str] | tuple[str, str, Any]],
        *,
        meta: Mapping[str, Any] | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        machine: type[Machine[Any]] | None = None,
        durability: str | None = None,
    ) -> list[Verdict]:
        """Send many events, in this order: `(name, event)` or `(name, event, data)`; one verdict each.

        With `delay` or `at`, as in `transition`, all of them join their mailboxes then, in this order. All that are
        accepted are as safe as `durability` says when this returns.

        What is refused does not stop the others; but after a refusal, later events of the same FSM in this call are not
        sent either, so that no gap comes into its order.

        Raises:
            PayloadError: One of them is not what it should be: then none is sent.
            StoreError: Redis cannot be used. Any may have been sent, of each FSM the first up to any; where that
                matters, send with `transition` and keys, which can be repeated.
        """
        definition = None if machine is None else self._definition(machine)
        checked = verbs.sendings(definition, items, meta, delay=delay, at=at)
        plan = verbs.send_many(self.keys, checked, definition)
        return self._do_many(plan, self._keeping(durability), is_one=len(checked) == 1)

    def call(  # noqa: PLR0913 - as `transition`
        self,
        name: str,
        event: str,
        data: Any = None,
        *,
        timeout: float = 10.0,
        settle: bool = False,
        key: str | None = None,
        if_version: int | None = None,
        start: Start | None = None,
        meta: Mapping[str, Any] | None = None,
        machine: type[Machine[Any]] | None = None,
        durability: str | None = None,
    ) -> Outcome:
        """Send an event and wait for its end.

        Args:
            name: The FSM.
            event: The event.
            data: Its data.
            timeout: Seconds.
            settle: Wait also for the hard events that follow from it, and give the state in which the FSM comes to
                rest. Where one failed and its `fails` edge led on, the outcome is not ok and has the reason.
            key: As in `transition`, like all others.
            durability: What must be true before this returns, or tells that it was refused, failed, or has not ended in
                time: of the event, and of what was done because of it. Seconds for that come on top of the time-out.

        Raises:
            RefusedError: It was refused; the class says why.
            FailedError: It failed.
            CallTimeoutError: It has not ended in time; it stays enqueued. It says why, as far as can be known.
            HandlerError: Called inside of a handler, which must not wait; nothing was sent.
            FSMError: Whatever `transition` raises.
        """
        inside.refuse_to_wait(f"call({event!r}) of FSM {name!r}")
        kept = self._keeping(durability)
        job = self.transition(
            name,
            event,
            data,
            key=key,
            if_version=if_version,
            start=start,
            meta=meta,
            result=True,
            machine=machine,
            durability=durability if kept is None else kept,
        )
        wait = verbs.settle if settle else verbs.wait
        while True:
            outcome: Outcome | TransitionError | CallTimeoutError
            try:
                # An event with a key may be an older one, which has ended long ago.
                outcome = self.do(wait(self.keys, job.id, name, event, timeout, just_sent=key is None))
            except (TransitionError, CallTimeoutError) as error:
                # Told when it is safe, as a success is: that it was refused, and that it stays enqueued.
                outcome = error
            is_over = kept is None or kept.hold()
            if kept is not None and isinstance(outcome, CallTimeoutError):
                while not is_over:
                    is_over = kept.hold()
            if is_over:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

    def wait_for(
        self,
        name: str,
        states: str | Iterable[str],
        *,
        timeout: float | None = 10.0,
        machine: type[Machine[Any]] | None = None,
    ) -> Snapshot:
        """Wait until an FSM is in a state (or in one of several), or has passed through it since this was called.

        Args:
            name: The FSM.
            states: The state, or several.
            timeout: Seconds; `None` waits for ever.
            machine: The class, for a typed payload.

        Returns:
            The FSM as it stands then; it may have gone on from that state already.

        Raises:
            UnknownFSMError: No such FSM, or it was purged meanwhile.
            DefinitionError: Its machine has no such state.
            FSMFinishedError: It has finished elsewhere.
            FailedError: It cannot go on by itself: status "failed".
            CallTimeoutError: It did not come there in time; it says why, as far as can be known.
            HandlerError: Called inside of a handler, which must not wait.
        """
        definition = None if machine is None else self._definition(machine)
        return self._typed(self.do(verbs.wait_for(self.keys, name, states, timeout, definition)), machine)

    def state(self, name: str, machine: type[Machine[Any]] | None = None) -> Snapshot:
        """Read an FSM; with its class, the payload is of the machine's type.

        Raises:
            UnknownFSMError: No such FSM.
            StoreError: The snapshot was edited by hand, or its payload is not of the machine's type.
        """
        return self._typed(self.do(verbs.state(self.keys, name)), machine)

    def _typed(self, snapshot: Snapshot, machine: type[Machine[Any]] | None) -> Snapshot:
        """Give a snapshot with a payload of the machine's type, wherever it lies."""
        if machine is not None and snapshot.is_stored:
            definition, namespace = machine.definition, self.keys.namespace
            snapshot = fetched(snapshot, definition, namespace, lambda names: self.do(verbs.states(self.keys, names)))
        return records.typed(snapshot, machine)

    def exists(self, name: str) -> bool:
        """Tell whether there is an FSM of this name, finished ones included."""
        return self.ask(verbs.exists(self.keys, name))

    def allowed(self, name: str, machine: type[Machine[Any]] | None = None) -> tuple[str, ...]:
        """Give the events that an FSM would take in its present state; none when it has finished.

        Raises:
            UnknownFSMError: No such FSM.
            UnknownMachineError: Without its class: nobody announced its machine.
        """
        definition = definition_of(machine) if machine is not None else None
        return self.do(verbs.allowed(self.keys, name, definition))

    def purge(self, name: str, *, born: str = "", timeout: float = 10.0) -> None:
        """Take an FSM away with its mail; its name is free afterwards. What waits for its events is told.

        Args:
            name: The FSM.
            born: Only if it is still this life of the name.
            timeout: Seconds to wait for a worker that has it in hand.

        Raises:
            UnknownFSMError: No such FSM.
            CallTimeoutError: A worker was at it all the time; it is left in status "purging": call again.
            HandlerError: Called inside of a handler, which must not wait.
        """
        self.do(verbs.purge(self.keys, name, born, timeout))

    def retry(
        self, name: str, *, born: str = "", if_version: int | None = None, timeout: float = 10.0
    ) -> TransitionJob | None:
        """Try again what failed last, before all that waits.

        An FSM that cannot go on by itself (status "failed") goes on with the hard or entry event that it owes; one that
        waits for the time of a retry does not wait any longer; else the event in its `error` goes back to the head of
        the mailbox.

        Args:
            name: The FSM.
            born: Only if it is still this life of the name.
            if_version: Only if it has still this version.
            timeout: Seconds to wait for a worker that has it in hand.

        Returns:
            The event; `None` where there is nothing to retry.

        Raises:
            UnknownFSMError: No such FSM.
            FSMFinishedError: It has ended.
            StaleVersionError: It is newer than `if_version`.
            CallTimeoutError: A worker was at it all the time: call again.
            HandlerError: Called inside of a handler, which must not wait.
        """
        plan = verbs.steer(self.keys, "retry", name, born=born, if_version=if_version, timeout=timeout)
        found = self.do(plan)
        return TransitionJob(self, found.job_id, name, found.event) if found.is_done else None

    def skip(
        self,
        name: str,
        job_id: str | None = None,
        *,
        born: str = "",
        if_version: int | None = None,
        timeout: float = 10.0,
    ) -> TransitionJob | None:
        """Take out the event that would be applied next; who waits for it is told, as if it had been cancelled.

        An FSM that cannot go on by itself (status "failed") gives up the hard event that it owes, and goes on with its
        mail from the state in which it is.

        Args:
            name: The FSM.
            job_id: Only this event, and only if it is the next one: a repeat then takes away no other.
            born: As in `retry`, like all others.

        Returns:
            The event; `None` where nothing waits, or another event is the next one.

        Raises:
            RefusedError: It is the entry event, without which the FSM does not begin.
            FSMError: Whatever `retry` raises.
        """
        wanted = "" if job_id is None else records.checked_id(job_id, ours=True)
        plan = verbs.steer(self.keys, "skip", name, job_id=wanted, born=born, if_version=if_version, timeout=timeout)
        found = self.do(plan)
        return TransitionJob(self, found.job_id, name, found.event) if found.is_done else None

    def pause(self, name: str, *, born: str = "", if_version: int | None = None) -> None:
        """Let an FSM stand: its mail is kept and grows, and none of it is applied until `resume`.

        What a worker has in hand just now is finished. A repeat changes nothing.

        Raises:
            UnknownFSMError: No such FSM.
            FSMFinishedError: It has ended.
            StaleVersionError: It is newer than `if_version`.
        """
        self.do(verbs.steer(self.keys, "pause", name, born=born, if_version=if_version))

    def resume(self, name: str, *, born: str = "", if_version: int | None = None) -> bool:
        """Let a paused FSM go on with its mail.

        Returns:
            Whether it was paused.

        Raises:
            FSMError: Whatever `pause` raises.
        """
        return self.do(verbs.steer(self.keys, "resume", name, born=born, if_version=if_version)).is_done

    def job(self, job_id: str) -> TransitionJob:
        """Give the job of an event by its id; where it has no record (any more), its status is "unknown".

        Raises:
            PayloadError: This is no id of a job.
        """
        seen = self.ask(verbs.view(self.keys, records.checked_id(job_id, ours=True)))
        return TransitionJob(self, job_id, seen.name, seen.event)

    def machines(self) -> dict[str, dict[str, Any]]:
        """Give the machines that were announced: states, events, queue, fingerprint, diagram."""
        return self.ask(verbs.machines(self.keys))

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the FSMs of each machine in each of its states, finished ones included."""
        return self.do(verbs.counts(self.keys))

    def log(self, name: str | None = None, *, follow: bool = False, after: str = "0-0") -> Iterator[dict[str, Any]]:
        """Iterate over what was done, oldest first: one dict a transition.

        Args:
            name: Only this FSM.
            follow: Go on with what comes, until the caller stops; starts with what comes now if `after` is "$".
            after: Id of an entry of the log.

        Yields:
            `name, machine, event, from, to, version, job, ms, worker, at_ms`, and `refused`, `error`, `meta`, `ending`
            where they are so, `attempt` and `retry_in_ms` where it is to be tried again; of what an operator did
            `name, machine, verb, by, at_ms`, and `job` where it was about one. The log is capped: old entries are gone.
        """
        place: str | None = after
        while place is not None:
            page, place = self.do(verbs.log_page(self.keys, name, place, _FOLLOW_MS if follow else None))
            yield from page

    def jobs(self, name: str) -> Agenda:
        """Give what is before an FSM: events that wait and effects that are open, the first 1,000 of each.

        Raises:
            UnknownFSMError: No such FSM.
        """
        return self.do(verbs.agenda(self.keys, name))

    def tick(self, name: str) -> TransitionJob:
        """Let an FSM run its `on_timer` now, whenever the next tick is due; that comes all the same.

        Raises:
            UnknownFSMError: No such FSM.
            FSMFinishedError: It has ended.
            MailboxFullError: It has too many events waiting.
            StoreError: Redis cannot be used.
        """
        return self.transition(name, TICK, result=True)


def definition_of(machine: Any) -> Definition:
    """Give the definition of what a caller passed as a machine.

    Raises:
        UnknownMachineError: It is no class of a machine.
    """
    if not (isinstance(machine, type) and issubclass(machine, Machine)):
        raise UnknownMachineError(str(machine))
    return machine.definition
