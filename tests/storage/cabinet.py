"""A storage that breaks where a test says so, in memory or a database, and a worker that dies where it says so."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from fsm import Machine, Settings, Transition, on
from fsm.app import App
from fsm.errors import StoreError
from fsm.store import calls, codec
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.executors import InlineExecutor
from workers.serving import Turn, serve
from workers.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import redis

    from fsm.storage.protocol import Row
    from fsm.storage.sql import SqlStorage

__all__ = ["KEYS", "Cabinet", "Killed", "Office", "Vault", "book", "plain_book", "ring"]

KEYS = Keys("default")
_LEASE_MS = 60_000


class Killed(BaseException):
    """The process ends here."""


class Cabinet:
    """Rows in a dict, under the rule that `BatchStorage` says."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.guard = threading.Lock()
        # What goes wrong in the calls that follow, one after the other.
        self.before_store: list[Callable[[], Any]] = []
        self.after_store: list[Callable[[], Any]] = []
        self.before_load: list[Callable[[], Any]] = []
        self.refuses: Callable[[Row], bool] = lambda _: False
        self.is_down = False
        self.calls = 0

    def load(self, name: str) -> Any:
        raise NotImplementedError

    def store(self, name: str, snapshot: Any, expected_version: int | None) -> bool:
        raise NotImplementedError

    def of(self, namespace: str) -> Any:
        raise NotImplementedError

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        assert namespace == "default"
        self.calls += 1
        self._meet(self.before_load)
        with self.guard:
            return {name: self.rows[name] for name in names if name in self.rows}

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        assert namespace == "default"
        self.calls += 1
        self._meet(self.before_store)
        self._refuse(rows)
        stored = set()
        with self.guard:
            for row in rows:
                there = self.rows.get(row.name)
                if (there.born if there else None) != row.over:
                    continue
                if there is not None and there.born == row.born and there.version != row.base:
                    continue
                self.rows[row.name] = replace(row, over=None)
                stored.add(row.name)
        self._meet(self.after_store)
        return stored

    def _refuse(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if self.refuses(row):
                problem = f"no place for {row.payload!r}"
                raise ValueError(problem)

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        assert namespace == "default"
        self._meet([])
        with self.guard:
            over = [name for name, born in lives.items() if name in self.rows and self.rows[name].born <= born]
            for name in over:
                del self.rows[name]
        return len(over)

    def _meet(self, faults: list[Callable[[], Any]]) -> None:
        if self.is_down:
            problem = "the cabinet is locked"
            raise StoreError(problem)
        if faults:
            faults.pop(0)()


class Vault(Cabinet):
    """The same in a database: it breaks as the cabinet does, and what it is asked and told the database is.

    Args:
        storage: The database, empty.
    """

    def __init__(self, storage: SqlStorage) -> None:
        super().__init__()
        self._storage = storage
        self.rows = _Rows(storage)  # type: ignore[assignment] # it is used as one

    def load_many(self, namespace: str, names: Collection[str]) -> dict[str, Row]:
        self.calls += 1
        self._meet(self.before_load)
        return self._storage.load_many(namespace, names)

    def store_many(self, namespace: str, rows: Sequence[Row]) -> set[str]:
        self.calls += 1
        self._meet(self.before_store)
        self._refuse(rows)
        stored = self._storage.store_many(namespace, rows)
        self._meet(self.after_store)
        return stored

    def drop_many(self, namespace: str, lives: Mapping[str, str]) -> int:
        return self._storage.drop_many(namespace, lives)


class _Rows(MutableMapping[str, "Row"]):
    """What lies in a database, as a dict."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage

    def __getitem__(self, name: str) -> Row:
        return self._storage.load_many("default", [name])[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._storage.purge(name)
        assert self._storage.store_many("default", [replace(row, over=None)]) == {name}

    def __delitem__(self, name: str) -> None:
        assert self._storage.purge(name)

    def __iter__(self) -> Iterator[str]:
        return (name for page in self._storage.lives() for name in page)

    def __len__(self) -> int:
        return sum(map(len, self._storage.lives()))


RUNS: list[tuple[str, Any]] = []


def noted(payload: str) -> None:
    """Be the effect of a note."""


class _Book(Machine[list[int]]):
    diagram = """
    stateDiagram-v2
        [*] --> even
        even --> odd : note
        odd --> even : note
        even --> shut : shut
        odd --> shut : shut
        shut --> [*]
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        RUNS.append((t.name, number))
        t.payload.append(number)
        t.send("echo", "note", number)


def book(storage: Any, **settings: Any) -> type[Machine[Any]]:
    """Make a machine that notes numbers in a storage, and sends each to the FSM `echo`."""
    return type("Book", (_Book,), {"storage": storage, "settings": Settings(**settings)})


def plain_book(**settings: Any) -> type[Machine[Any]]:
    """Make the same machine without a storage."""
    return type("Book", (_Book,), {"settings": Settings(**settings)})


class Echo(Machine[list[int]]):
    """Hears what books note."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> here
        here --> here : note
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        t.payload.append(number)


class Office:
    """One Redis, and workers that take turns at it.

    Args:
        client: The Redis.
        machine: Which the workers know beside `Echo`.
    """

    def __init__(self, client: redis.Redis, machine: type[Machine[Any]]) -> None:
        self.client = client
        self.machine = machine
        self.number = 0
        self.shelves: dict[str, Shelf] = {}
        self.ids: dict[tuple[str, int], str] = {}
        RUNS.clear()
        self.start("echo", machine=Echo)
        self.settle()

    @property
    def behaviours(self) -> Mapping[str, Any]:
        return App([self.machine, Echo]).behaviours

    def start(self, *names: str, machine: type[Machine[Any]] | None = None) -> None:
        births = [calls.Birth(name, codec.new_ids(1)[0], b"[]") for name in names]
        words = run(self.client, calls.start(KEYS, (machine or self.machine).definition, births))
        assert words == ["CREATED"] * len(names)

    def send(self, name: str, *numbers: int, event: str = "note") -> None:
        ids = codec.new_ids(len(numbers))
        self.ids |= {(name, number): job_id for number, job_id in zip(numbers, ids, strict=True)}
        letters = [calls.Letter(name, i, event, str(n).encode()) for i, n in zip(ids, numbers, strict=True)]
        assert run(self.client, calls.send(KEYS, letters))

    def turn(self, worker: str = "w", *, name: str = "", fsms: int = 100) -> int:
        """Have a worker claim once, run and commit."""
        behaviours = self.behaviours
        made = Shelf(KEYS, lambda: behaviours, InlineExecutor(timed=False), lambda request: run(self.client, request))
        shelf = self.shelves.setdefault(worker, made)
        self.number += 2
        turn = Turn(
            self.client, behaviours, KEYS, worker, "fsm", self.number, _LEASE_MS, name=name, fsms=fsms, shelf=shelf
        )
        served = serve(turn, InlineExecutor(timed=False))
        return served.written + served.lost

    def settle(self) -> None:
        """Take turns until nothing is ready."""
        for _ in range(50):
            if not self.turn():
                return
        problem = "it does not come to rest"
        raise AssertionError(problem)

    def bury(self, worker: str = "w") -> None:
        """Find a worker dead: what it held is ready again."""
        self.shelves.pop(worker, None)
        run(self.client, calls.recover(KEYS, [worker]))

    def retry_now(self) -> None:
        """Let the time pass that is waited for."""
        run(self.client, calls.due(KEYS, ahead_ms=1 << 40, kind="retry"))

    def snapshot(self, name: str) -> dict[bytes, bytes]:
        found: Any = self.client.hgetall(KEYS.snapshot(name))
        return dict(found)

    def heard(self) -> list[int]:
        """What `echo` has heard."""
        found: list[int] = orjson.loads(self.snapshot("echo")[b"payload"])
        return found

    def waiting(self, name: str) -> list[bytes]:
        found: Any = self.client.lrange(KEYS.mailbox(name), 0, -1)
        return list(found)


def ring(office: Office, name: str) -> None:
    """Make an FSM ready whose lock is gone, as `recover` does."""
    office.client.zadd(KEYS.held, {name: 0})
    run(office.client, calls.recover(KEYS))
