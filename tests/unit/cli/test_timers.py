"""`fsm timers` and `fsm tick`, over fakeredis."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from fsm import Client, Machine, Settings, Transition

Run = Callable[..., Result]


class Meter(Machine[dict[str, int]]):
    settings = Settings(timer="1h", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> idle
        idle --> idle : expire after 2d
    """

    def on_timer(self, t: Transition[dict[str, int]]) -> None:
        t.payload["ticks"] = 1


@pytest.fixture
def meters(client: Client) -> None:
    """Two that are armed; of one, the timer has come."""
    client.start_fsm(Meter, "a\n", state="idle")
    client.start_fsm(Meter, "b", state="idle")
    armed = json.loads(client.redis.hget("fsm:default:snapshot:b", "timers") or b"")
    armed["expire"][1] = 1_790_000_000_000
    client.redis.hset("fsm:default:snapshot:b", "timers", json.dumps(armed))
    client.redis.zrem("fsm:default:timers", "timer expire b")


@pytest.mark.usefixtures("meters")
def test_timers_lists_those_of_an_fsm_also_what_has_fired(fsm: Run) -> None:
    done = fsm("timers", "b")

    assert done.exit_code == 0
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert [[*row[:2], row[4], *row[5:]] for row in rows] == [
        ["b", "expire", "timer", "expire", "state"],
        ["b", "[timer]", "tick", "[timer]", "fsm"],
    ]
    assert rows[0][2] == "2026-09-21T14:13:20.000+00:00"
    assert rows[0][3].startswith("fired, ")
    assert rows[0][3].endswith(" late")
    assert rows[1][3] == "armed"


@pytest.mark.usefixtures("meters")
def test_timers_without_a_name_lists_what_is_armed_soonest_first(fsm: Run) -> None:
    rows = [row.split("\t") for row in fsm("timers").stdout.splitlines()]

    assert [row[:2] for row in rows] == [["a\\n", "[timer]"], ["b", "[timer]"], ["a\\n", "expire"]]


@pytest.mark.usefixtures("meters")
def test_timers_as_json(fsm: Run) -> None:
    found = json.loads(fsm("timers", "b", "--json").stdout)

    assert [(one["key"], one["status"]) for one in found] == [("expire", "fired"), ("[timer]", "armed")]
    assert found[0]["at"] == "2026-09-21T14:13:20+00:00"
    assert len(json.loads(fsm("timers", "--json").stdout)) == 3


def test_timers_of_nobody(fsm: Run) -> None:
    done = fsm("timers", "nobody")

    assert done.exit_code == 1
    assert "'nobody'" in done.stderr
    assert fsm("timers").stdout == ""
    assert json.loads(fsm("timers", "--json").stdout) == []


@pytest.mark.usefixtures("meters")
def test_a_terminal_gets_a_hundred_timers_unless_it_wants_all(
    fsm: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsm.cli.timers.is_terminal", lambda: True)
    client.start_many(Meter, [f"c{number}" for number in range(60)], state="idle")
    done = fsm("timers")
    assert "--all lists all" in done.stderr
    assert fsm("timers", "--all").stderr == ""


@pytest.mark.usefixtures("meters")
def test_tick_sends_the_event_of_a_tick(fsm: Run, client: Client) -> None:
    done = fsm("tick", "b")

    assert done.exit_code == 0
    assert done.stdout.startswith("sent\t[timer]\tb\t")
    job_id = json.loads(fsm("tick", "b", "--json").stdout)["job_id"]
    assert client.redis.hget(f"rq:job:{job_id}", "event") == b"[timer]"
    assert client.redis.llen("fsm:default:mailbox:b") == 2


def test_tick_waits_where_it_is_told_to(fsm: Run, client: Client) -> None:
    client.start_fsm(Meter, "a", state="idle")
    done = fsm("tick", "a", "--wait", "--timeout", "0.01")

    assert done.exit_code == 1
    assert "[timer]" in done.stderr


@pytest.mark.usefixtures("meters")
def test_state_shows_timers(fsm: Run) -> None:
    assert "timers:  expire at 2026-09-21T14:13:20.000+00:00, [timer] at " in fsm("state", "b").stdout
    assert set(json.loads(fsm("state", "b", "--json").stdout)["timers"]) == {"expire", "[timer]"}
