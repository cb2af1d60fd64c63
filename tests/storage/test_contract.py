"""Every storage of ours, held against the contract that users hold theirs against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.client import Client
from fsm.storage.memory import MemoryStorage
from fsm.storage.redis import RedisStorage
from fsm.testing.storage import BatchStorageContract, StorageContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from fsm.storage.sql import SqlStorage


class TestMemoryStorage(BatchStorageContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()


class TestSqlStorageOverSQLite(BatchStorageContract):
    @pytest.fixture
    def storage(self, sqlite_storage: SqlStorage) -> SqlStorage:
        return sqlite_storage

    @pytest.fixture
    def reopened(self, sqlite_file: Path, opened: Callable[..., SqlStorage]) -> SqlStorage:
        return opened(f"sqlite:///{sqlite_file}")


class TestSqlStorageOverPostgreSQL(BatchStorageContract):
    @pytest.fixture
    def storage(self, postgres_storage: SqlStorage) -> SqlStorage:
        return postgres_storage

    @pytest.fixture
    def reopened(
        self, postgres_storage: SqlStorage, postgres_url: str, opened: Callable[..., SqlStorage]
    ) -> SqlStorage:
        return opened(postgres_url, table=postgres_storage.table)


class TestRedisStorageOverARealServer(StorageContract):
    @pytest.fixture
    def storage(self, raw_redis: redis.Redis, redis_url: str) -> Iterator[RedisStorage]:
        with Client(redis_url) as client:
            yield RedisStorage(client)


class TestRedisStorageOverFakeredis(StorageContract):
    @pytest.fixture
    def storage(self) -> Iterator[RedisStorage]:
        with Client("memory://") as client:
            yield RedisStorage(client)
