"""Hosts as real processes: what they are called, their effects workers, and what a drain does to them."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, UnknownHostError
from tests.integration.effect_machines import Desk
from tests.integration.machines import Journal, Slow
from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from fsm.store.embedded import EmbeddedServer
    from tests.integration.conftest import Processes

    Until = Callable[..., Any]

HOSTS = "fsm:default:hosts"
EFFECTS = "tests.integration.effect_machines"


def crew(raw_redis: redis.Redis, host: str) -> list[str]:
    """Workers of a host."""
    members: Any = raw_redis.zrange(f"fsm:default:crew:{host}", 0, -1)
    return [member.decode().partition(" ")[2] for member in members]


def field(raw_redis: redis.Redis, worker: str, name: str) -> str:
    value: Any = raw_redis.hget(f"rq:worker:{worker}", name)
    return (value or b"").decode()


def beside(raw_redis: redis.Redis) -> list[str]:
    """Workers for effects."""
    members: Any = raw_redis.smembers("rq:workers")
    names = sorted(member.decode().removeprefix("rq:worker:") for member in members)
    return [name for name in names if "-effects-" in name]


def test_two_hosts_on_one_machine_are_told_apart_and_so_are_their_workers_for_effects(
    processes: Processes, raw_redis: redis.Redis, until: Until
) -> None:
    processes.environment["FSM_HOST"] = "edge-1"
    processes.worker("--processes", "2", effects=True)
    processes.worker("--host", "edge-2")
    processes.worker("--host", "edge-2", "--name", "joe")

    until(lambda: len(crew(raw_redis, "edge-1")) == len(crew(raw_redis, "edge-2")) == 2)
    [effects] = until(lambda: beside(raw_redis))
    assert sorted(raw_redis.zrange(HOSTS, 0, -1)) == [b"edge-1", b"edge-2"]
    ones, twos = crew(raw_redis, "edge-1"), crew(raw_redis, "edge-2")
    assert [name.startswith("edge-1-") for name in (*ones, effects)] == [True] * 3
    assert "joe" in twos
    hostnames = {name: field(raw_redis, name, "hostname") for name in (*ones, *twos, effects)}
    assert hostnames == dict.fromkeys((*ones, effects), "edge-1") | dict.fromkeys(twos, "edge-2")


def test_as_many_effects_run_at_once_as_are_wanted_and_each_is_run_again_whose_worker_is_killed(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until, tmp_path: Path
) -> None:
    # Seen to fail with one process for effects: the second waited for the first, which waited for it.
    desk = client.start_fsm(Desk, "desk")
    worker = processes.worker("--app", EFFECTS, "--effects", "2", effects=True)
    books = [tmp_path / name for name in ("one", "two")]
    for book in books:
        desk.call("ask", {"func": "meet", "args": [str(book), *map(str, books)]}, timeout=30)

    assert until(lambda: len(desk.state().payload) == 2 and desk.state().payload) == [["done", "met"]] * 2

    desk.call("ask", {"func": "die_once", "args": [str(tmp_path / "dies"), "worker"]}, timeout=30)
    assert until(lambda: len(desk.state().payload) == 3 and desk.state().payload[2]) == ["done", 2]
    # The other one goes on, and in the place of the one that died there is a third.
    until(lambda: len(beside(raw_redis)) >= 2)

    naps = [tmp_path / f"nap {number}" for number in (1, 2)]
    for nap in naps:
        desk.call("ask", {"func": "nap", "args": [str(nap), 1]}, timeout=30)
    until(lambda: all(nap.exists() for nap in naps))
    worker.terminate()
    output, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, output
    assert [len(nap.read_text("utf-8").splitlines()) for nap in naps] == [2, 2]


def test_a_host_that_drains_under_load_ends_in_order_and_the_others_go_on(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until, tmp_path: Path
) -> None:
    # Seen to fail without `tell_drain` in the ward: the workers of a host that has several never ended.
    host = processes.worker("--processes", "2", "--host", "edge-1", "--lease", "1m")
    alone = processes.worker("--host", "edge-1", "--lease", "1m")
    other = processes.worker("--host", "edge-2", "--lease", "1m")
    names = [f"journal-{number}" for number in range(20)]
    client.start_many(Journal, names)
    slow = client.start_fsm(Slow, "slow")
    until(lambda: len(crew(raw_redis, "edge-1")) == 3 and crew(raw_redis, "edge-2"))
    until(lambda: slow.state().version == 1)
    go_on = tmp_path / "go on"
    held = slow.transition("hold", str(go_on))
    until(lambda: raw_redis.get("fsm:default:lock:slow"))
    is_over = threading.Event()
    sent = 0

    def load() -> None:
        nonlocal sent
        with Client(client.url, namespace="default") as mine:
            while not is_over.is_set():
                mine.transition_many([(name, "note", sent) for name in names])
                sent += 1
                is_over.wait(0.02)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        until(lambda: sent > 5)
        left = client.drain("edge-1", timeout=2)
        # The one that has the slow one in hand may be that of the other host.
        assert len(left.left) <= 1, left
        go_on.touch()
        assert client.drain("edge-1", timeout=30).is_done if left.left else left.is_done
        since = sent
        until(lambda: sent > since + 5)
    finally:
        is_over.set()
        loading.join()
    outputs = [process.communicate(timeout=30)[0] for process in (host, alone)]

    assert [host.returncode, alone.returncode] == [0, 0], outputs
    assert "another one starts" not in "".join(outputs)
    assert held.result(30).ok
    until(lambda: all(client.state(name).version == 1 + sent for name in names), 60)
    assert all(client.state(name).payload == list(range(sent)) for name in names)
    assert other.poll() is None
    assert sorted(raw_redis.zrange(HOSTS, 0, -1)) == [b"edge-2"]
    assert not raw_redis.exists("fsm:default:draining", "fsm:default:crew:edge-1")
    assert all(
        worker.startswith("edge-2-") for worker in map(bytes.decode, raw_redis.zrange("fsm:default:workers", 0, -1))
    )
    with pytest.raises(UnknownHostError, match="alive are edge-2"):
        client.drain("edge-1")

    # Started anew, it serves again: nobody has to take back the drain.
    os.kill(other.pid, signal.SIGTERM)
    processes.worker("--host", "edge-1")
    assert client.transition("journal-0", "note", 7).result(30).ok


def test_a_drain_is_heard_when_redis_is_back(
    processes: Processes, client: Client, raw_redis: redis.Redis, redis_server: EmbeddedServer, until: Until
) -> None:
    with Proxy(redis_server.url.removeprefix("unix://")) as proxy:
        workers = [processes.worker("--url", proxy.url, "--host", "edge", *more) for more in ((), ("--processes", "1"))]
        until(lambda: len(crew(raw_redis, "edge")) == 2)
        proxy.is_cut = True
        until(lambda: proxy.refused > 3)
        assert len(client.drain("edge", timeout=0).left) == 2
        proxy.is_cut = False

        outputs = [worker.communicate(timeout=30)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert not raw_redis.exists(HOSTS, "fsm:default:draining")
