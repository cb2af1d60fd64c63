"""`python -m bench.persistence [--json] [--save]`: what it costs to keep things, and how fast they come back.

**A transition, by storage.** A worker drains a backlog of `bench.persistence_machines.Kept`, an event each, with the
payload in Redis, in the memory of the worker (what a storage costs beside a database), in a file of SQLite and in a
PostgreSQL of the benchmark's own, both of which sync what they commit. With `--batch 100` a claim's FSMs share a
transaction, with `--batch 1` each has its own. `redis_us` is Redis's scripts, `worker_us` the processor time of the
worker; what the database uses beside that is in the time of the row only.

**Sends, by durability.** `transition` one by one and by eight threads, and `transition_many`, to Redis as it is
configured by default (`memory`), to an embedded one that syncs before it replies (`fsync`), and to one with a replica
that must have it (`replicas:1`). What the disk alone gives is beside it: a file, to which a kilobyte is added and
synced, again and again.

**Backups.** FSMs at rest, with payloads of which no two are alike, are saved from one Redis and restored into another,
which is empty; so are such that have mail. Each restore is counted, and a sample of it held against what was saved.
`redis_us` and `python_us` are processor time of that Redis and of this process, threads included: where processors are
busy with something else, they tell more than the rate. A process that only saves tells how much memory it had at most,
with few FSMs and with thirty times as many.

**Queries.** Among a million FSMs of two machines, some of which have finished or failed, the caller waits for a page of
100 for each filter that is served by an index: the first page, and those behind nine tenths of what there is to find.
One filter that no index serves is beside them, and finds nobody.

Who calls this: the person who measures, and a test in a small form.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import TYPE_CHECKING, Any, Self

from bench import arrivals, meter, postgres, suite
from bench.lane import QUIET, Lane, numbered
from bench.machine import EVENT, FIRST_COUNT, Pendulum
from bench.persistence_machines import MEMORY, PLACE, Errand, Kept, storage_at, why_none
from bench.suite import Result, Row
from bench.worker import ROOT, BenchError
from fsm import Client
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["main", "measure"]

# A rewrite of the append-only file takes a core for seconds, at whichever round it falls into.
_OPTIONS = {"auto-aof-rewrite-percentage": "0", "hash-max-ziplist-value": "1024"}
_APP = "bench.persistence_machines"
_FSMS = 1_000_000
_SMALL = 100
# Size of a claim -> FSMs that have an event.
_BATCHES = {100: 4000, 1: 400}
_ONE_BY_ONE = 500
_THREADS = 8
_MANY = 10_000
_SYNCS = 200
_REPLICA_S = 30.0
# Saved and restored: at rest, and with events that wait.
_SAVED = 200_000
_WITH_MAIL, _EVENTS_EACH = 20_000, 5
# Of so many it is told how much memory a process has at most that saves them.
_FEW_SAVED, _MORE_SAVED = 10_000, 300_000
_SAVER = """
import re, sys
from pathlib import Path
from fsm import Client
with Client(sys.argv[1], namespace="bench") as client:
    client.backup(sys.argv[2], max_snapshots=0)
# Not of getrusage: that counts the process that started this one, too.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
_SAMPLE = 500
_PORTION = 5000
_PAGE = 100
_WALK = 1000
_LOOKS, _FEW_LOOKS = 100, 5
# Of a page that one would have to leaf to: behind so much of what there is to find.
_DEEP = 0.9
# Of all FSMs, the shares that are on the right, have finished, and have failed; the others are on the left.
_RIGHT, _FINISHED, _FAILED = 0.25, 0.10, 0.05
_US, _PER_S, _FSMS_PER_S, _MS = "µs", "events a second", "FSMs a second", "ms"
_MB = "MB"
# Each is served by an index.
_FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "machine": {"machine": "Pendulum"},
    "state": {"state": "left"},
    "machine, state": {"machine": "Pendulum", "state": "right"},
    "status finished": {"status": "finished"},
    "failed": {"failed": True},
    "in state longer than": {"in_state_longer_than": "0.1s"},
}
_UNSERVED = "status paused"


# What a transition costs, by storage


