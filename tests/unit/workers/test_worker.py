"""The worker's turns, one by one, over fakeredis: pauses with work claimed ahead, its record, and its end.

The worker measures what its turns take, and claims less or gives back where that is much. Its clock stands still here
unless a test moves it, so that what it does hangs on no machine's load.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis.client import PubSubWorkerThread
from redis.exceptions import OutOfMemoryError
from rq import utils
from rq.exceptions import StopRequested
from rq.suspension import resume, suspend
from rq.worker import WorkerStatus

from fsm.app import App
from fsm.errors import ConfigError, StoreError
from fsm.machine import Machine, Settings
from fsm.store import calls, codec
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.worker import TransitionWorker, _ForcedStop, worker_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import fakeredis

    from workers.activation import Activation

KEYS = Keys("default")


class Box(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
    """


class Clock:
    """Stands still unless told; in the place of the module `time`, of which it has what the worker uses."""

    time_ns = staticmethod(time.time_ns)
    perf_counter_ns = staticmethod(time.perf_counter_ns)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all that a turn is made of: how long it takes, what it may take, and how long locks are trusted."""
    clock = Clock()
    for module in ("worker", "intake", "batch", "activation", "lease", "committer"):
        monkeypatch.setattr(f"workers.{module}.time", clock)
    return clock


@pytest.fixture
def hire(
    fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> Iterator[Callable[..., TransitionWorker]]:
    """Make workers without threads; each is registered."""
    monkeypatch.setattr("workers.worker.connect", lambda *_, **__: fake_redis)
    hired: list[TransitionWorker] = []

    def one(name: str = "w", **more: Any) -> TransitionWorker:
        worker = TransitionWorker(App([Box]), "redis://x", ["fsm"], name=name, batch=16, **more)
        hired.append(worker)
        monkeypatch.setattr(worker._keeper, "start", lambda: None)
        monkeypatch.setattr(worker._relief, "start", lambda: None)
        # Its thread would outlive the test, and meet what another test puts in the place of `run`.
        monkeypatch.setattr(worker._rescuer, "start", lambda: None)
        worker.register_birth()
        return worker

    yield one
    for worker in hired:
        worker._line.close()
        worker._executor.close()


@pytest.fixture
def worker(hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis) -> TransitionWorker:
    """A worker that has run one batch, and has claimed the next ahead; the last commit's reply is not read."""
    worker = hire()
    crowd(fake_redis)
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    worker.execute_job(claims, queue)
    assert len(locks(fake_redis)) == 16
    assert worker._committer._under_way is not None
    return worker


def crowd(client: Any) -> None:
    """Start forty FSMs, each with its entry event."""
    births = [calls.Birth(f"f{number:02}", codec.new_ids(1)[0], b"{}") for number in range(40)]
    run(client, calls.start(KEYS, Box.definition, births))


def locks(client: Any) -> list[bytes]:
    return list(client.keys("fsm:default:lock:*"))


def ready(client: Any) -> list[str]:
    return [name.decode() for name in client.zrange("fsm:default:ready:fsm", 0, -1)]


def settled(worker: TransitionWorker, client: Any) -> bool:
    """Whether nothing is held, all that is left is ready and uncharged, and no reply is waited for."""
    assert not any(client.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))
    is_free = not locks(client) and not worker._keeper.held() and worker._committer._under_way is None
    return is_free and ready(client) == [f"f{number:02}" for number in range(16, 40)]


