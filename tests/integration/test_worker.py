"""Workers as real processes: order, endings, stopping, dying, and RQ's own tools beside them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.connection import AbstractConnection
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from fsm import (
    AbandonedError,
    App,
    Client,
    FailedError,
    FSMFinishedError,
    HandlerError,
    HandlerTimeoutError,
    RejectedError,
)
from fsm.store import calls
from fsm.store.keys import Keys
from fsm.store.requests import run
from tests.integration.conftest import wait_until_asked
from tests.integration.machines import Journal, Parcel, Slow, Trouble
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.integration.conftest import Processes

Until = "Callable[..., Any]"


def at_rest(raw_redis: redis.Redis) -> bool:
    """Nobody waits, and nobody is held."""
    return not raw_redis.exists("fsm:default:ready:fsm", "fsm:default:held")


def send_numbers(url: str, seed: int, names: list[str], first: int, count: int) -> None:
    """Send numbers to FSMs drawn by chance, in portions: one producer of several."""
    draw = random.Random(seed)
    with Client(url, namespace="default") as client:
        items = [(draw.choice(names), "note", number) for number in range(first, first + count)]
        while items:
            portion = draw.randint(1, 300)
            assert all(verdict.ok for verdict in client.transition_many(items[:portion]))
            items = items[portion:]


def test_events_of_many_producers_are_applied_once_and_in_the_order_of_the_mailbox(
    processes: Processes, client: Client, raw_redis: redis.Redis, redis_url: str, until: Callable[..., Any]
) -> None:
    names = [f"journal-{n}" for n in range(100)]
    client.start_many(Journal, names)
    # Workers run meanwhile; but what lay in each mailbox, and in which order, is read from the log of all pushes.
    monitor: dict[str, list[int]] = defaultdict(list)
    context = get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        sent = [pool.submit(send_numbers, redis_url, seed, names, seed * 2500, 2500) for seed in range(4)]
        for future in sent:
            future.result()
    for name in names:
        for job_id in raw_redis.lrange(f"fsm:default:mailbox:{name}", 0, -1):
            data = raw_redis.hget(b"rq:job:" + job_id, "data")
            call = JSONSerializer.loads(data)
            if call[2][2] == "note":
                monitor[name].append(call[2][3])
    processes.worker()
    processes.worker()
    until(lambda: at_rest(raw_redis), 60)

    applied = {name: client.state(name, Journal).payload for name in names}

    assert applied == dict(monitor)
    assert sorted(number for numbers in applied.values() for number in numbers) == list(range(10_000))


def test_events_stay_in_order_while_producers_and_two_workers_run_at_once(
    processes: Processes, client: Client, raw_redis: redis.Redis, redis_url: str, until: Callable[..., Any]
) -> None:
    names = [f"journal-{n}" for n in range(20)]
    client.start_many(Journal, names)
    processes.worker()
    processes.worker()
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(send_numbers, redis_url, seed, names, seed * 1000, 1000) for seed in range(4)]:
            future.result()
    until(lambda: at_rest(raw_redis), 60)

    applied = [client.state(name, Journal).payload for name in names]

    assert sorted(number for numbers in applied for number in numbers) == list(range(4000))
    for numbers in applied:
        for producer in range(4):
            own = [number for number in numbers if number // 1000 == producer]
            assert own == sorted(own)


def test_hard_events_follow_before_other_mail_as_jobs_of_their_own(processes: Processes, client: Client) -> None:
    parcel = client.start_fsm(Parcel, "parcel")
    sent = parcel.transition("pack", {"to": "Ada"})
    late = parcel.transition("pack", {"to": "Bob"})
    processes.worker()

    assert sent.result().state == "packed"
    with pytest.raises(FSMFinishedError):
        late.result()
    state = parcel.state()
    assert (state.state, state.status, state.payload) == ("home", "finished", {"to": "Ada"})
    assert client.job(f"{sent.id}--h1").result().state == "sent"
    assert [line["event"] for line in parcel.log()] == ["[*]", "pack", "send", "arrive", "pack"]


def test_a_failure_takes_its_fails_edge(processes: Processes, client: Client) -> None:
    parcel = client.start_fsm(Parcel, "parcel")
    processes.worker()

    sent = parcel.transition("pack", {"heavy": True})
    sent.result()

    with pytest.raises(HandlerError, match="too heavy"):
        client.job(f"{sent.id}--h1").result()
    assert parcel.state().state == "broken"
    assert parcel.state().error["message"] == "too heavy"


def test_what_a_handler_sends_goes_out_with_the_commit(
    processes: Processes, client: Client, raw_redis: redis.Redis, tmp_path: Path, until: Callable[..., Any]
) -> None:
    mark = tmp_path / "touched"
    parcel = client.start_fsm(Parcel, "parcel")
    processes.worker()
    parcel.call("pack", {"journal": "child", "touch": str(mark)})

    until(lambda: client.exists("child") and client.state("child").payload == [1])
    failed = {name.decode() for name in raw_redis.zrange("rq:failed:fsm", 0, -1)}
    assert len(failed) == 1
    with pytest.raises(FailedError, match="UNKNOWN"):
        client.job(failed.pop()).result()
    processes.rq_worker("--burst", "fsm-effects").communicate()
    assert mark.exists()


@pytest.mark.parametrize(
    ("event", "error", "text"),
    [
        ("fail", HandlerError, "as told"),
        ("hang", HandlerTimeoutError, "time-out of 0.5 s"),
        ("dream", HandlerTimeoutError, "time-out of 0.4 s"),
        ("remember", HandlerError, "state belongs in t.payload"),
        ("reject", RejectedError, "not today"),
    ],
)
def test_an_event_that_is_not_done_leaves_the_fsm_as_it_was(
    processes: Processes, client: Client, event: str, error: type[Exception], text: str
) -> None:
    trouble = client.start_fsm(Trouble, "trouble", {"n": 7})
    processes.worker()

    with pytest.raises(error, match=text):
        trouble.call(event)

    assert trouble.state().payload == {"n": 7}
    assert trouble.call("count").ok
    assert trouble.state().payload == {"n": 8}
    assert trouble.state().error is None


def test_async_handlers_run_and_answer(processes: Processes, client: Client) -> None:
    trouble = client.start_fsm(Trouble, "trouble")
    processes.worker()

    assert trouble.call("awake").reply == "awake"
    assert trouble.call("choose", "up").state == "up"
    assert trouble.call("back").state == "on"
    with pytest.raises(HandlerError, match="does not lead there"):
        trouble.call("choose", "sideways")


def test_an_event_that_kills_its_workers_is_abandoned_and_its_neighbours_are_not(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    names = [f"t{n}" for n in range(20)]
    client.start_many(Trouble, names)
    client.transition("t7", "count")
    poison = client.transition("t7", "die")
    after = client.transition("t7", "count")
    client.transition_many([(name, "count") for name in names if name != "t7"])

    for _ in range(12):
        worker = processes.worker("--lease", "500ms")
        until(lambda w=worker: w.poll() is not None or poison.status() != "waiting", 20)
        if poison.status() != "waiting":
            break

    with pytest.raises(AbandonedError):
        poison.result()
    assert after.result().ok
    until(lambda: at_rest(raw_redis))
    assert client.state("t7").payload == {"n": 2}
    assert all(client.state(name).payload == {"n": 1} for name in names if name != "t7")


def test_what_a_killed_worker_held_goes_on_elsewhere_within_the_lease(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    slow = client.start_fsm(Slow, "slow")
    first = processes.worker("--lease", "1s")
    slow.call("nap", 0)
    job = slow.transition("nap", 30)
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    first.send_signal(signal.SIGKILL)
    first.wait()
    job.cancel()
    quick = slow.transition("nap", 0)

    processes.worker("--lease", "1s")
    raw_redis.hset(f"rq:job:{job.id}", "status", "canceled")

    assert quick.result(10).ok
    assert slow.state().payload == {"naps": 2}
    assert slow.state().tries == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_finishes_what_is_in_hand_and_gives_back_the_rest(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], stop: signal.Signals
) -> None:
    client.start_many(Slow, [f"s{n}" for n in range(30)])
    jobs = client.transition_many([(f"s{n}", "nap", 0.3) for n in range(30)])
    worker = processes.worker()
    until(lambda: raw_redis.exists("fsm:default:held"))

    worker.send_signal(stop)
    output, _ = worker.communicate(timeout=30)

    assert worker.returncode == 0, output
    assert not raw_redis.keys("fsm:default:lock:*")
    assert not raw_redis.keys("fsm:default:claims:*")
    assert not raw_redis.exists("fsm:default:held")
    words = {client.job(verdict.job_id).status() for verdict in jobs}
    assert words <= {"waiting", "done"}
    assert raw_redis.zcard("fsm:default:ready:fsm") > 0


def test_rq_shows_our_worker_and_queue_and_can_suspend_it(
    processes: Processes, client: Client, raw_redis: redis.Redis, redis_url: str, until: Callable[..., Any]
) -> None:
    journal = client.start_fsm(Journal, "journal")
    processes.worker("--name", "edge-7")
    journal.call("note", 1)

    shown = subprocess.run(
        [sys.executable, "-c", "from rq.cli import main; main()", "info", "-u", redis_url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "edge-7" in shown
    assert "fsm " in shown
    suspend(raw_redis)
    until(lambda: raw_redis.hget("rq:worker:edge-7", "state") == b"suspended")
    job = journal.transition("note", 2)
    assert job.status() == "waiting"
    resume(raw_redis)
    assert job.result().ok


def test_a_stock_rq_worker_finishes_a_mailbox_in_order(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    journal = client.start_fsm(Journal, "journal")
    numbers = list(range(50))
    verdicts = client.transition_many([("journal", "note", number) for number in numbers])
    last = Job.fetch(verdicts[-1].job_id, connection=raw_redis, serializer=JSONSerializer)
    assert last.args == ["default", "journal", "note", 49]

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert client.state("journal", Journal).payload == numbers, output
    for verdict in verdicts:
        job = Job.fetch(verdict.job_id, connection=raw_redis, serializer=JSONSerializer)
        assert job.get_status() == JobStatus.FINISHED
    assert journal.state().version == 51


def test_a_stock_rq_worker_records_a_failure_as_a_failure(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    trouble = client.start_fsm(Trouble, "trouble")
    before, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)
    job = trouble.transition("fail")

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert job.rq_job().get_status() == JobStatus.FAILED, before + output
    with pytest.raises(HandlerError, match="as told"):
        job.result()


def test_a_job_that_was_requeued_by_rq_is_applied_once_more_at_the_tail(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    trouble = client.start_fsm(Trouble, "trouble", {"n": 0})
    processes.worker()
    job = trouble.transition("fail")
    with pytest.raises(HandlerError):
        job.result()

    Queue("fsm", connection=raw_redis, serializer=JSONSerializer).failed_job_registry.requeue(job.id)

    until(lambda: trouble.state().version == 3)
    assert job.status() == "failed"


def test_an_emptied_rq_list_loses_nothing(processes: Processes, client: Client, raw_redis: redis.Redis) -> None:
    journal = client.start_fsm(Journal, "journal")
    job = journal.transition("note", 1)
    raw_redis.delete("rq:queue:fsm")

    processes.worker()

    assert job.result().ok


def test_an_fsm_whose_machine_no_worker_knows_waits_for_one_that_does(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    journal = client.start_fsm(Journal, "journal")
    job = journal.transition("note", 1)
    stranger = processes.run("-m", "workers", "--app", "tests.integration.machines:Slow", "--queue", "fsm")
    until(lambda: raw_redis.exists("fsm:default:workers"))
    assert job.status() == "waiting"

    processes.worker()

    assert job.result().ok
    stranger.terminate()
    output, _ = stranger.communicate(timeout=30)
    assert "'Journal'" in output


def test_burst_ends_when_nothing_is_left(processes: Processes, client: Client, raw_redis: redis.Redis) -> None:
    client.start_many(Journal, [f"j{n}" for n in range(300)])
    client.transition_many([(f"j{n % 300}", "note", n) for n in range(3000)])

    output, _ = processes.worker("--burst").communicate(timeout=60)

    assert at_rest(raw_redis), output
    assert sum(len(client.state(f"j{n}", Journal).payload) for n in range(300)) == 3000


def test_purge_waits_for_the_worker_and_tells_those_who_wait(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    slow = client.start_fsm(Slow, "slow")
    processes.worker()
    slow.call("nap", 0)
    slow.transition("nap", 0.5)
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    waiting = slow.transition("nap", 0)

    slow.purge()

    assert not slow.exists()
    with pytest.raises(FailedError, match="purged"):
        waiting.result()
    assert client.start_fsm(Slow, "slow").call("nap", 0).version == 2
    assert set(raw_redis.keys("fsm:default:*slow")) == {b"fsm:default:snapshot:slow"}


def test_a_worker_that_slept_through_its_lease_writes_nothing(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    slow = client.start_fsm(Slow, "slow")
    first = processes.worker("--lease", "500ms")
    slow.call("nap", 0)
    job = slow.transition("nap", 1)
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    first.send_signal(signal.SIGSTOP)
    second = processes.worker("--lease", "500ms")
    assert job.result(20).ok
    version = slow.state().version

    first.send_signal(signal.SIGCONT)
    assert slow.call("nap", 0, timeout=20).ok
    first.terminate()
    output, _ = first.communicate(timeout=30)

    assert slow.state().version == version + 1
    assert slow.state().payload == {"naps": 3}
    assert "was lost" in output
    assert second.poll() is None


def test_handlers_that_run_longer_than_the_lease_keep_their_lock(processes: Processes, client: Client) -> None:
    slow = client.start_fsm(Slow, "slow")
    processes.worker("--lease", "500ms")
    processes.worker("--lease", "500ms")

    assert slow.call("nap", 2.0, timeout=20).ok

    assert slow.state().version == 2
    assert slow.state().payload == {"naps": 1}


def test_a_lost_claim_is_freed_by_the_next_claim_of_the_worker(client: Client, raw_redis: redis.Redis) -> None:
    client.start_fsm(Journal, "journal")
    keys = Keys("default")
    lost = run(raw_redis, calls.claim(keys, "w", "fsm", "token-1", 1, lease_ms=15_000, fsms=10))

    found = run(raw_redis, calls.claim(keys, "w", "fsm", "token-2", 2, lease_ms=15_000, fsms=10))

    assert [fsm.name for fsm in lost.held] == [fsm.name for fsm in found.held] == ["journal"]
    assert raw_redis.get("fsm:default:lock:journal") == b"w/token-2"


def test_a_slow_handler_holds_up_neither_what_was_done_before_it_nor_the_fsms_behind_it(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail without `Batch.relieve`: both others waited for the one that waits here for them.
    enough = tmp_path / "enough"
    client.start_many(Slow, ["before", "slow", "behind"])
    worker = processes.worker()
    until(lambda: at_rest(raw_redis) and client.state("behind").version == 1)
    worker.send_signal(signal.SIGSTOP)
    before = client.transition("before", "nap", 0)
    slow = client.transition("slow", "hold", str(enough))
    behind = client.transition("behind", "nap", 0)
    processes.worker()
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))  # by the second, which claims all three at once
    worker.send_signal(signal.SIGCONT)

    assert before.result(15).ok
    assert behind.result(15).ok
    assert slow.status() == "waiting"
    enough.touch()
    assert slow.result(15).ok


def test_a_second_signal_stops_at_once_and_the_event_in_hand_goes_on_elsewhere(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    slow = client.start_fsm(Slow, "slow")
    worker = processes.worker("--log-level", "debug")
    slow.call("nap", 0)
    job = slow.transition("hold", str(enough))
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    worker.send_signal(signal.SIGTERM)
    wait_until_asked(worker)
    begin = time.monotonic()
    until(lambda: time.monotonic() - begin > 1.1)  # two signals within a second of being heard are one
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(15) == 0
    assert not raw_redis.keys("fsm:default:lock:*")
    enough.touch()
    processes.worker()
    assert job.result(15).ok
    assert slow.state().error is None


def test_a_sleep_that_is_broken_off_before_its_reply_is_read_leaves_no_reply_to_others(
    raw_redis: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where `Wire` keeps such a connection: the next request waited for the sleep, and took its reply.
    worker = TransitionWorker(App([Journal]), redis_url, ["fsm"])
    worker.register_birth()
    said: list[Any] = []
    send = AbstractConnection.send_command

    def signal_comes(connection: AbstractConnection, *command: Any, **options: Any) -> None:
        send(connection, *command, **options)
        if command[0] == "BLMOVE":
            worker._shutdown()

    monkeypatch.setattr(AbstractConnection, "send_command", signal_comes)
    monkeypatch.setattr(worker, "_settle", lambda: said.append(worker.connection.at_once("ECHO", "here")))
    with pytest.raises(StopRequested):
        worker.dequeue_job_and_maintain_ttl(1)
    worker.teardown()
    worker.connection.close()

    assert said == [b"here"]


def test_a_worker_whose_connections_are_cut_again_and_again_applies_each_event_once(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    names = [f"journal-{n}" for n in range(300)]
    client.start_many(Journal, names)
    for number in range(40):
        client.transition_many([(name, "note", number) for name in names])
    processes.worker()
    cuts = commits = 0
    while not at_rest(raw_redis):
        if raw_redis.xlen("fsm:default:log") > commits:
            raw_redis.client_kill_filter(_type="normal", skipme=True)
            commits = raw_redis.xlen("fsm:default:log")
            cuts += 1

    assert cuts > 3
    assert all(client.state(name, Journal).payload == list(range(40)) for name in names)
    versions = [line["version"] for line in client.log(names[0])]
    assert versions == list(range(1, 42))


def test_a_flushed_script_cache_costs_nothing_but_time(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    names = [f"journal-{n}" for n in range(300)]
    client.start_many(Journal, names)
    for number in range(20):
        client.transition_many([(name, "note", number) for name in names])
    processes.worker()
    while not at_rest(raw_redis):
        raw_redis.script_flush()

    assert all(client.state(name, Journal).payload == list(range(20)) for name in names)


def test_a_record_that_was_damaged_by_hand_stands_in_the_list_and_stops_nobody(
    client: Client, raw_redis: redis.Redis
) -> None:
    client.start_many(Journal, ["a", "b", "c", "d"])
    raw_redis.hset("fsm:default:snapshot:b", "version", "many")
    raw_redis.delete("fsm:default:snapshot:d")
    raw_redis.set("fsm:default:snapshot:d", "not ours")

    listed = {snapshot.name: snapshot.status for snapshot in client.snapshots()}

    assert listed == {"a": "starting", "b": "damaged", "c": "starting", "d": "damaged"}
