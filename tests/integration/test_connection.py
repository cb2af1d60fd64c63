from __future__ import annotations

import multiprocessing
import pickle
import socket
import socketserver
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import TimeoutError as SilentError

from fsm.errors import ConfigError, StoreError
from fsm.store import connection
from fsm.store.connection import BoundedRetry, connect, explain, mask
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = b"+OK\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def read_command(stream: Any) -> list[str]:
    """One command as clients send it: an array of bulk strings. Empty at the end of the connection."""
    count = stream.readline()
    if not count:
        return []
    parts = []
    for _ in range(int(count[1:])):
        size = int(stream.readline()[1:])
        parts.append(stream.read(size + 2)[:-2].decode())
    return parts


@contextmanager
def stub(reply: Callable[[list[str]], bytes | None]) -> Iterator[tuple[str, list[list[str]]]]:
    """A TCP server that is no Redis: its URL, and the commands it was sent. Without a reply it hangs up."""
    commands: list[list[str]] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while command := read_command(self.rfile):
                commands.append(command)
                said = reply(command)
                if said is None:
                    return
                self.wfile.write(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}", commands
        finally:
            server.shutdown()
            thread.join()


def all_said(error: BaseException | None) -> str:
    """The texts of an error and of all that it came from."""
    said = ""
    while error:
        said, error = f"{said}\n{error!r} {error}", error.__cause__ or error.__context__
    return said


def says(info: str) -> Callable[[list[str]], bytes]:
    return lambda command: bulk(info) if command[0] == "INFO" else OK


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between repeats, written down instead of waited for."""
    pauses: list[float] = []
    monkeypatch.setattr("fsm.store.connection.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Lets time pass for the retries."""
    now = [0.0]

    def go_on(seconds: float) -> None:
        now[0] += seconds

    with monkeypatch.context() as patch:
        patch.setattr("fsm.store.connection.time.monotonic", lambda: now[0])
        patch.setattr("fsm.store.connection.time.sleep", go_on)
        yield go_on


@pytest.fixture(scope="module")
def tcp(redis_server: EmbeddedServer) -> Iterator[tuple[EmbeddedServer, str]]:
    """A server of this module, which may be reconfigured, and its address host:port."""
    port = free_port()
    with EmbeddedServer({"port": str(port), "bind": "127.0.0.1"}) as server, connect(server.url) as client:
        client.acl_setuser("ann", enabled=True, passwords=["+s3cr/t@"], commands=["+@all"], keys=["*"])
        yield server, f"127.0.0.1:{port}"


# --- URLs


def test_a_unix_url_connects(redis_url: str) -> None:
    assert redis_url.startswith("unix:///")
    with connect(f"{redis_url}?db=2") as client:
        assert client.ping() is True
        assert client.client_info()["db"] == 2


def test_a_redis_url_connects_with_user_password_and_database(tcp: tuple[EmbeddedServer, str]) -> None:
    with connect(f"redis://ann:s3cr%2Ft%40@{tcp[1]}/5") as client:
        about = client.client_info()
    assert (about["user"], about["db"]) == ("ann", 5)


