"""Machines whose jobs are handled with RQ's own tools while they wait, run or have ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fsm import Machine, Reject, Retry, Settings, Transition, on


def hold(path: str) -> None:
    """Take as long as the test wants: from when it finds `<path>.begun` until it makes `<path>`."""
    Path(f"{path}.begun").touch()
    begin = time.monotonic()
    # Longer than a worker goes on with one mailbox in one claim: what waits behind it is looked at again.
    while not Path(path).exists() or time.monotonic() < begin + 0.05:
        time.sleep(0.005)
        if time.monotonic() > begin + 60:
            break


class Toll(Machine[list[int]]):
    """Notes each number that it is given; holds, fails and refuses as it is told."""

    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
        on --> on : hold
        on --> on : fail
        on --> on : refuse
        on --> on : retry
        on --> [*] : end
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        t.payload.append(number)

    @on("hold")
    def hold(self, t: Transition[list[int]], data: dict[str, Any]) -> None:
        hold(data["path"])
        if data.get("fails"):
            problem = "as told"
            raise RuntimeError(problem)
        t.payload.append(data["number"])

    @on("fail")
    def fail(self, t: Transition[list[int]], data: dict[str, Any]) -> None:
        """Fail, unless there is a file."""
        if not Path(data["path"]).exists():
            problem = "as told"
            raise RuntimeError(problem)
        t.payload.append(data["number"])

    @on("retry")
    def retry(self, t: Transition[list[int]], data: dict[str, Any]) -> Retry | None:
        """Wait to be tried again, once."""
        if t.attempt == 1:
            return Retry(after=data["after"])
        t.payload.append(data["number"])
        return None

    @on("refuse")
    def refuse(self, t: Transition[list[int]]) -> Reject:
        return Reject("not today")


class Chain(Machine[list[str]]):
    """Owes itself two events: its entry, and the hard one behind `go`."""

    diagram = """
    stateDiagram-v2
        [*] --> ready
        ready --> going : go
        going --> gone : follow!
        gone --> gone : note
        gone --> [*] : end
    """

    def on_start(self, t: Transition[list[str]]) -> None:
        t.payload.append("began")

    @on("follow")
    def follow(self, t: Transition[list[str]]) -> None:
        t.payload.append("followed")


class Slip(Machine[None]):
    """Is not kept for long, once it has ended."""

    settings = Settings(keep_finished="60s")
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> off : end
        off --> [*]
    """
