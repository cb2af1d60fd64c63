"""Where only stock RQ workers run: killed before, in and after a commit, and with RQ's list lost under them."""

from __future__ import annotations

import functools
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from fsm import Client
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.testing import FaultPoint
from tests.integration.conftest import Processes
from tests.integration.tool_machines import Slip, Toll

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from fsm import FSMHandle
    from fsm.store.embedded import EmbeddedServer

KEYS = Keys("default")


class World:
    """A Redis with one stock worker of RQ's."""

    def __init__(self, client: Client, redis: Any, processes: Processes, folder: Path) -> None:
        self.client = client
        self.redis = redis
        self.processes = processes
        self.folder = folder
        self.worker = processes.rq_worker("fsm")
        self._count = 0

    def start(self) -> FSMHandle[Any]:
        self._count += 1
        return self.client.start_fsm(Toll, f"toll-{self._count}", [])

    def horses(self) -> list[int]:
        """Process id of the one that runs a job, if there is one."""
        pid = self.worker.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]

    def is_at_rest(self) -> bool:
        """Whether all is applied, also in RQ's eyes, so that the next job is run by a horse of its own."""
        return not self.redis.exists("fsm:default:ready:fsm", "fsm:default:held", "rq:queue:fsm") and not self.horses()

    def lapse(self, name: str) -> None:
        """Make the lease of this FSM end now: that of a stock worker is 15 s."""
        if self.redis.delete(KEYS.lock(name)):
            self.redis.zadd(KEYS.held, {name: 1})

    def job(self, job_id: str) -> Job:
        return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)

    def failed(self) -> list[str]:
        return FailedJobRegistry(queue=Queue("fsm", connection=self.redis)).get_job_ids()


