"""How workers use a storage that knows one FSM at a time: one after the other, and slower.

What a row has beside the snapshot (the version before it, and whose claim stored it) lies in `pending`, which a storage
keeps and gives back byte for byte.

As safe, but for one moment: such a storage cannot replace the row of an earlier life by compare-and-set. Who lost the
lock between the look at that row and its removal, while another stored the first version of the present life, removes
what the other stored.

Who calls this: `workers.shelf`, for storages that are no `BatchStorage`. It imports nothing that talks to anybody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from fsm.storage.rows import row_of, stored_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fsm.storage.protocol import Row, Storage, Stored

__all__ = ["Singly"]

# The first byte of what is packed into `pending`: a user's own snapshot has none of it, and nothing to be told.
_FORM = b"\x02"


class Singly:
    """A `BatchStorage` over a `Storage`.

    Args:
        storage: Of any namespace.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        """Give the rows of these FSMs, by name.

        Raises:
            StoreError: The storage cannot be used now.
        """
        storage = self._storage.of(namespace)
        found = {name: storage.load(name) for name in names}
        return {name: _row(stored) for name, stored in found.items() if stored is not None}

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        """Store rows, each by itself: the names of those that were stored.

        Not in one transaction: where one cannot be stored, those before it are, and whoever tries again finds them by
        their token.

        Raises:
            StoreError: The storage cannot be used now.
        """
        storage = self._storage.of(namespace)
        return {row.name for row in sorted(rows, key=lambda row: row.name) if self._store(storage, row)}

    def _store(self, storage: Storage, row: Row) -> bool:
        if row.over is None or row.over == row.born:
            return storage.store(row.name, _stored(row), None if row.over is None else row.base)
        # The life that lies there is over: nobody stores it any more. These are three steps, and no compare-and-set.
        there = storage.load(row.name)
        if there is None or there.born != row.over:
            return False
        storage.delete(row.name)
        return storage.store(row.name, _stored(row), None)

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        """Remove what the storage holds of lives that are over.

        Raises:
            StoreError: The storage cannot be used now.
        """
        storage, count = self._storage.of(namespace), 0
        for name, born in lives.items():
            there = storage.load(name)
            if there is not None and int(there.born) <= int(born):
                count += storage.purge(name)
        return count


def _stored(row: Row) -> Stored:
    return replace(stored_of(row), pending=_FORM + msgspec.msgpack.encode((row.base, row.token, row.pending)))


def _row(stored: Stored) -> Row:
    base, token, pending = stored.version, "", b""
    if stored.pending[:1] == _FORM:
        base, token, pending = msgspec.msgpack.decode(stored.pending[1:], type=tuple[int, str, bytes])
    return replace(row_of(stored.name, stored, base, None), token=token, pending=pending)
