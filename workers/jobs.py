"""What stock RQ workers run: `rq worker -S rq.serializers.JSONSerializer fsm` serves our jobs with the same guarantees.

A job never applies its own arguments: the order of events is the mailbox's, not that of RQ's list. It serves the FSM's
mailbox until its own event has ended, and then ends likewise: with its result, or by raising what it failed with.

Who calls this: RQ, by the dotted path in every job's data. The application comes from `FSM_APP` or `[tool.fsm]`.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import ResponseError
from rq import Retry, get_current_job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

from fsm import config
from fsm.app import load
from fsm.engine import strangeness
from fsm.errors import ConfigError, FailedError, FSMFinishedError, RefusedError
from fsm.store import calls
from fsm.store.codec import text, whole
from fsm.store.keys import Keys
from fsm.store.requests import Request, run
from fsm.verbs import JobView, ended, view
from workers import points
from workers.dropping import Dropping
from workers.executors import InlineExecutor
from workers.lease import LeaseKeeper
from workers.retention import Retention, ages_of
from workers.serving import Turn, serve
from workers.shelf import Shelf

if TYPE_CHECKING:
    from rq.job import Job

    from fsm.app import App

__all__ = ["transition"]

_log = logging.getLogger("fsm.jobs")
_LEASE_MS = 15_000
# How long a job waits for another worker that holds its FSM, before it goes back to RQ's list.
_PATIENCE_S = 5.0
_PAUSE_S = 0.05
# How soon a job looks again whose FSM only an operator lets go on: that makes it ready itself.
_STANDING_S = 60.0
# How long a job waits for a worker that knows its FSM, where it is not known here; and how soon it looks again, where
# RQ's scheduler is there to bring it back. FSMs that others know are not to fill the time of this one.
_ELSEWHERE_S, _STRANGE_S = 0.5, 10.0


@lru_cache(maxsize=1)
def _app() -> App:
    path = config.resolve("app", None)
    if not path:
        problem = (
            "a stock RQ worker learns its machines from FSM_APP or [tool.fsm] app: set it, as in FSM_APP=shop.orders"
        )
        raise ConfigError("app", problem)
    return load(path)


def transition(namespace: str, name: str, event: str, _data: Any = None) -> Any:
    """Serve an FSM's mailbox until this job's event has ended.

    Returns:
        The event's result, `{"state", "version", …}`; or `rq.Retry` where the FSM cannot be had now.

    Raises:
        FailedError: The event failed, so that RQ records it as failed too.
        ConfigError: No application is named.
    """
    job = get_current_job()
    if job is None:
        problem = "workers.jobs.transition runs in an RQ worker only: send events with fsm.Client"
        raise ConfigError("job", problem)
    if points.armed is None:
        points.arm(os.environ)
    app, keys, client = _app(), Keys(config.check_namespace(namespace)), job.connection
    worker = f"rq-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    # RQ's timer is for the time of one job, and this one serves the events of others as well: each has its own.
    signal.setitimer(signal.ITIMER_REAL, 0)
    executor, ticket = InlineExecutor(), _ReturnTicket(job)
    keeper = LeaseKeeper(
        lambda: Redis(connection_pool=client.connection_pool), "", keys, worker, _LEASE_MS, beat=ticket.renew
    )
    try:
        app.open(executor.drive)  # in this process, which RQ made for this job
        give_up_at = time.monotonic() + _PATIENCE_S
        # First what is due: this very event may be, and what was due before it goes before it.
        run(client, calls.due(keys))
        ticket.take()
        keeper.start()
        # An event that RQ requeued is adopted by a claim that is told of it; the first claim of a worker is told of it.
        queue = run(client, _queue_of(keys, name))
        shelf = Shelf.of(keys, app, executor, lambda request: run(client, request))
        turn = Turn(client, app.behaviours, keys, worker, queue, 1, _LEASE_MS, name, job.id, shelf=shelf)
        strange = _strangeness(turn)
        if strange:
            _log.warning("FSM %r waits for a worker that knows it: %s", name, strange)
            give_up_at = time.monotonic() + _ELSEWHERE_S
        is_served = not strange and _is_served(turn, executor, keeper)
        while True:
            seen = run(client, view(keys, job.id))
            if seen.word != "WAITING":
                # Sent with a key, its record is kept for longer than RQ was told when it read it.
                job.result_ttl = run(client, _result_ttl(keys, job.id)) or job.result_ttl
                _look_after_others(client, keys, job.origin)
                Dropping(keys, shelf).look(lambda request: run(client, request))
                Retention(keys, ages_of(app.definitions)).look(lambda request: run(client, request))
                ticket.give_back()
                return _end(job.id, seen, name, event)
            # Its FSM may wait in another queue by now than when it was sent.
            turn = replace(turn, number=turn.number + 2, found="", queue=run(client, _queue_of(keys, name)))
            if not is_served:
                _look_after_others(client, keys, job.origin)
                seconds = run(client, _stands_for(keys, name, job.id))
                if strange and client.exists(RQScheduler.get_locking_key(job.origin)):
                    seconds = max(seconds, _STRANGE_S)
                if seconds > _PATIENCE_S or time.monotonic() > give_up_at:
                    # It stays in its mailbox, whatever becomes of this job in RQ's eyes.
                    ticket.give_back()
                    return Retry(max=1_000_000, interval=math.ceil(seconds))
                time.sleep(_PAUSE_S)
            strange = _strangeness(turn)
            is_served = not strange and _is_served(turn, executor, keeper)
    finally:
        keeper.stop()
        app.close()
        executor.close()


class _ReturnTicket:
    """A place in RQ's scheduled registry, for when this process is dead and its lease is over.

    RQ takes a job for failed whose process was killed, and idle stock workers look at nothing but RQ's list: where no
    other job came, nobody would free its FSM. RQ's scheduler, where a worker runs it, brings this job back then. While
    the process lives its keeper puts that off.

    On a crash: that is what it is for.

    Args:
        job: The job that is run.
    """

    def __init__(self, job: Job) -> None:
        self._job_id = job.id
        self._client: Redis = job.connection
        registry: Any = ScheduledJobRegistry
        self._registry: str = registry(job.origin, connection=job.connection).key

    def take(self) -> None:
        """Take it; a job that is there already comes back as it is."""
        # A Redis that is full, or forbids it, must not stop the job: it is run without.
        with suppress(ResponseError):
            self._client.zadd(self._registry, {self._job_id: self._returns_at()}, nx=True)

    def renew(self) -> None:
        """Put the return off, unless it was given back meanwhile."""
        with suppress(ResponseError):
            self._client.zadd(self._registry, {self._job_id: self._returns_at()}, xx=True)

    def give_back(self) -> None:
        """End it: the event has ended, or RQ is told now when the job is to come back."""
        with suppress(ResponseError):
            self._client.zrem(self._registry, self._job_id)

    @staticmethod
    def _returns_at() -> int:
        # RQ's scheduler compares it with the clock of its host. A second later than the lease: else it comes in vain.
        return math.ceil(time.time() + _LEASE_MS / 1000) + 1


def _look_after_others(client: Redis, keys: Keys, queue: str) -> None:
    """Free what dead workers held, ring what is due, and fill RQ's list where it was emptied.

    Where only stock workers run, nobody else does.

    On a crash: the next job does.
    """
    run(client, calls.due(keys))
    run(client, calls.recover(keys, queues=(queue,)))


def _stands_for(keys: Keys, name: str, job_id: str) -> Request[float]:
    """Ask for how many seconds an event is not applied: it waits for a time, or its FSM does, is paused or failed."""

    def read(reply: Any) -> float:
        (retry_at, paused, status), (place, due), (s, us) = reply
        left = max(whole(retry_at), whole(due) if place == b"later" else 0) / 1000 - int(s) - int(us) / 1_000_000
        return max(left, _STANDING_S if paused is not None or status == b"failed" else 0.0)

    return Request(
        read,
        commands=[
            ("HMGET", keys.snapshot(name), "retry_at", "paused", "status"),
            ("HMGET", keys.job(job_id), "place", "due"),
            ("TIME",),
        ],
    )


def _queue_of(keys: Keys, name: str) -> Request[str]:
    """Ask in which queue an FSM waits."""
    return Request(lambda reply: text(reply) or keys.default_queue, commands=[("HGET", keys.snapshot(name), "queue")])


def _result_ttl(keys: Keys, job_id: str) -> Request[int]:
    return Request(lambda reply: int(reply or 0), commands=[("HGET", keys.job(job_id), "result_ttl")])


def _strangeness(turn: Turn) -> str:
    """Say in a clause why the FSM cannot be run here; "" where it can, or is not there.

    It is looked at before it is claimed: each time it is given back puts an id onto RQ's list, and who was given that
    would do so again.
    """
    fields = ("machine", "state", "status", "definition")
    command = ("HMGET", turn.keys.snapshot(turn.name), *fields)
    machine, state, status, mark = map(text, run(turn.client, Request(lambda reply: reply, commands=[command])))
    behaviour = turn.behaviours.get(machine)
    definition = behaviour.definition if behaviour else None
    return strangeness(definition, machine, state, status or "running", mark) if machine else ""


def _is_served(turn: Turn, executor: InlineExecutor, keeper: LeaseKeeper) -> bool:
    """Serve the FSM; False where it cannot be had now."""
    served = serve(turn, executor, keeper)
    for fsm, why in served.strange:
        _log.warning("FSM %r waits for a worker that knows it: %s", fsm.name, why)
    return served.written > 0


def _end(job_id: str, seen: JobView, name: str, event: str) -> Any:
    """End as the event ended."""
    try:
        ended(job_id, seen, name, event)
    except (RefusedError, FSMFinishedError):
        return seen.result
    except FailedError:
        raise
    return seen.result
