"""How long the scripts take does not depend on how many FSMs wait; nor does a sweep that finds all well."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store

# As cheap as it may be: FSMs with what `claim` reads of them, whose mail is a job that has no record.
_FILL = """
local prefix, first, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local scored = {}
for i = first, last do
  local name = 'waits-' .. i
  redis.call('HSET', prefix .. 'snapshot:' .. name, 'machine', 'Ticket', 'state', 'open', 'payload', '{}', 'version', 1,
    'born', i, 'updated_at', 1, 'definition', 'x')
  redis.call('RPUSH', prefix .. 'mailbox:' .. name, 'j' .. i)
  scored[#scored + 1] = i
  scored[#scored + 1] = name
end
redis.call('ZADD', prefix .. 'ready:fsm', unpack(scored))
"""


def fill(store: Store, count: int) -> None:
    """Let so many FSMs wait, behind all that wait already."""
    first = store.redis.incrby(store.keys.ring, count) - count
    script = store.redis.register_script(_FILL)
    for begin in range(first + 1, first + count + 1, 1000):
        script(args=[store.keys.prefix, begin, min(begin + 999, first + count)])


def slowest_ms(store: Store, act: Callable[[], Any]) -> float:
    """How long Redis took for the slowest command of this."""
    store.redis.config_set("slowlog-log-slower-than", 0)
    store.redis.slowlog_reset()
    try:
        act()
    finally:
        store.redis.config_set("slowlog-log-slower-than", -1)
    return max(entry["duration"] for entry in store.redis.slowlog_get(200)) / 1000


@pytest.mark.timeout(600)
def test_claim_send_and_recover_take_no_longer_where_a_hundred_thousand_wait(real_store: Store) -> None:
    # Seen to fail without the bound of `ZRANGE` in `rehang` of recover.lua.
    store, count = real_store, int(os.environ.get("FSM_TEST_BACKLOG", "100_000"))  # a million takes a minute to make
    first, dead = [f"first-{i}" for i in range(128)], [f"dead-{i}" for i in range(200)]
    store.start(*dead)
    store.claim("dead", fsms=200)
    store.lapse(*dead)
    store.idle("rests")
    store.start(*first)
    begin = time.monotonic()
    fill(store, count)
    seconds = time.monotonic() - begin
    took = {
        "claim of 128": slowest_ms(store, lambda: store.claim("w1", fsms=128)),
        "claim by name": slowest_ms(store, lambda: store.claim("w2", name=f"waits-{count // 2}")),
        "send to one that waits": slowest_ms(store, lambda: store.send(f"waits-{count // 3}")),
        "send to one at rest": slowest_ms(store, lambda: store.send("rests")),
        "recover of 200": slowest_ms(store, store.recover),
        "recover, all well": slowest_ms(store, lambda: store.sweep("w1")),
        "recover, RQ's list lost": slowest_ms(store, lambda: store.redis.delete("rq:queue:fsm") and store.sweep("w1")),
    }
    if os.environ.get("FSM_TEST_FIGURES"):
        memory = store.redis.info("memory")["used_memory_human"]
        print(f"\n{count:,} wait, made in {seconds:.1f} s, {memory}; ms: {took}")  # noqa: T201 - asked for

    assert store.redis.zcard(store.keys.ready("fsm")) > count
    assert store.redis.info("memory")["used_memory"] < 1 << 30
    # A hundredfold of what they take; to look at each that waits would take longer by far.
    assert max(took.values()) < 100, took
    store.redis.flushall(asynchronous=True)


def commands_of(store: Store, act: Callable[[], Any]) -> dict[str, int]:
    """What Redis executed for this, by command."""
    store.redis.config_resetstat()
    act()
    stats = store.redis.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): int(stat["calls"])
        for name, stat in stats.items()
        if not name.startswith(("cmdstat_config", "cmdstat_info", "cmdstat_script"))
    }


def test_a_sweep_that_finds_all_well_costs_ten_commands_and_those_without_the_turn_four(real_store: Store) -> None:
    store = real_store
    names = [f"a-{i}" for i in range(500)]
    store.start(*names)
    store.claim(fsms=400)
    store.sweep("w1")  # so that the script is known

    swept = commands_of(store, lambda: store.sweep("w1"))
    waited = commands_of(store, lambda: store.sweep("w2"))

    assert sum(swept.values()) <= 10, swept
    assert sum(waited.values()) <= 5, waited
