"""A worker goes on listening to RQ's commands when Redis was away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as SilentError

from workers.worker import TransitionWorker


@pytest.fixture
def worker() -> Any:
    """One that has only a name: no Redis is asked."""
    made: Any = TransitionWorker.__new__(TransitionWorker)
    made.name, made.log = "w", SimpleNamespace(error=print, warning=print)
    return made


def meet(worker: Any, error: Exception) -> None:
    """Meet an error as the thread does that listens: RQ raises it again, where it is met."""
    try:
        raise error
    except RedisError as met:
        worker._pubsub_exception_handler(met, None, None)


@pytest.mark.parametrize("error", [BrokenError("refused"), SilentError("Timeout connecting to server")], ids=repr)
def test_an_outage_is_waited_for(worker: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    # Seen to fail without `_pubsub_exception_handler`: where connecting took too long, the thread ended, and the worker
    # heard no command any more.
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    meet(worker, error)

    assert 1 <= pauses[0] <= 2


def test_what_does_not_pass_ends_the_listening(worker: Any) -> None:
    with pytest.raises(ResponseError):
        meet(worker, ResponseError("no"))
