"""What a database brings with it that no other storage has: connections, locks, tables, indexes."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from fsm.errors import ConfigError, PayloadError, StoreError
from fsm.storage.asking import Mark, Question, read_filters
from fsm.storage.sql import SqlStorage
from fsm.testing.storage import row, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.conftest import Postgres

ROOT = Path(__file__).resolve().parents[2]


def another(storage: SqlStorage, request: pytest.FixtureRequest, **options: Any) -> SqlStorage:
    """The same storage, as another process has it."""
    opened: Callable[..., SqlStorage] = request.getfixturevalue("opened")
    if storage.url.startswith("sqlite"):
        return opened(storage.url, table=storage.table, **options)
    return opened(request.getfixturevalue("postgres_url"), table=storage.table, **options)


def hold(storage: SqlStorage, name: str) -> sa.Connection:
    """Begin to write a row, and do not come to an end."""
    database = storage._database
    connection = database.engines.engine.connect().execution_options(fsm_writes=True)
    connection.execute(database.rows.update().where(database.rows.c.name == name).values(state="held"))
    return connection


def test_making_one_opens_nothing_and_imports_no_sqlalchemy() -> None:
    program = """
import sys, fsm
storage = fsm.SqlStorage("postgresql://nobody@nowhere.invalid/none").of("shop")
assert "sqlalchemy" not in sys.modules and "psycopg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ("mysql://ann:secret@host/db", {}, "mysql://ann:***@host/db"),
        ("redis://", {}, "no database that is supported"),
        (7, {}, "no database that is supported"),
        ("sqlite:///x.db", {"table": "Robert'); --"}, "a-z 0-9 _"),
        ("sqlite:///x.db", {"timeout": "soon"}, "no length of time"),
        ("sqlite:///x.db", {"timeout": "1ms"}, "at least 100 ms"),
        ("sqlite:///x.db", {"pool": 0}, "from 1 to"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_at_once(arguments: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        SqlStorage(arguments, **options)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused_for_each_connection_would_have_its_own(url: str) -> None:
    with SqlStorage(url) as storage, pytest.raises(ConfigError, match="MemoryStorage"):
        storage.load("a")


def test_a_database_that_is_not_there_is_told_without_its_password() -> None:
    with SqlStorage("postgresql://ann:sec%40ret@127.0.0.1:1/db?sslpassword=hidden") as storage:
        assert "***" in repr(storage)
        with pytest.raises(StoreError) as raised:
            storage.load("a")
    for text in (repr(storage), str(raised.value), repr(raised.value), str(raised.value.__cause__)):
        assert not any(password in text for password in ("sec%40ret", "sec@ret", "hidden"))


def test_without_tables_it_says_what_to_do(
    tmp_path: Path, postgres_url: str, opened: Callable[..., SqlStorage]
) -> None:
    for storage in (opened(f"sqlite:///{tmp_path}/none.db"), opened(postgres_url, table="missing")):
        for call in (storage.check, lambda one=storage: one.load("a"), lambda one=storage: one.put("a", snapshot())):
            with pytest.raises(StoreError, match="run `fsm storage init` once"):
                call()


def test_a_file_that_is_no_database_is_told(tmp_path: Path, opened: Callable[..., SqlStorage]) -> None:
    (tmp_path / "text.db").write_text("this is no database " * 100, encoding="utf-8")

    with pytest.raises(StoreError, match="not a database"):
        opened(f"sqlite:///{tmp_path}/text.db").init()
    with pytest.raises(StoreError, match="unable to open"):
        opened(f"sqlite:///{tmp_path}/no/folder.db").init()


def test_several_create_the_tables_at_once(
    tmp_path: Path, postgres_url: str, opened: Callable[..., SqlStorage]
) -> None:
    # Seen to fail without pg_advisory_xact_lock: PostgreSQL said that a type exists already.
    table = f"t_{secrets.token_hex(6)}"
    for url in (f"sqlite:///{tmp_path}/new.db", postgres_url):
        storages = [opened(url, table=table, timeout="30s") for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            created = list(pool.map(SqlStorage.init, storages))
        assert any(created)
        assert storages[0].init() is False
        storages[0].check()
    with storages[0]._database.engines.engine.begin() as connection:
        storages[0]._database.rows.drop(connection)


def test_a_copy_of_a_file_has_its_log_again_after_init(
    sqlite_storage: SqlStorage, tmp_path: Path, opened: Callable[..., SqlStorage]
) -> None:
    # Seen to fail with the log asked for only where tables are created: VACUUM INTO writes a file without one.
    with sqlite_storage._database.engines.engine.connect() as connection:
        connection.connection.cursor().execute(f"VACUUM INTO '{tmp_path}/copy.db'")
    copy = opened(f"sqlite:///{tmp_path}/copy.db")
    assert copy.init() is False
    with copy._database.engines.engine.connect() as connection:
        assert connection.connection.cursor().execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.connection.cursor().execute("PRAGMA synchronous").fetchone() == (2,)


def test_tables_of_another_version_of_ours_are_left_alone(
    sql_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    database = sql_storage._database

    def change(form: int) -> None:
        with database.engines.engine.begin() as connection:
            connection.execute(
                database.forms.update().where(database.forms.c.table_name == sql_storage.table).values(form=form)
            )

    change(99)
    try:
        for call in (sql_storage.check, another(sql_storage, request).init):
            with pytest.raises(StoreError, match="form 99"):
                call()
    finally:
        change(1)


def test_a_child_that_was_forked_has_connections_of_its_own(sql_storage: SqlStorage) -> None:
    sql_storage.store("a", snapshot(version=0), None)

    def work() -> None:
        stored = [sql_storage.store("a", snapshot(version=n + 1), n) for n in range(5)]
        os._exit(0 if all(stored) else 1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    deadline = time.monotonic() + 60
    while child.is_alive() and time.monotonic() < deadline:
        sql_storage.load("a")
        child.join(0.01)
    assert child.exitcode == 0
    assert sql_storage.get("a").version == 5


def test_who_waits_for_a_row_too_long_is_told_and_can_go_on_later(
    sql_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    sql_storage.store("a", snapshot(), None)
    hasty = another(sql_storage, request, timeout="200ms")
    holding = hold(sql_storage, "a")

    with pytest.raises(StoreError, match=r"locked|timeout"):
        hasty.store("a", snapshot(version=2), 1)
    holding.rollback()
    holding.close()
    assert sql_storage.get("a") == snapshot()
    assert another(sql_storage, request, timeout="30s").store("a", snapshot(version=2), 1) is True


def test_who_stopped_with_a_row_in_hand_does_not_keep_it(
    postgres_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    # Seen to fail without idle_in_transaction_session_timeout: the row stays taken.
    postgres_storage.store("a", snapshot(), None)
    stopped = another(postgres_storage, request, timeout="200ms")
    holding = hold(stopped, "a")

    assert another(postgres_storage, request, timeout="20s").store("a", snapshot(version=2), 1) is True
    with pytest.raises(sa.exc.DBAPIError):
        holding.execute(sa.text("SELECT 1"))
    holding.invalidate()
    holding.close()


def test_of_two_batches_that_bring_the_same_new_fsms_none_waits_for_the_other_in_a_circle(
    postgres_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    # Seen to fail without the sort in `store` and ORDER BY: the batch had "c", and each waited for the other.
    patient = another(postgres_storage, request, timeout="60s")
    database = patient._database
    with ThreadPoolExecutor(1) as pool, database.engines.engine.connect() as first:
        database._batches.store(first, "default", [row("b")])
        second = pool.submit(patient.store_many, "default", [row("c"), row("b")])
        waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        deadline = time.monotonic() + 30
        while not first.execute(waits).scalar() and not second.done() and time.monotonic() < deadline:
            time.sleep(0.005)
        database._batches.store(first, "default", [row("c")])
        first.rollback()
        assert second.result(30) == {"b", "c"}


def test_of_two_batches_over_the_same_fsms_one_waits_and_compares_with_what_is_there_then(
    postgres_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    # Seen to fail with rows taken in another order than that of their names: deadlock detected.
    patient = another(postgres_storage, request, timeout="60s")
    patient.store_many("default", [row(name) for name in "cab"])
    database = patient._database
    with ThreadPoolExecutor(1) as pool, database.engines.engine.connect() as first:
        database._batches.store(first, "default", [row("a", version=2)])
        second = pool.submit(patient.store_many, "default", [row(name, version=2, token="second") for name in "cab"])
        waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        deadline = time.monotonic() + 30
        while not first.execute(waits).scalar() and not second.done() and time.monotonic() < deadline:
            time.sleep(0.005)
        database._batches.store(first, "default", [row("b", version=2)])
        first.commit()
        assert second.result(30) == {"c"}
    found = patient.load_many("default", "abc")
    assert {name: one.token for name, one in found.items()} == {"a": "", "b": "", "c": "second"}


def test_what_cannot_be_stored_takes_its_batch_with_it(postgres_storage: SqlStorage) -> None:
    # An index of PostgreSQL holds no text of that length; whoever stores a batch then looks for the one at fault.
    bad = row("b", machine=secrets.token_hex(5000))

    with pytest.raises(PayloadError, match="cannot be stored"):
        postgres_storage.store_many("default", [row("a"), bad, row("c")])
    assert postgres_storage.load_many("default", ["a", "b", "c"]) == {}
    assert postgres_storage.store_many("default", [row("a"), row("c")]) == {"a", "c"}


def test_a_server_that_says_nothing_is_not_waited_for_without_end(
    postgres_server: Postgres, postgres_storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    # Seen to fail without `connector`: it waits for as long as the server's process is stopped.
    hasty = another(postgres_storage, request, timeout="200ms")
    with hasty._database.engines.engine.connect() as connection:
        backend = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    os.kill(backend, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(StoreError, match=r"has said nothing for 1\.2 s"):
            hasty.put("a", snapshot())
        assert time.monotonic() - begin < 30
        # Not over the same connection, on which an answer may come yet.
        hasty.put("a", snapshot())
    finally:
        os.kill(backend, signal.SIGCONT)
    assert hasty.get("a") == snapshot()


def test_a_connection_that_died_while_nobody_used_it_is_replaced(
    postgres_storage: SqlStorage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without `_see_that_it_lives`: terminating connection due to administrator command.
    monkeypatch.setattr("fsm.storage.engines._IDLE_S", 0.0)
    idle = another(postgres_storage, request)
    with idle._database.engines.engine.connect() as connection:
        backend = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    with postgres_storage._database.engines.engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend})

    assert idle.store("a", snapshot(), None) is True


def test_a_child_that_is_forked_finds_no_file_of_sqlite_open(sqlite_storage: SqlStorage, sqlite_file: Path) -> None:
    # Seen to fail without `_close_files`. SQLite takes what was locked at the fork for locked by the child as well:
    # the parent ends, another process takes the file for unused, and writes beside the child.
    sqlite_storage.load("a")
    assert _is_open(sqlite_file)
    child = os.fork()
    if not child:
        os._exit(_is_open(sqlite_file))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sqlite_storage.load("a") is None


def _is_open(file: Path) -> bool:
    return any(one.exists() and one.resolve() == file for one in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("url", ["postgresql://ann:se@cret:half@h/db", "postgresql://ann:secret@h:half/db"])
def test_a_url_that_is_read_in_another_way_than_it_was_meant_tells_nothing_of_its_password(url: str) -> None:
    # Seen to fail with the error of SQLAlchemy: invalid literal for int() with base 10: 'half@h'.
    with SqlStorage(url) as storage, pytest.raises(ConfigError, match="is no URL") as raised:
        storage.load("a")
    told = "".join(traceback.format_exception(raised.value))
    assert "secret" not in told.replace(url, "")
    assert "half@h" not in told.replace(url, "")


def test_what_was_to_be_stored_is_told_by_no_traceback(
    tmp_path: Path, postgres_url: str, opened: Callable[..., SqlStorage]
) -> None:
    # Seen to fail without `hide_parameters`: SQLAlchemy adds what was to be stored.
    card = secrets.token_hex(8)
    for storage in (opened(f"sqlite:///{tmp_path}/none.db"), opened(postgres_url, table="missing")):
        with pytest.raises(StoreError) as raised:
            storage.store_error("a", {"card": card})
        assert card not in "".join(traceback.format_exception(raised.value))


def test_a_server_that_was_away_is_used_again(postgres_server: Postgres, postgres_storage: SqlStorage) -> None:
    postgres_storage.store("a", snapshot(), None)
    postgres_server.stop()
    try:
        begin = time.monotonic()
        for _ in range(2):
            with pytest.raises(StoreError):
                postgres_storage.store("a", snapshot(version=2), 1)
        assert time.monotonic() - begin < 30
    finally:
        postgres_server.start()
    assert postgres_storage.store("a", snapshot(version=2), 1) is True


@pytest.mark.parametrize(
    ("filters", "index", "bounds"),
    [
        ({}, "by_state", "(machine,state,since,name)>"),
        ({"machine": "Order"}, "by_state", "machine=? AND (state,since,name)>"),
        ({"machine": "Order", "state": "cart"}, "by_state", "machine=? AND state=? AND (since,name)>"),
        (
            {"machine": "Order", "state": "cart", "in_state_longer_than": "1h"},
            "by_state",
            "machine=? AND state=? AND (since,name)>",
        ),
        ({"status": "finished"}, "by_status", "status=? AND (machine,state,since,name)>"),
        ({"status": "failed", "machine": "Order"}, "by_status", "status=? AND machine=? AND (state,since,name)>"),
        ({"failed": True}, "by_error", "namespace=? AND (machine,state,since,name)>"),
        ({"failed": True, "machine": "Order"}, "by_error", "machine=? AND (state,since,name)>"),
    ],
    ids=str,
)
def test_pages_come_out_of_an_index_in_its_order(
    sqlite_storage: SqlStorage, filters: dict[str, Any], index: str, bounds: str
) -> None:
    database = sqlite_storage._database
    first = read_filters(filters)
    asked: list[tuple[str, Any]] = []
    sa.event.listen(database.engines.engine, "before_cursor_execute", lambda *of: asked.append((of[2], of[3])))

    def plan_of(question: Question) -> str:
        database.page("default", question)
        # With its parameters: told what they are, SQLite plans in another way.
        statement, parameters = asked[-1]
        with database.engines.engine.connect() as connection:
            (step,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        return str(step[3])

    # Seen to fail without INDEXED BY for those with an error: it looked at 100,000 rows for a page.
    # Seen to fail with `since` itself compared in `_conditions`: all rows out of the index over it, and then sorted.
    assert f"USING INDEX fsm_snapshots_{index} " in plan_of(first)
    # Seen to fail with the whole place in the order compared: SQLite then walks from the first row on.
    later = plan_of(replace(first, after=Mark("Order", "cart", 7, "a"), began_ms=10**13))
    assert f"USING INDEX fsm_snapshots_{index} " in later
    assert bounds in later


def test_a_step_that_stays_in_its_state_touches_no_index(postgres_storage: SqlStorage) -> None:
    # Seen to fail with an index over `updated_at`: each step would write all five of them.
    postgres_storage.store_many("default", [row()])
    for version in range(2, 12):
        postgres_storage.store_many("default", [row(version=version)])
    table = postgres_storage.table
    asked = sa.text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = :name")
    database = postgres_storage._database
    with database.engines.engine.connect() as connection:
        for version in range(12, 15):
            change = database.rows.update().where(database.rows.c.name == "a")
            connection.execute(change.values(version=version, updated_at=version, payload=b"[]"))
        updated, hot = connection.execute(asked, {"name": table}).one()
    assert hot == updated >= 3


def test_lives_come_page_by_page(sql_storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.storage.sql.MOST_ROWS", 2)
    sql_storage.store_many("default", [row(name) for name in "edcba"])

    assert [list(page) for page in sql_storage.lives()] == [["a", "b"], ["c", "d"], ["e"]]
    assert sql_storage.counts() == {"Order": 5}
