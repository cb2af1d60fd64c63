"""`fsm state` and `fsm ls` of FSMs whose payload lies in the storage of their machine."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
"""


@pytest.fixture
def orders(fsm: Run, client: Client) -> None:
    """Three FSMs with a row each, as a worker's first commit leaves them, and one that no worker has seen."""
    Path("cli_kept.py").write_text(KEPT, encoding="utf-8")
    fsm("storage", "init", "--app", "cli_kept")
    fsm("start", "cli_kept:Order", "a", "b", "c", "new")
    with SqlStorage("sqlite:///orders.db") as storage:
        for number, name in enumerate("abc"):
            client.redis.hset(
                client.keys.snapshot(name), mapping={"definition": "1a2b3c4d+s", "payload": '{"[storage]":"sql"}'}
            )
            there = client.state(name)
            row = snapshot(name, machine="Order", state=there.state, version=there.version, born=there.born)
            storage.put(name, replace(row, payload={"items": [number]}))


def payloads(done: Result) -> dict[str, object]:
    return {one["name"]: one["payload"] for one in json.loads(done.stdout)}


@pytest.mark.usefixtures("orders")
def test_state_shows_the_payload_where_the_application_is_named(fsm: Run) -> None:
    # Seen to fail, with null, where `fsm state` shows what Redis has.
    done = fsm("state", "b", "--app", "cli_kept", "--json")

    assert (done.exit_code, json.loads(done.stdout)["payload"], done.stderr) == (0, {"items": [1]}, "")
    assert '"items": [' in fsm("--app", "cli_kept", "state", "b").stdout


@pytest.mark.usefixtures("orders")
def test_state_says_where_the_payload_lies_without_an_application(fsm: Run) -> None:
    done = fsm("state", "b")
    as_json = json.loads(fsm("state", "b", "--json").stdout)

    assert (done.exit_code, done.stderr) == (0, "")
    assert "in the storage of machine Order: --app MODULE shows it\n" in done.stdout
    assert (as_json["payload"], as_json["is_stored"]) == (None, True)
    other = fsm("state", "b", "--app", "cli_shop")
    assert other.exit_code == 0
    assert "in the storage of machine Order, which application cli_shop does not have\n" in other.stdout


@pytest.mark.usefixtures("orders")
def test_ls_has_the_payloads_of_a_page_by_one_load(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[set[str]] = []
    load_many = SqlStorage.load_many
    monkeypatch.setattr(
        SqlStorage, "load_many", lambda self, of, names: (loads.append(set(names)), load_many(self, of, names))[1]
    )

    assert payloads(fsm("ls", "--app", "cli_kept", "--json")) == {
        "a": {"items": [0]}, "b": {"items": [1]}, "c": {"items": [2]}, "new": {},
    }  # fmt: skip
    assert loads == [{"a", "b", "c"}]
    without = fsm("ls", "--json")
    assert (payloads(without), without.exit_code) == ({"a": None, "b": None, "c": None, "new": {}}, 0)
    assert fsm("ls", "--app", "cli_kept").stdout.count("\n") == 4
    assert len(loads) == 1, "the table shows no payloads"


@pytest.mark.usefixtures("orders")
def test_a_row_that_is_missing_is_told_and_the_others_are_shown(fsm: Run) -> None:
    with SqlStorage("sqlite:///orders.db") as storage:
        storage.delete("b")

    done = fsm("ls", "--app", "cli_kept", "--json")

    assert payloads(done) == {"a": {"items": [0]}, "b": None, "c": {"items": [2]}, "new": {}}
    assert done.exit_code == 1
    assert done.stderr == "fsm: the storage of machine Order has nothing of FSM 'b': was it restored?\n"


@pytest.mark.usefixtures("orders")
def test_a_storage_that_is_down_is_told_once_and_all_else_is_shown(fsm: Run) -> None:
    # Seen to fail, with nothing shown, where the error ends the command: this is when people look.
    Path("orders.db").unlink()

    done = fsm("state", "a", "b", "--app", "cli_kept")

    assert done.exit_code == 1
    assert done.stdout.count("payload: in the storage of machine Order\n") == 2
    assert done.stderr.count("fsm: the storage of machine Order cannot be used: ") == 1
    assert "orders.db" in done.stderr
    listed = fsm("ls", "--app", "cli_kept", "--json")
    assert (listed.exit_code, payloads(listed)) == (1, {"a": None, "b": None, "c": None, "new": {}})


@pytest.mark.usefixtures("orders")
def test_an_application_that_cannot_be_imported_is_told_where_a_payload_needs_it(fsm: Run) -> None:
    assert fsm("state", "new", "--app", "cli_nowhere").exit_code == 0

    done = fsm("state", "a", "b", "--app", "cli_nowhere")

    assert done.exit_code == 1
    assert done.stderr.count("fsm: app 'cli_nowhere'") == 1
    assert done.stdout.count("payload: in the storage of machine Order\n") == 2
