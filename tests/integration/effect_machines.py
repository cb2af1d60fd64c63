"""A machine that asks for effects, and effects that do what effects do: return, raise, take long, die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from fsm import Machine, RetryPolicy, Transition, on


class Desk(Machine[list[Any]]):
    """Asks for the effect that it is told, and notes what comes back."""

    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : ask
        open --> open : done
        open --> open : failed
        open --> shut : shut
        shut --> [*]
    """

    @on("ask")
    def ask(self, t: Transition[list[Any]], data: dict[str, Any]) -> None:
        more = data.get("more", {})
        if "delays" in data:
            more["retry"] = RetryPolicy(attempts=1 + data["delays"], delay="1s", factor=1)
        func = f"{__name__}.{data['func']}"
        t.reply(t.enqueue(func, *data.get("args", []), on_success="done", on_failure="failed", **more))

    @on("done")
    def done(self, t: Transition[list[Any]], data: Any) -> None:
        t.payload.append(["done", data])

    @on("failed")
    def failed(self, t: Transition[list[Any]], data: dict[str, Any]) -> None:
        t.payload.append(["failed", data["type"], data["message"]])


def note(path: str) -> int:
    """Write who we are into the book of this effect; give how many lines there are."""
    with Path(path).open("a", encoding="utf-8") as book:
        book.write(f"{os.getpid()}\n")
    return len(Path(path).read_text("utf-8").splitlines())


def double(number: int) -> int:
    return 2 * number


def give_a_set(path: str) -> Any:
    note(path)
    return {1}


def decline(path: str) -> None:
    problem = f"no cover, for the {note(path)}. time"
    raise ValueError(problem)


def nap(path: str, seconds: float) -> str:
    note(path)
    time.sleep(seconds)
    note(path)
    return "rested"


def hold(path: str, until: str, problem: str = "") -> None:
    """Take as long as the test wants: until there is a file; then fail, if there is a problem."""
    note(path)
    deadline = time.monotonic() + 60
    while not Path(until).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if problem:
        raise ValueError(problem)


def die_once(path: str, whose: str) -> int:
    """Do it, and die before anybody is told: the first time only."""
    runs = note(path)
    if runs == 1:
        if whose == "worker":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return runs


def hang_once(path: str) -> int:
    runs = note(path)
    if runs == 1:
        time.sleep(600)
    return runs


def always_die(path: str) -> None:
    note(path)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def meet(mine: str, *all_of_them: str) -> str:
    """Say that it runs, and wait until all others do so at the same time."""
    note(mine)
    deadline = time.monotonic() + 30
    while not all(Path(path).exists() for path in all_of_them):
        if time.monotonic() > deadline:
            return "alone"
        time.sleep(0.01)
    return "met"
