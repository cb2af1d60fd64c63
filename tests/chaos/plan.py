"""What a run does, drawn from its seed: the FSMs, who sends what to whom, and which blows fall in which order."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from fsm.testing import FaultPoint
from fsm.testing.faults import Point
from tests.chaos.machines import Chooser, Ledger, Post, Shaky, Stepper, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm import Machine

Blow = Literal["kill", "stop", "restart", "cut"]
# Ledgers last: letters go to one of them.
KINDS: tuple[type[Machine[Any]], ...] = (Chooser, Stepper, Post, Shaky, Ledger)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Args:
        fsms: How many, of all machines in turn.
        events: How many are sent from outside.
        workers: Processes; every other one has a parent that frees what it held as soon as it is dead.
        kills: SIGKILLs, up to half of them at fault points.
        stops: SIGSTOPs for longer than the lease, most of them at fault points.
        restarts: SIGKILLs of Redis.
        cuts: Connections of workers that are lost together with a reply.
        poisons: Events that kill each worker that runs them.
        seed: Of all choices.
        producers: Processes that send.
        lease_ms: The lease.
        concurrency: How many handlers each worker runs side by side.
        retries: Whether failing handlers are tried again.
        storage: Where payloads lie: "sqlite" or "postgres"; "" for Redis.
        deploy: Whether workers of the next definition come, after a third of the blows, beside the others.
    """

    fsms: int = 200
    events: int = 100_000
    workers: int = 4
    kills: int = 200
    stops: int = 20
    restarts: int = 3
    cuts: int = 20
    poisons: int = 3
    seed: int = 1
    producers: int = 2
    lease_ms: int = 1500
    concurrency: int = 1
    retries: bool = False
    storage: str = ""
    deploy: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give it for reports, and for the processes of producers."""
        return asdict(self)

    def names(self) -> list[str]:
        """Give the FSMs."""
        return [f"{KINDS[n % len(KINDS)].__name__.lower()}-{n}" for n in range(self.fsms)]

    def births(self) -> dict[type[Machine[Any]], list[tuple[str, dict[str, Any]]]]:
        """Give the FSMs by machine, each with its first payload."""
        draw = random.Random(f"{self.seed}/births")
        names = self.names()
        ledgers = [name for name in names if name.startswith("ledger")]
        more: dict[type[Machine[Any]], Any] = {
            Chooser: lambda: {"at": "left", "astray": 0},
            Stepper: lambda: {"settled": 0, "astray": 0},
            Post: lambda: {"to": draw.choice(ledgers)},
        }
        found: dict[type[Machine[Any]], list[tuple[str, dict[str, Any]]]] = {kind: [] for kind in KINDS}
        for n, name in enumerate(names):
            kind = KINDS[n % len(KINDS)]
            found[kind].append((name, fresh(**more.get(kind, dict)())))
        return found

    def share(self, producer: int) -> int:
        """Say how many events a producer sends."""
        return self.events // self.producers + (producer < self.events % self.producers)

    def letters(self, producer: int) -> Iterator[tuple[str, int]]:
        """Give the FSM and the number of each event of a producer, in their order."""
        draw = random.Random(f"{self.seed}/producer/{producer}")
        names, counts = self.names(), Counter[str]()
        for _ in range(self.share(producer)):
            name = draw.choice(names)
            counts[name] += 1
            yield name, counts[name]

    def expected(self) -> dict[str, dict[str, int]]:
        """Say how many events each FSM gets, by sender; letters between FSMs too."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.names()}
        for producer in range(self.producers):
            for name, n in self.letters(producer):
                found[name][f"p{producer}"] = n
        for name, payload in self.births()[Post]:
            if count := sum(found[name].values()):
                found[payload["to"]][name] = count
        return found

    def poisoned(self) -> list[str]:
        """Give the ledgers that get an event that kills."""
        ledgers = [name for name in self.names() if name.startswith("ledger")]
        return random.Random(f"{self.seed}/poison").sample(ledgers, min(self.poisons, len(ledgers)))

    def blows(self) -> list[Blow]:
        """Give what happens, in its order."""
        counts: list[tuple[Blow, int]] = [
            ("kill", self.kills),
            ("stop", self.stops),
            ("restart", self.restarts),
            ("cut", self.cuts),
        ]
        found = [blow for blow, count in counts for _ in range(count)]
        random.Random(f"{self.seed}/blows").shuffle(found)
        if "kill" in found:
            # The last one falls on a worker that has no parent, and no other death follows, at which one would look.
            found.remove("kill")
            found.append("kill")
        return found

    def faults(self) -> list[FaultPoint | None]:
        """Give the faults with which workers are started, one after the other; those after them have none."""
        draw = random.Random(f"{self.seed}/faults")
        found: list[FaultPoint | None] = [self._fault(draw, "kill") for _ in range(self.kills // 2)]
        found += [self._fault(draw, "stop") for _ in range(self.stops)]
        found += [None] * (self.kills // 4)
        draw.shuffle(found)
        return found

    def _fault(self, draw: random.Random, action: Literal["kill", "stop"]) -> FaultPoint:
        # About as many commits as a worker lives to see.
        commits = max(3, min(40, self.events // (60 * max(1, self.kills))))
        points = [point for point in get_args(Point) if self.storage or point != "after store"]
        if self.storage:
            # Every third one falls between the two databases.
            points += ["after store"] * 2
        point = draw.choice(points)
        most = 8 * commits if "handler" in point else commits
        return FaultPoint(point, action, nth=draw.randint(2, most))
