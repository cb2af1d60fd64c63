"""RQ's own tools, used on our jobs at any moment.

The FSM goes on, nothing is applied twice, and what was really taken away is reported once, in the log and to whoever
waits.

One worker serves the whole module. It is kept in a handler of another FSM, or of the event in question, until the test
has used the tool; so the moments are exact, and no test waits for anything but conditions.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import pytest
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from fsm import App, CallTimeoutError, Client, FailedError, HandlerError, RejectedError
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.store.requests import Request
from tests.integration.conftest import Processes
from tests.integration.tool_machines import Chain, Toll
from workers.executors import InlineExecutor
from workers.serving import Turn, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsm import FSMHandle, TransitionJob
    from fsm.store.embedded import EmbeddedServer

KEYS = Keys("default")
APP = "tests.integration.tool_machines"


class World:
    """A Redis with one worker, and RQ's tools beside it."""

    def __init__(self, client: Client, redis: Any, worker: Any, folder: Path) -> None:
        self.client = client
        self.redis = redis
        self.worker = worker
        self.queue = Queue("fsm", connection=redis, serializer=JSONSerializer)
        self._folder = folder
        self._count = 0

    def path(self) -> Path:
        self._count += 1
        return self._folder / str(self._count)

    def start(self, machine: Any = Toll, payload: Any = None) -> FSMHandle[Any]:
        self._count += 1
        return self.client.start_fsm(machine, f"{machine.__name__.lower()}-{self._count}", payload or [])

    def job(self, job_id: str) -> Job:
        return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)

    def is_at_rest(self) -> bool:
        return not self.redis.exists("fsm:default:ready:fsm", "fsm:default:held")


