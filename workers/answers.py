"""How the end of an effect comes back to its FSM: RQ calls here, and a watch tells what RQ cannot.

An effect is an RQ job, run by RQ's worker. When it ends, RQ calls `success` or `failure` in the process that ran it,
and the end is told by one script that knows whether it was told before: so it counts once, however often RQ runs the
job or calls us. A process that is killed tells nothing; `EffectsWatch`, in each of our workers, looks after what is
open: a job that was deleted or cancelled, one that ended without a word, one whose worker died, which goes back to its
queue.

Who calls this: RQ, by the names in the records of effects, the worker, and the ward of a host.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
import zlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis import RedisError
from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.exceptions import AbandonedJobError, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseTimeoutException

from fsm import verbs
from fsm.engine.faults import said
from fsm.errors import PayloadError, StoreError
from fsm.store import effects
from fsm.store.codec import text
from fsm.store.connection import explain
from fsm.store.keys import Keys
from fsm.store.requests import Request, run
from workers.carrier import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
_AFTER_TROUBLE_S = 10.0
_A_LOOK = 20
# FSMs wait meanwhile.
_MOST_S = 0.05
# So many workers may die on one effect: as on an event, where a machine says nothing else.
_MOST_DEATHS = 3
# RQ forgets a result after 500 s: too soon for one that waits for room in Redis, or in a mailbox.
_UNTOLD_S = 604_800
# How RQ puts it when the worker of a job died, or only the process that ran it. Where RQ killed that itself, beyond its
# time-out, there is no number: it would come again.
_DEATH = re.compile(
    r"Work-horse terminated unexpectedly; waitpid returned \d|Job was stuck in intermediate queue"
    r"|Moved to FailedJobRegistry, due to AbandonedJobError"
)


def success(job: Job, connection: Redis, result: Any, *_: Any) -> None:
    """Tell the FSM what its effect returned.

    Raises:
        PayloadError: That is no JSON; RQ records the job as failed, and calls `failure`.
    """
    try:
        _tell(job, connection, lambda keys, name: verbs.succeed(keys, job.id, name, result))
    except PayloadError:
        # The effect was done: to do it again would do it twice, and change nothing.
        job.retries_left = 0
        raise


def failure(
    job: Job, connection: Redis, kind: type[BaseException], fault: BaseException, _traceback: TracebackType | None
) -> None:
    """Tell the FSM how its effect failed, when RQ will not try it again."""
    if job.should_retry and _is_open(job, connection):
        _look_at(job, connection)
    elif job.should_retry:
        # Its deadline is over, or it was answered otherwise: nobody would hear what a retry says.
        job.retries_left = 0
    elif issubclass(kind, AbandonedJobError):
        # Its worker died. RQ is about to write it down as failed; the watch puts it back on its queue.
        with suppress(RedisError):
            connection.hset(job.key, "abandoned", 1)
    else:
        _tell(job, connection, lambda keys, name: verbs.fail(keys, job.id, name, kind.__name__, said(fault)))


def stopped(job: Job, connection: Redis) -> None:
    """Tell the FSM that somebody stopped its effect."""
    _tell(job, connection, lambda keys, name: verbs.fail(keys, job.id, name, "cancelled", "somebody stopped it"))


def _asker(job: Job, connection: Redis) -> tuple[Keys, str] | None:
    """Find the FSM that asked for an effect; RQ keeps the fields that it does not know."""
    name, namespace = run(connection, Request(lambda reply: reply, commands=[("HMGET", job.key, "fsm_of", "ns")]))
    return (Keys(text(namespace)), text(name)) if name and namespace else None


def _is_open(job: Job, connection: Redis) -> bool:
    """Whether the end of an effect is still to be told; where that cannot be asked, it is."""
    try:
        asker = _asker(job, connection)
        return asker is None or run(connection, verbs.note_of(asker[0], job.id, asker[1])) is not None
    except (StoreError, BaseTimeoutException):
        return True


def _tell(job: Job, connection: Redis, plan_of: Callable[[Keys, str], Plan[str]]) -> None:
    """Carry the plan that tells the end of a job; what cannot be told now must not change how the job ended."""
    try:
        asker = _asker(job, connection)
        if asker is None:
            return
        word = verbs.carry(plan_of(*asker), lambda request: run(connection, request))
    except (StoreError, BaseTimeoutException) as error:
        # RQ goes on to write down how the job ended, if it can; the watch finds that, and tells it.
        _log.warning("the end of effect %s cannot be told now: %s", job.id, error)
        job.result_ttl = _UNTOLD_S
    else:
        _note(job.id, word)
        if word == "CLOSED":
            _log.info("the end of effect %s came late: its FSM had been told how it ended", job.id)
        if word in ("FULL", "BROKEN"):
            job.result_ttl = _UNTOLD_S


def _look_at(job: Job, connection: Redis) -> None:
    """Let the watch look when RQ's retry is due: RQ's own scheduler need not run for it."""
    with suppress(RedisError, StoreError):
        asker = _asker(job, connection)
        if asker is not None:
            keys, name = asker
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
        self._next_at = 0.0
        # Filled by another thread.
        self._dead: deque[tuple[str, str]] = deque()

    def bury(self, worker: str, queues: Sequence[str]) -> None:
        """Take note of an effects worker that is known to be dead: what it ran need not wait for its time-out."""
        self._dead.extend((worker, queue) for queue in queues)

    @property
    def has_dead(self) -> bool:
        """Whether one is dead of which Redis does not know yet."""
        return bool(self._dead)

    def look(self) -> None:
        """Tell the ends that nobody told, and put effects back on their queue whose worker died.

        What cannot be done now is logged and tried again: FSMs must not wait for it.
        """
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + _LOOK_EVERY_S
        try:
            trouble = self._look()
        except StoreError as error:
            trouble = error
        if trouble is not None:
            self._next_at = now + _AFTER_TROUBLE_S
            _log.warning("open effects cannot be looked after now: %s", trouble)

    def _look(self) -> StoreError | None:
        """Look once at all that is due; gives what kept it from telling an end."""
        trouble = None
        dead = list(self._dead)
        begin = time.monotonic()
        # What one look brings is put off by the pause; what is left then is due at the next one.
        while time.monotonic() - begin < _MOST_S:
            request = effects.look(self._keys, secrets.token_hex(8), _PAUSE_MS, _MOST_DEATHS, dead, _A_LOOK)
            found = self._carrier.carry(request)
            for _ in dead:
                self._dead.popleft()
            dead = []
            for effect in found:
                try:
                    self._end(effect)
                except StoreError as error:
                    if is_passing(error):
                        raise
                    trouble = error
                except Exception:  # noqa: BLE001 - records that were edited by hand, of RQ's form: the worker has FSMs to serve
                    _log.exception("the end of effect %s of FSM %r cannot be told", effect.job_id, effect.name)
            if len(found) < _A_LOOK:
                break
        return trouble

    def _end(self, effect: OpenEffect) -> None:
        """Tell how an effect ended, if it did."""
        keys, effect_id, name = self._keys, effect.job_id, effect.name
        match effect.status:
            case "":
                plan = verbs.fail(keys, effect_id, name, "gone", "an operator deleted its job")
            case "canceled" | "stopped":
                plan = verbs.fail(keys, effect_id, name, "cancelled", "an operator took it away")
            case "failed":
                why = self._why(effect_id)
                if why is None:
                    self._carrier.carry(verbs.run_again(keys, effect_id, name))
                    return
                plan = verbs.fail(keys, effect_id, name, *why)
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
        except (NoSuchJobError, ValueError, KeyError, zlib.error):  # the latter: edited by hand
            return None
        except RedisError as error:
            raise explain(error, self._carrier.url) from error

    def _why(self, effect_id: str) -> tuple[str, str] | None:
        """Read class and text of the exception with which a job failed; `None` where only its process died."""
        commands = [("HMGET", self._keys.job(effect_id), "exc_info", "deaths")]
        raw, deaths = self._carrier.carry(Request(lambda reply: reply, commands=commands))
        ours = text(raw)
        if deaths and ours.startswith("workers died"):
            return "abandoned", ours
        result = self._result(effect_id)
        if result is not None and result.exc_string:
            return None if _DEATH.match(result.exc_string) else _last_line(result.exc_string)
        return "abandoned", ours or "it failed, and RQ does not say why"

    def _finished(self, effect: OpenEffect) -> Plan[str]:
        """Read what RQ kept of the result of an effect whose end was not told."""
        keys, effect_id, name = self._keys, effect.job_id, effect.name
        result = self._result(effect_id)
        if result is None:
            return verbs.fail(keys, effect_id, name, "gone", "it is done, and RQ has forgotten its result")
        if result.return_value == UNSERIALIZABLE_RETURN_VALUE_PAYLOAD:
            return verbs.fail(keys, effect_id, name, "PayloadError", "an effect returns JSON values")
        return verbs.succeed(keys, effect_id, name, result.return_value)


def _last_line(traceback: str) -> tuple[str, str]:
    r"""Read class and text of an exception out of its traceback; of what is none, give the text.

    >>> _last_line('Traceback (most recent call last):\n  File "x.py", line 1\nshop.Declined: no\ncover')
    ('Declined', 'no\ncover')
    """
    head, mark, last = traceback.strip().rpartition("Traceback (most recent call last):\n")
    if not mark:
        return "abandoned", head or last
    # The frames are indented; the text of the exception may have lines of any form.
    lines = last.splitlines()
    while lines and lines[0].startswith(" "):
        lines.pop(0)
    kind, _, message = "\n".join(lines).partition(": ")
    name = kind.rpartition(".")[2]
    if not name.isidentifier():
        return "abandoned", "\n".join(lines)
    return name, message or name
