"""FSMs on certain hosts: that which the ring names, or that to which they are pinned. Each worker here is a host."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, verbs
from tests.integration.placed_machines import Everything, Gauge, Lamp, Valve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.integration.conftest import Processes

    Until = Callable[..., Any]

MACHINES = "tests.integration.placed_machines:"
LEASE_S = 2.0
NAMES = [f"g{n}" for n in range(24)]


class Hosts:
    """Hosts of one worker each."""

    def __init__(self, processes: Processes, client: Client, until: Until) -> None:
        self._processes = processes
        self._client = client
        self._until = until

    def start(self, *names: str, app: str = "", options: Iterable[str] = ()) -> list[subprocess.Popen[str]]:
        """Start them, and wait until all of them are seen."""
        app = MACHINES.rstrip(":") if not app else MACHINES + app
        options = ("--app", app, "--lease", f"{LEASE_S:g}s", "--batch", "32", *options)
        started = [self._processes.worker("--host", name, *options) for name in names]
        # The client looks once a second; so do they.
        self._until(lambda: set(names) <= {host.decode() for host in self._client.redis.zrange(self._hosts, 0, -1)})
        return started

    @property
    def _hosts(self) -> str:
        return self._client.keys.hosts


@pytest.fixture
def hosts(processes: Processes, client: Client, until: Until) -> Hosts:
    return Hosts(processes, client, until)


def send(client: Client, names: Iterable[str], numbers: Iterable[int], event: str = "note") -> None:
    verdicts = client.transition_many([(name, event, number) for number in numbers for name in names])
    assert all(verdict.ok for verdict in verdicts)


def done(client: Client, names: Iterable[str], count: int) -> bool:
    return all(len(client.state(name).payload) >= count for name in names)


def runs(client: Client) -> dict[str, list[str]]:
    """Name the hosts that ran each FSM, in order."""
    found: dict[str, list[str]] = {}
    for line in client.log():
        hosts, host = found.setdefault(line["name"], []), line["worker"].rsplit("-", 2)[0]
        if hosts[-1:] != [host]:
            hosts.append(host)
    return found


def why(client: Client, name: str) -> str:
    return client.do(verbs.why(client.keys, name))


def test_the_ring_says_who_runs_an_fsm_however_it_began(client: Client, hosts: Hosts, until: Until) -> None:
    hosts.start("edge-a", "edge-b", options=("--queue", "fsm", "--queue", "valves"))
    until(lambda: client.nodes() == ("edge-a", "edge-b"))

    assert all(verdict.ok for verdict in client.start_many(Gauge, NAMES))
    client.start_many(Valve, ["v1", "v2", "v3"])
    client.start_fsm(Lamp, "lamp")
    client.transition("g0", "hatch", "child-of-g0")
    client.transition("late", "note", 0, start=Gauge)
    send(client, NAMES, range(5))
    until(lambda: done(client, NAMES, 5))
    until(lambda: client.exists("child-of-g0"))
    others = ["v1", "v2", "v3", "child-of-g0", "late"]
    until(lambda: all(client.state(name).status == "running" for name in [*others, "lamp"]))

    assert all(client.state(name).payload == [0, 1, 2, 3, 4] for name in NAMES)
    ran_on = runs(client)
    assert {name: ran_on[name] for name in [*NAMES, *others]} == {
        name: [client.whois(name)] for name in [*NAMES, *others]
    }
    assert {client.state(name).queue for name in ("v1", "v2", "v3")} <= {"valves~edge-a", "valves~edge-b"}
    assert client.state("lamp").queue == "fsm"
    assert set(map(client.whois, NAMES)) == {"edge-a", "edge-b"}


def test_one_that_is_pinned_waits_for_its_host(client: Client, hosts: Hosts, until: Until) -> None:
    (first,) = hosts.start("edge-a")
    here = client.start_fsm(Lamp, "here", host="edge-a")
    there = client.start_fsm(Lamp, "there", host="edge-b")
    there.transition("note", 1)
    here.call("note", 1)

    said = why(client, "there")
    assert said.endswith("1 more wait: it waits for host edge-b, which is not alive")
    assert there.state().status == "starting"
    hosts.start("edge-b")
    until(lambda: there.state().payload == [1])
    assert runs(client) == {"there": ["edge-b"], "here": ["edge-a"]}

    # And again when it has gone: nobody takes over.
    first.kill()
    here.transition("note", 2)
    until(lambda: why(client, "here") == "1 event waits: it waits for host edge-a, which is not alive")
    hosts.start("edge-a")
    until(lambda: here.state().payload == [1, 2])
    assert runs(client)["here"] == ["edge-a"]


def test_others_take_over_from_a_host_that_died_within_its_lease_and_two_seconds(
    client: Client, hosts: Hosts, until: Until
) -> None:
    processes = dict(zip(("edge-a", "edge-b", "edge-c"), hosts.start("edge-a", "edge-b", "edge-c"), strict=True))
    until(lambda: len(client.nodes()) == 3)
    client.start_many(Gauge, NAMES)
    send(client, NAMES, range(3))
    until(lambda: done(client, NAMES, 3))
    # It dies with some in hand and others waiting.
    send(client, NAMES, range(3, 6), "nap")
    owners = {name: client.whois(name) for name in NAMES}
    until(lambda: client.redis.hlen(client.keys.claims(_worker(client, "edge-a"))))
    processes["edge-a"].kill()
    died_at = time.monotonic()
    lost = [name for name in NAMES if owners[name] == "edge-a"]
    assert lost

    until(lambda: any(client.state(name).queue != "fsm~edge-a" for name in lost))
    first_s = time.monotonic() - died_at
    until(lambda: done(client, NAMES, 6))
    all_s = time.monotonic() - died_at

    print(f"taken over after {first_s:.2f} s, all done after {all_s:.2f} s, with a lease of {LEASE_S:g} s")  # noqa: T201 - who runs it with -s wants to see
    assert first_s < LEASE_S + 2
    assert all(client.state(name).payload == [0, 1, 2, 3, 4, 5] for name in NAMES)
    until(lambda: client.nodes() == ("edge-b", "edge-c"))
    # Who stayed did not move; who was lost went to those whose they are now, at the latest with the next event.
    ran_on = runs(client)
    assert all(ran_on[name] == [owners[name]] for name in NAMES if name not in lost)
    send(client, lost, [6])
    until(lambda: done(client, lost, 7))
    assert all(client.state(name).queue == f"fsm~{client.whois(name)}" for name in lost)


def _worker(client: Client, host: str) -> str:
    """Name the worker of a host."""
    names = [name.decode() for name in client.redis.zrange(client.keys.workers, 0, -1)]
    return next(name for name in names if name.startswith(f"{host}-"))


def test_a_host_that_joins_under_load_takes_its_share_in_order_and_once(
    client: Client, redis_url: str, hosts: Hosts, until: Until
) -> None:
    hosts.start("edge-a", "edge-b")
    until(lambda: len(client.nodes()) == 2)
    client.start_many(Gauge, NAMES)
    before = {name: client.whois(name) for name in NAMES}
    is_over = threading.Event()
    sent = 0

    def load() -> None:
        nonlocal sent
        with Client(redis_url, namespace="default") as mine:
            while not is_over.is_set():
                send(mine, NAMES, [sent])
                sent += 1
                is_over.wait(0.05)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        hosts.start("edge-c")
        until(lambda: client.nodes() == ("edge-a", "edge-b", "edge-c"))
        joined = [name for name in NAMES if client.whois(name) == "edge-c"]
        until(lambda: all(client.state(name).queue == "fsm~edge-c" for name in joined))
    finally:
        is_over.set()
        thread.join()
    send(client, NAMES, [sent])
    until(lambda: done(client, NAMES, sent + 1))

    assert joined
    ran_on = runs(client)
    for name in NAMES:
        snapshot = client.state(name)
        assert snapshot.payload == list(range(sent + 1))
        assert snapshot.queue == f"fsm~{client.whois(name)}"
        # Only those that are its own by now have moved. The log is capped: what came first may be gone.
        assert ran_on[name][-1:] == [client.whois(name)]
        assert name in joined or before[name] == client.whois(name)


def test_workers_that_do_not_agree_lose_nothing(client: Client, redis_url: str, hosts: Hosts, until: Until) -> None:
    """Each moves to the other what it does, by a `ClusterInfo` of its own; as where one's view of the hosts is old."""
    hosts.start("edge-a", app="for_b")
    hosts.start("edge-b", app="for_a", options=("--concurrency", "4"))
    names = NAMES[:10]
    with Client(redis_url, namespace="default", cluster=Everything("edge-a")) as mine:
        mine.start_many(Gauge, [*names, "nobody-1"])
        assert mine.state("nobody-1").queue == "fsm"
        for number in range(20):
            send(mine, names, [number])
            if number % 5 == 0:
                until(lambda count=number: done(mine, names, count + 1))
        until(lambda: done(mine, names, 20))

    assert all(client.state(name).payload == list(range(20)) for name in names)
    ran_on = runs(client)
    assert all(set(ran_on[name]) == {"edge-a", "edge-b"} for name in names)
    assert Counter(client.state(name).queue for name in names).keys() <= {"fsm~edge-a", "fsm~edge-b"}


def test_a_stock_worker_serves_the_queue_of_a_host(client: Client, processes: Processes, until: Until) -> None:
    """It knows no rings: it runs what lies where it was told to look, and moves nothing."""
    processes.environment["FSM_APP"] = MACHINES.rstrip(":")
    pinned = client.start_fsm(Gauge, "pinned", host="edge-7")
    pinned.transition("note", 1)
    processes.rq_worker("fsm@edge-7", "fsm~edge-8")

    until(lambda: pinned.state().payload == [1])

    # Sent when it was elsewhere: the record names another queue than that in which it waits.
    client.redis.hset(client.keys.snapshot("pinned"), "queue", "fsm~edge-6")
    pinned.transition("note", 2)
    client.redis.hset(client.keys.snapshot("pinned"), "queue", "fsm~edge-8")
    client.redis.rename(client.keys.ready("fsm~edge-6"), client.keys.ready("fsm~edge-8"))
    client.redis.rename("rq:queue:fsm~edge-6", "rq:queue:fsm~edge-8")
    until(lambda: pinned.state().payload == [1, 2])
    assert pinned.state().queue == "fsm~edge-8"
