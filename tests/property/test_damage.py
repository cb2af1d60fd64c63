"""Whatever somebody wrote by hand into Redis: workers go on with all others, and who looks is told, never by a crash.

`HYPOTHESIS_PROFILE=long` tries many more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fsm import Client, FSMError, Machine, RetryPolicy, Settings, Transition, on, registry, verbs
from fsm.app import App
from fsm.cli.root import main
from fsm.engine import Retry
from fsm.store import calls
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers.answers import EffectsWatch
from workers.carrier import Carrier
from workers.executors import InlineExecutor
from workers.serving import Turn, serve
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from fsm.store.embedded import EmbeddedServer

KEYS = Keys("default")
# With a real Redis, which is quicker than Lua in Python; an example makes some sixty requests.
quick = settings(
    max_examples=settings.default.max_examples // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Box(Machine):
    """A box with a hard event, a retry, an effect and a failure: all of the fields that a snapshot can have."""

    settings = Settings(retry=RetryPolicy(attempts=2, delay="1ms", jitter=0))
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : put
        open --> open : fail
        open --> open : again
        open --> closing : close
        closing --> closed : latch!
        closed --> open : reopen
        open --> [*] : burn
    """

    @on("put")
    def put(self, t: Transition) -> None:
        """Count, and ask for an effect."""
        t.payload["puts"] = t.payload.get("puts", 0) + 1
        t.reply(t.meta)
        t.enqueue("shop.bank.charge", t.data, on_success="put", on_failure="fail")

    @on("fail")
    def fail(self, _t: Transition) -> None:
        """Fail."""
        raise ValueError("no")

    @on("again")
    def again(self, t: Transition) -> Retry | None:
        """Be tried again."""
        return Retry(after="1ms") if t.attempt == 1 else None


@pytest.fixture(scope="module")
def server(redis_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as client:
        yield client


class World:
    """A Redis with an FSM that is damaged, `a`, and a neighbour, `b`; and a worker, which any fault stops."""

    def __init__(self, connection: redis.Redis, url: str) -> None:
        self.redis: Any = connection
        self.redis.flushall()
        self.client = Client(url)
        self.app = App([Box])
        self.executor = InlineExecutor()
        self.app.open(self.executor.drive)
        self.number = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.app.close()
        self.executor.close()

    def turn(self) -> int:
        """Serve as a worker does; it gives how many FSMs were served."""
        self.number += 2
        run(self.redis, calls.recover(KEYS))
        run(self.redis, calls.due(KEYS, ahead_ms=1000))
        turn = Turn(self.redis, self.app.behaviours, KEYS, "w", "fsm", self.number, 60_000, fsms=100)
        served = serve(turn, self.executor)
        return served.written

    def settle(self) -> None:
        """Serve until nothing is left to do; what is damaged must not be served for ever."""
        for _ in range(30):
            if not self.turn() and not self.turn():
                return
        keys = {key: self.redis.type(key) for key in self.redis.keys("fsm:*")}
        pytest.fail(f"served without end: {keys}")


ID = "aaaaaaaaaaaaaaaaaaaaaaaa"
NAMES = ("a", "b")
# What is found in a field that somebody edited: nothing, text, numbers of all sorts, JSON of another form, no UTF-8.
numbers = st.sampled_from(
    ["-1", "0", "1", "1.5", "1e400", "nan", "inf", "-inf", "0x10", "٣", "²", "9" * 16, "9" * 30, "9" * 5000, " 1", "1 "]
)
jsons = st.sampled_from(
    ["null", "[]", "{}", "0", '"x"', "[1]", '{"a":1}', "1e400", f'{{"a":{"[" * 250}1{"]" * 250}}}',
     f'{{"a":{"[" * 190}1{"]" * 190}}}', f'{{"a":{"9" * 25}}}', "[" * 200 + "]" * 200, "[" * 600 + "]" * 600, "{",
     '"\\ud800"', "123456789012345678901234567890", "[[[]]]", '{"at_ms":"x","type":[],"message":{}}',
     '{"event":null,"job":[1],"at_ms":1e300,"message":"m"}', "[null,1,{}]", "NaN"]
)  # fmt: skip
words = st.sampled_from(
    ["", "a", "open", "closed", "closing", "nowhere", "starting", "running", "finished", "failed", "paused", "purging",
     "mail", "later", "done", "gone", "queued", "started", "scheduled", "canceled", "Box", "Lid", "fsm", "default",
     "put", "burn", "[*]", ID, "x y", "a\nb", "a\x00b", "é", "*"]
)  # fmt: skip
data = jsons.map(lambda one: f'["workers.jobs.transition",null,["default","a","put",{one}],{{}}]')
values = st.one_of(numbers, jsons, words, data).map(str.encode) | st.binary(max_size=12)
SNAPSHOT_FIELDS = (
    "machine", "state", "payload", "version", "status", "born", "queue", "error", "refused", "history", "timers",
    "definition", "definition_version", "worker", "commit", "tries", "owes", "retry_at", "paused", "failed_from",
    "started_at", "updated_at", "max_mailbox", "probation", "strange",
)  # fmt: skip
JOB_FIELDS = (
    "status", "place", "fsm", "ns", "event", "born", "data", "description", "origin", "created_at", "enqueued_at",
    "started_at", "ended_at", "timeout", "result_ttl", "meta", "asked", "if_version", "key", "digest", "attempt",
    "result", "exc_info", "worker_name", "retries_left", "strange",
)  # fmt: skip
ids = st.sampled_from([ID, "b" * 24, "none", "", "a b", "x--h1", "é", "a\x00", "e1", "*"]).map(str.encode) | st.binary(
    max_size=6
)


COMMANDS = [
    ["info"], ["state", "a"], ["state", "--json", "a"], ["ls"], ["ls", "--json"], ["jobs", "a"],
    ["jobs", "--json", "a"], ["log"], ["log", "--json"], ["history", "a"], ["info", "--json"], ["machines"],
]  # fmt: skip


def fields_of(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, bytes | None]]:
    """Draw fields to be overwritten, or removed where the value is `None`."""
    return st.dictionaries(st.sampled_from(names), st.none() | values, min_size=1, max_size=4)


