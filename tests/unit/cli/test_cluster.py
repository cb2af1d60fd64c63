import json
from collections.abc import Callable
from datetime import UTC, datetime

from click.testing import Result

from fsm.client import Client

Run = Callable[..., Result]


def test_machines_lists_what_was_announced_with_counts(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front", "back")

    row = fsm("machines").stdout.rstrip("\n").split("\t")
    about = json.loads(fsm("machines", "--json").stdout)

    assert row[0:3] == ["Door", "fsm", client.machines()["Door"]["fingerprint"]]
    assert row[4] == "closed=2 open=0 gone=0"
    assert [(one["name"], one["queue"], one["states"]) for one in about] == [
        ("Door", "fsm", {"closed": 2, "open": 0, "gone": 0})
    ]


def test_machines_shows_those_of_the_application_too(fsm: Run, client: Client) -> None:
    fsm("start", "cli_shop:Door", "front")
    raw = json.loads(client.redis.hget(client.keys.machines, "Door") or b"")
    client.redis.hset(client.keys.machines, "Door", json.dumps(raw | {"fingerprint": "older"}))

    door, lamp = json.loads(fsm("machines", "--app", "cli_shop", "--json").stdout)

    assert door["fingerprint"] == "older"
    assert door["note"].startswith("in --app: ")
    assert (lamp["name"], lamp["note"], lamp["queue"], lamp["seen_at_ms"]) == ("Lamp", "not announced", "lamps", None)
    assert lamp["states"] == {"dark": 0, "bright": 0}


def test_info_shows_server_queues_and_counts(fsm: Run) -> None:
    fsm("start", "cli_shop:Door", "front", "back")
    fsm("start", "Lamp", "bulb", "--app", "cli_shop")

    about = json.loads(fsm("info", "--json", "--url", "redis://ann:secret@somewhere/3").stdout)

    assert about["url"] == "redis://ann:***@somewhere/3"
    assert (about["namespace"], about["alive"], about["held"], about["workers"]) == ("default", 3, 0, [])
    assert about["fsms"] == {"Door": {"closed": 2, "open": 0, "gone": 0}, "Lamp": {"dark": 1, "bright": 0}}
    queues = {queue["name"]: queue for queue in about["queues"]}
    assert {name: queue["ready"] for name, queue in queues.items()} == {"fsm": 2, "lamps": 1}
    age_ms = datetime.now(UTC).timestamp() * 1000 - queues["fsm"]["oldest_ms"]
    assert 0 <= age_ms < 60_000


def test_info_shows_workers_ours_and_stock_ones(fsm: Run, client: Client) -> None:
    now = datetime.now(UTC)
    record = {
        "hostname": "box",
        "pid": 7,
        "state": "idle",
        "queues": "fsm,extra",
        "last_heartbeat": now.isoformat(),
        "successful_job_count": 5,
    }
    client.redis.hset(client.keys.rq_worker("ours"), mapping=record)
    client.redis.hset(client.keys.rq_worker("stock"), mapping=record | {"queues": "fsm", "failed_job_count": 2})
    client.redis.hset(client.keys.rq_worker("dead"), mapping=record | {"death": now.isoformat()})
    # Seen to fail without the look at `life`: one of ours that was killed and buried was shown as a busy stock worker.
    client.redis.hset(client.keys.rq_worker("buried"), mapping=record | {"state": "busy", "life": "ab12"})
    for name in ("ours", "stock", "dead", "cleaned-up", "buried"):
        client.redis.sadd(client.keys.rq_workers("fsm"), client.keys.rq_worker(name))
    client.redis.zadd(client.keys.workers, {"ours": now.timestamp() * 1000, "lost": 1000})
    client.redis.hset(client.keys.claims("ours"), mapping={"a": "t", "b": "t"})

    about = json.loads(fsm("info", "--json").stdout)
    rows = [line.split("\t") for line in fsm("info").stdout.splitlines() if "\t" in line]

    lost, ours, stock = about["workers"]
    assert (lost["name"], lost["state"], lost["is_ours"]) == ("lost", "silent", True)
    assert lost["seen_at"] == "1970-01-01T00:00:01+00:00"
    assert {name: ours[name] for name in ("name", "host", "pid", "state", "queues", "holds", "done", "failed")} == {
        "name": "ours",
        "host": "box",
        "pid": 7,
        "state": "idle",
        "queues": ["fsm", "extra"],
        "holds": 2,
        "done": 5,
        "failed": 0,
    }
    assert (stock["name"], stock["is_ours"], stock["failed"], stock["state"]) == ("stock", False, 2, "idle")
    assert [queue["name"] for queue in about["queues"]] == ["fsm", "extra"]
    assert [row[0] for row in rows[:4]] == ["box", "lost", "ours", "stock (stock RQ)"]


def test_info_of_an_empty_redis_says_that_nobody_works(fsm: Run) -> None:
    done = fsm("info")

    assert done.exit_code == 0
    assert "workers:   0\n" in done.stdout
    assert "FSMs:      0 alive, 0 in hand\n" in done.stdout
    assert "fsm\t0\t0\t0\t0\t0\t\n" in done.stdout
