"""Queues of single hosts: FSMs begin there, move with a commit, and their mail goes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fsm.engine import Mail, NewFSM
from fsm.machine import Machine, Settings
from fsm.store import calls
from fsm.store.blueprint import Blueprint
from fsm.store.keys import Keys
from fsm.store.places import Placer
from fsm.store.requests import run

if TYPE_CHECKING:
    from tests.store.conftest import Store

OLD, NEW, PIN = "fsm~edge-1", "fsm~edge-2", "fsm@edge-1"


class Sensor(Machine):
    settings = Settings(placement="ring")
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> [*] : shut
    """


def begin(store: Store, queue: str, *names: str) -> None:
    """FSMs at rest in a queue."""
    about = replace(Blueprint.of(store.machine, store.queue), queue=queue)
    assert run(store.redis, calls.start(store.keys, about, store.births(names))) == ["CREATED"] * len(names)
    assert store.commit(*store.claim(queue=queue, fsms=len(names)).held) == ["REST"] * len(names)


def places(store: Store) -> set[str]:
    return {queue.decode() for queue in store.redis.smembers(store.keys.places)}


@pytest.mark.parametrize("queue", [OLD, PIN])
def test_the_queue_of_a_host_is_noted_when_an_fsm_begins_there(store: Store, queue: str) -> None:
    store.idle("elsewhere")
    assert places(store) == set()

    begin(store, queue, "a", "b")

    assert places(store) == {queue}
    assert store.snapshot("a")["queue"] == queue
    store.sent("a", "a-1")
    assert (store.ready(queue), store.listed(queue)) == (["a"], ["a-1"])
    assert store.job("a-1")["origin"] == queue


