"""Real workers whose machines have a database: killed between the two, and with the database out of reach."""

from __future__ import annotations

import signal
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, StoreError
from fsm.storage.sql import SqlStorage
from fsm.testing import FaultPoint
from fsm.testing.storage import snapshot
from tests.integration.stored_machines import Diary, Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from fsm.machine import Machine
    from tests.integration.conftest import Processes

APP = "tests.integration.stored_machines"
NOTES = list(range(3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "diaries.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqlStorage]:
    with SqlStorage(f"sqlite:///{file}") as storage:
        storage.init()
        yield storage


@pytest.fixture
def diary(storage: SqlStorage) -> type[Machine[Any]]:
    """The class as this process has it, with the same database."""
    return type("Diary", (Diary,), {"storage": storage, "settings": Diary.settings})


@pytest.fixture
def of_diaries(processes: Processes, storage: SqlStorage) -> Processes:
    processes.environment |= {"FSM_TEST_SQL": storage.url, "FSM_APP": APP}
    return processes


def at_rest(raw_redis: redis.Redis) -> bool:
    return not raw_redis.exists("fsm:default:ready:fsm", "fsm:default:held")


@pytest.mark.parametrize("options", [(), ("--concurrency", "4")], ids=["one", "four"])
def test_a_worker_that_is_killed_between_its_storage_and_redis_loses_nothing_and_nothing_counts_twice(
    of_diaries: Processes,
    client: Client,
    raw_redis: redis.Redis,
    until: Callable[..., Any],
    tmp_path: Path,
    diary: type[Machine[Any]],
    storage: SqlStorage,
    options: tuple[str, ...],
) -> None:
    # Seen to fail with what lies in the row not finished by the worker that claims the FSM next.
    names = [f"diary {number}" for number in range(10)]
    client.start_many(diary, names)
    client.start_fsm(Journal, "echo")
    client.transition_many([(name, "note", number) for number in NOTES for name in names])
    before = dict(of_diaries.environment)
    of_diaries.environment |= FaultPoint("after store", "kill", nth=2, once=tmp_path / "killed").environment()
    first = of_diaries.worker("--lease", "500ms", "--batch", "5", *options, "--app", APP)
    until(lambda: first.poll() is not None, 30)
    of_diaries.environment = before
    # Of a life that is over, as a purge notes it: seen to stay without the worker's look.
    storage.put("gone", snapshot("gone"))
    raw_redis.zadd("fsm:default:drops:Diary", {f"{snapshot('gone').born} gone": 1})

    of_diaries.worker("--lease", "500ms", *options, "--app", APP)
    until(lambda: at_rest(raw_redis), 30)

    assert first.returncode == -signal.SIGKILL
    until(lambda: storage.load("gone") is None, 30)
    until(lambda: not raw_redis.exists("fsm:default:drops:Diary"), 30)
    for name in names:
        found = client.state(name, diary)
        assert (found.payload, found.version, found.tries) == (NOTES, 1 + len(NOTES), 0)
        assert client.state(name).payload is None
        assert client.state(name).is_stored
    assert sorted(client.state("echo", Journal).payload) == sorted(NOTES * len(names))
    with pytest.raises(StoreError, match="has none: say storage ="):
        client.state(names[0], type("Diary", (Diary,), {"storage": None, "settings": Diary.settings}))


def test_while_a_database_cannot_be_used_its_fsms_wait_and_all_others_go_on(
    of_diaries: Processes,
    client: Client,
    raw_redis: redis.Redis,
    until: Callable[..., Any],
    file: Path,
    diary: type[Machine[Any]],
) -> None:
    client.start_fsm(Journal, "echo")
    client.start_fsm(diary, "a")
    of_diaries.worker("--lease", "500ms", "--app", APP)
    until(lambda: client.state("a").is_stored, 30)
    lock = sqlite3.connect(file, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        client.transition("a", "note", 1)
        until(lambda: (client.state("a").error or {}).get("failed") == "storage", 30)
        client.transition("echo", "note", 7)
        until(lambda: client.state("echo", Journal).payload == [7], 30)
        waits = client.state("a")
        assert (waits.status, waits.version, waits.tries) == ("running", 1, 0)
        assert waits.retry_at is not None
    finally:
        lock.close()

    until(lambda: client.state("a").version == 2 and at_rest(raw_redis), 60)

    found = client.state("a", diary)
    assert (found.payload, found.error, found.retry_at) == ([1], None, None)


def test_stock_workers_of_rq_tell_the_storage_first_as_well(
    of_diaries: Processes,
    client: Client,
    raw_redis: redis.Redis,
    until: Callable[..., Any],
    diary: type[Machine[Any]],
    storage: SqlStorage,
) -> None:
    client.start_fsm(Journal, "echo")
    client.start_fsm(diary, "a")
    client.transition("a", "note", 1)
    of_diaries.rq_worker("fsm")

    until(lambda: client.state("echo", Journal).payload == [1], 60)

    found = client.state("a", diary)
    assert (found.payload, found.version, found.is_stored) == ([1], 2, True)

    # What is over is dropped with whatever they do next.
    client.purge("a")
    (noted,) = raw_redis.zrange("fsm:default:drops:Diary", 0, -1)
    raw_redis.zadd("fsm:default:drops:Diary", {noted: 1})  # long ago
    client.start_fsm(diary, "b")
    until(lambda: storage.load("a") is None, 60)
