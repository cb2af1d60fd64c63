import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]
WAITS = "1 event waits: no worker listens on queue 'fsm': start one with `fsm worker`"


@pytest.fixture
def doors(fsm: Run, work: Callable[[], None]) -> None:
    """Front is open and was refused, back is closed and has failed and has mail, side has gone."""
    fsm("start", "cli_shop:Door", "front", "back", "side")
    for name, event in [("front", "push"), ("front", "pull"), ("back", "break"), ("side", "push"), ("side", "leave")]:
        fsm("transition", name, event)
    work()
    fsm("transition", "back", "push")


@pytest.mark.usefixtures("doors")
def test_state_shows_all_that_is_known_of_an_fsm(fsm: Run) -> None:
    done = fsm("state", "back")

    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    shown = {name: value.strip() for name, value in lines.items()}
    assert done.exit_code == 0
    assert shown.pop("updated").endswith("+00:00")
    assert shown.pop("error").startswith("break: ValueError: no glass (")
    assert shown == {
        "name": "back",
        "machine": "Door",
        "state": "closed",
        "status": "running",
        "version": "2",
        "queue": "fsm",
        "waiting": "1 event",
        "allowed": "push, break",
        "history": "closed",
        "payload": "{}",
        "why": WAITS,
    }


@pytest.mark.usefixtures("doors")
def test_state_says_what_was_refused_and_leaves_out_what_is_not_so(fsm: Run) -> None:
    text = fsm("state", "front").stdout

    assert "refused: pull: rejected: stuck (" in text
    assert "history: closed → open" in text
    assert '{\n           "pushes": 1\n         }' in text
    assert "error:" not in text
    assert "allowed:" not in fsm("state", "side").stdout


@pytest.mark.usefixtures("doors")
def test_state_gives_an_object_for_one_name_and_an_array_for_several(fsm: Run, client: Client) -> None:
    one = json.loads(fsm("state", "back", "--json").stdout)
    several = json.loads(fsm("state", "back", "front", "--json").stdout)

    more = {"waiting": 1, "allowed": ["push", "break"], "why": WAITS}
    assert one == several[0] == client.state("back").as_json() | more
    assert [each["name"] for each in several] == ["back", "front"]


@pytest.mark.usefixtures("doors")
def test_state_shows_the_others_where_one_name_is_unknown(fsm: Run) -> None:
    done = fsm("state", "nobody", "front", "--json")

    assert done.exit_code == 1
    assert [each["name"] for each in json.loads(done.stdout)] == ["front"]
    assert done.stderr.startswith("fsm: no FSM 'nobody'")


@pytest.mark.usefixtures("doors")
def test_state_ends_with_why_it_stands_there(fsm: Run) -> None:
    last = [fsm("state", name).stdout.splitlines()[-1] for name in ("front", "side")]

    assert re.fullmatch(r"why: +it waits for pull or leave; pull was refused \ds ago: stuck", last[0])
    assert re.fullmatch(r"why: +it has finished in 'gone', \ds ago", last[1])


