"""What RQ calls at the end of an effect, by RQ's own worker over fakeredis; and the watch over what is not told."""

from __future__ import annotations

import time
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from rq import Queue, Retry, SimpleWorker
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from fsm.engine import Decision, Effect, Event
from fsm.engine.effects import call_of
from fsm.errors import StoreError
from fsm.machine import Machine
from fsm.store import calls, commits
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers import answers
from workers.answers import EffectsWatch
from workers.carrier import Carrier

if TYPE_CHECKING:
    from collections.abc import Callable

    import fakeredis

KEYS = Keys("default")
ID = "cause--e1"


class Desk(Machine):
    """Asks for effects."""

    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : done
        open --> open : failed
        open --> shut : shut
        shut --> [*]
    """


class Declined(Exception):  # noqa: N818 - as a bank would call it
    """The bank says no."""


def give(value: Any) -> Any:
    return value


RUNS: list[str] = []


def give_a_set() -> Any:
    RUNS.append("give_a_set")
    return {1, 2}


def decline(*_: Any) -> None:
    problem = "no\ncover"
    raise Declined(problem)


def come_again() -> Any:
    return Retry(max=1)


class Office:
    """An FSM over fakeredis that has asked for one effect, and RQ's worker for it."""

    def __init__(self, client: fakeredis.FakeRedis) -> None:
        self.redis: Any = client

    def ask(self, func: Callable[..., Any], *args: Any, **more: Any) -> None:
        """Ask for an effect by way of a commit."""
        name = "a desk: first\nfloor"
        run(self.redis, calls.start(KEYS, Desk.definition, [calls.Birth(name, "entry", b"{}")]))
        (fsm,) = self.claim().held
        path = f"{__name__}.{func.__name__}"
        ends = {"on_success": "done", "on_failure": "failed"} | more
        effect = Effect(ID, "fsm-effects", path, call_of(path, args, {}), **ends)
        block = commits.Block(KEYS, fsm, Desk.definition.settings)
        block.take("entry")
        block.applied("entry", {"state": "open", "version": 1}, asked=False)
        block.drop("status")
        block.send_out(Decision("done", Event("cause", "done"), "open", "open", 1, {}, [effect]))
        request = commits.commit(KEYS, "w", 1, 60_000, "2026-01-02T03:04:05.000006Z", [block.arguments("open")])
        assert run(self.redis, request) == ["REST"]

    def claim(self) -> calls.Claims:
        self.number = getattr(self, "number", 0) + 1
        token = f"t{self.number}"
        return run(self.redis, calls.claim(KEYS, "w", "fsm", token, self.number, lease_ms=60_000, fsms=9))

    @property
    def queue(self) -> Queue:
        return Queue("fsm-effects", connection=self.redis, serializer=JSONSerializer)

    @property
    def job(self) -> Job:
        return Job.fetch(ID, connection=self.redis, serializer=JSONSerializer)

    def status(self) -> str:
        return str(self.redis.hget(KEYS.job(ID), "status").decode())

    def work(self) -> None:
        """Run what is in the queue, in this process."""
        worker = SimpleWorker([self.queue], connection=self.redis, serializer=JSONSerializer)
        while (job_id := self.redis.lpop("rq:queue:fsm-effects")) is not None:
            job = Job.fetch(job_id.decode(), connection=self.redis, serializer=JSONSerializer)
            worker.execute_job(job, self.queue)

    def told(self) -> list[tuple[str, Any]]:
        """Take the events that have come back out of the mailbox: event and data."""
        events = [mail for fsm in self.claim().held for mail in fsm.mail]
        return [(str(mail.event), orjson.loads(mail.data)[2][3]) for mail in events]

    def is_open(self) -> bool:
        return bool(self.redis.exists(KEYS.effects_of("a desk: first\nfloor")))


@pytest.fixture
def office(fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch) -> Office:
    # RQ's worker asks for this, and fakeredis does not know it.
    monkeypatch.setattr(SimpleWorker, "get_redis_server_version", lambda _: (7, 0, 0))
    return Office(fake_redis)


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception, script: str = "answer") -> None:
    """Let Redis refuse a script."""

    def fake(client: Any, request: Any, url: str = "") -> Any:
        if request.script == script:
            raise StoreError("Redis is full") from error
        return run(client, request, url)

    monkeypatch.setattr(answers, "run", fake)
    monkeypatch.setattr("workers.carrier.run", fake)


