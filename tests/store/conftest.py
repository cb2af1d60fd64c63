"""Builders for the tests of the scripts: a tiny machine, and a store that sends, claims and commits in a line."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fsm.backup.form import SavedResting, read_line
from fsm.engine import Decision, Effect, Event
from fsm.machine import Machine
from fsm.store import calls, codec, commits, effects
from fsm.store.keys import Keys
from fsm.store.requests import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import redis

    from fsm.machine import Definition, Settings
    from fsm.store.calls import Claimed, Claims
    from fsm.store.requests import Request

LEASE_MS = 60_000
_DONE = {"state": "open", "version": 1}


class Lines(list[Any]):
    """Lines of a backup, as they are read again."""

    def write(self, line: Any) -> None:
        self += map(read_line, line.lines) if isinstance(line, SavedResting) else [line]


class Ticket(Machine):
    """A ticket that is noted on until it is shut."""

    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> shut : shut
        shut --> [*]
    """


class Work:
    """What a worker does with one claimed FSM, made into the block of its commit."""

    def __init__(self, keys: Keys, fsm: Claimed, settings: Settings) -> None:
        self.fsm = fsm
        self.block = commits.Block(keys, fsm, settings)
        self.state = fsm.state

    def apply(self, count: int | None = None) -> Work:
        """Apply the oldest events (all of them, unless told), as a handler does that changes nothing."""
        mail = self.fsm.mail if count is None else self.fsm.mail[:count]
        for item in mail:
            self.block.take(item.job_id)
            if item.is_keyed:
                self.block.keep()
            self.block.applied(item.job_id, _DONE, asked=item.asked)
        self.block.set("version", self.fsm.version + len(mail))
        self.block.drop("status")
        return self

    def fail(self, text: str = "Traceback: it broke") -> Work:
        """Fail the oldest event."""
        job_id = self.fsm.mail[0].job_id
        self.block.take(job_id)
        self.block.failed(job_id, {"failed": "handler", "message": "it broke"}, text)
        return self

    def out(self, *outbox: Any) -> Work:
        """Send mail, FSMs and effects with the commit."""
        event = Event("cause", "note")
        self.block.send_out(Decision("done", event, self.state, self.state, 1, {}, list(outbox)))
        return self

    def move(self, state: str, ending: str = "") -> Work:
        """Move to another state, and end there if told."""
        self.state = state
        self.block.set("state", state)
        if ending:
            self.block.end(ending)
            self.block.set("status", ending)
        return self

    def arguments(self) -> list[Any]:
        """Lay it out for the script."""
        return self.block.arguments(self.state)