def test_a_rediss_url_speaks_tls_and_hints_at_it_where_the_server_does_not(
    tcp: tuple[EmbeddedServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(f"rediss://{tcp[1]}?ssl_cert_reqs=none", check=False) as client:
        assert client.connection_pool.connection_class is redis.SSLConnection
    monkeypatch.setattr(connection, "_REPEATS", 0)
    with pytest.raises(StoreError, match=f"rediss://{tcp[1]} does not answer in time.*TLS"):
        connect(f"rediss://{tcp[1]}", socket_timeout=0.2)


def test_without_an_argument_the_url_comes_from_the_environment(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSM_URL", f"{redis_url}?db=7")
    with connect() as client:
        assert client.client_info()["db"] == 7


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "REDIS://localhost",
        "http://localhost",
        "redis:/localhost",
        "redis://",
        "redis:///0",
        "redis://localhost:port",
        "redis://localhost:0",
        "redis://localhost:65536",
        "redis://localhost/zero",
        "redis://localhost/0/1",
        "redis://localhost/٣",
        "redis://localhost?db=x",
        "redis://localhost?db=-1",
        "redis://localhost?socket_timeout=600",
        "redis://localhost?decode_responses=1",
        "redis://localhost?ssl_keyfile=x",
        "redis://localhost?nonsense",
        "redis://local host",
        "redis://localhost/0\n",
        "redis://[::1",
        "redis://" + "x" * 70 + ".org",
        "unix://",
        "unix:///",
        "unix://run/redis.sock",
        "unix://./redis.sock",
        "unix:///run/a%00b",
        "embedded://",
        "embedded:///",
        "embedded://data",
        "embedded://user:s3cret@/data",
        "embedded:///data#1",
        "embedded:///data?password=s3cret",
        "redis://:s3cret#1@localhost",
        "redis://:s3cret/1@localhost",
        "redis://ann/1:s3cret@localhost",
        "redis://:s3cret?1@localhost",
        "s3cret",
    ],
)
def test_a_wrong_url_is_refused_with_the_four_forms_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url, check=False)
    said = str(caught.value)
    for form in ("redis://host:6379/0", "rediss://", "unix:///path", "embedded:///directory"):
        assert form in said
    if "s3cret" in url and url != "s3cret":
        assert "s3cret" not in all_said(caught.value)
        assert mask(url) in said


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:s3cret@localhost", "redis://:***@localhost"),
        ("redis://ann:s3cret@localhost", "redis://ann:***@localhost"),
        ("redis://ann@localhost", "redis://ann@localhost"),
        ("redis://ann:s3:cr@et@localhost", "redis://ann:***@localhost"),
        ("redis://ann:a://b@localhost", "redis://ann:***@localhost"),
        ("redis://ann:a?b@localhost?db=1", "redis://ann:***@localhost?db=1"),
        ("redis://localhost?password=s3cret&db=1", "redis://localhost?password=***&db=1"),
        ("unix:///run/redis.sock?db=1&password=s3c@ret", "unix:///run/redis.sock?db=1&password=***"),
        ("unix://ann:s3cret@/run/redis.sock", "unix://ann:***@/run/redis.sock"),
        ("rediss://localhost?ssl_password=s3cret", "rediss://localhost?ssl_password=***"),
        ("ann:s3cret@localhost", "ann:***@localhost"),
        ("embedded:///home/ann@work", "embedded:///home/ann@work"),
        ("", ""),
    ],
)
def test_mask_hides_passwords_and_nothing_else(url: str, masked: str) -> None:
    assert mask(url) == masked


@pytest.mark.parametrize("seconds", [0, -1, 10.1, 415, float("nan"), float("inf")])
def test_a_time_out_that_would_let_repeats_run_on_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="socket_timeout"):
        connect("redis://localhost", socket_timeout=seconds, check=False)


# --- what a connection is


def test_replies_are_raw_resp2_bytes_read_by_hiredis(raw_redis: redis.Redis) -> None:
    raw_redis.hset("h", "field", "value")
    assert raw_redis.execute_command("HGETALL", "h") == {b"field": b"value"}
    made = raw_redis.connection_pool.get_connection()
    assert (made.protocol, type(made._parser).__name__) == (2, "_HiredisParser")
    raw_redis.connection_pool.release(made)


def test_a_connection_is_lazy_when_it_is_not_asked_to_check() -> None:
    with connect(f"redis://127.0.0.1:{free_port()}", check=False) as client, pytest.raises(BrokenError):
        client.ping()


def test_connections_have_a_name_for_client_list(raw_redis: redis.Redis) -> None:
    assert raw_redis.client_getname() in {"fsm", b"fsm"}


def test_more_threads_than_redis_py_has_connections_by_default_may_wait_at_once(raw_redis: redis.Redis) -> None:
    waiting = threading.Barrier(121)

    def wait_for_turn() -> Any:
        waiting.wait()
        return raw_redis.blpop(["turns"], timeout=9)

    with ThreadPoolExecutor(120) as pool:
        turns = [pool.submit(wait_for_turn) for _ in range(120)]
        waiting.wait()
        raw_redis.rpush("turns", *range(120))
        assert sorted(int(turn.result()[1]) for turn in turns) == list(range(120))


def _count(client: redis.Redis, answers: multiprocessing.SimpleQueue[int]) -> None:
    for _ in range(200):
        client.incr("count")
    answers.put(client.client_id())


