"""What applications call: start FSMs, send them events, wait for the end, look at them.

`Client` carries the plans of `fsm.verbs` over a blocking connection, and nothing more: what to ask and how to read the
answer is theirs. It connects at the first call, and may be shared by threads and used after a fork.

Who calls this: applications, the command line, the test kit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fsm import config, verbs
from fsm.engine import checked_name
from fsm.errors import StoreError, UnknownMachineError
from fsm.handles import FSMHandle, TransitionJob
from fsm.machine import Machine
from fsm.store import records
from fsm.store.connection import connect, mask
from fsm.store.keys import Keys
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from fsm.engine import Outcome
    from fsm.machine import Definition
    from fsm.store.codec import Snapshot
    from fsm.store.connection import Redis
    from fsm.verbs import Plan, Verdict

__all__ = ["Client"]

R = TypeVar("R")
P = TypeVar("P")
_FOLLOW_MS = 1000


class Client:
    """A connection to the FSMs of one namespace.

    Args:
        url: `redis://`, `rediss://`, `unix://` or `embedded:///dir`; else `FSM_URL`, else `[tool.fsm] url`, else
            `redis://localhost:6379/0`.
        namespace: Else `FSM_NAMESPACE`, else `[tool.fsm] namespace`, else "default".

    Raises:
        ConfigError: The URL or the namespace is wrong.
    """

    def __init__(self, url: str | None = None, *, namespace: str | None = None) -> None:
        self.url = config.resolve("url", url) or ""
        self.namespace = config.check_namespace(config.resolve("namespace", namespace) or "default")
        self.keys = Keys(self.namespace)
        self._connection: Redis | None = None
        self._announced: set[str] = set()

    def __repr__(self) -> str:
        """Name the Redis and the namespace, without the password."""
        return f"Client({mask(self.url)!r}, namespace={self.namespace!r})"

    def __enter__(self) -> Self:
        """Give the client, for `with`."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def redis(self) -> Redis:
        """The connection, made at the first use.

        Raises:
            StoreError: Redis cannot be reached, is too old, or in cluster mode.
        """
        if self._connection is None:
            self._connection = connect(self.url)
        return self._connection

    def ask(self, request: Request[R]) -> R:
        """Carry one request; for verbs of your own, as the handles are.

        Raises:
            StoreError: Redis cannot be used.
        """
        return run(self.redis, request, self.url)

    def do(self, plan: Plan[R]) -> R:
        """Carry a plan to its end: see `fsm.verbs`."""
        try:
            request = plan.send(None)
            while True:
                try:
                    reply = self.ask(request)
                except StoreError as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(reply)
        except StopIteration as end:
            return cast("R", end.value)

    def _announce(self, definition: Definition) -> None:
        """Tell once per client which machine it starts, so that lists and other senders know it."""
        if definition.name not in self._announced:
            self.ask(verbs.announce(self.keys, [definition], int(time.time() * 1000)))
            self._announced.add(definition.name)

    def fsm(self, name: str | type[Machine[P]], of: str | None = None, /) -> FSMHandle[Any]:
        """Give a handle with the same verbs: `client.fsm("order-42")`, or typed, `client.fsm(Order, "order-42")`.

        It asks nothing: an FSM of that name need not exist yet.
        """
        if isinstance(name, str):
            return FSMHandle(self, checked_name(name), None)
        return FSMHandle(self, checked_name(of), name)

    def start_fsm(self, machine: type[Machine[P]], name: str, payload: Any = None) -> FSMHandle[P]:
        """Start an FSM; it begins with its entry event, run by a worker.

        Args:
            machine: Its machine.
            name: Any non-empty text up to 512 bytes, unique in the namespace.
            payload: Of the machine's type, or JSON of that shape; without it the type's default.

        Raises:
            FSMExistsError: The name is taken, also by an FSM that has finished.
            PayloadError: The name or the payload is not what it should be.
            StoreError: Redis cannot be used.
        """
        verdict = self.start_many(machine, [(name, payload)])[0]
        if verdict.error is not None:
            raise verdict.error
        return FSMHandle(self, name, machine)

    def start_many(self, machine: type[Machine[Any]], items: Iterable[str | tuple[str, Any]]) -> list[Verdict]:
        """Start many FSMs of one machine: names, or pairs of name and payload; one verdict each.

        Raises:
            PayloadError: One of the names or payloads is not what it should be: then none is started.
        """
        definition = definition_of(machine)
        pairs = [(item, None) if isinstance(item, str) else item for item in items]
        plan = verbs.start_many(self.keys, definition, pairs)
        self._announce(definition)
        return self.do(plan)

    def transition(  # noqa: PLR0913 - one keyword an option of a send
        self,
        name: str,
        event: str,
        data: Any = None,
        *,
        meta: Mapping[str, Any] | None = None,
        result: bool = False,
        job_id: str | None = None,
        machine: type[Machine[Any]] | None = None,
    ) -> TransitionJob:
        """Send an event. When this returns, the event is in the FSM's mailbox, as durably as Redis keeps it.

        Args:
            name: The FSM.
            event: The event, without marks.
            data: JSON; with the class at hand (a handle, `machine=`) of the type that the handler declares.
            meta: JSON that goes to `t.meta` and the log.
            result: Tell that somebody will wait: the result is then pushed, not looked for.
            job_id: An id of your own (`[A-Za-z0-9_-]+`, no `--`): the same event sent again with it is not applied
                twice, as long as the record lives.
            machine: The class, for typed data.

        Raises:
            UnknownFSMError: No such FSM.
            FSMFinishedError: It has ended.
            MailboxFullError: It has too many events waiting.
            KeyConflictError: The `job_id` was used for another event.
            PayloadError: Name, event, data or meta are not what they should be.
            StoreError: Redis cannot be used. After a broken connection nobody knows whether the event was taken:
                repeat it with the same `job_id`.
        """
        definition = definition_of(machine) if machine is not None else None
        item = verbs.sending(definition, name, event, data, meta)
        if job_id is not None:
            item = verbs.Sending(item.name, item.event, item.raw, records.checked_id(job_id), item.meta)
        verdict = self.do(verbs.send_many(self.keys, [item], definition, asked=result))[0]
        if verdict.error is not None:
            raise verdict.error
        return TransitionJob(self, verdict.job_id, name, event)

    def transition_many(
        self,
        items: Iterable[tuple[str, str] | tuple[str, str, Any]],
        *,
        meta: Mapping[str, Any] | None = None,
        machine: type[Machine[Any]] | None = None,
    ) -> list[Verdict]:
        """Send many events, in this order: `(name, event)` or `(name, event, data)`; one verdict each.

        What is refused does not stop the others; but after a refusal, later events of the same FSM in the same round
        trip are not sent either, so that no gap comes into its order.

        Raises:
            PayloadError: One of them is not what it should be: then none is sent.
        """
        definition = definition_of(machine) if machine is not None else None
        checked = [
            verbs.sending(definition, item[0], item[1], item[2] if len(item) > 2 else None, meta)  # noqa: PLR2004 - pair or triple
            for item in items
        ]
        return self.do(verbs.send_many(self.keys, checked, definition))

    def call(  # noqa: PLR0913 - as `transition`
        self,
        name: str,
        event: str,
        data: Any = None,
        *,
        timeout: float = 10.0,
        meta: Mapping[str, Any] | None = None,
        machine: type[Machine[Any]] | None = None,
    ) -> Outcome:
        """Send an event and wait for its end.

        Args:
            name: The FSM.
            event: The event.
            data: Its data.
            timeout: Seconds.
            meta: As in `transition`.
            machine: As in `transition`.

        Raises:
            RefusedError: It was refused; the class says why.
            FailedError: It failed.
            CallTimeoutError: It has not ended in time; it stays enqueued.
            FSMError: Whatever `transition` raises.
        """
        return self.transition(name, event, data, meta=meta, result=True, machine=machine).result(timeout)

    def state(self, name: str, machine: type[Machine[Any]] | None = None) -> Snapshot:
        """Read an FSM; with its class, the payload is of the machine's type.

        Raises:
            UnknownFSMError: No such FSM.
            StoreError: The snapshot was edited by hand, or its payload is not of the machine's type.
        """
        return records.typed(self.do(verbs.state(self.keys, name)), machine)

    def exists(self, name: str) -> bool:
        """Tell whether there is an FSM of this name, finished ones included."""
        return self.ask(verbs.exists(self.keys, name))

    def allowed(self, name: str, machine: type[Machine[Any]] | None = None) -> tuple[str, ...]:
        """Give the events that an FSM would take in its present state; none when it has finished."""
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
        """
        self.do(verbs.purge(self.keys, name, born, timeout))

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

    def snapshots(
        self, machine: str | None = None, state: str | None = None, status: str | None = None
    ) -> Iterator[Snapshot]:
        """Iterate over FSMs, page by page: by machine, state and status, those longest in their state first.

        One whose snapshot was damaged by hand comes with status "damaged", and the reason as its `error`. One that
        changes its state meanwhile may be left out or come twice.
        """
        place: verbs.Place | None = self.do(verbs.list_from(self.keys, machine, state))
        while place is not None:
            page, place = self.do(verbs.list_page(self.keys, place, status))
            yield from page

    def log(self, name: str | None = None, *, follow: bool = False, after: str = "0-0") -> Iterator[dict[str, Any]]:
        """Iterate over what was done, oldest first: one dict a transition.

        Args:
            name: Only this FSM.
            follow: Go on with what comes, until the caller stops; starts with what comes now if `after` is "$".
            after: Id of an entry of the log.

        Yields:
            `name, machine, event, from, to, version, job, ms, worker, at_ms`, and `refused`, `error`, `meta`, `ending`
            where they are so. The log is capped: old entries are gone.
        """
        place: str | None = after
        while place is not None:
            page, place = self.do(verbs.log_page(self.keys, name, place, _FOLLOW_MS if follow else None))
            yield from page


def definition_of(machine: Any) -> Definition:
    """Give the definition of what a caller passed as a machine.

    Raises:
        UnknownMachineError: It is no class of a machine.
    """
    if not (isinstance(machine, type) and issubclass(machine, Machine)):
        raise UnknownMachineError(str(machine))
    return machine.definition
