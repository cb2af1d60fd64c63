import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]


def test_start_starts_each_name(fsm: Run, client: Client) -> None:
    done = fsm("start", "cli_shop:Door", "front", "back door")

    assert (done.exit_code, done.stdout) == (0, "started\tfront\nstarted\tback door\n")
    assert client.exists("front")
    assert client.exists("back door")
    assert client.state("front").machine == "Door"


def test_start_knows_the_machines_of_the_application_by_name(fsm: Run, client: Client) -> None:
    assert fsm("start", "Door", "front", "--app", "cli_shop").exit_code == 0
    assert fsm("--app", "cli_shop", "start", "Lamp", "bulb").exit_code == 0

    assert client.state("bulb").queue == "lamps"


def test_start_takes_a_payload(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front", "--payload", '{"pushes": 7}')

    assert client.state("front").payload == {"pushes": 7}


def test_start_goes_on_after_a_name_that_is_taken(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")

    done = fsm("start", "cli_shop:Door", "front", "back", "--json")

    assert done.exit_code == 1
    front, back = json.loads(done.stdout)
    assert (front["name"], front["started"], front["job_id"]) == ("front", False, None)
    assert "exists already" in front["error"]
    assert back["started"]
    assert back["job_id"]
    assert done.stderr == f"fsm: {front['error']}\n"
    assert client.exists("back")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("start", "Door", "x"), 1, "unknown machine 'Door': none are known"),
        (("start", "cli_shop:Door", "x", "--state", "opn"), 1, "did you mean 'open'"),
        (("start", "cli_shop:Door", "x", "--state", "gone"), 1, "end in 'gone'"),
        (("start", "Dor", "x", "--app", "cli_shop"), 1, "known are Door, Lamp"),
        (("start", "cli_shop:Dor", "x"), 2, "has no 'Dor'"),
        (("start", "cli_missing:Door", "x"), 2, "no module 'cli_missing'"),
        (("start", "cli_shop:Door", ""), 1, "name"),
        (("start", "cli_shop:Door", "x", "--payload", "[1]"), 1, "$"),
        (("start", "cli_shop:Door", "x", "--payload", "{"), 2, "is not JSON"),
        (("start", "cli_shop:Door"), 2, "NAME"),
        (("transition", "x", "push"), 1, "no FSM 'x'"),
        (("transition", "x", "push", "tea"), 2, "quote strings as '\"tea\"'"),
        (("transition", "x", "push", "NaN"), 2, "is not JSON"),
        (("transition", "x", "push", "18446744073709551616"), 1, "$"),
        (("transition", "x", "push", "--meta", "3"), 1, "meta"),
        (("transition", "x", "push", "--job-id", "a--b"), 1, "a--b"),
        (("transition", "x", "push", "--key", "k" * 513), 1, "key: a key has at most 512 bytes"),
        (("transition", "x", "push", "--key", "k", "--job-id", "j"), 1, "give either key= or job_id="),
        (("transition", "x", "push", "--if-version", "-1"), 1, "if_version"),
        (("transition", "x", "push", "--if-version", "one"), 2, "--if-version"),
        (("transition", "x", "push", "--delay", "-1"), 2, "--delay': -1.0 is negative"),
        (("transition", "x", "push", "--delay", "soon"), 2, "--delay': 'soon' is no length of time"),
        (("transition", "x", "push", "--at", "soon"), 2, "'soon' is no moment: write it as 2026-12-01T08:00+01:00"),
        (("transition", "x", "push", "--at", "2026-12-01T08:00"), 2, "has no zone: write it as 2026-12-01T08:00+01:00"),
        (("transition", "x", "push", "--at", "2026-12-01T08:00Z", "--delay", "1"), 1, "exclude one another"),
        (("transition", "x", "push", "--start", "Door"), 1, "unknown machine 'Door'"),
        (("transition", "x", "push", "--start", "cli_shop:Dor"), 2, "has no 'Dor'"),
        (("transition", "x", "pusch", "--start", "cli_shop:Door"), 1, "did you mean 'push'"),
        (("transition", "x", "push", "--namespace", "a:b"), 2, "namespace 'a:b'"),
        (("purge", "x"), 2, "--yes"),
        (("purge", "x", "--yes"), 1, "no FSM 'x'"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = fsm(*arguments)

    assert done.exit_code == code, done.output
    assert text in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_application_that_cannot_be_imported_is_wrong_use(fsm: Run) -> None:
    Path("cli_broken.py").write_text("x = 1\nraise KeyError('gone')\n", encoding="utf-8")

    done = fsm("start", "cli_broken:Door", "x")

    assert done.exit_code == 2
    assert "KeyError: 'gone'" in done.stderr
    assert "cli_broken.py, line 2" in done.stderr
    assert done.stderr.count("\n") == 1


def test_start_knows_a_machine_by_the_name_that_workers_announced(
    fsm: Run, client: Client, work: Callable[[], None]
) -> None:
    work()

    done = fsm("start", "Door", "front", "--payload", '{"pushes": 7}')

    assert (done.exit_code, done.stdout) == (0, "started\tfront\n")
    assert client.state("front").payload == {"pushes": 7}
    unknown = fsm("start", "Dor", "x")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "unknown machine 'Dor': known are Door" in unknown.stderr


def test_start_adopts_what_is_alive_already(fsm: Run, client: Client) -> None:
    done = fsm("start", "cli_shop:Door", "front", "back", "--state", "open")

    assert (done.exit_code, done.stdout) == (0, "started\tfront\nstarted\tback\n")
    assert (client.state("front").state, client.state("front").status) == ("open", "running")


def test_start_leaves_what_exists_where_it_may(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front", "--payload", '{"pushes": 7}')

    done = fsm("start", "cli_shop:Door", "front", "back", "--exist-ok")
    as_json = fsm("start", "cli_shop:Door", "front", "--exist-ok", "--json")
    other = fsm("start", "cli_shop:Lamp", "front", "--exist-ok")

    assert (done.exit_code, done.stdout) == (0, "exists\tfront\nstarted\tback\n")
    assert json.loads(as_json.stdout) == [{"name": "front", "started": False, "job_id": None, "error": None}]
    assert client.state("front").payload == {"pushes": 7}
    assert other.exit_code == 1
    assert "of machine 'Door'" in other.stderr


def test_the_same_key_twice_is_one_event_and_other_data_are_a_conflict(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")

    first = fsm("transition", "front", "push", "1", "--key", "stripe:evt_1")
    second = fsm("transition", "front", "push", "1", "--key", "stripe:evt_1")
    other = fsm("transition", "front", "push", "2", "--key", "stripe:evt_1")

    assert first.stdout == second.stdout
    assert client.redis.llen(client.keys.mailbox("front")) == 2
    assert other.exit_code == 1
    assert "key 'stripe:evt_1' was used for another event" in other.stderr


def test_an_event_for_another_version_is_refused(fsm: Run, work: Callable[[], None]) -> None:
    fsm("start", "cli_shop:Door", "front")
    work()

    done = fsm("transition", "front", "push", "--if-version", "0")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "decided on version 0 of the FSM, which has version 1 now" in done.stderr


def test_an_event_starts_its_fsm_and_settles(fsm: Run, client: Client, work: Callable[[], None]) -> None:
    fsm("transition", "front", "push", "--start", "cli_shop:Door", "--key", "k", "--app", "cli_shop")
    work()
    fsm("transition", "back", "push", "--start", "Door")

    done = fsm("transition", "front", "push", "--settle", "--key", "k", "--json")

    assert (done.exit_code, json.loads(done.stdout)["state"]) == (0, "open")
    assert client.state("back").status == "starting"


def test_transition_sends_data_and_meta(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")

    done = fsm("transition", "front", "push", '{"by": "ann"}', "--meta", '{"actor": "ann"}', "--json")

    sent = json.loads(done.stdout)
    assert (sent["name"], sent["event"]) == ("front", "push")
    record = client.redis.hgetall(client.keys.job(sent["job_id"]))
    assert b'"front","push",{"by":"ann"}' in record[b"data"]
    assert json.loads(record[b"meta"]) == {"actor": "ann"}


@pytest.mark.parametrize(
    ("option", "value", "ms"),
    [("--delay", "2.5", 2500), ("--delay", "1h30m", 5_400_000), ("--at", "2100-01-01T01:00+01:00", None)],
)
def test_an_event_may_be_sent_for_later(fsm: Run, client: Client, option: str, value: str, ms: int | None) -> None:
    fsm("start", "cli_shop:Door", "front")

    assert fsm("transition", "front", "push", option, value).exit_code == 0

    (event,) = client.jobs("front").delayed
    assert event.next_at is not None
    if ms is None:
        assert event.next_at.isoformat() == "2100-01-01T00:00:00+00:00"
    else:
        seconds = client.redis.time()[0]
        assert abs(event.next_at.timestamp() - seconds - ms / 1000) < 60


def test_the_same_job_id_twice_is_one_event(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")

    first = fsm("transition", "front", "push", "--job-id", "mine")
    second = fsm("transition", "front", "push", "--job-id", "mine")

    assert first.stdout == second.stdout == "sent\tpush\tfront\tmine\n"
    assert client.redis.lrange(client.keys.mailbox("front"), 1, -1) == [b"mine"]


def test_waiting_in_vain_fails_and_says_that_the_event_stays(fsm: Run) -> None:
    fsm("start", "cli_shop:Door", "front")

    done = fsm("transition", "front", "push", "--wait", "--timeout", "0", "--json")

    assert done.exit_code == 1
    assert "it stays enqueued as job" in done.stderr
    assert json.loads(done.stdout)["error"] == "CallTimeoutError"


def test_waiting_for_what_has_ended_prints_its_outcome(fsm: Run, work: Callable[[], None]) -> None:
    fsm("start", "cli_shop:Door", "front")
    for event, job_id in (("break", "j1"), ("push", "j2"), ("pull", "j3")):
        fsm("transition", "front", event, "--job-id", job_id)
    work()

    failed = fsm("transition", "front", "break", "--job-id", "j1", "--wait", "--json")
    done = fsm("transition", "front", "push", "--job-id", "j2", "--wait", "--json")
    text = fsm("transition", "front", "push", "--job-id", "j2", "--wait")
    refused = fsm("transition", "front", "pull", "--job-id", "j3", "--wait")

    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["error"] == "HandlerError"
    assert "no glass" in failed.stderr
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "name": "front",
        "event": "push",
        "state": "open",
        "version": 3,
        "job_id": "j2",
        "ok": True,
        "reply": {"pushes": 1},
        "reason": "",
        "error": None,
    }
    assert text.stdout.splitlines()[:2] == ["state:   open", "version: 3"]
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "fsm: event 'pull' of FSM 'front' in state 'open': stuck\n"


def test_purge_takes_each_away_and_names_the_others(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front", "back")

    done = fsm("purge", "front", "nobody", "back", "--yes", "--json")

    assert done.exit_code == 1
    assert [(one["name"], one["purged"]) for one in json.loads(done.stdout)] == [
        ("front", True),
        ("nobody", False),
        ("back", True),
    ]
    assert not client.exists("front")
    assert not client.exists("back")
    assert done.stderr.startswith("fsm: no FSM 'nobody'")


def test_purge_takes_away_what_has_finished(fsm: Run, client: Client, work: Callable[[], None]) -> None:
    fsm("start", "cli_shop:Door", "front", "back", "side")
    for name in ("front", "back"):
        fsm("transition", name, "push")
        fsm("transition", name, "leave")
    work()

    late = fsm("purge", "--finished", "--older-than", "1h", "--machine", "Door", "--yes", "--json")
    counted = fsm("purge", "--finished", "--older-than", "0", "--dry-run")
    assert json.loads(late.stdout) == {"count": 0, "dry_run": False}
    assert (counted.stdout, counted.exit_code) == ("counted: 2\n", 0)
    assert fsm("purge", "--finished", "--older-than", "0", "--yes").stdout == "purged: 2\n"
    assert [one.name for one in client.snapshots()] == ["side"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "name the FSMs, or say --finished"),
        (("front", "--machine", "Door"), 2, "--older-than, --machine and --dry-run go with --finished"),
        (("front", "--dry-run"), 2, "go with --finished"),
        (("front", "--finished", "--older-than", "1d", "--yes"), 2, "--finished takes no names"),
        (("--finished", "--yes"), 2, "--finished wants --older-than"),
        (("--finished", "--older-than", "soon"), 2, "is no length of time"),
        (("--finished", "--older-than", "1d"), 2, "say --yes"),
        (("--finished", "--older-than", "1d", "--machine", "Dor"), 1, "unknown machine 'Dor'"),
    ],
)
def test_purge_refuses_what_is_not_clear(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    fsm("start", "cli_shop:Door", "front")

    done = fsm("purge", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
    assert fsm("state", "front").exit_code == 0


@pytest.mark.parametrize(("answer", "code", "stays"), [("y\n", 0, False), ("n\n", 1, True)])
def test_purge_asks_a_person(
    fsm: Run, client: Client, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, stays: bool
) -> None:
    fsm("start", "cli_shop:Door", "front")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)

    done = fsm("purge", "front", stdin=answer)

    assert done.exit_code == code, done.output
    assert client.exists("front") is stays
    assert "Take away FSM 'front' for good?" in done.stderr


def test_purge_asks_a_person_for_how_many(
    fsm: Run, client: Client, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsm("start", "cli_shop:Door", "front")
    fsm("transition", "front", "push")
    fsm("transition", "front", "leave")
    work()
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)

    done = fsm("purge", "--finished", "--older-than", "0", "--machine", "Door", stdin="y\n")

    assert done.exit_code == 0, done.output
    assert "Take away 1 FSM of machine 'Door' that finished for good?" in done.stderr
    assert not client.exists("front")


@pytest.mark.parametrize(
    "arguments", [("start", "cli_shop:Door", "front"), ("transition", "front", "push"), ("sync",)], ids=" ".join
)
def test_a_wrong_word_of_durability_is_wrong_use(fsm: Run, client: Client, arguments: tuple[str, ...]) -> None:
    done = fsm(*arguments, "--durability", "disk")

    assert done.exit_code == 2
    assert done.stderr.startswith("fsm: --durability: must be memory, fsync, replicas:N or fsync+replicas:N")
    assert not client.exists("front")


def test_the_durability_of_the_settings_counts_where_no_option_says_otherwise(
    fsm: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsm("start", "cli_shop:Door", "front")
    monkeypatch.setenv("FSM_DURABILITY", "disk")

    assert fsm("transition", "front", "push").exit_code == 2
    assert fsm("transition", "front", "push", "--durability", "memory").exit_code == 0
