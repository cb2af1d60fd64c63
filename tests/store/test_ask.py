from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from tests.store.conftest import Store


def ask(store: Store, job_id: str) -> list[Any]:
    keys = (store.keys.job(job_id), store.keys.result(job_id))
    return run(store.redis, Request(list, "ask", keys))


def test_missing_where_there_is_no_record(store: Store) -> None:
    assert ask(store, "nothing") == [b"MISSING", b"0-0", None, None, None, None, None]
    assert store.redis.keys("*") == []


def test_waiting_leaves_a_mark_that_brings_the_result_to_the_waiter(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")

    assert ask(store, "one") == [b"WAITING", b"0-0", b"a", b"note", None, None, b"queued"]
    store.commit(store.one())
    assert store.redis.exists("rq:results:one") == 1


def test_done_tells_the_result_and_its_place_in_the_stream(store: Store) -> None:
    store.idle("a")
    store.send("a", "note", "one", asked=True)
    store.commit(store.one())
    ((newest, _),) = store.redis.xrange("rq:results:one")

    assert ask(store, "one") == [b"DONE", newest, b"a", b"note", b'{"state":"open","version":1}', None, b"finished"]


def test_failed_tells_the_text(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.commit(store.work(store.one()).fail("Traceback: it broke"))

    word, newest, name, event, result, text, status = ask(store, "one")
    assert (word, name, event, text, status) == (b"FAILED", b"a", b"note", b"Traceback: it broke", b"failed")
    assert newest != b"0-0"
    assert b'"failed":"handler"' in result


def test_gone_where_somebody_took_it_away(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.purge("a")

    assert ask(store, "one")[0] == b"GONE"


@pytest.mark.parametrize("status", ["queued", "finished", "failed", "started", "canceled"])
def test_what_rq_writes_into_the_status_is_no_verdict(store: Store, status: str) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.redis.hset("rq:job:one", "status", status)

    assert ask(store, "one")[0] == b"WAITING"


def test_repeated_it_changes_nothing(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    first = ask(store, "one")
    before = store.dump()

    assert ask(store, "one") == first
    assert store.dump() == before


def test_cancelled_by_rq_it_is_called_so_only_where_no_worker_may_have_it_in_hand(store: Store) -> None:
    store.waiting("a")
    store.redis.hset(store.keys.job("a-1"), "status", "canceled")
    assert ask(store, "a-1")[-1] == b"canceled"

    store.redis.hset(store.keys.job("a-1"), "status", "queued")
    fsm = store.one()
    store.redis.hset(store.keys.job("a-1"), "status", "canceled")
    assert ask(store, "a-1")[0] == b"WAITING"
    assert ask(store, "a-1")[-1] == b"started"
    store.release(fsm)
    assert ask(store, "a-1")[-1] == b"canceled"
