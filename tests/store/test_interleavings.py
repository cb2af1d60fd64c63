"""Chance decides what clients, workers, operators and the network do next; then all is drained and counted.

Replies get lost and calls are repeated, also late; workers die between any two calls or sleep through their leases;
operators requeue, cancel and delete. Whatever the order: each event ends once, in the order of its mailbox, and no FSM
with mail is left asleep. What was applied is read from the snapshots' own payloads, so no lost reply can hide it.
"""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm.engine.mail import Mail, derived_id
from fsm.store import calls, commits
from fsm.store.requests import run

if TYPE_CHECKING:
    from fsm.store.calls import Claimed
    from tests.store.conftest import Store

NAMES = ["a", "b", "c", "d", "e"]
STEPS = 250
LEASE_MS = 600_000


class World:
    """Everybody who touches one Redis, in one thread: `step` lets one of them do something."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.redis = store.redis
        self.keys = store.keys
        self.chance = random.Random(seed)
        self.order: dict[str, list[str]] = {name: [] for name in NAMES}
        self.cancelled: set[str] = set()
        self.moved: set[str] = set()  # requeued or sent anew: they stand elsewhere in the order
        self.hands: dict[str, list[Claimed]] = {"w0": [], "w1": []}
        self.past: list[Any] = []
        self.made = 0

    def step(self) -> None:
        actions = [
            self.send, self.send, self.claim, self.claim, self.commit, self.commit, self.commit, self.release,
            self.extend, self.die, self.oversleep, self.repeat, self.repeat, self.requeue, self.cancel, self.delete,
            self.lose_list,
        ]  # fmt: skip
        self.chance.choice(actions)()

    def do(self, request: Any) -> Any:
        """Carry a request; some arrive once more at once, and any may arrive again later."""
        self.past = [*self.past[-12:], request]
        reply = run(self.redis, request)
        return run(self.redis, request) if self.chance.random() < 0.1 else reply

    def repeat(self) -> None:
        if self.past:
            run(self.redis, self.chance.choice(self.past))

    # Clients.

    def send(self) -> None:
        letters = []
        for _ in range(self.chance.randint(1, 4)):
            self.made += 1
            letters.append(self.store.letter(self.chance.choice(NAMES), job_id=f"j{self.made}"))
        words = self.do(calls.send(self.keys, letters))
        assert set(words) <= {"SENT", "DUPLICATE mail"}
        for letter in letters:
            self.order[letter.name].append(letter.job_id)

    # Workers.

    def worker(self) -> str:
        return self.chance.choice(list(self.hands))

    def claim(self, worker: str = "") -> None:
        worker = worker or self.worker()
        hand = self.hands[worker]
        number = self.store.next_number()
        claims = self.do(
            calls.claim(
                self.keys, worker, self.store.queue, f"t{number}", number, lease_ms=LEASE_MS,
                fsms=self.chance.randint(1, 4), events=self.chance.randint(1, 12), kept=[fsm.token for fsm in hand],
            )
        )  # fmt: skip
        assert claims.broken == []
        if self.chance.random() < 0.85:  # else the reply was lost, and so are its claims to this worker
            hand += claims.held

    def commit(self, worker: str = "") -> None:
        worker = worker or self.worker()
        hand = self.hands[worker]
        self.chance.shuffle(hand)
        count = self.chance.randint(0, len(hand))
        part, self.hands[worker] = hand[:count], hand[count:]
        blocks = [self.run_events(fsm) for fsm in part]
        request = commits.commit(self.keys, worker, self.store.next_number(), LEASE_MS, "2026-01-02", blocks)
        assert set(self.do(request)) <= {"REST", "READY", "STALE"}

    def run_events(self, fsm: Claimed) -> list[Any]:
        work = self.store.work(fsm)
        applied = orjson.loads(fsm.payload) or []
        for mail in fsm.mail[: self.chance.randint(1, len(fsm.mail))]:
            work.block.take(mail.job_id)
            if mail.event is None or mail.status == b"canceled":
                work.block.gone(mail.job_id)
            elif mail.place != b"mail":
                continue
            elif self.chance.random() < 0.1 and mail.event != "[*]":
                work.block.failed(mail.job_id, {"failed": "handler"}, "Traceback")
            else:
                work.block.applied(mail.job_id, {}, asked=mail.asked)
                applied.append(mail.job_id)
                work.out(*follow(mail.job_id))
        work.block.set("payload", orjson.dumps(applied))
        work.block.drop("status")
        work.block.drop("tries")
        return work.arguments()

    def release(self) -> None:
        worker = self.worker()
        hand, self.hands[worker] = self.hands[worker], []
        pairs = [(fsm.name, fsm.token) for fsm in hand]
        self.do(calls.release(self.keys, worker, pairs, tail=self.chance.random() < 0.5))

    def extend(self) -> None:
        worker = self.worker()
        pairs = [(fsm.name, fsm.token) for fsm in self.hands[worker]]
        self.do(calls.extend(self.keys, worker, pairs, LEASE_MS))

    def die(self) -> None:
        worker = self.worker()
        del self.hands[worker]
        self.made += 1
        self.hands[f"w{self.made}"] = []
        self.do(calls.recover(self.keys, [worker]))

    def oversleep(self) -> None:
        held = self.redis.zrange(self.keys.held, 0, -1)
        if held:
            self.store.lapse(self.chance.choice(held).decode())
        if self.chance.random() < 0.7:  # else another claim may come first
            self.do(calls.recover(self.keys))

    # Operators.

    def jobs(self, place: str) -> list[str]:
        jobs = sorted(f"j{i}" for i in range(1, self.made + 1))
        return [job_id for job_id in jobs if self.redis.hget(f"rq:job:{job_id}", "place") == place.encode()]

    def requeue(self) -> None:
        failed = self.jobs("failed")
        if failed:
            job_id = self.chance.choice(failed)
            self.moved.add(job_id)
            self.redis.hset(f"rq:job:{job_id}", mapping={"status": "queued", "ended_at": "", "exc_info": ""})
            self.redis.rpush("rq:queue:fsm", job_id)

    def cancel(self) -> None:
        waiting = self.jobs("mail")
        if waiting:
            job_id = self.chance.choice(waiting)
            if self.store.cancel(job_id) == "CANCELLED":
                self.cancelled.add(job_id)

    def delete(self) -> None:
        waiting = [job_id for job_id in self.jobs("mail") if job_id not in self.cancelled]
        if waiting:
            job_id = self.chance.choice(waiting)
            name = self.redis.hget(f"rq:job:{job_id}", "fsm").decode()
            held = self.redis.exists(self.keys.lock(name))
            if held:
                return  # it may have been applied a moment ago: the sender that repeats would send it twice itself
            self.moved.add(job_id)
            self.redis.delete(f"rq:job:{job_id}")
            assert self.store.send(name, "note", job_id) == "SENT"

    def lose_list(self) -> None:
        for job_id in self.redis.lrange("rq:queue:fsm", 0, -1):
            if self.redis.hget(b"rq:job:" + job_id, "place") == b"mail":
                self.redis.lrem("rq:queue:fsm", 0, job_id)

    # The end.

    def drain(self) -> None:
        for worker in list(self.hands):
            self.hands[worker] = []
            self.store.recover(worker)
        held = [name.decode() for name in self.redis.zrange(self.keys.held, 0, -1)]
        self.store.lapse(*held)
        self.store.recover()
        self.hands = {"last": []}
        for _ in range(2000):
            self.claim("last")
            self.commit("last")
            waits = self.redis.llen("rq:queue:fsm") or self.redis.zcard(self.keys.held)
            if not waits and not self.redis.zcard(self.keys.ready("fsm")) and not self.hands["last"]:
                return
        pytest.fail("it does not come to rest")

    def check(self) -> None:
        applied = {name: orjson.loads(self.store.snapshot(name)["payload"]) for name in NAMES}
        everything = [job_id for ids in applied.values() for job_id in ids if job_id.startswith("j")]
        assert len(everything) == len(set(everything)), "applied twice"
        for name in NAMES:
            assert self.store.mailbox(name) == [], "left asleep"
            expected = [job_id for job_id in self.order[name] if job_id in applied[name] and job_id not in self.moved]
            in_order = [j for j in applied[name] if j in self.order[name] and j not in self.moved]
            assert in_order == expected, "out of order"
            for job_id in self.order[name]:
                place = self.store.job(job_id)["place"]
                ends = {"done": job_id in applied[name], "failed": True, "gone": job_id in self.cancelled}
                assert ends.get(place), f"{job_id} is {place}"
                assert (job_id in applied[name]) == (place == "done")
                assert not (job_id in self.cancelled and job_id in applied[name]), "applied though cancelled"
        for job_id in everything:
            for mail in follow(job_id):
                job = self.store.job(mail.job_id)
                assert (mail.job_id in applied[mail.name]) == (job["place"] == "done"), "mail was lost"
                assert job["place"] in ("done", "failed")
        assert self.redis.keys("fsm:default:lock:*") == []
        assert self.redis.zcard(self.keys.held) == 0


def follow(job_id: str) -> list[Mail]:
    """What an event sends, the same in each attempt: some send one event to another FSM."""
    number = zlib.crc32(job_id.encode())
    if "--" in job_id or number % 4 or not job_id.startswith("j"):
        return []
    return [Mail(derived_id(job_id, "s1"), NAMES[number // 4 % len(NAMES)], "note", b"null")]


@pytest.mark.parametrize("seed", range(20))
def test_each_event_ends_once_and_in_order_whatever_happens(real_store: Store, seed: int) -> None:
    world = World(real_store, seed)
    real_store.idle(*NAMES)
    for _ in range(STEPS):
        world.step()
    world.drain()

    assert world.made > 30
    world.check()
