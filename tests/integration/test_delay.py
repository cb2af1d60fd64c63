"""Delayed events, with real workers: in time and in order, whoever dies meanwhile, and whatever RQ's tools do to them.

They take some 15 s in all; none waits for more than a second of delay.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from fsm import Client, FailedError, MailboxFullError, PayloadError
from fsm.store.embedded import EmbeddedServer, start_or_join
from tests.integration.machines import Journal, Shaky

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.integration.conftest import Processes


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def at_ms(line: dict[str, Any]) -> int:
    return int(line["at_ms"])


def rq_job(raw_redis: redis.Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection=raw_redis, serializer=JSONSerializer)


def due_ms(raw_redis: redis.Redis, job_id: str) -> int:
    return int(raw_redis.hget(f"rq:job:{job_id}", "due") or 0)


def test_delayed_events_come_in_time_and_in_the_order_in_which_they_are_due(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    journal = client.start_fsm(Journal, "j")
    third = journal.transition("note", 3, at=soon(1.0), result=True)
    second = journal.transition("note", 2, delay=timedelta(seconds=0.7), result=True)
    first = journal.transition("note", 1, result=True)
    dues = [due_ms(raw_redis, job.id) for job in (second, third)]
    assert ScheduledJobRegistry("fsm", connection=raw_redis).get_job_count() == 2
    assert [event.data for event in journal.jobs().delayed] == [2, 3]
    processes.worker()

    assert first.result(20).ok
    assert second.result(20).ok
    assert third.result(20).ok

    assert journal.state().payload == [1, 2, 3]
    done = [at_ms(line) for line in journal.log() if line["event"] == "note"][1:]
    assert all(at >= due for at, due in zip(done, dues, strict=True))
    assert not raw_redis.exists("fsm:default:timers", "fsm:default:later:j", "rq:scheduled:fsm")


def test_many_delayed_events_are_applied_once_each_and_in_order_by_two_workers(
    processes: Processes, client: Client
) -> None:
    names = [f"j{n}" for n in range(4)]
    client.start_many(Journal, names)
    for burst in range(5):
        verdicts = client.transition_many(
            [(name, "note", 10 * burst + n) for n in range(10) for name in names], delay=0.3 + burst / 10
        )
        assert all(verdict.ok for verdict in verdicts)
    last = [client.transition(name, "note", 50, delay=0.9, result=True) for name in names]
    processes.worker()
    processes.worker()

    for job in last:
        assert job.result(30).ok

    assert [client.state(name).payload for name in names] == [list(range(51))] * 4


def test_delayed_events_survive_all_workers_and_come_when_the_next_one_does(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    worker = processes.worker()
    journal = client.start_fsm(Journal, "j")
    assert journal.call("note", 0, timeout=20).ok
    base = soon(0.5)
    jobs = [journal.transition("note", n, at=base + timedelta(milliseconds=n)) for n in (2, 1, 3)]
    worker.kill()
    worker.wait()
    last = due_ms(raw_redis, jobs[-1].id)
    until(lambda: raw_redis.time()[0] * 1000 > last)

    processes.worker()

    assert jobs[-1].result(30).ok
    assert journal.state().payload == [0, 1, 2, 3]


def test_delayed_events_survive_the_death_of_redis(until: Callable[..., Any]) -> None:
    options = {"appendfsync": "always"}
    with EmbeddedServer(options) as server, Client(server.url) as client:
        journal = client.start_fsm(Journal, "j")
        journal.transition("note", 1, delay="1d")
        job = journal.transition("note", 2, delay="1h")
        before = journal.jobs().delayed
        os.kill(server.pid or 0, signal.SIGKILL)
        until(lambda: server.pid is None)
        start_or_join(server.directory, options)

        assert [event.data for event in before] == [2, 1]
        assert journal.jobs().delayed == before
        assert job.cancel()


def test_cancelled_it_is_not_applied_and_who_waits_is_told(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    journal = client.start_fsm(Journal, "j")
    ours = journal.transition("note", 1, delay=0.5, result=True)
    rqs = journal.transition("note", 2, delay=0.5, result=True)
    deleted = journal.transition("note", 3, delay=0.5, result=True)
    kept = journal.transition("note", 4, delay=0.6, result=True)

    assert ours.cancel()
    rq_job(raw_redis, rqs.id).cancel()
    rq_job(raw_redis, deleted.id).delete()
    for job in (ours, rqs):
        assert job.status() == "cancelled"
        with pytest.raises(FailedError, match="took it away"):
            job.result(10)
    with pytest.raises(FailedError, match="deleted"):
        deleted.result(10)
    processes.worker()

    assert kept.result(20).ok
    assert journal.state().payload == [4]
    assert not raw_redis.exists("fsm:default:timers", "fsm:default:later:j", "rq:scheduled:fsm")


def test_rqs_scheduler_with_a_clock_that_is_fast_does_no_harm(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without the branch for `later` in `claim`: the registry lacked what was not due from then on.
    processes.worker()
    journal = client.start_fsm(Journal, "j")
    assert journal.call("note", 0, timeout=20).ok
    far = journal.transition("note", 2, delay="1h")
    job = journal.transition("note", 1, delay=0.8, result=True)
    due = due_ms(raw_redis, job.id)
    registry = ScheduledJobRegistry("fsm", connection=raw_redis)
    raw_redis.zadd(registry.key, {job.id: 1, far.id: 1})  # to RQ they are due
    scheduler = RQScheduler(["fsm"], connection=raw_redis)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()

    until(lambda: raw_redis.zscore(registry.key, far.id))

    assert job.result(20).ok
    assert at_ms([line for line in journal.log() if line["event"] == "note"][-1]) >= due
    assert journal.state().payload == [0, 1]
    assert rq_job(raw_redis, far.id).get_status() == "scheduled"


def test_where_only_stock_workers_run_rqs_scheduler_brings_them(processes: Processes, client: Client) -> None:
    shaky = client.start_fsm(Shaky, "s")
    base = soon(0.5)
    job = shaky.transition("add", {"n": 2}, at=base + timedelta(milliseconds=1))
    shaky.transition("add", {"n": 1}, at=base)
    processes.rq_worker("--with-scheduler", "fsm")

    assert job.result(40).ok
    assert shaky.state().payload["seen"] == [1, 2]


def test_a_stock_worker_that_gets_one_too_early_puts_it_off_and_goes_on(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    # Seen to fail without the look at `due` in `_stands_for`: the worker waited for five seconds, and for ever again.
    shaky = client.start_fsm(Shaky, "s")
    job = shaky.transition("add", {"n": 1}, delay=3600)
    other = shaky.transition("add", {"n": 2})
    raw_redis.lpush("rq:queue:fsm", job.id)

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert other.status() == "done", output
    assert job.status() == "waiting"
    assert due_ms(raw_redis, job.id)
    assert raw_redis.zscore("rq:scheduled:fsm", job.id)


def test_what_cannot_be_delayed_is_said_in_words(client: Client) -> None:
    journal = client.start_fsm(Journal, "j")
    naive = datetime(2026, 12, 1)  # noqa: DTZ001 - what is refused
    for options in (
        {"delay": -1},
        {"delay": "soon"},
        {"at": naive},
        {"at": 3.0},
        {"delay": 1, "at": datetime.now(UTC)},
    ):
        with pytest.raises(PayloadError):
            journal.transition("note", 1, **options)  # type: ignore[arg-type]
    verdicts = client.transition_many([("j", "note", n) for n in range(10_001)], delay="1h")
    assert isinstance(verdicts[-1].error, MailboxFullError)
    assert [verdict.ok for verdict in verdicts].count(False) == 1
