"""Redis in trouble: restarts, broken connections, full memory, full disks, replicas and failovers, around real workers.

Where a protection of ours is at stake, the test says without which one it was seen to fail.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, StoreError
from fsm.store import calls
from fsm.store.codec import text
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer, start_or_join
from tests.integration.conftest import Processes
from tests.integration.machines import Journal, Slow
from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    Until = Callable[..., Any]

ALWAYS = {"appendfsync": "always"}
BGSAVE = ("rdb_last_bgsave_status", "rdb_bgsave_in_progress")
NAMES = [f"journal-{n}" for n in range(4)]


def insist(do: Callable[[], Any], told: list[StoreError] | None = None) -> Any:
    """Repeat a call until Redis can be used, as the text of the error says; `told` is what was said before."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return do()
        except StoreError as error:
            assert time.monotonic() < deadline
            if told is not None:
                told.append(error)


def at_rest(client: redis.Redis) -> bool:
    """Nobody waits, and nobody is held."""
    return not client.exists("fsm:default:ready:fsm", "fsm:default:held")


class Producer(threading.Thread):
    """Sends numbers to journals, each with a key of its own, again and again until it is told that they are taken."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._is_over = threading.Event()
        self.taken = 0

    def run(self) -> None:
        with Client(self._url) as client:
            while not self._is_over.is_set():
                number, name = divmod(self.taken, len(NAMES))
                insist(lambda: client.transition(NAMES[name], "note", number, key=f"k{number}"))  # noqa: B023 - done here
                self.taken += 1

    def end(self) -> None:
        self._is_over.set()
        self.join(30)
        assert not self.is_alive()


@pytest.fixture
def durable() -> Iterator[EmbeddedServer]:
    """A server of its own that has on disk what it acknowledges."""
    with EmbeddedServer(ALWAYS) as server:
        yield server


@pytest.fixture
def crew(durable: EmbeddedServer) -> Iterator[Processes]:
    """Processes against the durable server."""
    started = Processes(durable.url)
    yield started
    started.end()


def stop(server: EmbeddedServer, how: str, until: Until) -> None:
    """End a server, and wait until it is gone."""
    pid = server.pid
    assert pid is not None
    if how == "SIGKILL":
        os.kill(pid, signal.SIGKILL)
    else:
        with connect(server.url) as client:
            client.shutdown(nosave=True)
    until(lambda: server.pid is None)


def restart(server: EmbeddedServer, how: str, until: Until, away: float = 0.0) -> None:
    """End a server, and after some seconds start another on what it left on disk; that has forgotten all scripts."""
    stop(server, how, until)
    time.sleep(away)
    start_or_join(server.directory, ALWAYS)


# --- restarts


# redis-py goes on repeating for 1.3 s at most.
@pytest.mark.parametrize(("how", "aways"), [("SIGKILL", (0.0, 3.0)), ("SHUTDOWN", (0.0,))])
def test_restarts_of_redis_under_load_lose_nothing_that_was_acknowledged(
    durable: EmbeddedServer, crew: Processes, until: Until, how: str, aways: tuple[float, ...]
) -> None:
    # Seen to fail, where Redis is away for longer, without the repeats in `Carrier.carry`: the workers ended.
    workers = [crew.worker("--lease", "2s") for _ in range(2)]
    with Client(durable.url) as client, connect(durable.url) as raw:
        client.start_many(Journal, NAMES)
        until(lambda: raw.scard("rq:workers") == 2 and at_rest(raw), 30)
        producer = Producer(durable.url)
        producer.start()
        for away in aways:
            taken = producer.taken
            until(lambda: producer.taken > taken + 100, 30)  # noqa: B023 - waited for here
            restart(durable, how, until, away)
        producer.end()
        assert client.start_fsm(Slow, "slow").call("nap", 0, timeout=30).ok
        until(lambda: at_rest(raw), 30)

        notes = [client.state(name, Journal).payload for name in NAMES]
        lines = [line for line in client.log() if line["event"] == "note"]

    # One that has given up may take its time to end.
    for worker in workers:
        worker.terminate()
        output, _ = worker.communicate(timeout=15)
        assert worker.returncode == 0, output
    assert sorted(number for numbers in notes for number in numbers) == sorted(
        number // len(NAMES) for number in range(producer.taken)
    )
    assert all(numbers == list(range(len(numbers))) for numbers in notes)
    assert len(lines) == producer.taken


@pytest.mark.parametrize(("lease", "away"), [("10s", 0.0), ("500ms", 0.8)], ids=["longer", "shorter"])
def test_a_worker_goes_on_after_a_restart_in_its_sleep_and_in_a_handler(
    durable: EmbeddedServer, crew: Processes, until: Until, tmp_path: Path, lease: str, away: float
) -> None:
    # Leases longer than Redis was away are renewed; of shorter ones the commit is refused, and the event is run again.
    worker = crew.worker("--name", "edge", "--lease", lease)
    with Client(durable.url) as client, connect(durable.url) as raw:
        slow = client.start_fsm(Slow, "slow")
        assert slow.call("nap", 0, timeout=30).ok
        until(lambda: raw.hget("rq:worker:edge", "state") == b"idle")
        restart(durable, "SIGKILL", until)
        assert slow.call("nap", 0).ok

        job = slow.transition("hold", str(tmp_path / "go-on"), result=True)
        until(lambda: raw.exists("fsm:default:lock:slow"))
        restart(durable, "SIGKILL", until, away)
        (tmp_path / "go-on").touch()
        assert insist(lambda: job.result(15)).ok

        state = slow.state()
        assert [line["event"] for line in slow.log()] == ["[*]", "nap", "nap", "hold"]
        assert (state.version, state.tries, state.payload) == (4, 0, {"naps": 2})
        until(lambda: at_rest(raw))
        assert not raw.keys("fsm:default:lock:*")
    assert worker.poll() is None


def test_while_redis_is_away_a_client_is_told_that_nobody_knows_and_that_the_key_makes_it_safe(
    durable: EmbeddedServer, until: Until
) -> None:
    with Client(durable.url) as client:
        journal = client.start_fsm(Journal, "journal")
        stop(durable, "SIGKILL", until)

        with pytest.raises(StoreError, match="may have been done, so repeat it with the same key"):
            journal.transition("note", 1, key="one")

        start_or_join(durable.directory, ALWAYS)
        first, second = (journal.transition("note", 1, key="one") for _ in range(2))
    assert first.id == second.id


def test_a_worker_that_is_told_to_stop_while_redis_is_away_ends_in_order(
    processes: Processes, raw_redis: redis.Redis, redis_server: EmbeddedServer, until: Until
) -> None:
    # Seen to fail without `_is_broken_off`: exit code 1, as of a fault.
    with Proxy(redis_server.url.removeprefix("unix://")) as proxy:
        worker = processes.worker("--url", proxy.url, "--name", "edge")
        until(lambda: raw_redis.hget("rq:worker:edge", "state") == b"idle", 30)
        proxy.is_cut = True
        # Beyond the sleep in Redis, which a signal breaks off: now it waits for a reply to `recover`.
        until(lambda: proxy.refused > 20, 30)
        worker.terminate()

        output, _ = worker.communicate(timeout=30)

    assert worker.returncode == 0, output


def test_scripts_that_redis_forgets_in_full_flow_are_told_to_it_again(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Until
) -> None:
    # Seen to fail without `except NoScriptError` in `Line._read`: the claims in which it happened were lost.
    names = [f"journal-{n}" for n in range(500)]
    client.start_many(Journal, names)
    for number in range(4):
        client.transition_many([(name, "note", number) for name in names])
    worker = processes.worker()
    until(lambda: raw_redis.exists("fsm:default:held"), 30)
    forgotten = 0
    while not at_rest(raw_redis):
        raw_redis.script_flush()
        forgotten += 1

    assert forgotten > 3
    assert all(client.state(name, Journal).payload == [0, 1, 2, 3] for name in names)
    assert worker.poll() is None


# --- connections that break at any byte


@pytest.mark.parametrize("seed", [1, 2])
def test_wherever_connections_of_a_client_break_each_of_its_calls_has_one_effect(
    processes: Processes, client: Client, redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Seen to fail without the keys: what was taken before its reply was lost was sent a second time.
    monkeypatch.setattr("fsm.store.connection._REPEATS", 1)  # so that callers have to repeat
    told: list[StoreError] = []
    processes.worker()
    assert client.start_fsm(Slow, "known").call("nap", 0, timeout=30).ok
    with Proxy(redis_server.url.removeprefix("unix://"), seed) as proxy, Client(proxy.url) as shaky:
        proxy.break_within(requests=2500, replies=250)
        for number in range(25):
            for name in NAMES:
                again = partial(shaky.transition, name, "note", number, key=f"k{number}", start=Journal)
                insist(again, told)
        handles = [insist(partial(shaky.start_fsm, Slow, f"slow-{n}", exist_ok=True), told) for n in range(5)]
        for handle in handles:
            assert insist(partial(handle.call, "nap", 0, key="once"), told).ok
        for name in NAMES:
            assert insist(partial(shaky.call, name, "note", 25, key="last"), told).ok
        assert told
        assert all("with the same key" in str(error) for error in told)

    for name in NAMES:
        state = client.state(name, Journal)
        assert (state.payload, state.version) == (list(range(26)), 27)
    for handle in handles:
        assert (client.state(handle.name).payload, client.state(handle.name).version) == ({"naps": 1}, 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_wherever_connections_of_workers_break_each_event_is_applied_once(
    processes: Processes,
    client: Client,
    raw_redis: redis.Redis,
    redis_server: EmbeddedServer,
    until: Until,
    seed: int,
) -> None:
    # Seen to fail without `Line._carry_all` where a reply breaks off.
    names = [f"journal-{n}" for n in range(500)]
    client.start_many(Journal, names)
    for number in range(4):
        client.transition_many([(name, "note", number) for name in names])
    with Proxy(redis_server.url.removeprefix("unix://"), seed) as proxy:
        workers = [processes.worker("--url", proxy.url, "--lease", "1s", "--batch", "32") for _ in range(2)]
        until(lambda: raw_redis.exists("fsm:default:held"), 30)
        proxy.break_within(requests=120_000, replies=30_000)
        until(lambda: at_rest(raw_redis), 60)
        proxy.break_no_more()

        assert proxy.breaks > 5
        assert [worker.poll() for worker in workers] == [None, None]
    for name in names:
        state = client.state(name, Journal)
        assert (state.payload, state.version, state.tries) == ([0, 1, 2, 3], 5, 0)


# --- no room in memory


def whole(raw: redis.Redis) -> dict[bytes, Any]:
    """All that is in Redis."""
    dump: Any = raw.dump
    return {key: dump(key) for key in raw.scan_iter(count=10_000)}


@pytest.fixture
def room(raw_redis: redis.Redis) -> Iterator[Callable[[int | None], None]]:
    """Leave Redis so much room beside what it uses now, in bytes; `None`: as much as there is."""
    settings: Any = raw_redis

    def leave(more: int | None) -> None:
        limit = 0 if more is None else max(1, raw_redis.info("memory")["used_memory"] + more)
        settings.config_set("maxmemory", limit)

    settings.config_set("maxmemory-policy", "noeviction")
    yield leave
    settings.config_set("maxmemory", 0)


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_full_redis_takes_nothing_says_so_and_nothing_is_half_written(
    client: Client, raw_redis: redis.Redis, room: Callable[[int | None], None], is_asked: bool
) -> None:
    journal = client.start_fsm(Journal, "journal")
    journal.transition("note", 1, key="one")
    writes: list[Callable[[], Any]] = [
        lambda: journal.transition("note", 2, result=is_asked),
        lambda: journal.transition("note", 2, key="two"),
        lambda: journal.call("note", 2),
        lambda: client.transition("other", "note", 2, start=Journal),
        lambda: client.transition_many([("journal", "note", 2), ("journal", "note", 3)]),
        lambda: client.start_fsm(Journal, "other"),
        lambda: client.start_fsm(Journal, "other", state="odd"),
        lambda: client.start_many(Journal, ["other", "more"]),
    ]
    room(-(10**12))
    before = whole(raw_redis)

    for write in writes:
        with pytest.raises(StoreError, match=r"is full.*raise its `maxmemory`, or wait until workers have drained"):
            write()
    again = journal.transition("note", 1, key="one")

    assert again.status() == "waiting"
    assert whole(raw_redis) == before


def test_a_redis_that_becomes_full_amid_many_has_the_first_whole_and_nothing_of_the_others(
    client: Client, raw_redis: redis.Redis, room: Callable[[int | None], None]
) -> None:
    names = [f"journal-{n}" for n in range(5000)]
    room(1_500_000)
    with pytest.raises(StoreError, match="is full"):
        client.start_many(Journal, names)
    begun = [name for name in names if raw_redis.exists(f"fsm:default:snapshot:{name}")]

    assert 0 < len(begun) < len(names)
    assert begun == names[: len(begun)]
    assert raw_redis.zcard("fsm:default:ready:fsm") == raw_redis.zcard("fsm:default:state:Journal:even") == len(begun)
    assert len(raw_redis.keys("fsm:default:mailbox:*")) == len(raw_redis.keys("rq:job:*")) == len(begun)

    room(None)
    assert all(verdict.ok for verdict in client.start_many(Journal, names, exist_ok=True))
    room(1_500_000)
    with pytest.raises(StoreError, match="is full"):
        client.transition_many([(name, "note", 1) for name in names])
    lengths = [raw_redis.llen(f"fsm:default:mailbox:{name}") for name in names]
    sent = lengths.count(2)
    assert 0 < sent < len(names)
    assert lengths == [2] * sent + [1] * (len(names) - sent)
    assert len(raw_redis.keys("rq:job:*")) == len(names) + sent


# --- no room on the disk


@pytest.fixture
def full_disk(durable: EmbeddedServer, until: Until) -> Callable[[bool], None]:
    """Let the server's disk be as if it were full, or not: what it is to write its file over is a directory."""
    blocked = durable.directory / "dump.rdb"

    def fill(is_full: bool) -> None:
        with connect(durable.url) as raw:
            settings: Any = raw
            settings.config_set("save", "3600 1000000")
            if is_full:
                blocked.mkdir()
            else:
                blocked.rmdir()
            raw.bgsave()
            wanted = ("err" if is_full else "ok", 0)
            until(lambda: tuple(raw.info("persistence")[field] for field in BGSAVE) == wanted)

    return fill


