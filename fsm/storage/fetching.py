"""How snapshots in Redis get the payloads that lie in a storage: a page of them by one call of it.

Who calls this: the client, where it is given the class; `fsm state` and `fsm ls`, where they are given the application.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fsm.errors import StoreError, UnknownFSMError
from fsm.storage.protocol import BatchStorage
from fsm.storage.rows import stored_of
from fsm.storage.singly import Singly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fsm.machine import Definition
    from fsm.storage.protocol import Row
    from fsm.store.codec import Snapshot

__all__ = ["fetched", "fetched_many"]

# Between the two reads an FSM may move on: read again so often, and then the storage's own word counts.
_TIMES = 3


def fetched(
    snapshot: Snapshot,
    definition: Definition,
    namespace: str,
    again: Callable[[Sequence[str]], Sequence[Snapshot | None]],
) -> Snapshot:
    """Give a snapshot whose payload lies in a storage, with that payload.

    Args:
        snapshot: As Redis has it.
        definition: Of its machine, as the caller has it.
        namespace: Of the FSM.
        again: Reads FSMs in Redis once more.

    Raises:
        StoreError: The storage cannot be used, or has nothing of it; or the caller's class has no storage.
        UnknownFSMError: It was purged meanwhile.
    """
    found = fetched_many([snapshot], definition, namespace, again).get(snapshot.name)
    if found is None:
        raise UnknownFSMError(snapshot.name, namespace)
    if isinstance(found, StoreError):
        raise found
    return found


def fetched_many(
    snapshots: Iterable[Snapshot],
    definition: Definition,
    namespace: str,
    again: Callable[[Sequence[str]], Sequence[Snapshot | None]],
) -> dict[str, Snapshot | StoreError]:
    """Give snapshots of one machine with their payloads, by name, in the order in which they came.

    A row of the same version has the payload of that snapshot. Where it is of another one, the FSM is moving on: both
    are read again, and where they still differ, state, version, status and payload are those of the row.

    Args:
        snapshots: As Redis has them, at most `MOST_ROWS`; those with their payload in Redis come as they are.
        definition: Of their machine, as the caller has it.
        namespace: Of the FSMs.
        again: Reads FSMs in Redis once more; None for one that is not there.

    Returns:
        Without those that were purged meanwhile; of each that the storage has nothing of, what is to be told.

    Raises:
        StoreError: The storage cannot be used; or the caller's class has no storage.
    """
    found: dict[str, Snapshot | StoreError] = {one.name: one for one in snapshots}
    left = {name: one for name, one in found.items() if not isinstance(one, StoreError) and one.is_stored}
    rows: dict[str, Row] = {}
    for _ in range(_TIMES):
        if not left:
            break
        rows = _loaded(definition, namespace, list(left))
        for name in [name for name, one in left.items() if _is_of(rows.get(name), one)]:
            found[name] = replace(left.pop(name), payload=stored_of(rows[name]).payload)
        for name, one in zip(list(left), again(list(left)) if left else (), strict=True):
            if one is None:
                del found[name], left[name]
            elif one.is_stored:
                left[name] = one
            else:
                del left[name]
                found[name] = one  # a new life of the name, which was not stored yet
    for name, one in left.items():
        found[name] = _by_row(one, rows.get(name), definition)
    return found


def _is_of(row: Row | None, snapshot: Snapshot) -> bool:
    return row is not None and (row.born, row.version) == (snapshot.born, snapshot.version)


def _by_row(snapshot: Snapshot, row: Row | None, definition: Definition) -> Snapshot | StoreError:
    """Take the storage's own word for an FSM of which Redis has another version."""
    if row is None or row.born != snapshot.born:
        problem = f"the storage of machine {definition.name} has nothing of FSM {snapshot.name!r}: was it restored?"
        return StoreError(problem)
    payload = stored_of(row).payload
    return replace(snapshot, state=row.state, version=row.version, status=row.status, payload=payload)


def _loaded(definition: Definition, namespace: str, names: list[str]) -> dict[str, Row]:
    storage = definition.storage
    if storage is None:
        problem = (
            f"the payload of FSM {names[0]!r} lies in a storage, and the class {definition.name} that is given "
            "here has none: say storage = … in it, as its workers do"
        )
        raise StoreError(problem)
    batch: BatchStorage = storage if isinstance(storage, BatchStorage) else Singly(storage)
    try:
        return batch.load_many(namespace, names)
    except StoreError as error:
        problem = f"the storage of machine {definition.name} cannot be used: {error.problem}"
        raise StoreError(problem) from error
