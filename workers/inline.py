"""The worker behind `memory://`: fakeredis, and whoever sends an event applies it.

After each start and each send, the thread that made the call claims, runs and commits what is ready, as a worker would,
until nothing is; then it runs one effect through RQ's own worker, which brings its answer back, and looks again. When
the call returns, all has been done that can be done. Delayed events are due in their own time: the next call of any
kind brings them in, before it is carried itself.

One lock orders the turns of threads. User code may send events as well: those are applied when its own event has been
committed. Effects run outside the lock, and may call and wait like any application.

Who calls this: `Client("memory://")`, by name.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

import fakeredis
from rq import Queue, SimpleWorker
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from fsm import verbs
from fsm.app import App
from fsm.engine import inside
from fsm.errors import ConfigError, StoreError
from fsm.store import alarms, calls, effects
from fsm.store.codec import text
from fsm.store.connection import memory_parts
from fsm.store.requests import Request, run
from fsm.testing.driver import Driver, without_loop
from fsm.verbs.moments import clock, read_clock
from workers.dropping import Dropping
from workers.retention import Retention, ages_of
from workers.serving import Turn, serve
from workers.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from fsm.engine import Behaviour
    from fsm.machine import Definition, Machine
    from fsm.store.calls import Claimed
    from fsm.store.keys import Keys

__all__ = ["InlineWorld", "Membership", "join"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")

_WORKER = "memory"
# Nobody renews locks here, and nobody needs them: a test may stand in a debugger for an hour.
_LEASE_MS = 3_600_000
_A_TURN = 100
# Retries are not waited for: they come at once, when nothing else is left to do.
_FOR_EVER_MS = 100 * 365 * 86_400_000
# Turns that one call may bring about; machines that send each other mail in a circle would never come to rest.
_MOST_TURNS = 10_000
# How often in one call those are tried again that wait for it; a handler may answer `Retry` without end.
_MOST_RETRIES = 100
# Requests that may leave something to be done.
_STIRRING = ("start", "send", "steer", "due")
# Those that end lives.
_ENDING = ("purge", "expire", "put")

_WORLDS: WeakValueDictionary[str, InlineWorld] = WeakValueDictionary()
_WORLDS_GUARD = threading.Lock()


class InlineWorld:
    """A Redis in memory, the machines that are known there, and their worker.

    Args:
        has_effects: Whether effects are run, or left in their queue.
    """

    def __init__(self, *, has_effects: bool) -> None:
        self.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.clients: WeakSet[Membership] = WeakSet()
        self.has_effects = has_effects
        self._driver = Driver()
        self._guard = threading.Lock()
        self._number = 0
        self._looked_at_ms = dict[str, int]()
        self._behaviours: dict[str, Behaviour] = {}
        self._given: set[str] = set()
        self._classes: dict[str, type[Machine[Any]]] = {}
        self._opened: list[App] = []
        self._shelves: dict[str, Shelf] = {}
        # FSMs that could not be migrated since the present call began.
        self._unmigrated: set[str] = set()

    def _drive(self, work: Coroutine[Any, Any, R]) -> R:
        return self._driver.run(work, is_async=True)

    def give(self, app: App) -> None:
        """Take the machines of an application, with their services; they count more than bare classes.

        Raises:
            ConfigError: Its lifespan raised, or does not give what its machines need.
        """
        if not app.is_open:
            # On the loop of async handlers, as in a worker; and closed with the world.
            app.open(self._drive)
            self._opened.append(app)
        self._behaviours.update(app.behaviours)
        self._given.update(app.behaviours)

    def know(self, machine: type[Machine[Any]]) -> None:
        """Learn a machine by its class.

        Raises:
            ConfigError: It needs services.
        """
        name = machine.definition.name
        if name in self._given or self._classes.get(name) is machine:
            return
        try:
            made = App([machine]).behaviours
        except ConfigError as error:
            remedy = f'give it made, as in Client("memory://", app=App([{machine.__name__}(…)]))'
            raise ConfigError("memory://", f"{error.problem}; {remedy}") from error
        self._behaviours.update(made)
        self._classes[name] = machine

    def leave(self, client: Membership) -> None:
        """End with the last client: what is in it is gone."""
        with _WORLDS_GUARD:
            self.clients.discard(client)
            if self.clients:
                return
            for name, world in list(_WORLDS.items()):
                if world is self:
                    del _WORLDS[name]
        while self._opened:
            self._opened.pop().close()
        self._driver.close()
        self.redis.close()

    def settle(self, keys: Keys) -> None:
        """Apply what waits, and run effects, until there is nothing left to do."""
        retries, self._unmigrated, shelf = 0, set(), self._shelf(keys)
        shelf.trouble = ""
        for _ in range(_MOST_TURNS):
            with self._guard:
                is_moving = self._take_turn(keys)
            if is_moving or (self.has_effects and self._run_effect(keys)):
                continue
            if self.fire(keys):
                continue
            if shelf.trouble:
                raise StoreError(f"memory://: {shelf.trouble}")
            # What is to be tried again comes last: it may wait for one of those effects.
            retries += 1
            if self._unmigrated and self._waiting(keys) <= self._unmigrated:
                return  # they were tried just now; whoever waits for one of them is told why
            if not run(self.redis, calls.due(keys, ahead_ms=_FOR_EVER_MS, kind="retry"))[0]:
                return
            if retries > _MOST_RETRIES:
                problem = f"events were tried again {_MOST_RETRIES} times, and still ask for it: what do they wait for?"
                raise StoreError(f"memory://: {problem}")
        problem = f"more than {_MOST_TURNS} turns followed from one call: do machines send each other mail in a circle?"
        raise StoreError(f"memory://: {problem}")

    def _waiting(self, keys: Keys) -> set[str]:
        """Name the FSMs that are to be tried again."""
        members: Any = self.redis.zrange(keys.timers, 0, -1)
        found = (alarms.parse(text(member)) for member in members)
        return {one.of for one in found if one is not None and one.kind == "retry"}

    def fire(self, keys: Keys) -> bool:
        """Do what is due by now: delayed events come in their time, which nobody waits for; False where nothing is."""
        return bool(self.redis.exists(keys.timers)) and run(self.redis, calls.due(keys))[0] > 0

    def forget_finished(self, keys: Keys) -> None:
        """Take away what its machine does not keep any longer, when a second has passed since the last look."""
        ages = ages_of(one.definition for one in list(self._behaviours.values()))
        if not ages:
            return
        # By the time of FSMs, which a test may have moved.
        replies = run(self.redis, Request(list, commands=[*clock(), ("EXISTS", keys.states)]))
        now_ms = read_clock(replies, len(replies) - 1)
        if now_ms < self._looked_at_ms.get(keys.namespace, 0) + 1000:
            return
        self._looked_at_ms[keys.namespace] = now_ms
        Retention(keys, ages).look(lambda request: run(self.redis, request))

    def _take_turn(self, keys: Keys) -> bool:
        """Apply the events of some FSMs; False where none is ready."""
        for queue in verbs.carry(verbs.ready_queues(keys), lambda request: run(self.redis, request)):
            self._number += 2
            shelf = self._shelf(keys)
            turn = Turn(
                self.redis, self._behaviours, keys, _WORKER, queue, self._number, _LEASE_MS, fsms=_A_TURN, shelf=shelf
            )
            served = serve(turn, self._driver)
            for name, why in served.broken:
                _log.error("a key of FSM %r is of another type and it cannot go on: %s", name, why)
            self._unmigrated.update(served.unmigrated)
            if served.strange:
                raise self._unknown(*served.strange[0])
            if served.written or served.lost:
                return True
        return False

    def _shelf(self, keys: Keys) -> Shelf:
        known = self._shelves.get(keys.namespace)
        return known or self._shelves.setdefault(
            keys.namespace,
            Shelf(keys, lambda: self._behaviours, self._driver, lambda request: run(self.redis, request)),
        )

    def drop(self, keys: Keys) -> None:
        """Drop what storages have of lives that are over."""
        # Without the lock: a handler may purge as well.
        Dropping(keys, self._shelf(keys), age_ms=0).look(lambda request: run(self.redis, request))

    def _unknown(self, fsm: Claimed, why: str) -> ConfigError:
        name, machine = fsm.name, fsm.machine
        if machine in self._behaviours:
            problem = f"FSM {name!r} cannot be run: {why}"
        else:
            known = ", ".join(sorted(self._behaviours)) or "none"
            problem = (
                f"FSM {name!r} has events to apply and is of machine {machine!r}, which nobody gave (known: {known}): "
                f'pass it, as in Client("memory://", app=App([{machine}]))'
            )
        return ConfigError("memory://", problem)

    def _run_effect(self, keys: Keys) -> bool:
        """Run the oldest effect that waits; False where there is none."""
        waiting = run(self.redis, effects.open_effects(keys))
        if not waiting:
            return False
        queues = Queue.all(connection=self.redis, serializer=JSONSerializer)
        for queue in sorted(queues, key=lambda queue: str(queue.name)):
            for job_id in queue.get_job_ids():
                # Whoever takes it off the list, runs it: other threads look there too.
                if job_id in waiting and self.redis.lrem(queue.key, 1, job_id):
                    self._perform(keys, waiting[job_id], job_id, queue)
                    return True
            # A retry that waits for its time: here time is not waited for.
            scheduled: Any = queue.scheduled_job_registry
            for job_id in scheduled.get_job_ids(cleanup=False):
                if job_id in waiting and self.redis.zrem(scheduled.key, job_id):
                    self._perform(keys, waiting[job_id], job_id, queue)
                    return True
        return False

    def _perform(self, keys: Keys, name: str, job_id: str, queue: Queue) -> None:
        """Run one effect as RQ does, with its records and its calls of `workers.answers`."""
        job = _Effect.fetch(job_id, connection=self.redis, serializer=JSONSerializer)
        worker = _EffectsWorker([queue], name=_WORKER, connection=self.redis, serializer=JSONSerializer)
        without_loop(lambda: worker.execute_job(job, queue))
        note = run(self.redis, verbs.note_of(keys, job_id, name))
        is_silent = note is not None and not note.get("on_success") and not note.get("on_failure")
        if is_silent and job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED):
            # RQ calls nobody back; a worker's watch would find it.
            verbs.carry(verbs.succeed(keys, job_id, name, None), lambda request: run(self.redis, request))


class _Untimed(BaseDeathPenalty):
    """No time-out: RQ's is a signal, which only the main thread gets, and which who runs tests may want himself."""

    def setup_death_penalty(self) -> None:
        """Do nothing."""

    def cancel_death_penalty(self) -> None:
        """Do nothing."""


