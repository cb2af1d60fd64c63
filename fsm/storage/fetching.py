"""How a snapshot in Redis gets the payload that lies in a storage.

Who calls this: the client, where it is given the class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.machine import Definition
    from fsm.storage.protocol import Storage
    from fsm.store.codec import Snapshot

__all__ = ["fetched"]

# Between the two reads an FSM may move on: read again so often, and then the storage's own word counts.
_TIMES = 3


def fetched(snapshot: Snapshot, definition: Definition, namespace: str, again: Callable[[], Snapshot]) -> Snapshot:
    """Give a snapshot whose payload lies in a storage, with that payload.

    Args:
        snapshot: As Redis has it.
        definition: Of its machine, as the caller has it.
        namespace: Of the FSM.
        again: Reads it in Redis once more.

    Raises:
        StoreError: The storage cannot be used, or has nothing of it; or the caller's class has no storage.
    """
    if definition.storage is None:
        problem = (
            f"the payload of FSM {snapshot.name!r} lies in a storage, and the class {definition.name} that is given "
            "here has none: say storage = … in it, as its workers do"
        )
        raise StoreError(problem)
    storage: Storage = definition.storage.of(namespace)
    stored = None
    for _ in range(_TIMES):
        stored = storage.load(snapshot.name)
        if stored is not None and (stored.born, stored.version) == (snapshot.born, snapshot.version):
            return replace(snapshot, payload=stored.payload)
        snapshot = again()
        if not snapshot.is_stored:
            return snapshot  # a new life of the name, which was not stored yet
    if stored is None or stored.born != snapshot.born:
        problem = f"the storage of machine {definition.name} has nothing of FSM {snapshot.name!r}: was it restored?"
        raise StoreError(problem)
    return replace(snapshot, state=stored.state, version=stored.version, status=stored.status, payload=stored.payload)
