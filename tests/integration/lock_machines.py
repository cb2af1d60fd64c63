"""Machines that stop their worker, for tests of locks: in a handler, or between its end and the commit of it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from fsm import App, Machine, Settings, Transition, on
from fsm.store import commits
from tests.integration.machines import Slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.store.requests import Request

__all__ = ["Sleeper", "app"]


class Stop(TypedDict):
    """How a worker is stopped.

    Args:
        where: "handler" or "commit".
        once: A file that says which process was stopped already.
        hold: Whoever runs the event next holds it until there is this file.
    """

    where: str
    once: str
    hold: str


class Sleeper(Machine[list[str]]):
    """Stops the first worker that runs it, as SIGSTOP from outside does, and holds the next one."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : stop
    """

    @on("stop")
    def stop(self, t: Transition[list[str]], data: Stop) -> None:
        t.payload.append(data["where"])
        if not Path(data["once"]).exists():
            Path(data["once"]).write_text(str(os.getpid()))
            if data["where"] == "handler":
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                _stopping.is_due = True
            return
        deadline = time.monotonic() + 60
        while not Path(data["hold"]).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


class _Stopping:
    """Makes commits; before it gives the next one to who is about to send it, it stops the process if that is due."""

    def __init__(self) -> None:
        self.is_due = False
        self.make = commits.commit

    def commit(self, *arguments: Any) -> Request[list[str]]:
        request = self.make(*arguments)
        if self.is_due:
            self.is_due = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return request


_stopping = _Stopping()


@contextmanager
def stopping() -> Iterator[dict[str, Any]]:
    """Stand between the committer, which has looked at the clock by then, and what it sends."""
    commits.commit = _stopping.commit
    yield {}
    commits.commit = _stopping.make


app = App([Sleeper, Slow], lifespan=stopping)
