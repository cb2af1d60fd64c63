import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]
NOTE = {
    "func": "shop.charge",
    "queue": "reports",
    "on_success": "push",
    "on_failure": "pull",
    "at_ms": 1_790_000_000_000,
}


@pytest.fixture
def front(fsm: Run, work: Callable[[], None], client: Client) -> None:
    """A door with two events that wait, and two effects: one that waits for a retry, one whose job was deleted."""
    fsm("start", "cli_shop:Door", "front")
    work()
    client.transition("front", "push", {"who": "ann\n"}, meta={"ip": "::1"}, job_id="one")
    client.transition("front", "pull", job_id="two")
    client.redis.hset("fsm:default:effects:front", "one--e1", json.dumps(NOTE))
    client.redis.hset(
        "fsm:default:effects:front", "one--e2", json.dumps(NOTE | {"on_success": "", "at_ms": 1_790_000_000_001})
    )
    record = {"data": '["shop.charge",null,["front"],{"coins":24}]', "status": "scheduled", "origin": "reports"}
    client.redis.hset("rq:job:one--e1", mapping=record | {"retries_left": 2, "deaths": 1})


@pytest.mark.usefixtures("front")
def test_jobs_lists_events_that_wait_and_open_effects(fsm: Run, client: Client) -> None:
    client.redis.zadd("fsm:default:timers", {"deadline one--e1 front": 1_790_000_060_000})
    done = fsm("jobs", "front")

    assert done.exit_code == 0
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert [row[:4] for row in rows] == [
        ["event", "one", 'push {"who": "ann\\\\n"}', "waiting"],
        ["event", "two", "pull", "waiting"],
        [
            *("effect", "one--e1", 'shop.charge("front", coins=24)'),
            "scheduled in reports, 2 retries left, 1 worker died on it, deadline 2026-09-21T14:14:20.000+00:00",
        ],
        ["effect", "one--e2", "shop.charge()", "no record in reports"],
    ]
    assert [row[5] for row in rows] == ['{"ip": "::1"}', "", "push or pull", "pull"]
    assert rows[2][4] == "2026-09-21T14:13:20.000+00:00"


@pytest.mark.usefixtures("front")
def test_jobs_says_which_event_a_worker_has_in_hand(fsm: Run, client: Client) -> None:
    client.redis.set("fsm:default:lock:front", "edge-7/token")

    assert [row.split("\t")[3] for row in fsm("jobs", "front").stdout.splitlines()][:2] == [
        "in hand of edge-7",
        "waiting",
    ]


@pytest.mark.usefixtures("front")
def test_jobs_as_json_is_what_the_client_gives(fsm: Run, client: Client) -> None:
    found = json.loads(fsm("jobs", "front", "--json").stdout)

    assert found == client.jobs("front").as_json() == client.fsm("front").jobs().as_json()
    assert [event["job_id"] for event in found["events"]] == ["one", "two"]
    assert [effect["args"] for effect in found["effects"]] == [["front"], []]


@pytest.mark.usefixtures("front")
def test_jobs_lists_delayed_events_with_the_time_at_which_they_are_due(fsm: Run, client: Client) -> None:
    client.transition("front", "push", at=datetime(2100, 1, 2, tzinfo=UTC), job_id="new-year")
    client.transition("front", "pull", at=datetime(2100, 1, 1, tzinfo=UTC), job_id="eve")

    rows = [row.split("\t") for row in fsm("jobs", "front").stdout.splitlines()]
    assert [row[1] for row in rows] == ["one", "two", "eve", "new-year", "one--e1", "one--e2"]
    assert rows[2][:4] == ["event", "eve", "pull", "due at 2100-01-01T00:00:00.000+00:00"]


def test_of_one_time_they_are_listed_in_the_order_in_which_they_will_join(fsm: Run, client: Client) -> None:
    """Seen in the order of their ids."""
    fsm("start", "cli_shop:Door", "back")
    for job_id in ("zeal", "eve", "new-year"):
        client.transition("back", "push", at=datetime(2100, 1, 1, tzinfo=UTC), job_id=job_id)

    assert [one.job_id for one in client.jobs("back").delayed] == ["zeal", "eve", "new-year"]
    assert [one.key for one in client.timers("back")] == ["zeal", "eve", "new-year"]


@pytest.mark.usefixtures("front")
def test_jobs_says_how_many_more_there_are(fsm: Run, client: Client) -> None:
    client.transition_many([("front", "push")] * 999)

    done = fsm("jobs", "front")
    assert done.stderr == "fsm: … and 1 more event\n"
    assert len(done.stdout.splitlines()) == 1002


def test_jobs_of_an_fsm_that_is_not_there_is_an_error(fsm: Run) -> None:
    done = fsm("jobs", "nobody")

    assert done.exit_code == 1
    assert done.stderr.startswith("fsm: no FSM 'nobody'")
