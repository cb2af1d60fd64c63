"""What a storage is: the protocol that users may implement, and the narrower one by which workers use it.

A machine that names a storage (`storage = SqlStorage(…)` in its class) has its payloads there and not in Redis. Redis
keeps what no storage can: that an FSM exists, its mail and their order, its lock, its timers; and a copy of state,
status and version, by which it is found. Workers write the storage first and Redis then. What lies between is found by
whoever claims the FSM next: the row is ahead of Redis by one step, and holds what Redis has not been told.

- `Storage` is for people and applications: one FSM at a time, values as they are.
- `BatchStorage` is for workers: many FSMs in one transaction, payloads as raw JSON. A storage that has only the first
  is used through it, one FSM after the other, which is slower and as safe.

**Lives.** `born` is the id of one life of a name: µs since 1970 as digits, drawn by Redis when the FSM is started. A
name that was purged and started anew has a greater one, and versions that begin again at 0. So versions are compared
within one life only, and nothing that an earlier life wrote late may touch a later one.

**Errors.** A storage that cannot be used now (no connection, a time-out, a deadlock, a table that is missing) raises
`StoreError`, with passwords masked: the FSM waits, and no event is consumed. Everything else that it raises is taken
for the fault of what was to be stored.

**Threads.** One object serves a whole process, several threads at once, and children that were forked after it was
made: connections are opened when they are needed, by the process that needs them. Making the object opens none.

Who calls this: machines, as the type of their `storage`; `fsm.testing.storage`, which holds each implementation against
it; `workers.shelf`. It imports nothing that is not in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

__all__ = ["FILTERS", "MOST_ROWS", "BatchStorage", "Row", "Storage", "Stored", "StoredPage"]

# What `query` may be asked for, as `client.query` may.
FILTERS = (
    "machine",
    "state",
    "status",
    "failed",
    "started_after",
    "updated_before",
    "in_state_longer_than",
    "limit",
    "cursor",
)
# At most so many names or rows in one call of `BatchStorage`: a claim of a worker has fewer.
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One FSM as a storage has it. What was stored comes back equal, field by field.

    Args:
        name: Of the FSM, any text of up to 512 bytes.
        machine: Name of its machine.
        state: State of the graph.
        payload: Plain JSON, as `orjson.loads` gives it; integers of 64 bits and NUL in texts too.
        version: Grows with every attempt that ended in a commit, by more than one where a claim had several events.
        status: "starting", "running", "finished" or "failed". A pause is Redis's alone.
        born: Id of this life of the name.
        definition: Mark of the definition that wrote it last, as `fsm.machine.read_mark` reads it.
        started_at: When it was started, aware, UTC, to the ms at least.
        updated_at: Time of the last store, aware, UTC, to the ms at least.
        error: The last failure, as `Snapshot.error` has it, until an event is done; else None.
        last_job: Id of the last event that was done; "" before the first.
        pending: What workers need to finish a step that a crash cut short: kept and given back byte for byte.
    """

    name: str
    machine: str
    state: str
    payload: Any
    version: int
    status: str
    born: str
    definition: str
    started_at: datetime
    updated_at: datetime
    error: Mapping[str, Any] | None = None
    last_job: str = ""
    pending: bytes = b""


@dataclass(frozen=True, slots=True)
class StoredPage:
    """One page of a query.

    Args:
        snapshots: What was found.
        cursor: To be given to the next call, with the same filters; "" where this was the last page. A page may be
            shorter than asked for, or empty, and not the last.
    """

    snapshots: tuple[Stored, ...]
    cursor: str = ""


