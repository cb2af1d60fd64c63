"""How a worker hears RQ's commands (`rq` and dashboards send them): what is none must not make it deaf.

RQ listens in a thread of its own, which ends with whatever is raised in it: by a message that is no command, or by a
user of Redis who may not listen.

Who calls this: our worker and the one for effects, which are both such a listener.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError
from rq.worker import BaseWorker

from fsm.store import passing
from fsm.store.connection import explain

if TYPE_CHECKING:
    from redis.client import PubSub, PubSubWorkerThread

__all__ = ["Listener"]

_log = logging.getLogger("fsm.worker")


class Listener(BaseWorker):
    """A worker of RQ's that goes on listening."""

    def handle_payload(self, message: Any) -> None:
        """Obey a command of RQ's; what is none is told."""
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call] # RQ is typed in part
        except (ValueError, TypeError, LookupError) as error:  # not JSON, or not of RQ's form
            _log.warning("worker %s was sent a command that it cannot obey: %r", self.name, error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """Listen again after an outage, and no more where that is forbidden; all else is RQ's matter.

        RQ's own would give it up where Redis did not answer in time.
        """
        if isinstance(exc, NoPermissionError):
            _log.warning("worker %s hears no commands of RQ: %s", self.name, explain(exc, "its URL"))
            pubsub_thread.stop()
        elif passing.is_passing(exc):
            _log.warning("worker %s hears no commands until Redis is back: %s", self.name, exc)
            # As long as RQ waits, but not in step with all other workers.
            time.sleep(random.uniform(1, 2))  # noqa: S311 - chance without secrets
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def unsubscribe(self) -> None:
        """Listen to no commands any more, and tell so first to the thread that does.

        In RQ's order it may ask for the next one before it is told, and RQ waits for it in vain: a second each time.
        """
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()
        with suppress(AttributeError):  # it heard of it between two commands, and has hung up by itself
            super().unsubscribe()  # type: ignore[no-untyped-call] # RQ is typed in part
