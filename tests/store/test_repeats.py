"""Each script called twice, with its first reply lost, and late: one effect, and the answer that its header promises.

redis-py repeats a call whose reply was lost, and so does a worker, for longer; a repeat may come after newer calls of
the same client or worker, and after what others did meanwhile. Here all that is in Redis is compared before and after
the repeat. Times to live may differ; what else may, a case says.

Seen to fail: `start` without the look at the record of the entry event (the FSM that was purged rose again); `send`
without the look at its record; `claim` without its number; `commit` without the kept verdicts and without the
comparison of tokens, or where a late one took the place of newer verdicts; `extend`, `release` without the comparison
of tokens; `recover` with `held` left as it was; `purge` without the comparison of `born`; `answer` without the look
at what is open; `steer` without the answer that is kept; `beat` without the comparison of numbers; `look` without its
nonce; `restore` without the look at what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fsm.backup import restoring, saving
from fsm.engine import Effect, Mail, NewFSM
from fsm.store import calls, commits, dumping, effects, presence, retention, steering, storing, synching
from fsm.store.requests import Request, run
from tests.store.small import Small
from workers.carrier import Carrier

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.store.conftest import Store

AT = "2026-01-02T03:04:05.000006Z"


@dataclass
class Case:
    """A call that is made, and repeated.

    Args:
        request: The call.
        first: What it answers.
        again: What its repeat answers; `None`: the same.
        newer: What happens before the late repeat.
        late: What that answers; `None`: as the other repeat.
        harmless: Sorted sets whose scores, times of the last call, may differ.
    """

    request: Request[Any]
    first: Any
    newer: Callable[[], object]
    again: Any = None
    late: Any = None
    harmless: tuple[str, ...] = ()

    def carry(self, client: redis.Redis) -> Any:
        return plain(run(client, self.request))

    def repeated(self) -> Any:
        return self.first if self.again is None else self.again


def plain(reply: Any) -> Any:
    """Give a reply as text and lists."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list | tuple):
        return [plain(one) for one in reply]
    return reply