def test_a_forked_child_may_go_on_with_the_connection_of_its_parent(raw_redis: redis.Redis) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    children = [context.Process(target=_count, args=(raw_redis, answers)) for _ in range(3)]
    for child in children:
        child.start()
    _count(raw_redis, answers)
    ids = {answers.get() for _ in range(4)}
    for child in children:
        child.join()
    assert len(ids) == 4
    assert raw_redis.get("count") == b"800"


def test_what_rq_hands_to_its_children_can_be_pickled(raw_redis: redis.Redis) -> None:
    settings = raw_redis.connection_pool.connection_kwargs
    copied = pickle.loads(pickle.dumps({"retry": settings["retry"], "connect": settings["redis_connect_func"]}))  # noqa: S301 - our own bytes
    assert copied["retry"] == settings["retry"]


# --- what a server must be


@pytest.mark.parametrize("version", ["6.0.16", "5.0.3", "2.8"])
def test_a_server_older_than_6_2_is_refused(version: str) -> None:
    with stub(says(f"redis_version:{version}\r\n")) as (url, _), pytest.raises(StoreError) as caught:
        connect(url)
    assert f"{url} has version {version}: use Redis 6.2 or newer, or Valkey" in str(caught.value)


@pytest.mark.parametrize(
    "info", ["redis_version:6.2.0", "redis_version:10.0.1", "redis_version:7.2.4\r\nserver_name:valkey", "odd:1"]
)
def test_a_newer_server_a_valkey_and_one_that_tells_no_version_will_do(info: str) -> None:
    with stub(says(f"{info}\r\n")) as (url, commands), connect(url):
        assert [command[0] for command in commands].count("INFO") == 1


def test_a_server_in_cluster_mode_is_refused(redis_server: EmbeddedServer) -> None:
    options = {"cluster-enabled": "yes", "port": str(free_port()), "cluster-port": str(free_port())}
    if _version(redis_server) < (7, 0):
        del options["cluster-port"]
        options["port"] = str(free_port() % 10_000 + 20_000)  # its bus takes port + 10000
    with EmbeddedServer(options) as server, pytest.raises(StoreError, match="runs in cluster mode"):
        connect(server.url)


def _version(server: EmbeddedServer) -> tuple[int, int]:
    with connect(server.url) as client:
        major, minor = str(client.info("server")["redis_version"]).split(".")[:2]
    return int(major), int(minor)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_evicts_warns_loudly_at_the_line_that_connects(
    tcp: tuple[EmbeddedServer, str], policy: str
) -> None:
    with connect(tcp[0].url) as admin:
        admin.config_set("maxmemory-policy", policy)
        try:
            with pytest.warns(RuntimeWarning, match=f"maxmemory-policy {policy}.*DROPS") as caught:
                connect(f"redis://ann:s3cr%2Ft%40@{tcp[1]}").close()
        finally:
            admin.config_set("maxmemory-policy", "noeviction")
    assert caught[0].filename == __file__
    assert "s3cr" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(tcp[0].url).close()


@pytest.mark.parametrize("denied", [["-info"], ["-info", "-hello"], ["-info", "-hello", "-client"]])
def test_a_user_who_may_not_ask_info_connects_all_the_same(tcp: tuple[EmbeddedServer, str], denied: list[str]) -> None:
    with connect(tcp[0].url) as admin:
        admin.acl_setuser("bob", enabled=True, passwords=["+pw"], commands=["+@all", *denied], keys=["*"])
    with connect(f"redis://bob:pw@{tcp[1]}") as client:
        assert client.ping() is True


def test_where_info_is_forbidden_hello_tells_what_the_server_is() -> None:
    def reply(command: list[str]) -> bytes:
        if command[0] == "INFO":
            return b"-NOPERM this user has no permissions to run the 'info' command\r\n"
        if command[0] == "HELLO":
            pairs = ("server", "redis", "version", "7.4.0", "mode", "cluster")
            return b"*6\r\n" + b"".join(map(bulk, pairs))
        return OK

    with stub(reply) as (url, _), pytest.raises(StoreError, match="runs in cluster mode"):
        connect(url)


def test_a_database_that_the_server_does_not_have_is_named(tcp: tuple[EmbeddedServer, str]) -> None:
    with pytest.raises(StoreError, match=f"{tcp[1]}/99 has no database of that number"):
        connect(f"redis://ann:s3cr%2Ft%40@{tcp[1]}/99")


