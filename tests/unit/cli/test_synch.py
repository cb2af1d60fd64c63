import json
from collections.abc import Callable

import pytest
from click.testing import Result

from fsm.cli import printing
from fsm.client import Client

Run = Callable[..., Result]


def test_of_a_healthy_namespace_nothing_is_told(fsm: Run) -> None:
    fsm("start", "cli_shop:Door", "front", "back")

    assert (fsm("synch").stdout, fsm("synch").exit_code) == ("", 0)
    assert json.loads(fsm("synch", "--json").stdout) == []


def test_what_was_repaired_is_told_once(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    client.redis.delete(client.keys.state("Door", "closed"))

    done = fsm("synch")

    assert done.exit_code == 0
    assert done.stdout.split("\t") == ["front", "index", "it was not in state:Door:closed: put there\n"]
    assert fsm("synch").stdout == ""


def test_what_cannot_be_repaired_is_told_each_time_and_is_a_failure(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    client.redis.hset(client.keys.snapshot("front"), "version", "none")

    for _ in range(2):
        done = fsm("synch", "--json")
        (told,) = json.loads(done.stdout)
        assert (told["name"], told["what"], done.exit_code) == ("front", "snapshot", 1)
        assert told["how"].endswith("not repaired")


def test_on_a_terminal_it_says_that_nothing_differs(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "is_terminal", lambda: True)
    monkeypatch.setattr("fsm.cli.synching.is_terminal", lambda: True)

    assert fsm("synch").stdout == "nothing differs\n"
