"""Machines that kill the process that runs them; and a parent that sees its workers die, and starts the next one.

Who runs this: `test_deaths`, as a process of its own. Each worker is a fork of it, since a start of Python for each
death would take most of the time of the test.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

from fsm import App, Machine, Settings, Transition, on
from fsm.store import calls, presence
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    import redis

__all__ = ["CORONER", "Mortal"]

CORONER = "coroner"
_KEYS = Keys("default")
# Far more than any test needs.
_MOST_DEATHS = 150


def die(how: str) -> None:
    """End this process as handlers do that should not."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    else:
        # As the kernel does when memory runs out.
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(Machine[list[Any]]):
    """Notes what it is given, and may die of it; who fails is told to the coroner."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
        on --> on : die
        on --> on : die_twice
    """

    @on("note")
    def note(self, t: Transition[list[Any]], what: Any) -> None:
        t.payload.append(what)

    @on("die")
    def die(self, t: Transition[list[Any]], how: str) -> None:
        t.payload.append("never kept")
        die(how)

    @on("die_twice")
    def die_twice(self, t: Transition[list[Any]], how: str) -> None:
        die(how)

    def on_failure(self, t: Transition[list[Any]], error: Exception) -> None:
        if t.event == "die_twice":
            die("kill")
        t.send(CORONER, "note", [t.name, type(error).__name__, t.job_id])


def _work(url: str, name: str) -> None:
    """Be a worker until nothing waits."""
    TransitionWorker(App([Mortal]), url, ["fsm"], name=name).work(burst=True, logging_level="WARNING")


def _bury(client: redis.Redis, name: str) -> None:
    """Free what a dead worker held, as a parent does that saw it die."""
    while run(client, calls.recover(_KEYS, [name])) != (0, 0):
        pass
    run(client, presence.leave(_KEYS, [name]))


def main(url: str) -> None:
    """Start workers until one ends alive; print how many died, and how much each FSM was charged at most."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    deaths, most = 0, dict[str, int]()
    while deaths < _MOST_DEATHS:
        name = f"mortal-{deaths}"
        child = os.fork()
        if not child:
            _work(url, name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        deaths += 1
        with connect(url) as client:
            found: Any = client
            _bury(client, name)
            for key in found.keys(_KEYS.snapshot("*")):
                fsm = key.decode().removeprefix(_KEYS.snapshot(""))
                most[fsm] = max(most.get(fsm, 0), int(found.hget(key, "tries") or 0))
    sys.stdout.write(json.dumps({"deaths": deaths, "most": most}))


if __name__ == "__main__":
    main(sys.argv[1])
