"""Machines that note whatever reaches them twice, too late or not at all.

Each event says who sent it, and the how manieth of that sender to this FSM it is. `tally` compares it with what is in
the payload; the harness does the same with the lines of the log, so that each checks the other.

`CHAOS_RETRIES=1` in the environment: a handler that fails is tried again instead of failing for good.
`CHAOS_STORAGE` in the environment: URL of the database in which their payloads lie.
`CHAOS_DEFINITION=2` in the environment: the next definition of them all, which brings up what the first one wrote; who
meets a payload of another form than its own, notes that.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from fsm import Goto, Machine, Migration, RetryPolicy, Settings, Transition, on
from fsm.storage.sql import SqlStorage

RETRIES = os.environ.get("CHAOS_RETRIES") == "1"
STORAGE = SqlStorage(os.environ["CHAOS_STORAGE"]) if os.environ.get("CHAOS_STORAGE") else None
DEFINITION = int(os.environ.get("CHAOS_DEFINITION", "1"))
# States of the first definition that have another name in the second.
RENAMED = {"even": "plus", "odd": "minus"}
# Every so manieth event fails, or takes its time.
FAILS, SLOW = 10, 97
_SLOW_S = 0.03
# So long that whoever falls has something in its hands that is done and not committed.
_WORK_S = 0.0005

Payload = dict[str, Any]


def fresh(**more: Any) -> Payload:
    """A payload that has seen nothing."""
    return {"last": {}, "missing": {}, "twice": 0, "disorder": 0, "count": 0, **more}


def tally(seen: Payload, by: str, n: int) -> None:
    """Note the event number `n` of a sender, and what is wrong with it."""
    last = seen["last"].get(by, 0)
    missing = seen["missing"].get(by, [])
    if n > last:
        if n > last + 1:
            seen["missing"][by] = [*missing, *range(last + 1, n)]
        seen["last"][by] = n
    elif n in missing:
        missing.remove(n)
        seen["disorder"] += 1
    else:
        seen["twice"] += 1
    seen["count"] += 1


def upgrade(_: Machine, snapshot: Migration, from_version: int) -> None:
    """Bring an FSM up to the second definition: it is noted how often that was done, and in which form it is."""
    time.sleep(_WORK_S)
    snapshot.state = RENAMED.get(snapshot.state, snapshot.state)
    snapshot.payload["migrated"] = snapshot.payload.get("migrated", 0) + 1
    snapshot.payload["form"] = from_version + 1


def look(seen: Payload) -> None:
    """Note a payload of another form than this definition has."""
    if seen.get("form", 1) != DEFINITION:
        seen["astray"] = seen.get("astray", 0) + 1


def work(t: Transition[Payload], data: dict[str, Any]) -> None:
    """Take some time, and note the event."""
    look(t.payload)
    time.sleep(_WORK_S if data["n"] % SLOW else _SLOW_S)
    tally(t.payload, data["by"], data["n"])


def pass_over(seen: Payload, by: str, n: int) -> None:
    """Note that the event before this one is known to have failed: its payload was not kept."""
    if (n - 1) % FAILS == 0 and seen["last"].get(by, 0) == n - 2:
        seen["last"][by] = n - 1


class Ledger(Machine):
    """Plain numbering; and what kills its worker, again and again."""

    storage = STORAGE
    migrate = upgrade
    settings = Settings(endless=True, dedup="2m", definition_version=DEFINITION)
    diagram = """
    stateDiagram-v2
        [*] --> even
        even --> odd : note
        odd --> even : note
        even --> even : die
        odd --> odd : die
    """
    if DEFINITION > 1:
        diagram = diagram.replace("even", RENAMED["even"]).replace("odd", RENAMED["odd"])

    @on("note")
    def note(self, t: Transition[Payload], data: dict[str, Any]) -> None:
        work(t, data)

    @on("die")
    def die(self, t: Transition[Payload]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Chooser(Machine):
    """Its handler decides where to go, and looks whether it is where it went last."""

    storage = STORAGE
    migrate = upgrade
    settings = Settings(endless=True, dedup="2m", definition_version=DEFINITION)
    diagram = """
    stateDiagram-v2
        [*] --> left
        left --> left : note
        left --> right : note
        right --> left : note
        right --> right : note
    """

    @on("note")
    def note(self, t: Transition[Payload], data: dict[str, Any]) -> Goto:
        if t.source != t.payload["at"]:
            t.payload["astray"] += 1
        work(t, data)
        t.payload["at"] = "right" if data["n"] % 3 else "left"
        return Goto(t.payload["at"])


class Stepper(Machine):
    """Goes on by itself after each event: two hard events, each once, before the next."""

    storage = STORAGE
    migrate = upgrade
    settings = Settings(endless=True, dedup="2m", definition_version=DEFINITION)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> due : note
        due --> settled : settle!
        settled --> open : back!
    """

    @on("note")
    def note(self, t: Transition[Payload], data: dict[str, Any]) -> None:
        if t.payload["settled"] != t.payload["count"]:
            t.payload["astray"] += 1
        work(t, data)

    @on("settle")
    def settle(self, t: Transition[Payload]) -> None:
        look(t.payload)
        t.payload["settled"] += 1


class Post(Machine):
    """Passes a letter on for each event, numbered as its own."""

    storage = STORAGE
    migrate = upgrade
    settings = Settings(endless=True, dedup="2m", definition_version=DEFINITION)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
    """

    @on("note")
    def note(self, t: Transition[Payload], data: dict[str, Any]) -> None:
        work(t, data)
        t.send(t.payload["to"], "note", {"by": t.name, "n": t.payload["count"]})


class Shaky(Machine):
    """Fails every so often: for good, or at the first attempt only where it is tried again."""

    storage = STORAGE
    migrate = upgrade
    settings = Settings(
        endless=True,
        dedup="2m",
        definition_version=DEFINITION,
        retry=RetryPolicy(attempts=5, delay="50ms", on=(TimeoutError,)) if RETRIES else None,
    )
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
    """

    @on("note")
    def note(self, t: Transition[Payload], data: dict[str, Any]) -> None:
        by, n = data["by"], data["n"]
        if not RETRIES:
            pass_over(t.payload, by, n)
        work(t, data)
        if n % FAILS == 0 and not (RETRIES and t.attempt > 1):
            problem = "as every so often"
            raise TimeoutError(problem)
