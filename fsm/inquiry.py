"""What applications ask of FSMs by what they are: queries, errors, what became of events, what is purged in bulk.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm import verbs
from fsm.carrier import PlanCarrier
from fsm.errors import StoreError
from fsm.machine.durations import duration_ms
from fsm.overview import name_of
from fsm.storage.fetching import fetched_many
from fsm.store import records
from fsm.verbs import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from typing import Never

    from fsm.machine import Machine
    from fsm.machine.durations import Duration
    from fsm.store.codec import Snapshot
    from fsm.store.keys import Keys

__all__ = ["Inquiry"]

_PAGE = 500


class Inquiry(PlanCarrier):
    """The verbs of a client that find FSMs by more than their names."""

    keys: Keys

    def query(  # noqa: PLR0913 - one keyword a filter
        self,
        *,
        machine: type[Machine[Any]] | str | None = None,
        state: str | None = None,
        status: str | None = None,
        failed: bool | None = None,
        started_after: datetime | None = None,
        updated_before: datetime | None = None,
        in_state_longer_than: Duration | None = None,
        limit: int = 100,
        cursor: str = "",
        **unknown: Never,
    ) -> Snapshots:
        """Find FSMs by what they are, one page at a time; without filters all of them, finished ones included.

        They come by machine and state, those longest in their state first; of each state, those that have finished come
        behind the others. With `failed=True` they come by machine, those that failed first before the others. An FSM
        that stands still comes exactly once over all pages, whatever others do; one that came to its state after the
        first page was read (`as_of`) is left out, and none comes twice.

        Filters hold together. By an index are found: `machine`, `state`, `status="finished"`, `in_state_longer_than`
        and `failed=True`. With others, 1,000 FSMs are looked at for a page, and that may be short, or empty, though
        there are more: `cursor` tells.

        Args:
            machine: Their machine: the class or its name.
            state: The state in which they are.
            status: "starting", "running", "paused", "finished" or "failed"; "damaged" where a snapshot cannot be read.
            failed: True for those whose last event failed (they have an `error`), False for those without.
            started_after: Started later than this, an aware `datetime`.
            updated_before: Not written since before this, an aware `datetime`.
            in_state_longer_than: In their state for longer: seconds, a `timedelta`, or text such as "1d12h".
            limit: At most so many on a page, up to 1,000.
            cursor: Of the page before, with the same filters: `page.cursor`. It is "" after the last page.
            unknown: There are no other filters.

        Returns:
            Snapshots. With the class, payloads are of the machine's type, as `state` gives them; those that lie in a
            storage are read there, in one go, and one that moves on just then comes as it is after that step. By the
            name of the machine, and without one, payloads are plain JSON, and `None` where they lie in a storage. One
            whose snapshot was damaged by hand comes with status "damaged", and the reason as its `error`.

        Raises:
            ConfigError: There is no such filter, or its value is not allowed.
            PayloadError: The cursor is none that a page with these filters gave.
            StoreError: Redis cannot be used. With the class: its storage cannot, or has nothing of one of them, or a
                payload is not of the machine's type; ask by the name then.
        """
        given = {
            "machine": name_of(machine),
            "state": state,
            "status": status,
            "failed": failed,
            "started_after": started_after,
            "updated_before": updated_before,
            "in_state_longer_than": in_state_longer_than,
            "limit": limit,
            "cursor": cursor,
        }
        page = self.do(verbs.query(self.keys, verbs.read_filters("query", given | unknown)))
        return page if machine is None or isinstance(machine, str) else self._typed_page(page, machine)

    def _typed_page(self, page: Snapshots, machine: type[Machine[Any]]) -> Snapshots:
        """Give a page with payloads of the machine's type, wherever they lie; who was purged meanwhile is left out."""

        def again(names: Sequence[str]) -> list[Snapshot | None]:
            return self.do(verbs.states(self.keys, names, damaged_too=True))

        typed = []
        for one in fetched_many(page, machine.definition, self.keys.namespace, again).values():
            if isinstance(one, StoreError):
                raise one
            typed.append(one if one.status == "damaged" else records.typed(one, machine))
        return Snapshots(typed, page.cursor, page.as_of)

    def snapshots(
        self, machine: type[Machine[Any]] | str | None = None, state: str | None = None, status: str | None = None
    ) -> Iterator[Snapshot]:
        """Iterate over FSMs, page by page: by machine, state and status, in the order of `query`, as it gives them."""
        cursor = ""
        while True:
            page = self.query(machine=machine, state=state, status=status, limit=_PAGE, cursor=cursor)
            yield from page
            if not (cursor := page.cursor):
                return

    def errors(
        self, machine: type[Machine[Any]] | str | None = None, *, limit: int = 100, cursor: str = ""
    ) -> Snapshots:
        """Find FSMs whose last event failed, of a machine or of all: each has its `error`. It is a query by an index.

        Payloads come as those of `query` do: with the class typed, wherever they lie.

        Args:
            machine: Their machine: the class or its name.
            limit: At most so many on a page, up to 1,000.
            cursor: Of the page before.

        Raises:
            ConfigError: The limit is not allowed.
            PayloadError: The cursor is none that a page of this gave.
            StoreError: As of `query`.
        """
        return self.query(machine=machine, failed=True, limit=limit, cursor=cursor)

    def last_error(self, name: str) -> dict[str, Any] | None:
        """Give the last failure of an FSM, until an event of it is done; then, and where none failed, `None`.

        Raises:
            UnknownFSMError: No such FSM.
        """
        return self.do(verbs.state(self.keys, name)).error

    def history(self, name: str, *, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Give what became of an FSM's events, oldest first: one dict an event, as `log` has them, each with its `id`.

        With `Settings(audit=True)` it is kept with the FSM until that is purged: the last 10,000, or as many as the
        setting says. Without, it is what the log still knows, which is capped for all FSMs together. The last states by
        themselves are `state(name).history`.

        Args:
            name: The FSM.
            after: The `id` of a line: give what came later.
            limit: At most so many, up to 10,000; out of the log it may be some more.

        Raises:
            UnknownFSMError: No such FSM.
            PayloadError: `after` is no id, or the limit is not allowed.
        """
        return self.do(verbs.history(self.keys, name, after, limit))

    def purge_finished(
        self,
        *,
        older_than: Duration,
        machine: type[Machine[Any]] | str | None = None,
        timeout: float = 10.0,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Take away FSMs that have finished longer ago, as `purge` does, 200 a step: others are served in between.

        Args:
            older_than: Seconds, a `timedelta` or text such as "30d"; 0 for all that have finished.
            machine: Only FSMs of this machine: the class or its name.
            timeout: Seconds to wait for workers that have some of them in hand.
            dry_run: Count them, and take away none.
            progress: Is told, now and then, how many were taken away, and of how many there were.

        Returns:
            How many were taken away, or would be.

        Raises:
            ConfigError: The length of time is none.
            CallTimeoutError: A worker was at one of them all the time, and all others are gone: call again.
            HandlerError: Called inside of a handler, which must not wait.
            StoreError: Redis cannot be used, or one of them is damaged; then all others are gone.
        """
        age_ms = duration_ms(older_than, "purge_finished(older_than=…)")
        of = name_of(machine)
        total = self.do(verbs.count_finished(self.keys, age_ms, of)) if dry_run or progress is not None else 0
        if dry_run:
            return total
        if progress is None:
            return self.do(verbs.purge_finished(self.keys, age_ms, of, timeout))
        return self.do(verbs.purge_finished(self.keys, age_ms, of, timeout, lambda done: progress(done, total)))
