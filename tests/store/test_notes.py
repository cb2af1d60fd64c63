"""What a commit notes beside the snapshot: which FSMs have an error, and what became of each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm import Settings
from fsm.store import commits
from fsm.store.requests import run

if TYPE_CHECKING:
    from tests.store.conftest import Store

ODD_NAMES = ["a", "order:42", "ö 'x' \"y\"", "a\nb"]


def errors(store: Store) -> list[str]:
    return [name.decode() for name in store.redis.zrange(store.keys.errors("Ticket"), 0, -1)]


def audit(store: Store, name: str) -> list[Any]:
    return [orjson.loads(fields[b"line"]) for _, fields in store.redis.xrange(store.keys.audit(name))]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_fsm_with_an_error_is_found_until_that_is_forgotten(store: Store, name: str) -> None:
    # Seen to fail with ZADD, and with ZREM, commented out in commit.lua.
    store.waiting(name)
    work = store.work(store.one()).fail()
    work.block.note_error()
    seconds = int(store.redis.time()[0])
    assert store.commit(work) == ["REST"]
    assert errors(store) == [name]
    assert abs(store.redis.zscore(store.keys.errors("Ticket"), name) / 1000 - seconds) < 60

    store.sent(name, "later")
    work = store.work(store.one()).apply()
    work.block.forget_error()
    assert store.commit(work) == ["REST"]
    assert errors(store) == []


@pytest.mark.parametrize(("last", "found"), [("note_error", ["a"]), ("forget_error", [])])
def test_of_one_commit_the_last_word_counts(store: Store, last: str, found: list[str]) -> None:
    store.waiting("a")
    work = store.work(store.one()).apply()
    work.block.note_error()
    work.block.forget_error()
    getattr(work.block, last)()
    store.commit(work)

    assert errors(store) == found


def test_of_several_fsms_each_is_noted_by_itself(store: Store) -> None:
    store.waiting("a", "b", "c")
    works = [store.work(fsm).apply() for fsm in store.claim().held]
    works[0].block.note_error()
    works[2].block.note_error()

    assert store.commit(*works) == ["REST"] * 3
    assert errors(store) == ["a", "c"]


def test_what_became_of_events_is_kept_in_their_order_and_so_many_as_are_wanted(store: Store) -> None:
    # Seen to fail with XADD commented out in commit.lua, and without its MAXLEN.
    store.waiting("a")
    work = store.work(store.one()).apply()
    work.block = commits.Block(store.keys, work.fsm, Settings(audit=1))
    for number in range(500):
        work.block.log({"event": "note", "meta": {"who": "ö"}, "number": number})
    work.apply()
    assert store.commit(work) == ["REST"]

    kept = audit(store, "a")
    numbers = [line["number"] for line in kept]
    assert kept[-1] == {"event": "note", "meta": {"who": "ö"}, "number": 499}
    assert numbers == list(range(500 - len(numbers), 500))
    assert len(numbers) < 500


def test_what_lies_under_these_keys_stops_no_commit(store: Store) -> None:
    # Seen to fail with `call` in the place of `try`.
    store.waiting("a")
    store.redis.set(store.keys.errors("Ticket"), "by hand")
    store.redis.set(store.keys.audit("a"), "by hand")
    work = store.work(store.one())
    work.block = commits.Block(store.keys, work.fsm, Settings(audit=True))
    work.apply()
    work.block.note_error()
    work.block.forget_error()
    work.block.log({"event": "note"})

    assert store.commit(work) == ["REST"]
    assert store.snapshot("a")["version"] == "2"
    assert store.mailbox("a") == []


def test_a_commit_that_is_repeated_notes_nothing_twice(store: Store) -> None:
    store.waiting("a")
    work = store.work(store.one()).apply()
    work.block = commits.Block(store.keys, work.fsm, Settings(audit=True))
    work.block.log({"event": "note"})
    work.apply()
    request = store.committing(work, nonce=7)

    assert run(store.redis, request) == run(store.redis, request) == ["REST"]
    assert len(audit(store, "a")) == 1