def dump(store: Store, harmless: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read all that is in Redis, and whether it will go by itself."""
    client, found = store.redis, {}
    for key in client.scan_iter(count=10_000):
        kind, value = client.type(key), None
        if kind == b"string":
            value = client.get(key)
        elif kind == b"list":
            value = client.lrange(key, 0, -1)
        elif kind == b"hash":
            value = client.hgetall(key)
        elif kind == b"stream":
            value = client.xrange(key)
        elif kind == b"zset":
            value = client.zrange(key, 0, -1, withscores=True)
            if key.decode() in harmless:
                value = {member for member, _ in value}
        elif kind == b"set":
            value = client.smembers(key)
        found[key.decode()] = (value, client.ttl(key) >= 0)
    return found


def raw(request: Request[Any]) -> Request[Any]:
    """Read the reply as it comes."""
    return replace(request, read=list)


# One function a case. It brings the store to where the call is made.


def start(store: Store) -> Case:
    store.idle("known")
    births = store.births(["known", "a", "b"])

    def newer() -> None:
        for fsm in store.claim().held:
            store.commit(fsm)
        store.sent("a", "later")
        assert store.purge("b") == "PURGED"
        store.start("c")

    return Case(calls.start(store.keys, store.machine, births), ["EXISTS Ticket", "CREATED", "CREATED"], newer)


def start_adopted(store: Store) -> Case:
    request = calls.start(store.keys, store.machine, store.births(["a", "b"]), state="open")

    def newer() -> None:
        store.sent("a", "later")
        store.commit(store.one())
        assert store.purge("b") == "PURGED"

    return Case(request, ["CREATED", "CREATED"], newer)


def send(store: Store) -> Case:
    store.idle("small", machine=Small.definition)
    store.idle("a")
    letters = [store.letter("a", job_id="one"), store.letter("a", job_id="two"), store.letter("nobody")]
    letters += [store.letter("small", job_id=f"small-{number}") for number in range(4)]

    def newer() -> None:
        (fsm,) = store.claim(name="a").held
        assert store.commit(store.work(fsm).apply(1)) == ["READY"]
        store.sent("a", "three")

    return Case(
        calls.send(store.keys, letters),
        ["SENT", "SENT", "UNKNOWN", "SENT", "SENT", "FULL 2", "SKIPPED"],
        newer,
        ["DUPLICATE mail", "DUPLICATE mail", "UNKNOWN", "DUPLICATE mail", "DUPLICATE mail", "FULL 2", "SKIPPED"],
        ["DUPLICATE done", "DUPLICATE mail", "UNKNOWN", "DUPLICATE mail", "DUPLICATE mail", "FULL 2", "SKIPPED"],
    )


def send_under_a_key_decided_on_a_version(store: Store) -> Case:
    store.idle("a")
    job_id = f"hash-{store.snapshot('a')['born']}"
    letter = store.letter("a", job_id="hash:", more=("key", "k", "digest", "d1", "if_version", 1))

    def newer() -> None:
        store.commit(store.one())
        store.sent("a", "later")
        assert store.commit(store.work(store.one()).apply().move("shut", "finished")) == ["REST"]

    request = calls.send(store.keys, [letter])
    return Case(request, [f"SENT {job_id}"], newer, [f"DUPLICATE mail {job_id}"], [f"DUPLICATE done {job_id}"])


def delayed(store: Store, name: str, *ids: str, due: str = "+3600000") -> Request[list[str]]:
    """The request that sends events which are due in an hour."""
    return calls.send(store.keys, [store.letter(name, job_id=job_id, more=("due", due)) for job_id in ids])


def send_delayed(store: Store) -> Case:
    store.idle("small", machine=Small.definition)

    def newer() -> None:
        assert run(store.redis, calls.due(store.keys, most=1, ahead_ms=3_700_000))[0] == 1
        assert store.commit(store.one()) == ["REST"]
        run(store.redis, delayed(store, "small", "small-3"))

    late = ["DUPLICATE done", "DUPLICATE later", "FULL 2"]
    request = delayed(store, "small", "small-0", "small-1", "small-2")
    return Case(request, ["SENT", "SENT", "FULL 2"], newer, ["DUPLICATE later", "DUPLICATE later", "FULL 2"], late)


def send_and_start(store: Store) -> Case:
    request = store.starting(store.letter("a", job_id="one"), store.letter("b", job_id="two"))

    def newer() -> None:
        for fsm in store.claim().held:
            store.commit(fsm)
        assert store.purge("b") == "PURGED"

    return Case(
        request, ["SENT", "SENT"], newer, ["DUPLICATE mail", "DUPLICATE mail"], ["DUPLICATE done", "DUPLICATE done"]
    )


def in_short(request: Request[calls.Claims]) -> Request[Any]:
    """Read of a claim what does not hang on the time: names and ids, in no order."""
    read = request.read
    return replace(
        request,
        read=lambda reply: sorted((fsm.name, [mail.job_id for mail in fsm.mail]) for fsm in read(reply).held),
    )


def claim(store: Store) -> Case:
    store.idle("c")
    store.fail("c", "failed")
    store.waiting("a", "b")
    # A foreign job, and one that RQ requeued.
    store.redis.hset("rq:job:failed", mapping={"status": "queued", "ended_at": ""})
    store.redis.hset("rq:job:theirs", mapping={"data": b"x", "created_at": "x"})
    found = ("theirs", "failed")
    number = store.next_number()
    request = calls.claim(store.keys, "w1", "fsm", "t1", number, lease_ms=60_000, fsms=2, found=found)
    store.tokens["w1"].append("t1")

    def newer() -> None:
        store.claim()
        store.sent("a", "later")

    return Case(in_short(request), [["a", ["a-1"]], ["b", ["b-1"]]], newer, late=[])


def claim_that_was_committed(store: Store) -> Case:
    store.waiting("a", "b")
    number = store.next_number()
    request = calls.claim(store.keys, "w1", "fsm", "t1", number, lease_ms=60_000, fsms=1)

    def newer() -> None:
        (fsm,) = run(store.redis, request).held
        store.sent("a", "later")
        assert store.commit(fsm) == ["READY"]

    return Case(in_short(request), [["a", ["a-1"]]], newer, late=[])


def extend(store: Store) -> Case:
    store.waiting("a", "b")
    a, b = store.claim().held
    store.lapse("b")
    pairs = [(fsm.name, fsm.token) for fsm in (a, b)]

    def newer() -> None:
        store.sent("a", "later")
        store.commit(a)
        store.recover()
        assert len(store.claim().held) + len(store.claim().held) == 2

    return Case(
        calls.extend(store.keys, "w1", pairs, 60_000),
        ["EXTENDED", "STALE"],
        newer,
        late=["STALE", "STALE"],
        harmless=(store.keys.held,),
    )


def commit(store: Store) -> Case:
    store.idle("d")
    store.waiting("a", "b", "c")
    a, b, c = store.claim().held
    store.lapse("c")
    store.sent("b", "late")
    out = (
        Mail("cause--s1", "d", "note", b"1"),
        Mail("cause--s2", "nobody", "note", b"1"),
        Mail("cause--s3", "d", "note", b"1", "+3600000"),
        NewFSM("cause--c1", "child", store.machine, b"{}"),
        Effect("cause--e1", "fsm-effects", "shop.charge", b'["shop.charge",null,[],{}]'),
    )
    blocks = [
        store.work(a).apply().out(*out).move("shut", "finished").arguments(),
        store.work(b).fail().arguments(),
        store.work(c).apply().arguments(),
    ]

    def newer() -> None:
        store.recover()
        for _ in range(4):
            for fsm in store.claim().held:
                store.commit(fsm)
        store.sent("b", "later")

    request = commits.commit(store.keys, "w1", store.next_number(), 60_000, AT, blocks)
    return Case(request, ["REST", "READY", "STALE"], newer)


def commit_of_which_the_verdicts_are_forgotten(store: Store) -> Case:
    store.waiting("a")
    blocks = [store.work(store.one()).apply().out(Mail("cause--s1", "a", "note", b"1")).arguments()]

    def newer() -> None:
        for _ in range(40):
            store.commit()
        store.one()

    request = commits.commit(store.keys, "w1", store.next_number(), 60_000, AT, blocks)
    return Case(request, ["READY"], newer, late=["STALE"])


def release(store: Store) -> Case:
    store.waiting("a", "b")
    pairs = [(fsm.name, fsm.token) for fsm in store.claim().held]

    def newer() -> None:
        assert len(store.claim(fsms=1).held) == 1

    request = calls.release(store.keys, "w1", pairs)
    return Case(request, ["RELEASED", "RELEASED"], newer, ["STALE", "STALE"])


def recover(store: Store) -> Case:
    store.waiting("a", "b", "c")
    (found,) = store.listed()[:1]
    store.claim("dead", fsms=1)
    store.claim("asleep", fsms=1)
    store.redis.rpush(store.keys.hand("dead"), found)
    store.lapse("b")

    def newer() -> None:
        # Suspects come alone.
        assert [store.one("w2").name for _ in range(3)] == ["a", "b", "c"]

    request = raw(calls.recover(store.keys, ["dead"]))
    return Case(request, ["RECOVERED", 2, 1], newer, ["RECOVERED", 0, 0])


def cancel(store: Store) -> Case:
    store.idle("a")
    store.sent("a", "one", "two")

    def newer() -> None:
        work = store.work(store.one())
        for job_id in ("one", "two"):
            work.block.take(job_id)
        work.block.gone("one")
        work.block.applied("two", {}, asked=False)
        assert store.commit(work) == ["REST"]
        store.sent("a", "later")

    return Case(calls.cancel(store.keys, "one"), "CANCELLED", newer)


def cancel_delayed(store: Store) -> Case:
    store.idle("a")
    run(store.redis, delayed(store, "a", "one", "two"))

    def newer() -> None:
        assert run(store.redis, calls.due(store.keys, ahead_ms=3_700_000))[0] == 1
        assert store.commit(store.one()) == ["REST"]

    return Case(calls.cancel(store.keys, "one"), "CANCELLED", newer)


def ask(store: Store) -> Case:
    store.idle("a")
    store.sent("a", "one")
    keys = (store.keys.job("one"), store.keys.result("one"))

    def read(reply: list[Any]) -> list[Any]:
        return [reply[0], *reply[2:4], reply[6]]

    def newer() -> None:
        store.commit(store.one())

    request = Request(read, "ask", keys)
    return Case(request, ["WAITING", "a", "note", "queued"], newer, late=["DONE", "a", "note", "finished"])


def beat(store: Store) -> Case:
    store.redis.hset("rq:worker:w1", mapping={"birth": "2026", "successful_job_count": 5})

    def request(number: int) -> Request[Any]:
        return raw(presence.beat(store.keys, "w1", number, done=2, failed=1, seconds=0.5))

    def newer() -> None:
        run(store.redis, request(8))

    return Case(request(7), ["BEATEN"], newer, harmless=(store.keys.workers,))


def purge(store: Store) -> Case:
    store.waiting("a")
    born = store.snapshot("a")["born"]

    def newer() -> None:
        store.idle("a")
        store.sent("a", "in its next life")

    return Case(calls.purge(store.keys, "a", born), "PURGED", newer, "UNKNOWN")


def purge_delayed(store: Store) -> Case:
    store.idle("a")
    run(store.redis, delayed(store, "a", "one", "two"))
    born = store.snapshot("a")["born"]

    def newer() -> None:
        store.idle("a")
        run(store.redis, delayed(store, "a", "in its next life"))

    return Case(calls.purge(store.keys, "a", born), "PURGED", newer, "UNKNOWN")


def answer(store: Store) -> Case:
    store.idle("a")
    effect_id = store.ask("a")
    request = effects.answer(store.keys, effect_id, "a", store.snapshot("a")["born"], "note", b"1")

    def newer() -> None:
        store.commit(store.one())
        store.sent("a", "later")

    return Case(request, f"ANSWERED {effect_id}a", newer, "CLOSED")


def answer_that_nobody_takes(store: Store) -> Case:
    store.idle("a")
    effect_id = store.ask("a")
    born = store.snapshot("a")["born"]
    store.sent("a", "last")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))
    request = effects.answer(store.keys, effect_id, "a", born, "note", b"1")

    def newer() -> None:
        assert store.purge("a") == "PURGED"
        store.idle("a")

    return Case(request, "FINISHED shut", newer, "CLOSED")


def due(store: Store) -> None:
    """Make all open effects be due."""
    for member in store.redis.zrange(store.keys.effects, 0, -1):
        store.redis.zadd(store.keys.effects, {member: 1})


def begun(store: Store, job_id: str, seconds: int) -> None:
    """Let the effects worker "dead" begin an effect; its entry ends so many seconds from now."""
    ends = int(store.redis.time()[0]) + seconds
    store.redis.lrem("rq:queue:fsm-effects", 0, job_id)
    store.redis.zadd("rq:wip:fsm-effects", {f"{job_id}:x": ends})
    store.redis.zadd(f"rq:executions:{job_id}", {"x": ends + 60})
    store.redis.hset(f"rq:execution:{job_id}:x", "worker_name", "dead")
    store.redis.hset(store.keys.job(job_id), mapping={"status": "started", "worker_name": "dead"})


def look(store: Store) -> Case:
    store.idle("a", "b", "c")
    for name, job_id in (("a", "a--e1"), ("b", "b--e1"), ("c", "c--e1")):
        store.ask(name, job_id)
    begun(store, "a--e1", 60)
    begun(store, "b--e1", -2)
    # RQ has found it: it is about to write it down as failed, and only a second look may put it back before.
    store.redis.hset(store.keys.job("b--e1"), "abandoned", "1")
    store.redis.lrem("rq:queue:fsm-effects", 0, "c--e1")
    due(store)

    def read(reply: list[Any]) -> list[Any]:
        return sorted((one[0], one[3]) for one in reply[1:])

    def newer() -> None:
        # Another worker has begun the one that was put back.
        begun(store, "a--e1", 60)
        store.redis.hset("rq:execution:a--e1:x", "worker_name", "alive")
        store.redis.hset(store.keys.job("a--e1"), "worker_name", "alive")

    request = replace(effects.look(store.keys, "nonce", 10_000, 3, [("dead", "fsm-effects")]), read=read)
    return Case(request, [["a--e1", "queued"], ["b--e1", "started"], ["c--e1", "queued"]], newer, [])


def due_retry(store: Store) -> Case:
    store.waiting("a")
    work = store.work(store.one())
    work.block.again("a-1", 3_600_000, 1, "Traceback: away")
    assert store.commit(work) == ["AT"]

    def newer() -> None:
        # It fails again, and waits as long once more.
        again = store.work(store.one())
        again.block.again("a-1", 7_200_000, 2, "Traceback: away")
        assert store.commit(again) == ["AT"]

    return Case(calls.due(store.keys, ahead_ms=3_700_000), [1, None], newer, [0, None], [0, ANY])


def due_mail(store: Store) -> Case:
    store.idle("a")
    run(store.redis, delayed(store, "a", "one", "two"))

    def newer() -> None:
        assert store.commit(store.one()) == ["REST"]
        run(store.redis, delayed(store, "a", "three", due="+7200000"))

    return Case(calls.due(store.keys, ahead_ms=3_700_000), [2, None], newer, [0, None], [0, ANY])


def steer_skip(store: Store) -> Case:
    store.waiting("a")
    store.sent("a", "a-2", "a-3")
    order = steering.Order("skip", "a", "nonce", store.snapshot("a")["born"], "ann@desk")

    def newer() -> None:
        store.commit(store.work(store.one()).apply(1))
        another = steering.Order("skip", "a", "nonce2", store.snapshot("a")["born"], "ann@desk")
        run(store.redis, steering.steer(store.keys, another))

    return Case(steering.steer(store.keys, order), ["SKIPPED", "a-1", "note"], newer)


def host(store: Store) -> Case:
    store.redis.sadd(store.keys.places, "fsm~edge-1", "fsm@edge-1", "fsm~edge-2")

    def beat(worker: str, lease_ms: int) -> Request[Any]:
        return presence.host(store.keys, "edge-1", worker, 1_000, lease_ms=lease_ms, queues=["fsm"])

    def newer() -> None:
        run(store.redis, beat("w2", 60_000))
        run(store.redis, presence.leave_host(store.keys, "edge-1", "w2", 1_000))

    # Each tells until when the host is taken to be alive, from then on.
    times = (store.keys.hosts, store.keys.crew("edge-1"))
    told = presence.HostWord(is_draining=False, next_end_s=None, queues=("fsm@edge-1", "fsm~edge-1"))
    return Case(beat("w1", 60_000), told, newer, harmless=times)


def synch(store: Store) -> Case:
    store.idle("a")
    assert store.redis.zrem(store.keys.state("Ticket", "open"), "a") == 1

    def newer() -> None:
        store.sent("a", "a-2")
        assert store.commit(store.work(store.one()).apply(1)) == ["REST"]

    return Case(synching.look(store.keys, "fsm", [b"a"]), [["a", "index", ANY]], newer, [])


def dump_all(store: Store) -> Case:
    store.waiting("a")

    def newer() -> None:
        assert store.commit(store.one()) == ["REST"]

    # It gives what stands there, whenever it is asked.
    return Case(dumping.dump(store.keys, [b"a"]), ANY, newer)


def restore(store: Store) -> Case:
    store.waiting("a")
    (saved,) = run(store.redis, dumping.dump(store.keys, [b"a"])).fsms
    fsm = restoring.restore_of(saving.line_of(store.keys, saved), store.keys, store.keys)
    assert store.purge("a") == "PURGED"

    def newer() -> None:
        assert store.commit(store.one()) == ["REST"]

    return Case(dumping.restore(store.keys, [fsm]), ["RESTORED"], newer, ["KEPT"])


def put_of(store: Store) -> storing.Given:
    born = store.snapshot("a")["born"]
    fields = (born, "Ticket", "open", "running", "7", b"{}", b"", "1a2b3c4d", "1000")
    return storing.Given("a", store.snapshot("a")["version"], "n1", fields)


def put(store: Store) -> Case:
    store.idle("a")

    def newer() -> None:
        store.sent("a", "a-2")
        assert store.commit(store.work(store.one()).apply()) == ["REST"]

    request = storing.put(store.keys, put_of(store))
    # Whoever wrote it since has left the nonce where it was: nothing is written.
    return Case(request, ["STORED", "", "", ""], newer)


def note(store: Store) -> Case:
    store.idle("a")

    def newer() -> None:
        store.sent("a", "a-2")
        assert store.commit(store.work(store.one()).apply()) == ["REST"]

    request = storing.note(store.keys, "a", b'{"failed":"handler"}')
    return Case(request, "NOTED", newer, harmless=(store.keys.errors("Ticket"),))


def expire(store: Store) -> Case:
    store.idle("a", "b")
    store.sent("a", "last")
    assert store.commit(store.work(store.one()).apply().move("shut", "finished")) == ["REST"]
    born = store.snapshot("a")["born"]

    def newer() -> None:
        store.idle("a")

    return Case(retention.expire(store.keys, "Ticket", "shut", 0), [{"a": born}, {}, 1], newer, [{}, {}, 0])


CASES = (
    start, start_adopted, send, send_under_a_key_decided_on_a_version, send_delayed, send_and_start, claim,
    claim_that_was_committed, extend, commit, commit_of_which_the_verdicts_are_forgotten, release, recover, cancel,
    cancel_delayed, ask, beat, purge, purge_delayed, answer, answer_that_nobody_takes, look, due_retry, due_mail,
    steer_skip, host, synch, dump_all, restore, put, note, expire,
)  # fmt: skip
each_case = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def test_every_script_has_a_case(fake_redis: redis.Redis, store_of: Callable[[redis.Redis], Store]) -> None:
    scripts = {path.name.removesuffix(".lua") for path in (files("fsm.store") / "lua").iterdir()}
    # No scripts by themselves: what others share, and the clock of tests.
    scripts -= {"prelude", "clock"}
    tried = set()
    for make in CASES:
        fake_redis.flushall()
        tried.add(make(store_of(fake_redis)).request.script)

    assert tried == scripts


@each_case
def test_called_twice_it_has_one_effect_and_answers_as_promised(store: Store, make: Callable[[Store], Case]) -> None:
    case = make(store)
    assert case.carry(store.redis) == case.first
    before = dump(store, case.harmless)

    assert case.carry(store.redis) == case.repeated()
    assert dump(store, case.harmless) == before


@each_case
def test_called_late_it_has_no_more_effect_and_answers_as_promised(store: Store, make: Callable[[Store], Case]) -> None:
    case = make(store)
    assert case.carry(store.redis) == case.first
    case.newer()
    before = dump(store, case.harmless)

    assert case.carry(store.redis) == (case.repeated() if case.late is None else case.late)
    assert dump(store, case.harmless) == before


class Deaf:
    """A connection that breaks off when the first reply is due."""

    def __init__(self, store: Store, harmless: tuple[str, ...]) -> None:
        self._store = store
        self._harmless = harmless
        self.before: dict[str, Any] | None = None

    def execute_command(self, *words: Any) -> Any:
        reply = self._store.redis.execute_command(*words)
        if self.before is None:
            self.before = dump(self._store, self._harmless)
            raise RedisConnectionError("Connection closed by server.")
        return reply


@each_case
def test_with_its_first_reply_lost_it_is_carried_again_and_has_one_effect(
    store: Store, make: Callable[[Store], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.carrier.time.sleep", lambda _: None)
    case = make(store)
    deaf: Any = Deaf(store, case.harmless)

    assert plain(Carrier(deaf, "redis://x", lambda: False).carry(case.request)) == case.repeated()
    assert dump(store, case.harmless) == deaf.before


def test_a_claim_whose_reply_is_lost_for_good_is_not_renewed_and_the_next_claim_frees_it(store: Store) -> None:
    # Seen to fail without the comparison with the tokens that are kept: it stayed locked until its lease was over, and
    # was charged as by a death.
    store.waiting("a", "b")
    lost, kept = store.claim(fsms=1).held[0], store.one(fsms=1)
    before = store.redis.zscore(store.keys.held, "a")
    assert store.extend(kept, lease_ms=90_000) == ["EXTENDED"]
    assert store.redis.zscore(store.keys.held, "a") == before

    (again,) = store.claim(kept=[kept.token]).held
    assert (again.name, again.tries) == ("a", 0)
    assert store.redis.get(store.keys.lock("b")) == f"w1/{kept.token}".encode()
    assert store.commit(lost) == ["STALE"]
    assert store.commit(again, kept) == ["REST", "REST"]