@pytest.fixture(scope="module")
def world(redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    processes = Processes(redis_server.url)
    processes.environment["FSM_APP"] = "tests.integration.tool_machines"
    try:
        with connect(redis_server.url) as redis, Client(redis_server.url, namespace="default") as client:
            redis.flushall()
            yield World(client, redis, processes, tmp_path_factory.mktemp("stock"))
    finally:
        processes.end()


@pytest.mark.parametrize("moment", ["in the handler", "in the commit", "after the commit", "in the handler, both"])
def test_killed_it_leaves_the_event_to_others_which_apply_it_once(
    world: World, until: Callable[..., Any], moment: str
) -> None:
    # Seen to fail, in the handler, without the call of `recover` at the end of each job: RQ had taken the event for
    # failed, and it was never run. After the commit RQ's own record of the job is the true one, which we wrote.
    toll, path = world.start(), world.folder / moment
    begun = path.with_name(f"{moment}.begun")
    until(world.is_at_rest, 30)
    job = toll.transition("hold", {"path": str(path), "number": 1})
    until(begun.exists, 30)
    (horse,) = world.horses()
    if moment == "in the commit":
        # It has sent it, and Redis gets to it when it is dead.
        world.redis.client_pause(20_000, all=False)
        path.touch()
        until(
            lambda: any(client["cmd"] == "evalsha" and "b" in client["flags"] for client in world.redis.client_list())
        )
    elif moment == "after the commit":
        path.touch()
        until(lambda: world.redis.hget(KEYS.snapshot(toll.name), "version") == b"2")
    if moment.endswith("both"):
        world.worker.kill()
        world.worker.wait()
    kill(horse)
    path.touch()
    world.redis.client_unpause()
    if moment.endswith("both"):
        world.worker = world.processes.rq_worker("fsm")
    elif moment == "in the handler":
        until(lambda: world.job(job.id).get_status() == "failed")
        assert job.status() == "waiting"
    world.lapse(toll.name)

    world.start()  # some other event, so that a stock worker does anything at all

    assert job.result(30).ok
    assert toll.state().payload == [1]
    assert [line["job"] for line in toll.log()].count(job.id) == 1
    until(lambda: world.job(job.id).get_status() == "finished")
    assert job.id not in world.failed()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was quicker than we
        os.kill(pid, signal.SIGKILL)


def test_whose_list_was_emptied_by_hand_finds_all_that_waits_again(world: World, until: Callable[..., Any]) -> None:
    # Seen to fail without `rehang` in recover.lua: stock workers look at nothing but the list.
    world.worker.send_signal(signal.SIGSTOP)
    tolls = [world.start() for _ in range(3)]
    jobs = [toll.transition("note", 1) for toll in tolls]
    world.redis.delete("rq:queue:fsm")
    world.worker.send_signal(signal.SIGCONT)

    world.start()

    assert all(job.result(30).ok for job in jobs)


@pytest.fixture
def alone(world: World, until: Callable[..., Any]) -> Iterator[World]:
    """Without a worker yet: the test starts the only one, as it likes."""
    until(world.is_at_rest, 30)
    end(world.worker)
    before = dict(world.processes.environment)
    yield world
    world.processes.environment = before
    end(world.worker)
    world.worker = world.processes.rq_worker("fsm")


def end(worker: subprocess.Popen[str]) -> None:
    worker.terminate()
    worker.communicate(timeout=30)


def test_killed_it_is_brought_back_by_rqs_scheduler_though_nothing_else_is_sent(
    alone: World, until: Callable[..., Any], tmp_path: Path
) -> None:
    # Seen to fail without `take` of the ticket in `workers.jobs`: the event waited until some other job was run. And
    # without `renew`: a handler that takes longer than the lease was brought back while it ran.
    path, killed = tmp_path / "go", tmp_path / "killed"
    killed.touch()  # not yet
    alone.processes.environment |= FaultPoint("before commit", "kill", once=killed).environment()
    alone.worker = alone.processes.rq_worker("--with-scheduler", "fsm")
    returns_at = functools.partial(alone.redis.zscore, "rq:scheduled:fsm")
    toll = alone.start()
    until(lambda: toll.state().version == 1 and not alone.redis.exists("fsm:default:held"), 30)
    killed.unlink()
    job = toll.transition("hold", {"path": str(path), "number": 1})
    until(path.with_name("go.begun").exists, 30)
    alone.redis.zadd("rq:scheduled:fsm", {job.id: time.time() + 9}, xx=True)
    until(lambda: returns_at(job.id) > time.time() + 10, 15)
    path.touch()
    until(killed.exists, 30)
    until(lambda: alone.job(job.id).get_status() == "failed", 30)
    assert job.status() == "waiting"
    assert 8 < returns_at(job.id) - time.time() < 18

    alone.lapse(toll.name)
    alone.redis.zadd("rq:scheduled:fsm", {job.id: 1}, xx=True)  # so much time has passed

    assert job.result(30).ok
    assert toll.state().payload == [1]
    assert [line["job"] for line in toll.log()].count(job.id) == 1
    until(lambda: returns_at(job.id) is None)
    assert job.id not in alone.failed()


def test_what_has_finished_is_taken_away_by_stock_workers_and_by_ours(world: World, until: Callable[..., Any]) -> None:
    # Seen to fail, the first half without the look in `workers.jobs`, the second without that in `TransitionWorker`.
    def end(name: str) -> None:
        world.client.start_fsm(Slip, name)
        world.client.call(name, "end")
        until(world.is_at_rest)
        world.redis.zincrby(KEYS.finished_of("Slip", "off"), -60_000, name)

    end("slip-1")
    world.client.call(world.start().name, "note", 1)
    until(lambda: not world.client.exists("slip-1"))
    end("slip-2")
    ours = world.processes.worker("--app", "tests.integration.tool_machines")
    try:
        until(lambda: not world.client.exists("slip-2"))
    finally:
        ours.terminate()
        ours.communicate(timeout=20)
    assert world.redis.keys("*slip-*") == []
