"""`python -m bench.overhead [--json] [--save]`: what one transition costs Redis and Python, and which part how much.

Two sizes: 30,000 FSMs with one event each (each transition pays for a lock and a snapshot of its own) and 1,000 FSMs
with ten each. A round of a size has two phases, each with the counters of Redis set back before: *send*, while the
worker is held by SIGSTOP, and *drain*, in which it claims and commits all of it, and nobody sends.

Redis, in µs a transition:

- scripts: `usec` of EVALSHA in INFO commandstats, all that is called in them included. That is the target's figure,
  send + claim + commit. Which script it was tells the slow log, which notes each EVALSHA of more than 50 µs.
- each command that scripts call: its `usec` and calls, by phase. Redis reads the clock twice for each of them, so these
  are a little too high. What is left of the scripts is Lua itself, and the way from it to the commands and back.
- processor time in all, from INFO cpu: sockets, parsing, append-only file and scripts, and what wakes up in between.

The first three are times by the clock, and only on a quiet machine the same as processor time: where all cores are
busy with something else, what Redis waits for one is among them, and they may be more than the fourth.

What the worker asks once a second (heartbeats, who is dead, what is due), is among the commands: a few calls a drain.

Python: processor time of the worker by its `/proc/<pid>/stat`, in drains in which nothing looks over its shoulder; and
who is charged with it, by the samples of `bench.sampler` in further drains. Values of these rows are shares of all
samples times the median of the processor time.

Memory, among the figures: `idle_fsm_bytes` for an FSM at rest, with a payload of 100 bytes, a name of 10, and as many
states in its history as it keeps; `job_record_bytes` for a finished job: its record and its share of RQ's registry and
of our list of ended jobs, without the log, which is capped. These are differences of what Redis says it uses; what
MEMORY USAGE says of their parts stands beside them. Figures that end in `plain` are those with Redis's own
`hash-max-listpack-value`, 64, in the place of the 1,024 that docs/running.md recommends.

Redis keeps keys and members of sorted sets in tables that double when they are full, and hardly ever shrink. So only
some of these FSMs have mail at a time, for at rest is who has none; and there are as many of them as fill a table by
three quarters, which is what tables that grow are filled by in the mean.

A table of rows has two ways to share out `Redis: scripts`: by script, and by command with Lua itself.

Who calls this: the person who measures, and a test in a small form.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import meter, sampler, suite
from bench.lane import Lane, numbered
from bench.machine import Pendulum
from bench.suite import Result, Row
from bench.worker import BenchError
from fsm.store.embedded import EmbeddedServer
from fsm.store.requests import script

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import redis

__all__ = ["main", "measure"]

_LARGE, _SMALL = 30_000, 1000
_EVENTS_OF_SMALL = 10
# Three quarters of 32,768 places in a table; a share at a time, what comes and goes fits into the rest. The plain ones
# come when the table of keys has grown for the rounds, and so they are some bytes too small.
_AT_REST, _PLAIN = 24_000, 10_000
_SHARES, _LEAST_SHARE = 24, 100
_PART = 100
_SLOW_US, _NEVER_SLOW = 50, -1
# As many drains of the small size go to one sampling, so that it has as many samples as the large one.
_SAMPLED = {1: 1, _EVENTS_OF_SMALL: 3}
# What this benchmark asks itself: none of them is called by send, claim or commit.
_OURS = frozenset(
    ("info", "config", "slowlog", "multi", "exec", "zcount", "evalsha", "eval", "script", "ping", "client")
)
# Below this, in µs a transition, a command is summed up with its like.
_LEAST_US = 0.05
_TOP = 5
_RECOMMENDED, _REDIS_OWN = 1024, 64
_LOOKED_AT = 100


class _Size:
    """One size, and what its rounds gave; all in µs a transition, but for the calls.

    Args:
        fsms: How many.
        events: For each of them.
    """

    def __init__(self, fsms: int, events: int) -> None:
        self.fsms = fsms
        self.events = events
        self.scripts: list[dict[str, float]] = []
        self.commands: list[dict[str, tuple[float, float]]] = []
        self.server: list[float] = []
        self.python: list[float] = []
        self.samples: Counter[sampler.Stack] = Counter()

    @property
    def setting(self) -> dict[str, Any]:
        return {"FSMs": self.fsms, "events each": self.events}

    def redis_us(self) -> float:
        """Give the µs in scripts."""
        return median(one["all"] for one in self.scripts)

    def calls(self) -> float:
        """Give the commands a transition."""
        return median(sum(calls for calls, _ in one.values()) for one in self.commands)

    def rows(self) -> list[Row]:
        """Lay it out: scripts, Redis in all, commands by phase, the worker in all, and who is charged there."""
        rows = [Row("Redis: scripts", self.setting, [one["all"] for one in self.scripts], note="send + claim + commit")]
        rows += [
            Row(f"Redis: script {name}", self.setting, [one[name] for one in self.scripts])
            for name in ("send", "claim", "commit", "others")
        ]
        rows.append(Row("Redis: Lua itself", self.setting, [one["lua"] for one in self.scripts]))
        rows.append(Row("Redis: processor time in all", self.setting, self.server, note="INFO cpu"))
        rows += self._command_rows()
        if self.python:
            rows.append(Row("Python: worker in all", self.setting, self.python, note="processor time"))
        return rows + self._sample_rows()

    def _command_rows(self) -> list[Row]:
        names = {name for one in self.commands for name in one}
        nothing = (0.0, 0.0)
        us = {name: [one.get(name, nothing)[1] for one in self.commands] for name in names}
        calls = {name: median(one.get(name, nothing)[0] for one in self.commands) for name in names}
        rows, rest = [], []
        for name in sorted(names, key=lambda name: (name.partition(": ")[0] != "send", -median(us[name]))):
            if median(us[name]) < _LEAST_US:
                rest.append(name)
                continue
            more = {"calls": round(calls[name], 3), "us_a_call": round(median(us[name]) / max(calls[name], 1e-9), 2)}
            rows.append(Row(name, self.setting, us[name], more))
        if rest:
            sums = [sum(us[name][number] for name in rest) for number in range(len(self.commands))]
            more = {"calls": round(sum(calls[name] for name in rest), 3), "which": " ".join(sorted(rest))}
            rows.append(Row("all other commands", self.setting, sums, more))
        return rows

    def _sample_rows(self) -> list[Row]:
        total = self.samples.total()
        if not total or not self.python:
            return []
        us = median(self.python)
        rows = []
        for group, functions in sampler.by_group(self.samples).items():
            top = {name: round(us * count / total, 2) for name, count in functions.most_common(_TOP)}
            more = {"samples": functions.total(), "share": round(functions.total() / total, 3), "us_by_function": top}
            rows.append(Row(f"Python: {group}", self.setting, [us * functions.total() / total], more))
        return rows


def _round(lane: Lane, names: Sequence[str], size: _Size) -> None:
    """Send and drain once, and note what it cost."""
    redis, worker = lane.client.redis, lane.worker
    mail = list(names[: size.fsms]) * size.events
    lane.hold()
    python, server = worker.cpu_us(), meter.server_us(redis)
    redis.config_set("slowlog-log-slower-than", _SLOW_US)
    _set_back(redis)
    ids = lane.send(mail)
    sent, sent_scripts = _commands(redis), _scripts(redis)
    _set_back(redis)
    lane.work_off()
    drained, drained_scripts = _commands(redis), _scripts(redis)
    redis.config_set("slowlog-log-slower-than", _NEVER_SLOW)
    redis.slowlog_reset()
    count = len(ids)
    size.server.append((meter.server_us(redis) - server) / count)
    if python is not None:
        size.python.append(((worker.cpu_us() or python) - python) / count)
    size.commands.append(
        {
            f"{phase}: {name}": (calls / count, us / count)
            for phase, stats in (("send", sent), ("drain", drained))
            for name, (calls, us) in stats.items()
        }
    )
    scripts = {name: sent_scripts[name] + drained_scripts[name] for name in ("all", "send", "claim", "commit")}
    scripts["others"] = scripts["all"] - sum(scripts[name] for name in ("send", "claim", "commit"))
    scripts["lua"] = scripts["all"] - sum(us for stats in (sent, drained) for _, us in stats.values())
    size.scripts.append({name: us / count for name, us in scripts.items()})
    # It raises where one has not ended: then nothing of this is true.
    meter.take_spans(redis, ids)
    lane.forget([])


def _set_back(redis: redis.Redis) -> None:
    redis.config_resetstat()
    redis.slowlog_reset()


def _commands(redis: redis.Redis) -> dict[str, tuple[int, float]]:
    """Give calls and µs of each command since the counters were set back, but for the scripts, and our own."""
    stats = {name.removeprefix("cmdstat_"): one for name, one in redis.info("commandstats").items()}
    return {
        name.upper(): (one["calls"], float(one["usec"]))
        for name, one in stats.items()
        if name.partition("|")[0] not in _OURS
    }


def _scripts(redis: redis.Redis) -> dict[str, float]:
    """Give the µs of all scripts since the counters were set back, and of those that the slow log names."""
    us = {"all": meter.script_us(redis), "send": 0.0, "claim": 0.0, "commit": 0.0}
    named = {script(name)[1].encode(): name for name in ("send", "claim", "commit")}
    for entry in redis.slowlog_get(-1):
        words = entry["command"].split(maxsplit=2)
        if words[0].upper() == b"EVALSHA" and words[1] in named:
            us[named[words[1]]] += entry["duration"]
    return us


def _sample(url: str, names: Sequence[str], size: _Size) -> None:
    """Send and drain with a worker that notes where it is."""
    with tempfile.TemporaryDirectory(prefix="fsm-bench-") as folder:
        path = Path(folder, "samples.json")
        with Lane(url, program=("-m", "bench.sampler", str(path))) as lane:
            for _ in range(_SAMPLED[size.events]):
                ids = lane.send(list(names[: size.fsms]) * size.events)
                lane.work_off()
                lane.forget(ids)
        if not path.exists():
            raise BenchError("the worker that was to note where it is left no samples: did it end in order?")
        size.samples.update(sampler.read(path))


def _memory(lane: Lane, names: Sequence[str], listpack: int) -> dict[str, float]:
    """Start FSMs, and give the bytes of one that rests, and of one finished job, each with what it is made of."""
    redis, keys = lane.client.redis, lane.client.keys
    # Redis 7 has another name for it and still takes this one. Only what is written from now on heeds it.
    redis.config_set("hash-max-ziplist-value", listpack)
    share = max(len(names) // _SHARES, _LEAST_SHARE)
    parts = [names[first : first + share] for first in range(0, len(names), share)]
    before = meter.settled_memory(redis)
    for part in parts:
        lane.rest(part)
        # The present state is none of those that the history keeps.
        ids = lane.send(list(part) * (Pendulum.settings.history - 1))
        lane.work_off()
        lane.forget(ids)
    idle = meter.settled_memory(redis)
    some = names[:: max(1, len(names) // _LOOKED_AT)]
    index = [keys.state(Pendulum.__name__, state) for state in ("left", "right")]
    snapshot = _usage(redis, *map(keys.snapshot, some)) / len(some)
    in_index = _usage(redis, *index) / sum(redis.zcard(key) for key in index)
    ids = []
    for part in parts:
        ids += lane.send(part)
        lane.work_off()
    # No part of a job's record: the one is capped, the other holds ids for RQ's eyes, and is emptied in time.
    redis.unlink(keys.log, keys.rq_list(keys.default_queue))
    ended = meter.settled_memory(redis)
    some = ids[:: max(1, len(ids) // _LOOKED_AT)]
    found = {
        "idle_fsm_bytes": (idle - before) / len(names),
        "idle_fsm_snapshot_bytes": snapshot,
        "idle_fsm_index_bytes": in_index,
        "job_record_bytes": (ended - idle) / len(names),
        "job_record_hash_bytes": _usage(redis, *map(keys.job, some)) / len(some),
        "job_record_registry_bytes": _usage(redis, keys.rq_registry("finished", keys.default_queue)) / len(ids),
        "job_record_ended_bytes": _usage(redis, keys.ended) / len(ids),
    }
    lane.forget(ids)
    return {name: round(size) for name, size in found.items()}


def _usage(redis: redis.Redis, *names: str) -> int:
    """Give the bytes of these keys; all members are looked at."""
    return sum(redis.memory_usage(name, samples=0) or 0 for name in names)


def measure(options: argparse.Namespace) -> Result:
    """Run it all, on a Redis of its own.

    Raises:
        BenchError: Something did not end, or a worker is stuck.
        StoreError: There is no server program.
    """
    part = _PART if options.small else 1
    names, plain = numbered("fsm", _LARGE // part), numbered("plain", _PLAIN // part)
    at_rest = _AT_REST // part
    sizes = [_Size(len(names), 1), _Size(_SMALL // part, _EVENTS_OF_SMALL)]
    # The slow log is on only while somebody reads it: what it keeps is memory too.
    server_options = {
        "auto-aof-rewrite-percentage": "0", "slowlog-log-slower-than": str(_NEVER_SLOW), "slowlog-max-len": "100000",
    }  # fmt: skip
    with EmbeddedServer(server_options) as server:
        with Lane(server.url) as lane:
            suite.say(f"starting {len(names):,} FSMs")
            # Scripts, registration and buffers are there before memory is read for the first time.
            lane.rest(["warm-up"])
            memory = _memory(lane, names[:at_rest], _RECOMMENDED)
            suite.say(f"{memory['idle_fsm_bytes']:,} bytes an FSM, {memory['job_record_bytes']:,} a finished job")
            lane.rest(names[at_rest:])
            for number in range(options.rounds):
                for size in sizes:
                    _round(lane, names, size)
                    suite.say(f"round {number + 1}, {size.fsms:,} FSMs: {size.scripts[-1]['all']:.1f} µs in scripts")
            memory |= {f"{name}_plain": size for name, size in _memory(lane, plain, _REDIS_OWN).items()}
            lane.client.redis.config_set("hash-max-ziplist-value", _RECOMMENDED)
            version = str(lane.client.redis.info("server")["redis_version"])
        for number in range(options.rounds):
            for size in sizes:
                _sample(server.url, names, size)
                suite.say(f"sampling {number + 1}, {size.fsms:,} FSMs: {size.samples.total():,} samples")
    one, ten = sizes
    rows = [row for size in sizes for row in size.rows()]
    figures = {
        "redis_us_1": round(one.redis_us(), 1),
        "redis_us_10": round(ten.redis_us(), 1),
        "redis_cpu_us_1": round(median(one.server), 1),
        "redis_cpu_us_10": round(median(ten.server), 1),
        "commands_per_transition_1": round(one.calls(), 2),
        "commands_per_transition_10": round(ten.calls(), 2),
        **memory,
    }
    if one.python and ten.python:
        figures |= {"python_us_1": round(median(one.python), 1), "python_us_10": round(median(ten.python), 1)}
    return Result("µs a transition", rows, figures, version)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table, or one JSON object and nothing else."""
    suite.main("overhead", "Measure what one transition costs Redis and Python.", measure, arguments)


if __name__ == "__main__":
    main()
