"""How it is proven that something is safe, with stand-ins for servers: few real ones can be stopped just in between."""

from __future__ import annotations

import socketserver
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import NoPermissionError

from fsm import Client, ConfigError, Machine, PayloadError, Settings, StoreError
from fsm.durable import Keeping
from fsm.store.durability import Barrier, Durability, Synced, read_durability
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.verbs import Plan

DISK = Durability(fsync=True)
ALWAYS = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
EVERY_SECOND = {**ALWAYS, "appendfsync": "everysec"}


class Box(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : put
    """


class Server:
    """What a barrier asks of Redis, and what a script says; `told` is all that it was asked."""

    def __init__(self, version: str = "7.0.15", **settings: str) -> None:
        self.run_id = "first"
        self.version = version
        self.settings = {**EVERY_SECOND, **{name.replace("_", "-"): value for name, value in settings.items()}}
        self.synced = 1
        self.replicas = 0
        self.refuses: dict[str, Exception] = {}
        self.words: list[str] = ["SENT"]
        self.rewrite = {
            "aof_rewrite_in_progress": 0,
            "aof_rewrite_scheduled": 0,
            "aof_last_rewrite_time_sec": -1,
            "aof_base_size": 0,
        }
        self.told: list[str] = []
        self.before: Callable[[str], None] = lambda _name: None

    def ask(self, request: Request[Any]) -> Any:
        replies: list[Any] = []
        if request.script:
            self.told.append(request.script)
            replies.append(list(self.words))
        replies += [self.reply(*command) for command in request.commands]
        return request.read(replies if len(replies) > 1 else replies[0])

    def reply(self, name: str, *rest: Any) -> Any:
        self.told.append(name)
        self.before(name)
        if (error := self.refuses.get(name)) is not None:
            raise StoreError(str(error)) from error
        match name:
            case "INFO":
                return {"run_id": self.run_id, "redis_version": self.version, **self.rewrite}
            case "CONFIG":
                return [part.encode() for pair in self.settings.items() for part in pair]
            case "WAITAOF":
                assert rest[:2] == (1, 0)
                return [self.synced, 0]
            case "WAIT":
                return self.replicas
        return True

    def barrier(self, wanted: Durability = DISK) -> Barrier:
        return Barrier(wanted, self.ask, Keys("default"), "redis://:secret@host")

    def send(self) -> Plan[list[str]]:
        words: list[str] = yield Request(list, "send")
        return words


def kept(server: Server, wanted: Durability = DISK) -> Keeping:
    return Keeping(server.barrier(wanted), server.ask, "redis://:secret@host")


def carry(server: Server, keeping: Keeping, *, is_one: bool = False) -> None:
    """Send by a plan that is noted."""
    plan = keeping.noting(server.send(), is_one=is_one)
    asked = plan.send(None)
    with pytest.raises(StopIteration):
        plan.send(server.ask(asked))  # type: ignore[arg-type]


# --- words


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("memory", Durability()),
        ("fsync", DISK),
        ("replicas:1", Durability(replicas=1)),
        ("fsync+replicas:12", Durability(fsync=True, replicas=12)),
    ],
)
def test_a_word_says_what_must_be_true(text: str, meant: Durability) -> None:
    assert read_durability(text, "durability") == meant


@pytest.mark.parametrize("text", ["", "disk", "replicas", "replicas:0", "replicas:100", "FSYNC", "fsync ", None, 1])
def test_another_word_is_refused_and_the_words_are_told(text: Any) -> None:
    with pytest.raises(ConfigError, match="memory, fsync, replicas:N or fsync"):
        read_durability(text, "durability")


def test_client_variable_and_file_say_it_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSM_DURABILITY", "fsync")

    assert Client("memory://")._durability == DISK
    assert Client("memory://", durability="memory")._durability == Durability()
    with pytest.raises(ConfigError, match=r"Client\(durability=…\)"):
        Client("memory://", durability="safe")
    monkeypatch.setenv("FSM_DURABILITY", "safe")
    with pytest.raises(ConfigError, match="FSM_DURABILITY"):
        Client("memory://")


def test_in_memory_each_word_is_true_at_once_and_a_wrong_one_is_told() -> None:
    with Client("memory://", durability="fsync+replicas:9") as client:
        box = client.start_fsm(Box, "box")

        assert box.call("put", durability="replicas:3").ok
        assert box.transition("put", durability="fsync").status() == "done"
        assert client.sync() == Synced("memory", 0, 0.0)
        assert client.file is None
        with pytest.raises(ConfigError, match="durability="):
            box.transition("put", durability="disk")
        with pytest.raises(ConfigError, match="sync"):
            client.sync("disk")
        with pytest.raises(PayloadError, match="timeout"):
            client.sync(timeout=0)


# --- by what a server proves it


def test_where_a_server_syncs_always_its_reply_is_the_proof_and_nothing_is_written_for_it() -> None:
    server = Server(appendfsync="always")
    keeping = kept(server)
    server.told.clear()
    carry(server, keeping, is_one=True)

    assert keeping.hold()
    assert server.told == ["send", "CONFIG", "INFO"]


def test_for_all_that_was_written_before_there_must_be_a_write_behind_it() -> None:
    # Seen to fail without the write: what was written before a switch to `always` may be in memory.
    server = Server(appendfsync="always")
    server.barrier().passed()

    assert server.told[-3:] == ["SET", "CONFIG", "INFO"]


@pytest.mark.parametrize("word", ["DUPLICATE waiting", "EXISTS Box"])
def test_what_was_there_before_is_not_proven_by_the_reply_alone(word: str) -> None:
    # Seen to fail without `_is_older`: who wrote it wanted no more than memory, and nothing of ours is behind it.
    server = Server(appendfsync="always")
    server.words = [word]
    keeping = kept(server)
    carry(server, keeping, is_one=True)
    server.told.clear()

    assert keeping.hold()
    assert server.told == ["SET", "CONFIG", "INFO"]


@pytest.mark.parametrize("sign", ["aof_rewrite_in_progress", "aof_rewrite_scheduled"])
def test_a_server_that_has_only_just_been_told_to_keep_a_file_proves_nothing_yet(sign: str) -> None:
    # Seen to fail without `_refuse_beginners`; what a real one loses then is shown in tests/integration.
    server = Server(appendfsync="always")
    server.rewrite[sign] = 1
    with pytest.raises(StoreError, match="for the first time just now"):
        kept(server)
    assert "send" not in server.told

    # Neither one that has had a file since it began, nor one that has rewritten it before.
    for name, value in (("aof_base_size", 88), ("aof_last_rewrite_time_sec", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(server.rewrite, name, value)
            assert kept(server).hold()


@pytest.mark.parametrize(("version", "asked"), [("6.2.14", ("*append*",)), ("7.0.15", (*ALWAYS,))])
def test_a_server_is_asked_for_its_settings_as_it_knows_it(version: str, asked: tuple[str, ...]) -> None:
    commands: list[tuple[Any, ...]] = []
    server = Server(version, appendfsync="always")
    reply = server.reply
    server.reply = lambda *command: (commands.append(command), reply(*command))[1]  # type: ignore[method-assign]
    server.barrier().passed()

    assert {command[2:] for command in commands if command[0] == "CONFIG"} == {asked}


@pytest.mark.parametrize("setting", [{"no_appendfsync_on_rewrite": "yes"}, {"appendonly": "no"}])
def test_a_server_that_syncs_always_but_not_while_it_rewrites_or_not_at_all_proves_nothing(
    setting: dict[str, str],
) -> None:
    # Seen to fail with `appendfsync` looked at alone.
    with pytest.raises(StoreError, match="append"):
        Server(appendfsync="always", **setting).barrier().passed()


def test_one_that_can_wait_for_its_file_is_asked_to_behind_a_write_of_its_own() -> None:
    server = Server("7.2.4")
    proof = server.barrier().passed()

    assert (proof.how, proof.lacks) == ("waitaof", "")
    assert server.told[-3:] == ["SET", "WAITAOF", "INFO"]
    server.synced = 0
    assert server.barrier().passed().lacks == "is not on its disk yet"


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (Server(), "appendfsync always.*Redis 7.2"),
        (Server("6.2.14"), "appendfsync always.*Redis 7.2"),
        (Server("7.2.4", appendfsync="no"), "cannot say"),
        (Server("7.2.4", appendonly="no"), "appendonly yes"),
    ],
)
def test_one_that_can_prove_nothing_says_what_would_help(server: Server, text: str) -> None:
    with pytest.raises(StoreError, match=text) as caught:
        server.barrier().passed()

    assert "secret" not in str(caught.value)


def test_where_its_settings_may_not_be_seen_the_right_is_named_and_waiting_still_serves() -> None:
    old, new = Server(appendfsync="always"), Server("8.0.0")
    met = kept(old)
    for server in (old, new):
        server.refuses["CONFIG"] = NoPermissionError("no permissions")

    # Seen to fail where an error does not let the barrier look anew: it went on asking what it may not.
    with pytest.raises(StoreError, match="no permissions"):
        met.hold()
    with pytest.raises(StoreError, match=r"\+config\|get"):
        met.hold()
    assert new.barrier().passed().how == "waitaof"


def test_replicas_are_asked_alone_and_beside_the_disk() -> None:
    server = Server(appendfsync="always")
    server.replicas = 1

    assert server.barrier(Durability(replicas=1)).passed().how == "replicas"
    assert server.told == ["INFO", "SET", "WAIT", "INFO"]
    keeping = kept(server, Durability(replicas=1))
    server.told.clear()
    carry(server, keeping, is_one=True)
    assert keeping.hold()
    assert server.told == ["send", "SET", "WAIT", "INFO"]
    both = server.barrier(Durability(fsync=True, replicas=2)).passed()
    assert (both.how, both.replicas, both.lacks) == ("always", 1, "is on 1 of 2 replicas")


# --- another life of the server


def test_a_server_that_was_restarted_is_told_again_before_it_counts() -> None:
    # Seen to fail where `hold` does not compare lives: it came back without the event, and let the barrier pass.
    server = Server(appendfsync="always")
    keeping = kept(server)
    carry(server, keeping)
    server.run_id = "second"
    server.told.clear()

    assert not keeping.hold()
    assert server.told.count("send") == 1
    assert keeping.hold()


def test_one_that_was_restarted_before_the_call_reached_it_is_another_life_too() -> None:
    # It may have been asked by the life before, of whose replies nothing came: by a repeat of ours.
    server = Server(appendfsync="always")
    keeping = kept(server)
    server.run_id = "second"
    carry(server, keeping, is_one=True)

    assert not keeping.hold()
    assert keeping.hold()


def test_one_that_is_restarted_again_meanwhile_is_told_once_more() -> None:
    server = Server(appendfsync="always")
    keeping = kept(server)
    carry(server, keeping)
    server.run_id = "second"
    assert not keeping.hold()
    server.run_id = "third"
    server.told.clear()

    assert not keeping.hold()
    assert server.told.count("send") == 1
    assert keeping.hold()


def test_one_that_does_not_sync_always_any_more_is_another_life() -> None:
    server = Server(appendfsync="always")
    keeping = kept(server)
    carry(server, keeping)
    server.settings.update(EVERY_SECOND)

    with pytest.raises(StoreError, match="appendfsync always"):
        keeping.hold()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["SENT"], ["UNKNOWN"]),
        (["SENT"], ["FULL 100"]),
        (["CREATED"], ["BROKEN"]),
        (["SENT abc-1"], ["SENT abc-2"]),
        (["SENT abc-1"], ["DUPLICATE done abc-2"]),
    ],
)
def test_what_a_restarted_server_says_otherwise_is_told_as_lost(before: list[str], now: list[str]) -> None:
    server = Server(appendfsync="always")
    server.words = before
    keeping = kept(server)
    carry(server, keeping)
    server.run_id, server.words = "second", now

    with pytest.raises(StoreError, match="restarted before this was safe"):
        keeping.hold()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["SENT"], ["DUPLICATE done"]),
        (["DUPLICATE "], ["SENT"]),
        (["SENT abc-1"], ["DUPLICATE done abc-1"]),
        (["DUPLICATE  abc-1"], ["SENT abc-1"]),
        (["EXISTS Box"], ["CREATED"]),
    ],
)
def test_what_it_says_as_before_is_kept(before: list[str], now: list[str]) -> None:
    server = Server(appendfsync="always")
    server.words = before
    keeping = kept(server)
    carry(server, keeping)
    server.run_id, server.words = "second", now

    assert not keeping.hold()
    assert keeping.hold()


@pytest.mark.parametrize("words", [["SENT", "FULL 100"], ["CREATED", "EXISTS Box"]])
def test_of_many_of_which_one_was_refused_nothing_is_told_again(words: list[str]) -> None:
    # Seen to fail without `is_repeatable`: what its sender knows as refused was taken, and an FSM of a name that its
    # starter knows as another's was made.
    server = Server(appendfsync="always")
    server.words = words
    keeping = kept(server)
    carry(server, keeping)
    server.run_id = "second"
    server.told.clear()

    with pytest.raises(StoreError, match="restarted"):
        keeping.hold(is_repeatable=False)
    assert "send" not in server.told


def test_later_than_repeats_are_known_nothing_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail without the look at the clock.
    server = Server(appendfsync="always")
    keeping = kept(server)
    carry(server, keeping)
    server.run_id = "second"
    keeping._began -= 12

    with pytest.raises(StoreError, match="restarted"):
        keeping.hold()


def test_what_is_not_safe_in_time_is_told_as_there_and_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.durable._PATIENCE", 0.05)
    server = Server()
    keeping = kept(server, Durability(replicas=2))
    carry(server, keeping)
    server.replicas = 1

    with pytest.raises(StoreError, match=r"has it, but after 0.05 s it is on 1 of 2 replicas.*same key"):
        keeping.hold()


# --- a server that can wait for its file, over a real connection


class _Waiting(socketserver.StreamRequestHandler):
    """Answers as a Redis 7.2 does, as far as `sync` asks."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            command = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                command.append(self.rfile.read(size + 2)[:-2].decode())
            self.wfile.write(self.answer(command))

    def answer(self, command: list[str]) -> bytes:
        server = self.server
        assert isinstance(server, _Redis72)
        server.told.append(" ".join(command))
        match command[0]:
            case "INFO":
                text = f"redis_version:7.2.4\r\nredis_mode:standalone\r\nrun_id:{server.run_id}\r\n"
                return f"${len(text)}\r\n{text}\r\n".encode()
            case "CONFIG":
                parts = [part for pair in EVERY_SECOND.items() for part in pair]
                return f"*{len(parts)}\r\n".encode() + b"".join(f"${len(p)}\r\n{p}\r\n".encode() for p in parts)
            case "WAITAOF":
                time.sleep(0 if server.synced else 0.02)
                return f"*2\r\n:{server.synced}\r\n:0\r\n".encode()
            case "WAIT":
                return b":2\r\n"
        return b"+OK\r\n"


class _Redis72(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Waiting)
        self.run_id = "a" * 40
        self.synced = 1
        self.told: list[str] = []


@pytest.fixture
def redis72() -> Iterator[_Redis72]:
    with _Redis72() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_sync_waits_by_waitaof_on_one_connection_behind_its_write(redis72: _Redis72) -> None:
    with Client(f"redis://127.0.0.1:{redis72.server_address[1]}") as client:
        found = client.sync("fsync+replicas:2")

    assert (found.how, found.replicas) == ("waitaof", 2)
    asked = [command.split()[0] for command in redis72.told[-4:]]
    assert asked == ["SET", "WAITAOF", "WAIT", "INFO"]
    assert redis72.told[-3] == "WAITAOF 1 0 2000"


def test_sync_holds_redis_up_no_longer_than_it_is_told_to(redis72: _Redis72) -> None:
    # Seen to fail with 2 s for each wait, whatever was left.
    redis72.synced = 0
    url = f"redis://127.0.0.1:{redis72.server_address[1]}"
    with Client(url) as client, pytest.raises(StoreError, match=r"after 0\.1 s it is not on its disk yet"):
        client.sync(timeout=0.1)

    assert max(int(command.split()[3]) for command in redis72.told if command.startswith("WAITAOF")) <= 100


def test_sync_tells_once_that_redis_was_restarted_since_this_client_met_it(redis72: _Redis72) -> None:
    # Seen to fail where `sync` does not compare lives.
    with Client(f"redis://127.0.0.1:{redis72.server_address[1]}") as client:
        _ = client.redis
        redis72.run_id = "b" * 40
        with pytest.raises(StoreError, match="was restarted"):
            client.sync()
        assert client.sync().how == "waitaof"
        client.close()
        redis72.run_id = "c" * 40
        with pytest.raises(StoreError, match="was restarted"):
            client.sync()


def test_an_error_that_a_plan_handles_goes_to_it_through_the_noting() -> None:
    def plan() -> Plan[str]:
        try:
            yield Request(list, "send")
        except StoreError:
            again: list[str] = yield Request(list, "send")
            return again[0]
        raise AssertionError

    keeping = kept(Server(appendfsync="always"))
    noting = keeping.noting(plan())
    noting.send(None)
    noting.throw(StoreError("away"))
    with pytest.raises(StopIteration) as end:
        noting.send(["SENT"])

    assert end.value.value == "SENT"
    assert len(keeping._noted) == 1
