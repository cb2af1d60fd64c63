"""How a client gets to Redis: one round trip a call, shared by threads, used after a fork, bulk sent ahead."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, Machine, MailboxFullError, RefusedError, Settings, StoreError, UnknownFSMError
from fsm.store.requests import Request, run
from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from fsm.store.embedded import EmbeddedServer


class Box(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : put
    """


class Small(Box):
    # Its entry event is one of them.
    settings = Settings(endless=True, max_mailbox=6)


@pytest.fixture
def shaky(raw_redis: redis.Redis, redis_server: EmbeddedServer) -> Iterator[tuple[Client, Proxy]]:
    """A client, and the way to Redis that it goes."""
    with Proxy(redis_server.url.removeprefix("unix://")) as proxy, Client(proxy.url) as client:
        yield client, proxy


def mail(client: Client, name: str) -> list[str]:
    """Ids of the events that wait for an FSM, without its entry event."""
    ids: Any = client.redis.lrange(client.keys.mailbox(name), 1, -1)
    return [job_id.decode() for job_id in ids]


def test_an_event_is_sent_in_one_round_trip_over_a_connection_that_is_there(
    client: Client, raw_redis: redis.Redis
) -> None:
    # Seen to fail with a PING before each call.
    client.start_fsm(Box, "box").transition("put")
    stats: Any = raw_redis.info("stats")
    with raw_redis.monitor() as monitor:
        for number in range(3):
            client.transition("box", "put", number, key=f"k{number}", machine=Box)
        raw_redis.echo("over")
        seen: list[str] = []
        while "over" not in (line := monitor.next_command())["command"]:
            if line["client_type"] != "lua":
                seen.append(line["command"].split()[0])

    after: Any = raw_redis.info("stats")
    # Behind them, this test's own connection gets its name.
    assert (seen[:3], set(seen[3:]) - {"CLIENT"}) == (["EVALSHA"] * 3, set())
    # One for the monitor, and one beside it for this test.
    assert after["total_connections_received"] - stats["total_connections_received"] <= 2


def test_each_of_many_threads_gets_the_answers_to_its_own_calls(client: Client) -> None:
    # Seen to fail where `Wire` leaves the connection that it takes among those that are idle.
    names = [f"box-{number}" for number in range(8)]
    client.start_many(Box, names)

    def send(name: str) -> list[str]:
        ids = []
        for number in range(40):
            ids.append(client.transition(name, "put", number).id)
            with pytest.raises(UnknownFSMError) as refused:
                client.transition(f"no {name} {number}", "put")
            assert refused.value.name == f"no {name} {number}"
        return ids

    with ThreadPoolExecutor(len(names)) as pool:
        sent = list(pool.map(send, names))

    assert [mail(client, name) for name in names] == sent


def _send_for(client: Client, name: str, answers: Any) -> None:
    # Of a key the reply tells the id, so that one's reply is not another's.
    answers.put((name, [client.transition(name, "put", key=f"{name} {number}").id for number in range(100)]))


def test_a_client_goes_on_in_parent_and_children_at_once_after_a_fork(client: Client) -> None:
    # Seen to fail where `Wire` does not look whose process it is in: they took each other's replies.
    names = [f"box-{number}" for number in range(4)]
    client.start_many(Box, names)
    client.transition(names[0], "put")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    children = [context.Process(target=_send_for, args=(client, name, answers)) for name in names[1:]]
    for child in children:
        child.start()
    _send_for(client, names[0], answers)
    sent = dict(answers.get() for _ in names)
    for child in children:
        child.join(30)

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert mail(client, names[0])[1:] == sent[names[0]]
    assert [mail(client, name) for name in names[1:]] == [sent[name] for name in names[1:]]