def test_a_redis_that_cannot_save_is_waited_for_by_workers_and_told_to_clients(
    durable: EmbeddedServer, crew: Processes, full_disk: Callable[[bool], None], until: Until, tmp_path: Path
) -> None:
    # Seen to fail without UNSAVED in `is_passing`: the worker ended.
    worker = crew.worker("--name", "edge", "--lease", "20s")
    with Client(durable.url) as client, connect(durable.url) as raw:
        slow = client.start_fsm(Slow, "slow")
        assert slow.call("nap", 0, timeout=30).ok
        job = slow.transition("hold", str(tmp_path / "go-on"))
        until(lambda: raw.exists("fsm:default:lock:slow"))
        full_disk(True)
        before = whole(raw)
        with pytest.raises(StoreError, match=r"cannot save them .*: see to the room .* on its disk"):
            slow.transition("nap", 0)
        assert whole(raw) == before
        # The commit of what it has in hand is refused meanwhile, and so is all else that it writes.
        (tmp_path / "go-on").touch()
        until(lambda: raw.info("errorstats")["errorstat_MISCONF"]["count"] > 8, 30)
        full_disk(False)

        assert job.result(30).ok
        assert slow.call("nap", 0, timeout=30).ok
        assert (slow.state().payload, slow.state().version, slow.state().tries) == ({"naps": 2}, 4, 0)
        until(lambda: at_rest(raw))
    assert worker.poll() is None
    worker.terminate()
    output, _ = worker.communicate(timeout=15)
    assert worker.returncode == 0, output
    assert "takes no writes, for it cannot save them" in output