@pytest.mark.parametrize("value", [None, 7, {"n": [1, "ü\n"]}, []])
def test_what_an_effect_returns_is_told(office: Office, value: Any) -> None:
    office.ask(give, value)
    office.work()

    assert office.told() == [("done", value)]
    assert (office.status(), office.is_open()) == ("finished", False)


def test_a_second_run_tells_nothing(office: Office) -> None:
    office.ask(give, 1)
    office.work()
    office.redis.rpush("rq:queue:fsm-effects", ID)
    office.work()

    assert office.told() == [("done", 1)]


def test_what_is_no_json_is_told_as_a_failure_and_not_done_again(office: Office) -> None:
    RUNS.clear()
    office.ask(give_a_set, waits=(0, 0))
    office.work()
    assert RUNS == ["give_a_set"]

    ((event, data),) = office.told()
    assert (event, data["type"]) == ("failed", "PayloadError")
    assert "an effect returns JSON values" in data["message"]
    assert office.status() == "failed"
    assert office.queue.job_ids == []


def test_where_nobody_wants_the_value_it_may_be_anything(office: Office) -> None:
    office.ask(give_a_set, on_success="")
    office.work()

    assert (office.told(), office.status(), office.is_open()) == ([], "finished", False)


def test_a_failure_that_rq_will_retry_is_not_told(office: Office) -> None:
    office.ask(decline, waits=(0,))
    job = office.job

    answers.failure(job, office.redis, Declined, Declined("no"), None)
    assert office.told() == []
    assert office.is_open()


def test_the_last_failure_is_told(office: Office) -> None:
    office.ask(decline, waits=(0, 0))
    office.work()

    assert office.told() == [("failed", {"type": "Declined", "message": "no\ncover"})]
    assert office.status() == "failed"


def test_a_retry_that_waits_is_looked_after_when_it_is_due(office: Office) -> None:
    office.ask(decline, waits=(60,))
    office.work()

    (due,) = [score for _, score in office.redis.zrange(KEYS.effects, 0, -1, withscores=True)]
    assert 55_000 < due - int(office.redis.time()[0]) * 1000 <= 61_000
    assert office.told() == []


def test_a_job_that_is_no_effect_is_none_of_ours(office: Office) -> None:
    job = office.queue.create_job(f"{__name__}.give", args=(1,))
    job.save()

    answers.success(job, office.redis, {1, 2})
    answers.failure(job, office.redis, ValueError, ValueError("x"), None)
    answers.stopped(job, office.redis)
    assert not office.redis.keys("fsm:*")


def test_an_effect_that_somebody_stopped_is_told(office: Office) -> None:
    office.ask(give, 1)

    answers.stopped(office.job, office.redis)
    assert office.told() == [("failed", {"type": "cancelled", "message": "somebody stopped it"})]


def test_an_effect_that_was_abandoned_is_marked_and_not_told(office: Office) -> None:
    office.ask(give, 1)
    office.redis.lpop("rq:queue:fsm-effects")
    office.redis.hset(KEYS.job(ID), "status", "started")
    office.redis.zadd("rq:wip:fsm-effects", {f"{ID}:x": 1})

    StartedJobRegistry(queue=office.queue).cleanup()
    assert (office.status(), office.told()) == ("failed", [])
    assert office.redis.hget(KEYS.job(ID), "abandoned") == b"1"


def test_an_effect_that_was_abandoned_and_cannot_be_marked_stops_no_clean_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.ask(give, 1)
    job = office.job
    monkeypatch.setattr(office.redis, "hset", lambda *_: (_ for _ in ()).throw(RedisConnectionError("gone")))

    answers.failure(job, office.redis, AbandonedJobError, AbandonedJobError(), None)


