"""How soon what a dead worker held is free again, whatever the living ones do; measured by the clock of Redis.

The dead are claims that nobody renews, of FSMs of a queue that nobody serves: so the test sees them freed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from rq.suspension import resume, suspend

from fsm import Client, Machine, Settings
from fsm.store import calls
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.store.requests import run
from tests.integration.conftest import Processes
from tests.integration.machines import Slow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsm.store.embedded import EmbeddedServer

KEYS = Keys("default")
LEASE_MS = 1000


class Elsewhere(Machine):
    """Waits on a queue that the workers of this module do not serve."""

    settings = Settings(endless=True, queue="elsewhere")
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
    """


class World:
    def __init__(self, client: Client, redis: Any) -> None:
        self.client = client
        self.redis = redis
        self._count = 0

    def now_ms(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def dies(self, count: int = 1) -> list[str]:
        """So many FSMs, claimed by a worker that dies at once."""
        self._count += 1
        self.redis.delete(KEYS.ready("elsewhere"), "rq:queue:elsewhere")  # those of earlier tests
        names = [f"dead-{self._count}-{number}" for number in range(count)]
        self.client.start_many(Elsewhere, names)
        claim = calls.claim(KEYS, "dead", "elsewhere", "ab" * 16, self._count, lease_ms=LEASE_MS, fsms=count)
        assert len(run(self.redis, claim).held) == count
        return names

    def freed_after_ms(self, names: list[str], until: Callable[..., Any]) -> int:
        """How long after the end of their lease the last of them was free."""
        ends = max(map(int, self.redis.zmscore(KEYS.held, names)))  # at once: they are not held for long
        until(lambda: not any(self.redis.zmscore(KEYS.held, names)))
        late = self.now_ms() - ends
        assert all(self.redis.zmscore(KEYS.ready("elsewhere"), names))
        assert {self.redis.hget(KEYS.snapshot(name), "tries") for name in names} == {b"1"}
        return late


@pytest.fixture(scope="module")
def world(redis_server: EmbeddedServer) -> Iterator[World]:
    processes = Processes(redis_server.url)
    try:
        with connect(redis_server.url) as redis, Client(redis_server.url, namespace="default") as client:
            redis.flushall()
            for name in ("one", "two"):
                processes.worker("--name", name, "--lease", "60s")
            client.start_fsm(Slow, "slow").call("nap", 0, timeout=30)
            yield World(client, redis)
    finally:
        processes.end()


def told(what: str, late_ms: int) -> None:
    if os.environ.get("FSM_TEST_FIGURES"):
        print(f"{what}: freed {late_ms} ms after the end of the lease")  # noqa: T201 - asked for


@pytest.mark.parametrize("count", [1, 600])
def test_while_the_living_are_idle_it_is_free_two_seconds_after_its_lease(
    world: World, until: Callable[..., Any], count: int
) -> None:
    # Seen to fail, with 600, without the loop in `Rescuer._recover`: 200 a second were freed.
    late = world.freed_after_ms(world.dies(count), until)
    told(f"idle, {count} FSMs", late)

    assert late < 2000


def test_while_the_living_are_busy_for_minutes_it_is_free_two_seconds_after_its_lease(
    world: World, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail without the thread of `Rescuer`: a worker in a handler looked after nobody.
    enough = tmp_path / "enough"
    world.client.start_many(Slow, ["busy-1", "busy-2"])
    jobs = [world.client.transition(name, "hold", str(enough)) for name in ("busy-1", "busy-2")]
    until(lambda: world.redis.exists("fsm:default:lock:busy-1", "fsm:default:lock:busy-2") == 2)
    try:
        late = world.freed_after_ms(world.dies(), until)
        told("busy", late)
        assert [job.status() for job in jobs] == ["waiting", "waiting"]
    finally:
        enough.touch()

    assert late < 2000
    assert all(job.result(15).ok for job in jobs)


def test_while_the_living_are_suspended_it_is_free_two_seconds_after_its_lease_and_is_not_run(
    world: World, until: Callable[..., Any]
) -> None:
    # Seen to fail without the thread of `Rescuer`: a worker that is suspended looked after nobody.
    suspend(world.redis)
    try:
        until(lambda: {world.redis.hget(f"rq:worker:{name}", "state") for name in ("one", "two")} == {b"suspended"})
        late = world.freed_after_ms(world.dies(), until)
        told("suspended", late)
        job = world.client.transition("slow", "nap", 0)
        assert job.status() == "waiting"
    finally:
        resume(world.redis)

    assert late < 2000
    assert job.result(15).ok