@runtime_checkable
class Storage(Protocol):
    """Where snapshots lie: one namespace of it, and one FSM at a time.

    `fsm.testing.storage.StorageContract` says all of this in tests, for storages of your own too.

    On a crash: each method has done all of its work, or nothing.

    Raises:
        StoreError: From every method: the storage cannot be used now.
    """

    def of(self, namespace: str) -> Storage:
        """Give the same storage for another namespace; names in one know nothing of those in another.

        As it was made, a storage is that of "default".
        """
        ...

    def load(self, name: str) -> Stored | None:
        """Give the snapshot of an FSM; None where there is none."""
        ...

    def get(self, name: str) -> Stored:
        """Give the snapshot of an FSM.

        Raises:
            UnknownFSMError: There is none.
        """
        ...

    def store(self, name: str, snapshot: Stored, expected_version: int | None) -> bool:
        """Compare and set: write a snapshot in the place of the one that was read.

        Of two that try it at once with the same expectation, one is told True. Since when the FSM is in its state the
        storage knows by itself: since the `updated_at` of the store that changed `state` or `born`.

        Args:
            name: The FSM, `snapshot.name`.
            snapshot: What is to be there.
            expected_version: The version that is there now, of the same life (`born`); None where there is no snapshot.

        Returns:
            False where something else is there: another version, another life, one where there should be none, or none
            where there should be one. Nothing was written.

        Raises:
            PayloadError: The snapshot cannot be kept: it is of another name, or its payload is no JSON.
        """
        ...

    def put(self, name: str, snapshot: Stored) -> None:
        """Write a snapshot without one having been read: where there is none, or over an older one.

        The same version of the same life may be put again. Another life is replaced where it began earlier.

        Raises:
            StaleVersionError: What is there is newer: a greater version of the same life, or a later life. Nothing was
                written.
            PayloadError: As of `store`.
        """
        ...

    def store_error(self, name: str, error: Mapping[str, Any] | None) -> None:
        """Note the last failure of an FSM beside its snapshot, or forget it; the version stays as it is.

        Raises:
            UnknownFSMError: There is no such FSM.
        """
        ...

    def last_error(self, name: str) -> dict[str, Any] | None:
        """Give the last failure of an FSM; None where there is none, or no such FSM."""
        ...

    def delete(self, name: str) -> bool:
        """Remove the snapshot of an FSM, and tell whether there was one: a second time there is none."""
        ...

    def purge(self, name: str) -> bool:
        """Remove all that the storage holds of a name, and tell whether there was something."""
        ...

    def query(self, **filters: Any) -> StoredPage:
        """Find snapshots, a page at a time, in an order that stays: by machine, state, since when, and name.

        Over all pages, an FSM that stands still comes exactly once, whatever others do; one that moves at most once.
        Filters are those in `FILTERS`, all of them hold together; one that is None was not given, and with none all
        snapshots come.

        Args:
            filters: `machine`, `state`, `status`: names, equal to the field. `failed`: True for those with an error,
                False for those without. `started_after`, `updated_before`: aware times, themselves left out.
                `in_state_longer_than`: a length of time, as settings take it. `limit`: most a page, 1 to 1,000, 100 if
                not given. `cursor`: where the page before ended; "" begins.

        Raises:
            ConfigError: There is no such filter (it names those there are), or a value is not allowed.
            PayloadError: The cursor is none that a page with these filters gave.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One FSM as workers load and store it: nothing in it is decoded, times are ms by the clock of Redis.

    Of a row that lies there, with V the version that Redis has of the same life:

    - `version == V`: both agree, and `pending` is of no use any more.
    - `version > V` and `base == V`: a worker stored this step and did not come to tell Redis, which `pending` does.
    - `version > V` and `base != V`: Redis lost more than one step, and follows the row.
    - `version < V`: the storage lost something.

    Args:
        name: Of the FSM.
        born: Id of its life.
        machine: Name of its machine.
        state: State of the graph.
        status: As of `Stored`.
        version: After this step.
        base: The version before it. As a claim may have several events, it is not always one less.
        payload: JSON, UTF-8, stored and given back byte for byte.
        definition: Mark of the definition that wrote it.
        started_ms: When it was started.
        updated_ms: When it was stored.
        error: The last failure, JSON; b"" where there is none.
        last_job: Id of the last event that was done.
        token: Of the claim that stored it: by this a worker that lost the answer knows its own.
        pending: What Redis is to be told, as `Block` packs it; b"" where a user stored it, and Redis was told before.
        over: Only of a row that is to be stored, and kept nowhere: the `born` of the row whose place it takes, as that
            was loaded; None where there was none. Its own `born` is the usual case.
        seen: Only of a row that is to be stored, and kept nowhere: the payload that was loaded of this life; b"" where
            none was. Of use where the payload can be changed beside the version, as with `SqlStorage(persist=…)`.
    """

    name: str
    born: str
    machine: str
    state: str
    status: str
    version: int
    base: int
    payload: bytes
    definition: str
    started_ms: int
    updated_ms: int
    error: bytes = b""
    last_job: str = ""
    token: str = ""
    pending: bytes = b""
    over: str | None = None
    seen: bytes = b""


@runtime_checkable
class BatchStorage(Protocol):
    """What workers want of a storage beside `Storage`, to pay for one transaction and not for a hundred."""

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give the rows of these FSMs, by name; who has none is not in it.

        Args:
            namespace: Of all of them.
            names: At most `MOST_ROWS`, each once.

        Raises:
            StoreError: The storage cannot be used now.
        """
        ...

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows in one transaction, each by compare-and-set; who has lost is left out, the others stand.

        A row is stored where what is there is what was loaded: with `over` None no row at all; with `over` the row's
        own `born` that life at version `base`; with another `born` a row of that life, at whichever version, for it is
        over. Where a payload can be changed beside its version, it has to be `seen` as well. Rows are written in the
        order of their names, so that no two transactions wait for each other.

        On a crash: all of them are stored, or none.

        Args:
            namespace: Of all of them.
            rows: At most `MOST_ROWS`, each name once.

        Returns:
            The names of those that were stored.

        Raises:
            StoreError: The storage cannot be used now. All rows may have been stored, or none: whoever must know loads
                them, and finds its own by version and `token`.
            Exception: Some row cannot be stored, and none was. Workers try the halves, down to that row, and make it
                the failure of its event.
        """
        ...

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        """Remove what the storage holds of lives that are over, and tell of how many names there was something.

        Workers purge Redis first, and the name may live again before they come here: a later life stays.

        Args:
            namespace: Of all of them.
            lives: Name -> `born`, at most `MOST_ROWS`: of each name this life goes, and whatever began before it.

        Raises:
            StoreError: The storage cannot be used now.
        """
        ...
