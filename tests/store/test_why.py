"""Why an FSM does not get on, over both servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import why

if TYPE_CHECKING:
    from tests.store.conftest import Store


def ask(store: Store, job_id: str = "", name: str = "a") -> str:
    """Carry the plan."""
    plan: Any = why(store.keys, name, job_id)
    try:
        request = plan.send(None)
        while True:
            request = plan.send(run(store.redis, request))
    except StopIteration as end:
        return str(end.value)


def listen(store: Store, worker: str = "w9", *, ago_ms: int = 0, is_ours: bool = True, queue: str = "fsm") -> None:
    """Register a worker as RQ does, and ours as we do."""
    store.redis.sadd(Keys.rq_workers(queue), Keys.rq_worker(worker))
    store.redis.hset(Keys.rq_worker(worker), mapping={"birth": "now", **({"fsm": "default"} if is_ours else {})})
    if is_ours:
        seconds, us = store.redis.time()
        store.redis.zadd(store.keys.workers, {worker: int(seconds) * 1000 + int(us) // 1000 - ago_ms})


def test_nobody_listens(store: Store) -> None:
    store.waiting("a")

    assert ask(store, "a-1") == "no worker listens on queue 'fsm': start one with `fsm worker`"


def test_only_dead_ones_listen(store: Store) -> None:
    store.waiting("a")
    listen(store, ago_ms=31_000)
    store.redis.sadd(Keys.rq_workers("fsm"), Keys.rq_worker("expired"))

    assert ask(store, "a-1").startswith("no worker listens on queue 'fsm'")


def test_workers_of_another_namespace_do_not_listen(store: Store) -> None:
    store.waiting("a")
    store.redis.sadd(Keys.rq_workers("fsm"), Keys.rq_worker("w"))
    store.redis.hset(Keys.rq_worker("w"), mapping={"birth": "now", "fsm": "other"})

    assert ask(store, "a-1").startswith("no worker listens on queue 'fsm'")


def test_workers_listen_and_others_come_before_it(store: Store) -> None:
    store.waiting("b", "c", "a")
    listen(store, "w1")
    listen(store, "stock", is_ours=False)

    assert ask(store, "b-1", "b") == "it waits on queue 'fsm', where 2 workers listen"
    assert ask(store, "a-1") == "2 FSMs wait before it on queue 'fsm', where 2 workers listen"


def test_events_wait_before_it_urgent_ones_first(store: Store) -> None:
    store.waiting("a")
    store.sent("a", "a-2", "a-3")
    listen(store)

    assert ask(store, "a-3") == "it waits on queue 'fsm', where 1 worker listens, and 2 events wait before it"
    store.redis.rpush(store.keys.urgent("a"), "u1", "u2")
    assert ask(store, "a-1").endswith(", and 2 events wait before it")
    assert ask(store, "u2").endswith(", and 1 event waits before it")
    assert not ask(store, "u1").endswith("before it")


def test_a_worker_has_it_in_hand(store: Store) -> None:
    store.waiting("a")
    store.sent("a", "a-2")
    store.claim("host/with-stroke-1")
    store.sent("a", "a-3")

    said = ask(store, "a-3")
    assert re.fullmatch(
        r"worker host/with-stroke-1 has had it in hand for \d+\.\d s, and 2 events wait before it", said
    ), said
    store.redis.delete(store.keys.replies("host/with-stroke-1"))
    assert ask(store, "a-1") == "worker host/with-stroke-1 has it in hand"


def test_workers_are_suspended(store: Store) -> None:
    store.waiting("a")
    listen(store)
    store.redis.set("rq:suspended", 1)

    assert ask(store, "a-1") == "workers are suspended: `rq resume` lets them go on"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("failed", "it cannot go on by itself; `fsm retry a` lets it go on"),
        ("purging", "it is being purged"),
    ],
)
def test_an_fsm_that_does_not_move_says_so(store: Store, status: str, said: str) -> None:
    store.waiting("a")
    store.redis.hset(store.keys.snapshot("a"), "status", status)

    assert ask(store, "a-1") == said


def now_ms(store: Store) -> int:
    seconds, us = store.redis.time()
    return int(seconds) * 1000 + int(us) // 1000


def test_a_paused_fsm_says_since_when_and_what_helps(store: Store) -> None:
    store.waiting("a")
    store.sent("a", "a-2")
    store.redis.hset(store.keys.snapshot("a"), "paused", now_ms(store) - 3_665_000)

    said = "it was paused 1h1m ago: `fsm resume a` lets it go on"
    assert ask(store, "a-1") == said
    assert ask(store, "a-2") == f"{said}, and 1 event waits before it"
    assert ask(store) == f"2 events wait: {said}"
    # What a worker has in hand is finished.
    store.redis.set(store.keys.lock("a"), "w9/ab")
    assert ask(store, "a-1") == f"worker w9 has it in hand; and {said}"
    store.redis.hset(store.keys.snapshot("a"), "status", "failed")
    assert ask(store) == f"it cannot go on by itself; `fsm retry a` lets it go on; and {said}"


def test_a_paused_fsm_without_mail_says_so_and_a_finished_one_does_not(store: Store) -> None:
    store.idle("a")
    store.redis.hset(store.keys.snapshot("a"), "paused", "by hand")

    assert ask(store) == "it was paused some time ago: `fsm resume a` lets it go on"
    store.redis.hset(store.keys.snapshot("a"), "status", "finished")
    assert ask(store) == "it has finished in 'open'"


def test_an_event_that_waits_for_its_retry_says_when(store: Store) -> None:
    store.idle("it's")
    store.sent("it's", "one", "two")
    store.redis.hset(store.keys.snapshot("it's"), "retry_at", now_ms(store) + 5_455_000)
    store.redis.hset(store.keys.job("one"), "attempt", 2)

    said = """event 'note' is tried again in 1h30m (attempt 3), `fsm retry 'it'"'"'s'` does it now"""
    assert ask(store, "one", "it's") == said
    assert ask(store, "two", "it's") == f"{said}, and 1 event waits before it"
    assert ask(store, "", "it's") == f"2 events wait: {said}"
    store.redis.hdel(store.keys.job("one"), "attempt")
    assert "in 1h30m, `fsm" in ask(store, "one", "it's")
    # In the past: it is due, and only waits for a worker.
    store.redis.hset(store.keys.snapshot("it's"), "retry_at", now_ms(store) - 1)
    assert ask(store, "one", "it's").startswith("no worker listens")


def test_an_fsm_at_rest_and_one_that_is_gone(store: Store) -> None:
    store.idle("a")

    assert ask(store) == "no event waits for it"
    assert ask(store, "ended-meanwhile") == ""
    assert ask(store, name="nobody") == "there is no FSM of this name any more"


def test_what_cannot_be_asked_is_not_told(store: Store) -> None:
    store.waiting("a")
    store.redis.delete(store.keys.mailbox("a"))
    store.redis.set(store.keys.mailbox("a"), "not a list")

    assert ask_with_errors(store) == ""


def ask_with_errors(store: Store) -> str:
    """Carry the plan as the client does: it is told of errors."""
    plan: Any = why(store.keys, "a", "a-1")
    try:
        request = plan.send(None)
        while True:
            try:
                reply = run(store.redis, request)
            except Exception as error:  # noqa: BLE001 - whatever it is, the plan is to judge it
                request = plan.throw(error)
            else:
                request = plan.send(reply)
    except StopIteration as end:
        return str(end.value)


def test_an_event_far_behind_is_not_looked_for(real_store: Store) -> None:
    # Seen to fail without MAXLEN: all 100,000 were looked through while Redis served nobody else.
    real_store.waiting("a")
    real_store.redis.rpush(real_store.keys.mailbox("a"), *(f"x{n}" for n in range(100_000)), "last")
    listen(real_store)

    assert ask(real_store, "x998").endswith(", and 999 events wait before it")
    assert "before it" not in ask(real_store, "last")


def on_host(store: Store, host: str, *, ms: int = 60_000, drains: bool = False) -> None:
    """Note that a host lives for so long, and one worker of it that listens on the queue of the namespace."""
    seconds, us = store.redis.time()
    store.redis.zadd(store.keys.hosts, {host: int(seconds) * 1000 + int(us) // 1000 + ms})
    if drains:
        store.redis.hset(store.keys.draining, host, 1)
    listen(store, f"w-{host}")
    store.redis.hset(Keys.rq_worker(f"w-{host}"), "hostname", host)


def in_queue(store: Store, queue: str) -> None:
    """An FSM in this queue with one event that waits."""
    store.waiting("a")
    store.redis.hset(store.keys.snapshot("a"), "queue", queue)
    store.redis.rename(store.keys.ready("fsm"), store.keys.ready(queue))


def test_it_is_pinned_to_a_host_that_is_not_alive(store: Store) -> None:
    in_queue(store, "fsm@edge-7")
    on_host(store, "edge-8")

    assert ask(store, "a-1") == "it waits for host edge-7, which is not alive"
    on_host(store, "edge-7", ms=-1)
    assert ask(store) == "1 event waits: it waits for host edge-7, which is not alive"


def test_it_is_pinned_to_a_host_that_drains(store: Store) -> None:
    in_queue(store, "fsm@edge-7")
    on_host(store, "edge-7", drains=True)

    assert ask(store, "a-1") == "it waits for host edge-7, which drains"


def test_it_is_pinned_to_a_host_whose_workers_serve_other_queues(store: Store) -> None:
    in_queue(store, "fsm@edge-7")
    on_host(store, "edge-7")
    store.redis.delete(Keys.rq_workers("fsm"))
    listen(store, "w-elsewhere")

    said = "no worker of host edge-7 listens on queue 'fsm': start one with `fsm worker --host edge-7`"
    assert ask(store, "a-1") == said


def test_it_waits_for_workers_of_the_host_to_which_it_is_pinned(store: Store) -> None:
    in_queue(store, "fsm@edge-7")
    on_host(store, "edge-7")
    on_host(store, "edge-8")

    assert ask(store, "a-1") == "it waits on queue 'fsm@edge-7', where 1 worker listens"
    listen(store, "stock", is_ours=False, queue="fsm@edge-7")
    assert ask(store, "a-1") == "it waits on queue 'fsm@edge-7', where 2 workers listen"


def test_the_ring_gave_it_to_a_host_that_is_gone(store: Store) -> None:
    in_queue(store, "fsm~edge-7")
    assert ask(store, "a-1") == "no worker listens on queue 'fsm': start one with `fsm worker`"

    on_host(store, "edge-8")
    assert ask(store, "a-1") == "it waits for host edge-7, which is not alive: others take over"
    on_host(store, "edge-7")
    assert ask(store, "a-1") == "it waits on queue 'fsm~edge-7', where 2 workers listen"