# --- errors in plain words


def test_a_refused_connection_names_the_masked_url_and_what_to_try() -> None:
    port = free_port()
    with pytest.raises(StoreError) as caught:
        connect(f"redis://ann:s3cret@127.0.0.1:{port}/0")
    said = str(caught.value)
    assert f"Redis at redis://ann:***@127.0.0.1:{port}/0 cannot be reached" in said
    assert "FSM_URL" in said
    assert "embedded:///" in said
    assert isinstance(caught.value.__cause__, BrokenError)
    assert "s3cret" not in all_said(caught.value)


def test_a_socket_that_does_not_exist_is_named() -> None:
    with pytest.raises(StoreError, match=r"unix:///nowhere/redis\.sock needs a socket or file that is not there"):
        connect("unix:///nowhere/redis.sock")


def test_a_wrong_password_is_told_without_it(tcp: tuple[EmbeddedServer, str]) -> None:
    with pytest.raises(StoreError, match="does not let us in") as caught:
        connect(f"redis://ann:wrong-one@{tcp[1]}")
    assert "wrong-one" not in all_said(caught.value)


def test_a_server_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_HANDSHAKE_TIMEOUT", 0.01)
        patch.setattr(connection, "_REPEATS", 1)
        with pytest.raises(StoreError, match="does not answer in time"):
            connect(f"redis://127.0.0.1:{mute.getsockname()[1]}")


def test_a_full_server_is_told_whether_by_a_command_or_from_inside_a_script(tcp: tuple[EmbeddedServer, str]) -> None:
    with connect(tcp[0].url) as client:
        script = client.register_script("return redis.call('SET', KEYS[1], 'x')")
        client.config_set("maxmemory", 1)
        try:
            for write in (lambda: client.set("a", "b"), lambda: script(keys=["a"])):
                with pytest.raises(redis.RedisError) as caught:
                    write()
                assert "is full" in str(explain(caught.value, tcp[0].url))
        finally:
            client.config_set("maxmemory", 0)


def test_a_replica_is_told_whether_by_a_command_or_from_inside_a_script(tcp: tuple[EmbeddedServer, str]) -> None:
    with connect(tcp[0].url) as client:
        script = client.register_script("return redis.call('SET', KEYS[1], 'x')")
        client.replicaof("127.0.0.1", free_port())
        try:
            for write in (lambda: client.set("a", "b"), lambda: script(keys=["a"])):
                with pytest.raises(redis.RedisError) as caught:
                    write()
                assert "is a replica" in str(explain(caught.value, tcp[0].url))
        finally:
            client.replicaof("NO", "ONE")


def test_a_key_of_another_type_is_told_whether_by_a_command_or_from_inside_a_script(raw_redis: redis.Redis) -> None:
    raw_redis.set("a", "text")
    script = raw_redis.register_script("return redis.call('RPUSH', KEYS[1], 'x')")
    for write in (lambda: raw_redis.rpush("a", "b"), lambda: script(keys=["a"])):
        with pytest.raises(redis.RedisError) as caught:
            write()
        assert "holds something else under one of our names" in str(explain(caught.value, "unix:///x"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("Authentication required."), "does not let us in"),
        (BusyLoadingError("Redis is loading the dataset in memory"), "is still loading"),
        (MaxConnectionsError("Too many connections"), "too many threads"),
        (SilentError("Timeout reading from host:6379"), "does not answer in time"),
        (BrokenError("Error 111 connecting to host:6379. Connection refused."), "cannot be reached"),
        (BrokenError("Error -2 connecting to host:6379. Name or service not known."), "has a host name nobody knows"),
        (BrokenError("Error 13 connecting to unix socket: /s. Permission denied."), "this user may not open"),
        (BrokenError("Error 1 connecting to host:6379. [SSL: CERTIFICATE_VERIFY_FAILED]"), "on TLS"),
        (BrokenError("max number of clients reached"), "takes no more clients"),
        (BrokenError("Connection closed by server."), "broke the connection"),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "is full"),
        (ReadOnlyError("You can't write against a read only replica."), "is a replica"),
        (NoPermissionError("this user has no permissions to run the 'eval' command"), "does not allow this"),
        (NoScriptError("No matching script. Please use EVAL."), "has forgotten a script"),
        (ClusterDownError("Hash slot not served"), "cluster mode"),
        (AskError("3999 127.0.0.1:6381"), "cluster mode"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "cannot save them"),
        (ResponseError("unknown command 'LMOVE'"), "lacks a command"),
        (ResponseError("something new"), "cannot do this (something new)"),
    ],
)
def test_every_error_becomes_one_sentence_with_the_masked_url_and_a_remedy(error: redis.RedisError, said: str) -> None:
    explained = explain(error, "redis://ann:s3cret@host/0")
    assert isinstance(explained, StoreError)
    assert said in str(explained)
    assert "Redis at redis://ann:***@host/0 " in str(explained)
    assert ": " in str(explained).split(")")[-1]
    assert "s3cret" not in str(explained)