# --- replicas and failovers


@pytest.fixture
def pair() -> Iterator[tuple[EmbeddedServer, EmbeddedServer, Callable[[], None]]]:
    """A primary, its replica, and what makes the replica the primary and the primary its replica."""
    options = {"repl-diskless-sync-delay": "0"}
    with (
        EmbeddedServer(options) as first,
        EmbeddedServer(options) as second,
        # They have no ports of their own: one that is chosen in advance may be taken before it is listened on.
        Proxy(first.url.removeprefix("unix://")) as to_first,
        Proxy(second.url.removeprefix("unix://")) as to_second,
        connect(first.url) as primary,
        connect(second.url) as replica,
    ):
        replica.replicaof("127.0.0.1", to_first.port)

        def fail_over() -> None:
            replica.replicaof("NO", "ONE")
            primary.replicaof("127.0.0.1", to_second.port)

        yield first, second, fail_over


def test_after_a_failover_clients_and_workers_leave_the_demoted_server_for_the_new_primary(
    pair: tuple[EmbeddedServer, EmbeddedServer, Callable[[], None]], until: Until, tmp_path: Path
) -> None:
    # Seen to fail without `disconnect` in `fsm.store.requests.run`: a server that becomes a replica keeps its
    # connections, so the client was told READONLY for ever, and the worker waited for ever.
    first, second, fail_over = pair
    with Proxy(first.url.removeprefix("unix://")) as proxy, connect(first.url) as old, connect(second.url) as new:
        crew = Processes(proxy.url)
        try:
            worker = crew.worker("--name", "edge", "--lease", "20s")
            with Client(proxy.url) as client:
                slow = client.start_fsm(Slow, "slow")
                assert slow.call("nap", 0, timeout=30).ok
                held = client.start_fsm(Slow, "held")
                # The claim of the event in hand is to be known to the replica, and not that of the entry event before
                # it: where the new primary has lost a claim, the FSM waits for the end of the lease.
                until(lambda: new.hget("fsm:default:snapshot:held", "version") == b"1", 30)
                job = held.transition("hold", str(tmp_path / "go-on"))
                until(lambda: new.exists("fsm:default:lock:held"), 30)

                fail_over()
                with pytest.raises(StoreError, match=r"is a replica.*put the primary into the URL; after a failover"):
                    slow.transition("nap", 0, key="again")
                (tmp_path / "go-on").touch()
                until(lambda: old.info("errorstats")["errorstat_READONLY"]["count"] > 5, 30)
                proxy.lead_to(second.url.removeprefix("unix://"))

                insist(lambda: slow.transition("nap", 0, key="again"))
                assert slow.call("nap", 0, timeout=30).ok
                assert job.result(30).ok
                assert (slow.state().payload, held.state().version) == ({"naps": 3}, 2)
                until(lambda: at_rest(new))
                assert new.info("replication")["role"] == "master"
            assert worker.poll() is None
        finally:
            crew.end()


