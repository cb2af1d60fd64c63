"""Machines that the integration tests run in real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from fsm import Client, Goto, Machine, Reject, Retry, RetryPolicy, Settings, Transition, enter, on


class Journal(Machine[list[int]]):
    """Notes each number that it is given, in the order in which they come."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> even
        even --> odd : note
        odd --> even : note
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        t.payload.append(number)


class Parcel(Machine):
    """Goes its way by itself once it is packed."""

    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> packed : pack
        packed --> sent : send!
        packed --> broken : send fails
        sent --> home : arrive!
        home --> [*]
        broken --> [*]
    """

    @on("pack")
    def pack(self, t: Transition[dict[str, Any]], data: dict[str, Any]) -> None:
        t.payload.update(data)

    @on("send")
    def send(self, t: Transition[dict[str, Any]]) -> None:
        if t.payload.get("heavy"):
            problem = "too heavy"
            raise ValueError(problem)

    @enter("home")
    def at_home(self, t: Transition[dict[str, Any]]) -> None:
        if journal := t.payload.get("journal"):
            t.start_fsm(Journal, journal)
            t.send(journal, "note", 1)
            t.send("nobody", "note", 2)
            t.enqueue("tests.integration.machines.touch", t.payload["touch"])


def touch(path: str) -> None:
    """Do what an effect does: something outside."""
    Path(path).touch()


class Trouble(Machine[dict[str, int]]):
    """Does whatever a handler should not."""

    settings = Settings(endless=True, timeout={"hang": "500ms", "dream": "400ms", "*": "1m"})
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : count
        on --> on : fail
        on --> on : hang
        on --> on : dream
        on --> on : awake
        on --> on : die
        on --> on : remember
        on --> on : reject
        on --> up : choose
        on --> down : choose
        up --> on : back
        down --> on : back
    """

    @on("count")
    def count(self, t: Transition[dict[str, int]]) -> None:
        t.payload["n"] = t.payload.get("n", 0) + 1

    @on("fail")
    def fail(self, t: Transition[dict[str, int]]) -> None:
        t.payload["n"] = -1
        problem = "as told"
        raise RuntimeError(problem)

    @on("hang")
    def hang(self, t: Transition[dict[str, int]]) -> None:
        time.sleep(60)

    @on("dream")
    async def dream(self, t: Transition[dict[str, int]]) -> None:
        await asyncio.sleep(60)

    @on("awake")
    async def awake(self, t: Transition[dict[str, int]]) -> None:
        await asyncio.sleep(0.001)
        t.reply("awake")

    @on("die")
    def die(self, t: Transition[dict[str, int]]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @on("remember")
    def remember(self, t: Transition[dict[str, int]]) -> None:
        self.memory = t.payload

    @on("reject")
    def reject(self, t: Transition[dict[str, int]]) -> Reject:
        return Reject("not today", tomorrow=True)

    @on("choose")
    def choose(self, t: Transition[dict[str, int]], where: str) -> Goto:
        return Goto(where)


class Slow(Machine):
    """Takes its time."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : nap
        on --> on : hold
    """

    @on("nap")
    def nap(self, t: Transition[dict[str, Any]], seconds: float) -> None:
        time.sleep(seconds)
        t.payload["naps"] = t.payload.get("naps", 0) + 1

    @on("hold")
    def hold(self, t: Transition[dict[str, Any]], until: str) -> None:
        """Take as long as the test wants: until there is a file, but not until the end of days."""
        deadline = time.monotonic() + 60
        while not Path(until).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


class Shaky(Machine):
    """Fails as often as it is told, and is tried again: as it asks, or by a policy."""

    settings = Settings(endless=True, retry={"try": RetryPolicy(attempts=3, delay="50ms")})
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : add
        on --> on : try
    """

    @on("add")
    def add(self, t: Transition[dict[str, Any]], data: dict[str, Any]) -> Retry | None:
        t.payload.setdefault("seen", []).append(data["n"])
        t.payload.setdefault("attempts", []).append(t.attempt)
        return Retry(data["pause"]) if t.attempt <= data.get("fails", 0) else None

    @on("try")
    def try_(self, t: Transition[dict[str, Any]], data: dict[str, Any]) -> None:
        if t.attempt <= data["fails"]:
            problem = f"shaky at attempt {t.attempt}"
            raise OSError(problem)


class Nosy(Machine):
    """Waits where nobody may wait."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : call
        on --> on : dream
    """

    @on("call")
    def call(self, t: Transition[dict[str, Any]], name: str) -> None:
        with Client(os.environ["FSM_URL"]) as client:
            client.call(name, "note", 1)

    @on("dream")
    async def dream(self, t: Transition[dict[str, Any]], name: str) -> None:
        await asyncio.sleep(0)
        with Client(os.environ["FSM_URL"]) as client:
            client.fsm(Journal, name).wait_for("odd")