class Store:
    """One namespace in one Redis, seen by clients and by any number of workers."""

    def __init__(self, client: redis.Redis, namespace: str = "default") -> None:
        self.redis: Any = client  # redis-py types each reply as all that it could ever be
        self.keys = Keys(namespace)
        self.queue = self.keys.default_queue
        self.machine: Definition = Ticket.definition
        self.tokens: dict[str, list[str]] = {}
        self.number = 1_790_000_000_000_000  # as a worker's: µs since 1970

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def keyed(self, name: str, event: str = "note", digest: str = "d1", **more: Any) -> str:
        """Send an event under the key "k", whose data have this digest: its word."""
        return self.send(name, event, "hash:", more=("key", "k", "digest", digest, *more.pop("more", ())), **more)

    def births(self, names: Iterable[str]) -> list[calls.Birth]:
        names = list(names)
        return [calls.Birth(name, job_id, b"{}") for name, job_id in zip(names, codec.new_ids(len(names)), strict=True)]

    def start(self, *names: str, machine: Definition | None = None, state: str | None = None) -> list[str]:
        """Start FSMs, or adopt them in a state: their words."""
        return run(self.redis, calls.start(self.keys, machine or self.machine, self.births(names), state=state))

    def idle(self, *names: str, machine: Definition | None = None) -> None:
        """Start FSMs and apply their entry events: they are at rest, in state open."""
        assert self.start(*names, machine=machine) == ["CREATED"] * len(names)
        queue = (machine or self.machine).settings.queue or self.queue
        claims = self.claim(queue=queue, fsms=len(names))
        assert [fsm.name for fsm in claims.held] == list(names)
        assert self.commit(*claims.held) == ["REST"] * len(names)

    def waiting(self, *names: str) -> None:
        """FSMs at rest, each with one event that waits: "a" with "a-1"."""
        self.idle(*names)
        for name in names:
            self.sent(name, f"{name}-1")

    def fail(self, name: str, job_id: str) -> None:
        """Send an event that fails."""
        self.sent(name, job_id)
        assert self.commit(self.work(self.one()).fail()) == ["REST"]

    def age(self, seconds: int = 10**9) -> None:
        """Make the time of all ended records be over, or of those that end so soon."""
        now, _ = self.redis.time()
        for batch, end in self.redis.zrange(self.keys.ended, 0, -1, withscores=True):
            if end <= now + seconds:
                self.redis.zadd(self.keys.ended, {batch: 1})

    def letter(self, name: str, event: str = "note", job_id: str = "", **more: Any) -> calls.Letter:
        return calls.Letter(name, job_id or codec.new_ids(1)[0], event, **more)

    def send_all(self, letters: Sequence[calls.Letter]) -> list[str]:
        """Send in one call: their words."""
        return run(self.redis, calls.send(self.keys, letters))

    def start_and_send(self, *letters: calls.Letter, machine: Definition | None = None) -> list[str]:
        """Send in one call that starts FSMs that do not exist: their words."""
        return run(self.redis, self.starting(*letters, machine=machine))

    def starting(self, *letters: calls.Letter, machine: Definition | None = None) -> Request[list[str]]:
        """The request of `start_and_send`."""
        births = self.births(letter.name for letter in letters)
        with_births = [
            msgspec.structs.replace(letter, birth=birth) for letter, birth in zip(letters, births, strict=True)
        ]
        return calls.send(self.keys, with_births, machine or self.machine, starts=True)

    def send(self, name: str, event: str = "note", job_id: str = "", **more: Any) -> str:
        """Send one event: its word."""
        return self.send_all([self.letter(name, event, job_id, **more)])[0]

    def sent(self, name: str, *ids: str) -> None:
        """Send events with these ids, one call each."""
        for job_id in ids:
            assert self.send(name, "note", job_id) == "SENT"

    def claim(self, worker: str = "w1", number: int = 0, token: str = "", **more: Any) -> Claims:
        """Claim as this worker, which names what it claimed before as still held."""
        queue = more.pop("queue", self.queue)
        tokens = self.tokens.setdefault(worker, [])
        more.setdefault("kept", tuple(tokens))
        token = token or secrets.token_hex(16)
        tokens.append(token)
        more.setdefault("fsms", 100)
        more.setdefault("lease_ms", LEASE_MS)
        number = number or self.next_number()
        return run(self.redis, calls.claim(self.keys, worker, queue, token, number, **more))

    def one(self, worker: str = "w1", **more: Any) -> Claimed:
        """Claim exactly one FSM."""
        claims = self.claim(worker, **more)
        assert len(claims.held) == 1, claims
        return claims.held[0]

    def work(self, fsm: Claimed) -> Work:
        return Work(self.keys, fsm, self.machine.settings)

    def commit(self, *work: Work | Claimed, worker: str = "w1", nonce: int = 0) -> list[str]:
        """Commit what was done; a claim alone means that all its events are applied. Their verdicts."""
        return run(self.redis, self.committing(*work, worker=worker, nonce=nonce))

    def committing(self, *work: Work | Claimed, worker: str = "w1", nonce: int = 0) -> Request[list[str]]:
        """The request of `commit`."""
        blocks = [(item if isinstance(item, Work) else self.work(item).apply()).arguments() for item in work]
        nonce = nonce or self.next_number()
        return commits.commit(self.keys, worker, nonce, LEASE_MS, "2026-01-02T03:04:05.000006Z", blocks)

    def release(self, *fsms: Claimed, worker: str = "w1", tail: bool = False) -> list[str]:
        pairs = [(fsm.name, fsm.token) for fsm in fsms]
        return run(self.redis, calls.release(self.keys, worker, pairs, tail=tail))

    def extend(self, *fsms: Claimed, worker: str = "w1", lease_ms: int = LEASE_MS) -> list[str]:
        pairs = [(fsm.name, fsm.token) for fsm in fsms]
        return run(self.redis, calls.extend(self.keys, worker, pairs, lease_ms))

    def recover(self, *dead: str, most: int = 200) -> tuple[int, int]:
        return run(self.redis, calls.recover(self.keys, dead, most))

    def sweep(self, worker: str, most: int = 200) -> tuple[int, int]:
        """Recover as one of many workers that look for the dead: it needs the turn."""
        return run(self.redis, calls.recover(self.keys, (), most, sweeper=worker, queues=[self.queue]))

    def purge(self, name: str, born: str = "", most: int = 500) -> str:
        return run(self.redis, calls.purge(self.keys, name, born, most))

    def cancel(self, job_id: str) -> str:
        return run(self.redis, calls.cancel(self.keys, job_id))

    def ask(self, name: str, job_id: str = "cause--e1", **more: Any) -> str:
        """Let an FSM at rest ask for an effect: its id, as it was enqueued."""
        queue = more.setdefault("queue", "fsm-effects")
        plain: dict[str, Any] = {
            "path": "shop.charge",
            "call": b'["shop.charge",null,[],{}]',
            "on_success": "note",
            "on_failure": "note",
        }
        effect = Effect(job_id, **plain | more)
        self.sent(name, codec.new_ids(1)[0])
        assert self.commit(self.work(self.one(name=name)).apply().out(effect)) == ["REST"]
        return self.listed(queue)[-1]

    def answer(self, name: str, event: str = "note", raw: bytes = b"1", **more: Any) -> str:
        """Bring back the end of an effect: the script's word."""
        effect_id = more.get("effect_id", "cause--e1")
        born = more["born"] if "born" in more else self.snapshot(name).get("born", "")
        return run(self.redis, effects.answer(self.keys, effect_id, name, born, event, raw))

    def look(self, *dead: tuple[str, str], is_due: bool = True, deaths: int = 3) -> dict[str, str]:
        """Look after open effects, all of which are due unless told: the status of each."""
        if is_due:
            for member in self.redis.zrange(self.keys.effects, 0, -1):
                self.redis.zadd(self.keys.effects, {member: 0})
        found = run(self.redis, effects.look(self.keys, secrets.token_hex(8), 10_000, deaths, dead))
        return {effect.job_id: effect.status for effect in found}

    def open_effects(self, name: str) -> list[str]:
        """Name the effects of an FSM whose end was not told."""
        return [effect_id.decode() for effect_id in self.redis.hkeys(self.keys.effects_of(name))]

    def lapse(self, *names: str) -> None:
        """Make the leases of FSMs end now."""
        for name in names:
            self.redis.delete(self.keys.lock(name))
            self.redis.zadd(self.keys.held, {name: 1})

    def mailbox(self, name: str) -> list[str]:
        return [item.decode() for item in self.redis.lrange(self.keys.mailbox(name), 0, -1)]

    def ready(self, queue: str = "") -> list[str]:
        return [name.decode() for name in self.redis.zrange(self.keys.ready(queue or self.queue), 0, -1)]

    def listed(self, queue: str = "") -> list[str]:
        return [item.decode() for item in self.redis.lrange(self.keys.rq_list(queue or self.queue), 0, -1)]

    def job(self, job_id: str) -> dict[str, str]:
        return {
            field.decode(): value.decode("utf-8", "replace")
            for field, value in self.redis.hgetall(self.keys.job(job_id)).items()
        }

    def snapshot(self, name: str) -> dict[str, str]:
        return {field.decode(): value.decode() for field, value in self.redis.hgetall(self.keys.snapshot(name)).items()}

    def dump(self) -> dict[bytes, Any]:
        """All that is in Redis, to see that nothing was written."""
        return {key: self.redis.dump(key) for key in self.redis.scan_iter(count=10_000)}

    def log_lines(self) -> list[bytes]:
        return [fields[b"transitions"] for _, fields in self.redis.xrange(self.keys.log)]


@pytest.fixture
def store(any_redis: redis.Redis) -> Store:
    """A store over fakeredis, then over a real server."""
    return Store(any_redis)


@pytest.fixture
def real_store(raw_redis: redis.Redis) -> Store:
    """A store over a real server, for what fakeredis does not do."""
    return Store(raw_redis)


@pytest.fixture
def store_of() -> Callable[[redis.Redis], Store]:
    """A store over a connection that a test has."""
    return Store


@pytest.fixture
def another(any_redis: redis.Redis) -> Callable[[str], Store]:
    """A store of another namespace in the same Redis."""
    return lambda namespace: Store(any_redis, namespace)