def test_after_a_failover_bulk_leaves_the_demoted_server_too(
    pair: tuple[EmbeddedServer, EmbeddedServer, Callable[[], None]], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where `Ahead` gives its connection back as it is: the next bulk took it, and was told READONLY for
    # ever.
    monkeypatch.setattr("fsm.store.calls.MOST_ITEMS", 2)
    first, second, fail_over = pair
    # Each call waits for the one before it, since they are for the same FSM: none is under way when one is refused.
    items = [("slow", "nap", 0)] * 6
    with Proxy(first.url.removeprefix("unix://")) as proxy, Client(proxy.url) as client, connect(second.url) as new:
        client.start_fsm(Slow, "slow")
        assert all(verdict.ok for verdict in client.transition_many(items))

        # What the replica has not heard of yet would be lost: these and the entry event.
        until(lambda: new.llen("fsm:default:mailbox:slow") == len(items) + 1, 30)
        fail_over()
        with pytest.raises(StoreError, match="is a replica"):
            client.transition_many(items)
        proxy.lead_to(second.url.removeprefix("unix://"))

        assert all(verdict.ok for verdict in client.transition_many(items))


def test_a_demoted_server_that_still_has_its_data_confirms_nothing() -> None:
    # Seen to fail without `insist_on_primary` in `send`, `start`, `cancel` and `purge`, one by one: what nobody else
    # has was said to be there, or to be gone.
    with (
        EmbeddedServer() as server,
        Client(server.url) as client,
        connect(server.url) as old,
        socket.socket() as nobody,
    ):
        journal = client.start_fsm(Journal, "journal")
        journal.transition("note", 0, key="k0")
        taken_back = journal.transition("note", 2)
        assert taken_back.cancel()
        client.start_fsm(Journal, "purged")
        born = text(old.hget(client.keys.snapshot("purged"), "born"))
        client.purge("purged")
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        old.replicaof("127.0.0.1", nobody.getsockname()[1])

        for repeat in (
            partial(journal.transition, "note", 0, key="k0"),
            partial(journal.transition, "note", 1, key="k1"),
            partial(client.start_fsm, Journal, "journal"),
            taken_back.cancel,
            partial(client.ask, calls.purge(client.keys, "purged", born)),
        ):
            with pytest.raises(StoreError, match="is a replica"):
                repeat()


def test_what_a_failover_has_lost_is_taken_again_with_its_key_and_the_fsm_is_whole(
    pair: tuple[EmbeddedServer, EmbeddedServer, Callable[[], None]], until: Until
) -> None:
    first, second, fail_over = pair
    with Proxy(first.url.removeprefix("unix://")) as proxy, connect(second.url) as new:
        crew = Processes(proxy.url)
        try:
            worker = crew.worker()
            with Client(proxy.url) as client:
                journal = client.start_fsm(Journal, "journal")
                for number in range(3):
                    assert journal.call("note", number, key=f"k{number}", timeout=30).ok
                until(lambda: new.hget("fsm:default:snapshot:journal", "version") == b"4", 30)
                # Cut off: what comes now was acknowledged and committed, and the next primary never hears of it.
                new.replicaof("NO", "ONE")
                for number in (3, 4):
                    assert journal.call("note", number, key=f"k{number}").ok
                fail_over()
                proxy.lead_to(second.url.removeprefix("unix://"))

                versions = [
                    insist(partial(journal.call, "note", number, key=f"k{number}", timeout=30)).version
                    for number in range(5)
                ]

                assert versions == [2, 3, 4, 5, 6]
                state = client.state("journal", Journal)
                assert (state.payload, state.version, state.tries) == ([0, 1, 2, 3, 4], 6, 0)
                until(lambda: at_rest(new))
            assert worker.poll() is None
        finally:
            crew.end()


# --- a policy that drops keys


def test_a_worker_says_loudly_and_once_that_its_redis_drops_keys_and_so_does_info(
    crew: Processes, durable: EmbeddedServer, until: Until
) -> None:
    # Seen to fail without `warn` at the worker's `connect`: it was said outside of its log.
    with connect(durable.url) as raw:
        settings: Any = raw
        settings.config_set("maxmemory-policy", "allkeys-lru")
        worker = crew.worker("--name", "edge")
        until(lambda: raw.hget("rq:worker:edge", "state") == b"idle", 30)
        worker.terminate()
        output, _ = worker.communicate(timeout=15)
        info = crew.run("-W", "ignore", "-c", "from fsm.cli import main; main()", "info").communicate(timeout=30)[0]
        settings.config_set("maxmemory-policy", "noeviction")

    assert output.count("maxmemory-policy allkeys-lru") == 1
    assert "WARNING fsm.worker Redis at unix://" in output
    assert "run `CONFIG SET maxmemory-policy noeviction`" in output
    assert "Redis has maxmemory-policy allkeys-lru" in info
