"""Every storage of ours, held against the contract that users hold theirs against."""

from __future__ import annotations

import pytest

from fsm.storage.memory import MemoryStorage
from fsm.testing.storage import BatchStorageContract


class TestMemoryStorage(BatchStorageContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()
