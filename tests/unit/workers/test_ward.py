"""What the ward of a host tells Redis, and whom it takes for silent, over fakeredis."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from fsm.errors import StoreError
from fsm.machine import Machine, Settings
from fsm.store import calls, codec, presence
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.ward import Ward, is_stopped

if TYPE_CHECKING:
    import fakeredis

KEYS = Keys("default")


class Box(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
    """


@pytest.fixture
def silent() -> list[str]:
    """Names that the ward told of."""
    return []


@pytest.fixture
def kept(fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch, silent: list[str]) -> Ward:
    """A ward without its thread."""
    monkeypatch.setattr("workers.ward.connect", lambda *_: fake_redis)
    monkeypatch.setattr("workers.ward._SILENT_LOOKS", 3)
    return Ward("redis://x", KEYS, lambda name, _seconds: silent.append(name), "edge", lambda: silent.append("drain"))


def beat(client: Any, worker: str) -> None:
    run(client, presence.beat(KEYS, worker, time.monotonic_ns(), done=0, failed=0, seconds=0))


def look(kept: Ward) -> None:
    kept._looked_at = 0.0
    kept._look()


def test_what_a_dead_worker_held_is_free_and_charged_and_it_is_forgotten(
    kept: Ward, fake_redis: fakeredis.FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    run(fake_redis, calls.start(KEYS, Box.definition, [calls.Birth("box", codec.new_ids(1)[0], b"{}")]))
    beat(fake_redis, "dead")
    run(fake_redis, calls.claim(KEYS, "dead", "fsm", "ab" * 16, 1, lease_ms=60_000, fsms=1))

    kept._unburied.append("dead")
    kept._bury_all()

    assert not fake_redis.exists("fsm:default:lock:box", "fsm:default:workers", "fsm:default:held")
    assert fake_redis.hget("fsm:default:snapshot:box", "tries") == b"1"
    assert "freed 1 FSMs of worker dead" in caplog.text
    assert kept._unburied == []


def test_what_cannot_be_told_now_is_told_when_redis_is_back(
    kept: Ward, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Seen to fail with the name taken off before it is told.
    beat(fake_redis, "dead")
    troubles = [StoreError("Redis is away"), ValueError("a fault of ours")]

    def bury(*arguments: Any) -> int:
        if troubles:
            raise troubles.pop(0)
        run(fake_redis, presence.leave(KEYS, [arguments[2]]))
        return 0

    monkeypatch.setattr("workers.ward.handover.bury", bury)
    monkeypatch.setattr("workers.ward._LOOK_S", 0.01)
    kept.start()
    kept.bury("dead")
    deadline = time.monotonic() + 5
    while fake_redis.exists("fsm:default:workers") and time.monotonic() < deadline:
        time.sleep(0.01)
    kept.stop()

    assert not fake_redis.exists("fsm:default:workers")
    assert not kept._thread.is_alive()
    assert caplog.record_tuples[0][1:] == (
        logging.WARNING,
        "Redis cannot be told of the workers of this host now: Redis is away",
    )


def test_one_is_silent_that_was_heard_and_then_was_not_for_so_many_looks(
    kept: Ward, fake_redis: fakeredis.FakeRedis, silent: list[str]
) -> None:
    for name in ("alive", "silent", "starting"):
        kept.watch(name, os.getpid())
    beat(fake_redis, "silent")
    for _ in range(4):
        time.sleep(0.002)
        beat(fake_redis, "alive")
        look(kept)
    assert silent == ["silent"]

    assert kept.forget("silent")
    assert not kept.forget("alive")  # the one that starts is not at work yet
    look(kept)
    assert silent == ["silent"]


def test_one_that_others_took_for_dead_is_silent_all_the_same(
    kept: Ward, fake_redis: fakeredis.FakeRedis, silent: list[str]
) -> None:
    kept.watch("silent", os.getpid())
    beat(fake_redis, "silent")
    look(kept)
    fake_redis.delete("fsm:default:workers")
    for _ in range(4):
        look(kept)

    assert silent == ["silent"]


def test_one_that_somebody_stopped_is_not_silent(
    kept: Ward, fake_redis: fakeredis.FakeRedis, silent: list[str]
) -> None:
    # Seen to fail without `is_stopped`: who debugs a worker, or stops it to see what becomes of its FSMs, lost it.
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as process:
        try:
            assert not is_stopped(process.pid)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            kept.watch("stopped", process.pid)
            beat(fake_redis, "stopped")
            for _ in range(6):
                look(kept)
        finally:
            process.kill()

    assert silent == []


def test_of_a_process_that_is_not_there_nothing_can_be_known() -> None:
    assert is_stopped(2**31 - 1)


def test_a_drain_is_told_once_and_only_one_that_was_asked_for_since(
    kept: Ward, fake_redis: fakeredis.FakeRedis, silent: list[str]
) -> None:
    # Seen to fail without the comparison: a host that was started anew after a drain ended again at once, for ever.
    for since_ms, told in ((kept._born_ms - 1, 0), (kept._born_ms, 1), (kept._born_ms + 5, 1)):
        fake_redis.hset(KEYS.draining, "edge", since_ms)
        kept._look_for_drain()
        assert silent == ["drain"] * told


def test_another_host_that_drains_is_none_of_its_business(
    kept: Ward, fake_redis: fakeredis.FakeRedis, silent: list[str]
) -> None:
    fake_redis.hset(KEYS.draining, "other", kept._born_ms)

    kept._look_for_drain()
    assert silent == []
