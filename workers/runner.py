"""RQ's worker for effects, as it runs beside ours: it imports what is allowed, and lives through what others wrote.

A record names a function, up to three callbacks and any number of web-hooks, and whoever can write to Redis can write
a record. RQ imports and calls what it names; that is its work, and so it is here, unless the setting `effects_allow`
says which functions may be run. Then a function must stand in that list twice: by the path in the record, looked at
before anything is imported, and by the module in which it is defined, looked at before it is called. Else
`shop.bank.os.system` would be a function of `shop.bank`.

A record that cannot be read ends RQ's own worker, and one in its registry of started jobs ends each that comes after
it. Here it is written down as failed, and the worker goes on.

Who calls this: `workers.effects`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

from redis import RedisError
from rq import Worker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.registry import clean_registries
from rq.utils import now as rq_now
from rq.worker_registration import clean_worker_registry

from fsm.errors import ConfigError
from fsm.store.keys import Keys
from workers.commands import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["EffectJob", "EffectsWorker", "is_allowed", "job_class"]

_log = logging.getLogger("fsm.effects")
# What our own commits name in the records of effects.
_OURS = frozenset(f"workers.answers.{name}" for name in ("success", "failure", "stopped"))
_UNREADABLE_PAUSE_S = 0.1
_KEPT_S = 2_592_000


def is_allowed(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a dotted path is one of a list of them, or lies under one that ends with `.*`.

    >>> is_allowed("shop.bank.charge", ["shop.bank.*"]), is_allowed("shop.bankrupt", ["shop.bank.*"])
    (True, False)
    """
    return any(path == one or (one.endswith(".*") and path.startswith(one[:-1])) for one in patterns)


class EffectJob(Job):
    """A job that looks at names before it imports what they name.

    Attributes:
        allowed: Functions and modules; all that can be imported where there are none.
    """

    allowed: ClassVar[tuple[str, ...]] = ()

    @property
    def func(self) -> Any:
        """The function, imported.

        Raises:
            ConfigError: It is not allowed here.
        """
        if not self.allowed:
            return super().func
        path = self.func_name or ""
        if self.instance is not None:
            raise _refused(path, self.allowed, "its record names a method of a value")
        if not is_allowed(path, self.allowed):
            raise _refused(path, self.allowed, "this worker may not run it")
        found = super().func
        home = _home(found)
        if not is_allowed(home, self.allowed):
            raise _refused(path, self.allowed, f"it is {home}, which this worker may not run")
        return found

    @property
    def success_callback(self) -> Any:
        """What is called with the result; `None` where it cannot be had or is not allowed."""
        return self._callback(self._success_callback_name, lambda: super(EffectJob, self).success_callback)

    @property
    def failure_callback(self) -> Any:
        """What is called with a failure, also by a worker that cleans up; as above."""
        return self._callback(self._failure_callback_name, lambda: super(EffectJob, self).failure_callback)

    @property
    def stopped_callback(self) -> Any:
        """What is called when somebody stopped the job; as above."""
        return self._callback(self._stopped_callback_name, lambda: super(EffectJob, self).stopped_callback)

    def _callback(self, path: str | None, imported: Callable[[], Any]) -> Any:
        if not path:
            return None
        try:
            if not self.allowed or path in _OURS:
                return imported()
            if is_allowed(path, self.allowed) and is_allowed(_home(found := imported()), self.allowed):
                return found
        except Exception:  # noqa: BLE001 - whatever a module raises when it is imported
            # Raised where RQ looks for it, it would end the worker, or hide how the job ended.
            _log.exception("job %s: its callback %r cannot be imported and is left out", self.id, path)
        else:
            _log.error("job %s: its callback %r is not in effects_allow and is left out", self.id, path)
        return None

    def send_webhooks(self, *args: Any, **more: Any) -> None:
        """Call the web-hooks in the record, where everything is allowed."""
        if not self.allowed:
            super().send_webhooks(*args, **more)
        elif self.webhooks:
            _log.error("job %s: the web-hooks in its record are left out, for effects_allow is set", self.id)


def job_class(allowed: Sequence[str]) -> type[Job]:
    """Make RQ's class of jobs that run what is allowed."""
    return type("EffectJob", (EffectJob,), {"allowed": tuple(allowed)})


def _home(found: Any) -> str:
    """Give the path under which a function, or a class, is defined."""
    name = getattr(found, "__qualname__", None) or type(found).__qualname__
    return f"{getattr(found, '__module__', None) or ''}.{name}"


def _refused(path: str, patterns: Sequence[str], why: str) -> ConfigError:
    return ConfigError(
        f"effect {path!r}", f"{why}: effects_allow is {', '.join(patterns)}; add it there if it is one of yours"
    )


class EffectsWorker(Listener, Worker):
    """RQ's worker, which a record that cannot be read does not end."""

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Take the next job; what cannot be read is written down as failed."""
        while True:
            try:
                return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            except (RedisError, StopRequested):
                raise
            except Exception as error:
                # RQ notes in an error of which job it is; an id that is no text is known to be one by its error.
                if not hasattr(error, "job_id") and not isinstance(error, UnicodeDecodeError):
                    raise
                self._pass_over(error)
                if timeout is not None:
                    time.sleep(_UNREADABLE_PAUSE_S)

    def _pass_over(self, error: Exception) -> None:
        job_id, queue = getattr(error, "job_id", None), getattr(error, "queue", None)
        why = f"{type(error).__name__}: {error}"
        if job_id is None or queue is None:
            _log.error("worker %s found on its queues what is no job: %s", self.name, why)
            return
        _log.error("job %r on queue %s cannot be read and has failed: %s", job_id, queue.name, why)
        key, failed = Keys.job(job_id), Keys.rq_registry("failed", queue.name)
        try:
            self.connection.hset(key, mapping={"status": "failed", "exc_info": f"its record cannot be read: {why}"})
            self.connection.expire(key, _KEPT_S)
            self.connection.zadd(failed, {job_id: int(time.time()) + _KEPT_S})
            self.connection.lrem(queue.intermediate_queue_key, 1, job_id)
        except RedisError as trouble:
            _log.warning("that cannot be written down: %s", trouble)

    def clean_registries(self) -> None:
        """Clean RQ's registries; what cannot be read there does not end the worker."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                try:
                    clean_registries(queue, self._exc_handlers)
                    clean_worker_registry(queue)
                    queue.intermediate_queue.cleanup(self, queue)
                except Exception:  # noqa: BLE001 - also whatever somebody's failure callback raises
                    _log.exception("RQ's registries of queue %s cannot be cleaned now", queue.name)
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call] # RQ is typed in part
        self.last_cleaned_at = rq_now()  # type: ignore[assignment] # RQ sets it likewise, in code without types