def _transitions(options: argparse.Namespace, stack: ExitStack) -> tuple[list[Row], dict[str, float], dict[str, str]]:
    places, missing = _places(stack)
    lanes: dict[tuple[str, int], tuple[Lane, list[str]]] = {}
    costs: dict[tuple[str, int], dict[str, list[float]]] = {}
    server = stack.enter_context(EmbeddedServer(_OPTIONS))
    with ExitStack() as inner:
        for batch, count in list(_BATCHES.items())[: 1 if options.small else None]:
            for place, url in places.items():
                lane = Lane(
                    server.url,
                    f"{place}-{batch}",
                    Kept,
                    app=_APP,
                    options=(*QUIET, "--batch", str(batch)),
                    environment={PLACE: url} if url else {},
                    storage=inner.enter_context(storage_at(url)) if url not in ("", MEMORY) else None,
                )
                lanes[place, batch] = inner.enter_context(lane), numbered("fsm", count // _part(options))
        for key, (lane, names) in lanes.items():
            lane.await_workers()
            lane.populate(names)
            costs[key] = {"redis_us": [], "worker_us": []}
            # The worker's connections and the database's pages are warm, and each FSM has its row.
            lane.drain(names)
        values = suite.in_turn(
            {
                f"{place}, batch {batch}": lambda lane=lane, names=names, cost=costs[place, batch]: _drain(
                    lane, names, cost
                )
                for (place, batch), (lane, names) in lanes.items()
            },
            options.rounds,
        )
        suite.say(f"checked: {sum(lane.check() for lane, _ in lanes.values()):,} events were applied")
    rows = [
        Row(
            f"a transition, {place}",
            {"batch": batch, "FSMs": len(lanes[place, batch][1])},
            values[f"{place}, batch {batch}"],
            {name: round(median(found), 1) for name, found in costs[place, batch].items() if found},
            unit=_US,
        )
        for place, batch in lanes
    ]
    figures = {
        f"transition_us_{place}_{batch}": round(median(values[f"{place}, batch {batch}"]), 1) for place, batch in lanes
    }
    return rows, figures, missing


def _places(stack: ExitStack) -> tuple[dict[str, str], dict[str, str]]:
    """Give the URL of each storage, "" for Redis itself, and say which is missing and why."""
    places, missing = {"redis": "", "memory": MEMORY}, {}
    why = why_none()
    if why:
        return places, {"sqlite": why, "postgres": why}
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsm-bench-"))
    places["sqlite"] = f"sqlite:///{directory}/fsm.db"
    programs = postgres.programs()
    if programs is None:
        missing["postgres"] = "this machine has no PostgreSQL: no initdb was found"
    else:
        suite.say("starting a PostgreSQL")
        places["postgres"] = stack.enter_context(postgres.Postgres(programs)).url
    for url in set(places.values()) - {"", MEMORY}:
        with storage_at(url) as storage:
            storage.init()
    return places, missing


def _drain(lane: Lane, names: Sequence[str], cost: dict[str, list[float]]) -> float:
    """Let a worker apply an event of each, and give the µs of one; note what Redis and the worker spent."""
    redis, worker = lane.client.redis, lane.worker
    lane.hold()
    ids = lane.send(names)
    scripts, used = meter.script_us(redis), worker.cpu_us()
    lane.work_off()
    cost["redis_us"].append((meter.script_us(redis) - scripts) / len(names))
    now = worker.cpu_us()
    if used is not None and now is not None:
        cost["worker_us"].append((now - used) / len(names))
    spans = meter.take_spans(redis, ids)
    meter.drop_traces(redis, lane.client.keys)
    return 1e6 / meter.rate(spans)


# What a send costs, by durability


class _Sender:
    """Sends with one durability to FSMs at rest; each measure gives events a second.

    Nobody works them off: each measure has FSMs of its own, and all is dropped before the next.

    Args:
        lane: Of a Redis that can do it, without workers.
        part: 1, or by how much everything is made smaller.
    """

    def __init__(self, lane: Lane, part: int) -> None:
        self._lane = lane
        self._part = part

    def one_by_one(self) -> float:
        transition = self._lane.client.transition
        names = numbered("fsm", _ONE_BY_ONE // self._part)
        return self._timed(names, lambda: [transition(name, EVENT) for name in names])

    def threads(self) -> float:
        transition = self._lane.client.transition
        names = numbered("fsm", 2 * _ONE_BY_ONE // self._part)
        with ThreadPoolExecutor(_THREADS) as pool:
            ready = Barrier(_THREADS)
            list(pool.map(lambda _: (ready.wait(), self._lane.client.redis.ping()), range(_THREADS)))

            def send(number: int) -> None:
                for name in names[number::_THREADS]:
                    transition(name, EVENT)

            return self._timed(names, lambda: list(pool.map(send, range(_THREADS))))

    def many(self) -> float:
        names = numbered("fsm", _MANY // self._part)
        return self._timed(names, lambda: self._lane.send(names))

    def _timed(self, names: Sequence[str], send: Callable[[], object]) -> float:
        redis, keys = self._lane.client.redis, self._lane.client.keys
        redis.flushall()
        self._lane.populate(names)
        begin = time.perf_counter()
        send()
        took = time.perf_counter() - begin
        if (there := redis.zcard(keys.ready(keys.default_queue))) != len(names):
            raise BenchError(f"{len(names)} FSMs were sent an event, and {there} have mail: the figures mean nothing")
        return len(names) / took


def _sends(options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    part = _part(options)
    with ExitStack() as stack:
        plain, safe = (stack.enter_context(EmbeddedServer(_OPTIONS)) for _ in range(2))
        copied = stack.enter_context(_with_replica())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsm-bench-")))
        senders = {}
        for durability, url in (
            ("memory", plain.url), ("fsync", f"embedded://{safe.directory}"), ("replicas:1", copied.url),
        ):  # fmt: skip
            lane = stack.enter_context(Lane(url, workers=0, durability=durability))
            senders[durability] = _Sender(lane, part)
        candidates: dict[str, Callable[[], float]] = {}
        for durability, sender in senders.items():
            candidates[f"transition, {durability}"] = sender.one_by_one
            candidates[f"transition, 8 threads, {durability}"] = sender.threads
            candidates[f"transition_many, {durability}"] = sender.many
        values = suite.in_turn({**candidates, "fdatasync": lambda: _syncs(directory, _SYNCS // part)}, options.rounds)
    rows, figures = [], {}
    ways = (
        ("transition", {"threads": 1, "events": _ONE_BY_ONE // part}, "single"),
        ("transition, 8 threads", {"threads": _THREADS, "events": 2 * _ONE_BY_ONE // part}, "threads"),
        ("transition_many", {"threads": 1, "events": _MANY // part}, "bulk"),
    )
    for way, setting, figure in ways:
        for durability in senders:
            row = Row(way.partition(",")[0], {"durability": durability, **setting}, values[f"{way}, {durability}"])
            row.unit = _PER_S
            rows.append(row)
            figures[f"{figure}_{durability.replace(':', '_')}_per_s"] = round(row.median)
    disk = Row("fdatasync of 1 KB", {"durability": "the disk alone", "threads": 1, "events": _SYNCS // part},
               values["fdatasync"], unit=_PER_S)  # fmt: skip
    return [*rows, disk], figures | {"fdatasync_per_s": round(disk.median)}


class _with_replica:  # noqa: N801 - used as a function, in a `with`
    """A server that listens on a port of this host, and another that is its replica."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            first = stack.enter_context(EmbeddedServer({**_OPTIONS, "port": str(port), "bind": "127.0.0.1"}))
            second = stack.enter_context(EmbeddedServer(_OPTIONS))
            with connect(second.url) as replica:
                replica.execute_command("REPLICAOF", "127.0.0.1", str(port))
                deadline = time.monotonic() + _REPLICA_S
                while replica.info("replication")["master_link_status"] != "up":
                    if time.monotonic() > deadline:
                        raise BenchError(f"the replica has no link to 127.0.0.1:{port} after {_REPLICA_S:g} s")
                    time.sleep(0.02)
            self.url = first.url
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()


def _syncs(directory: Path, count: int) -> float:
    with (directory / "synced").open("ab", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(count):
            file.write(bytes(1024))
            os.fdatasync(file.fileno())
        return count / (time.perf_counter() - begin)


# How fast FSMs are saved and restored


class _Vault:
    """FSMs in one Redis, a directory for their backup, and an empty Redis into which they are restored.

    Args:
        stack: Ends all of it.
        fsms: How many.
        events: That wait for each.
    """

    def __init__(self, stack: ExitStack, fsms: int, events: int) -> None:
        source, target = (stack.enter_context(EmbeddedServer(_OPTIONS)) for _ in range(2))
        self._source = stack.enter_context(Client(source.url, namespace="bench"))
        self._target = stack.enter_context(Client(target.url, namespace="bench"))
        self._directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsm-bench-"))
        self._names = numbered("fsm", fsms)
        _start(self._source, self._names, "left")
        for _ in range(events):
            for part in _portions(self._names):
                _all_taken(self._source.transition_many([(name, EVENT) for name in part], machine=Pendulum))
        self.more: dict[str, dict[str, list[float]]] = {
            kind: {"redis_us": [], "python_us": []} for kind in ("save", "restore")
        }
        self.size = 0.0

    def save(self) -> float:
        rate = self._timed("save", self._source, lambda: self._source.backup(self._directory).fsms)
        file = next(Path(self._directory).glob("*.gz"))
        self.size = file.stat().st_size / len(self._names)
        return rate

    def restore(self) -> float:
        self._target.redis.flushall()
        rate = self._timed("restore", self._target, lambda: self._target.restore(self._directory).restored)
        self._check()
        return rate

    def _timed(self, kind: str, client: Client, work: Callable[[], int]) -> float:
        count = len(self._names)
        server, python, begin = meter.server_us(client.redis), time.process_time(), time.perf_counter()
        done = work()
        took = time.perf_counter() - begin
        self.more[kind]["python_us"].append(1e6 * (time.process_time() - python) / count)
        self.more[kind]["redis_us"].append((meter.server_us(client.redis) - server) / count)
        if done != count:
            raise BenchError(f"{kind}: it should be {count} FSMs, and says {done}: the figures mean nothing")
        return count / took

    def _check(self) -> None:
        """Hold a sample of what is there against what was saved: snapshots and mail."""
        keys = self._source.keys
        sample = random.sample(self._names, min(_SAMPLE, len(self._names)))
        states = []
        for client in (self._source, self._target):
            with client.redis.pipeline(transaction=False) as pipeline:
                for name in sample:
                    pipeline.hgetall(keys.snapshot(name))
                    pipeline.lrange(keys.mailbox(name), 0, -1)
                states.append(pipeline.execute())
        if states[0] != states[1]:
            raise BenchError("what was restored is not what was saved: the figures mean nothing")


def _backups(options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    part = _part(options)
    with ExitStack() as stack:
        vaults = {}
        for fsms, events in ((_SAVED, 0), (_WITH_MAIL, _EVENTS_EACH)):
            suite.say(f"starting {fsms // part:,} FSMs to be saved, {events} events each")
            vaults[fsms // part, events] = _Vault(stack, fsms // part, events)
        candidates: dict[str, Callable[[], float]] = {}
        for (fsms, events), vault in vaults.items():
            for kind, work in (("save", vault.save), ("restore", vault.restore)):
                candidates[f"{kind}, {fsms:,} FSMs, {events} events each"] = work
        values = suite.in_turn(candidates, options.rounds)
    rows = []
    for kind in ("save", "restore"):
        for (fsms, events), vault in vaults.items():
            more = {name: round(median(found), 1) for name, found in vault.more[kind].items()}
            if kind == "save":
                more["bytes an FSM in the file"] = round(vault.size)
            found = values[f"{kind}, {fsms:,} FSMs, {events} events each"]
            rows.append(Row(kind, {"FSMs": fsms, "events each": events}, found, more, unit=_FSMS_PER_S))
    of = {(row.name, row.setting["events each"]): row for row in rows}
    return rows, {
        "saved_per_s": round(of["save", 0].median),
        "restored_per_s": round(of["restore", 0].median),
        "saved_with_mail_per_s": round(of["save", _EVENTS_EACH].median),
        "restored_with_mail_per_s": round(of["restore", _EVENTS_EACH].median),
        "saved_redis_us": of["save", 0].more["redis_us"],
        "saved_python_us": of["save", 0].more["python_us"],
        "restored_redis_us": of["restore", 0].more["redis_us"],
        "restored_python_us": of["restore", 0].more["python_us"],
    }


def _peaks(options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """Measure how much memory a process has at most that saves few FSMs, and many."""
    rows: list[Row] = []
    with (
        EmbeddedServer(_OPTIONS) as server,
        Client(server.url, namespace="bench") as client,
        tempfile.TemporaryDirectory(prefix="fsm-bench-") as directory,
    ):
        there = 0
        for fsms in (_FEW_SAVED // _part(options), _MORE_SAVED // _part(options)):
            _start(client, numbered("fsm", fsms)[there:], "left")
            there = fsms
            command = [sys.executable, "-c", _SAVER, server.url, directory]
            # In kilobytes.
            peaks = [
                int(subprocess.check_output(command, cwd=ROOT)) / 1024  # noqa: S603 - our own words
                for _ in range(options.rounds)
            ]
            rows.append(Row("a process that saves, at most", {"FSMs": fsms}, peaks, unit=_MB))
    return rows, {"save_peak_few_mb": round(rows[0].median, 1), "save_peak_more_mb": round(rows[1].median, 1)}


def _start(client: Client, names: Sequence[str], state: str) -> None:
    """Start FSMs at rest, with payloads of 100 bytes of which no two are alike: what is packed is not all the same."""
    draw = random.Random(state)
    for part in _portions(names):
        births = [(name, {"count": FIRST_COUNT, "note": f"{draw.getrandbits(292):073x}"}) for name in part]
        _all_taken(client.start_many(Pendulum, births, state=state))


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _PORTION):
        yield names[first : first + _PORTION]


def _all_taken(verdicts: Sequence[Any]) -> list[str]:
    for verdict in verdicts:
        if verdict.error is not None:
            raise verdict.error
    return [verdict.job_id for verdict in verdicts]


# How long a query takes


def _queries(options: argparse.Namespace) -> tuple[list[Row], dict[str, float], str]:
    """Measure pages of 100 among all FSMs."""
    count, looks, walk = (1000, _FEW_LOOKS, _PAGE) if options.small else (options.fsms, _LOOKS, _WALK)
    with (
        EmbeddedServer(_OPTIONS) as server,
        Lane(server.url, "many", Errand, app=_APP, options=(*QUIET, "--log-level", "error")) as lane,
    ):
        suite.say(f"starting {count:,} FSMs to be found")
        _populate(lane, count)
        pages = {name: _Pages(lane.client, filters, looks) for name, filters in _FILTERS.items()}
        for name, its in pages.items():
            suite.say(f"{name}: leafed through {its.leaf(walk):,} FSMs")
        unserved = _Pages(lane.client, {"status": "paused"}, looks)
        candidates: dict[str, Callable[[], float]] = {_UNSERVED: unserved.first}
        for name, its in pages.items():
            candidates[f"{name}, first"] = its.first
            candidates[f"{name}, deep"] = its.deep
        values = suite.in_turn(candidates, options.rounds)
        version = str(lane.client.redis.info("server")["redis_version"])
    rows, figures = [], {}
    size = "million" if count == _FSMS else "largest"
    for page in ("first", "deep"):
        for name, its in pages.items():
            row = Row(name, {"FSMs": count, "page": page}, values[f"{name}, {page}"], its.more(page), unit=_MS)
            rows.append(row)
            figures[f"{size}_{name.replace(', ', '_').replace(' ', '_')}_{page}_ms"] = round(row.median, 2)
    figures[f"{size}_query_page_ms"] = round(max(row.median for row in rows), 2)
    rows.append(
        Row(_UNSERVED, {"FSMs": count, "page": "first"}, values[_UNSERVED], unserved.more("first"),
            note="no index serves it: 1,000 are looked at, and it finds nobody", unit=_MS)
    )  # fmt: skip
    return rows, figures, version


def _populate(lane: Lane, count: int) -> None:
    """Have FSMs of two machines: those of one rest, those of the other have finished or failed."""
    right, finished, failed = (round(count * share) for share in (_RIGHT, _FINISHED, _FAILED))
    names = numbered("fsm", count - finished - failed)
    _start(lane.client, names[:-right], "left")
    _start(lane.client, names[-right:], "right")
    lane.await_workers()
    errands = numbered("errand", finished + failed)
    for part in _portions(errands):
        _all_taken(lane.client.start_many(Errand, [(name, {"count": 0}) for name in part], state="open"))
    for part, event in ((errands[:finished], "finish"), (errands[finished:], "stumble")):
        for portion in _portions(part):
            lane.hold()
            ids = _all_taken(lane.client.transition_many([(name, event) for name in portion], machine=Errand))
            lane.work_off()
            lane.forget(ids)
    keys, redis = lane.client.keys, lane.client.redis
    there = redis.zcard(keys.finished_of("Errand", "done")), redis.zcard(keys.errors("Errand"))
    if there != (finished, failed):
        raise BenchError(f"{finished} should have finished and {failed} failed, and it is {there}")


class _Pages:
    """Asks for pages of 100 with some filters.

    Args:
        client: Asks.
        filters: What it asks for.
        looks: How often, in a round.
    """

    def __init__(self, client: Client, filters: dict[str, Any], looks: int) -> None:
        self._client = client
        self._filters = filters
        self._looks = looks
        self._took: dict[str, list[float]] = {"first": [], "deep": []}
        self._deep = ""

    def leaf(self, walk: int) -> int:
        """Go to where the deep pages are, so many FSMs at a time, and give how many there were to find."""
        cursors, count, cursor = [""], 0, ""
        while True:
            page = self._client.query(**self._filters, limit=walk, cursor=cursor)
            count += len(page)
            if not (cursor := page.cursor):
                break
            cursors.append(cursor)
        # Not the last: what is behind it may be less than a page.
        self._deep = cursors[min(int(_DEEP * len(cursors)), max(0, len(cursors) - 2))]
        return count

    def first(self) -> float:
        """Ask for the first page again and again, and give the median of the ms."""
        return self._measure("first", lambda: self._client.query(**self._filters, limit=_PAGE))

    def deep(self) -> float:
        """Ask for one page after the other from where it is deep."""
        cursor = self._deep

        def turn() -> None:
            nonlocal cursor
            page = self._client.query(**self._filters, limit=_PAGE, cursor=cursor)
            cursor = page.cursor if len(page) == _PAGE and page.cursor else self._deep

        return self._measure("deep", turn)

    def more(self, page: str) -> dict[str, Any]:
        """Give the percentiles of all rounds."""
        return {"p99_ms": round(arrivals.percentile(sorted(self._took[page]), 99), 2)}

    def _measure(self, page: str, ask: Callable[[], object]) -> float:
        took = []
        for _ in range(self._looks):
            begin = time.perf_counter()
            ask()
            took.append(1000 * (time.perf_counter() - begin))
        self._took[page] += took
        return median(took)


def _part(options: argparse.Namespace) -> int:
    return _SMALL if options.small else 1


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fsms", type=int, default=_FSMS, help=f"among how many it queries ({_FSMS:,})")


def measure(options: argparse.Namespace) -> Result:
    """Run it all, on servers of its own.

    Raises:
        BenchError: A worker is stuck, or what was kept is not what is there.
        StoreError: There is no server program.
    """
    with ExitStack() as stack:
        rows, figures, missing = _transitions(options, stack)
    for measured in (_sends, _backups, _peaks):
        more, also = measured(options)
        rows += more
        figures |= also
    more, also, version = _queries(options)
    return Result("see rows", rows + more, figures | also, version, missing)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables, or one JSON object and nothing else."""
    suite.main("persistence", "Measure what it costs to keep things.", measure, arguments, options=_options)


if __name__ == "__main__":
    main()