def write(client: Any, key: str, fields: dict[str, bytes | None]) -> None:
    """Overwrite fields of a hash, as somebody does with redis-cli."""
    for name, value in fields.items():
        if value is None:
            client.hdel(key, name)
        else:
            client.hset(key, name, value)


def replace_by(client: Any, key: str, kind: str) -> None:
    """Put a key of another type in the place of one of ours."""
    client.delete(key)
    match kind:
        case "string":
            client.set(key, "x")
        case "list":
            client.rpush(key, "x")
        case "hash":
            client.hset(key, "x", "y")
        case "zset":
            client.zadd(key, {"x": 1})
        case "stream":
            client.xadd(key, {"x": "y"})


kinds = st.sampled_from(["none", "string", "list", "hash", "zset", "stream"])


@pytest.fixture
def world(server: redis.Redis, redis_url: str) -> Iterator[World]:
    with World(server, redis_url) as made:
        yield made


def begin(world: World) -> None:
    """Begin anew: both FSMs run, and have mail."""
    world.redis.flushall()
    world.client._announced.clear()
    world.client.start_many(Box, NAMES)
    world.settle()
    world.client.transition("a", "again", job_id=ID)
    world.client.transition("a", "put", {"n": 1}, meta={"by": "ada"}, key="k")
    world.client.transition("a", "fail", if_version=9)
    world.client.transition("b", "put", job_id="b" * 24)


def check(world: World) -> None:
    """The worker goes on, the neighbour is served, and whoever looks is told something."""
    world.settle()
    assert world.client.state("b").payload == {"puts": 1}
    look(world)
    steer(world)
    world.settle()
    world.client.transition("b", "put")
    world.settle()
    assert world.client.state("b").payload == {"puts": 2}


