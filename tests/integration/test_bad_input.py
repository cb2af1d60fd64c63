"""Bad input from one end to the other: each gives an error that names the thing, and loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from fsm import (
    App,
    Client,
    ConfigError,
    FailedError,
    FSMExistsError,
    FSMFinishedError,
    HandlerError,
    InvalidDataError,
    Machine,
    NotAllowedError,
    PayloadError,
    Reject,
    RejectedError,
    Settings,
    StoreError,
    Transition,
    UnknownFSMError,
    UnknownMachineError,
    on,
)
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    Serve = Callable[..., None]

T = Transition[dict[str, Any]]


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    total: int = 0


@dataclass
class Line:
    sku: str
    price: int


class Shop(Machine[Cart]):
    settings = Settings(payload_limit=200)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : add
        open --> open : spoil
        open --> paid : pay
        paid --> [*] : close
    """

    @on("add")
    def add(self, t: Transition[Cart], line: Line) -> None:
        t.payload.items.append(line.sku)
        t.payload.total += line.price

    @on("spoil")
    def spoil(self, t: Transition[Cart]) -> None:
        t.payload.total = "much"  # type: ignore[assignment]  # that is what is tried


class Box(Machine[dict[str, Any]]):
    """Keeps what it is given, and does whatever a handler should not."""

    settings = Settings(endless=True, payload_limit=1000)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : keep
        on --> on : bad
    """

    @on("keep")
    def keep(self, t: T, data: Any) -> None:
        t.payload.setdefault("kept", []).append(data)

    @on("bad")
    def bad(self, t: T, what: str) -> Any:
        t.payload["spoilt"] = True
        t.send("nobody", "nothing")
        return BAD[what](self, t)


def set_memory(machine: Box, _: T) -> None:
    machine.memory = 1  # type: ignore[attr-defined]  # that is what is tried


def leave(_machine: Box, _: T) -> None:
    raise SystemExit(3)


BAD: dict[str, Callable[[Box, T], Any]] = {
    "self": set_memory,
    "exit": leave,
    "answer": lambda _, __: "on",
    "payload": lambda _, t: t.payload.update(x=object()),
    "large": lambda _, t: t.payload.update(x="x" * 2000),
    "nan": lambda _, t: t.payload.update(x=float("inf")),
    "list": lambda _, t: setattr(t, "payload", []),
    "reason": lambda _, __: Reject(object()),  # type: ignore[arg-type]  # that is what is tried
    "queue": lambda _, t: t.enqueue("shop.bank.charge", queue="\ud800"),
    "effect": lambda _, t: t.enqueue(lambda: None),
    "name": lambda _, t: t.send("\ud800", "keep"),
    "child": lambda _, t: t.start_fsm(Shop, "child", Cart(["x" * 300])),
    "reply": lambda _, t: t.reply(2**65),
}


@pytest.fixture
def serve(redis_url: str, raw_redis: redis.Redis) -> Serve:
    """Run a worker in this thread until nothing is left."""

    def run(*queues: str) -> None:
        worker = TransitionWorker(App([Shop, Box]), redis_url, queues or ("fsm",), lease_ms=2000)
        worker.work(burst=True, logging_level="WARNING")
        assert not raw_redis.keys("fsm:*:lock:*")

    return run


# Names.

NAMES = [
    "two words",
    "libc6:amd64",
    "fsm:default:snapshot:x",
    "a\nb\r\n\tc",
    "{tag}",
    "}{",
    "🐙 \u202e abc",
    "é" * 256,
    "x" * 512,
    " ",
    "*?[a]",
    "\x00\x7f",
    '"quoted" \\ and %s',
    "id:1",
    "-1",
]


def test_any_text_is_a_name_from_one_end_to_the_other(client: Client, raw_redis: redis.Redis, serve: Serve) -> None:
    handles = [client.start_fsm(Box, name) for name in NAMES]
    jobs = [handle.transition("keep", handle.name) for handle in handles]
    serve()

    for handle, job in zip(handles, jobs, strict=True):
        assert job.result().version == 2
        assert handle.state().payload == {"kept": [handle.name]}
        assert [line["name"] for line in handle.log()] == [handle.name] * 2
        assert job.rq_job().args == ["default", handle.name, "keep", handle.name]
    assert sorted(snapshot.name for snapshot in client.snapshots(machine="Box")) == sorted(NAMES)

    for handle in handles:
        handle.purge()
    assert not raw_redis.keys("fsm:default:snapshot:*")


@pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, "\ud800", "a\udfffb", None, 7, b"x"])
def test_what_is_no_name_is_refused_everywhere_and_nothing_is_written(
    client: Client, raw_redis: redis.Redis, name: Any
) -> None:
    asks: list[Callable[[], Any]] = [
        lambda: client.start_fsm(Box, name),
        lambda: client.start_many(Box, ["good", (name, None)]),
        lambda: client.transition(name, "keep"),
        lambda: client.transition_many([("good", "keep"), (name, "keep")]),
        lambda: client.call(name, "keep"),
        lambda: client.state(name),
        lambda: client.exists(name),
        lambda: client.allowed(name),
        lambda: client.purge(name),
        lambda: client.fsm(Box, name),
    ]

    for ask in asks:
        with pytest.raises(PayloadError, match="the name of an FSM"):
            ask()

    assert set(raw_redis.keys("*")) <= {b"fsm:default:machines", b"fsm:default:states", b"fsm:namespaces"}


@pytest.mark.parametrize("event", ["", "x" * 513, "\ud800", None, 7])
def test_what_is_no_event_is_refused(client: Client, event: Any) -> None:
    client.start_fsm(Box, "b")

    with pytest.raises(PayloadError, match="the name of an event"):
        client.transition("b", event)


@pytest.mark.parametrize("event", ["Keep", "keep!", "no such: \n{🐙}", "x" * 512, "[*]"])
def test_an_event_that_the_machine_does_not_know_is_refused_by_the_worker(
    client: Client, serve: Serve, event: str
) -> None:
    client.start_fsm(Box, "b")
    job = client.transition("b", event)
    serve()

    with pytest.raises(NotAllowedError, match="allowed here: keep, bad"):
        job.result()
    assert client.state("b").version == 2


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://localhost", "http"),
        ("localhost:6379", "localhost:6379"),
        ("redis://localhost:port", "port"),
        ("redis://localhost:99999", "99999"),
        ("redis://localhost/database", "database"),
        ("", "url|URL"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, text: str) -> None:
    with pytest.raises((ConfigError, StoreError), match=text), Client(url, namespace="default") as client:
        client.exists("x")


def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with (
        Client("redis://ada:secret@127.0.0.1:1", namespace="default") as client,
        pytest.raises(StoreError, match=r"127\.0\.0\.1:1") as raised,
    ):
        client.start_fsm(Box, "b")

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("namespace", ["a:b", "a b", "\ud800", "é"])
def test_a_namespace_that_cannot_be_is_refused(redis_url: str, namespace: str) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        Client(redis_url, namespace=namespace)


def test_namespaces_do_not_see_each_other(client: Client, redis_url: str, serve: Serve) -> None:
    with Client(redis_url, namespace="other") as other:
        client.start_fsm(Box, "b", {"in": "default"})
        other.start_fsm(Box, "b", {"in": "other"})
        serve()

        assert (client.state("b").payload, client.state("b").status) == ({"in": "default"}, "running")
        assert (other.state("b").payload, other.state("b").status) == ({"in": "other"}, "starting")


# FSMs and machines.


def test_unknown_existing_and_finished_fsms(client: Client, serve: Serve) -> None:
    with pytest.raises(UnknownFSMError, match="no FSM 's' in namespace 'default': start it first"):
        client.transition("s", "add")
    shop = client.start_fsm(Shop, "s", Cart(["tea"]))
    with pytest.raises(FSMExistsError, match="'s' exists already"):
        client.start_fsm(Shop, "s", Cart(["milk"]))
    shop.transition("pay")
    shop.transition("close")
    late = shop.transition("pay")
    serve()

    with pytest.raises(FSMFinishedError, match="'s' has finished in state 'paid'"):
        shop.transition("pay")
    with pytest.raises(FSMFinishedError):
        late.result()
    assert shop.state().payload == Cart(["tea"])


def test_an_fsm_of_an_unknown_machine_waits_and_says_so(
    client: Client, raw_redis: redis.Redis, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client.start_fsm(Box, "b")
    client.start_fsm(Box, "stranger")
    raw_redis.hset("fsm:default:snapshot:stranger", "machine", "Nobody")
    job = client.transition("stranger", "keep", 1)
    with pytest.raises(UnknownMachineError, match="unknown machine 'Nobody'"):
        client.allowed("stranger")
    raw_redis.zrem("fsm:default:ready:fsm", "stranger")
    serve()
    assert (client.state("b").status, job.status()) == ("running", "waiting")

    raw_redis.hset("fsm:default:snapshot:stranger", "machine", "Box")
    raw_redis.zadd("fsm:default:ready:fsm", {"stranger": 1})
    serve()

    assert job.result().ok


# Values.

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
VALUES: list[tuple[str, Any, str]] = [
    ("NaN", float("nan"), "NaN is not JSON"),
    ("infinity", float("-inf"), "-inf is not JSON"),
    ("65 bits", 2**64, "does not fit in 64 bits"),
    ("65 bits, negative", -(2**63) - 1, "does not fit in 64 bits"),
    ("bytes", b"x", "a bytes is not JSON"),
    ("a cycle", CYCLE, "refers to itself"),
    ("a key that is a number", {1: 2}, "key 1 is an int: keys of JSON are str"),
    ("a naive datetime", datetime(2026, 1, 1), "a datetime is not JSON"),  # noqa: DTZ001 - that is what is tried
    ("a tuple", (1, 2), "a tuple is not JSON"),
    ("a set", {1}, "a set is not JSON"),
    ("half a character", "\ud800", "half of a surrogate pair"),
    ("an object", object(), "an object is not JSON"),
]


@pytest.mark.parametrize(("value", "problem"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_values_that_are_no_json_are_refused_with_their_path_and_nothing_is_written(
    client: Client, raw_redis: redis.Redis, value: Any, problem: str
) -> None:
    client.start_fsm(Box, "b")
    before = set(raw_redis.keys("*"))

    with pytest.raises(PayloadError, match=problem) as raised:
        client.transition("b", "keep", {"list": [0, value]})
    assert raised.value.path.startswith("$.list[1]")
    for ask in (
        lambda: client.start_fsm(Box, "c", {"list": [0, value]}),
        lambda: client.transition("b", "keep", meta={"list": [0, value]}),
        lambda: client.transition_many([("b", "keep", 1), ("b", "keep", value)]),
    ):
        with pytest.raises(PayloadError, match=problem):
            ask()

    assert set(raw_redis.keys("*")) == before
    assert raw_redis.llen("fsm:default:mailbox:b") == 1


@pytest.mark.parametrize(
    "value",
    [[], {}, "", 0, -0.0, 1e308, 2**64 - 1, -(2**63), "🐙\x00\u2028", {"": {"a b": [None, True]}}, [[]] * 3],
    ids=repr,
)
def test_values_that_are_json_come_out_as_they_went_in(client: Client, serve: Serve, value: Any) -> None:
    client.start_fsm(Box, "b", {"first": value})
    client.transition("b", "keep", value)
    serve()

    payload = client.state("b").payload
    assert payload == {"first": value, "kept": [value]}
    assert repr(payload["first"]) == repr(value)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"sku": "tea", "price": "12"}, r"\$\.price"),
        ({"sku": "tea"}, "price"),
        ({"sku": "tea", "price": 12, "colour": "green"}, "colour"),
        ({"sku": "tea", "price": 1.5}, r"\$\.price"),
        ([], r"\$"),
        (None, r"\$"),
    ],
)
def test_data_that_are_not_of_their_type_are_refused_by_the_sender_or_the_worker(
    client: Client, serve: Serve, data: Any, path: str
) -> None:
    shop = client.start_fsm(Shop, "s", Cart(["milk"]))
    if data is not None:
        with pytest.raises(PayloadError, match=path):
            shop.transition("add", data)
    job = client.transition("s", "add", data)
    serve()

    with pytest.raises(InvalidDataError, match=path):
        job.result()
    assert shop.state().payload == Cart(["milk"])


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"items": [1]}, r"\$\.items\[0\]"),
        ({"total": True}, r"\$\.total"),
        ({"colour": 1}, "colour"),
        (Line("tea", 1), r"\$"),
        (Cart(["x" * 200]), r"the payload has \d+ bytes, and Settings\(payload_limit=…\) allows 200"),
    ],
)
def test_a_payload_that_is_not_of_its_type_or_too_large_starts_nothing(client: Client, payload: Any, text: str) -> None:
    with pytest.raises(PayloadError, match=text):
        client.start_fsm(Shop, "s", payload)

    assert not client.exists("s")


# What handlers do.


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("self", "state belongs in t.payload"),
        ("exit", "3"),
        ("answer", "a handler answers None, Goto, Stay, Reject or Retry, not 'on'"),
        ("payload", r"\$\.x: an object is not JSON"),
        ("large", r"the payload has \d+ bytes, and Settings\(payload_limit=…\) allows 1000"),
        ("nan", r"\$\.x: inf is not JSON"),
        ("list", "pass a dict, not a list"),
        ("reason", "a reason is text"),
        ("queue", "the queue of an effect is its name"),
        ("effect", "use a function of a module"),
        ("name", "lone surrogate"),
        ("child", "the payload has"),
        ("reply", "does not fit in 64 bits"),
    ],
)
def test_what_a_handler_must_not_do_fails_by_name_and_changes_nothing(
    client: Client, raw_redis: redis.Redis, serve: Serve, what: str, text: str
) -> None:
    client.start_fsm(Box, "b", {"n": 7})
    client.start_fsm(Box, "neighbour")
    first = client.transition("neighbour", "keep", 1)
    bad = client.transition("b", "bad", what)
    after = client.transition("b", "keep", 2)
    serve()

    with pytest.raises(HandlerError, match=text) as raised:
        bad.result()
    assert (raised.value.name, raised.value.event, raised.value.job_id) == ("b", "bad", bad.id)
    assert first.result().ok
    assert after.result().ok
    assert client.state("b").payload == {"n": 7, "kept": [2]}
    assert raw_redis.zrange("rq:failed:fsm", 0, -1) == [bad.id.encode()]
    assert not raw_redis.exists("rq:queue:fsm-effects")


def test_a_typed_payload_that_a_handler_spoils_fails_with_its_path(client: Client, serve: Serve) -> None:
    shop = client.start_fsm(Shop, "s", Cart(["tea"], 12))
    job = shop.transition("spoil")
    serve()

    with pytest.raises(HandlerError, match=r"\$\.total"):
        job.result()
    assert shop.state().payload == Cart(["tea"], 12)


def test_a_rejection_is_no_failure(client: Client, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BAD, "reject", lambda _, __: Reject("not today", tomorrow=True))
    client.start_fsm(Box, "b")
    job = client.transition("b", "bad", "reject")
    serve()

    with pytest.raises(RejectedError, match="not today") as raised:
        job.result()
    assert raised.value.details == {"tomorrow": True}


# What lies in Redis.


@pytest.mark.parametrize("kind", ["snapshot", "mailbox"])
def test_a_key_of_another_type_under_our_name_is_named_and_left_alone(
    client: Client, raw_redis: redis.Redis, serve: Serve, kind: str
) -> None:
    key = f"fsm:default:{kind}:b"
    if kind == "mailbox":
        client.start_fsm(Box, "b")
        raw_redis.delete(key)
    raw_redis.set(key, "not ours")
    client.start_fsm(Box, "neighbour")
    asks: list[Callable[[], Any]] = [lambda: client.transition("b", "keep", 1), lambda: client.purge("b")]
    if kind == "snapshot":
        asks += [lambda: client.start_fsm(Box, "b"), lambda: client.state("b")]

    for ask in asks:
        with pytest.raises(StoreError, match=rf"FSM 'b'.*{key}|{key}.*FSM 'b'"):
            ask()
    verdicts = client.transition_many([("b", "keep", 1), ("neighbour", "keep", 2)])
    serve()

    assert [verdict.ok for verdict in verdicts] == [False, True]
    assert client.state("neighbour").payload == {"kept": [2]}
    assert raw_redis.get(key) == b"not ours"


def test_a_job_record_of_another_type_costs_its_own_event_only(
    client: Client, raw_redis: redis.Redis, serve: Serve
) -> None:
    client.start_fsm(Box, "b")
    jobs = [client.transition("b", "keep", number) for number in range(3)]
    raw_redis.delete(f"rq:job:{jobs[1].id}")
    raw_redis.set(f"rq:job:{jobs[1].id}", "not ours")
    serve()

    assert client.state("b").payload == {"kept": [0, 2]}
    assert jobs[2].result().ok
    assert raw_redis.get(f"rq:job:{jobs[1].id}") == b"not ours"


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"data": "nonsense"}, HandlerError, "its job record was edited by hand"),
        ({"data": b"\xff\xfe"}, HandlerError, "its job record was edited by hand"),
        ({"event": "other"}, NotAllowedError, "allowed here: keep"),
        ({"born": "1"}, FailedError, "took it away"),
        ({"place": "gone"}, FailedError, "took it away"),
        ({"status": "canceled"}, FailedError, "took it away"),
        ({"place": "done"}, StoreError, "was it edited by hand"),
        ({"place": "done", "result": "{"}, StoreError, "was it edited by hand"),
    ],
)
def test_a_job_record_edited_by_hand_is_told_of_and_delays_nobody(
    client: Client, raw_redis: redis.Redis, serve: Serve, fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    client.start_fsm(Box, "b")
    jobs = [client.transition("b", "keep", number) for number in range(3)]
    raw_redis.hset(f"rq:job:{jobs[1].id}", mapping=fields)
    serve()

    with pytest.raises(error, match=text):
        jobs[1].result(1)
    assert client.state("b").payload == {"kept": [0, 2]}
    assert jobs[0].result().ok
    assert jobs[2].result().ok


@pytest.mark.parametrize("fields", [{"status": "finished"}, {"meta": "{"}, {"origin": "elsewhere"}, {"timeout": "x"}])
def test_what_does_not_matter_in_a_job_record_may_be_edited(
    client: Client, raw_redis: redis.Redis, serve: Serve, fields: dict[str, Any]
) -> None:
    client.start_fsm(Box, "b")
    job = client.transition("b", "keep", 1)
    raw_redis.hset(f"rq:job:{job.id}", mapping=fields)
    serve()

    assert job.result().ok
    assert client.state("b").payload == {"kept": [1]}


EDITS: list[dict[str, Any]] = [
    {"payload": "{"},
    {"version": "x"},
    {"state": "nowhere"},
    {"history": "["},
    {"tries": "x"},
    {"machine": "Nobody"},
    {"updated_at": "x"},
    {"error": "{"},
    {"status": "x"},
]


@pytest.mark.parametrize("fields", EDITS, ids=str)
def test_a_snapshot_edited_by_hand_takes_no_neighbour_and_no_worker_down(
    client: Client, raw_redis: redis.Redis, serve: Serve, fields: dict[str, Any]
) -> None:
    client.start_fsm(Box, "b", {"n": 7})
    client.start_fsm(Box, "neighbour")
    serve()
    snapshot = "fsm:default:snapshot:b"
    whole = raw_redis.hgetall(snapshot)
    raw_redis.hset(snapshot, mapping=fields)
    mine = client.transition("b", "keep", 1)
    other = client.transition("neighbour", "keep", 2)
    serve()
    assert other.result(1).ok

    # Put right again, it goes on with all that it had.
    edited = list(fields)
    raw_redis.hdel(snapshot, *edited)
    if before := {name: value for name, value in whole.items() if name.decode() in fields}:
        raw_redis.hset(snapshot, mapping=before)
    raw_redis.zadd("fsm:default:ready:fsm", {"b": 1})
    serve()
    # Who looked at a payload that cannot be read has failed by name; all else waited.
    assert mine.status() == ("failed" if "payload" in fields else "done")
    assert client.state("b").payload["n"] == 7


@pytest.mark.parametrize("key", ["fsm:default:snapshot:b machine", "rq:job:mine event"])
def test_bytes_that_are_no_text_take_no_neighbour_and_no_worker_down(
    client: Client, raw_redis: redis.Redis, serve: Serve, key: str
) -> None:
    client.start_fsm(Box, "b")
    client.transition("b", "keep", 1, job_id="mine")
    client.start_fsm(Box, "neighbour")
    other = client.transition("neighbour", "keep", 2)
    record, name = key.split()
    raw_redis.hset(record, name, b"\xff")
    serve()

    assert other.result(0.1).ok
