"""Payloads that load and store themselves, in the transaction of their FSM's row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from fsm import Machine, Owner, Persistable, RetryPolicy, Settings, Transition, ValidationError, on
from fsm.errors import ConfigError, PayloadError, StoreError
from fsm.storage.sql import SqlStorage
from fsm.store import calls, codec
from fsm.store.requests import run
from fsm.testing.storage import row, snapshot
from tests.storage.cabinet import KEYS, Killed, Office
from workers import breaker, shelf
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import fakeredis

TABLES = sa.MetaData()
PURSES = sa.Table(
    "purses",
    TABLES,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("coins", sa.Integer, sa.CheckConstraint("coins >= 0"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)
# What `save` does beside its work, in the calls that follow, one after the other.
TRICKS: list[Callable[[sa.Connection], Any]] = []
SAVED: list[tuple[str, str, int, int]] = []


def _is(owner: Owner) -> Any:
    return sa.and_(PURSES.c.namespace == owner.namespace, PURSES.c.name == owner.name)


@dataclass
class Purse:
    """Coins, which lie in a table of our own."""

    coins: int = 0

    @classmethod
    def fetch(cls, connection: sa.Connection, owner: Owner) -> Purse | None:
        coins = connection.execute(sa.select(PURSES.c.coins).where(_is(owner)).with_for_update()).scalar()
        return None if coins is None else cls(coins)

    def save(self, connection: sa.Connection, owner: Owner) -> None:
        SAVED.append((owner.name, owner.state, owner.version, self.coins))
        values = {"coins": self.coins, "state": owner.state, "version": owner.version}
        if not connection.execute(sa.update(PURSES).where(_is(owner)).values(values)).rowcount:
            connection.execute(sa.insert(PURSES).values(**values, namespace=owner.namespace, name=owner.name))
        if TRICKS:
            TRICKS.pop(0)(connection)

    @classmethod
    def discard(cls, connection: sa.Connection, owner: Owner) -> None:
        connection.execute(sa.delete(PURSES).where(_is(owner)))


class _Purses(Machine[Purse]):
    settings = Settings(name="Book", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : put
        open --> shut : shut
        shut --> shut : put
    """

    before: ClassVar[list[Callable[[], Any]]] = []
    runs: ClassVar[list[tuple[str, int]]] = []

    @on("put")
    def put(self, t: Transition[Purse], coins: int) -> None:
        self.runs.append((t.name, coins))
        t.payload.coins += coins
        if self.before:
            self.before.pop(0)()
        t.send("echo", "note", coins)