def test_a_worker_that_is_suspended_has_given_back_what_it_claimed_ahead(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without `_settle`: those FSMs waited for the lease to end, and were charged as if we had died.
    suspend(fake_redis)
    seen: list[bool] = []

    def pause(_seconds: float) -> None:
        seen.append(settled(worker, fake_redis) and worker.get_state() == WorkerStatus.SUSPENDED)
        if len(seen) == 2:
            resume(fake_redis)

    monkeypatch.setattr("workers.worker.time.sleep", pause)
    before = worker.get_state()
    worker.check_for_suspension(burst=False)

    assert seen == [True, True]
    assert worker.get_state() == before


def test_a_worker_that_is_suspended_stays_so_while_redis_is_away(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with RQ's own loop under a guard: the first error ended the suspension.
    suspend(fake_redis)
    pauses: list[float] = []
    real = worker.connection.exists

    def away(*_: object) -> int:
        raise OutOfMemoryError("OOM command not allowed")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        monkeypatch.setattr(worker.connection, "exists", away if len(pauses) < 3 else real)
        if len(pauses) == 3:
            resume(fake_redis)

    monkeypatch.setattr("workers.worker.time.sleep", pause)
    worker.check_for_suspension(burst=False)

    assert len(pauses) == 3


def test_a_worker_that_is_suspended_stops_when_told(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspend(fake_redis)
    monkeypatch.setattr("workers.worker.time.sleep", lambda _: worker._shutdown())

    worker.check_for_suspension(burst=False)

    assert worker._stop_requested


def test_a_burst_comes_to_what_lies_behind_fsms_that_it_cannot_run_and_ends(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis
) -> None:
    # Seen to fail where a claim that brought such alone counted as an empty one: after two of them the burst was over.
    worker = hire()
    crowd(fake_redis)
    for number in range(40):
        fake_redis.hset(KEYS.snapshot(f"f{number:02}"), "machine", "Elsewhere")
    run(fake_redis, calls.start(KEYS, Box.definition, [calls.Birth("own", codec.new_ids(1)[0], b"{}")]))

    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    assert [fsm.name for fsm in claims.held] == ["own"]
    worker.execute_job(claims, queue)

    assert worker.dequeue_job_and_maintain_ttl(None) is None
    assert fake_redis.zcard(KEYS.ready("fsm")) == 40


def test_among_fsms_that_it_cannot_run_a_worker_sleeps_without_redis(
    hire: Callable[..., TransitionWorker],
    fake_redis: fakeredis.FakeRedis,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail with a sleep in Redis: it ended at once, and claimed what then lay in hand for the whole pause.
    worker = hire()
    crowd(fake_redis)
    for number in range(40):
        fake_redis.hset(KEYS.snapshot(f"f{number:02}"), "machine", "Elsewhere")
    slept: list[float] = []
    monkeypatch.setattr(worker._intake, "sleep", lambda *_, **__: slept.append(clock.now))

    assert worker.dequeue_job_and_maintain_ttl(1, max_idle_time=1) is None

    assert slept == []
    assert locks(fake_redis) == []


def test_a_burst_ends_where_workers_are_suspended(worker: TransitionWorker, fake_redis: fakeredis.FakeRedis) -> None:
    suspend(fake_redis)

    with pytest.raises(StopRequested):
        worker.check_for_suspension(burst=True)


def test_a_worker_that_cleans_registries_has_given_back_what_it_claimed_ahead(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(worker, "clean_registries", lambda: seen.append(settled(worker, fake_redis)))

    worker.run_maintenance_tasks()

    assert seen == [True]


def test_registries_of_queues_of_its_host_are_cleaned_too(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis
) -> None:
    # Seen to fail with only the queues that RQ knows of: what had failed there stayed in the registry for ever.
    worker._intake.serve(["fsm@edge"])
    fake_redis.zadd("rq:failed:fsm@edge", {"over": 1})

    worker.clean_registries()

    assert fake_redis.zcard("rq:failed:fsm@edge") == 0


def test_cleaning_that_fails_waits_for_the_next_time(worker: TransitionWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail without the guard: in a full Redis RQ's loop ended the worker at its first cleaning.
    def refuse() -> None:
        raise OutOfMemoryError("OOM command not allowed")

    monkeypatch.setattr(worker, "clean_registries", refuse)
    worker.run_maintenance_tasks()

    assert not worker.should_run_maintenance_tasks


def test_a_worker_that_ends_gives_back_what_it_claimed_ahead(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis
) -> None:
    worker.teardown()

    assert settled(worker, fake_redis)
    assert not fake_redis.exists("fsm:default:held", "fsm:default:claims:w", "fsm:default:workers")
    assert fake_redis.hexists("rq:worker:w", "death")


def test_a_worker_that_ends_gives_back_the_rest_where_one_reply_cannot_be_had(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while the steps of the teardown stood in one `try`: the locks stayed, and RQ was not told.
    worker._keeper.hold(["f99"], "t", 0)

    def fail() -> None:
        raise StoreError("a reply that says no")

    monkeypatch.setattr(worker._intake, "drop_ahead", fail)
    worker.teardown()

    assert not locks(fake_redis)
    assert fake_redis.hexists("rq:worker:w", "death")


def test_a_worker_that_ends_frees_what_a_claim_took_whose_reply_it_never_heard_and_charges_nobody(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where `handover.release` did not ask what is noted under its name: the second signal between a claim
    # and its reply was counted as a death.
    worker._settle()

    def signal_comes(_ticket: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as second:
        second.setattr(worker._line, "result", signal_comes)
        with pytest.raises(KeyboardInterrupt):
            worker._intake.claim()
    assert len(locks(fake_redis)) == 16
    worker.teardown()

    assert not any(fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))
    assert not locks(fake_redis)
    assert sorted(ready(fake_redis)) == [f"f{number:02}" for number in range(16, 40)]
    assert not fake_redis.exists("fsm:default:held", "fsm:default:claims:w", "fsm:default:workers")


def test_a_worker_that_ends_leaves_what_it_could_not_run_to_be_counted(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis
) -> None:
    # Seen to fail where `handover.release` spares no tokens: what cannot be run would never be abandoned.
    worker._settle()
    (fsm, *rest) = worker._intake.claim().held
    worker._intake.leave(fsm.token)
    worker._keeper.let_go([(fsm.name, fsm.token)])
    assert rest
    worker.teardown()

    charged = [number for number in range(40) if fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries")]
    assert charged == [int(fsm.name[1:])]
    assert not locks(fake_redis)


def test_before_it_sleeps_a_worker_has_read_what_became_of_its_last_commit(worker: TransitionWorker) -> None:
    # Seen to fail while it was read with the next commit: an idle worker told of a lost lock hours later.
    worker.last_cleaned_at = utils.now()
    for _ in range(2):
        found = worker.dequeue_job_and_maintain_ttl(None)
        worker.execute_job(*found)
    assert worker.dequeue_job_and_maintain_ttl(None) is None

    assert worker._committer._under_way is None


def test_a_batch_that_takes_longer_than_was_thought_gives_back_the_rest_and_the_next_is_smaller(
    hire: Callable[..., TransitionWorker],
    fake_redis: fakeredis.FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    worker = hire()
    crowd(fake_redis)
    activate = worker._activate

    def slowly(work: Activation, until: float) -> list[Any] | None:
        clock.now += 0.006
        return activate(work, until)

    monkeypatch.setattr(worker, "_activate", slowly)
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    assert len(claims.held) == 16
    worker.execute_job(claims, queue)

    # 40 ms are over with the seventh; what was claimed ahead comes next.
    assert ready(fake_redis) == [f"f{number:02}" for number in (*range(7, 16), *range(32, 40))]
    worker._settle()
    (claims, _) = worker.dequeue_job_and_maintain_ttl(None)
    assert len(claims.held) == 7  # 20 ms of 0.7 * 1.25 ms + 0.3 * 6 ms each


def test_waiting_for_redis_is_not_taken_for_slow_handlers(
    hire: Callable[..., TransitionWorker],
    fake_redis: fakeredis.FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    # Seen to fail while the time of sending ahead counted: after ten seconds without Redis the batch in hand went back
    # but for one FSM, and those of the next thirty turns were of one.
    worker = hire()
    crowd(fake_redis)
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    monkeypatch.setattr(worker._intake, "claim_ahead", lambda: clock.sleep(10))
    worker.execute_job(claims, queue)
    worker._settle()

    assert ready(fake_redis) == [f"f{number:02}" for number in range(16, 40)]
    (claims, _) = worker.dequeue_job_and_maintain_ttl(None)
    assert len(claims.held) == 16


def test_with_a_lock_that_is_not_trusted_no_event_is_begun(
    worker: TransitionWorker,
    fake_redis: fakeredis.FakeRedis,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Seen to fail without the look at `is_trusted` in `_run_batch`: handlers ran for what could not be written.
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    clock.now += 0.91 * worker._keeper._lease_ms / 1000
    worker.execute_job(claims, queue)
    worker._committer.read()

    lost = [record for record in caplog.records if "before its events were run" in record.getMessage()]
    assert len(lost) == len(claims.held) == 16
    assert not worker._keeper.held()
    assert not any(fake_redis.hexists(KEYS.snapshot(fsm.name), "commit") for fsm in claims.held)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_who_is_woken_has_claimed_already_but_where_handlers_run_side_by_side(
    hire: Callable[..., TransitionWorker],
    fake_redis: fakeredis.FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
    concurrency: int,
) -> None:
    # Seen to fail with a claim after every sleep: it knows neither the room in hands nor what they are busy with.
    worker = hire(concurrency=concurrency)
    worker.last_cleaned_at = utils.now()
    held: list[int] = []

    def look(*, burst: bool) -> None:
        held.append(len(locks(fake_redis)))
        worker._stop_requested = True

    monkeypatch.setattr(worker, "check_for_suspension", lambda burst: look(burst=burst))
    sleep = worker._intake.sleep

    def woken(*given: Any, **more: Any) -> None:
        crowd(fake_redis)
        sleep(*given, **more)

    monkeypatch.setattr(worker._intake, "sleep", woken)
    assert worker.dequeue_job_and_maintain_ttl(1) is None
    worker.teardown()

    assert held == [16 if concurrency == 1 else 0]
    assert not locks(fake_redis)
    assert fake_redis.zcard(KEYS.ready("fsm")) == 40
    assert not any(fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))


def test_what_a_worker_claimed_when_it_was_woken_waits_for_nothing_else_that_it_has_to_do(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while it freed first what dead workers held, and told the ends of effects: meanwhile no other worker
    # got these FSMs, nobody renewed their locks, and where Redis was away for a lease they were charged with a death.
    worker = hire()
    crowd(fake_redis)
    worker._intake.sleep(claims=True)
    did: list[str] = []
    for whose, what in ((worker, "heartbeat"), (worker._rescuer, "sweep"), (worker.watch, "look")):
        monkeypatch.setattr(whose, what, lambda what=what: did.append(what) or 0)
    worker._run_batch(worker.dequeue_job_and_maintain_ttl(1)[0])
    assert did == []

    # The next turn does it: who is woken all the time puts nothing off.
    (claims, _) = worker.dequeue_job_and_maintain_ttl(1)
    assert len(claims.held) == 16
    assert did == ["heartbeat", "sweep", "look"]


def test_behind_a_signal_nothing_is_claimed_ahead(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis
) -> None:
    worker = hire()
    crowd(fake_redis)
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)
    worker._stop_requested = True
    worker.execute_job(claims, queue)
    worker._committer.read()

    assert not locks(fake_redis)
    assert fake_redis.zcard("fsm:default:ready:fsm") == 39  # one is run, the rest of the batch goes back


def test_a_worker_that_is_hurried_while_it_gives_back_gives_back_all_the_same(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without the second `_leave`: what it held stayed locked until the end of the lease.
    settle = worker._settle
    haste = [_ForcedStop()]

    def once() -> None:
        if haste:
            raise haste.pop()
        settle()

    monkeypatch.setattr(worker, "_settle", once)

    with pytest.raises(SystemExit):
        worker.teardown()

    assert settled(worker, fake_redis)
    assert not fake_redis.exists("fsm:default:claims:w", "fsm:default:workers")


def test_a_worker_that_is_hurried_while_it_commits_ends_without_a_traceback_and_gives_back(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while the last commit of a batch was beyond the `except`: RQ told of an unhandled exception.
    worker = hire()
    crowd(fake_redis)
    claims, queue = worker.dequeue_job_and_maintain_ttl(None)

    def hurried() -> None:
        raise _ForcedStop

    with monkeypatch.context() as hanging:
        hanging.setattr(worker._committer, "read", hurried)
        with pytest.raises(SystemExit):
            worker.execute_job(claims, queue)
    worker.teardown()

    assert not locks(fake_redis)
    assert not any(fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))


def test_a_worker_that_is_hurried_while_it_waits_for_its_threads_gives_back_all_the_same(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while threads were stopped before the `try`: all that it held waited for the lease, and was charged.
    haste = [_ForcedStop()]

    def once() -> None:
        if haste:
            raise haste.pop()

    monkeypatch.setattr(worker._keeper, "stop", once)

    with pytest.raises(SystemExit):
        worker.teardown()

    assert settled(worker, fake_redis)
    assert not fake_redis.exists("fsm:default:claims:w", "fsm:default:workers")


def test_where_relief_waits_for_a_redis_that_hangs_the_end_does_not_read_the_same_line(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail while `teardown` went on as if the thread had ended: two threads read replies from one connection.
    monkeypatch.setattr(worker._relief, "stop", lambda: False)
    reads: list[object] = []
    monkeypatch.setattr(worker._line, "result", reads.append)
    worker.teardown()

    assert reads == []
    assert not locks(fake_redis)
    assert not any(fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))


def test_what_is_given_back_from_another_thread_is_uncharged(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis
) -> None:
    # The claim that was made ahead has its reply still on the way.
    worker.give_back_at_once()

    assert not locks(fake_redis)
    assert not any(fake_redis.hexists(f"fsm:default:snapshot:f{number:02}", "tries") for number in range(40))
    assert fake_redis.hexists("rq:worker:w", "death")


def test_a_handler_is_stuck_that_was_overdue_at_many_looks_and_its_worker_dies(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with one look: a worker that was stopped (SIGSTOP) for long ended when it went on, for the thread may
    # look before the handler is interrupted. And with `bury` alone: all that was held beside it was charged.
    ends: list[str] = []
    worker.dequeue_job_and_maintain_ttl(None)
    held = worker._keeper.held()
    assert len(held) == 16
    stuck: Any = SimpleNamespace(event="note", fsm=SimpleNamespace(name=held[3][0], token=held[3][1]))

    def end(do: Callable[[], object], why: str) -> None:
        do()
        ends.append(why)

    monkeypatch.setattr("workers.worker.last_resort.end", end)
    with monkeypatch.context() as context:
        executor = SimpleNamespace(is_overdue=True)
        context.setattr(worker, "_executor", executor)
        context.setattr(worker, "_work", stuck)
        for _ in range(49):
            worker._end_if_stuck()
        executor.is_overdue = False
        worker._end_if_stuck()
        assert ends == []

        executor.is_overdue = True
        for _ in range(50):
            worker._end_if_stuck()

    assert len(ends) == 1
    assert f"event 'note' of FSM '{held[3][0]}' heeds no time-out: worker w ends, as if it had died" in ends[0]
    assert not locks(fake_redis)
    charged = [name for name, _ in held if fake_redis.hexists(f"fsm:default:snapshot:{name}", "tries")]
    assert charged == [held[3][0]]


def test_a_heartbeat_in_a_full_redis_still_says_that_the_worker_lives(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with RQ's heartbeat first: after 30 s of draining a full Redis the worker was taken for dead.
    fake_redis.delete("fsm:default:workers")
    monkeypatch.setattr(worker.connection, "hset", refuse_all)
    monkeypatch.setattr(worker._pulse, "is_due", lambda *_: True)

    worker.heartbeat()

    assert fake_redis.zscore("fsm:default:workers", "w")


def refuse_all(*_: object, **__: object) -> None:
    raise OutOfMemoryError("OOM command not allowed")


def test_a_worker_starts_in_a_full_redis_and_is_registered_when_there_is_room(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without the `except OutOfMemoryError`: who restarts the workers of a full Redis had none any more.
    with monkeypatch.context() as full:
        full.setattr("rq.worker.base.worker_registration.register", refuse_all)
        worker = hire()
    assert not fake_redis.exists("rq:worker:w")

    worker.set_state(WorkerStatus.IDLE)  # what RQ writes meanwhile is no record
    worker._beat()

    assert fake_redis.hget("rq:worker:w", "birth")
    assert b"rq:worker:w" in fake_redis.smembers("rq:workers")
    assert not worker._pulse.is_replaced


def test_a_record_that_redis_lost_is_written_again(worker: TransitionWorker, fake_redis: fakeredis.FakeRedis) -> None:
    fake_redis.delete("rq:worker:w")

    worker._beat()

    assert fake_redis.hget("rq:worker:w", "birth")
    assert fake_redis.hget("rq:worker:w", "life") == worker._pulse.life.encode()


def test_of_two_workers_of_one_name_the_elder_ends_and_takes_nothing_from_the_other(
    hire: Callable[..., TransitionWorker],
    worker: TransitionWorker,
    fake_redis: fakeredis.FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seen to fail without the comparison of lives: RQ looks and writes in two steps, so two that start at once both
    # live, and each claim of one frees the locks of the other.
    fake_redis.delete("rq:worker:w")
    younger = hire()
    younger._intake._number = worker._intake._number + 1000
    (claims, _) = younger.dequeue_job_and_maintain_ttl(None)
    monkeypatch.setattr(worker._pulse, "is_due", lambda *_: True)

    with pytest.raises(ConfigError, match="another worker took the name 'w'"):
        worker.dequeue_job_and_maintain_ttl(None)
    worker.teardown()

    assert worker.fault is not None
    assert {fsm.name for fsm in claims.held} <= {key.decode().rpartition(":")[2] for key in locks(fake_redis)}
    assert not fake_redis.hexists("rq:worker:w", "death")
    assert fake_redis.zscore("fsm:default:workers", "w")
    younger._beat()
    assert not younger._pulse.is_replaced


def test_heartbeats_come_each_five_seconds_at_most_and_from_the_keeper_only_when_overdue(
    worker: TransitionWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []
    now = [time.monotonic() + 10]
    monkeypatch.setattr("workers.pulse.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(worker, "_beat", lambda: beats.append(now[0]))
    for _ in range(100):
        now[0] += 0.1
        worker.heartbeat()
        worker._beat_while_busy()
    assert len(beats) == 2

    beats.clear()
    for _ in range(250):
        now[0] += 0.1
        worker._beat_while_busy()
    assert len(beats) == 2


def test_a_fault_between_two_heartbeats_is_no_reason_to_end(
    worker: TransitionWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> None:
        raise StoreError("Redis is away")

    monkeypatch.setattr(worker._pulse, "is_due", lambda *_: True)
    monkeypatch.setattr(worker._pulse, "beat", away)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            worker.heartbeat()

    # Seen to fail without `_TELL_S`: a worker that drained a full Redis told it at each turn, twice.
    assert caplog.text.count("could not tell Redis how it is") == 1


class Commands:
    """A subscription with nothing in it: whoever asks waits until it is ended, and for ever if he asks after that."""

    def __init__(self) -> None:
        self.asked = 0
        self._is_over = threading.Event()
        self._is_seen = threading.Event()
        self._is_closed = threading.Event()

    def get_message(self, **_: object) -> None:
        self.asked += 1
        if self._is_over.is_set():
            self._is_seen.set()
            assert self._is_closed.wait(10)
        assert self._is_over.wait(10)

    def unsubscribe(self) -> None:
        # Gives the thread all the time that it needs to ask again, or to end.
        self._is_over.set()
        assert self._is_seen.wait(10)

    def close(self) -> None:
        self._is_seen.set()
        self._is_closed.set()


def test_the_thread_that_listens_to_commands_does_not_hold_up_the_end(worker: TransitionWorker) -> None:
    # Seen to fail with RQ's order: the thread asked again, and the worker waited for it for a second.
    commands: Any = Commands()
    worker.pubsub = commands
    worker.pubsub_thread = PubSubWorkerThread(commands, 60, daemon=True)
    worker.pubsub_thread.start()
    worker.teardown()

    assert commands.asked == 1
    assert not worker.pubsub_thread.is_alive()


def test_a_thread_that_has_hung_up_already_is_no_reason_to_fail(
    worker: TransitionWorker, fake_redis: fakeredis.FakeRedis
) -> None:
    def gone() -> None:
        raise AttributeError("'NoneType' object has no attribute 'send_command'")

    commands: Any = SimpleNamespace(unsubscribe=gone)
    thread: Any = SimpleNamespace(stop=lambda: None)
    worker.pubsub, worker.pubsub_thread = commands, thread
    worker.teardown()

    assert settled(worker, fake_redis)


def test_where_its_host_drains_a_worker_ends_as_by_a_signal_once(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without `heeds_drain`: one of several was started anew by its host, which had not heard of it yet.
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("signal.pthread_kill", lambda *what: sent.append(what))
    alone, one_of_several = hire("w", host="edge"), hire("x", host="edge")
    one_of_several.heeds_drain = False
    fake_redis.hset(Keys("default").draining, "edge", 10**14)
    for _ in range(2):
        for worker in (alone, one_of_several):
            worker._rescuer._due_at = 0.0
            worker._rescuer.sweep()

    assert sent == [(threading.main_thread().ident, signal.SIGTERM)]
    assert {worker.hostname for worker in (alone, one_of_several)} == {"edge"}


def test_a_worker_that_leaves_takes_its_host_with_it(worker: TransitionWorker, fake_redis: fakeredis.FakeRedis) -> None:
    assert fake_redis.exists(Keys("default").hosts)

    worker.teardown()
    assert not fake_redis.exists(Keys("default").hosts, Keys("default").crew(worker.host))


def test_the_first_that_is_back_after_an_outage_takes_no_fsm_from_hosts_that_are_not_back_yet(
    hire: Callable[..., TransitionWorker], fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without `is_steady`: all that had an event in these seconds moved here, and back.
    now = Clock()
    monkeypatch.setattr("workers.rescue.time", now)
    monkeypatch.setattr("fsm.store.hosts.time", now)
    worker = hire(host="edge-1", lease_ms=2000)
    assert worker._placer.next("fsm~edge-2", "ring", "a") == "fsm~edge-1"

    fake_redis.delete(KEYS.hosts)  # their leases are over
    for seconds in (10, 1, 2, 1):
        now.now += seconds
        assert worker._placer.next("fsm~edge-2", "ring", "a") == ""
        worker._rescuer.sweep()
    now.now += 1.5
    assert worker._placer.next("fsm~edge-2", "ring", "a") == "fsm~edge-1"


def test_a_name_that_is_drawn_begins_with_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "rack/7")

    assert worker_name("edge-7").startswith("edge-7-")
    assert worker_name().startswith("rack-7-")


@pytest.mark.parametrize("data", [b"\x80\x04pickle", b"[]", b"{}"])
def test_a_command_that_is_none_does_not_end_the_thread_that_listens(
    hire: Callable[..., TransitionWorker], caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """Seen to fail without `handle_payload`: what it raises ends the thread, and the worker hears no command more."""
    hire().handle_payload({"data": data})

    assert "worker w was sent a command that it cannot obey" in caplog.text
