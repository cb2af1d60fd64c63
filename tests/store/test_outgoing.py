"""What leaves with a commit: mail, new FSMs, effects. None of it can stop the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from fsm.engine import Effect, Mail, NewFSM
from tests.store.small import Small

if TYPE_CHECKING:
    from tests.store.conftest import Store


def mail(target: str, job_id: str = "cause--s1", event: str = "note") -> Mail:
    data = orjson.dumps({"n": 1})
    return Mail(job_id, target, event, data)


def effect(job_id: str = "cause--e1", queue: str = "fsm-effects") -> Effect:
    return Effect(job_id, queue, "shop.charge", b'["shop.charge",null,[],{}]')


def test_mail_goes_into_the_mailbox_of_another_fsm(store: Store) -> None:
    store.waiting("a")
    fsm = store.one()
    store.idle("b")

    assert store.commit(store.work(fsm).apply().out(mail("b"))) == ["REST"]
    (got,) = store.one().mail
    assert (got.job_id, got.event, got.place) == ("cause--s1", "note", b"mail")
    assert orjson.loads(got.data)[2] == ["default", "b", "note", {"n": 1}]
    assert got.born == store.snapshot("b")["born"].encode()


def test_mail_to_itself_waits_behind_its_mail(store: Store) -> None:
    store.waiting("a")
    fsm = store.one()
    store.sent("a", "a-2")

    assert store.commit(store.work(fsm).apply().out(mail("a"))) == ["READY"]
    assert store.mailbox("a") == ["a-2", "cause--s1"]
    assert store.ready() == ["a"]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_mail_between_neighbours_of_one_commit_arrives(store: Store, first: str, second: str) -> None:
    store.waiting(first, second)
    fsms = store.claim().held
    work = [store.work(fsm).apply() for fsm in fsms]
    work[[fsm.name for fsm in fsms].index("a")].out(mail("b"))

    store.commit(*work)
    assert store.mailbox("b") == ["cause--s1"]
    assert store.ready() == ["b"]


def test_mail_to_an_fsm_in_the_hands_of_another_worker_is_not_lost(store: Store) -> None:
    store.waiting("a", "b")
    fsm = store.one("w1", fsms=1)
    theirs = store.one("w2")

    store.commit(store.work(fsm).apply().out(mail("b")))
    assert store.ready() == []
    assert store.commit(theirs, worker="w2") == ["READY"]


def test_mail_under_an_id_that_was_used_is_delivered_under_another(store: Store) -> None:
    store.waiting("a")
    fsm = store.one()
    store.idle("b")
    store.redis.hset(store.keys.job("cause--s1"), mapping={"place": "done", "fsm": "b"})

    store.commit(store.work(fsm).apply().out(mail("b")))
    (got,) = store.one().mail
    assert got.job_id.startswith("cause--s1")
    assert got.event == "note"
    assert store.job("cause--s1") == {"place": "done", "fsm": "b"}


@pytest.mark.parametrize("why", ["UNKNOWN", "FINISHED shut", "BROKEN", "FULL"])
def test_mail_that_cannot_be_delivered_is_recorded_and_does_not_stop_the_commit(store: Store, why: str) -> None:
    if why != "UNKNOWN":
        store.idle("b", machine=Small.definition)
    if why == "FINISHED shut":
        store.sent("b", "last")
        store.commit(store.work(store.one()).apply().move("shut", "finished"))
    elif why == "BROKEN":
        store.redis.set(store.keys.mailbox("b"), "not a list")
    elif why == "FULL":
        store.redis.rpush(store.keys.mailbox("b"), "1", "2", "3", "4")
    store.waiting("a")

    assert store.commit(store.work(store.one()).apply().move("shut").out(mail("b"))) == ["REST"]
    assert store.snapshot("a")["state"] == "shut"
    job = store.job("cause--s1")
    assert (job["place"], job["status"], job["fsm"], job["event"]) == ("failed", "failed", "b", "note")
    assert job["exc_info"] == f"mail from a not delivered: {why}"
    assert store.redis.zscore("rq:failed:fsm", "cause--s1")
    (line,) = orjson.loads(store.log_lines()[-1])
    assert line == {"name": "b", "event": "note", "job": "cause--s1", "error": f"undeliverable: {why}"}
    if why == "FULL":
        assert store.mailbox("b") == ["1", "2", "3", "4"]


def test_a_full_mailbox_takes_inside_mail_up_to_twice_its_bound(store: Store) -> None:
    store.idle("b", machine=Small.definition)
    store.waiting("a")
    fsm = store.one()
    store.sent("b", "1", "2")
    assert store.send("b") == "FULL 2"
    out = [mail("b", f"cause--s{i}") for i in range(3)]

    store.commit(store.work(fsm).apply().out(*out))
    assert store.mailbox("b") == ["1", "2", "cause--s0", "cause--s1"]
    assert store.job("cause--s2")["exc_info"] == "mail from a not delivered: FULL"


def test_a_new_fsm_begins_with_the_commit_and_gets_mail_in_it(store: Store) -> None:
    store.waiting("a")
    new = NewFSM("cause--c1", "child", store.machine, b'{"n":1}')

    store.commit(store.work(store.one()).apply().out(new, mail("child")))
    fsm = store.one()
    assert (fsm.name, fsm.status, fsm.payload) == ("child", "starting", b'{"n":1}')
    assert [item.event for item in fsm.mail] == ["[*]", "note"]
    assert store.redis.zscore(store.keys.state("Ticket", "open"), "child")


def test_a_new_fsm_whose_name_exists_is_recorded_and_does_not_stop_the_commit(store: Store) -> None:
    store.waiting("a", "child")
    before = store.snapshot("child")
    new = NewFSM("cause--c1", "child", store.machine, b"{}")

    assert store.commit(store.work(store.claim(fsms=1).held[0]).apply().out(new)) == ["REST"]
    assert store.snapshot("child") == before
    job = store.job("cause--c1")
    assert (job["place"], job["status"], job["fsm"]) == ("failed", "failed", "child")
    assert job["exc_info"] == "start from a not done: EXISTS Ticket"
    (line,) = orjson.loads(store.log_lines()[-1])
    assert line["error"] == "undeliverable: EXISTS Ticket"


def test_an_effect_is_an_ordinary_job_on_its_queue(store: Store) -> None:
    store.waiting("a")

    store.commit(store.work(store.one()).apply().out(effect(queue="mails")))
    assert store.listed("mails") == ["cause--e1"]
    job = store.job("cause--e1")
    assert (job["status"], job["origin"], job["data"]) == ("queued", "mails", '["shop.charge",null,[],{}]')
    assert b"rq:queue:mails" in store.redis.smembers("rq:queues")


def test_an_effect_never_overwrites_one_that_runs(store: Store) -> None:
    store.waiting("a")
    store.redis.hset(store.keys.job("cause--e1"), "status", "started")

    store.commit(store.work(store.one()).apply().out(effect()))
    (job_id,) = store.listed("fsm-effects")
    assert job_id != "cause--e1"
    assert store.job("cause--e1") == {"status": "started"}


def test_an_effect_whose_list_is_of_another_type_is_recorded(store: Store) -> None:
    store.waiting("a")
    store.redis.set("rq:queue:mails", "not a list")

    assert store.commit(store.work(store.one()).apply().out(effect(queue="mails"))) == ["REST"]
    job = store.job("cause--e1")
    assert (job["status"], job["exc_info"]) == ("failed", "effect of a not enqueued: BROKEN")
