"""`host`: which hosts are alive, whom a drain counts for, and which queues of single hosts are to be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm import verbs
from fsm.store import presence
from fsm.store.presence import HostWord
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from tests.store.conftest import Store

LEASE_MS = 15_000
LIVE = HostWord()


def now_ms(store: Store) -> int:
    seconds, us = store.redis.time()
    return int(seconds) * 1000 + us // 1000


def look(
    store: Store, name: str = "edge", worker: str = "w1", *, born: int = 1000, queues: tuple[str, ...] = ("fsm",)
) -> HostWord:
    return run(store.redis, presence.host(store.keys, name, worker, born, lease_ms=LEASE_MS, queues=queues))


def leave(store: Store, name: str = "edge", worker: str = "w1", *, born: int = 1000) -> None:
    run(store.redis, presence.leave_host(store.keys, name, worker, born))


def drain(store: Store, name: str = "edge", *, at_ms: int = 2000) -> None:
    store.redis.hset(store.keys.draining, name, at_ms)


def hosts(store: Store) -> set[str]:
    return {name.decode() for name in store.redis.zrange(store.keys.hosts, 0, -1)}


def place(store: Store, *queues: str, ready: dict[str, int] | None = None) -> None:
    store.redis.sadd(store.keys.places, *queues)
    for queue, number in (ready or {}).items():
        store.redis.zadd(store.keys.ready(queue), {"someone": number})


def raw(store: Store, lease_ms: int = LEASE_MS) -> list[bytes]:
    keys = store.keys
    names = (keys.hosts, keys.draining, keys.places, keys.crew("edge"))
    return run(store.redis, Request(list, "host", names, [keys.prefix, "edge", "w1", 1000, lease_ms, "fsm"]))


def test_live_notes_until_when_the_host_is_alive(store: Store) -> None:
    before = now_ms(store)

    assert raw(store) == [b"LIVE", -1]
    assert before + LEASE_MS <= store.redis.zscore(store.keys.hosts, "edge") <= now_ms(store) + LEASE_MS
    assert store.redis.zrange(store.keys.crew("edge"), 0, -1) == [b"1000 w1"]


def test_drain_is_said_to_those_that_were_born_before_it_and_they_serve_no_host(store: Store) -> None:
    place(store, "fsm@edge")
    drain(store)

    assert raw(store) == [b"DRAIN", -1]
    assert look(store, worker="w2", born=2001) == HostWord(queues=("fsm@edge",))
    assert look(store) == HostWord(is_draining=True)


def test_left_takes_the_host_with_the_last_worker(store: Store) -> None:
    look(store)
    look(store, worker="w2")

    assert raw(store, lease_ms=0) == [b"LEFT"]
    assert hosts(store) == {"edge"}
    leave(store, worker="w2")
    assert not store.redis.exists(store.keys.hosts, store.keys.crew("edge"))


def test_a_worker_that_was_killed_keeps_no_host_longer_than_its_lease(store: Store) -> None:
    look(store)
    store.redis.zadd(store.keys.crew("edge"), {"900 dead": now_ms(store) - 1})

    leave(store)
    assert hosts(store) == set()


@pytest.mark.parametrize("how", ["live", "drain", "leave"])
def test_repeated_it_says_the_same(store: Store, how: str) -> None:
    place(store, "fsm~edge", "fsm~gone", ready={"fsm~gone": 1})
    if how == "drain":
        drain(store)
    if how == "leave":
        look(store)
    words = [raw(store, 0 if how == "leave" else LEASE_MS) for _ in range(3)]

    assert words[0] == words[1] == words[2]
    assert hosts(store) == (set() if how == "leave" else {"edge"})
    assert store.redis.zcard(store.keys.crew("edge")) == (how != "leave")


def test_the_note_of_a_drain_goes_with_the_last_worker_for_which_it_counts(store: Store) -> None:
    # Seen to fail without `is_over`: a host that had drained once was never given anything by the ring again.
    look(store)
    look(store, worker="w2")
    drain(store)

    leave(store)
    assert look(store, worker="new", born=3000) == LIVE
    assert presence_of_drain(store) == 2000
    leave(store, worker="w2")
    assert presence_of_drain(store) is None
    assert hosts(store) == {"edge"}


def test_a_host_whose_drained_workers_were_killed_serves_again_with_a_new_one(store: Store) -> None:
    drain(store)
    store.redis.zadd(store.keys.crew("edge"), {"900 dead": now_ms(store) - 1})

    assert look(store, worker="new", born=3000) == LIVE
    assert presence_of_drain(store) is None


def presence_of_drain(store: Store) -> int | None:
    return run(store.redis, presence.drained_at(store.keys, "edge"))


def test_the_note_of_a_drain_of_a_host_that_is_nowhere_goes_after_a_day(store: Store) -> None:
    drain(store, "gone", at_ms=now_ms(store) - 86_400_001)
    drain(store, "new", at_ms=now_ms(store))
    drain(store, "there", at_ms=1)
    look(store, "there", "w3", born=0)

    look(store)
    assert set(store.redis.hkeys(store.keys.draining)) == {b"new", b"there"}


def test_queues_of_this_host_come_first_and_pinned_ones_before_those_of_the_ring(store: Store) -> None:
    place(store, "fsm~edge", "fsm@edge", "b@edge", "other@edge", "fsm~gone", "b~edge", ready={"fsm~gone": 1})

    assert look(store, queues=("b", "fsm")).queues == ("b@edge", "fsm@edge", "b~edge", "fsm~edge", "fsm~gone")


def test_of_other_hosts_only_those_of_the_ring_that_are_gone_or_drain_and_have_mail(store: Store) -> None:
    # Each seen to fail alone: without the look at `hosts`, at `drains`, at the kind, at the base, at `ready`.
    look(store, "alive", "w2")
    look(store, "drains", "w3")
    drain(store, "drains")
    names = ("fsm~alive", "fsm~drains", "fsm~gone", "fsm@gone", "strange~gone")
    place(store, *names, "fsm~quiet", ready=dict.fromkeys(names, 1))

    assert set(look(store).queues) == {"fsm~drains", "fsm~gone"}


def test_who_waits_longest_is_taken_over_first_and_what_rqs_tools_requeued_before_all(store: Store) -> None:
    place(store, "fsm~a", "fsm~b", "fsm~c", ready={"fsm~a": 30, "fsm~b": 20})
    store.redis.rpush("rq:queue:fsm~c", "id")

    assert look(store).queues == ("fsm~c", "fsm~b", "fsm~a")


def test_no_more_than_some_are_taken_over_at_once(store: Store) -> None:
    names = [f"fsm~{number}" for number in range(40)]
    place(store, *names, ready={name: number for number, name in enumerate(names)})

    assert look(store).queues == tuple(names[:16])


def test_it_is_told_when_a_host_ends_whose_queues_would_be_taken_over(store: Store) -> None:
    look(store, "soon", "w2")
    store.redis.zadd(store.keys.hosts, {"soon": now_ms(store) + 5000, "sooner": now_ms(store) + 100})
    place(store, "fsm~soon", "fsm@sooner", "strange~sooner")

    assert 4 < (look(store).next_end_s or 0) <= 5
    store.redis.zadd(store.keys.hosts, {"soon": now_ms(store) - 1000})
    assert look(store).next_end_s == 0
    store.redis.zadd(store.keys.hosts, {"soon": now_ms(store) - 4000})
    assert look(store).next_end_s is None


def test_after_an_outage_nobody_takes_over_before_the_others_had_time_to_say_that_they_live(store: Store) -> None:
    # Seen to fail without `was_gone`: of all hosts, the first to come back served the queues of all others.
    look(store)
    look(store, "other", "w2")
    place(store, "fsm~edge", "fsm~other", ready={"fsm~other": 1})
    store.redis.zadd(store.keys.hosts, {"edge": now_ms(store) - 1, "other": now_ms(store) - 1})

    assert look(store).queues == ("fsm~edge",)
    assert look(store).queues == ("fsm~edge", "fsm~other")  # it is gone indeed
    look(store, "other", "w2")
    assert look(store).queues == ("fsm~edge",)


def test_hosts_that_are_gone_for_a_day_are_forgotten(store: Store) -> None:
    store.redis.zadd(store.keys.hosts, {"old": 1, "gone": now_ms(store) - 1000})

    look(store)
    assert hosts(store) == {"edge", "gone"}


@pytest.mark.parametrize("key", ["hosts", "draining", "places", "crew", "ready"])
def test_a_key_of_another_type_stops_no_worker(store: Store, key: str) -> None:
    names = {"crew": store.keys.crew("edge"), "ready": store.keys.ready("fsm~gone")}
    place(store, "fsm~gone")
    name = names.get(key) or getattr(store.keys, key)
    store.redis.delete(name)
    store.redis.set(name, "edited by hand")

    assert not look(store).is_draining
    leave(store)


def test_a_note_that_was_edited_by_hand_is_no_drain(store: Store) -> None:
    store.redis.hset(store.keys.draining, "edge", "now")

    assert look(store) == LIVE


def test_queues_of_hosts_that_are_gone_are_forgotten_while_nobody_waits_there(store: Store) -> None:
    # Hosts that are called by chance, as containers are, come once. Seen to fail where they were never forgotten: then
    # each look of each worker goes through all that ever were.
    place(store, "fsm~gone", "fsm~busy", "fsm~requeued", "fsm~failed", "fsm~there", "fsm@gone", "x~gone")
    store.redis.zadd(store.keys.ready("fsm~busy"), {"someone": 1})
    store.redis.rpush("rq:queue:fsm~requeued", "job")
    store.redis.zadd("rq:failed:fsm~failed", {"job": now_ms(store) / 1000 + 60})
    # What failed so long ago that its record is gone cannot be requeued.
    store.redis.zadd("rq:failed:fsm~gone", {"job": now_ms(store) / 1000 - 60})
    look(store, "there")

    look(store)

    kept = {"fsm~busy", "fsm~requeued", "fsm~failed", "fsm~there", "fsm@gone", "x~gone"}
    assert {queue.decode() for queue in store.redis.smembers(store.keys.places)} == kept


def test_a_queue_that_was_forgotten_is_served_when_somebody_waits_there(store: Store) -> None:
    # Seen to fail where only starts and moves noted a queue: such an FSM was served by nobody until its host was back.
    store.idle("a")
    store.redis.hset(store.keys.snapshot("a"), "queue", "fsm~gone")
    place(store, "fsm~gone")
    assert look(store).queues == ()
    assert store.redis.scard(store.keys.places) == 0
    assert verbs.carry(verbs.synch(store.keys), lambda request: run(store.redis, request)) == []

    store.sent("a", "j1")

    assert look(store).queues == ("fsm~gone",)
