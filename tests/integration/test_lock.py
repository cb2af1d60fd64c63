"""Locks of real workers: renewed while handlers run, lost while their worker is stopped, and claims nobody heard of."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from fsm.store import calls
from fsm.store.keys import Keys
from fsm.store.requests import run
from tests.integration.lock_machines import Sleeper
from tests.integration.machines import Slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from fsm import Client
    from tests.integration.conftest import Processes

KEYS = Keys("default")
APP = ("--app", "tests.integration.lock_machines:app")


def lose_claim(raw_redis: redis.Redis, worker: str, name: str, lease_ms: int) -> bytes:
    """Claim an FSM in the name of a worker that never hears of it, as when a reply is lost for good: the lock."""
    redis: Any = raw_redis
    token, number = "ab" * 16, int(redis.hget(KEYS.replies(worker), "claim")) + 1
    kept = [token.decode() for token in redis.hvals(KEYS.claims(worker))]
    request = calls.claim(KEYS, worker, "fsm", token, number, lease_ms=lease_ms, fsms=1, name=name, kept=kept)
    assert [fsm.name for fsm in run(redis, request).held] == [name]
    return f"{worker}/{token}".encode()


def test_a_lock_never_lapses_while_a_handler_runs_and_a_claim_that_nobody_heard_of_is_not_renewed(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail without the thread of the keeper, and where it names all that stands in `claims`.
    slow = client.start_fsm(Slow, "slow")
    processes.worker("--name", "edge", "--lease", "1s")
    until(lambda: slow.state().version == 1, 30)
    job = slow.transition("hold", str(tmp_path / "enough"))
    lock = until(lambda: raw_redis.get("fsm:default:lock:slow"))
    begin = time.monotonic()
    lost = client.start_fsm(Slow, "lost")
    theirs = lose_claim(raw_redis, "edge", "lost", 1000)
    assert raw_redis.get("fsm:default:lock:lost") == theirs
    # It looks once a second for what has lapsed.
    processes.worker("--name", "other", "--lease", "1s")

    def is_long_enough() -> bool:
        assert raw_redis.get("fsm:default:lock:slow") == lock
        return lost.state().version == 1 and time.monotonic() - begin > 3.2

    until(is_long_enough, 30)
    assert job.status() == "waiting"
    (tmp_path / "enough").touch()
    assert job.result(20).ok
    assert [line["worker"] for line in lost.log()] == ["other"]
    assert [line["worker"] for line in slow.log()] == ["edge"] * 2
    assert (slow.state().version, slow.state().tries) == (2, 0)


def test_a_claim_whose_reply_is_lost_for_good_is_freed_by_the_next_claim_of_its_worker(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without the tokens that a claim names: for the ten minutes of its lease nobody got the FSM.
    worker = processes.worker("--name", "edge", "--lease", "10m")
    until(lambda: raw_redis.hget("rq:worker:edge", "state") == b"idle", 30)
    worker.send_signal(signal.SIGSTOP)
    job = client.start_fsm(Slow, "slow").transition("nap", 0)
    theirs = lose_claim(raw_redis, "edge", "slow", 600_000)
    assert raw_redis.get("fsm:default:lock:slow") == theirs
    assert not raw_redis.exists("fsm:default:ready:fsm")
    worker.send_signal(signal.SIGCONT)

    assert job.result(20).ok
    assert not raw_redis.exists("fsm:default:held")


@pytest.mark.parametrize("where", ["handler", "commit"])
def test_a_worker_that_was_stopped_past_its_lease_writes_nothing_frees_nothing_and_carries_on(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    until: Callable[..., Any],
    tmp_path: Path,
    where: str,
) -> None:
    # Seen to fail: stopped before its commit, without the comparison of tokens in `commit`; stopped in the handler,
    # without both that and the look at the clock before a commit is sent; in either, without the comparison in `claim`
    # before it frees what the worker does not hold any more.
    sleeper = client.start_fsm(Sleeper, "sleeper", [])
    once, hold, lock = tmp_path / "once", tmp_path / "hold", "fsm:default:lock:sleeper"
    job = sleeper.transition("stop", {"where": where, "once": str(once), "hold": str(hold)})
    workers = {name: processes.worker(*APP, "--name", name, "--lease", "1s") for name in ("one", "two")}
    pid = until(lambda: once.exists() and once.read_text(), 30)
    (name,) = (name for name in workers if workers[name].pid == int(pid))
    stopped, other = workers.pop(name), next(iter(workers))
    # A suspect is served one event at a time: its entry event first.
    until(lambda: sleeper.state().version == 1 and (raw_redis.get(lock) or b"").startswith(f"{other}/".encode()), 30)
    theirs: Any = raw_redis.get(lock)

    stopped.send_signal(signal.SIGCONT)
    # The other one is in the handler: this can only be done by the one that was stopped. After some claims it does not
    # name the old token any more as one that it still holds.
    fresh = client.start_fsm(Slow, "fresh")
    for _ in range(4):
        assert fresh.call("nap", 0, timeout=30).ok
    assert raw_redis.get(lock) == theirs
    assert raw_redis.hgetall(f"fsm:default:claims:{other}") == {b"sleeper": theirs.rpartition(b"/")[2]}
    assert raw_redis.zscore("fsm:default:held", "sleeper")
    assert job.status() == "waiting"
    hold.touch()
    assert job.result(20).ok
    assert {line["worker"] for line in fresh.log()} == {name}
    assert [(line["event"], line["worker"]) for line in sleeper.log()] == [("[*]", other), ("stop", other)]
    state = sleeper.state()
    assert (state.payload, state.version, state.tries) == ([where], 2, 0)
    stopped.terminate()
    output, _ = stopped.communicate(timeout=20)
    assert stopped.returncode == 0, output
    assert "the lock of FSM 'sleeper' was lost before its commit: nothing was written" in output
