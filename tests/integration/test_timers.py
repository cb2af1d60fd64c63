"""Timers with real workers: each fires once, whoever dies between the hour and its event."""

from __future__ import annotations

import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fsm import Client
from fsm.testing import FaultPoint
from fsm.testing.faults import Point
from tests.integration.timer_machines import Meter, Reminder, Slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from tests.integration.conftest import Processes

# Between the hour, at which `due` made the event, and the end of that; each costs the start of another worker.
POINTS: tuple[Point, ...] = ("after claim", "before commit", "after commit")
APP = ("--app", "tests.integration.timer_machines", "--lease", "500ms")
NOTHING = ("fsm:default:ready:fsm", "fsm:default:held", "fsm:default:timers")


def test_killed_at_whichever_point_a_worker_loses_no_timer_and_none_counts_twice(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail where `due` took the entry out of the snapshot as it fired: the event was passed over.
    names = [f"meter {point}" for point in POINTS]
    # The first that is done with one that is adopted is what its timers send.
    assert all(one.ok for one in client.start_many(Meter, names, state="waiting"))
    faults = [
        FaultPoint(point, "kill", name=name, once=tmp_path / point) for point, name in zip(POINTS, names, strict=True)
    ]
    processes.environment |= FaultPoint.environment_of(faults)
    workers = [processes.worker(*APP) for _ in range(2)]
    dead = []

    def all_is_over() -> bool:
        for one in [one for one in workers if one.poll() is not None]:
            workers.remove(one)
            dead.append(one.returncode)
            workers.append(processes.worker(*APP))
        return len(dead) == len(POINTS) and not raw_redis.exists(*NOTHING)

    until(all_is_over, 60)

    assert dead == [-signal.SIGKILL] * len(POINTS)
    for name in names:
        found = client.state(name)
        assert (found.state, found.payload, found.version) == ("expired", {"ticks": 3, "expired": 1}, 4)
        assert sorted(line["event"] for line in client.log(name)) == ["[timer]"] * 3 + ["expire"]
        assert client.timers(name) == []
    assert client.timers() == []


def test_timers_fire_once_at_their_time_and_ticks_never_pile_up(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    workers = [processes.worker(*APP) for _ in range(2)]
    slow = client.start_fsm(Slow, "slow")
    reminder = client.start_fsm(Reminder, "reminder")
    assert reminder.call("ask", {"n": 1, "delay": "300ms"}, timeout=30).ok
    assert reminder.call("ask", {"n": 2, "delay": "1h", "key": "k"}).ok
    assert reminder.call("ask", {"n": 3, "delay": "200ms", "key": "k"}).ok  # in its place
    assert reminder.call("ask", {"n": 4, "delay": 0}).ok
    until(lambda: len(reminder.state().payload.get("rung", [])) == 3 and slow.state().payload.get("ticks") == 5)

    assert sorted(reminder.state().payload["rung"]) == [1, 3, 4]
    assert raw_redis.zcard("fsm:default:timers") == 0
    # Seen to fail where the next tick was armed as one fired and not as it was applied: the other worker fired it.
    times = [line["at_ms"] for line in slow.log() if line["event"] == "[timer]"]
    assert len(times) == 5
    # 150 ms of the handler and 50 ms to the next tick, but for what one commit took longer than the other.
    assert all(later - earlier > 180 for earlier, later in pairwise(times)), times
    assert client.tick("slow").result(10).ok
    assert slow.state().payload["ticks"] == 6

    # What is due while nobody works fires when somebody does, also where the mail before it leaves the state.
    late, stale = (client.start_fsm(Meter, name, state="waiting") for name in ("late", "stale"))
    for worker in workers:
        worker.kill()
        worker.wait()
    assert [one.status for one in late.timers()] == ["armed", "armed"]
    until(lambda: time.time() > max(one.at.timestamp() for one in (*late.timers(), *stale.timers()) if one.at))
    leaving = stale.transition("leave", result=True)
    processes.worker(*APP)

    assert leaving.result(30).ok
    until(lambda: not raw_redis.exists(*NOTHING))
    assert late.state().payload == {"ticks": 3, "expired": 1}
    assert stale.state().state == "left"
    assert stale.state().payload == {"ticks": 3}
