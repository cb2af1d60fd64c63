"""The ceiling: what Redis takes for the commands of one transition, with nothing around them.

They are those that a worker needs by the promises made (lock, snapshot, mail, record, index, registries, log), one FSM
at a time, as plain commands in one long pipeline: packed before the clock runs, sent while the replies of the portion
before are still to be read. No script, no check, no decision; a batch shares the log's entry only. So it is what a
perfect client would get that did nothing but send; whoever is above it saves commands by taking many FSMs together.

Who calls this: `bench.throughput`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hiredis
import orjson
import redis

from bench import meter
from bench.machine import new_payload
from bench.worker import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Ceiling", "measure", "redis_benchmark"]

_BATCH = 128
_MANY = 30_000
_READ = 1 << 20
_NOW = "2026-01-01T00:00:00.000000Z"
_PAYLOAD = orjson.dumps(new_payload())
_RESULT = '{"state":"right","version":2,"reply":null}'

Command = tuple[str | int | bytes, ...]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one half of a transition takes.

    Args:
        per_s: Transitions a second, by the clock.
        redis_us: Processor time of the server for one.
        commands: How many one takes, the share of what a batch shares not counted.
    """

    per_s: float
    redis_us: float
    commands: int


def measure(url: str, port: int, transitions: int = _MANY) -> tuple[Ceiling, Ceiling]:
    """Measure sending, and then claim and commit of what was sent, in a database that is flushed before and after.

    Raises:
        BenchError: Redis refused a command: what was measured is not the work.
    """
    client = redis.Redis.from_url(url)
    database = int(client.get_connection_kwargs().get("db") or 0)
    client.flushdb()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(transitions):
            snapshot = {"machine": "Pendulum", "state": "left", "payload": _PAYLOAD, "version": 1, "born": 1}
            pipeline.hset(f"snapshot:fsm-{number:06d}", mapping=snapshot)
            pipeline.zadd("state:Pendulum:left", {f"fsm-{number:06d}": 1})
        pipeline.execute()
    halves = (_send, _work)
    found = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _carry(line, [_pack([("SELECT", database)])], [1])
        for half in halves:
            portions, counts = [], []
            for first in range(0, transitions, _BATCH):
                commands = list(half(range(first, min(first + _BATCH, transitions))))
                portions.append(_pack(commands))
                counts.append(len(commands))
            server = meter.server_us(client)
            begin = time.perf_counter()
            _carry(line, portions, counts)
            seconds = time.perf_counter() - begin
            server = meter.server_us(client) - server
            found.append(Ceiling(transitions / seconds, server / transitions, sum(counts) // transitions))
    if client.exists("mailbox:fsm-000000") or client.zcard("state:Pendulum:right") != transitions:
        message = "the commands of the ceiling did not do the work: look into bench/ceiling.py"
        raise BenchError(message)
    client.flushdb()
    client.close()
    return found[0], found[1]


def _send(numbers: Sequence[int]) -> Iterator[Command]:
    for number in numbers:
        name, job = f"fsm-{number:06d}", f"job-{number:012d}"
        data = f'["workers.jobs.transition",null,["bench","{name}","swing",null],{{}}]'
        yield ("HMGET", f"snapshot:{name}", "status", "born", "queue", "machine")
        yield (
            "HSET", f"rq:job:{job}", "created_at", _NOW, "enqueued_at", _NOW, "data", data, "status", "queued",
            "origin", "fsm.bench", "description", f"{name}: swing", "timeout", 180, "result_ttl", 60,
            "fsm", name, "ns", "bench", "born", 1, "event", "swing", "place", "mail",
        )  # fmt: skip
        yield ("RPUSH", f"mailbox:{name}", job)
        yield ("INCR", "ring")
        yield ("ZADD", "ready", number, name)
        yield ("RPUSH", "rq:queue:fsm.bench", job)


def _work(numbers: Sequence[int]) -> Iterator[Command]:
    for number in numbers:
        name, job = f"fsm-{number:06d}", f"job-{number:012d}"
        yield ("ZPOPMIN", "ready")
        yield ("LPOP", "rq:queue:fsm.bench")
        yield ("HMGET", f"snapshot:{name}", "machine", "state", "payload", "version", "status", "born", "history")
        yield ("LRANGE", f"mailbox:{name}", 0, 99)
        yield ("HMGET", f"rq:job:{job}", "event", "data", "place", "status", "born", "meta", "asked")
        yield ("SET", f"lock:{name}", "worker/0123456789abcdef", "NX", "PX", 15000)
        yield ("HSET", "claims:worker", name, "0123456789abcdef")
        yield ("ZADD", "held", 1, name)
        yield ("GET", f"lock:{name}")
        yield (
            "HSET", f"snapshot:{name}", "state", "right", "payload", _PAYLOAD, "version", 2, "history", '["left"]',
            "updated_at", 1,
        )  # fmt: skip
        yield ("ZREM", "state:Pendulum:left", name)
        yield ("ZADD", "state:Pendulum:right", 2, name)
        yield ("LPOP", f"mailbox:{name}")
        yield (
            "HSET", f"rq:job:{job}", "status", "finished", "started_at", _NOW, "ended_at", _NOW, "place", "done",
            "result", _RESULT, "worker_name", "worker",
        )  # fmt: skip
        yield ("ZADD", "rq:finished:fsm.bench", 1, job)
        yield ("UNLINK", f"lock:{name}")
        yield ("ZREM", "held", name)
        yield ("HDEL", "claims:worker", name)
    line = f'["fsm-{numbers[0]:06d}","Pendulum","swing","left","right",2,"job-{numbers[0]:012d}","worker",0]'
    yield ("XADD", "log", "MAXLEN", "~", 100_000, "*", "entries", "[" + ",".join([line] * len(numbers)) + "]")


def _pack(commands: Sequence[Command]) -> bytes:
    return b"".join(hiredis.pack_command(command) for command in commands)


def _carry(line: socket.socket, portions: Sequence[bytes], counts: Sequence[int]) -> None:
    """Send all portions, each before the replies of the one before are read, and read all replies."""
    reader = hiredis.Reader()
    line.sendall(portions[0])
    for number, count in enumerate(counts):
        if number + 1 < len(portions):
            line.sendall(portions[number + 1])
        read = 0
        while read < count:
            reply = reader.gets()
            if reply is False:
                reader.feed(line.recv(_READ))
                continue
            if isinstance(reply, hiredis.ReplyError):
                raise BenchError(f"Redis refused a command of the ceiling: {reply}")
            read += 1


def redis_benchmark(port: int, requests: int) -> float | None:
    """Ask Redis's own `redis-benchmark` for HSETs a second, 16 in a pipeline; `None` where it is not on PATH."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return None
    done = subprocess.run(  # noqa: S603 - our own command, no shell
        [program, "-p", str(port), "-n", str(requests), "-r", "30000", "-P", "16", "-t", "hset", "--csv"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    name, per_s = done.stdout.splitlines()[-1].replace('"', "").split(",")[:2]
    if not name.startswith("HSET"):
        raise BenchError(f"redis-benchmark answered what is not understood: {done.stdout.strip()}")
    return float(per_s)
