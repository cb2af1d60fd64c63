"""The host of worker processes: it frees at once what they held when they die, and starts them anew."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from fsm import AbandonedError, Client
from tests.integration.machines import Slow
from tests.integration.stubborn import Stubborn, StubbornLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from tests.integration.conftest import Processes

    Until = Callable[..., Any]

STUBBORN = "tests.integration.stubborn_and_hasty"


def at_work(raw_redis: redis.Redis) -> dict[str, int]:
    """Workers that were heard of, and their process ids."""
    names = [name.decode() for name in raw_redis.zrange("fsm:default:workers", 0, -1)]
    return {name: int(raw_redis.hget(f"rq:worker:{name}", "pid") or 0) for name in names}


def holder(raw_redis: redis.Redis, name: str) -> str:
    """Name of the worker that holds an FSM, or ""."""
    return (raw_redis.get(f"fsm:default:lock:{name}") or b"").decode().rpartition("/")[0]


def nothing_is_held(raw_redis: redis.Redis) -> bool:
    return not any(raw_redis.keys(f"fsm:default:{kind}*") for kind in ("lock:", "claims:", "held", "workers"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_fsms_of_a_worker_that_is_killed_go_on_at_once_and_another_worker_takes_its_place(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until, tmp_path: Path
) -> None:
    # Seen to fail without `Ward.bury` in `Host._died`: they went on when the lease was over, after a minute.
    slow = client.start_fsm(Slow, "slow")
    host = processes.worker("--processes", "2", "--name", "edge", "--lease", "1m", effects=True)
    until(lambda: len(at_work(raw_redis)) == 2, 30)
    until(lambda: slow.state().version == 1)  # whoever holds it from now on, holds it for the event
    go_on = tmp_path / "go on"
    job = slow.transition("hold", str(go_on))
    first = until(lambda: holder(raw_redis, "slow"))
    pids = at_work(raw_redis)

    os.kill(pids[first], signal.SIGKILL)
    # Much less than a lease, after which it would go on in any case.
    second = until(lambda: (held_by := holder(raw_redis, "slow")) != first and held_by, 15)

    assert (first.partition("-")[0], second) == ("edge", next(name for name in pids if name != first))
    assert client.state("slow").tries == 1
    go_on.touch()
    assert job.result(15).ok
    assert client.state("slow").tries == 0
    # What it held is freed first, and then it is forgotten.
    now = until(lambda: len(there := at_work(raw_redis)) == 2 and first not in there and there, 30)
    [effects] = until(lambda: [key for key in raw_redis.smembers("rq:workers") if b":edge-effects-" in key], 30)
    host.terminate()
    output, _ = host.communicate(timeout=30)
    assert host.returncode == 0, output
    assert nothing_is_held(raw_redis)
    assert raw_redis.hexists(effects, "death")
    assert f"worker {first} died of SIGKILL; another one starts in 0.1 s" in output
    assert f"freed 1 FSMs of worker {first}" in output
    assert not any(is_alive(pid) for pid in now.values())


def test_the_workers_of_a_host_that_is_killed_finish_what_they_have_in_hand_and_end(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until, tmp_path: Path
) -> None:
    # Seen to fail without `end_with_parent` in `workers.command`: they worked on for ever.
    slow = client.start_fsm(Slow, "slow")
    host = processes.worker("--processes", "1")
    until(lambda: at_work(raw_redis), 30)
    until(lambda: slow.state().version == 1)  # held from now on, it is held for the event
    go_on = tmp_path / "go on"
    job = slow.transition("hold", str(go_on))
    until(lambda: holder(raw_redis, "slow"))
    [pid] = at_work(raw_redis).values()

    host.kill()
    host.wait()
    go_on.touch()

    assert job.result(15).ok
    until(lambda: nothing_is_held(raw_redis))
    assert not raw_redis.hexists("fsm:default:snapshot:slow", "tries")
    until(lambda: not is_alive(pid))


def test_workers_that_cannot_run_as_they_are_configured_end_their_host(processes: Processes) -> None:
    # Seen to fail without the look at the exit code in `Host._died`: they were started anew for ever.
    host = processes.worker("--app", "tests.nowhere", "--processes", "2")

    output, _ = host.communicate(timeout=30)

    assert host.returncode == 1
    assert "no module 'tests.nowhere'" in output
    assert "cannot run as it is configured" in output


@pytest.mark.slow
def test_a_handler_that_heeds_no_time_out_costs_its_worker_and_at_last_its_event(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until
) -> None:
    # Seen to fail without `Relief(self._end_if_stuck)`: workers and events hung for ever.
    names = {"blocked": (Stubborn, "block"), "looped": (StubbornLoop, "block")}
    neighbours = [f"neighbour-{n}" for n in range(30)]
    client.start_many(Stubborn, neighbours)
    fsms = [client.start_fsm(machine, name) for name, (machine, _) in names.items()]
    host = processes.worker("--app", STUBBORN, "--processes", "2", "--lease", "1m")
    assert [fsm.call("note", "before", timeout=30).ok for fsm in fsms] == [True] * 2
    around = [(name, "note", "by") for name in neighbours]

    stuck = client.transition_many([*around[:15], *((name, event) for name, (_, event) in names.items()), *around[15:]])
    behind = [fsm.transition("note", "behind") for fsm in fsms]

    for job, verdict in zip(behind, stuck[15:17], strict=True):
        assert job.result(60).ok
        with pytest.raises(AbandonedError):
            client.job(verdict.job_id).result()
    for name in (*names, *neighbours):
        state = client.state(name)
        assert (state.payload, state.tries) == (["before", "behind"] if name in names else ["by"], 0)
    # Each but these was run once: nobody else was in hand when a worker ended.
    assert {client.state(name).version for name in neighbours} == {2}
    # The event of one that ends itself is failed elsewhere while it ends: its host is told when it has seen that.
    assert host.stdout is not None
    heard: list[str] = []
    while sum("another one starts" in line for line in heard) < 2 * len(names):
        heard.append(host.stdout.readline())
    host.terminate()
    output, _ = host.communicate(timeout=30)
    output = "".join(heard) + output
    assert host.returncode == 0, output
    # Of each, two workers died: more than its `max_attempts`.
    said = re.findall(r"event '(\w+)' of FSM '(\w+)' heeds no time-out", output)
    assert sorted(said) == sorted(2 * [(event, name) for name, (_, event) in names.items()])
    assert "in lock_twice" in output
    assert "ended with code 1" in output


IMPATIENT = """
from workers import ward
from workers.__main__ import run