@pytest.mark.parametrize("error", [OutOfMemoryError("OOM"), RedisConnectionError("gone")])
def test_an_end_that_cannot_be_told_does_not_change_how_the_job_ended(
    office: Office, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    office.ask(give, 7, waits=(0,))
    with monkeypatch.context() as context:
        refuse(context, error)
        office.work()

    assert (office.status(), office.told()) == ("finished", [])
    assert office.is_open()
    assert "cannot be told now" in caplog.text
    # Its value is kept until the watch can tell it.
    assert office.redis.ttl(f"rq:results:{ID}") > 600_000
    watch(office).look()
    assert office.told() == [("done", 7)]


def test_an_asker_that_cannot_be_read_does_not_change_how_the_job_ended(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.ask(give, 7, waits=(0,))
    with monkeypatch.context() as context:
        refuse(context, RedisConnectionError("gone"), script="")
        office.work()

    assert (office.status(), office.is_open()) == ("finished", True)


def test_a_callback_that_takes_too_long_does_not_change_how_the_job_ended(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.ask(give, 7, waits=(0,))
    with monkeypatch.context() as context:
        context.setattr(answers, "run", lambda *_: (_ for _ in ()).throw(JobTimeoutException("60 s")))
        office.work()

    assert (office.status(), office.is_open()) == ("finished", True)


def test_a_mailbox_that_is_full_keeps_the_value_for_later(office: Office) -> None:
    office.ask(give, 7)
    box = KEYS.mailbox("a desk: first\nfloor")
    office.redis.rpush(box, *range(20_000))
    office.work()

    assert office.redis.ttl(f"rq:results:{ID}") > 600_000
    office.redis.delete(box)
    watch(office).look()
    assert office.told() == [("done", 7)]


# The watch.


def watch(office: Office) -> EffectsWatch:
    """Make a watch to which every effect is due."""
    for member in office.redis.zrange(KEYS.effects, 0, -1):
        office.redis.zadd(KEYS.effects, {member: 0})
    return EffectsWatch(office.redis, Carrier(office.redis, "redis://x", lambda: True), KEYS)


def end(office: Office, status: str, **fields: Any) -> None:
    """Write down that the effect has ended, and nobody told it."""
    office.redis.lpop("rq:queue:fsm-effects")
    office.redis.hset(KEYS.job(ID), "status", status)
    if fields:
        office.redis.xadd(f"rq:results:{ID}", {"type": 1, "worker_name": "w", **fields})


def packed(text: str) -> str:
    return b64encode(zlib.compress(text.encode())).decode()


def test_the_watch_tells_that_a_job_was_deleted(office: Office) -> None:
    office.ask(give, 1)
    office.job.delete()
    watch(office).look()

    assert office.told() == [("failed", {"type": "gone", "message": "an operator deleted its job"})]


@pytest.mark.parametrize("status", ["canceled", "stopped"])
def test_the_watch_tells_that_a_job_was_taken_away(office: Office, status: str) -> None:
    office.ask(give, 1)
    end(office, status)
    watch(office).look()

    assert office.told() == [("failed", {"type": "cancelled", "message": "an operator took it away"})]


def test_the_watch_tells_a_failure_by_its_traceback(office: Office) -> None:
    office.ask(give, 1)
    try:
        decline()
    except Declined:
        import traceback  # noqa: PLC0415 - only here

        end(office, "failed", exc_string=packed(traceback.format_exc()))
    watch(office).look()

    assert office.told() == [("failed", {"type": "Declined", "message": "no\ncover"})]


def test_the_watch_tells_a_failure_that_says_nothing(office: Office) -> None:
    office.ask(give, 1)
    end(office, "failed")
    watch(office).look()

    assert office.told() == [("failed", {"type": "abandoned", "message": "it failed, and RQ does not say why"})]


@pytest.mark.parametrize(
    "text",
    [
        "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ",
        "Moved to FailedJobRegistry, due to AbandonedJobError, at 2026-01-01",
        "Job was stuck in intermediate queue.",
    ],
)
def test_the_watch_puts_back_what_failed_because_its_process_died(office: Office, text: str) -> None:
    office.ask(give, 1)
    end(office, "failed", exc_string=packed(text))
    watched = watch(office)
    watched.look()
    assert office.told() == []
    watched._next_at = 0
    watched.look()

    assert (office.status(), office.queue.job_ids) == ("queued", [ID])
    office.work()
    assert office.told() == [("done", 1)]


def test_the_watch_tells_what_rq_killed_for_its_time(office: Office) -> None:
    office.ask(give, 1)
    end(office, "failed", exc_string=packed("Work-horse terminated unexpectedly; waitpid returned None; "))
    watch(office).look()

    ((_, data),) = office.told()
    assert data["type"] == "abandoned"


def test_the_watch_tells_that_too_many_workers_died_on_it(office: Office) -> None:
    office.ask(give, 1)
    old = "Moved to FailedJobRegistry, due to AbandonedJobError, at 2026-01-01"
    end(office, "failed", exc_string=packed(old))
    text = "workers died 4 times on this effect"
    office.redis.hset(KEYS.job(ID), mapping={"deaths": 4, "exc_info": text})
    watch(office).look()

    assert office.told() == [("failed", {"type": "abandoned", "message": text})]


def test_the_watch_tells_what_a_finished_job_returned(office: Office) -> None:
    office.ask(give, 1)
    end(office, "finished", return_value=b64encode(b'{"n":1}').decode())
    watch(office).look()

    assert office.told() == [("done", {"n": 1})]


def test_the_watch_tells_that_what_a_finished_job_returned_is_forgotten(office: Office) -> None:
    office.ask(give, 1)
    end(office, "finished")
    watch(office).look()

    ((event, data),) = office.told()
    assert (event, data["type"]) == ("failed", "gone")


@pytest.mark.parametrize("raw", [b'"Unserializable return value"', b"NaN"])
def test_the_watch_tells_that_what_a_finished_job_returned_was_no_json(office: Office, raw: bytes) -> None:
    office.ask(give, 1)
    end(office, "finished", return_value=b64encode(raw).decode())
    watch(office).look()

    ((event, data),) = office.told()
    assert (event, data["type"]) == ("failed", "PayloadError")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("failed", {"type": 2, "exc_string": "no base64"}),
        ("failed", {"type": 2, "exc_string": b64encode(b"no zlib").decode()}),
        ("finished", {"type": 1, "return_value": b64encode(b"no JSON").decode()}),
        ("finished", {"type": "no number"}),
        ("finished", {"no": "type"}),
    ],
)
def test_an_end_of_which_the_record_was_edited_by_hand_is_told_as_a_failure(
    office: Office, status: str, fields: dict[str, Any]
) -> None:
    office.ask(give, 1)
    end(office, status)
    office.redis.xadd(f"rq:results:{ID}", fields)
    watch(office).look()

    assert [event for event, _ in office.told()] == ["failed"]


def test_an_end_at_which_we_fail_ourselves_stops_no_watch(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    office.ask(give, 1)
    end(office, "failed")
    monkeypatch.setattr(EffectsWatch, "_why", lambda *_: 1 / 0)
    watch(office).look()

    assert f"the end of effect {ID} of FSM 'a desk: first\\nfloor' cannot be told" in caplog.text
    assert office.is_open()


def test_a_note_that_was_edited_by_hand_stops_no_watch(office: Office) -> None:
    office.ask(give, 1)
    office.redis.hset(KEYS.effects_of("a desk: first\nfloor"), ID, "no JSON")
    end(office, "failed")
    watch(office).look()

    assert not office.is_open()


@pytest.mark.parametrize("script", ["look", "answer"])
@pytest.mark.parametrize("error", [OutOfMemoryError("OOM"), ResponseError("NOPERM"), RedisConnectionError("gone")])
def test_a_redis_that_refuses_stops_no_watch_and_is_asked_again_after_a_pause(
    office: Office, monkeypatch: pytest.MonkeyPatch, script: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    office.ask(give, 1)
    office.job.delete()
    watched = watch(office)
    watched.bury("dead", ["fsm-effects"])
    with monkeypatch.context() as context:
        refuse(context, error, script)
        watched.look()
        watched.look()
    assert [record.message for record in caplog.records] == ["open effects cannot be looked after now: Redis is full"]
    assert watched._next_at > time.monotonic() + 5
    # What is known of the dead is not forgotten by it.
    assert list(watched._dead) == ([("dead", "fsm-effects")] if script == "look" else [])

    watch(office).look()
    assert len(office.told()) == 1


def test_a_death_that_is_told_during_a_look_is_not_forgotten(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch(office)

    def fake(client: Any, request: Any, url: str = "") -> Any:
        watched.bury("dead", ["fsm-effects"])
        return run(client, request, url)

    monkeypatch.setattr("workers.carrier.run", fake)
    watched.look()
    assert list(watched._dead) == [("dead", "fsm-effects")]


def test_one_end_that_is_refused_keeps_no_other_from_being_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.ask(give, 1)
    office.job.delete()
    note = office.redis.hget(KEYS.effects_of("a desk: first\nfloor"), ID)
    office.redis.hset(KEYS.effects_of("gone"), "a-first", note)
    office.redis.zadd(KEYS.effects, {"a-first gone": -1})
    refused: list[str] = []

    def fake(client: Any, request: Any, url: str = "") -> Any:
        if request.script == "answer" and "a-first" in request.arguments:
            refused.append("a-first")
            raise StoreError("Redis is full") from OutOfMemoryError("OOM")
        return run(client, request, url)

    monkeypatch.setattr("workers.carrier.run", fake)
    watch(office).look()

    assert refused == ["a-first"]
    assert len(office.told()) == 1


def test_the_watch_looks_once_a_second(office: Office) -> None:
    office.ask(give, 1)
    watched = watch(office)
    watched.look()
    office.job.delete()
    office.redis.zadd(KEYS.effects, {f"{ID} a desk: first\nfloor": 0})

    watched.look()
    assert office.told() == []


def test_the_watch_gets_through_more_than_one_page(office: Office) -> None:
    office.ask(give, 1)
    name = "a desk: first\nfloor"
    note = office.redis.hget(KEYS.effects_of(name), ID)
    office.redis.hset(KEYS.effects_of(name), mapping={f"e{n}": note for n in range(250)})
    office.redis.zadd(KEYS.effects, {f"e{n} {name}": 1 for n in range(250)})

    watching = watch(office)
    # One look is bounded in time: what it leaves is due at the next.
    for _ in range(250):
        watching._next_at = 0.0
        watching.look()
    assert office.redis.hkeys(KEYS.effects_of(name)) == [ID.encode()]


def test_a_look_ends_where_fsms_have_waited_for_long_enough(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.ask(give, 1)
    name = "a desk: first\nfloor"
    note = office.redis.hget(KEYS.effects_of(name), ID)
    office.redis.hset(KEYS.effects_of(name), mapping={f"e{n}": note for n in range(250)})
    office.redis.zadd(KEYS.effects, {f"e{n} {name}": 1 for n in range(250)})
    monkeypatch.setattr("workers.answers._MOST_S", 0.0000001)

    watch(office).look()
    assert len(office.redis.hkeys(KEYS.effects_of(name))) >= 1 + 250 - 20


@pytest.mark.parametrize(
    ("traceback", "found"),
    [
        ("", ("abandoned", "")),
        ("Job stopped by user, work-horse terminated.", ("abandoned", "Job stopped by user, work-horse terminated.")),
        ('Traceback (most recent call last):\n  File "x"\n    f()\nKeyError: 1\n', ("KeyError", "1")),
        ('Traceback (most recent call last):\n  File "x"\nKeyError\n', ("KeyError", "KeyError")),
        ('Traceback (most recent call last):\n  File "x"\na.b.C.<locals>.Odd: x: y\nz', ("Odd", "x: y\nz")),
        (
            "Traceback (most recent call last):\n  1\nA: a\n\nTraceback (most recent call last):\n  2\nb.B: b\n",
            ("B", "b"),
        ),
        ('Traceback (most recent call last):\n  File "x"\n', ("abandoned", "")),
    ],
)
def test_class_and_text_of_an_exception_are_read_out_of_its_traceback(traceback: str, found: tuple[str, str]) -> None:
    assert answers._last_line(traceback) == found
