"""Who is alive and what waits where: workers, queues and the server, as plans.

The registry keeps no records of its own: who is alive is RQ's registry of workers, who runs what is `claims`, who waits
is `ready`. Reading it costs what is shown, never the number of FSMs.

Who calls this: the command line. It may import `fsm.store` and `fsm.verbs`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsm import verbs
from fsm.engine import checked_name
from fsm.errors import StoreError
from fsm.store import presence
from fsm.store.codec import rq_ms, text, whole
from fsm.store.requests import Request
from fsm.store.server import troubles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsm.store.keys import Keys
    from fsm.verbs import Plan

__all__ = ["Cluster", "QueueView", "WorkerView", "cluster", "waiting"]

_WORKER_FIELDS = (
    "hostname",
    "pid",
    "state",
    "queues",
    "last_heartbeat",
    "successful_job_count",
    "failed_job_count",
    "death",
    "life",
)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker process.

    Args:
        name: Its name.
        host: Host name, "" when not known.
        pid: Process id there, 0 when not known.
        state: RQ's word: "started", "idle", "busy", "suspended"; "silent" after 30 s without a heartbeat.
        queues: Queues it listens on, in its order.
        seen_at: Last heartbeat, aware, UTC; `None` when its record has expired.
        done: Events done, and
        failed: events failed, since its birth.
        holds: FSMs that it has in hand.
        is_ours: False for a stock RQ worker on one of our queues.
    """

    name: str
    host: str = ""
    pid: int = 0
    state: str = ""
    queues: tuple[str, ...] = ()
    seen_at: datetime | None = None
    done: int = 0
    failed: int = 0
    holds: int = 0
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue.

    Args:
        name: Its name.
        ready: FSMs that have mail and no worker.
        failed: Jobs in RQ's registry of failed ones.
        workers: Workers that listen on it.
        oldest_ms: Since when the oldest event of the FSM that is served next waits, ms; `None` when nobody waits.
    """

    name: str
    ready: int
    failed: int
    workers: int
    oldest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace in one Redis.

    Args:
        version: Of Redis, "" where we may not ask.
        memory: Bytes that it uses, 0 where we may not ask.
        alive: FSMs that have not finished.
        held: FSMs that some worker has in hand.
        workers: By name.
        queues: By name, the namespace's own first.
        fsms: Machine -> state -> how many are in it, finished ones included.
        troubles: What is wrong with the server itself, a sentence each, to be read after "Redis".
    """

    version: str
    memory: int
    alive: int
    held: int
    workers: list[WorkerView] = field(default_factory=list)
    queues: list[QueueView] = field(default_factory=list)
    fsms: dict[str, dict[str, int]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def waiting(keys: Keys, name: str) -> Request[int]:
    """Count the events that an FSM has yet to apply."""
    commands = [("LLEN", keys.urgent(checked_name(name))), ("LLEN", keys.mailbox(name))]
    return Request(lambda reply: int(sum(reply)), commands=commands)


def cluster(keys: Keys) -> Plan[Cluster]:
    """Look at server, workers and queues of a namespace."""
    server: dict[str, Any] = {}
    with suppress(StoreError):  # an ACL may forbid INFO; whether Redis can be used at all, the next request says
        server = yield Request(lambda reply: reply, commands=[("INFO",)])
    known = yield verbs.machines(keys)
    counted = yield from verbs.counts(keys)
    finished, held, members, now = yield _many(
        ("ZCARD", keys.finished),
        ("ZCARD", keys.held),
        ("ZRANGE", keys.workers, 0, -1),
        ("TIME",),
    )
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    ours = [text(name) for name in members]
    workers = yield from _workers(keys, ours, now_ms, are_ours=True)
    named = [about.get("queue", keys.default_queue) for about in known.values()]
    names = list(dict.fromkeys([keys.default_queue, *named, *(queue for one in workers for queue in one.queues)]))
    queues, listening = yield from _queues(keys, names)
    strange = [name for name in listening if name not in ours]
    workers += yield from _workers(keys, strange, now_ms, are_ours=False)
    return Cluster(
        str(server.get("redis_version", "")),
        int(server.get("used_memory", 0)),
        sum(sum(states.values()) for states in counted.values()) - int(finished),
        int(held),
        sorted(workers, key=lambda one: one.name),
        queues,
        counted,
        troubles(server),
    )


def _many(*commands: tuple[Any, ...]) -> Request[list[Any]]:
    """Send commands in one round trip; one reply each, also where there is one only."""
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)


