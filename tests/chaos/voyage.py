"""One run: FSMs, producers, workers, blows, and the verdict."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from fsm import Client, StoreError
from tests.chaos.cellar import database
from tests.chaos.fleet import ROOT, Fleet
from tests.chaos.shore import Server
from tests.chaos.verdict import Verdict, judge, left
from tests.chaos.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.plan import Blow, Plan
    from tests.chaos.witness import Orphan

_PAUSE_S = 0.02
# With nothing applied for so long, something is stuck. An id in the hand of a worker that died without a parent goes
# back when that was silent for 30 s, and for 20 s of looks after.
_STUCK_S = 75.0
_BLOW_PAUSE_S = 0.1
_SHOWN = 30
# Events that wait, for each FSM.
_BACKLOG = 5


class Producers:
    """The processes that send."""

    def __init__(self, plan: Plan, url: str) -> None:
        self.plan = plan
        self.sent = [0] * plan.producers
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.producers", url, str(number), json.dumps(plan.as_dict())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(plan.producers)
        ]
        for number in range(plan.producers):
            threading.Thread(target=self._read, args=(number,), daemon=True).start()

    def _read(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout is not None
        for line in stdout:
            self.sent[number] = int(line)

    def allow(self, part: float) -> None:
        """Allow this part of all events to be sent by now."""
        for number, process in enumerate(self._processes):
            if process.poll() is None and process.stdin is not None:
                share = self.plan.share(number)
                try:
                    process.stdin.write(f"{min(share, round(share * part))}\n")
                    process.stdin.flush()
                except BrokenPipeError:
                    continue  # it is done

    def faults(self) -> list[str]:
        """Say who ended in another way than by being done."""
        return [
            f"producer {number} ended with code {process.returncode}"
            for number, process in enumerate(self._processes)
            if process.poll()
        ]

    def end(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue


class Voyage:
    """One run of a plan.

    Args:
        plan: The plan.
        tell: Called with how far it is: a word, events applied, kills.
    """

    def __init__(self, plan: Plan, tell: Callable[[str, int, int], None] = lambda *_: None) -> None:
        self.plan = plan
        self.tell = tell
        self.directory = Path(tempfile.mkdtemp(prefix="fsm-chaos-"))
        self.verdict = Verdict()
        self._draw = random.Random(f"{plan.seed}/voyage")

    def run(self) -> dict[str, Any]:
        """Run it, and give the report; what the workers said is kept where something is wrong."""
        with (
            Server() as server,
            Client(server.url) as client,
            database(self.plan.storage, self.directory) as storage,
        ):
            self.server, self.client, self.storage = server, client, storage
            self.witness = Witness(server.url, client.keys, retries=self.plan.retries)
            for machine, births in self.plan.births().items():
                for verdict in client.start_many(machine, births):
                    if verdict.error is not None:
                        raise verdict.error
            with self._crew():
                begin = time.monotonic()
                self._storm()
                self._calm()
                seconds = time.monotonic() - begin
                self.fleet.end()
                self.witness.stop()
                self._close()
                report = self._report(seconds)
        if not self.verdict.faults:
            shutil.rmtree(self.directory)
        return report

    @contextmanager
    def _crew(self) -> Iterator[None]:
        url = self.storage.url if self.storage else ""
        self.fleet = Fleet(self.plan, self.server, self.client.keys, self.witness, self.directory, url)
        self.producers = Producers(self.plan, self.server.url)
        try:
            self.witness.start()
            self.fleet.start()
            yield
        finally:
            self.producers.end()
            self.fleet.end()
            self.witness.stop()
            self.fleet.client.close()

    # The storm: one blow after the other, and a part of the events before each.

    def _storm(self) -> None:
        blows = self.plan.blows()
        poisons = self.plan.poisoned()
        since = {"kills": 0, "stops": 0}
        for number, blow in enumerate(blows):
            is_last = number + 1 == len(blows)
            if self.plan.deploy and number == len(blows) // 3:
                self.fleet.deploy()
                # Else the others might be through with all events before it has come up.
                self._until(lambda: self.fleet.slots[0].definition == 2 and self.fleet.slots[0].is_at_work, _STUCK_S)
            # As much waits as keeps all busy: were it more, one would measure how long FSMs wait for their turn.
            self._until(lambda: sum(self.producers.sent) - self.witness.noted < _BACKLOG * self.plan.fsms, _STUCK_S)
            self.producers.allow((number + 1) / (len(blows) + 3))
            while poisons and number >= len(blows) * (self.plan.poisons - len(poisons)) // (self.plan.poisons + 1):
                self._poison(poisons.pop())
            if len(blows) - number < self.plan.workers:
                self.fleet.arms = False
            # Beside one that is stopped, somebody has to take what it holds.
            least = self.plan.workers if is_last else max(2 if blow == "stop" else 1, self.plan.workers // 2)
            self._until(lambda least=least: len(self.fleet.at_work()) >= least, _STUCK_S)
            if is_last:
                self.producers.allow(1)
            else:
                time.sleep(self._draw.uniform(0, _BLOW_PAUSE_S))
            self._strike(blow, since, is_last=is_last)
            self._tell("storm")
        self.fleet.arms = False
        self.producers.allow(1)

    def _strike(self, blow: Blow, since: dict[str, int], *, is_last: bool) -> None:
        if blow == "restart":
            self.server.crash()
            return
        if blow == "cut":
            self._draw.choice(self.fleet.slots).way.cut()
            return
        # Those that fell by a fault of their own are counted: as many blows are not needed.
        which = "kills" if blow == "kill" else "stops"
        if getattr(self.fleet, which) > since[which] and not is_last:
            since[which] += 1
            return
        holder = None
        deadline = time.monotonic() + (5 if is_last else 0.5)
        while holder is None and time.monotonic() < deadline:
            found = [slot for slot in self._shuffled() if not (is_last and slot.has_parent)]
            holder = next((slot for slot in found if slot.holds()), None)
        before = getattr(self.fleet, which)
        for slot in [holder] if holder else self._shuffled()[:1]:
            slot.send(signal.SIGKILL if blow == "kill" else signal.SIGSTOP)
            self._until(lambda: getattr(self.fleet, which) > before, 5)
        since[which] += 1

    def _shuffled(self) -> list[Any]:
        found = self.fleet.at_work()
        self._draw.shuffle(found)
        return found

    def _poison(self, name: str) -> None:
        while True:
            try:
                self.client.transition(name, "die", key="poison")
            except StoreError:
                time.sleep(_PAUSE_S)
            else:
                return

    def _calm(self) -> None:
        """Wait until all is done, and nothing is left that somebody held."""
        total = self.plan.events
        seen, changed = -1, time.monotonic()
        while time.monotonic() - changed < _STUCK_S:
            if self.witness.lines != seen:
                seen, changed = self.witness.lines, time.monotonic()
            if sum(self.producers.sent) >= total and self._is_at_rest() and not any(self._left().values()):
                return
            self._tell("calm")
            time.sleep(10 * _PAUSE_S)
        self.verdict.blame("other", f"nothing moves any more: {self._left()}")

    def _is_at_rest(self) -> bool:
        """Ask for little, as long as there is much to be done: all that is left is counted once this is so."""
        keys = self.client.keys
        try:
            return not self.client.redis.exists(keys.held, keys.ready(keys.default_queue))
        except RedisError:
            return False

    def _left(self) -> dict[str, int]:
        try:
            return left(self.client.redis, self.client.keys)
        except RedisError:
            return {"unknown": 1}

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def _tell(self, word: str) -> None:
        self.tell(word, self.witness.noted, self.fleet.kills)

    # The end.

    def _close(self) -> None:
        for fault in [*self.fleet.faults, *self.producers.faults()]:
            self.verdict.blame("other", fault)
        self.verdict.blame("other", "FSMs could not be run", self.fleet.lines("could not be run"))
        keys, judged = self.client.keys, (self.witness, self.verdict)
        self.applied = judge(self.plan, self.client.redis, keys, *judged, self.storage)
        self.remains = left(self.client.redis, self.client.keys)
        for what, count in self.remains.items():
            self.verdict.blame("left", what, count)

    def _report(self, seconds: float) -> dict[str, Any]:
        counts = self.verdict.counts
        outages = [(since - 500, until + self.plan.lease_ms + 2000) for since, until in self.server.outages]
        apart: list[Orphan] = []
        plain: list[Orphan] = []
        for one in self.witness.recoveries:
            (apart if _falls_into(one, outages + self.fleet.idle) else plain).append(one)
        parted = {"with_parent": [one for one in plain if one.has_parent]}
        parted["without"] = [one for one in plain if not one.has_parent]
        parted["redis_away_or_no_worker"] = apart
        return {
            "plan": self.plan.as_dict(),
            "events": self.plan.events,
            "applied": self.applied,
            "commits": sum(track.version for track in self.witness.tracks.values()),
            "lost": counts["lost"],
            "twice": counts["twice"],
            "out_of_order": counts["disorder"],
            "violations": sum(counts.values()),
            "kinds": dict(counts),
            "faults": self.verdict.faults[:_SHOWN],
            "left": self.remains,
            "kills": self.fleet.kills,
            "stops": self.fleet.stops,
            "redis_restarts": len(self.server.outages),
            "redis_away_ms": [round(until - since) for since, until in self.server.outages],
            "finished_for_others": self.fleet.lines("was stored and Redis was not told"),
            "put_off": self.fleet.lines("waits for its storage", "is not stored, and it waits"),
            "migrated": sum(track.migrated for track in self.witness.tracks.values()),
            "lines_by_definition": dict(self.witness.by_definition),
            "cuts": sum(slot.way.lost for slot in self.fleet.slots),
            "stale": self.fleet.lines("nothing was written", "was lost before its events were run"),
            "seconds": round(seconds, 1),
            "events_per_s": round(self.plan.events / seconds),
            "freed_after_ms": {who: _times([one.freed_ms - one.at_ms for one in ones]) for who, ones in parted.items()},
            "claimed_after_ms": {
                who: _times([one.until_ms - one.at_ms for one in ones]) for who, ones in parted.items()
            },
            "logs": str(self.directory) if self.verdict.faults else None,
        }


def _falls_into(one: Orphan, spans: list[tuple[float, float]]) -> bool:
    return any(one.at_ms < until and one.until_ms > since for since, until in spans)


def _times(found: list[float]) -> dict[str, int]:
    if not found:
        return {"n": 0}
    found = sorted(found)
    return {
        "n": len(found),
        "p50": round(found[len(found) // 2]),
        "p99": round(found[min(len(found) - 1, len(found) * 99 // 100)]),
        "max": round(found[-1]),
    }
