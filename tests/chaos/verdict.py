"""What is wrong at the end: by the FSMs' own payloads, by the log, and by what is left in Redis."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from tests.chaos.machines import FAILS, pass_over
from tests.chaos.witness import Track

if TYPE_CHECKING:
    from redis import Redis

    from fsm.storage.sql import SqlStorage
    from fsm.store.keys import Keys
    from tests.chaos.plan import Plan
    from tests.chaos.witness import Witness


class Verdict:
    """Counts of what is wrong, and what exactly.

    Attributes:
        counts: `lost`, `twice`, `disorder` (out of order), `astray` (a handler saw what cannot be), `versions` and
            `log` (they disagree), `left` (locks, claims, mail), `abandoned` (innocents), `other`.
        faults: One sentence each.
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.faults: list[str] = []

    def blame(self, kind: str, what: str, count: int = 1) -> None:
        """Note something that is wrong."""
        if count:
            self.counts[kind] += count
            self.faults.append(f"{kind}: {what} ({count})")


def judge(
    plan: Plan, client: Redis, keys: Keys, witness: Witness, verdict: Verdict, storage: SqlStorage | None = None
) -> int:
    """Look at everything; gives how many events were applied, by the payloads."""
    applied = 0
    rows = storage.load_many(keys.namespace, list(plan.expected())) if storage else {}
    for name, expected in plan.expected().items():
        fields: Any = client.hgetall(keys.snapshot(name))
        snapshot = {field.decode(): value for field, value in fields.items()}
        payload = orjson.loads(rows[name].payload if name in rows else snapshot.get("payload", b"{}"))
        if storage:
            # Both say the same, once all is done; and one that had no event has been entered at least.
            there = (rows[name].version, rows[name].state) if name in rows else None
            if there != (int(snapshot["version"]), snapshot["state"].decode()):
                verdict.blame("versions", f"{name} is {there} in the storage")
        track = witness.tracks.get(name, Track())
        applied += payload["count"]
        _judge_payload(plan, name, expected, payload, track, verdict)
        _judge_log(plan, name, expected, track, verdict)
        version = int(snapshot["version"])
        if version != track.version or snapshot["state"].decode() != track.state:
            now = f"{name} has version {version}, state {snapshot['state'].decode()}"
            verdict.blame("versions", f"{now}; the log ended with {track.version}, {track.state}")
        for field in ("status", "tries", "owes", "retry_at", "paused"):
            if field in snapshot:
                verdict.blame("left", f"{name} has {field} {snapshot[field].decode()}")
    for line in witness.strange:
        verdict.blame("abandoned" if "innocent" in line else "other", line)
    for name, count in (Counter(plan.poisoned()) - Counter(witness.abandoned)).items():
        verdict.blame("lost", f"{name} never got rid of its poison", count)
    for name, count in (Counter(witness.abandoned) - Counter(plan.poisoned())).items():
        verdict.blame("twice", f"{name} was abandoned more than once", count)
    return applied


def _judge_payload(
    plan: Plan, name: str, expected: dict[str, int], payload: Any, track: Track, verdict: Verdict
) -> None:
    fails = name.startswith("shaky") and not plan.retries
    for by, n in expected.items():
        if fails:
            # As if there were one more: that the last one failed is known by then only.
            pass_over(payload, by, n + 1)
        verdict.blame("lost", f"{name}, the last events of {by}", max(0, n - payload["last"].get(by, 0)))
    verdict.blame("lost", f"{name}, {payload['missing']}", sum(map(len, payload["missing"].values())))
    verdict.blame("twice", name, payload["twice"])
    verdict.blame("disorder", name, payload["disorder"])
    verdict.blame("astray", name, payload.get("astray", 0))
    verdict.blame("astray", f"{name} was migrated again", max(0, payload.get("migrated", 0) - 1))
    if plan.deploy and payload.get("migrated", 0) != track.migrated:
        verdict.blame("astray", f"{name} was migrated {payload.get('migrated')} times, {track.migrated} by the log")
    verdict.blame("astray", f"{name}, hard events", abs(payload.get("settled", payload["count"]) - payload["count"]))
    count = sum(n - (n // FAILS if fails else 0) for n in expected.values())
    if payload["count"] != count and not verdict.faults:
        verdict.blame("lost" if payload["count"] < count else "twice", f"{name} counts {payload['count']}, not {count}")


def _judge_log(plan: Plan, name: str, expected: dict[str, int], track: Track, verdict: Verdict) -> None:
    for fault in track.faults[:3]:
        verdict.blame("log", f"{name}: {fault}")
    seen = track.seen
    verdict.blame("twice", f"{name} by the log", seen["twice"])
    verdict.blame("disorder", f"{name} by the log", seen["disorder"])
    missing = sum(map(len, seen["missing"].values()))
    for by, n in expected.items():
        if by.startswith("p") and by[1:].isdigit():  # letters between FSMs carry no meta
            missing += max(0, n - seen["last"].get(by, 0))
    verdict.blame("lost", f"{name} by the log", missing)


def left(client: Any, keys: Keys) -> dict[str, int]:
    """Count what nobody may leave behind: all of it is 0 once everything is done."""
    found = Counter[str](locks=0, claims=0, held=0, ready=0, mail=0, hands=0, pending=0)
    found["held"] = client.zcard(keys.held)
    patterns = {
        "locks": keys.lock("*"),
        "claims": keys.claims("*"),
        "mail": keys.mailbox("*"),
        "urgent": keys.urgent("*"),
        "hands": keys.hand("*"),
        "ready": keys.ready("*"),
    }
    for what, pattern in patterns.items():
        found["mail" if what == "urgent" else what] += sum(1 for _ in client.scan_iter(pattern, 1000))
    ids = list(client.scan_iter(keys.job("*"), 1000))
    for first in range(0, len(ids), 1000):
        with client.pipeline(transaction=False) as pipeline:
            for job in ids[first : first + 1000]:
                pipeline.hget(job, "place")
            found["pending"] += sum(place == b"mail" for place in pipeline.execute())
    return dict(found)
