"""RQ's own classes read our records, and RQ's tools may be used on them at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from fsm.store.codec import event_data

if TYPE_CHECKING:
    from tests.store.conftest import Store


def fetch(store: Store, job_id: str) -> Job:
    return Job.fetch(job_id, connection=store.redis, serializer=JSONSerializer)


def queue(store: Store, name: str = "fsm") -> Queue:
    return Queue(name, connection=store.redis, serializer=JSONSerializer)


@pytest.fixture
def store(real_store: Store) -> Store:
    return real_store


def test_a_job_that_waits_is_read_by_rq(store: Store) -> None:
    store.idle("a")
    store.send("a", "note", "one", raw=b'{"n":[1,"\xc3\xbc"]}', meta=b'{"actor":"ann"}')

    job = fetch(store, "one")
    assert job.get_status() == JobStatus.QUEUED
    assert job.func_name == "workers.jobs.transition"
    assert job.args == ["default", "a", "note", {"n": [1, "ü"]}]
    assert job.kwargs == {}
    assert job.meta == {"actor": "ann"}
    assert (job.origin, job.description, job.timeout, job.result_ttl) == ("fsm", "note a", 180, 60)
    assert job.created_at == job.enqueued_at
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(minutes=1)
    assert queue(store).job_ids == ["one"]
    assert queue(store).name in [each.name for each in Queue.all(connection=store.redis)]


def test_a_job_that_was_applied_is_read_by_rq(store: Store) -> None:
    store.idle("a")
    store.send("a", "note", "one", asked=True)
    store.send("a", "note", "two")
    store.commit(store.one())

    job = fetch(store, "one")
    assert job.get_status() == JobStatus.FINISHED
    assert job.started_at == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert job.ended_at is not None
    assert job.ended_at > job.created_at
    assert job.worker_name == "w1"
    assert job.return_value() == {"state": "open", "version": 1}
    result = Result.fetch_latest(job, serializer=JSONSerializer)
    assert result is not None
    assert (result.type, result.worker_name) == (Result.Type.SUCCESSFUL, "w1")
    assert result.return_value == {"state": "open", "version": 1}
    registry = FinishedJobRegistry(queue=queue(store))
    assert registry.get_job_ids()[-2:] == ["one", "two"]
    assert fetch(store, "two")._result == {"state": "open", "version": 1}


def test_a_job_that_failed_is_read_by_rq(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.work(store.one()).fail("Traceback: ünlucky"))

    job = fetch(store, "one")
    assert job.get_status() == JobStatus.FAILED
    assert store.job(job.id)["exc_info"] == "Traceback: ünlucky"
    result = Result.fetch_latest(job, serializer=JSONSerializer)
    assert result is not None
    assert (result.type, result.exc_string) == (Result.Type.FAILED, "Traceback: ünlucky")
    assert FailedJobRegistry(queue=queue(store)).get_job_ids() == ["one"]


def test_what_was_taken_away_is_read_by_rq(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    fetch(store, "one").cancel()
    work = store.work(store.one())
    work.block.take("one")
    work.block.gone("one")
    store.commit(work)
    store.purge("a")

    job = fetch(store, "one")
    assert job.get_status() == JobStatus.CANCELED
    stopped = Result.fetch_latest(job, serializer=JSONSerializer)
    assert stopped is not None
    assert stopped.type == Result.Type.STOPPED
    purged = fetch(store, "two")
    assert purged.get_status() == JobStatus.FAILED


def test_a_job_that_was_requeued_is_adopted_and_applied(store: Store) -> None:
    store.idle("a")
    store.send("a", "note", "one", raw=b'{"n":1}')
    store.commit(store.work(store.one()).fail())
    store.sent("a", "two")

    FailedJobRegistry(queue=queue(store)).requeue(fetch(store, "one"))
    fsm = store.one()  # the mail that waited, and the requeued job on RQ's list
    assert [mail.job_id for mail in fsm.mail] == ["two"]
    assert store.mailbox("a") == ["two", "one"]
    assert store.commit(fsm) == ["READY"]
    (mail,) = store.one().mail
    assert event_data(mail.data, "default", "a", "note") == b'{"n":1}'
    assert (mail.job_id, mail.place, mail.status) == ("one", b"mail", b"queued")
    assert "exc_info" not in store.job("one")


def test_a_job_that_was_requeued_in_vain_fails_again(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.work(store.one()).fail())
    store.purge("a")

    fetch(store, "one").requeue()
    store.claim()
    job = fetch(store, "one")
    assert job.get_status() == JobStatus.FAILED
    assert store.job(job.id)["exc_info"] == "requeued, but its FSM cannot take it: UNKNOWN"
    assert FailedJobRegistry(queue=queue(store)).get_job_ids() == ["one"]


def test_an_applied_job_that_was_enqueued_again_gets_its_true_status_back(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.one())

    queue(store).enqueue_job(fetch(store, "one"))
    assert fetch(store, "one").get_status() == JobStatus.QUEUED
    assert store.claim().held == []
    assert fetch(store, "one").get_status() == JobStatus.FINISHED
    assert store.mailbox("a") == []


def test_a_job_that_was_cancelled_comes_to_the_worker_as_such(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")

    fetch(store, "one").cancel()
    assert CanceledJobRegistry(queue=queue(store)).get_job_ids() == ["one"]
    assert store.listed() == []
    assert [(mail.job_id, mail.status) for mail in store.one().mail] == [("one", b"canceled"), ("two", b"queued")]


def test_a_job_that_was_deleted_comes_to_the_worker_without_an_event(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")

    fetch(store, "one").delete()
    fsm = store.one()
    assert [(mail.job_id, mail.event) for mail in fsm.mail] == [("one", None), ("two", "note")]


def test_a_job_that_was_deleted_while_it_was_applied_leaves_no_record_for_ever(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    fsm = store.one()
    fetch(store, "one").delete()

    assert store.commit(fsm) == ["REST"]
    with pytest.raises(NoSuchJobError):
        fetch(store, "one")
    for batch in store.redis.zrange(store.keys.ended, 0, -1):
        store.redis.zadd(store.keys.ended, {batch: 1})
    store.recover()
    assert not store.redis.exists("rq:job:one")


def test_an_emptied_queue_keeps_no_fsm_from_going_on(store: Store) -> None:
    store.idle("a", "b")
    store.sent("a", "a-1", "a-2")
    store.sent("b", "b-1")

    queue(store).empty()  # type: ignore[no-untyped-call]  # deletes the records of those on the list: of oldest mail
    fsms = store.claim().held
    assert [[(mail.job_id, mail.event) for mail in fsm.mail] for fsm in fsms] == [
        [("a-1", None), ("a-2", "note")],
        [("b-1", None)],
    ]


def test_a_list_that_was_lost_keeps_no_fsm_from_going_on(store: Store) -> None:
    store.start("a")
    store.redis.delete("rq:queue:fsm")

    assert store.one().name == "a"


def test_a_foreign_job_on_our_queue_is_moved_to_the_effects_and_can_be_run_there(store: Store) -> None:
    job = queue(store).enqueue("shop.bank.charge", 12)

    store.claim()
    assert store.listed() == []
    assert queue(store, "fsm-effects").job_ids == [job.id]
    assert fetch(store, job.id).args == [12]
    assert fetch(store, job.id).origin == "fsm-effects"


def test_rqs_clean_up_of_its_registries_leaves_our_records_alone(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    store.commit(store.work(store.one()).fail())
    store.commit(store.one())

    for registry in (FinishedJobRegistry(queue=queue(store)), FailedJobRegistry(queue=queue(store))):
        registry.cleanup()
    assert FailedJobRegistry(queue=queue(store)).get_job_ids() == ["one"]
    assert "two" in FinishedJobRegistry(queue=queue(store)).get_job_ids()


def test_an_event_that_rqs_clean_up_took_for_failed_while_it_was_applied_is_shown_as_finished(store: Store) -> None:
    # Seen to fail without the count of new fields in `D` of commit.lua: it stayed among RQ's failed jobs for a year.
    store.idle("a")
    store.sent("a", "one")
    fsm = store.one()
    started = StartedJobRegistry(queue=queue(store))
    store.redis.zadd(started.key, {"one:execution": 1})
    started.cleanup()
    assert fetch(store, "one").get_status() == JobStatus.FAILED

    assert store.commit(fsm) == ["REST"]
    assert fetch(store, "one").get_status() == JobStatus.FINISHED
    assert FailedJobRegistry(queue=queue(store)).get_job_ids() == []
    assert "exc_info" not in store.job("one")


def test_an_event_that_failed_without_its_record_is_nothing_that_could_be_requeued(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    work = store.work(store.one()).fail()
    fetch(store, "one").delete()

    assert store.commit(work) == ["REST"]
    assert FailedJobRegistry(queue=queue(store)).get_job_ids() == []


def test_what_rq_said_of_a_job_after_its_end_does_not_outlive_its_record(store: Store) -> None:
    # Seen to fail while `drop_ended` cleaned the registry of finished jobs alone.
    store.idle("a")
    store.sent("a", "one", "two", "three")
    store.commit(store.one())
    store.redis.zadd("rq:failed:fsm", {"one": 9_999_999_999})
    store.redis.zadd("rq:canceled:fsm", {"two": 9_999_999_999})
    store.age()

    store.recover()

    assert not store.redis.exists("rq:finished:fsm", "rq:failed:fsm", "rq:canceled:fsm")