def test_a_call_that_a_signal_breaks_off_leaves_no_reply_to_the_next(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where `Wire` keeps that connection: the next call was told of an FSM that it had not named.
    client.start_fsm(Box, "box").transition("put")
    (connection,) = client.redis._idle  # type: ignore[attr-defined]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.transition("nobody", "put")

    assert client.transition("box", "put").status() == "waiting"


def _many(client: Client, *commands: tuple[Any, ...]) -> Any:
    return client.ask(Request(lambda reply: reply, commands=commands))


def test_many_commands_at_once_are_read_as_redis_py_reads_them(client: Client) -> None:
    client.redis.hset("fsm:h", mapping={"a": "1"})
    client.redis.zadd("fsm:z", {"m": 1.5})
    client.redis.sadd("fsm:s", "x")

    found = _many(client, ("HGETALL", "fsm:h"), ("ZSCAN", "fsm:z", 0), ("SMEMBERS", "fsm:s"), ("GET", "fsm:none"))

    assert found == [{b"a": b"1"}, (0, [(b"m", 1.5)]), {b"x"}, None]


def test_an_error_among_the_replies_to_many_commands_is_raised_and_leaves_none_of_them_behind(client: Client) -> None:
    # Seen to fail where the error is raised as it is read: the next call was given the replies behind it.
    client.redis.set("fsm:text", "x")

    with pytest.raises(StoreError, match="WRONGTYPE"):
        _many(client, ("GET", "fsm:text"), ("LLEN", "fsm:text"), ("GET", "fsm:text"))

    assert _many(client, ("ECHO", "one"), ("ECHO", "two")) == [b"one", b"two"]


@pytest.mark.parametrize("of_replies", [False, True])
def test_many_commands_are_asked_again_over_a_new_connection_where_the_old_one_breaks(
    shaky: tuple[Client, Proxy], *, of_replies: bool
) -> None:
    client, proxy = shaky
    assert _many(client, ("ECHO", "one"), ("ECHO", "two")) == [b"one", b"two"]

    proxy.break_once(of_replies=of_replies, at=12)

    assert _many(client, ("ECHO", "three"), ("ECHO", "four")) == [b"three", b"four"]
    assert proxy.breaks == 1


def test_many_commands_that_a_signal_breaks_off_leave_no_reply_to_the_next_call(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where `Wire` keeps that connection.
    _many(client, ("ECHO", "one"), ("ECHO", "two"))
    (connection,) = client.redis._idle  # type: ignore[attr-defined]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _many(client, ("ECHO", "three"), ("ECHO", "four"))

    assert _many(client, ("ECHO", "five"), ("ECHO", "six")) == [b"five", b"six"]


@pytest.mark.parametrize("how", ["command", "pipeline", "transaction"])
def test_a_plain_command_that_a_signal_breaks_off_before_its_reply_leaves_none_to_the_next(
    client: Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # Seen to fail without each of the three of `Wire`: redis-py gave the connection back with the reply on its way.
    client.redis.ping()
    (connection,) = client.redis.connection_pool._available_connections

    def ask() -> Any:
        if how == "command":
            return client.redis.echo("one")
        return client.redis.pipeline(transaction=how == "transaction").echo("one").echo("two").execute()

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask()

    assert connection._sock is None
    assert client.redis.echo("three") == b"three"


def test_a_plain_command_whose_reply_redis_py_reads_in_a_way_of_its_own_is_read_so(client: Client) -> None:
    # Seen to fail where all plain commands went the short way: a list came in the place of a dict.
    run(client.redis, Request(lambda _: None, commands=[("HSET", "plain", "field", "value")]))
    assert run(client.redis, Request(dict, commands=[("HGETALL", "plain")])) == {b"field": b"value"}


def test_a_server_that_closed_an_idle_connection_is_asked_again(client: Client, raw_redis: redis.Redis) -> None:
    client.start_fsm(Box, "box").transition("put")
    raw_redis.client_kill_filter(_type="normal", skipme=True)

    assert client.transition("box", "put").status() == "waiting"
    assert len(mail(client, "box")) == 2


@pytest.mark.parametrize("of_replies", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bulk_goes_on_where_the_connection_breaks_with_calls_under_way(
    shaky: tuple[Client, Proxy], monkeypatch: pytest.MonkeyPatch, share: float, *, of_replies: bool
) -> None:
    # Seen to fail where `Ahead` carries again only the oldest call without a reply.
    monkeypatch.setattr("fsm.store.calls.MOST_ITEMS", 50)
    client, proxy = shaky
    names = [f"box-{number}" for number in range(100)]
    client.start_many(Box, names)
    client.transition(names[0], "put")
    items = [(name, "put", number) for number in range(4) for name in names]
    whole = proxy.requested, proxy.replied
    client.transition_many(items)
    passed = (proxy.requested - whole[0], proxy.replied - whole[1])

    proxy.break_once(of_replies=of_replies, at=int(share * passed[of_replies]))
    verdicts = client.transition_many(items)

    assert proxy.breaks == 1
    assert all(verdict.ok for verdict in verdicts)
    for name in names:
        ids = [verdict.job_id for verdict in verdicts if verdict.name == name]
        assert mail(client, name)[-4:] == ids
        assert len(mail(client, name)) == 8 + (name == names[0])


def test_what_was_sent_ahead_too_long_ago_is_not_sent_again(
    shaky: tuple[Client, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail without the look at the clock: a repeat could come when its record was gone, and be taken for new.
    monkeypatch.setattr("fsm.store.calls.MOST_ITEMS", 50)
    client, proxy = shaky
    names = [f"box-{number}" for number in range(200)]
    client.start_many(Box, names)
    client.transition(names[0], "put")
    monkeypatch.setattr("fsm.store.ahead.REPEAT_WITHIN", -1.0)

    proxy.break_once(of_replies=True, at=300)

    with pytest.raises(StoreError, match="may have been done"):
        client.transition_many([(name, "put") for name in names])


def test_after_a_refusal_nothing_of_that_fsm_is_sent_in_later_calls_though_they_are_sent_ahead(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail where a call is sent ahead though an FSM of it is in one under way: it was refused there once more,
    # and had room come meanwhile, its mail would have had a gap.
    monkeypatch.setattr("fsm.store.calls.MOST_ITEMS", 4)
    client.start_fsm(Small, "small")
    client.start_many(Box, [f"box-{number}" for number in range(8)])
    items = [(name, "put", n) for n in range(4) for name in ("small", "small", f"box-{2 * n}", f"box-{2 * n + 1}")]
    items += [("small", "put", 9)] * 3

    verdicts = client.transition_many(items)

    ours = [verdict for verdict in verdicts if verdict.name == "small"]
    assert [type(verdict.error) for verdict in ours] == [type(None)] * 5 + [MailboxFullError] + [RefusedError] * 5
    assert mail(client, "small") == [verdict.job_id for verdict in ours[:5]]
    assert all(verdict.ok for verdict in verdicts if verdict.name != "small")
