import json
import re
from collections.abc import Callable

import pytest
from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]


@pytest.fixture
def front(fsm: Run, work: Callable[[], None]) -> None:
    """A door that was opened, and shut by nobody: it is stuck."""
    fsm("start", "cli_shop:Door", "front")
    fsm("transition", "front", "push", "--job-id", "push-1")
    fsm("transition", "front", "pull")
    work()


def states(done: Result) -> list[tuple[str, str, int]]:
    return [(visit["state"], visit["event"], visit["version"]) for visit in json.loads(done.stdout)]


# fsm history


@pytest.mark.usefixtures("front")
def test_history_is_a_line_a_state_with_what_led_there(fsm: Run) -> None:
    rows = [line.split("\t") for line in fsm("history", "front").stdout.splitlines()]

    assert [(row[0], row[2], row[3]) for row in rows] == [("closed", "[*]", "1"), ("open", "push", "2")]
    assert all(row[1].endswith("+00:00") for row in rows)
    assert rows[1][4] == "push-1"


@pytest.mark.usefixtures("front")
def test_history_as_json_is_an_array(fsm: Run, client: Client) -> None:
    found = json.loads(fsm("history", "front", "--json").stdout)

    assert [visit["state"] for visit in found] == list(client.state("front").history)
    assert set(found[1]) == {"state", "event", "at_ms", "version", "job_id"}
    assert found[1]["job_id"] == "push-1"


@pytest.mark.usefixtures("front")
def test_states_of_which_the_log_knows_nothing_are_told_all_the_same(fsm: Run, client: Client) -> None:
    client.redis.delete(client.keys.log)

    assert fsm("history", "front").stdout == "closed\t\t\t\t\nopen\t\t\t\t\n"
    assert states(fsm("history", "front", "--json")) == [("closed", None, None), ("open", None, None)]


@pytest.mark.usefixtures("front")
def test_the_log_may_have_forgotten_the_older_ones(fsm: Run, client: Client, work: Callable[[], None]) -> None:
    client.redis.xtrim(client.keys.log, maxlen=0)
    fsm("transition", "front", "leave")
    work()

    found = fsm("history", "front", "--json")
    assert states(found) == [("closed", None, None), ("open", None, None), ("gone", "leave", 4)]


def test_an_earlier_life_of_the_name_does_not_count(fsm: Run, work: Callable[[], None], client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    fsm("transition", "front", "push")
    work()
    fsm("purge", "front", "--yes")
    client.start_fsm("Door", "front", state="open")
    for _ in range(2):
        fsm("transition", "front", "pull")
    work()

    assert states(fsm("history", "front", "--json")) == [("open", None, None)]


def test_a_way_over_many_pages_of_the_log_is_found(fsm: Run, work: Callable[[], None], client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    work()
    for number in range(250):
        line = json.dumps([{"name": "x", "event": "e", "from": "a", "to": "b", "version": number}])
        client.redis.xadd(client.keys.log, {"worker": "w", "transitions": line})
    fsm("transition", "front", "push")
    work()

    assert states(fsm("history", "front", "--json")) == [("closed", "[*]", 1), ("open", "push", 2)]


@pytest.mark.usefixtures("front")
def test_where_log_and_snapshot_do_not_agree_the_snapshot_is_told(fsm: Run, client: Client) -> None:
    client.redis.hset(client.keys.snapshot("front"), "history", '["closed","odd"]')

    found = states(fsm("history", "front", "--json"))
    assert found == [("closed", None, None), ("odd", None, None), ("open", "push", 2)]


@pytest.mark.usefixtures("front")
def test_what_was_written_after_the_look_is_not_told(fsm: Run, client: Client) -> None:
    line = json.dumps([{"name": "front", "event": "pull", "from": "open", "to": "closed", "version": 9}])
    client.redis.xadd(client.keys.log, {"worker": "w", "transitions": line})

    assert states(fsm("history", "front", "--json")) == [("closed", "[*]", 1), ("open", "push", 2)]


@pytest.mark.parametrize("command", [("history", "nobody"), ("wait", "nobody", "open")])
def test_an_fsm_that_is_not_there_is_named(fsm: Run, command: tuple[str, ...]) -> None:
    done = fsm(*command)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("fsm: no FSM 'nobody'")


# fsm wait


@pytest.mark.usefixtures("front")
def test_wait_ends_at_once_where_it_is_there(fsm: Run) -> None:
    done = fsm("wait", "front", "gone", "open")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "front\topen\t3\n", "")


@pytest.mark.usefixtures("front")
def test_wait_as_json_is_an_object(fsm: Run) -> None:
    there = json.loads(fsm("wait", "front", "open", "--json").stdout)

    assert there == {
        "name": "front",
        "reached": True,
        "reason": None,
        "error": None,
        "state": "open",
        "status": "running",
        "version": 3,
    }


@pytest.mark.usefixtures("front")
def test_wait_in_vain_says_why(fsm: Run) -> None:
    done = fsm("wait", "front", "gone", "--timeout", "50ms")
    as_json = fsm("wait", "front", "gone", "--timeout", "0", "--json")

    why = r"it is in state 'open', and it waits for pull or leave; pull was refused \ds ago: stuck"
    assert done.exit_code == 1
    assert re.fullmatch(rf"fsm: state 'gone' of FSM 'front' did not come about within 0.05 s: {why}.*\n", done.stderr)
    found = json.loads(as_json.stdout)
    assert (as_json.exit_code, found["reached"], found["error"]) == (1, False, "CallTimeoutError")
    assert re.search(why, found["reason"])


@pytest.mark.usefixtures("front")
def test_wait_for_one_that_ended_elsewhere_is_over(fsm: Run, work: Callable[[], None]) -> None:
    fsm("transition", "front", "leave")
    work()

    done = fsm("wait", "front", "closed")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "has finished in state 'gone'" in done.stderr


@pytest.mark.usefixtures("front")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("front", "opn"), 1, "did you mean 'open'"),
        (("front",), 2, "STATE"),
        (("front", "open", "--timeout", "soon"), 2, "is no length of time"),
        (("front", "open", "--timeout", "-1"), 2, "negative"),
    ],
)
def test_wait_refuses_what_cannot_be_waited_for(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = fsm("wait", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


def test_history_tells_what_became_of_each_event(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    told = fsm("history", "front", "--events")
    lines = json.loads(fsm("history", "front", "--events", "--json").stdout)

    assert lines == client.history("front")
    assert told.stdout.count("\n") == len(lines)
