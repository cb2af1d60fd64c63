"""How the end of an effect comes back to its FSM: RQ calls here, and a watch tells what RQ cannot.

An effect is an RQ job, run by RQ's worker. When it ends, RQ calls `success` or `failure` in the process that ran it,
and the end is told by one script that knows whether it was told before: so it counts once, however often RQ runs the
job or calls us. A process that is killed tells nothing; `EffectsWatch`, in each of our workers, looks after what is
open: a job that was deleted or cancelled, one that ended without a word, one whose worker died, which goes back to its
queue.

Who calls this: RQ, by the names in the records of effects, and the worker.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
from redis import RedisError
from rq.exceptions import AbandonedJobError, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from fsm import verbs
from fsm.engine.faults import said
from fsm.errors import PayloadError, StoreError
from fsm.store import effects
from fsm.store.codec import text
from fsm.store.keys import Keys
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from redis import Redis
    from rq.results import Result

    from fsm.store.effects import OpenEffect
    from fsm.verbs import Plan
    from workers.carrier import Carrier

__all__ = ["EffectsWatch", "failure", "stopped", "success"]

_log = logging.getLogger("fsm.effects")
# An open effect is looked at so often; a look is one or two commands for each.
_PAUSE_MS = 10_000
_LOOK_EVERY_S = 1.0
_A_LOOK = 100
_MOST_LOOKS = 10
# So many workers may die on one effect: as on an event, where a machine says nothing else.
_MOST_DEATHS = 3


def success(job: Job, connection: Redis, result: Any, *_: Any) -> None:
    """Tell the FSM what its effect returned.

    Raises:
        PayloadError: That is no JSON; RQ records the job as failed, and calls `failure`.
    """
    asker = _asker(job, connection)
    if asker is None:
        return
    keys, name = asker
    try:
        _tell(connection, job.id, verbs.succeed(keys, job.id, name, result))
    except PayloadError:
        # The effect was done: to do it again would do it twice, and change nothing.
        job.retries_left = 0
        raise


def failure(
    job: Job, connection: Redis, kind: type[BaseException], fault: BaseException, _traceback: TracebackType | None
) -> None:
    """Tell the FSM how its effect failed, when RQ will not try it again."""
    asker = _asker(job, connection)
    if asker is None:
        return
    keys, name = asker
    if job.should_retry:
        _look_at(connection, keys, job, name)
        return
    if issubclass(kind, AbandonedJobError):
        # Its worker died. RQ is about to write it down as failed; the watch puts it back on its queue.
        connection.hset(job.key, "abandoned", 1)
        return
    _tell(connection, job.id, verbs.fail(keys, job.id, name, kind.__name__, said(fault)))


def stopped(job: Job, connection: Redis) -> None:
    """Tell the FSM that somebody stopped its effect."""
    asker = _asker(job, connection)
    if asker is not None:
        keys, name = asker
        _tell(connection, job.id, verbs.fail(keys, job.id, name, "cancelled", "somebody stopped it"))


def _asker(job: Job, connection: Redis) -> tuple[Keys, str] | None:
    """Find the FSM that asked for an effect; RQ keeps the fields that it does not know."""
    name, namespace = run(connection, Request(lambda reply: reply, commands=[("HMGET", job.key, "fsm_of", "ns")]))
    return (Keys(text(namespace)), text(name)) if name and namespace else None


def _tell(connection: Redis, effect_id: str, plan: Plan[str]) -> None:
    try:
        word = verbs.carry(plan, lambda request: run(connection, request))
    except StoreError as error:
        # RQ goes on to write down how the job ended, if it can; the watch finds that, and tells it.
        _log.warning("the end of effect %s cannot be told now: %s", effect_id, error)
    else:
        _note(effect_id, word)


def _look_at(connection: Redis, keys: Keys, job: Job, name: str) -> None:
    """Let the watch look when RQ's retry is due: RQ's own scheduler need not run for it."""
    with suppress(RedisError):
        seconds = int(connection.time()[0]) + job.get_retry_interval()
        connection.zadd(keys.effects, {f"{job.id} {name}": seconds * 1000}, xx=True)


def _note(effect_id: str, word: str) -> None:
    kind = word.partition(" ")[0]
    if kind in ("UNKNOWN", "FINISHED"):
        _log.warning("nobody takes the end of effect %s any more: %s", effect_id, word.lower())
    elif kind in ("FULL", "BROKEN"):
        _log.error("the end of effect %s cannot be told now (%s); it is tried again", effect_id, word.lower())


class EffectsWatch:
    """Looks after the open effects of a namespace, at most once a second.

    Args:
        client: The worker's connection.
        carrier: Carries requests through an absence of Redis.
        keys: Of the namespace.
    """

    def __init__(self, client: Redis, carrier: Carrier, keys: Keys) -> None:
        self._client = client
        self._carrier = carrier
        self._keys = keys
        self._looked_at = 0.0
        self._dead: list[tuple[str, str]] = []

    def bury(self, worker: str, queues: Sequence[str]) -> None:
        """Take note of an effects worker that is known to be dead: what it ran need not wait for its time-out."""
        self._dead += [(worker, queue) for queue in queues]

    def look(self) -> None:
        """Tell the ends that nobody told, and put effects back on their queue whose worker died."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        dead, self._dead = self._dead, []
        for _ in range(_MOST_LOOKS):
            found = self._carrier.carry(effects.look(self._keys, _PAUSE_MS, _MOST_DEATHS, dead, _A_LOOK))
            for effect in found:
                self._end(effect)
            if len(found) < _A_LOOK:
                return

    def _end(self, effect: OpenEffect) -> None:
        """Tell how an effect ended, if it did."""
        keys, effect_id, name = self._keys, effect.job_id, effect.name
        match effect.status:
            case "":
                plan = verbs.fail(keys, effect_id, name, "gone", "an operator deleted its job")
            case "canceled" | "stopped":
                plan = verbs.fail(keys, effect_id, name, "cancelled", "an operator took it away")
            case "failed":
                plan = verbs.fail(keys, effect_id, name, *self._why(effect_id))
            case "finished":
                plan = self._finished(effect)
            case _:
                return
        try:
            word = verbs.carry(plan, self._carrier.carry)
        except PayloadError as error:
            word = verbs.carry(verbs.fail(keys, effect_id, name, "PayloadError", str(error)), self._carrier.carry)
        _note(effect_id, word)

    def _result(self, effect_id: str) -> Result | None:
        """Read what RQ kept of the last end of a job."""
        try:
            return Job.fetch(effect_id, connection=self._client, serializer=JSONSerializer).latest_result()
        except (NoSuchJobError, RedisError, ValueError):
            return None

    def _why(self, effect_id: str) -> tuple[str, str]:
        """Read class and text of the exception with which a job failed."""
        result = self._result(effect_id)
        if result is not None and result.exc_string:
            return _last_line(result.exc_string)
        said_of_it = Request(text, commands=[("HGET", self._keys.job(effect_id), "exc_info")])
        return "abandoned", self._carrier.carry(said_of_it) or "it failed, and RQ does not say why"

    def _finished(self, effect: OpenEffect) -> Plan[str]:
        """Read what RQ kept of the result of an effect whose end was not told."""
        keys, effect_id, name = self._keys, effect.job_id, effect.name
        if not _json(effect.note).get("on_success"):
            return verbs.succeed(keys, effect_id, name, None)
        result = self._result(effect_id)
        if result is None:
            return verbs.fail(keys, effect_id, name, "gone", "it is done, and RQ has forgotten its result")
        return verbs.succeed(keys, effect_id, name, result.return_value)


def _json(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        value = orjson.loads(raw)
        if isinstance(value, dict):
            return value
    return {}


def _last_line(traceback: str) -> tuple[str, str]:
    """Read class and text of an exception out of its traceback."""
    line = traceback.strip().splitlines()[-1] if traceback.strip() else ""
    kind, colon, message = line.partition(": ")
    path = kind.split(".")
    if colon and all(part.isidentifier() for part in path):
        return path[-1], message
    return "abandoned", line
