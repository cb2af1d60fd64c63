import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]


@pytest.fixture
def doors(fsm: Run, work: Callable[[], None]) -> None:
    """Front has two events that wait, `one` and `two`; back has failed to break."""
    fsm("start", "cli_shop:Door", "front", "back")
    fsm("transition", "back", "break", "--job-id", "broke")
    work()
    fsm("transition", "front", "push", "--job-id", "one")
    fsm("transition", "front", "leave", "--job-id", "two")


def verbs(fsm: Run, name: str) -> list[dict[str, Any]]:
    return [line for line in json.loads(fsm("log", name, "--json").stdout) if "verb" in line]


@pytest.mark.usefixtures("doors")
def test_retry_puts_back_what_failed_and_says_where_there_is_nothing(fsm: Run, client: Client) -> None:
    done = fsm("retry", "back")

    assert (done.exit_code, done.stdout) == (0, "retried\tback\tbreak\tbroke\n")
    assert client.job("broke").status() == "waiting"
    again = fsm("retry", "back")
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == "fsm: retry of FSM 'back': nothing has failed that could be tried again\n"
    assert [(line["verb"], line["job"]) for line in verbs(fsm, "back")] == [("retry", "broke")]


@pytest.mark.usefixtures("doors")
def test_skip_takes_out_what_is_next_or_only_the_one_that_is_named(fsm: Run, client: Client) -> None:
    other = fsm("skip", "front", "two")
    assert (other.exit_code, other.stderr) == (1, "fsm: skip of FSM 'front': event 'push' is next, job one\n")

    assert fsm("skip", "front", "one").stdout == "skipped\tfront\tpush\tone\n"
    assert fsm("skip", "front").stdout == "skipped\tfront\tleave\ttwo\n"
    assert fsm("skip", "front").stderr == "fsm: skip of FSM 'front': no event waits\n"
    assert client.job("one").status() == "cancelled"


@pytest.mark.usefixtures("doors")
def test_a_paused_fsm_is_in_the_lists_until_it_is_resumed(fsm: Run, client: Client, work: Callable[[], None]) -> None:
    assert fsm("pause", "front").stdout == "paused\tfront\n"
    assert fsm("pause", "front").exit_code == 0
    work()

    assert client.job("one").status() == "waiting"
    rows = [row.split("\t") for row in fsm("ls", "--status", "paused").stdout.splitlines()]
    assert [(row[0], row[3]) for row in rows] == [("front", "paused")]
    why = json.loads(fsm("state", "front", "--json").stdout)["why"]
    assert why.startswith("2 events wait: it was paused ")
    assert why.endswith(" ago: `fsm resume front` lets it go on")

    assert fsm("resume", "front").stdout == "resumed\tfront\n"
    again = fsm("resume", "front")
    assert (again.exit_code, again.stdout) == (0, "not paused\tfront\n")
    work()
    assert client.job("two").status() == "done"


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (("retry", "back"), 0, {"done": True, "job_id": "broke", "event": "break"}),
        (("retry", "front"), 1, {"done": False, "job_id": None, "event": None}),
        (("skip", "front"), 0, {"done": True, "job_id": "one", "event": "push"}),
        (("skip", "front", "two"), 1, {"done": False, "job_id": None, "event": None}),
        (("pause", "front"), 0, {"done": True, "job_id": None, "event": None}),
        (("resume", "front"), 0, {"done": False, "job_id": None, "event": None}),
    ],
)
def test_as_json_each_is_one_object(fsm: Run, arguments: tuple[str, ...], code: int, found: dict[str, Any]) -> None:
    done = fsm(*arguments, "--json")

    assert done.exit_code == code
    assert json.loads(done.stdout) == {"name": arguments[1], "verb": arguments[0], **found}


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize("verb", ["retry", "skip", "pause", "resume"])
def test_each_has_its_conditions(fsm: Run, client: Client, verb: str) -> None:
    stale = fsm(verb, "front", "--if-version", "7")
    assert (stale.exit_code, stale.stderr[:38]) == (1, "fsm: FSM 'front' in state 'closed': `" + verb[:1])
    assert "was decided on version 7, and it has version 1 now" in stale.stderr
    # Seen to fail as "no FSM 'front' …: start it first", of an FSM that is there.
    assert (
        "FSM 'front' in namespace 'default' is not the one born 7 any more" in fsm(verb, "front", "--born", "7").stderr
    )
    assert fsm(verb, "nobody").exit_code == 1
    assert verbs(fsm, "front") == []
    born = client.state("front").born
    assert fsm(verb, "front", "--born", born, "--if-version", "1").exit_code == (1 if verb == "retry" else 0)


@pytest.mark.usefixtures("doors")
def test_a_worker_that_has_it_in_hand_is_waited_for_as_long_as_is_said(fsm: Run, client: Client) -> None:
    client.redis.set(client.keys.lock("front"), "edge-7/token")

    done = fsm("skip", "front", "--timeout", "0")

    assert done.exit_code == 1
    assert done.stderr.startswith(
        "fsm: skip of FSM 'front' did not come about within 0 s: worker edge-7 has it in hand"
    )
    assert fsm("pause", "front").exit_code == 0  # it need not wait


def test_a_job_that_is_no_id_is_refused(fsm: Run) -> None:
    done = fsm("skip", "front", "a b")

    assert done.exit_code == 1
    assert "id" in done.stderr


@pytest.mark.usefixtures("doors")
def test_the_log_shows_who_did_what(fsm: Run) -> None:
    fsm("pause", "front")
    fsm("skip", "front")

    rows = [row.split("\t") for row in fsm("log", "front").stdout.splitlines()][-2:]
    assert [(row[1], row[2], row[3], row[10]) for row in rows] == [
        ("front", "Door", "pause", ""),
        ("front", "Door", "skip", "one"),
    ]
    assert all(row[8].startswith("by ") and "@" in row[8] for row in rows)
    assert {len(row) for row in rows} == {11}


@pytest.mark.usefixtures("doors")
def test_jobs_say_which_attempt_an_event_waits_for_and_when(fsm: Run, client: Client) -> None:
    client.redis.hset("fsm:default:snapshot:front", "retry_at", 1_990_000_000_000)
    client.redis.hset("rq:job:one", "attempt", 2)

    stands = [row.split("\t")[3] for row in fsm("jobs", "front").stdout.splitlines()]
    assert stands == ["tried again at 2033-01-22T09:46:40.000+00:00, attempt 3", "waiting"]
    first, second = json.loads(fsm("jobs", "front", "--json").stdout)["events"]
    assert (first["attempt"], first["next_at"]) == (3, "2033-01-22T09:46:40+00:00")
    assert (second["attempt"], second["next_at"]) == (1, None)
    shown = dict(line.split(":", 1) for line in fsm("state", "front").stdout.splitlines())
    assert shown["retry at"].strip() == "2033-01-22T09:46:40.000+00:00"
    client.redis.set("fsm:default:lock:front", "edge-7/token")
    assert fsm("jobs", "front").stdout.split("\t")[3] == "in hand of edge-7, attempt 3"
