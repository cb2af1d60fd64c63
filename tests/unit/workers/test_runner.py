"""RQ's worker for effects: what it may import, and how it passes over what it cannot read."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import OutOfMemoryError
from rq import Queue
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from fsm.errors import ConfigError
from workers.runner import EffectsWorker, is_allowed, job_class

if TYPE_CHECKING:
    import fakeredis

charge_later = partial(print, "later")


def charge(*_: Any) -> str:
    return "receipt"


class Bank:
    @staticmethod
    def charge() -> str:
        return "receipt"


def job(fake: fakeredis.FakeRedis, path: str, *allowed: str, **fields: Any) -> Any:
    """Fetch a job of this path, as a worker with this list does."""
    fake.hset("rq:job:j", mapping={"data": f'["{path}",null,[],{{}}]', "status": "queued", "origin": "e", **fields})
    return job_class(allowed).fetch("j", connection=fake, serializer=JSONSerializer)


@pytest.mark.parametrize(
    ("path", "pattern", "allowed"),
    [
        ("shop.bank.charge", "shop.bank.charge", True),
        ("shop.bank.charge", "shop.bank.*", True),
        ("shop.bank.charge", "shop.*", True),
        ("shop.bank.Bank.charge", "shop.bank.*", True),
        ("shop.bank.charge_all", "shop.bank.charge", False),
        ("shop.bankrupt.charge", "shop.bank.*", False),
        ("shop.bank", "shop.bank.*", False),
        ("my.shop.bank.charge", "shop.bank.*", False),
    ],
)
def test_a_path_is_allowed_by_itself_or_by_what_it_lies_under(path: str, pattern: str, allowed: bool) -> None:
    assert is_allowed(path, ["other.*", pattern]) is allowed


@pytest.mark.parametrize("allowed", [(), (f"{__name__}.*",)], ids=["all", "listed"])
@pytest.mark.parametrize("path", ["charge", "Bank.charge"])
def test_what_is_allowed_is_run(fake_redis: fakeredis.FakeRedis, path: str, allowed: tuple[str, ...]) -> None:
    assert job(fake_redis, f"{__name__}.{path}", *allowed).func() == "receipt"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("os.getcwd", "this worker may not run it"),
        ("eval", "this worker may not run it"),
        ("", "this worker may not run it"),
        (f"{__name__}.logging.shutdown", "it is logging.shutdown, which this worker may not run"),
        (f"{__name__}.charge.__globals__.clear", "it is .dict.clear, which"),
        (f"{__name__}.charge.__class__", "it is builtins.function, which"),
        (f"{__name__}.charge_later", "it is functools.partial, which"),
        (f"{__name__}.JSONSerializer.loads", "it is rq.serializers.JSONSerializer.loads, which"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(fake_redis: fakeredis.FakeRedis, path: str, why: str) -> None:
    with pytest.raises((ConfigError, ValueError)) as refused:
        _ = job(fake_redis, path, f"{__name__}.*").func

    assert isinstance(refused.value, ConfigError) is (".__globals__." not in path)
    assert ".__globals__." in path or f"effect {path!r}: {why}" in str(refused.value)


def test_a_method_of_a_value_is_refused(fake_redis: fakeredis.FakeRedis) -> None:
    made = job(fake_redis, "x", "shop.*", data='["shop.format","{0}",["x"],{}]')

    with pytest.raises(ConfigError, match="its record names a method of a value"):
        _ = made.func


@pytest.mark.parametrize("kind", ["success", "failure", "stopped"])
@pytest.mark.parametrize(
    ("path", "allowed", "said"),
    [
        (f"{__name__}.charge", (), None),
        (f"{__name__}.charge", (f"{__name__}.*",), None),
        ("", ("shop.*",), ""),
        ("workers.answers.KIND", ("shop.*",), None),
        ("workers.answers.text", ("shop.*",), "is not in effects_allow and is left out"),
        (f"{__name__}.charge", ("shop.*",), "is not in effects_allow and is left out"),
        (f"{__name__}.logging.shutdown", (f"{__name__}.*",), "is not in effects_allow and is left out"),
        ("no.such.module", (), "cannot be imported and is left out"),
    ],
)
def test_a_callback_that_may_not_be_called_or_cannot_be_had_is_left_out_and_told(
    fake_redis: fakeredis.FakeRedis,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    path: str,
    allowed: tuple[str, ...],
    said: str | None,
) -> None:
    name = f"{kind}_callback_name"
    made = job(fake_redis, "shop.x", *allowed, **{name: path.replace("KIND", kind)})

    found = getattr(made, f"{kind}_callback")

    assert (found is None) is (said is not None)
    assert said in caplog.text if said else not caplog.records


@pytest.mark.parametrize("allowed", [(), ("shop.*",)], ids=["all", "listed"])
def test_web_hooks_of_a_record_are_called_only_where_everything_is_allowed(
    fake_redis: fakeredis.FakeRedis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    allowed: tuple[str, ...],
) -> None:
    called: list[str] = []
    monkeypatch.setattr("rq.webhook.Webhook.send", lambda hook, *_, **__: called.append(hook.url))
    hook = '[{"url":"http://127.0.0.1:1/","job_status":"failed"}]'

    job(fake_redis, "shop.x", *allowed, webhooks=hook).send_webhooks("failed")

    assert called == ([] if allowed else ["http://127.0.0.1:1/"])
    assert ("are left out" in caplog.text) is bool(allowed)


@pytest.fixture
def worker(fake_redis: fakeredis.FakeRedis) -> EffectsWorker:
    made = job_class(())
    queue = Queue("e", connection=fake_redis, serializer=JSONSerializer, job_class=made)
    return EffectsWorker([queue], name="w", connection=fake_redis, serializer=JSONSerializer, job_class=made)


def test_a_record_that_cannot_be_read_is_written_down_as_failed_and_the_next_is_taken(
    worker: EffectsWorker, fake_redis: fakeredis.FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen to fail without `EffectsWorker.dequeue_job_and_maintain_ttl`: RQ raises, and its worker ends."""
    fake_redis.hset("rq:job:odd", mapping={"data": "[]", "status": "odd"})
    job(fake_redis, "shop.x")
    fake_redis.rpush("rq:queue:e", "odd", b"\xff", "j")

    taken, _ = worker.dequeue_job_and_maintain_ttl(None)

    assert taken.id == "j"
    assert fake_redis.hget("rq:job:odd", "status") == b"failed"
    assert fake_redis.zrange("rq:failed:e", 0, -1) == [b"odd"]
    assert b"odd" not in fake_redis.lrange("rq:queue:e:intermediate", 0, -1)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [text.partition(" cannot")[0] for text in said[:1]] == ["job 'odd' on queue e"]
    assert "found on its queues what is no job" in said[1]


@pytest.mark.parametrize("error", [OutOfMemoryError("full"), StopRequested(), ZeroDivisionError()])
def test_what_no_record_is_to_blame_for_is_raised(
    worker: EffectsWorker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("rq.Worker.dequeue_job_and_maintain_ttl", fail)
    with pytest.raises(type(error)):
        worker.dequeue_job_and_maintain_ttl(None)


def test_where_a_full_redis_refuses_to_note_it_the_worker_goes_on(
    worker: EffectsWorker,
    fake_redis: fakeredis.FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_redis.hset("rq:job:odd", mapping={"data": "[]", "status": "odd"})
    fake_redis.rpush("rq:queue:e", "odd")

    def refuse(*_: Any, **__: Any) -> None:
        raise OutOfMemoryError

    monkeypatch.setattr(fake_redis, "zadd", refuse)
    assert worker.dequeue_job_and_maintain_ttl(None) is None
    assert "that cannot be written down" in caplog.text


def test_a_command_that_is_none_does_not_end_the_thread_that_listens(
    worker: EffectsWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.handle_payload({"data": b"shutdown"})

    assert "worker w was sent a command that it cannot obey" in caplog.text