class _Effect(Job):
    """RQ's job; if its function is a coroutine, RQ would leave the loop open on which it was run."""

    def _execute(self) -> Any:
        result = self.func(*self.args, **self.kwargs)
        return asyncio.run(result) if asyncio.iscoroutine(result) else result


class _EffectsWorker(SimpleWorker):
    """RQ's worker, one job at a time, as a guest in a process that is not its own."""

    death_penalty_class = _Untimed

    def procline(self, message: str) -> None:
        """Leave the title of the process alone."""


class Membership:
    """A world as one client has it: `fsm.store.memory.World`.

    Args:
        world: The world.
        keys: Of the client's namespace.
    """

    def __init__(self, world: InlineWorld, keys: Keys) -> None:
        self._world = world
        self._keys = keys
        self.redis = world.redis

    def carry(self, request: Request[R]) -> R:
        """Carry a request; what it leaves to be done is done when this returns.

        Raises:
            StoreError: Redis refuses it; or machines go on without end.
            ConfigError: There is something to be done for a machine that nobody gave.
        """
        if inside.current.get() is None and self._world.fire(self._keys):
            # A worker would have done it before this call.
            self._world.settle(self._keys)
        if inside.current.get() is None:
            self._world.forget_finished(self._keys)
        reply = run(self.redis, request, "memory://")
        if request.script in _ENDING:
            self._world.drop(self._keys)
        if request.script in _STIRRING and inside.current.get() is None:
            self._world.settle(self._keys)
        return reply

    def know(self, machine: type[Machine[Any]]) -> None:
        """Learn a machine by its class, and announce it: the world may have been emptied by hand between two tests.

        Raises:
            ConfigError: It needs services.
        """
        self._world.know(machine)
        self.announce([machine.definition])

    def announce(self, definitions: Sequence[Definition]) -> None:
        """Tell of machines, as workers do."""
        run(self.redis, verbs.announce(self._keys, definitions, int(time.time() * 1000)))

    def leave(self) -> None:
        """Leave it; with its last client it ends."""
        self._world.leave(self)


def join(url: str, keys: Keys, app: App | None) -> Membership:
    """Make the world of a URL, or join it where it has a name and is there.

    Raises:
        ConfigError: The URL is wrong, or the same world was made with another `effects=`.
    """
    name, has_effects = memory_parts(url)
    with _WORLDS_GUARD:
        world = _WORLDS.get(name) if name else None
        if world is None:
            world = InlineWorld(has_effects=has_effects)
        elif world.has_effects != has_effects:
            problem = "is there with another effects=: give all its clients the same, or close them first"
            raise ConfigError(f"memory://{name}", problem)
        client = Membership(world, keys)
        world.clients.add(client)
        if name:
            _WORLDS[name] = world
    if app is not None:
        try:
            world.give(app)
        except BaseException:
            client.leave()
            raise
        client.announce(app.definitions)
    return client