def look(world: World) -> None:
    """Look at the damaged one in all ways; nothing but our own errors may come of it."""
    client = world.client
    looks: list[Any] = [
        lambda: client.state("a"),
        lambda: client.state("a", Box).payload,
        lambda: client.state("a").as_json(),
        lambda: client.exists("a"),
        lambda: client.history("a"),
        lambda: client.allowed("a"),
        lambda: client.jobs("a").as_json(),
        lambda: list(client.log("a")),
        lambda: [one.as_json() for one in client.snapshots()],
        lambda: client.do(verbs.why(KEYS, "a")),
        lambda: client.do(verbs.why(KEYS, "a", ID)),
        lambda: client.do(registry.cluster(KEYS)),
        lambda: client.do(verbs.counts(KEYS)),
        lambda: client.job(ID).result(0),
        lambda: client.job(ID).result(0, settle=True),
        lambda: client.wait_for("a", "closed", timeout=0),
    ]
    for one in looks:
        with contextlib.suppress(FSMError):
            one()
    # The commands cost more than all else, so each example tries one.
    arguments = COMMANDS[world.number // 2 % len(COMMANDS)]
    result = CliRunner().invoke(main, ["--url", client.url, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception


def steer(world: World) -> None:
    """Do to the damaged one what can be done."""
    client = world.client
    deeds: list[Any] = [
        lambda: client.transition("a", "put", key="k"),
        lambda: client.transition("a", "put", if_version=1),
        lambda: client.transition("a", "put", job_id=ID),
        lambda: client.transition_many([("a", "put"), ("a", "close"), ("b", "close"), ("b", "reopen")]),
        lambda: client.start_fsm(Box, "a"),
        lambda: client.start_fsm(Box, "a", exist_ok=True),
        lambda: client.transition("a", "put", start=Box),
        lambda: client.job(ID).cancel(),
        lambda: client.pause("a"),
        lambda: client.resume("a"),
        lambda: client.retry("a", timeout=0),
        lambda: client.skip("a", timeout=0),
    ]
    for one in deeds:
        with contextlib.suppress(FSMError):
            one()


@quick
@given(fields=fields_of(SNAPSHOT_FIELDS))
# Seen to fail: it stopped each worker that claimed it, with what else the claim had taken.
@example(fields={"born": None, "tries": b"null"})
@example(fields={"version": b"9" * 5000})
@example(fields={"payload": b"[" * 600 + b"]" * 600})
def test_a_snapshot_with_any_fields_stops_nobody_else(world: World, fields: dict[str, bytes | None]) -> None:
    begin(world)
    write(world.redis, KEYS.snapshot("a"), fields)
    check(world)
    with contextlib.suppress(FSMError):
        world.client.purge("a", timeout=0)


@quick
@given(fields=fields_of(JOB_FIELDS), which=st.integers(0, 2), urgent=st.booleans())
def test_a_job_record_with_any_fields_stops_nobody_else(
    world: World, fields: dict[str, bytes | None], which: int, urgent: bool
) -> None:
    begin(world)
    found = world.redis.lrange(KEYS.mailbox("a"), 0, -1)[which].decode()
    write(world.redis, KEYS.job(found), fields)
    if urgent:
        world.redis.lrem(KEYS.mailbox("a"), 0, found)
        world.redis.rpush(KEYS.urgent("a"), found)
        world.redis.hset(KEYS.snapshot("a"), "owes", found)
    check(world)


@quick
@given(
    lists=st.lists(
        st.tuples(st.sampled_from(["mailbox", "urgent", "queue", "ready", "held", "timers"]), ids), max_size=6
    )
)
# Seen to fail: an event of another FSM was applied to this one, and then passed over in that.
@example(lists=[("mailbox", b"b" * 24)])
# Seen to fail: what is no UTF-8 was put back by each commit, for ever; and stopped who owed it.
@example(lists=[("mailbox", b"\x80")])
@example(lists=[("urgent", b"\x80")])
def test_ids_of_any_form_in_any_list_stop_nobody_else(world: World, lists: list[tuple[str, bytes]]) -> None:
    begin(world)
    for where, value in lists:
        match where:
            case "mailbox":
                world.redis.lpush(KEYS.mailbox("a"), value)
            case "urgent":
                world.redis.lpush(KEYS.urgent("a"), value)
                world.redis.hset(KEYS.snapshot("a"), "owes", value)
            case "queue":
                world.redis.lpush("rq:queue:fsm", value)
            case "ready":
                world.redis.zadd(KEYS.ready("fsm"), {value: 0})
            case "held":
                world.redis.zadd(KEYS.held, {value: 0})
            case "timers":
                world.redis.zadd(KEYS.timers, {b"retry " + value: 0})
    check(world)


@quick
@given(
    fields=fields_of(JOB_FIELDS),
    note=st.none() | values,
    status=st.sampled_from(["queued", "started", "finished", "failed", "canceled", "scheduled", "stopped", "x"]),
    kind=st.none() | kinds,
)
def test_effects_of_any_form_stop_nobody_else(
    world: World, fields: dict[str, bytes | None], note: bytes | None, status: str, kind: str | None
) -> None:
    begin(world)
    world.settle()
    (effect,) = world.redis.hkeys(KEYS.effects_of("a"))
    key = KEYS.job(effect.decode())
    world.redis.hset(key, "status", status)
    write(world.redis, key, fields)
    if note is not None:
        world.redis.hset(KEYS.effects_of("a"), effect, note)
    if kind:
        replace_by(world.redis, KEYS.result(effect.decode()), kind)
    for _ in range(2):
        world.redis.zadd(KEYS.effects, {effect + b" a": 0})
        carrier = Carrier(world.redis, world.client.url, lambda: False)
        EffectsWatch(world.redis, carrier, KEYS).look()
    check(world)


# Not shrunk: that takes minutes with twenty FSMs.
@settings(
    quick,
    max_examples=max(5, settings.default.max_examples // 20),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(
    snapshots=st.lists(fields_of(SNAPSHOT_FIELDS), min_size=10, max_size=10),
    jobs=st.lists(fields_of(JOB_FIELDS), min_size=10, max_size=10),
    found=st.lists(ids, max_size=5),
)
def test_a_worker_serves_the_others_and_ends_as_it_was_told(
    world: World,
    snapshots: list[dict[str, bytes | None]],
    jobs: list[dict[str, bytes | None]],
    found: list[bytes],
) -> None:
    begin(world)
    bad, good = [f"bad-{n}" for n in range(20)], [f"good-{n}" for n in range(20)]
    # One beside the other, so that they come in one claim.
    world.client.start_many(Box, [name for pair in zip(bad, good, strict=True) for name in pair])
    sent = world.client.transition_many([(name, "put") for name in (*bad, *good)])
    for name, fields in zip(bad, snapshots, strict=False):
        write(world.redis, KEYS.snapshot(name), fields)
    for verdict, fields in zip(sent[10:], jobs, strict=False):
        write(world.redis, KEYS.job(verdict.job_id), fields)
    if found:
        world.redis.lpush("rq:queue:fsm", *found)
    worker = TransitionWorker(App([Box]), world.client.url, ["fsm"])
    worker.work(burst=True, logging_level="CRITICAL")
    assert worker.fault is None
    assert {name for name in good if world.client.state(name).payload != {"puts": 1}} == set()


OWN_KEYS = ("snapshot", "mailbox", "urgent", "lock", "effects_of")


@quick
@given(which=st.sampled_from(OWN_KEYS), kind=kinds, job=st.booleans())
def test_keys_of_another_type_stop_nobody_else(world: World, which: str, kind: str, job: bool) -> None:
    begin(world)
    replace_by(world.redis, getattr(KEYS, which)("a"), kind)
    if job:
        replace_by(world.redis, KEYS.job(ID), kind)
    check(world)


@quick
@given(lines=values, about=values, worker=st.binary(max_size=8))
def test_a_log_and_a_registry_of_any_form_are_told(world: World, lines: bytes, about: bytes, worker: bytes) -> None:
    begin(world)
    world.redis.xadd(KEYS.log, {"worker": worker, "transitions": lines})
    world.redis.xadd(KEYS.log, {"other": "x"})
    world.redis.hset(KEYS.machines, "Lid", about)
    world.redis.hset(KEYS.machines, "Box", about)
    world.redis.zadd(KEYS.workers, {worker: 1})
    world.redis.hset(
        b"rq:worker:" + worker,
        mapping={"pid": lines, "queues": about, "hostname": worker, "successful_job_count": lines},
    )
    world.settle()
    look(world)
    steer(world)
    world.settle()
    assert world.client.state("b").payload == {"puts": 1}
