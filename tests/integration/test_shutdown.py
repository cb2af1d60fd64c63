"""How workers end: in order, in haste, in time, and one after the other in a deploy."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import wait_until_asked
from tests.integration.machines import Journal, Slow
from tests.integration.stubborn import Patient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from fsm import Client
    from fsm.store.embedded import EmbeddedServer
    from tests.integration.conftest import Processes

    Until = Callable[..., Any]

STUBBORN = "tests.integration.stubborn_and_hasty"


def nothing_is_held(raw_redis: redis.Redis) -> bool:
    return not any(raw_redis.keys(f"fsm:default:{kind}*") for kind in ("lock:", "claims:", "held", "hand", "workers"))


def is_waiting_uncharged(raw_redis: redis.Redis, name: str) -> bool:
    is_charged = raw_redis.hexists(f"fsm:default:snapshot:{name}", "tries")
    return raw_redis.zscore("fsm:default:ready:fsm", name) is not None and not is_charged


@pytest.mark.parametrize("way", ["a second signal", "the time-out"])
def test_a_worker_in_haste_gives_back_the_event_in_hand_uncharged(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until, tmp_path: Path, way: str
) -> None:
    # Seen to fail without the signal that `Countdown` sends: it waited for its handler.
    slow = client.start_fsm(Slow, "slow")
    timeout = "1s" if way == "the time-out" else "1m"
    worker = processes.worker("--shutdown-timeout", timeout, "--log-level", "debug")
    assert slow.call("nap", 0, timeout=30).ok
    job = slow.transition("hold", str(tmp_path / "never"))
    until(lambda: raw_redis.exists("fsm:default:lock:slow"))

    begin = time.monotonic()
    worker.terminate()
    if way == "a second signal":
        wait_until_asked(worker)
        asked = time.monotonic()
        until(lambda: time.monotonic() - asked > 1.2)  # sooner, it would be taken for the first
        worker.terminate()
    output, _ = worker.communicate(timeout=30)

    assert 1 <= time.monotonic() - begin < 20  # else for as long as the handler takes, a minute
    assert worker.returncode == 0, output
    assert nothing_is_held(raw_redis)
    assert is_waiting_uncharged(raw_redis, "slow")
    assert job.status() == "waiting"


def test_a_worker_whose_handler_cannot_be_interrupted_ends_in_time_and_gives_back_its_event(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until
) -> None:
    # Seen to fail without `signal.set_wakeup_fd`, and without `last_resort.end`: it was stuck for good.
    patient = client.start_fsm(Patient, "patient")
    worker = processes.worker("--app", STUBBORN, "--shutdown-timeout", "1s")
    until(lambda: patient.state().version == 1, 30)
    job = patient.transition("block")
    until(lambda: raw_redis.exists("fsm:default:lock:patient"))

    worker.terminate()
    output, _ = worker.communicate(timeout=30)

    assert worker.returncode == 1, output
    assert "in lock_twice" in output
    assert nothing_is_held(raw_redis)
    assert is_waiting_uncharged(raw_redis, "patient")
    assert job.status() == "waiting"


def test_a_worker_that_is_told_to_stop_while_redis_hangs_ends_in_time(
    processes: Processes, client: Client, redis_server: EmbeddedServer, until: Until
) -> None:
    # Seen to fail without `signal.set_wakeup_fd`, by which the countdown hears of the signal: each request at the end
    # waited for a reply for 10 s and more.
    patient = client.start_fsm(Patient, "patient")
    worker = processes.worker("--app", STUBBORN, "--shutdown-timeout", "1s")
    until(lambda: patient.state().version == 1, 30)
    server = redis_server.pid
    assert server
    os.kill(server, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        worker.terminate()
        output, _ = worker.communicate(timeout=40)
        seconds = time.monotonic() - begin
    finally:
        os.kill(server, signal.SIGCONT)

    assert worker.returncode in (0, 1)
    # 1 s, then some to end at once (0.5 s here), then 3 s for the last resort.
    assert seconds < 9, output


@pytest.mark.slow
def test_a_deploy_under_load_loses_nothing_charges_nothing_and_stops_nobody_for_longer_than_it_takes(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until
) -> None:
    # Seen to fail, two times of three, with SIGKILL in the place of SIGTERM: what was in hand just then waited for the
    # end of the lease, and was charged.
    names = [f"journal-{n}" for n in range(20)]
    client.start_many(Journal, names)
    sent = 0
    is_over = threading.Event()

    def send() -> None:
        nonlocal sent
        while not is_over.wait(0.01):
            client.transition_many([(name, "note", sent) for name in names])
            sent += 1

    old = processes.worker("--name", "old")
    until(lambda: raw_redis.zscore("fsm:default:workers", "old"), 30)
    producer = threading.Thread(target=send)
    producer.start()
    try:
        until(lambda: client.state(names[-1]).version > 10)
        begin = time.monotonic()
        processes.worker("--name", "new")
        until(lambda: raw_redis.zscore("fsm:default:workers", "new"), 30)
        old.terminate()
        output, _ = old.communicate(timeout=30)
        seconds = time.monotonic() - begin
        at_end = client.state(names[0]).version
        until(lambda: client.state(names[0]).version > at_end + 10)
    finally:
        is_over.set()
        producer.join()
    assert old.returncode == 0, output
    until(lambda: not raw_redis.exists("fsm:default:ready:fsm", "fsm:default:held"), 30)

    for name in names:
        state = client.state(name, Journal)
        assert state.payload == list(range(sent))
        assert (state.version, state.tries) == (sent + 1, 0)
    commits = [int(entry.partition(b"-")[0]) for entry, _ in raw_redis.xrange("fsm:default:log")]
    assert max(later - one for one, later in pairwise(commits)) / 1000 < seconds
