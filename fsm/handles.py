"""One FSM and one event, with the client's verbs.

Who calls this: the client gives them, applications use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fsm import verbs
from fsm.store import calls, records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import TypeAlias

    from fsm.client import Client
    from fsm.engine import Outcome
    from fsm.machine import Machine
    from fsm.machine.durations import Duration
    from fsm.store.codec import Snapshot
    from fsm.store.records import Job
    from fsm.verbs import Agenda, Timetable

    # What `start=` takes: a machine, by its class or the name under which workers announced it, or that and a payload.
    Start: TypeAlias = type[Machine[Any]] | str | tuple[type[Machine[Any]] | str, Any]

__all__ = ["FSMHandle", "TransitionJob"]

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class FSMHandle(Generic[P]):
    """One FSM, with the client's verbs.

    Args:
        client: Whose connection is used.
        name: The FSM.
        machine: Its class, or `None`: then values are plain JSON.
    """

    client: Client
    name: str
    machine: type[Machine[P]] | None = None

    def transition(  # noqa: PLR0913 - as `Client.transition`
        self,
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
        durability: str | None = None,
    ) -> TransitionJob:
        """Send an event: see `Client.transition`."""
        return self.client.transition(
            self.name,
            event,
            data,
            key=key,
            if_version=if_version,
            start=start,
            meta=meta,
            result=result,
            job_id=job_id,
            delay=delay,
            at=at,
            machine=self.machine,
            durability=durability,
        )

    def call(  # noqa: PLR0913 - as `Client.call`
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float = 10.0,
        settle: bool = False,
        key: str | None = None,
        if_version: int | None = None,
        start: Start | None = None,
        meta: Mapping[str, Any] | None = None,
        durability: str | None = None,
    ) -> Outcome:
        """Send an event and wait for its end: see `Client.call`."""
        return self.client.call(
            self.name,
            event,
            data,
            timeout=timeout,
            settle=settle,
            key=key,
            if_version=if_version,
            start=start,
            meta=meta,
            machine=self.machine,
            durability=durability,
        )

    def wait_for(self, states: str | Iterable[str], *, timeout: float | None = 10.0) -> Snapshot:
        """Wait until it is in a state, or has passed through: see `Client.wait_for`."""
        return self.client.wait_for(self.name, states, timeout=timeout, machine=self.machine)

    def state(self) -> Snapshot:
        """Read the FSM: see `Client.state`."""
        return self.client.state(self.name, self.machine)

    def history(self, *, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Give what became of its events, oldest first: see `Client.history`."""
        return self.client.history(self.name, after=after, limit=limit)

    def last_error(self) -> dict[str, Any] | None:
        """Give its last failure, until an event of it is done: see `Client.last_error`."""
        return self.client.last_error(self.name)

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self.client.exists(self.name)

    def allowed(self) -> tuple[str, ...]:
        """Give the events that it would take now."""
        return self.client.allowed(self.name, self.machine)

    def log(self, *, follow: bool = False, after: str = "0-0") -> Iterator[dict[str, Any]]:
        """Iterate over what was done with it: see `Client.log`."""
        return self.client.log(self.name, follow=follow, after=after)

    def purge(self, *, timeout: float = 10.0) -> None:
        """Take it away with its mail."""
        self.client.purge(self.name, timeout=timeout)

    def retry(self, *, born: str = "", if_version: int | None = None, timeout: float = 10.0) -> TransitionJob | None:
        """Try again what failed last: see `Client.retry`."""
        return self.client.retry(self.name, born=born, if_version=if_version, timeout=timeout)

    def skip(
        self, job_id: str | None = None, *, born: str = "", if_version: int | None = None, timeout: float = 10.0
    ) -> TransitionJob | None:
        """Take out the event that would be applied next: see `Client.skip`."""
        return self.client.skip(self.name, job_id, born=born, if_version=if_version, timeout=timeout)

    def pause(self, *, born: str = "", if_version: int | None = None) -> None:
        """Let it stand until `resume`: see `Client.pause`."""
        self.client.pause(self.name, born=born, if_version=if_version)

    def resume(self, *, born: str = "", if_version: int | None = None) -> bool:
        """Let it go on, and tell whether it was paused: see `Client.resume`."""
        return self.client.resume(self.name, born=born, if_version=if_version)

    def jobs(self) -> Agenda:
        """Give what is before it, events that wait and effects that are open: see `Client.jobs`."""
        return self.client.jobs(self.name)

    def timers(self) -> Timetable:
        """Give its timers and delayed events, soonest first: see `Client.timers`."""
        return self.client.timers(self.name)

    def tick(self) -> TransitionJob:
        """Let it run its `on_timer` now: see `Client.tick`."""
        return self.client.tick(self.name)


@dataclass(frozen=True, slots=True)
class TransitionJob:
    """One event that was sent.

    Args:
        client: Whose connection is used.
        id: RQ's id of the job.
        name: The FSM.
        event: The event.
    """

    client: Client
    id: str
    name: str
    event: str

    def status(self) -> str:
        """Say where it stands: "waiting", "done", "refused", "failed", "cancelled", "gone" or "unknown"."""
        return verbs.standing(self.client.ask(verbs.view(self.client.keys, self.id)))

    def result(self, timeout: float | None = 10.0, *, settle: bool = False) -> Outcome:
        """Wait for its end.

        Args:
            timeout: Seconds; `None` waits for ever.
            settle: Wait also for the hard events that follow from it: see `Client.call`.

        Raises:
            RefusedError: It was refused; the class says why.
            FailedError: It failed, or was taken away by an operator.
            FSMFinishedError: The FSM had ended before it.
            CallTimeoutError: It has not ended in time; it stays enqueued. It says why, as far as can be known.
            HandlerError: Called inside of a handler, which must not wait.
        """
        wait = verbs.settle if settle else verbs.wait
        return self.client.do(wait(self.client.keys, self.id, self.name, self.event, timeout))

    def cancel(self) -> bool:
        """Take it back.

        Returns:
            True: it will not be applied. False: it has ended, or a worker may be applying it just now.
        """
        word = self.client.ask(calls.cancel(self.client.keys, self.id))
        return word == "CANCELLED"

    def rq_job(self) -> Job:
        """Fetch RQ's own view of it.

        Raises:
            StoreError: There is no record of it any more.
        """
        return records.rq_job(self.client.redis, self.id)