def _workers(keys: Keys, names: Sequence[str], now_ms: int, *, are_ours: bool) -> Plan[list[WorkerView]]:
    """Read RQ's records of workers, `now_ms` being the clock of Redis."""
    if not names:
        return []
    records = yield _many(*(("HMGET", keys.rq_worker(name), *_WORKER_FIELDS) for name in names))
    holding = yield _many(*(("HLEN", keys.claims(name)) for name in names))
    beats = yield _many(*(("ZSCORE", keys.workers, name) for name in names))
    found = []
    for name, record, holds, beat in zip(names, records, holding, beats, strict=True):
        host, pid, state, queues, heartbeat, done, failed, death, life = map(text, record)
        # One of ours that was killed is no stranger while RQ's record of it lasts; nor is that of another namespace.
        if death or not (are_ours or (host and not life)):
            continue
        # Ours beat by the clock of Redis; of others there is only what RQ wrote, by the clock of their host.
        seen_ms = rq_ms(heartbeat) if beat is None else int(float(beat))
        is_silent = seen_ms is None or now_ms - seen_ms > presence.SILENT_AFTER_MS
        found.append(
            WorkerView(
                name,
                host,
                whole(pid),
                # A stock worker beats every few minutes only.
                "silent" if is_silent and are_ours else state,
                tuple(filter(None, queues.split(","))),
                None if seen_ms is None else datetime.fromtimestamp(seen_ms / 1000, UTC),
                whole(done),
                whole(failed),
                int(holds),
                are_ours,
            )
        )
    return found


def _queues(keys: Keys, names: Sequence[str]) -> Plan[tuple[list[QueueView], list[str]]]:
    """Count what waits in each queue; and name all workers that listen on any."""
    commands: list[tuple[Any, ...]] = []
    for name in names:
        commands += [
            ("ZCARD", keys.ready(name)),
            ("ZCARD", keys.rq_registry("failed", name)),
            ("SMEMBERS", keys.rq_workers(name)),
            ("ZRANGE", keys.ready(name), 0, 0),
        ]
    replies = yield _many(*commands)
    rows = [replies[i : i + 4] for i in range(0, len(replies), 4)]
    since = yield from _since(keys, [text(row[3][0]) for row in rows if row[3]])
    prefix = len(keys.rq_worker(""))
    listening: list[str] = []
    views = []
    for name, (ready, failed, members, head) in zip(names, rows, strict=True):
        listening += [text(member)[prefix:] for member in members]
        oldest = since.get(text(head[0])) if head else None
        views.append(QueueView(name, int(ready), int(failed), len(members), oldest))
    return views, sorted(set(listening))


def _since(keys: Keys, fsms: Iterable[str]) -> Plan[dict[str, int]]:
    """Say since when the oldest mail of each FSM waits, ms; by the record of its job."""
    names = list(dict.fromkeys(fsms))
    if not names:
        return {}
    heads = yield _many(*(("LINDEX", key(name), 0) for name in names for key in (keys.urgent, keys.mailbox)))
    ids = {name: text(heads[2 * i] or heads[2 * i + 1]) for i, name in enumerate(names)}
    ids = {name: job_id for name, job_id in ids.items() if job_id}
    if not ids:
        return {}
    times = yield _many(*(("HGET", keys.job(job_id), "enqueued_at") for job_id in ids.values()))
    found = {name: rq_ms(text(time)) for name, time in zip(ids, times, strict=True)}
    return {name: ms for name, ms in found.items() if ms is not None}
