"""The workers of a run: real processes, started anew whenever one has died, some of them with a parent.

A parent frees what its child held as soon as it has seen it die, by the script `recover` with the name of the dead.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from fsm.errors import StoreError
from fsm.store import calls
from fsm.store.connection import connect
from fsm.store.requests import run
from tests.chaos.shore import Way
from tests.chaos.witness import Orphan

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.testing import FaultPoint
    from tests.chaos.plan import Plan
    from tests.chaos.shore import Server
    from tests.chaos.witness import Witness

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.chaos.machines"
_PAUSE_S = 0.02
_PATIENCE_S = 30.0
_START_MS = 10_000
# Of all others that are started once the next definition is deployed.
_NEWER = 0.5


class Slot:
    """One worker after the other, in a thread of its own.

    Args:
        number: Of the slot; odd ones have no parent.
        fleet: Of all of them.
    """

    def __init__(self, number: int, fleet: Fleet) -> None:
        self.number = number
        self.has_parent = number % 2 == 0
        self.name = ""
        self.pid = 0
        self.is_at_work = False
        self.is_stopped = False
        self.fault: FaultPoint | None = None
        self._fleet = fleet
        self.definition = 1
        self._life = 0
        self._goes_on_at = 0.0
        self._draw = random.Random(f"{fleet.plan.seed}/slot/{number}")
        self.way = Way(fleet.server.url.removeprefix("unix://"))
        self.said = fleet.directory / f"worker-{number}.log"
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self) -> None:
        while not self._fleet.is_over:
            self._start()
            while self._lives():
                if self.is_stopped and time.monotonic() > self._goes_on_at:
                    self.send(signal.SIGCONT)
                if not self.is_at_work:
                    self._look()
                time.sleep(_PAUSE_S)

    def _start(self) -> None:
        fleet, plan = self._fleet, self._fleet.plan
        self._life += 1
        self.definition = self._drawn()
        self.name = f"slot-{self.number}-{self._life}-v{self.definition}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHAOS_RETRIES": "1" if plan.retries else "0"}
        environment["CHAOS_DEFINITION"] = str(self.definition)
        if fleet.storage_url:
            environment["CHAOS_STORAGE"] = fleet.storage_url
        self.fault = fleet.next_fault()
        if self.fault:
            environment |= self.fault.environment()
        options = ("--lease", f"{plan.lease_ms}ms", "--no-effects", "--log-level", "warning")
        options += ("--concurrency", str(plan.concurrency))
        with self.said.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers", "--url", self.way.url, "--app", APP, "--name", self.name, *options],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        # Its end is read here, and nowhere else.
        process.returncode = 0
        self.pid = process.pid

    def _drawn(self) -> int:
        """Draw the definition of the next worker: the first slot has the newer one, the second stays with the older."""
        is_newer = self.number == 0 or (self.number > 1 and self._draw.random() < _NEWER)
        return 2 if self._fleet.is_deploying and is_newer else 1

    def send(self, what: int) -> None:
        """Send a signal, if there is a process."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, what)

    def _lives(self) -> bool:
        """Take note of what became of the process; False once it has ended."""
        while True:
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if seen is None:
                return True
            if seen.si_code == os.CLD_STOPPED:
                self.is_stopped = True
                self._fleet.note()
                self._fleet.stops += 1
                # Others look for what is over once a second, and then they have time to go on with it.
                self._goes_on_at = time.monotonic() + self._fleet.plan.lease_ms / 1000 + self._draw.uniform(1.2, 2.5)
            elif seen.si_code == os.CLD_CONTINUED:
                self.is_stopped, self.fault = False, None
                self._fleet.note()
            else:
                self._ended(seen)
                return False

    def _ended(self, seen: Any) -> None:
        at_ms, fleet = time.time() * 1000, self._fleet
        was_at_work, self.is_at_work, self.is_stopped = self.is_at_work, False, False
        self.fault = None
        fleet.note()
        how = "exit code" if seen.si_code == os.CLD_EXITED else "signal"
        if (how, seen.si_status) != ("signal", signal.SIGKILL):
            # One that is asked to stop before Python has come to our handler ends by that signal.
            ends = [("exit code", 0)] if was_at_work else [("exit code", 0), ("signal", signal.SIGTERM)]
            if not was_at_work and seen.si_status == 1 and fleet.server.is_away(at_ms - _START_MS, at_ms):
                return  # it told that there is no Redis, and ends: whoever started it starts it again
            is_asked = fleet.is_over or (fleet.is_deploying and not self.number)
            if not is_asked or (how, seen.si_status) not in ends:
                fleet.faults.append(f"{self.name} ended by {how} {seen.si_status}")
            return
        fleet.kills += 1
        with suppress(RedisError):
            fleet.witness.orphaned(self._held(at_ms))
        if self.has_parent:
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline and not fleet.is_over:
                try:
                    run(fleet.client, calls.recover(fleet.keys, [self.name]))
                    break
                except StoreError:
                    time.sleep(_PAUSE_S)

    def _held(self, at_ms: float) -> list[Orphan]:
        client: Any = self._fleet.client
        keys = self._fleet.keys
        noted = {name.decode(): token.decode() for name, token in client.hgetall(keys.claims(self.name)).items()}
        owners = client.mget([keys.lock(name) for name in noted]) if noted else []
        return [
            Orphan(name, self.name, at_ms, self.has_parent)
            for (name, token), owner in zip(noted.items(), owners, strict=True)
            if owner == f"{self.name}/{token}".encode()
        ]

    def _look(self) -> None:
        with suppress(RedisError):
            self.is_at_work = self._fleet.client.zscore(self._fleet.keys.workers, self.name) is not None
            self._fleet.note()

    def holds(self) -> bool:
        """Whether it has FSMs in its hands just now."""
        with suppress(RedisError):
            return bool(self._fleet.client.exists(self._fleet.keys.claims(self.name)))
        return False


