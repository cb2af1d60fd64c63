"""Whose a name is: the ring, and the hosts that it is made of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import fakeredis
import pytest

from fsm import Client, ClusterInfo, ConfigError, HashRing, StoreError
from fsm.app import App
from fsm.machine import Machine
from fsm.store import hosts
from fsm.store.hosts import LiveHosts
from fsm.store.keys import Keys
from fsm.store.requests import run

NAMES = [f"order-{n}" for n in range(20_000)]
HOSTS = ["edge-1", "edge-2", "edge-3"]
KEYS = Keys("default")
ASK = """
import random, sys
from fsm import HashRing
hosts = ["edge-1", "edge-2", "edge-3", "höst"]
random.shuffle(hosts)
ring = HashRing(hosts)
print(*(ring.whois(f"order-{n} ä") for n in range(200)))
"""


class Tea(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> cold
        cold --> [*] : drink
    """


class Fixed:
    """A cluster of its own, as applications may have."""

    def nodes(self) -> list[str]:
        return ["edge-9"]

    def whois(self, name: str) -> str | None:
        return None if name == "nobody" else "edge-9"


def test_every_process_gives_the_same_answer_in_whatever_order_it_sees_the_hosts() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", ASK],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }

    assert len(said) == 1
    assert len(set(said.pop().split())) == 4


def test_a_host_that_joins_takes_its_share_and_nothing_else_moves() -> None:
    before, after = HashRing(HOSTS), HashRing([*HOSTS, "edge-4"])

    moved = Counter(after.whois(name) for name in NAMES if before.whois(name) != after.whois(name))

    assert set(moved) == {"edge-4"}
    assert 0.15 < moved["edge-4"] / len(NAMES) < 0.35


def test_shares_are_about_alike() -> None:
    shares = Counter(map(HashRing(HOSTS).whois, NAMES))

    assert set(shares) == set(HOSTS)
    assert all(0.8 < 3 * count / len(NAMES) < 1.2 for count in shares.values())


def test_a_ring_without_hosts_gives_none() -> None:
    assert HashRing([]).whois("order-1") is None
    assert HashRing(lambda: iter(())).nodes() == ()


def test_hosts_are_asked_for_each_time() -> None:
    there = ["edge-2"]
    ring = HashRing(lambda: there)

    assert ring.whois("a") == "edge-2"
    there[:] = ["edge-3", "edge-1", "edge-3"]
    assert ring.nodes() == ("edge-1", "edge-3")
    assert ring.whois("a") in there


def alive(client: Any, **hosts: int) -> None:
    """Note until when hosts are taken to be alive, ms from now."""
    seconds, us = client.time()
    client.zadd(KEYS.hosts, {host: seconds * 1000 + us // 1000 + ms for host, ms in hosts.items()})


def test_hosts_that_are_gone_or_drain_are_not_of_the_ring(fake_redis: fakeredis.FakeRedis) -> None:
    alive(fake_redis, b=60_000, a=60_000, gone=-1, leaving=60_000)
    fake_redis.hset(KEYS.draining, "leaving", 1)

    assert run(fake_redis, hosts.live_hosts(KEYS)) == ("a", "b")


def test_hosts_are_looked_at_once_a_second(fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(hosts.time, "monotonic", lambda: now[0])
    live = LiveHosts(KEYS, lambda request: run(fake_redis, request))

    assert live() == ()
    alive(fake_redis, a=60_000)
    assert live() == ()
    now[0] += 1.0
    assert live() == ("a",)


def test_redis_that_is_away_is_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked, is_away = [100.0], [], True

    def ask(request: Any) -> tuple[str, ...]:
        asked.append(request)
        if is_away:
            raise StoreError("Redis is away")
        return ("a",)

    monkeypatch.setattr(hosts.time, "monotonic", lambda: now[0])
    live = LiveHosts(KEYS, ask)

    # A worker asks for each FSM of a batch: seen to ask three times where only a view was kept, and no failure.
    for _ in range(3):
        with pytest.raises(StoreError, match="the hosts of namespace 'default' are not known: Redis is away"):
            live()
    assert len(asked) == 1
    now[0], is_away = 101.0, False
    assert live() == ("a",)


def test_a_client_says_whose_a_name_is_and_names_the_hosts() -> None:
    with Client("memory://") as client:
        assert client.nodes() == ()
        assert client.whois("order-1") is None
    with Client("memory://", cluster=Fixed()) as client:
        assert client.nodes() == ["edge-9"]
        assert client.whois("order-1") == "edge-9"


def test_a_cluster_is_an_object_with_both_methods() -> None:
    assert isinstance(Fixed(), ClusterInfo)
    assert isinstance(HashRing(HOSTS), ClusterInfo)
    for wrong in ("edge-1", Fixed, object()):
        with pytest.raises(ConfigError, match=r"Client\(cluster=…\): takes an object with nodes\(\) and whois\(name\)"):
            Client("memory://", cluster=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"App\(cluster=…\)"):
            App([Tea], cluster=wrong)  # type: ignore[arg-type]


def test_an_app_with_a_cluster_cannot_be_made_of_its_classes_alone() -> None:
    assert App([Tea]).is_bare
    assert not App([Tea], cluster=Fixed()).is_bare
