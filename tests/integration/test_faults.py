"""What goes wrong around real workers: kills, pauses, a full Redis, cut connections, names, and RQ's own workers.

Where a protection of ours is at stake, the test says without which one it was seen to fail.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from fsm import Client, HandlerError
from fsm.store import calls
from fsm.store.keys import Keys
from fsm.store.requests import run
from tests.integration.machines import Journal, Parcel, Slow, Trouble
from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from fsm.store.embedded import EmbeddedServer
    from tests.integration.conftest import Processes

KEYS = Keys("default")
FLOCK = [f"journal-{n}" for n in range(3000)]
ROUNDS = 4


def at_rest(raw_redis: redis.Redis) -> bool:
    """Nobody waits, and nobody is held."""
    return not raw_redis.exists("fsm:default:ready:fsm", "fsm:default:held")


@pytest.fixture
def flock(client: Client) -> list[str]:
    """So many journals with mail that a worker claims ahead for about a second."""
    client.start_many(Journal, FLOCK)
    for number in range(ROUNDS):
        client.transition_many([(name, "note", number) for name in FLOCK])
    return FLOCK


def flows(raw_redis: redis.Redis) -> Callable[[], bool]:
    """Whether a worker holds FSMs of two claims: those in hand, and those claimed ahead."""
    return lambda: any(len(set(raw_redis.hvals(key))) > 1 for key in raw_redis.keys("fsm:default:claims:*"))


def assert_all_noted_once(client: Client, names: list[str], rounds: int = ROUNDS) -> None:
    for name in names:
        state = client.state(name, Journal)
        assert state.payload == list(range(rounds))
        assert (state.version, state.tries) == (rounds + 1, 0)


@pytest.fixture
def full(raw_redis: redis.Redis) -> Iterator[Callable[[], None]]:
    """Fill Redis, until the test ends."""
    settings: Any = raw_redis

    def fill() -> None:
        settings.config_set("maxmemory-policy", "noeviction")
        settings.config_set("maxmemory", 1)

    yield fill
    settings.config_set("maxmemory", 0)


def test_what_a_killed_worker_had_claimed_ahead_goes_on_elsewhere_uncharged(
    processes: Processes, client: Client, raw_redis: redis.Redis, flock: list[str], until: Callable[..., Any]
) -> None:
    # Seen to fail without `recover`: what it held stayed locked up in `held`.
    worker = processes.worker("--lease", "1s")
    until(flows(raw_redis))
    worker.kill()
    assert raw_redis.zcard("fsm:default:held") > 0
    processes.worker("--lease", "1s")

    until(lambda: at_rest(raw_redis), 60)

    assert_all_noted_once(client, flock)


def test_suspended_in_full_flow_a_worker_holds_nothing_and_goes_on_when_resumed(
    processes: Processes, client: Client, raw_redis: redis.Redis, flock: list[str], until: Callable[..., Any]
) -> None:
    # Seen to fail without `_settle`: the FSMs claimed ahead stayed locked, and were charged when the lease was over.
    processes.worker("--name", "edge", "--lease", "1s")
    until(flows(raw_redis))
    suspend(raw_redis)
    rounds = ROUNDS
    while raw_redis.hget("rq:worker:edge", "state") != b"suspended":
        # It looks twice a second, and would be done by then.
        client.transition_many([(name, "note", rounds) for name in flock])
        rounds += 1

    assert not raw_redis.keys("fsm:default:lock:*")
    assert not raw_redis.exists("fsm:default:held")
    assert raw_redis.zcard("fsm:default:ready:fsm") > 0
    resume(raw_redis)
    until(lambda: at_rest(raw_redis), 60)
    assert_all_noted_once(client, flock, rounds)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_full_flow_a_worker_leaves_nothing_held(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    flock: list[str],
    until: Callable[..., Any],
    stop: signal.Signals,
) -> None:
    # Seen to fail without `_settle` in the teardown: what was claimed ahead was freed, but charged as by a death.
    worker = processes.worker()
    until(flows(raw_redis))
    worker.send_signal(stop)
    output, _ = worker.communicate(timeout=30)

    assert worker.returncode == 0, output
    assert not raw_redis.keys("fsm:default:lock:*")
    assert not raw_redis.keys("fsm:default:claims:*")
    assert not raw_redis.exists("fsm:default:held")
    assert not any(raw_redis.hexists(f"fsm:default:snapshot:{name}", "tries") for name in flock)
    processes.worker("--burst").communicate(timeout=60)
    assert_all_noted_once(client, flock)


def test_a_full_redis_is_drained_by_workers_that_were_started_in_it(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    flock: list[str],
    full: Callable[[], None],
    until: Callable[..., Any],
) -> None:
    # Seen to fail without `except OutOfMemoryError` in `register_birth`: the worker ended before its first claim; and
    # without the guard around the cleaning of registries: it ended right after it.
    full()
    worker = processes.worker("--name", "edge")
    until(lambda: at_rest(raw_redis), 60)

    assert worker.poll() is None
    assert raw_redis.zscore("fsm:default:workers", "edge")
    assert_all_noted_once(client, flock)
    worker.terminate()
    output, _ = worker.communicate(timeout=15)
    assert worker.returncode == 0, output
    assert not raw_redis.exists("fsm:default:workers")


def test_a_redis_that_becomes_full_and_has_room_again_loses_no_worker(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    flock: list[str],
    full: Callable[[], None],
    until: Callable[..., Any],
) -> None:
    # Seen to fail without the guard in `set_state`: the worker ended when it had nothing left to do.
    worker = processes.worker()
    until(flows(raw_redis))
    full()
    until(lambda: at_rest(raw_redis), 60)
    settings: Any = raw_redis
    settings.config_set("maxmemory", 0)

    job = client.transition("journal-0", "note", ROUNDS)

    assert job.result(10).ok
    assert worker.poll() is None
    assert_all_noted_once(client, flock[1:])


def cut(raw_redis: redis.Redis) -> None:
    """Cut all connections but ours."""
    connection: Any = raw_redis
    connection.client_kill_filter(_type="normal", skipme=True)
    connection.client_kill_filter(_type="pubsub", skipme=True)


def test_connections_that_are_cut_while_a_worker_sleeps_runs_or_is_suspended_cost_nothing(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without `Line._carry_all` where a request cannot be sent.
    slow = client.start_fsm(Slow, "slow")
    worker = processes.worker("--name", "edge", "--lease", "1s")
    assert slow.call("nap", 0).ok
    until(lambda: raw_redis.hget("rq:worker:edge", "state") == b"idle")
    for _ in range(3):
        cut(raw_redis)
        assert slow.call("nap", 0).ok

    job = slow.transition("nap", 1.5)
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    cut(raw_redis)
    assert job.result(10).ok

    suspend(raw_redis)
    until(lambda: raw_redis.hget("rq:worker:edge", "state") == b"suspended")
    cut(raw_redis)
    job = slow.transition("nap", 0)
    cut(raw_redis)
    resume(raw_redis)
    assert job.result(10).ok

    assert slow.state().payload == {"naps": 6}
    assert slow.state().version == 7
    assert worker.poll() is None


def test_an_outage_longer_than_all_repeats_of_redis_py_is_waited_for(
    processes: Processes, client: Client, redis_server: EmbeddedServer, until: Callable[..., Any]
) -> None:
    # Seen to fail without the repeats in `Carrier.carry`: the worker ended.
    slow = client.start_fsm(Slow, "slow")
    with Proxy(redis_server.url.removeprefix("unix://")) as proxy:
        worker = processes.worker("--url", proxy.url, "--lease", "2s")
        assert slow.call("nap", 0).ok
        proxy.is_cut = True
        # Sleep, heartbeat and `recover` each repeat seven times before the carrier does; the lease keeper does besides.
        until(lambda: proxy.refused > 90, 60)
        job = slow.transition("nap", 0)
        proxy.is_cut = False

        assert job.result(15).ok
        assert worker.poll() is None
        worker.terminate()
        output, _ = worker.communicate(timeout=15)
    assert worker.returncode == 0, output
    assert "waiting for Redis" in output
    assert slow.state().payload == {"naps": 2}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whichever_replies_are_lost_each_event_is_applied_once(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    redis_server: EmbeddedServer,
    flock: list[str],
    until: Callable[..., Any],
    seed: int,
) -> None:
    # Seen to fail without `Line._carry_all` where a reply breaks off.
    with Proxy(redis_server.url.removeprefix("unix://"), seed) as proxy:
        worker = processes.worker("--url", proxy.url, "--lease", "2s")
        until(flows(raw_redis))
        proxy.loses_one_in = 12
        until(lambda: at_rest(raw_redis), 60)
        proxy.loses_one_in = 0

        assert worker.poll() is None
        worker.terminate()
        output, _ = worker.communicate(timeout=15)
    assert worker.returncode == 0, output
    assert proxy.lost > 5
    assert_all_noted_once(client, flock)


def test_a_worker_that_is_told_to_stop_while_redis_hangs_still_gives_back_what_it_holds(
    processes: Processes, client: Client, raw_redis: redis.Redis, flock: list[str], until: Callable[..., Any]
) -> None:
    worker = processes.worker()
    until(flows(raw_redis))
    connection: Any = raw_redis
    connection.client_pause(1500)
    worker.terminate()
    output, _ = worker.communicate(timeout=20)

    assert worker.returncode == 0, output
    assert not raw_redis.keys("fsm:default:lock:*")
    processes.worker("--burst").communicate(timeout=60)
    assert_all_noted_once(client, flock)


def test_of_two_workers_that_took_one_name_the_elder_ends_and_the_younger_does_the_work(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without `Pulse.beat` looking at the record: both lived, and freed each other's locks at each claim.
    elder = processes.worker("--name", "twin")
    until(lambda: raw_redis.hget("rq:worker:twin", "state") == b"idle")
    # As when both look for the other before either has written, which is how RQ registers them.
    elder.send_signal(signal.SIGSTOP)
    raw_redis.delete("rq:worker:twin")
    younger = processes.worker("--name", "twin")
    until(lambda: raw_redis.hget("rq:worker:twin", "state") == b"idle")
    elder.send_signal(signal.SIGCONT)

    output, _ = elder.communicate(timeout=20)

    assert elder.returncode == 1
    assert "another worker took the name 'twin'" in output
    assert client.start_fsm(Journal, "journal").call("note", 1).ok
    assert younger.poll() is None
    assert raw_redis.exists("rq:worker:twin")
    assert not raw_redis.hexists("rq:worker:twin", "death")


@pytest.mark.parametrize("name", ["rack/7", "with space:and%colons", "☃\nnewline"])
def test_names_of_workers_with_odd_characters_work_and_recover(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], name: str
) -> None:
    # The lock is "<worker>/<token>", and compared as a whole.
    slow = client.start_fsm(Slow, "slow")
    worker = processes.worker(f"--name={name}", "--lease", "500ms")
    assert slow.call("nap", 0).ok
    job = slow.transition("nap", 1)
    lock = until(lambda: raw_redis.get("fsm:default:lock:slow"))
    assert lock.decode().rpartition("/")[0] == name

    assert client.state("slow").version == 2
    assert job.result().ok  # renewed twice meanwhile
    assert slow.state().version == 3
    slow.transition("nap", 1)
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    worker.kill()
    processes.worker("--lease", "500ms")
    assert slow.call("nap", 0, timeout=15).ok


def test_fsms_of_machines_that_a_worker_does_not_know_are_not_held_though_claimed_ahead(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without `Intake._known`: the worker ended with a KeyError.
    journals = [f"journal-{n}" for n in range(300)]
    parcels = [f"parcel-{n}" for n in range(300)]
    for journal, parcel in zip(journals, parcels, strict=True):
        client.start_many(Journal, [journal])
        client.start_many(Parcel, [parcel])
    client.transition_many([(name, "note", number) for number in range(10) for name in journals])
    packed = client.transition_many([(name, "pack", {}) for name in parcels])
    stranger = processes.run("-m", "workers", "--app", "tests.integration.machines:Journal", "--queue", "fsm")
    until(lambda: raw_redis.zcard("fsm:default:ready:fsm") <= 300 and client.state(journals[-1]).version == 11, 30)

    processes.worker()

    until(lambda: all(client.job(verdict.job_id).status() == "done" for verdict in packed), 30)
    assert stranger.poll() is None
    assert_all_noted_once(client, journals, 10)
    assert {client.state(name).tries for name in parcels} == {0}


def test_a_stock_rq_worker_adopts_what_rq_requeued_and_runs_it_again(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    # Seen to fail without `found` in `workers.serving.serve`: the job said FAILED again, and nothing was run.
    trouble = client.start_fsm(Trouble, "trouble", {"n": 0})
    job = trouble.transition("fail")
    processes.rq_worker("--burst", "fsm").communicate(timeout=60)
    with pytest.raises(HandlerError):
        job.result()
    version = trouble.state().version
    later = trouble.transition("count")
    Queue("fsm", connection=raw_redis, serializer=JSONSerializer).failed_job_registry.requeue(job.id)

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert later.result().ok, output
    assert trouble.state().version == version + 2
    assert trouble.state().payload == {"n": 1}
    assert job.status() == "failed"
    assert [line["event"] for line in trouble.log()] == ["[*]", "fail", "count", "fail"]
    assert at_rest(raw_redis)


def test_a_stock_rq_worker_frees_what_a_dead_one_held(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    # Seen to fail without `recover` in `workers.jobs`: where no worker of ours runs, the job was retried for ever.
    journal = client.start_fsm(Journal, "journal")
    job = journal.transition("note", 1)
    dead = calls.claim(KEYS, "dead", "fsm", "ab" * 16, 1, lease_ms=700, fsms=1)
    assert [fsm.name for fsm in run(raw_redis, dead).held] == ["journal"]
    raw_redis.rpush("rq:queue:fsm", job.id)  # as `rq requeue` does with a job whose horse died

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert job.result(1).ok, output
    assert at_rest(raw_redis)


@pytest.mark.slow
def test_stock_workers_and_ours_on_the_same_mailboxes_keep_the_order_and_apply_all_once(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Handlers take longer than a stock worker's looks at its FSM are apart, so that they do meet. Seen to fail without
    # all three of: `ready` asked for the wanted FSM and NX of the lock in `claim`, the token in `commit`. Any one of
    # them that is left, or any two, still hold it up.
    names = [f"slow-{n}" for n in range(3)]
    client.start_many(Slow, names)
    stock = [processes.rq_worker("fsm") for _ in range(2)]
    ours = processes.worker("--batch", "1")
    until(lambda: raw_redis.scard("rq:workers") == 3 and at_rest(raw_redis))
    sent: dict[str, list[str]] = {name: [] for name in names}
    for _ in range(25):
        for verdict, name in zip(client.transition_many([(name, "nap", 0.06) for name in names]), names, strict=True):
            sent[name].append(verdict.job_id)

    until(lambda: at_rest(raw_redis), 60)

    served = {entry[b"worker"].startswith(b"rq-") for _, entry in raw_redis.xrange("fsm:default:log")}
    assert served == {True, False}
    for name in names:
        lines = [line for line in client.log(name) if line["event"] == "nap"]
        assert [line["job"] for line in lines] == sent[name]
        assert [line["version"] for line in lines] == list(range(2, 27))
        state = client.state(name)
        assert (state.payload, state.version, state.tries) == ({"naps": 25}, 26, 0)
    assert [worker.poll() for worker in (ours, *stock)] == [None, None, None]