class Purses:
    """Workers, their database, and our own table in it."""

    def __init__(self, client: fakeredis.FakeRedis, storage: SqlStorage, **settings: Any) -> None:
        self.storage = storage
        self.engine = storage._database.engines.engine
        named = Settings(name="Book", endless=True, **settings)
        machine = type("Book", (_Purses,), {"storage": storage, "settings": named})
        self.office = Office(client, machine)

    def start(self, *names: str) -> None:
        births = [calls.Birth(name, codec.new_ids(1)[0], b'{"coins":1}') for name in names]
        run(self.office.client, calls.start(KEYS, self.office.machine.definition, births))
        self.office.settle()

    def put(self, name: str, *coins: int) -> None:
        self.office.send(name, *coins, event="put")

    def edit(self, name: str, coins: int) -> None:
        """As somebody does who knows nothing of FSMs."""
        with self.engine.begin() as connection:
            connection.execute(sa.update(PURSES).where(PURSES.c.name == name).values(coins=coins))

    def rows(self) -> dict[str, tuple[int, str, int]]:
        """What our own table has."""
        with self.engine.connect() as connection:
            return {one.name: (one.coins, one.state, one.version) for one in connection.execute(sa.select(PURSES))}

    def copy(self, name: str) -> tuple[Any, int]:
        """What the table of snapshots has."""
        rows = self.storage._database.rows
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(rows).where(rows.c.name == name)).one()
        return orjson.loads(found.payload)["coins"], found.version

    def error(self, name: str) -> dict[str, Any]:
        return dict(orjson.loads(self.office.snapshot(name)[b"error"]))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(breaker, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(breaker, "_SHORTEST_S", 0.0)
    yield
    for one in (TRICKS, SAVED, _Purses.before, _Purses.runs):
        one.clear()


@pytest.fixture
def storage(sql_storage: SqlStorage, request: pytest.FixtureRequest) -> Iterator[SqlStorage]:
    """Over both databases, with our own table beside."""
    is_file = sql_storage.url.startswith("sqlite")
    url = sql_storage.url if is_file else request.getfixturevalue("postgres_url")
    with SqlStorage(url, table=sql_storage.table, timeout="30s", persist=Purse) as storage:
        engine = storage._database.engines.engine
        TABLES.create_all(engine)
        yield storage
        TABLES.drop_all(engine)


@pytest.fixture
def purses(fake_redis: fakeredis.FakeRedis, storage: SqlStorage) -> Purses:
    return Purses(fake_redis, storage)


def test_each_step_is_in_both_tables_or_in_none(purses: Purses) -> None:
    # Seen to fail without the call of `save`.
    purses.start("a", "b")
    purses.put("a", 5, 7)
    purses.office.settle()

    assert purses.rows() == {"a": (13, "open", 3), "b": (1, "open", 1)}
    assert (purses.copy("a"), purses.copy("b")) == ((13, 3), (1, 1))
    assert purses.office.heard() == [5, 7]

    purses.office.send("a", 0, event="shut")
    purses.office.settle()

    assert purses.rows()["a"] == (13, "shut", 4)


def test_killed_between_the_two_databases_a_step_is_saved_once(purses: Purses, monkeypatch: pytest.MonkeyPatch) -> None:
    purses.start("a")
    purses.put("a", 5)
    store = SqlStorage.store_many

    def killed(self: SqlStorage, namespace: str, rows: Any) -> set[str]:
        store(self, namespace, rows)
        raise Killed

    monkeypatch.setattr(SqlStorage, "store_many", killed)
    with pytest.raises(Killed):
        purses.office.turn("w1")
    monkeypatch.setattr(SqlStorage, "store_many", store)
    assert (purses.rows()["a"], purses.office.snapshot("a")[b"version"]) == ((6, "open", 2), b"1")

    purses.office.bury("w1")
    purses.office.settle()

    assert purses.rows()["a"] == (6, "open", 2)
    assert _Purses.runs == [("a", 5)]
    assert purses.office.snapshot("a")[b"version"] == b"2"
    assert purses.office.heard() == [5]


def test_killed_before_its_transaction_ends_nothing_of_a_step_is_in_either_table(purses: Purses) -> None:
    purses.start("a")
    purses.put("a", 5)

    def die(_: sa.Connection) -> None:
        raise Killed

    TRICKS.append(die)
    with pytest.raises(Killed):
        purses.office.turn("w1")
    assert (purses.rows()["a"], purses.copy("a")) == ((1, "open", 1), (1, 1))

    purses.office.bury("w1")
    purses.office.settle()

    assert (purses.rows()["a"], purses.copy("a")) == ((6, "open", 2), (6, 2))
    assert purses.office.heard() == [5]


def test_what_was_changed_by_hand_counts_from_the_next_event_on_and_is_seen_at_once(purses: Purses) -> None:
    # Seen to fail with the copy in the place of what `fetch` gives.
    purses.start("a")
    purses.edit("a", 100)

    assert purses.storage.get("a").payload == {"coins": 100}
    assert purses.storage.query(machine="Book").snapshots[0].payload == {"coins": 100}
    assert purses.copy("a") == (1, 1)

    purses.put("a", 5)
    purses.office.settle()

    assert (purses.rows()["a"], purses.copy("a")) == ((105, "open", 2), (105, 2))


def test_an_event_that_is_refused_takes_an_edit_over_and_loses_nothing_of_it(purses: Purses) -> None:
    purses.start("a")
    purses.edit("a", 100)
    purses.office.send("a", 0, event="nonsense")
    purses.office.settle()

    assert (purses.rows()["a"], purses.copy("a")) == ((100, "open", 2), (100, 2))


def test_an_edit_while_an_event_is_run_is_not_overwritten_and_the_event_is_run_on_it(purses: Purses) -> None:
    # Seen to fail without the second `fetch`: 100 coins were gone.
    purses.start("a", "b")
    purses.put("a", 5)
    purses.put("b", 3)
    _Purses.before.append(lambda: purses.edit("a", 100))
    purses.office.turn()

    assert purses.rows() == {"a": (100, "open", 1), "b": (4, "open", 2)}
    assert purses.office.heard() == []
    assert purses.error("a")["type"] == "Conflict"
    assert b"tries" not in purses.office.snapshot("a")

    purses.office.retry_now()
    purses.office.settle()

    assert _Purses.runs == [("a", 5), ("b", 3), ("a", 5)]
    assert (purses.rows()["a"], purses.copy("a")) == ((105, "open", 2), (105, 2))
    assert sorted(purses.office.heard()) == [3, 5]
    assert b"error" not in purses.office.snapshot("a")


def test_a_row_that_was_deleted_by_hand_comes_back_from_the_copy(purses: Purses) -> None:
    purses.start("a")
    with purses.engine.begin() as connection:
        connection.execute(sa.delete(PURSES))
    purses.put("a", 5)
    purses.office.settle()

    assert purses.rows()["a"] == (6, "open", 2)


def test_a_constraint_that_is_violated_is_the_failure_of_its_event_and_its_neighbours_stand(purses: Purses) -> None:
    names = [f"p{number}" for number in range(7)]
    purses.start(*names)
    for name in names:
        purses.put(name, 1, -100 if name == "p3" else 2, 3)
    purses.office.settle()

    assert {name: coins for name, (coins, _, _) in purses.rows().items()} == {
        name: 5 if name == "p3" else 7 for name in names
    }
    record = purses.office.client.hgetall(f"rq:job:{purses.office.ids['p3', -100]}")
    assert record[b"status"] == b"failed"
    said = record[b"exc_info"].decode()
    assert "Purse.save of FSM 'p3'" in said
    assert "coins" in said
    assert sorted(purses.office.heard()) == sorted([1, 2, 3] * 6 + [1, 3])


def test_what_save_raises_is_retried_as_what_a_handler_raises(
    fake_redis: fakeredis.FakeRedis, storage: SqlStorage
) -> None:
    # Seen to fail with the refusal of a storage taken for what no repetition can mend.
    purses = Purses(fake_redis, storage, retry=RetryPolicy(attempts=3, delay="1s", on=(ArithmeticError,)))
    purses.start("a")
    purses.put("a", 5)

    def balk(_: sa.Connection) -> None:
        problem = "the till is being counted"
        raise ArithmeticError(problem)

    # One at the first attempt; the note of that is saved; the second one again.
    TRICKS.extend([balk, lambda _: None, balk])
    purses.office.settle()
    error = purses.error("a")
    assert (error["type"], error["message"]) == ("ArithmeticError", "the till is being counted")
    assert purses.rows()["a"][0] == 1
    for _ in range(2):
        purses.office.retry_now()
        purses.office.settle()

    assert purses.rows()["a"][0] == 6
    assert _Purses.runs == [("a", 5)] * 3
    assert purses.office.heard() == [5]
    assert b"error" not in purses.office.snapshot("a")


def test_attempts_come_to_an_end(fake_redis: fakeredis.FakeRedis, storage: SqlStorage) -> None:
    purses = Purses(fake_redis, storage, retry=RetryPolicy(attempts=2, delay="1s"))
    purses.start("a")
    purses.put("a", -5, 3)
    purses.office.settle()
    assert purses.rows()["a"][0] == 1
    assert len(purses.office.waiting("a")) == 2
    purses.office.retry_now()
    purses.office.settle()

    assert purses.rows()["a"][0] == 4
    assert purses.office.client.hget(f"rq:job:{purses.office.ids['a', -5]}", "status") == b"failed"


def test_a_store_error_of_save_puts_its_fsm_off_alone_and_uses_up_no_attempt(purses: Purses) -> None:
    purses.start("a", "b")
    purses.put("a", 5)
    purses.put("b", 5)

    def away(_: sa.Connection) -> None:
        problem = "the vault is away"
        raise StoreError(problem)

    TRICKS.append(away)
    purses.office.turn()
    assert purses.error("a")["message"] == "the vault is away"
    assert purses.rows() == {"a": (1, "open", 1), "b": (6, "open", 2)}
    assert b"tries" not in purses.office.snapshot("a")

    purses.office.retry_now()
    purses.office.settle()

    assert purses.rows()["a"] == (6, "open", 2)


@pytest.fixture
def hasty(
    fake_redis: fakeredis.FakeRedis, postgres_storage: SqlStorage, postgres_url: str
) -> Iterator[tuple[Purses, sa.Engine]]:
    """Purses in PostgreSQL that wait for nobody, and the way of somebody else to them."""
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    elsewhere = sa.create_engine(url, poolclass=sa.NullPool)
    with SqlStorage(postgres_url, table=postgres_storage.table, timeout="500ms", persist=Purse) as storage:
        TABLES.create_all(elsewhere)
        yield Purses(fake_redis, storage), elsewhere
        TABLES.drop_all(elsewhere)


def test_a_row_that_somebody_holds_stops_its_own_fsm_only(
    hasty: tuple[Purses, sa.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with what is told of a lock taken for a database that is down: all of them waited.
    def plainly(_cls: type[Purse], connection: sa.Connection, owner: Owner) -> Purse:
        return Purse(connection.execute(sa.select(PURSES.c.coins).where(_is(owner))).scalar_one())

    # It does not wait for what is locked: `save` does.
    monkeypatch.setattr(Purse, "fetch", classmethod(plainly))
    purses, elsewhere = hasty
    purses.start(*"abcd")
    with elsewhere.connect() as somebody:
        somebody.execute(sa.update(PURSES).where(PURSES.c.name == "b").values(coins=50))
        for name in "abcd":
            purses.put(name, 5)
        purses.office.settle()
        assert purses.rows() == {name: (1, "open", 1) if name == "b" else (6, "open", 2) for name in "abcd"}
        assert "statement timeout" in purses.error("b")["message"]
        somebody.commit()

    purses.office.retry_now()
    purses.office.settle()

    assert purses.rows()["b"] == (55, "open", 2)


def test_rows_that_somebody_holds_are_not_waited_for_one_after_the_other(
    hasty: tuple[Purses, sa.Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with what is told of a lock taken for a database that is down; and without a bound for how many.
    purses, elsewhere = hasty
    names = "abcdef"
    purses.start(*names)
    for name in names:
        purses.put(name, 5)
    request = calls.claim(KEYS, "w9", "fsm", "token", 1, lease_ms=60_000, fsms=100)
    claims = run(purses.office.client, request)
    behaviours = purses.office.behaviours
    client = purses.office.client
    looks = shelf.Shelf(KEYS, lambda: behaviours, InlineExecutor(timed=False), lambda request: run(client, request))

    def waiting(held: Any) -> list[str]:
        with elsewhere.connect() as somebody:
            somebody.execute(sa.update(PURSES).where(PURSES.c.name.in_(list(held))).values(coins=50))
            return sorted(fsm.name for fsm in looks.lend(claims).held if fsm.ready is not None)

    assert waiting("bd") == ["b", "d"]
    asked: list[str] = []
    plain = Purse.fetch.__func__  # type: ignore[attr-defined] # of a class method

    def counted(cls: type[Purse], connection: sa.Connection, owner: Owner) -> Any:
        asked.append(owner.name)
        return plain(cls, connection, owner)

    monkeypatch.setattr(Purse, "fetch", classmethod(counted))
    assert waiting(names) == list(names)
    assert len(asked) == 3


def test_without_its_table_an_fsm_waits_and_is_told_which_one_is_missing(purses: Purses) -> None:
    purses.start("a")
    purses.put("a", 5)
    TABLES.drop_all(purses.engine)
    purses.office.settle()

    said = purses.error("a")["message"]
    assert "Purse.fetch" in said
    assert "purses" in said
    assert "fsm storage init" not in said
    with pytest.raises(StoreError, match=r"Purse\.fetch: .*purses"):
        purses.storage.check()

    TABLES.create_all(purses.engine)
    purses.storage.check()
    purses.office.retry_now()
    purses.office.settle()

    assert purses.rows()["a"] == (6, "open", 2)


def test_what_fetch_cannot_read_stops_its_own_fsm_only(purses: Purses, monkeypatch: pytest.MonkeyPatch) -> None:
    purses.start("a", "b")
    purses.put("a", 5)
    purses.put("b", 5)
    plain = Purse.fetch.__func__  # type: ignore[attr-defined] # of a class method

    def choosy(cls: type[Purse], connection: sa.Connection, owner: Owner) -> Any:
        return plain(cls, connection, owner) if owner.name != "a" else {"coins": 1}

    monkeypatch.setattr(Purse, "fetch", classmethod(choosy))
    purses.office.settle()

    assert purses.rows()["b"][0] == 6
    assert purses.error("a")["message"].startswith("Purse.fetch of FSM 'a': it gave a dict")

    def broken(cls: type[Purse], connection: sa.Connection, owner: Owner) -> Any:
        return {}["no such coin"]

    monkeypatch.setattr(Purse, "fetch", classmethod(broken))
    with pytest.raises(PayloadError, match=r"Purse\.fetch of FSM 'a': it failed: KeyError: 'no such coin'"):
        purses.storage.load("a")


def _swallowed(connection: sa.Connection) -> None:
    with suppress(sa.exc.DBAPIError):
        connection.execute(sa.text("SELECT nonsense FROM nowhere"))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("ROLLBACK")  # as an error does of a kind that ends the transaction there


@pytest.mark.parametrize(
    "end", [sa.Connection.commit, sa.Connection.rollback, _swallowed], ids=["commit", "rollback", "swallowed"]
)
def test_a_transaction_that_save_ends_or_breaks_counts_for_nothing(purses: Purses, end: Any) -> None:
    # Seen to fail without the look at the transaction: over PostgreSQL its COMMIT was a ROLLBACK in silence, and Redis
    # was told of a version that was nowhere. And with a commit that is let through.
    purses.start("a", "b", "c")
    for name in ("a", "b", "c"):
        purses.put(name, 5)
    # Of all three, of "a" and of "b" and "c".
    TRICKS.extend([lambda _: None, end])
    purses.office.settle()
    assert purses.rows() == dict.fromkeys("abc", (6, "open", 2))
    assert [purses.copy(name) for name in "abc"] == [(6, 2)] * 3

    purses.put("a", 7, 8)
    # The two together, the first one alone, and not the note that it has failed.
    TRICKS.extend([end, end])
    purses.office.settle()
    assert (purses.rows()["a"], purses.copy("a")) == ((14, "open", 4), (14, 4))
    assert purses.office.heard() == [5, 5, 5, 8]
    record = purses.office.client.hgetall(f"rq:job:{purses.office.ids['a', 7]}")
    assert b"transaction" in record[b"exc_info"]


def test_the_orm_over_the_connection_commits_nothing_by_itself(purses: Purses) -> None:
    purses.start("a")
    purses.put("a", 5)

    def orm(connection: sa.Connection) -> None:
        with Session(connection) as over:
            over.execute(sa.update(PURSES).values(coins=77))
            over.commit()
        raise ArithmeticError

    TRICKS.append(orm)
    purses.office.settle()

    assert purses.rows()["a"][0] == 1


def test_by_hand_as_well_both_are_written_and_removed(storage: SqlStorage) -> None:
    first = snapshot("a", payload={"coins": 3}, version=0)
    assert storage.store("a", first, None)
    storage.put("a", snapshot("a", payload={"coins": 4}, version=1))
    assert SAVED == [("a", "cart", 0, 3), ("a", "cart", 1, 4)]
    assert storage.get("a").payload == {"coins": 4}
    with pytest.raises(PayloadError):
        storage.put("a", snapshot("a", payload={"gems": 4}, version=2))
    with pytest.raises(PayloadError, match=r"Purse\.save of FSM 'a'"):
        storage.put("a", snapshot("a", payload={"coins": -4}, version=2))
    assert storage.get("a").version == 1

    engine = storage._database.engines.engine
    assert storage.delete("a")
    storage.store_many("shop", [row("a", payload=b'{"coins":9}', born="1000")])
    storage.store_many("default", [row("a", payload=b'{"coins":8}', born="1000")])
    assert storage.drop_many("default", {"a": "999"}) == 0
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(PURSES)).scalar() == 2
    assert storage.drop_many("default", {"a": "1000"}) == 1
    with engine.connect() as connection:
        assert connection.execute(sa.select(PURSES.c.namespace, PURSES.c.coins)).all() == [("shop", 9)]


def test_a_row_that_has_to_stay_does_not_keep_those_of_others(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with all of them discarded at once, or none: a purged FSM whose row another table speaks of kept the
    # rows of all others for ever.
    plain = Purse.discard.__func__  # type: ignore[attr-defined] # of a class method

    def choosy(cls: type[Purse], connection: sa.Connection, owner: Owner) -> None:
        plain(cls, connection, owner)
        if owner.name == "b":
            connection.execute(sa.insert(PURSES).values(namespace="", name="b", coins=-1, state="", version=0))

    monkeypatch.setattr(Purse, "discard", classmethod(choosy))
    storage.store_many("default", [row(name, payload=b'{"coins":8}') for name in "abc"])

    assert storage.drop_many("default", dict.fromkeys("abc", "1000")) == 2
    assert list(storage.load_many("default", "abc")) == ["b"]
    assert storage.get("b").payload == {"coins": 8}
    with storage._database.engines.engine.connect() as connection:
        assert connection.execute(sa.select(PURSES.c.name)).scalars().all() == ["b"]
    with pytest.raises(PayloadError, match=r"Purse\.discard of FSM 'b'"):
        storage.delete("b")


def test_a_row_whose_seen_payload_is_not_there_any_more_is_left_out(storage: SqlStorage) -> None:
    storage.store_many("default", [row("a", payload=b'{"coins":1}'), row("b", payload=b'{"coins":1}')])
    changes = {"version": 2, "payload": b'{"coins":2}'}

    stored = storage.store_many(
        "default", [row("a", **changes, seen=b'{"coins":7}'), row("b", **changes, seen=b'{"coins":1}')]
    )

    assert stored == {"b"}


class _NoFetch:
    def save(self, connection: Any, owner: Owner) -> None: ...


class _NoSave:
    @classmethod
    def fetch(cls, connection: Any, owner: Owner) -> Any: ...


class _PlainFetch(_NoFetch):
    def fetch(self, connection: Any, owner: Owner) -> Any: ...


class _SaveOfClass(_NoSave):
    @classmethod
    def save(cls, connection: Any, owner: Owner) -> None: ...


class _AsyncSave(_NoSave):
    async def save(self, connection: Any, owner: Owner) -> None: ...


class _PlainDiscard(Purse):
    def discard(self, connection: Any, owner: Owner) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Purse(), "is no class"),
        (_NoFetch, "has no method fetch(cls, connection, owner)"),
        (_NoSave, "has no method save(self, connection, owner)"),
        (_PlainFetch, "fetch of _PlainFetch has to be a class method"),
        (_SaveOfClass, "save of _SaveOfClass has to be no class method"),
        (_AsyncSave, "save of _AsyncSave is async"),
        (_PlainDiscard, "discard of _PlainDiscard has to be a class method"),
    ],
    ids=str,
)
def test_a_class_that_cannot_be_meant_is_refused_at_once(given: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        SqlStorage("sqlite:///x.db", persist=given)
    assert said in str(raised.value)


class _Other(Machine[dict[str, int]]):
    diagram = """
    stateDiagram-v2
        [*] --> a
        a --> [*] : go
    """


def test_a_machine_with_another_payload_is_refused_and_told_both() -> None:
    storage = SqlStorage("sqlite:///x.db", persist=Purse)
    assert storage.of("shop").persist is Purse
    assert isinstance(Purse(), Persistable)
    with pytest.raises(ValidationError, match=r"persist=Purse, and its payload is of type dict.*Machine\[Purse\]"):
        type("Other", (_Other,), {"storage": storage})
