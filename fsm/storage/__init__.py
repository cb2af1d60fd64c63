"""Storages: where snapshots may lie beside Redis, which keeps mail, order, locks and timers in any case.

Reading order: `protocol` (what a storage is, for users and for workers), `memory` (all of it, plainly), `rows` (how a
snapshot becomes what is stored), `asking` (what a query may ask for), `sql`,
`database`, `batches`, `engines`, `bounded` and `tables` (SQLite and PostgreSQL), `persistable` and
`persisting` (payloads that keep a row of the user's own in step), `redis`.

Who calls this: applications give a machine its storage; the client reads by it; workers load and store by it.
"""

from fsm.storage.memory import MemoryStorage
from fsm.storage.persistable import Owner, Persistable
from fsm.storage.protocol import BatchStorage, Row, Storage, Stored, StoredPage
from fsm.storage.redis import RedisStorage
from fsm.storage.sql import SqlStorage

__all__ = [
    "BatchStorage",
    "MemoryStorage",
    "Owner",
    "Persistable",
    "RedisStorage",
    "Row",
    "SqlStorage",
    "Storage",
    "Stored",
    "StoredPage",
]