class Fleet:
    """All slots.

    Args:
        plan: Of the run.
        server: Redis.
        keys: Of the namespace.
        witness: Who is told of the dead.
        directory: Where workers say what they have to say.

    Attributes:
        arms: Whether workers that are started get faults of their own.
        is_deploying: Whether workers that are started may be of the next definition; the first slot's are.
        kills, stops: How many there were.
        faults: Workers that ended in another way than they should.
        idle: From when until when no worker was at work, in ms.
    """

    def __init__(
        self, plan: Plan, server: Server, keys: Keys, witness: Witness, directory: Path, storage_url: str = ""
    ) -> None:
        self.plan = plan
        self.storage_url = storage_url
        self.server = server
        self.keys = keys
        self.witness = witness
        self.directory = directory
        self.client = connect(server.url)
        self.arms = True
        self.is_over = self.is_deploying = False
        self.kills = self.stops = 0
        self.faults: list[str] = []
        self.idle: list[tuple[float, float]] = []
        self._idle_since = 0.0
        self._guard = threading.Lock()
        self._faults = plan.faults()
        self.slots = [Slot(number, self) for number in range(plan.workers)]

    def start(self) -> None:
        """Start them all."""
        for slot in self.slots:
            slot.way.__enter__()
            slot.thread.start()

    def at_work(self) -> list[Slot]:
        """Give those that take work just now."""
        return [slot for slot in self.slots if slot.is_at_work and not slot.is_stopped]

    def next_fault(self) -> FaultPoint | None:
        """Give the fault of the worker that is started now; one that stops it while no other is about to be stopped.

        Were all stopped, nobody would take from them what they hold, and their commits would be good.
        """
        with self._guard:
            is_calm = not any(slot.is_stopped or (slot.fault and slot.fault.action == "stop") for slot in self.slots)
            for number, fault in enumerate(self._faults if self.arms else ()):
                if is_calm or fault is None or fault.action != "stop":
                    return self._faults.pop(number)
        return None

    def deploy(self) -> None:
        """Stop the first worker, in order, and start it anew with the next definition; others follow as they fall."""
        self.is_deploying = True
        self.slots[0].send(signal.SIGTERM)

    def note(self) -> None:
        """Note the times in which nobody is at work; called whenever one begins or ends to be."""
        with self._guard:
            is_idle, now_ms = not self.at_work(), time.time() * 1000
            if is_idle and not self._idle_since:
                self._idle_since = now_ms
            elif not is_idle and self._idle_since:
                self.idle.append((self._idle_since, now_ms))
                self._idle_since = 0.0

    def end(self) -> None:
        """Ask all to stop, and wait for them; what does not end is killed, and that is a fault."""
        self.is_over = True
        for slot in self.slots:
            if slot.thread.is_alive():
                slot.send(signal.SIGTERM)
                slot.send(signal.SIGCONT)
        for slot in self.slots:
            slot.thread.join(_PATIENCE_S)
            if slot.thread.is_alive():
                self.faults.append(f"{slot.name} did not stop on SIGTERM")
                slot.send(signal.SIGKILL)
                slot.thread.join(_PATIENCE_S)
            slot.way.__exit__(None, None, None)

    def lines(self, *words: str) -> int:
        """Count the lines of the workers' logs that hold one of these."""
        return sum(
            any(word in line for word in words)
            for slot in self.slots
            if slot.said.exists()
            for line in slot.said.read_text("utf-8", errors="replace").splitlines()
        )