def test_an_fsm_moves_with_a_commit_and_its_mail_goes_with_it(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    store.sent("a", "a-2", "a-3")

    work = store.work(fsm).apply()
    work.block.move(NEW)
    assert store.commit(work) == ["READY"]

    assert store.snapshot("a")["queue"] == NEW
    assert (store.ready(OLD), store.ready(NEW), store.listed(NEW)) == ([], ["a"], ["a-2"])
    assert places(store) == {OLD, NEW}
    (fsm,) = store.claim(queue=NEW).held
    assert [mail.job_id for mail in fsm.mail] == ["a-2", "a-3"]
    assert store.commit(fsm) == ["REST"]
    store.sent("a", "a-4")
    assert (store.ready(NEW), store.job("a-4")["origin"]) == (["a"], NEW)


def test_an_fsm_moves_back_to_the_queue_of_everyone(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    store.sent("a", "a-2")

    work = store.work(fsm).apply()
    work.block.move("fsm")
    assert store.commit(work) == ["READY"]

    assert "queue" not in store.snapshot("a")
    assert store.ready() == ["a"]


def test_a_commit_that_is_stale_moves_nothing(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    work = store.work(fsm).apply()
    work.block.move(NEW)
    store.redis.delete(store.keys.lock("a"))

    assert store.commit(work) == ["STALE"]
    assert store.snapshot("a")["queue"] == OLD


def test_repeated_a_move_gives_the_kept_verdict(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    store.sent("a", "a-2")
    work = store.work(fsm).apply()
    work.block.move(NEW)
    request = store.committing(work)

    assert run(store.redis, request) == ["READY"]
    before = store.dump()
    assert run(store.redis, request) == ["READY"]
    # All but the time for which the worker's own keys are kept.
    assert store.dump() == before


def test_what_fails_after_a_move_can_be_requeued_as_rq_does(store: Store) -> None:
    """RQ looks in the registry of the record's origin.

    Seen to fail without `origin` in what `fail` writes: that was the queue in which the event came.
    """
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    store.sent("a", "a-2")
    work = store.work(fsm).apply()
    work.block.move(NEW)
    store.commit(work)
    (fsm,) = store.claim(queue=NEW).held

    store.commit(store.work(fsm).fail())

    origin = store.job("a-2")["origin"]
    assert origin == NEW
    assert store.redis.zscore(Keys.rq_registry("failed", origin), "a-2")


def test_what_fails_in_the_commit_that_moves_its_fsm_is_noted_where_that_is_now(store: Store) -> None:
    # Seen to fail with the queue of the claim: `fsm retry` and its end left the note there.
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    work = store.work(store.claim(queue=OLD).held[0])
    work.block.move(NEW)

    store.commit(work.fail())

    assert store.job("a-1")["origin"] == NEW
    assert store.redis.zscore(Keys.rq_registry("failed", NEW), "a-1")


def test_what_is_to_be_tried_again_is_scheduled_where_its_fsm_is_by_then(store: Store) -> None:
    # Seen to fail with the queue of the claim: when it was due, RQ's registry there kept it for ever.
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    work = store.work(store.claim(queue=OLD).held[0])
    work.block.again("a-1", 1, 1, "Traceback")
    work.block.move(NEW)
    assert store.commit(work) == ["AT"]
    assert store.redis.zscore(Keys.rq_registry("scheduled", NEW), "a-1")

    assert run(store.redis, calls.due(store.keys, ahead_ms=60_000))[0] == 1
    assert store.ready(NEW) == ["a"]
    assert not store.redis.exists(Keys.rq_registry("scheduled", OLD), Keys.rq_registry("scheduled", NEW))


def test_a_hard_event_that_follows_is_of_the_new_queue(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    (fsm,) = store.claim(queue=OLD).held
    work = store.work(fsm).apply()
    work.block.record("a-1--h1", "note")
    work.block.owe("a-1--h1")
    work.block.move(NEW)

    assert store.commit(work) == ["READY"]
    assert (store.ready(NEW), store.job("a-1--h1")["origin"]) == (["a"], NEW)


def test_mail_that_comes_while_it_moves_waits_in_the_new_queue(store: Store) -> None:
    begin(store, OLD, "a", "b")
    store.sent("a", "a-1")
    store.sent("b", "b-1")
    a, b = store.claim(queue=OLD, fsms=2).held
    mail = Mail("cause--s1", "a", "note", b'{"n":1}')
    moving = store.work(a).apply()
    moving.block.move(NEW)

    store.commit(moving, store.work(b).apply().out(mail))

    assert store.ready(NEW) == ["a"]
    (fsm,) = store.claim(queue=NEW).held
    assert [one.job_id for one in fsm.mail] == ["cause--s1"]


def test_a_new_fsm_begins_on_the_host_that_is_named_or_that_the_ring_names(store: Store) -> None:
    store.waiting("a")
    fsm = store.one()
    work = store.work(fsm)
    work.block._placer = Placer({"child": "edge-1", "pinned": "edge-2"}.get)
    work.apply().out(
        NewFSM("cause--c1", "child", Sensor.definition, b"{}"),
        NewFSM("cause--c2", "nobody's", Sensor.definition, b"{}"),
        NewFSM("cause--c3", "any", store.machine, b"{}"),
        NewFSM("cause--c4", "pinned", Sensor.definition, b"{}", "edge-1"),
    )

    assert store.commit(work) == ["REST"]
    assert store.snapshot("child")["queue"] == OLD
    assert (store.ready(OLD), set(store.ready())) == (["child"], {"nobody's", "any"})
    # Seen to fail where the commit looked at the ring alone.
    assert (store.snapshot("pinned")["queue"], store.ready(PIN)) == (PIN, ["pinned"])
    assert places(store) == {OLD, PIN}


def test_a_dead_workers_fsm_waits_where_it_belongs(store: Store) -> None:
    begin(store, OLD, "a")
    store.sent("a", "a-1")
    assert store.claim(queue=OLD).held
    store.redis.delete(store.keys.lock("a"))
    store.redis.zadd(store.keys.held, {"a": 1})

    assert run(store.redis, calls.recover(store.keys, queues=(OLD,))) == (1, 0)
    assert store.ready(OLD) == ["a"]