ward._LOOK_S, ward._SILENT_LOOKS = 0.25, 12
run()
"""


@pytest.mark.slow
def test_a_worker_that_is_stuck_with_pythons_own_lock_is_killed_by_its_host(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until
) -> None:
    # Seen to fail without `tell_silent`: it hung for ever. (Its FSM goes on without it, when its lease is over.)
    fsm = client.start_fsm(Stubborn, "stubborn")
    del processes.environment["PYTHONFAULTHANDLER"]  # it says where it was by itself
    options = ("--app", STUBBORN, "--processes", "3", "--no-effects", "--lease", "500ms")
    host = processes.run("-c", IMPATIENT, *options)
    assert fsm.call("note", "before", timeout=30).ok
    until(lambda: len(at_work(raw_redis)) == 3, 30)
    stopped, pid = next(iter(at_work(raw_redis).items()))
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    # One after the other of the two that are left has it in hand, for as long as a lease.
    job = fsm.transition("grip")
    behind = fsm.transition("note", "behind")

    assert behind.result(60).ok
    with pytest.raises(AbandonedError):
        job.result()
    until(lambda: time.monotonic() - begin > 3.5)  # for as long as silence is put up with
    os.kill(pid, signal.SIGCONT)
    until(lambda: stopped in at_work(raw_redis))
    host.terminate()
    output, _ = host.communicate(timeout=30)
    killed = re.findall(r"worker (\S+) was not heard of for 3 s: it is killed", output)
    assert killed, output
    assert stopped not in killed
    assert "died of SIGABRT" in output
    assert "in lock_twice" in output
