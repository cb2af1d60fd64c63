"""A worker without a process, over fakeredis: it claims, runs and commits when a test tells it to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fsm import Machine, Settings, Transition, enter, on
from fsm.engine import Behaviour
from fsm.store import calls, commits
from fsm.store.codec import read_snapshot
from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import read_log, standing, view
from workers.activation import Activation
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    import redis

    from fsm.store.codec import Snapshot

T = Transition[dict[str, Any]]
KEYS = Keys("default")


class Parcel(Machine):
    settings = Settings(max_attempts=2, refused={"lose": "ignore"})
    diagram = """
    stateDiagram-v2
        [*] --> open : begin
        open --> open : put
        open --> packed : pack
        packed --> sent : send!
        sent --> lost : lose
        sent --> sent : ask?
        lost --> lost : put
        sent --> [*] : deliver
        lost --> [*] : find
    """

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.broken = ""
        self.poison: list[Any] = []

    def _note(self, t: T) -> None:
        self.seen.append(t.event)
        if t.event == self.broken:
            problem = "as told"
            raise ValueError(problem)

    def on_start(self, t: T) -> None:
        self._note(t)

    @on("put")
    def put(self, t: T, data: Any) -> None:
        self._note(t)
        if data in self.poison:
            raise KeyboardInterrupt  # its worker dies
        t.meta["seen"] = object()
        t.payload.setdefault("items", []).append(data)

    @on("send")
    def send(self, t: T) -> None:
        self._note(t)

    @on("ask")
    def ask(self, t: T) -> None:
        self._note(t)

    @on("deliver")
    def deliver(self, t: T) -> None:
        self._note(t)

    @enter("lost")
    def report(self, t: T) -> None:
        t.send("office", "lost", {"name": t.name})


class Office:
    """Claims, runs, commits; and edits by hand what it finds."""

    def __init__(self, redis: redis.Redis) -> None:
        self.redis = redis
        self.machine = Parcel()
        self.behaviour = Behaviour(self.machine)
        self.number = 0

    def start(self, name: str = "p") -> str:
        """Start a parcel; gives the id of its entry event."""
        job_id = f"entry-{name}"
        assert run(self.redis, calls.start(KEYS, Parcel.definition, [calls.Birth(name, job_id, b"{}")])) == ["CREATED"]
        return job_id

    def send(self, *events: str, name: str = "p", **more: Any) -> list[str]:
        """Send events, with their number as data; gives their ids."""
        ids = [f"{event}-{number}" for number, event in enumerate(events)]
        letters = [
            calls.Letter(name, job_id, job_id.split("-")[0], job_id.split("-")[1].encode(), **more) for job_id in ids
        ]
        assert run(self.redis, calls.send(KEYS, letters)) == ["SENT"] * len(ids)
        return ids

    def turn(self, *, seconds: float = 10.0) -> list[str]:
        """Claim, run, commit; gives the verdicts."""
        self.number += 1
        claims = run(
            self.redis, calls.claim(KEYS, "w", "fsm", f"token-{self.number}", self.number, lease_ms=10_000, fsms=10)
        )
        executor = InlineExecutor(timed=False)
        blocks = [
            executor.run(
                Activation(self.behaviour, fsm, KEYS, executor, claims.at_ms).run(time.monotonic() + seconds),
                is_async=False,
            )
            for fsm in claims.held
        ]
        self.number += 1
        return run(self.redis, commits.commit(KEYS, "w", self.number, 10_000, claims.at, blocks))

    def edit(self, job_id: str, **fields: Any) -> None:
        """Edit a job's record by hand."""
        self.redis.hset(KEYS.job(job_id), mapping=fields)

    def snapshot(self, name: str = "p") -> Snapshot:
        return read_snapshot(name, self.redis.hgetall(KEYS.snapshot(name)), "fsm")

    def standing(self, job_id: str) -> str:
        return standing(run(self.redis, view(KEYS, job_id)))

    def log(self) -> list[dict[str, Any]]:
        return [line for _, line in run(self.redis, read_log(KEYS, "0-0"))]

    def mailbox(self, name: str = "p") -> list[str]:
        return [job_id.decode() for job_id in self.redis.lrange(KEYS.mailbox(name), 0, -1)]
