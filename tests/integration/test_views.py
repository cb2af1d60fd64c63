"""What is told of a cluster while it works: exact counts, who has what in hand, at a price that does not grow."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, UnknownMachineError
from tests.integration.machines import Journal, Parcel, Slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from tests.integration.conftest import Processes

    Until = Callable[..., Any]


def test_counts_are_exact_while_fsms_move_and_finish(
    processes: Processes, client: Client, redis_url: str, until: Until
) -> None:
    # Seen to fail, with 19 as well, where the states are asked one after the other.
    processes.worker()
    journals = [f"j-{number}" for number in range(20)]
    client.start_many(Journal, journals)
    until(lambda: all(client.state(name).version for name in journals))
    seen: set[int] = set()
    drawn: set[str | None] = set()
    is_over = threading.Event()

    def look() -> None:
        with Client(redis_url) as other:
            while not is_over.is_set():
                seen.add(other.count(Journal))
                drawn.add(other.random(Journal))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(10):
            client.transition_many([(name, "note", number) for name in journals for number in range(10)])
        client.start_many(Parcel, [(f"p-{number}", None) for number in range(20)])
        client.transition_many([(f"p-{number}", "pack", {}) for number in range(20)])
        until(lambda: client.count(Parcel) == 0 and all(len(client.state(name).payload) == 100 for name in journals))
    finally:
        is_over.set()
        looking.join()

    # 2,000 moves between two states, and never one more or one less.
    assert seen == {20}
    assert drawn <= set(journals)
    assert (client.count(), client.count(finished=True), client.count("Parcel", "home", finished=True)) == (20, 40, 20)
    # One that comes late is told the same.
    with Client(redis_url) as late:
        assert late.count() == 20
        assert set(late.all()) == set(client.all()) == set(journals)
        assert late.counts()["Parcel"]["home"] == 20


def test_it_is_told_who_has_an_fsm_in_hand_and_since_when_its_worker_lives(
    processes: Processes, client: Client, until: Until, tmp_path: Path
) -> None:
    slow = client.start_fsm(Slow, "slow")
    client.start_fsm(Journal, "rests")
    processes.worker("--name", "packer")
    until(lambda: slow.state().version == 1 and client.state("rests").version == 1)
    slow.transition("hold", str(tmp_path / "go on"))
    until(lambda: client.all(host=socket.gethostname()))

    page, cluster = client.all(), client.cluster()

    (worker,) = cluster.workers
    assert (page["slow"].worker, page["slow"].host) == (worker.name, worker.host)
    assert worker.host == socket.gethostname()
    assert (page["rests"].worker, page["rests"].host) == ("", "")
    assert page["slow"].waiting == 1
    assert list(client.all(host=worker.host)) == ["slow"]
    assert (worker.holds, worker.in_hand) == (1, ("slow",))
    assert worker.since is not None
    assert worker.seen_at is not None
    assert abs((worker.seen_at - worker.since).total_seconds()) < 60
    (host,) = cluster.hosts
    assert (host.name, host.is_live, host.workers, host.holds) == (worker.host, True, 1, 1)
    assert (cluster.alive, cluster.namespaces) == (2, ["default"])
    (tmp_path / "go on").touch()
    until(lambda: slow.state().version == 2)


# Made by Redis itself, so that many cost little.
MAKE = """
for i = 1, tonumber(ARGV[1]) do
  local name = 'f-' .. i
  redis.call('HSET', 'fsm:default:snapshot:' .. name, 'machine', 'Journal', 'state', 'even', 'updated_at', i)
  redis.call('ZADD', 'fsm:default:state:Journal:even', i, name)
  redis.call('ZADD', 'fsm:default:ready:fsm', i, name)
end
"""


def commands(raw_redis: redis.Redis) -> int:
    stats: Any = raw_redis.info("commandstats")
    return sum(int(one["calls"]) for name, one in stats.items() if not name.endswith("info"))


def test_a_look_at_the_whole_takes_as_many_commands_with_many_fsms_as_with_few(
    client: Client, raw_redis: redis.Redis
) -> None:
    client.start_fsm(Journal, "one")
    asked = []
    for many in (2000, 20_000):
        raw_redis.eval(MAKE, 0, many)
        before = commands(raw_redis)
        cluster = client.cluster()
        client.count()
        client.random()
        client.all()
        asked.append(commands(raw_redis) - before)
        assert (cluster.alive, cluster.queues[0].mail_is_floor) == (many + 1, True)

    # A page may have some names more or less.
    assert abs(asked[1] - asked[0]) < 100
    assert asked[1] < 3000


def test_what_is_no_machine_is_refused(client: Client) -> None:
    wrong: Any = 7
    for ask in (client.count, client.random, client.all):
        with pytest.raises(UnknownMachineError):
            ask(wrong)