@pytest.fixture(scope="module")
def world(redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    processes = Processes(redis_server.url)
    try:
        with connect(redis_server.url) as redis, Client(redis_server.url, namespace="default") as client:
            redis.flushall()
            worker = processes.worker("--app", APP, "--lease", "2s")
            yield World(client, redis, worker, tmp_path_factory.mktemp("tools"))
    finally:
        processes.end()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {condition}"
        time.sleep(0.005)
    return found


def called(pool: ThreadPoolExecutor, fsm: FSMHandle[Any], event: str, data: Any) -> tuple[TransitionJob, Any]:
    """Call from another thread: the job, and what the caller hears."""
    client = fsm.client
    before = set(client.ask(mailbox(client, fsm.name)))
    heard = pool.submit(fsm.call, event, data, timeout=20)
    (job_id,) = until(lambda: set(client.ask(mailbox(client, fsm.name))) - before)
    return client.job(job_id.decode()), heard


def mailbox(client: Client, name: str) -> Request[list[bytes]]:
    return Request(list, commands=[("LRANGE", client.keys.mailbox(name), 0, -1)])


class Blocked:
    """The world's worker kept in a handler of this FSM, until the block is left."""

    def __init__(self, world: World, fsm: FSMHandle[Any], number: int, *, fails: bool = False) -> None:
        self._path = world.path()
        self._pool = ThreadPoolExecutor(1)
        data = {"path": str(self._path), "number": number, "fails": fails}
        self.job, self.heard = called(self._pool, fsm, "hold", data)

    def __enter__(self) -> Self:
        begun = self._path.with_name(f"{self._path.name}.begun")
        until(begun.exists)
        return self

    def __exit__(self, *_: object) -> None:
        self._path.touch()
        self._pool.shutdown(wait=False)


# The tools.


def delete(world: World, job_id: str) -> None:
    world.job(job_id).delete()


def cancel(world: World, job_id: str) -> None:
    world.job(job_id).cancel()


def empty(world: World, job_id: str) -> None:
    world.queue.empty()  # type: ignore[no-untyped-call] # RQ is typed in part


def drop_list(world: World, job_id: str) -> None:
    world.redis.delete("rq:queue:fsm")


def expire(world: World, job_id: str) -> None:
    world.redis.pexpire(f"rq:job:{job_id}", 1)
    until(lambda: not world.redis.exists(f"rq:job:{job_id}"))


def enqueue_again(world: World, job_id: str) -> None:
    """Enqueue it as dashboards do, twice."""
    for _ in range(2):
        world.queue.enqueue_job(world.job(job_id))


def schedule(world: World, job_id: str) -> None:
    """Let RQ's scheduler find it among what is due."""
    world.redis.zadd(ScheduledJobRegistry(queue=world.queue).key, {job_id: 1})
    scheduler = RQScheduler([world.queue.name], world.redis, serializer=JSONSerializer)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()


def clean_started(world: World, job_id: str) -> None:
    """Let RQ's clean-up, as `rq info` and dashboards call it, find an execution whose worker is gone."""
    world.redis.zadd(StartedJobRegistry(queue=world.queue).key, {f"{job_id}:execution": 1})
    StartedJobRegistry(queue=world.queue).cleanup()


def clean_intermediate(world: World, job_id: str) -> None:
    """Let RQ's clean-up find it where a stock worker died that had just taken it."""
    between = world.queue.intermediate_queue
    world.redis.rpush(between.key, job_id)
    world.redis.set(between.get_first_seen_key(job_id), time.time() - 100)
    stock = SimpleWorker([world.queue], connection=world.redis, serializer=JSONSerializer)
    between.cleanup(stock, world.queue)


def requeue_failed(world: World, job_id: str) -> None:
    """Requeue all that RQ takes for failed, after its clean-up took this one for failed: `rq requeue --all`."""
    clean_started(world, job_id)
    registry = FailedJobRegistry(queue=world.queue)
    for failed in registry.get_job_ids():
        registry.requeue(failed)


TAKES_AWAY = (delete, cancel, expire)
LEAVES = (drop_list, enqueue_again, schedule, clean_started, clean_intermediate, requeue_failed)
TOOLS = (*TAKES_AWAY, empty, *LEAVES)


def ends(fsm: FSMHandle[Any], job: TransitionJob) -> list[dict[str, Any]]:
    """What the log tells of the ends of this event; that it is to be tried again is none."""
    return [line for line in fsm.log() if line["job"] == job.id and "retry_in_ms" not in line]


def goes_on(world: World, fsm: FSMHandle[Any], job: TransitionJob, numbers: list[int]) -> None:
    """The FSM goes on, was told these numbers, and the log tells of the event once."""
    assert fsm.call("note", 9, timeout=20).ok
    state = fsm.state()
    assert state.payload == [*numbers, 9]
    assert len(ends(fsm, job)) == 1
    assert "tries" not in {field.decode() for field in world.redis.hkeys(f"fsm:default:snapshot:{fsm.name}")}
    until(world.is_at_rest)


def applied(world: World, fsm: FSMHandle[Any], job: TransitionJob, numbers: list[int]) -> None:
    """It was applied once, RQ shows it so, and its FSM goes on."""
    goes_on(world, fsm, job, numbers)
    if world.redis.hexists(f"rq:job:{job.id}", "data"):
        assert world.job(job.id).get_status() == "finished"
    assert job.id not in FailedJobRegistry(queue=world.queue).get_job_ids()


def taken_away(world: World, fsm: FSMHandle[Any], job: TransitionJob, heard: Any, numbers: list[int]) -> None:
    """It was not applied, which whoever waited and the log were told once, and its FSM goes on."""
    with pytest.raises(FailedError):
        heard.result(20)
    goes_on(world, fsm, job, numbers)
    (line,) = ends(fsm, job)
    assert line["error"] in {"deleted by an operator", "cancelled by an operator"}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_used_on_an_event_that_waits(world: World, tool: Callable[[World, str], None]) -> None:
    toll = world.start()
    assert toll.call("note", 0, timeout=20).ok
    with ThreadPoolExecutor(1) as pool:
        with Blocked(world, world.start(), 0):
            job, heard = called(pool, toll, "note", 1)
            assert world.redis.lpos("rq:queue:fsm", job.id) is not None
            tool(world, job.id)
        if tool in (*TAKES_AWAY, empty):
            taken_away(world, toll, job, heard, [0])
        else:
            assert heard.result(20).ok
            applied(world, toll, job, [0, 1])


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_used_on_an_event_that_is_claimed_and_not_begun(world: World, tool: Callable[[World, str], None]) -> None:
    toll = world.start()
    assert toll.call("note", 0, timeout=20).ok
    with ThreadPoolExecutor(1) as pool:
        with Blocked(world, world.start(), 0):
            first = Blocked(world, toll, 1)
            job, heard = called(pool, toll, "note", 2)
        with first:
            tool(world, job.id)
        if tool in TAKES_AWAY:
            # Behind a handler that takes so long it is left to the next claim, which sees what became of it.
            taken_away(world, toll, job, heard, [0, 1])
        else:
            assert heard.result(20).ok
            applied(world, toll, job, [0, 1, 2])


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_used_on_an_event_that_is_being_applied_it_comes_too_late(
    world: World, tool: Callable[[World, str], None]
) -> None:
    toll = world.start()
    assert toll.call("note", 0, timeout=20).ok
    with Blocked(world, toll, 1) as blocked:
        tool(world, blocked.job.id)
        if tool is cancel:
            # Seen to fail without the look at the lock in `ask`: of a cancelled event that was applied all the same,
            # whoever waited was told that it was not.
            with pytest.raises(CallTimeoutError):
                blocked.job.result(0.01)
    if tool not in (delete, expire):
        # Without its record there is nothing to be heard before the commit has written its end.
        assert blocked.heard.result(20).ok
    applied(world, toll, blocked.job, [0, 1])


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_used_on_an_event_that_was_applied_it_changes_nothing(world: World, tool: Callable[[World, str], None]) -> None:
    # Seen to fail where `claim` adopts what has `place=done`, as it does what failed: it was applied twice.
    toll = world.start()
    job = toll.transition("note", 1)
    assert job.result(20).ok

    tool(world, job.id)

    goes_on(world, toll, job, [1])
    if tool is enqueue_again or tool is requeue_failed:
        until(lambda: world.job(job.id).get_status() == "finished")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_used_on_an_event_that_waits_to_be_tried_again(world: World, tool: Callable[[World, str], None]) -> None:
    toll = world.start()
    with ThreadPoolExecutor(1) as pool:
        with Blocked(world, world.start(), 0):
            job, heard = called(pool, toll, "retry", {"number": 1, "after": "300ms"})
            behind = Blocked(world, world.start(), 0)
        with behind:
            # Claimed with it, and begun right behind it: however soon it is due, it is not tried meanwhile.
            until(lambda: world.redis.hexists(f"rq:job:{job.id}", "attempt"))
            tool(world, job.id)
        if tool in TAKES_AWAY:
            taken_away(world, toll, job, heard, [])
        else:
            assert heard.result(20).ok
            applied(world, toll, job, [1])


@pytest.mark.parametrize("moment", ["at rest", "while others of it wait", "while another of it is applied"])
def test_a_failed_event_that_is_requeued_is_applied_once_more_behind_all_that_waits(world: World, moment: str) -> None:
    toll, path = world.start(), world.path()
    job = toll.transition("fail", {"path": str(path), "number": 1})
    with pytest.raises(HandlerError):
        job.result(20)
    path.touch()
    numbers = [1]
    if moment == "at rest":
        requeue_failed_of(world, job.id)
    elif moment == "while others of it wait":
        with Blocked(world, world.start(), 0):
            toll.transition("note", 0)
            requeue_failed_of(world, job.id)
        numbers = [0, 1]
    else:
        with Blocked(world, toll, 0):
            toll.transition("note", 0)
            requeue_failed_of(world, job.id)
        numbers = [0, 0, 1]

    until(lambda: toll.state().payload == numbers)

    assert toll.call("note", 9, timeout=20).ok
    assert toll.state().payload == [*numbers, 9]
    assert world.job(job.id).get_status() == "finished"
    assert job.result(20).ok
    assert [line.get("error") for line in toll.log() if line["job"] == job.id] == ["as told", None]


def requeue_failed_of(world: World, job_id: str) -> None:
    """Requeue what is failed, of which this is one."""
    registry = FailedJobRegistry(queue=world.queue)
    assert job_id in registry.get_job_ids()
    for failed in registry.get_job_ids():
        registry.requeue(failed)


def test_a_refused_event_that_is_enqueued_again_stays_refused(world: World) -> None:
    toll = world.start()
    job = toll.transition("refuse")
    with pytest.raises(RejectedError):
        job.result(20)

    enqueue_again(world, job.id)

    until(lambda: world.job(job.id).get_status() == "finished")
    with pytest.raises(RejectedError):
        job.result(20)
    goes_on(world, toll, job, [])


def test_a_failed_event_that_is_requeued_when_its_fsm_has_finished_fails_and_says_why(world: World) -> None:
    toll = world.start()
    job = toll.transition("fail", {"path": "/no/such/file", "number": 1})
    with pytest.raises(HandlerError):
        job.result(20)
    assert toll.call("end", timeout=20).ok

    requeue_failed_of(world, job.id)

    until(lambda: world.job(job.id).get_status() == "failed")
    assert "FINISHED" in str(world.redis.hget(f"rq:job:{job.id}", "exc_info"))
    until(world.is_at_rest)


def test_an_event_that_failed_while_its_record_was_deleted_leaves_nothing_that_could_be_requeued(world: World) -> None:
    # Seen to fail without the count of new fields in `fail` of commit.lua: `rq requeue --all` ended with NoSuchJobError
    # at this id, each time, for thirty days.
    toll = world.start()
    with Blocked(world, toll, 1, fails=True) as blocked:
        delete(world, blocked.job.id)

    goes_on(world, toll, blocked.job, [])
    assert blocked.job.id not in FailedJobRegistry(queue=world.queue).get_job_ids()


@pytest.mark.parametrize("tool", [delete, cancel, empty, expire], ids=lambda tool: tool.__name__)
def test_an_entry_event_that_was_taken_away_is_made_again(world: World, tool: Callable[[World, str], None]) -> None:
    # Seen to fail without `Activation._begin`: the FSM stayed in status `starting`.
    with Blocked(world, world.start(), 0):
        chain = world.start(Chain)
        (entry,) = world.redis.lrange(f"fsm:default:mailbox:{chain.name}", 0, -1)
        tool(world, entry.decode())

    until(lambda: chain.state().version)

    assert chain.state().status == "running"
    assert chain.state().payload == ["began"]
    (line,) = [line for line in chain.log() if line["job"] == entry.decode()]
    assert line["error"] in {"deleted by an operator", "cancelled by an operator"}
    assert chain.call("go", timeout=20).ok
    until(lambda: chain.state().state == "gone")


@pytest.mark.parametrize("tool", [delete, cancel, expire], ids=lambda tool: tool.__name__)
def test_a_hard_event_that_waits_by_itself_and_was_taken_away_is_made_again(
    world: World, tool: Callable[[World, str], None]
) -> None:
    # Seen to fail without `_make` in `Activation.run`: the FSM rested in a state that is left by itself.
    with Blocked(world, world.start(), 0):
        chain = world.start(Chain)
        serve_once(world, chain)
        # A suspect's hard event is left to a claim of its own: there it can be taken away.
        world.redis.hset(f"fsm:default:snapshot:{chain.name}", "tries", 1)
        assert chain.transition("go")
        serve_once(world, chain)
        (owed,) = world.redis.lrange(f"fsm:default:urgent:{chain.name}", 0, -1)
        tool(world, owed.decode())

    until(lambda: chain.state().payload == ["began", "followed"])

    (line,) = [line for line in chain.log() if line["job"] == owed.decode()]
    assert line["error"] in {"deleted by an operator", "cancelled by an operator"}
    assert chain.call("end", timeout=20).ok


def serve_once(world: World, chain: FSMHandle[Any]) -> None:
    """Claim and run this FSM here, and not in the world's worker."""
    number = time.time_ns() // 1000
    executor = InlineExecutor()
    try:
        turn = Turn(world.redis, App([Chain]).behaviours, KEYS, "here", "fsm", number, 15_000, chain.name)
        assert serve(turn, executor).written == 1
    finally:
        executor.close()
