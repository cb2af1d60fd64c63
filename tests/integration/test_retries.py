"""Events that are tried again, with real workers: in order, in time, and whoever holds them up or kills them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

from fsm import Client, FailedError
from tests.integration.machines import Journal, Shaky

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.integration.conftest import Processes


def test_the_events_of_an_fsm_wait_for_its_retry_and_other_fsms_do_not_notice(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    processes.worker()
    shaky = client.start_fsm(Shaky, "shaky")
    journal = client.start_fsm(Journal, "journal")
    failing = shaky.transition("add", {"n": 1, "fails": 2, "pause": 0.6}, result=True)
    behind = shaky.transition("add", {"n": 2}, result=True)
    until(lambda: raw_redis.hexists("fsm:default:snapshot:shaky", "retry_at"))

    assert journal.call("note", 1).ok
    assert behind.status() == "waiting"
    assert behind.result(20).ok

    assert failing.result(1).ok
    assert shaky.state().payload == {"seen": [1, 2], "attempts": [3, 1]}
    assert [line.get("attempt") for line in shaky.log()] == [None, 1, 2, None, None]
    assert not raw_redis.exists("fsm:default:timers", "rq:scheduled:fsm")


def test_a_retry_comes_when_it_is_due_and_not_at_the_next_look(
    processes: Processes, client: Client, until: Callable[..., Any]
) -> None:
    # Seen to fail while an idle worker slept its second out each time: without `look_soon`, without the bound of the
    # sleep in `Intake.sleep`.
    processes.worker()
    shaky = client.start_fsm(Shaky, "shaky")
    assert shaky.call("add", {"n": 0}).ok
    begin = time.monotonic()

    assert shaky.call("add", {"n": 1, "fails": 30, "pause": 0.02}, timeout=40).ok

    assert time.monotonic() - begin < 20
    assert shaky.state().payload["attempts"][-1] == 31


def test_the_last_attempt_fails_the_event_and_the_next_goes_on(processes: Processes, client: Client) -> None:
    processes.worker()
    shaky = client.start_fsm(Shaky, "shaky")
    failing = shaky.transition("try", {"n": 1, "fails": 9}, result=True)
    behind = shaky.transition("add", {"n": 2}, result=True)

    assert behind.result(20).ok
    with pytest.raises(FailedError, match="shaky"):
        failing.result(1)
    assert ["retry_in_ms" in line for line in shaky.log() if line["event"] == "try"] == [True, True, False]


def test_a_retry_survives_all_workers(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    worker = processes.worker()
    shaky = client.start_fsm(Shaky, "shaky")
    job = shaky.transition("add", {"n": 1, "fails": 1, "pause": 0.5})
    until(lambda: raw_redis.hexists("fsm:default:snapshot:shaky", "retry_at"))
    worker.kill()
    worker.wait()

    processes.worker()

    assert job.result(20).ok
    assert shaky.state().payload["attempts"] == [2]
    assert shaky.state().tries == 0


def test_rqs_scheduler_on_our_queue_does_no_harm(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without the gatekeeper in `claim`, once the FSM was rung: the event was run before its time.
    processes.worker()
    shaky = client.start_fsm(Shaky, "shaky")
    job = shaky.transition("add", {"n": 1, "fails": 1, "pause": 1.5})
    until(lambda: raw_redis.hexists("fsm:default:snapshot:shaky", "retry_at"))
    retry_at = int(raw_redis.hget("fsm:default:snapshot:shaky", "retry_at") or 0)
    registry = ScheduledJobRegistry("fsm", connection=raw_redis)
    assert registry.get_job_ids() == [job.id]
    raw_redis.zadd(registry.key, {job.id: 1})  # to RQ it is due
    scheduler = RQScheduler(["fsm"], connection=raw_redis)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()
    assert registry.get_job_ids() == []
    raw_redis.zadd("fsm:default:ready:fsm", {"shaky": 1})

    assert job.result(20).ok
    done = [line for line in shaky.log() if line["event"] == "add"][-1]
    assert done["at_ms"] >= retry_at
    assert shaky.state().payload["attempts"] == [2]


def test_where_only_stock_workers_run_rqs_scheduler_brings_retries_back(processes: Processes, client: Client) -> None:
    shaky = client.start_fsm(Shaky, "shaky")
    job = shaky.transition("add", {"n": 1, "fails": 2, "pause": 0.2})
    processes.rq_worker("--with-scheduler", "fsm")

    assert job.result(40).ok
    assert shaky.state().payload["attempts"] == [3]


@pytest.mark.parametrize("how", ["waits", "paused"])
def test_a_stock_worker_is_not_held_up_by_an_fsm_that_stands(
    processes: Processes, client: Client, raw_redis: redis.Redis, how: str
) -> None:
    # Seen to fail while such a job waited for five seconds and went back to the end of RQ's list, for ever.
    shaky = client.start_fsm(Shaky, "shaky")
    processes.rq_worker("--burst", "fsm").communicate(timeout=60)
    job = shaky.transition("add", {"n": 1, "fails": 1, "pause": 3600})
    if how == "paused":
        shaky.pause()

    output, _ = processes.rq_worker("--burst", "fsm").communicate(timeout=60)

    assert job.status() == "waiting", output
    assert raw_redis.zscore("rq:scheduled:fsm", job.id)
