"""Who is alive and what waits where: hosts, workers, queues and the server, as plans.

The registry keeps no records of its own: who is alive is in `workers` and `hosts` and in RQ's records, who runs what is
`claims`, who waits is `ready`. Reading it costs what is shown, never the number of FSMs.

Who calls this: the client and the command line. It may import `fsm.store` and `fsm.verbs`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsm import verbs
from fsm.engine import checked_name
from fsm.errors import StoreError
from fsm.store import places, presence
from fsm.store.codec import rq_ms, text, whole
from fsm.store.keys import NAMESPACES
from fsm.store.requests import Request
from fsm.store.server import troubles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fsm.store.keys import Keys
    from fsm.verbs import Plan

__all__ = ["Cluster", "HostView", "QueueView", "WorkerView", "cluster", "waiting"]

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
    "birth",
)
# Of the FSMs that a worker holds, so many are named; and of those that wait, so many are asked for their mail, in all.
_MOST_NAMED = 20
_MOST_ASKED = 1000


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
        holds: FSMs that it has in hand, and
        in_hand: the names of some of them, 20 at most.
        since: When it was born, aware, UTC; `None` when its record has expired.
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
    since: datetime | None = None
    in_hand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostView:
    """One host, as its workers name it.

    Args:
        name: Its name.
        is_live: Whether it is taken to be alive.
        is_draining: It takes no new work.
        until: Until when it is taken to be alive without another heartbeat, aware, UTC; `None` where it has none.
        workers: Worker processes on it.
        holds: FSMs that they have in hand.
    """

    name: str
    is_live: bool
    is_draining: bool = False
    until: datetime | None = None
    workers: int = 0
    holds: int = 0


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue.

    Args:
        name: Its name.
        ready: FSMs that have mail and no worker.
        failed: Jobs in RQ's registry of failed ones.
        workers: Workers that listen on it; of a queue of a single host, those of that host.
        delayed: Jobs in RQ's registry of scheduled ones: events that were sent for later, or are to be tried again.
        mail: Events that wait for those FSMs.
        mail_is_floor: So many FSMs wait that only the first of them were asked: there is more mail than that.
        host: The host to which it belongs, "" where it is open to all.
        oldest_ms: Since when the oldest event of the FSM that is served next waits, ms; `None` when nobody waits.
    """

    name: str
    ready: int
    failed: int
    workers: int
    oldest_ms: int | None = None
    delayed: int = 0
    mail: int = 0
    mail_is_floor: bool = False
    host: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace in one Redis.

    Args:
        version: Of Redis, "" where we may not ask.
        memory: Bytes that it uses, 0 where we may not ask.
        alive: FSMs that have not finished.
        held: FSMs that some worker has in hand.
        timers: What waits for its time: delayed events, retries, timers.
        namespaces: All of this Redis that were ever used, this one included.
        hosts: By name.
        workers: By name.
        queues: By name, the namespace's own first.
        fsms: Machine -> state -> how many are in it, finished ones included.
        troubles: What is wrong with the server itself, a sentence each, to be read after "Redis".
    """

    version: str
    memory: int
    alive: int
    held: int
    timers: int = 0
    namespaces: list[str] = field(default_factory=list)
    hosts: list[HostView] = field(default_factory=list)
    workers: list[WorkerView] = field(default_factory=list)
    queues: list[QueueView] = field(default_factory=list)
    fsms: dict[str, dict[str, int]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def waiting(keys: Keys, name: str) -> Request[int]:
    """Count the events that an FSM has yet to apply."""
    commands = [("LLEN", keys.urgent(checked_name(name))), ("LLEN", keys.mailbox(name))]
    return Request(lambda reply: int(sum(reply)), commands=commands)


def cluster(keys: Keys) -> Plan[Cluster]:
    """Look at server, hosts, workers and queues of a namespace."""
    server: dict[str, Any] = {}
    with suppress(StoreError):  # an ACL may forbid INFO; whether Redis can be used at all, the next request says
        server = yield Request(lambda reply: reply, commands=[("INFO",)])
    namespaces: list[str] = []
    with suppress(StoreError):  # who has rights in one namespace alone may not know of others
        namespaces = yield Request(lambda reply: [text(name) for name in reply], commands=[("SMEMBERS", NAMESPACES)])
    known = yield verbs.machines(keys)
    counted = yield from verbs.counts(keys)
    alive = yield from verbs.count(keys)
    held, timers, members, hosts, draining, placed, now = yield _many(
        ("ZCARD", keys.held),
        ("ZCARD", keys.timers),
        ("ZRANGE", keys.workers, 0, -1),
        ("ZRANGE", keys.hosts, 0, -1),
        ("HKEYS", keys.draining),
        ("SMEMBERS", keys.places),
        ("TIME",),
    )
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    ours = [text(name) for name in members]
    workers = yield from _workers(keys, ours, now_ms, are_ours=True)
    named = [about.get("queue", keys.default_queue) for about in known.values()]
    served = [queue for one in workers for queue in one.queues]
    queues, listening = yield from _queues(
        keys, list(dict.fromkeys([keys.default_queue, *named, *served, *sorted(map(text, placed))]))
    )
    strange = sorted({name for names in listening for name in names if name not in ours})
    workers += yield from _workers(keys, strange, now_ms, are_ours=False)
    awake = [one for one in workers if one.state != "silent"]
    queues = [
        replace(queue, workers=_count(awake, queue, names)) for queue, names in zip(queues, listening, strict=True)
    ]
    until = (yield Request(lambda reply: reply, commands=[("ZMSCORE", keys.hosts, *hosts)])) if hosts else []
    beats = {text(host): int(float(ms)) for host, ms in zip(hosts, until, strict=True) if ms is not None}
    return Cluster(
        str(server.get("redis_version", "")),
        int(server.get("used_memory", 0)),
        alive,
        int(held),
        int(timers),
        sorted({*namespaces, keys.namespace}),
        _hosts(beats, {text(host) for host in draining}, workers, now_ms),
        sorted(workers, key=lambda one: one.name),
        queues,
        counted,
        troubles(server),
    )


def _hosts(
    beats: Mapping[str, int], draining: Collection[str], workers: Iterable[WorkerView], now_ms: int
) -> list[HostView]:
    """Put together what is known of hosts: by their own heartbeats, and by those of the workers on them."""
    there: dict[str, list[WorkerView]] = {host: [] for host in beats}
    for one in workers:
        if one.is_ours and one.host:
            there.setdefault(one.host, []).append(one)
    return [
        HostView(
            host,
            beats[host] > now_ms if host in beats else any(one.state != "silent" for one in on_it),
            host in draining,
            _moment(beats.get(host)),
            len(on_it),
            sum(one.holds for one in on_it),
        )
        for host, on_it in sorted(there.items())
    ]


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


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
    holds_some = yield _many(*(("HSCAN", keys.claims(name), 0, "COUNT", _MOST_NAMED) for name in names))
    found = []
    for name, record, holds, beat, (_, some) in zip(names, records, holding, beats, holds_some, strict=True):
        host, pid, state, queues, heartbeat, done, failed, death, life, birth = map(text, record)
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
                _moment(seen_ms),
                whole(done),
                whole(failed),
                int(holds),
                are_ours,
                _moment(rq_ms(birth)),
                tuple(sorted(map(text, some))[:_MOST_NAMED]),
            )
        )
    return found


def _count(workers: Iterable[WorkerView], queue: QueueView, listening: Collection[str]) -> int:
    """Count who serves a queue: what RQ has noted of it names for some minutes those that were killed, too."""
    base = places.parse(queue.name).base
    # Ours serve the queues of their host beside that of the machine, and do not tell RQ of them.
    return sum(
        one.name in listening or (one.is_ours and bool(queue.host) and one.host == queue.host and base in one.queues)
        for one in workers
    )


def _queues(keys: Keys, names: Sequence[str]) -> Plan[tuple[list[QueueView], list[set[str]]]]:
    """Count what waits in each queue; and name, for each, whom RQ has noted as listening."""
    commands: list[tuple[Any, ...]] = []
    most = max(1, _MOST_ASKED // len(names))
    for name in names:
        commands += [
            ("ZCARD", keys.ready(name)),
            ("ZCARD", keys.rq_registry("failed", name)),
            ("ZCARD", keys.rq_registry("scheduled", name)),
            ("SMEMBERS", keys.rq_workers(name)),
            ("ZRANGE", keys.ready(name), 0, most - 1),
        ]
    replies = yield _many(*commands)
    rows = [replies[i : i + 5] for i in range(0, len(replies), 5)]
    since = yield from _since(keys, [text(row[4][0]) for row in rows if row[4]])
    mail = yield from _mail(keys, [text(name) for row in rows for name in row[4]])
    prefix = len(keys.rq_worker(""))
    views = [
        QueueView(
            name,
            int(ready),
            int(failed),
            0,
            since.get(text(first[0])) if first else None,
            int(delayed),
            sum(mail.get(text(fsm), 0) for fsm in first),
            int(ready) > len(first),
            places.parse(name).host,
        )
        for name, (ready, failed, delayed, _, first) in zip(names, rows, strict=True)
    ]
    return views, [{text(member)[prefix:] for member in row[3]} for row in rows]


def _mail(keys: Keys, fsms: Iterable[str]) -> Plan[dict[str, int]]:
    """Count the mail of each of these FSMs."""
    names = list(dict.fromkeys(fsms))
    if not names:
        return {}
    counts = yield _many(*(("LLEN", key(name)) for name in names for key in (keys.urgent, keys.mailbox)))
    return {name: int(counts[2 * at]) + int(counts[2 * at + 1]) for at, name in enumerate(names)}


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