def test_a_name_with_line_breaks_and_escapes_is_one_line(fsm: Run) -> None:
    fsm("start", "cli_shop:Door", "two\nlines\t\x1b[31m", "päck 🚪")

    rows = fsm("ls").stdout.splitlines()

    assert sorted(row.split("\t")[0] for row in rows) == ["päck 🚪", "two\\nlines\\t\\x1b[31m"]


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), {"front", "back", "side"}),
        (("--machine", "Door"), {"front", "back", "side"}),
        (("--state", "open"), {"front"}),
        (("--state", "gone", "--machine", "Door"), {"side"}),
        (("--status", "finished"), {"side"}),
        (("--status", "running", "--state", "closed"), {"back"}),
        (("--status", "starting"), set()),
    ],
)
def test_ls_filters_exactly(fsm: Run, arguments: tuple[str, ...], names: set[str]) -> None:
    done = fsm("ls", *arguments)
    as_json = json.loads(fsm("ls", *arguments, "--json").stdout)

    assert {row.split("\t")[0] for row in done.stdout.splitlines()} == names
    assert {each["name"] for each in as_json} == names
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.usefixtures("doors")
def test_a_line_of_ls_is_name_machine_state_status_version_and_time(fsm: Run) -> None:
    *fields, updated = fsm("ls", "--state", "open").stdout.rstrip("\n").split("\t")

    assert fields == ["front", "Door", "open", "running", "3"]
    assert updated.endswith("+00:00")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--machine", "Dor"), 1, "unknown machine 'Dor': known are Door"),
        (("--state", "opn"), 2, "the machines known here have closed, open, gone"),
        (("--state", "opn", "--machine", "Door"), 2, "machine 'Door' has closed, open, gone"),
        (("--status", "purging"), 2, "'starting', 'running', 'paused', 'finished', 'failed', 'damaged'"),
        (("--limit", "-1"), 2, "limit"),
    ],
)
def test_ls_refuses_what_nobody_is_called(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = fsm("ls", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


@pytest.mark.usefixtures("doors")
def test_ls_says_that_there_are_more(fsm: Run) -> None:
    some = fsm("ls", "--limit", "2")
    rest = fsm("ls", "--limit", "3")

    assert some.stdout.count("\n") == 2
    assert some.stderr.startswith("fsm: … and more: --limit 0 shows all, --cursor ")
    cursor = some.stderr.split()[-3]
    assert some.stdout + fsm("ls", "--cursor", cursor).stdout == rest.stdout
    assert (rest.stdout.count("\n"), rest.stderr) == (3, "")
    assert len(json.loads(fsm("ls", "--limit", "0", "--json").stdout)) == 3
    assert len(json.loads(fsm("ls", "--limit", "1", "--json").stdout)) == 1


def test_ls_of_nothing_is_empty(fsm: Run) -> None:
    assert fsm("ls").output == ""
    assert json.loads(fsm("ls", "--json").stdout) == []


def test_a_snapshot_that_was_edited_by_hand_is_named(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    client.redis.hset(client.keys.snapshot("front"), "payload", "{")

    done = fsm("state", "front")

    assert done.exit_code == 1
    assert done.stderr.startswith("fsm: the snapshot of FSM 'front' cannot be read")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("doors")
def test_ls_has_the_filters_of_a_query(fsm: Run) -> None:
    def names(*arguments: str) -> list[str]:
        return [line.split("\t")[0] for line in fsm("ls", *arguments).stdout.splitlines()]

    every = names()
    assert sorted(names("--failed") + names("--not-failed")) == sorted(every)
    assert names("--failed") == ["back"]
    assert names("--in-state-longer-than", "1d") == names("--started-after", "2999-01-01") == []
    assert names("--started-after", "2020-01-01T00:00+01:00", "--updated-before", "2999-01-01") == every


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--in-state-longer-than", "soon"), "is no length of time"),
        (("--started-after", "5pm"), "'5pm' is no time: write it as 2026-11-22T05:00"),
        (("--cursor", "x"), "'x' is no cursor: give the one of the page before"),
    ],
)
def test_ls_refuses_what_it_cannot_look_for(fsm: Run, arguments: tuple[str, ...], text: str) -> None:
    done = fsm("ls", *arguments)

    assert done.exit_code in (1, 2)
    assert text in done.stderr


@pytest.mark.usefixtures("doors")
def test_ls_finds_what_is_left_in_a_state_of_an_older_diagram(fsm: Run, client: Client) -> None:
    # Seen to fail, as "no such state", where only announced diagrams were looked through.
    about = json.loads(client.redis.hget(client.keys.machines, "Door"))
    about["states"].remove("open")
    client.redis.hset(client.keys.machines, "Door", json.dumps(about))

    done = fsm("ls", "--machine", "Door", "--state", "open")

    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["front"]
    client.redis.hdel(client.keys.machines, "Door")
    assert fsm("ls", "--machine", "Door", "--status", "finished").exit_code == 0


@pytest.mark.usefixtures("doors")
def test_ls_says_of_which_time_it_is(fsm: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    of = [datetime.fromisoformat(one["as_of"]) for one in json.loads(fsm("ls", "--json").stdout)]
    assert len(of) == 3
    assert len(set(of)) == 1
    assert abs(of[0] - datetime.now(UTC)) < timedelta(minutes=1)
    monkeypatch.setattr("fsm.cli.states.is_terminal", lambda: True)

    done = fsm("ls", "--limit", "1")

    assert re.match(r"fsm: as of \d\d:\d\d:\d\d\nfsm: … and more: ", done.stderr)