# --- repeats


def test_a_call_whose_reply_was_lost_is_repeated() -> None:
    lost = iter([None])
    with stub(lambda command: next(lost, b"$1\r\nv\r\n") if command[0] == "GET" else OK) as (url, commands):
        with connect(url, check=False) as client:
            assert client.get("key") == b"v"
        assert commands.count(["GET", "key"]) == 2


def test_a_call_is_sent_seven_times_at_most_with_short_pauses(no_pauses: list[float]) -> None:
    with stub(lambda command: None if command[0] == "GET" else OK) as (url, commands):
        with connect(url, check=False) as client, pytest.raises(BrokenError):
            client.get("key")
        assert commands.count(["GET", "key"]) == 7
    assert sum(no_pauses) <= 1.27


def test_tries_of_connecting_do_not_multiply_with_tries_of_the_call(
    no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    with stub(lambda command: None if command[0] == "GET" else OK) as (url, _), connect(url, check=False) as client:
        client.connection_pool.release(client.connection_pool.get_connection())

        def unreachable(self: redis.Connection) -> None:
            tries.append(self)
            raise TimeoutError

        monkeypatch.setattr(redis.Connection, "_connect", unreachable)
        with pytest.raises(SilentError):
            client.get("key")
    assert len(tries) == 6


def test_a_call_that_took_long_to_fail_is_not_repeated_after_eleven_seconds(clock: Callable[[float], None]) -> None:
    starts: list[float] = []

    def fail() -> None:
        starts.append(0)
        clock(10)  # a socket_timeout
        raise SilentError

    failures: list[Exception] = []
    with pytest.raises(SilentError):
        BoundedRetry().call_with_retry(fail, failures.append)
    assert (len(starts), len(failures)) == (2, 2)


def test_with_the_long_time_out_that_rq_sets_nothing_is_repeated(clock: Callable[[float], None]) -> None:
    starts: list[float] = []

    def fail() -> None:
        starts.append(0)
        clock(415)
        raise SilentError

    with pytest.raises(SilentError):
        BoundedRetry().call_with_retry(fail, lambda _: None)
    assert len(starts) == 1


def test_an_error_that_redis_answered_is_not_repeated(no_pauses: list[float]) -> None:
    with stub(lambda command: b"-ERR no\r\n" if command[0] == "GET" else OK) as (url, commands):
        with connect(url, check=False) as client, pytest.raises(ResponseError):
            client.get("key")
        assert commands.count(["GET", "key"]) == 1


def test_after_a_failure_the_same_connection_repeats_again(no_pauses: list[float]) -> None:
    lost = iter([None] * 7 + [None])
    with (
        stub(lambda command: next(lost, b"$1\r\nv\r\n") if command[0] == "GET" else OK) as (url, _),
        connect(url, check=False) as client,
    ):
        with pytest.raises(BrokenError):
            client.get("key")
        assert client.get("key") == b"v"


def test_the_handshake_waits_two_seconds_a_reply_and_a_call_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float | None]] = []
    send = redis.Connection.send_command

    def spy(self: redis.Connection, *args: Any, **options: Any) -> None:
        if self._sock is not None:
            seen.append((args[0], self._sock.gettimeout()))
        send(self, *args, **options)

    monkeypatch.setattr(redis.Connection, "send_command", spy)
    with stub(lambda _: OK) as (url, _), connect(f"{url}/1?password=pw", check=False) as client:
        client.ping()
        client.ping()
    assert seen == [("AUTH", 2.0), ("SELECT", 2.0), ("CLIENT", 2.0), ("PING", 10.0), ("PING", 10.0)]
