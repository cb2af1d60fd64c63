"""Storages where no worker of ours runs: stock workers, `memory://`, trials; and what is said of them at a start."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from fsm import App, Client, ConfigError, Machine, MemoryStorage, StoreError, Transition, on
from fsm.storage.sql import SqlStorage
from fsm.testing import trial
from tests.storage.cabinet import Cabinet, Office, book
from workers import breaker, points
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    import fakeredis


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(breaker, "_SHORTEST_S", 0.0)


class Slip(Machine[dict[str, int]]):
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> paid : pay
        paid --> [*]
    """

    @on("note")
    def note(self, t: Transition[dict[str, int]]) -> None:
        t.payload["n"] += 1


def slip(storage: Any) -> type[Machine[Any]]:
    return type("Slip", (Slip,), {"storage": storage})


class Box(Slip):
    """Has no storage."""


# Points


class Recorder:
    """Writes down each point that is passed, and how much both sides have by then."""

    def __init__(self, look: Callable[[], tuple[int, int]]) -> None:
        self.look = look
        self.passed: list[tuple[str, list[str], tuple[int, int]]] = []

    def reach(self, point: str, names: Collection[str]) -> None:
        self.passed.append((point, sorted(names), self.look()))


def test_the_points_of_a_stock_worker_come_in_the_order_in_which_the_two_are_told(
    fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with "after store" before the store, and with "before commit" behind it.
    cabinet = Cabinet()
    office = Office(fake_redis, book(cabinet))
    office.start("a")
    office.settle()
    office.send("a", 1)
    office.send("echo", 7)

    def look() -> tuple[int, int]:
        return cabinet.rows["a"].version, int(office.snapshot("a")[b"version"])

    recorder = Recorder(look)
    monkeypatch.setattr(points, "armed", recorder)
    office.turn()

    both = ["a", "echo"]
    assert recorder.passed == [
        ("after claim", both, (1, 1)),
        ("before handler", ["a"], (1, 1)),
        ("after handler", ["a"], (1, 1)),
        ("before handler", ["echo"], (1, 1)),
        ("after handler", ["echo"], (1, 1)),
        ("before commit", both, (1, 1)),
        # Only of those that have a storage.
        ("after store", ["a"], (2, 1)),
        ("after commit sent", both, (2, 2)),
        ("after commit", both, (2, 2)),
    ]


# memory://


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_world_in_memory_keeps_payloads_in_the_storage_of_the_machine(kind: str, tmp_path: Path) -> None:
    storage: Any = MemoryStorage()
    if kind == "sqlite":
        storage = SqlStorage(f"sqlite:///{tmp_path}/slips.db")
        storage.init()
    machine = slip(storage)
    with Client("memory://") as client:
        client.start_fsm(machine, "a", {"n": 1})
        client.call("a", "note")
        assert storage.get("a").payload == {"n": 2}
        assert (client.state("a").payload, client.state("a", machine).payload) == (None, {"n": 2})
        client.call("a", "pay")
        assert (storage.get("a").status, storage.get("a").version) == ("finished", 3)
        client.purge("a")
        assert storage.load("a") is None
    if kind == "sqlite":
        storage.close()


def test_a_world_in_memory_says_of_which_storage_it_waits(tmp_path: Path) -> None:
    # Seen to fail without `Shelf.trouble`: a hundred tries, and a question.
    with SqlStorage(f"sqlite:///{tmp_path}/slips.db") as storage, Client("memory://") as client:
        machine = slip(storage)
        with pytest.raises(StoreError, match=r"memory://: FSM 'a' waits for its storage: .* `fsm storage init`"):
            client.start_fsm(machine, "a", {"n": 1})
        storage.init()
        assert client.call("a", "note").state == "open"
        assert storage.get("a").payload == {"n": 2}


# Trials


class Sealed:
    """A storage that must not be asked for anything."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)

        def asked(*_: Any, **__: Any) -> Any:
            problem = f"{name} was called"
            raise AssertionError(problem)

        return asked


def test_a_trial_opens_no_storage() -> None:
    order = trial(slip(Sealed()), payload={"n": 1})
    order.send("note")
    order.send("pay")
    assert (order.state, order.payload) == ("paid", {"n": 2})


# Start


@pytest.fixture
def begin(
    fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., list[str]]:
    """Register a worker of these machines, and give the warnings."""
    monkeypatch.setattr("workers.worker.connect", lambda *_, **__: fake_redis)

    def run(*machines: type[Machine[Any]]) -> list[str]:
        worker = TransitionWorker(App(list(machines)), "redis://x", ["fsm"])
        for part in (worker._keeper, worker._relief, worker._rescuer, worker._alarm):
            monkeypatch.setattr(part, "start", lambda: None)
        try:
            with caplog.at_level(logging.WARNING, "fsm.worker"):
                worker.register_birth()
        finally:
            worker._line.close()
            worker._executor.close()
        return [record.getMessage() for record in caplog.records]

    return run


def test_a_worker_says_at_its_start_which_storage_cannot_be_used_and_starts(
    begin: Callable[..., list[str]], tmp_path: Path
) -> None:
    # Seen to fail without the check in `register_birth`.
    storage = SqlStorage(f"sqlite:///{tmp_path}/slips.db")
    one, other = slip(storage), type("Other", (Slip,), {"storage": storage})
    (line,) = begin(one, other, Box)
    assert line.startswith("the storage of Other, Slip cannot be used yet, and their FSMs wait for it: storage sqlite")
    assert line.endswith("run `fsm storage init` once")
    storage.init()
    storage.close()


def test_a_worker_whose_storage_can_be_used_says_nothing(begin: Callable[..., list[str]], tmp_path: Path) -> None:
    with SqlStorage(f"sqlite:///{tmp_path}/slips.db") as storage:
        storage.init()
        assert begin(slip(storage)) == []
    assert begin(slip(Cabinet())) == []  # it has no `check`


def test_a_worker_says_of_payloads_that_nobody_else_has(begin: Callable[..., list[str]]) -> None:
    (line,) = begin(slip(MemoryStorage()))
    assert line.startswith("payloads of Slip lie in the memory of this process")


def test_a_worker_whose_storage_can_never_be_used_does_not_start(begin: Callable[..., list[str]]) -> None:
    cabinet = Cabinet()

    def check() -> None:
        raise ConfigError("SqlStorage", "SQLAlchemy is missing")

    cabinet.check = check  # type: ignore[attr-defined] # as SqlStorage has it
    with pytest.raises(ConfigError, match="SQLAlchemy is missing"):
        begin(slip(cabinet))
