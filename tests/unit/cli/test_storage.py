import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import fakeredis
import pytest
from click.testing import Result

from fsm.client import Client
from fsm.storage.sql import SqlStorage
from fsm.testing.storage import snapshot

Run = Callable[..., Result]
KEPT = """
from fsm import Machine, SqlStorage


class Order(Machine):
    storage = SqlStorage("sqlite:///orders.db")
    diagram = '''
    stateDiagram-v2
        [*] --> cart
        cart --> [*] : pay
    '''


class Parcel(Order):
    pass
"""


IN_STEP = """
from dataclasses import dataclass

import sqlalchemy as sa

from fsm import Machine, SqlStorage


class Mirrored:
    @classmethod
    def fetch(cls, connection, owner):
        connection.execute(sa.text(f"SELECT * FROM {cls.table} WHERE name = :name"), {"name": owner.name})
        int(owner.name)

    def save(self, connection, owner):
        pass


@dataclass
class Box(Mirrored):
    table = "boxes"


@dataclass
class Bag(Mirrored):
    table = "bags"


DIAGRAM = '''
stateDiagram-v2
    [*] --> shut
    shut --> [*] : open
'''


class Boxes(Machine[Box]):
    storage = SqlStorage("sqlite:///orders.db", persist=Box)
    diagram = DIAGRAM


class Bags(Machine[Bag]):
    storage = SqlStorage("sqlite:///orders.db", persist=Bag)
    diagram = DIAGRAM
"""


@pytest.fixture
def kept(fsm: Run) -> str:
    """An application with a storage, beside the other one."""
    Path("cli_kept.py").write_text(KEPT, encoding="utf-8")
    return "cli_kept"


def test_init_creates_the_tables_of_the_application_once(fsm: Run, kept: str) -> None:
    first, second = fsm("storage", "init", "--app", kept), fsm("--app", kept, "storage", "init", "--json")

    assert (first.exit_code, first.stdout) == (0, "sqlite:///orders.db\tfsm_snapshots\tcreated\n")
    assert json.loads(second.stdout) == [{"storage": "sqlite:///orders.db", "table": "fsm_snapshots", "created": False}]


def test_init_creates_the_tables_of_a_database_that_is_named(fsm: Run) -> None:
    done = fsm("storage", "init", "sqlite:///mine.db", "--table", "mine")

    assert (done.exit_code, done.stdout) == (0, "sqlite:///mine.db\tmine\tcreated\n")
    assert fsm("storage", "check", "sqlite:///mine.db", "--table", "mine").exit_code == 0


def test_check_counts_the_rows_beside_what_redis_has(fsm: Run, kept: str, client: Client) -> None:
    fsm("storage", "init", "--app", kept)
    fsm("start", "cli_kept:Order", "a", "b")
    with SqlStorage("sqlite:///orders.db") as storage:
        storage.put("a", snapshot(born=client.state("a").born))

    done = fsm("storage", "check", "--app", kept)
    assert (done.exit_code, done.stdout) == (0, "sqlite:///orders.db\tfsm_snapshots\tOrder\t1\t2\t0\n")
    assert fsm("storage", "check", "--app", kept, "--orphans").exit_code == 0


def test_check_names_rows_of_fsms_that_are_not_in_redis(fsm: Run, kept: str) -> None:
    fsm("storage", "init", "--app", kept)
    fsm("start", "cli_kept:Order", "b")
    with SqlStorage("sqlite:///orders.db") as storage:
        storage.put("a", snapshot("a"))
        storage.put("b", snapshot("b"))

    done = fsm("storage", "check", "--app", kept, "--orphans", "--json")
    assert done.exit_code == 1
    assert [(row["name"], row["why"]) for row in json.loads(done.stdout)] == [
        ("a", "no such FSM in Redis"),
        ("b", "an earlier life of its name"),
    ]


def test_check_tells_what_a_worker_will_drop_from_what_nobody_will(
    fsm: Run, kept: str, fake: fakeredis.FakeServer
) -> None:
    fsm("storage", "init", "--app", kept)
    with SqlStorage("sqlite:///orders.db") as storage:
        storage.put("a", snapshot("a"))
    fakeredis.FakeRedis(server=fake).zadd("fsm:default:drops:Order", {f"{snapshot('a').born} a": 1})

    (row,) = json.loads(fsm("storage", "check", "--app", kept, "--json").stdout)
    assert (row["rows"], row["in_redis"], row["to_drop"]) == (1, 0, 1)
    done = fsm("storage", "check", "--app", kept, "--orphans", "--json")
    assert done.exit_code == 0
    assert [(row["name"], row["why"]) for row in json.loads(done.stdout)] == [("a", "purged: a worker drops it")]


def test_check_fails_where_there_are_no_tables(fsm: Run) -> None:
    done = fsm("storage", "check", "sqlite:///empty.db")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "run `fsm storage init` once" in done.stderr


def test_check_asks_for_the_tables_of_payloads_that_load_themselves(fsm: Run) -> None:
    # Seen to fail with one storage checked for each table: nobody asked for boxes.
    Path("cli_in_step.py").write_text(IN_STEP, encoding="utf-8")
    app = ("--app", "cli_in_step")
    done = fsm("storage", "init", *app)
    assert (done.exit_code, done.stdout) == (0, "sqlite:///orders.db\tfsm_snapshots\tcreated\n")
    with closing(sqlite3.connect("orders.db")) as connection:
        connection.execute("CREATE TABLE bags (name)")
        done = fsm("storage", "check", *app)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "sqlite:///orders.db: Box.fetch: no such table: boxes" in done.stderr

        # That it cannot read the name of one that is not there does not matter.
        connection.execute("CREATE TABLE boxes (name)")
        done = fsm("storage", "check", *app)
        assert (done.exit_code, done.stdout) == (0, "sqlite:///orders.db\tfsm_snapshots\t\t0\t0\t0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("init",), "name the DATABASE"),
        (("init", "--app", "cli_shop:Door"), "no machine of the application has a SqlStorage"),
        (("init", "--app", "cli_shop:Door", "--table", "t"), "--table"),
        (("init", "mysql://ann:secret@host/db"), "mysql://ann:***@host/db"),
        (("check", "redis://localhost"), "no database that is supported"),
        (("init", "sqlite:///x.db", "--table", "a; b"), "a-z 0-9 _"),
        (("init", "sqlite://"), "names no file"),
    ],
    ids=str,
)
def test_wrong_use_is_told_in_one_sentence(fsm: Run, arguments: tuple[str, ...], said: str) -> None:
    done = fsm("storage", *arguments)

    assert done.exit_code == 2
    assert said in done.stderr
    assert "secret" not in done.stderr
