"""What waits for its time comes in that moment, whatever the workers do just then."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.integration.machines import Journal, Slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from fsm import Client
    from tests.integration.conftest import Processes

LATE_MS = 300


def late_ms(raw_redis: redis.Redis, job_id: str, field: str, due_ms: int) -> float:
    """By how many ms something was late, by the clock of Redis; `field` is RQ's time of it."""
    at: Any = raw_redis.hget(f"rq:job:{job_id}", field)
    return datetime.fromisoformat(at.decode()).timestamp() * 1000 - due_ms


def test_a_delay_of_100_ms_is_one_of_100_ms_where_all_workers_sleep(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    # Seen to fail, each alone: without `wake_for_alarm` in `send`; without `due_s` in the reply of `claim`. The delays
    # were those until the next look, of a second.
    processes.worker()
    journal = client.start_fsm(Journal, "journal")
    assert journal.call("note", 0).ok
    late = []
    for number in range(1, 6):
        job = journal.transition("note", number, delay=0.1, result=True)
        due: Any = raw_redis.hget(f"rq:job:{job.id}", "due")
        assert due, "it was due before it could be looked at"
        assert job.result(20).ok
        late.append(late_ms(raw_redis, job.id, "ended_at", int(due)))

    assert min(late) >= 0
    assert max(late) < LATE_MS, late


def test_what_is_due_is_made_ready_on_time_by_a_worker_that_is_in_a_handler(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail without the thread of `AlarmClock`: where all workers were busy, it joined its mailbox behind all
    # that was sent until one of them was free.
    processes.worker()
    journal, slow = client.start_fsm(Journal, "journal"), client.start_fsm(Slow, "slow")
    assert journal.call("note", 0).ok
    held = slow.transition("hold", str(tmp_path / "go"))
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))
    first = journal.transition("note", 1, delay=0.5, result=True)
    due: Any = raw_redis.hget(f"rq:job:{first.id}", "due")
    assert due, "it was due before it could be looked at"
    until(lambda: raw_redis.hget(f"rq:job:{first.id}", "place") == b"mail")
    second = journal.transition("note", 2, result=True)
    assert raw_redis.hget(f"rq:job:{held.id}", "place") == b"mail"
    (tmp_path / "go").touch()

    assert second.result(20).ok
    assert journal.state().payload == [0, 1, 2]
    # Nobody woke a sleeper for it, and it was armed after the last claim: by the look of each second, then.
    assert late_ms(raw_redis, first.id, "enqueued_at", int(due)) < 1000 + LATE_MS
