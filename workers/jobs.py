"""What stock RQ workers run: `rq worker -S rq.serializers.JSONSerializer fsm` serves our jobs with the same guarantees.

A job never applies its own arguments: the order of events is the mailbox's, not that of RQ's list. It serves the FSM's
mailbox until its own event has ended, and then ends likewise: with its result, or by raising what it failed with.

Who calls this: RQ, by the dotted path in every job's data. The application comes from `FSM_APP` or `[tool.fsm]`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rq import Retry, get_current_job

from fsm import config
from fsm.app import App, load
from fsm.errors import ConfigError, FailedError, FSMFinishedError, RefusedError
from fsm.store import calls, commits
from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import JobView, ended, view
from workers.activation import Activation
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    import redis

__all__ = ["transition"]

_log = logging.getLogger("fsm.jobs")
# RQ's worker has no thread that renews locks, so the lease is that of RQ's own longest heartbeat.
_LEASE_MS = 60_000
# How long a job waits for another worker that holds its FSM, before it goes back to RQ's list.
_PATIENCE_S = 5.0
_PAUSE_S = 0.05


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
    app, keys, client = _app(), Keys(config.check_namespace(namespace)), job.connection
    worker = f"rq-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    give_up_at = time.monotonic() + _PATIENCE_S
    executor = InlineExecutor(timed=False)  # RQ's own timer runs around this job
    try:
        number = 0
        while True:
            seen = run(client, view(keys, job.id))
            if seen.word != "WAITING":
                return _end(job.id, seen, name, event)
            number += 2
            if not _serve(client, app, keys, worker, name, job.origin, number, executor):
                if time.monotonic() > give_up_at:
                    # It stays in its mailbox, whatever becomes of this job in RQ's eyes.
                    return Retry(max=1_000_000, interval=0)
                time.sleep(_PAUSE_S)
    finally:
        executor.close()


def _serve(  # noqa: PLR0913 - all of one turn
    client: redis.Redis,
    app: App,
    keys: Keys,
    worker: str,
    name: str,
    queue: str,
    number: int,
    executor: InlineExecutor,
) -> bool:
    """Claim one FSM, run what lies in its mailbox, commit it; False where it cannot be had now."""
    token = secrets.token_hex(16)
    claims = run(
        client,
        calls.claim(keys, worker, queue, token, number, lease_ms=_LEASE_MS, fsms=1, name=name),
    )
    if not claims.held:
        return False
    fsm = claims.held[0]
    behaviour = app.behaviours.get(fsm.machine)
    if behaviour is None:
        _log.warning("FSM %r waits for a worker that knows machine %r", name, fsm.machine)
        run(client, calls.release(keys, worker, [(name, token)], tail=True))
        return False
    work = Activation(behaviour, fsm, keys, executor, claims.at_ms)
    block = executor.run(work.run(time.monotonic() + _LEASE_MS / 4000), is_async=behaviour.is_async)
    words = run(client, commits.commit(keys, worker, number + 1, _LEASE_MS, claims.at, [block]))
    return words != ["STALE"]


def _end(job_id: str, seen: JobView, name: str, event: str) -> Any:
    """End as the event ended."""
    try:
        ended(job_id, seen, name, event)
    except (RefusedError, FSMFinishedError):
        return seen.result
    except FailedError:
        raise
    return seen.result
