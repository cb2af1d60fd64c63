"""The end of an effect comes back as an event, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from fsm import verbs
from fsm.engine import Effect
from fsm.machine import Machine, Settings
from fsm.store.requests import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store

ODD_NAMES = ["a", "päck 🚪", "two\nlines", "with: colons:", " spaces  ", "-", "nul\x00", '"quoted"', "%d(.*)$"]


class Small(Machine):
    """A machine with room for two events."""

    settings = Settings(max_mailbox=1)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> shut : shut
        shut --> [*]
    """


@pytest.mark.parametrize("name", ODD_NAMES)
def test_answered_as_an_event_of_the_fsm_that_asked(store: Store, name: str) -> None:
    store.idle(name)
    store.ask(name)

    assert store.answer(name, raw=b'{"n":[1]}') == "ANSWERED cause--e1a"
    (got,) = store.one().mail
    assert (got.job_id, got.event, got.place) == ("cause--e1a", "note", b"mail")
    assert orjson.loads(got.data)[2] == ["default", name, "note", {"n": [1]}]
    assert orjson.loads(got.meta or b"") == {"effect": "cause--e1"}
    assert store.open_effects(name) == []
    assert store.redis.zcard(store.keys.effects) == 0


def test_an_fsm_at_rest_is_woken_by_it(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    assert store.ready() == []

    store.answer("a")
    assert store.ready() == ["a"]
    assert store.listed()[-1] == "cause--e1a"


def test_closed_when_it_was_answered_before(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.answer("a")
    before = store.dump()

    assert store.answer("a", raw=b"2") == "CLOSED"
    assert store.dump() == before


def test_closed_when_it_was_never_open(store: Store) -> None:
    store.idle("a")

    assert store.answer("a") == "CLOSED"
    assert store.mailbox("a") == []


def test_repeated_it_is_closed_whatever_the_repeat_says(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.answer("a", "note")

    assert store.answer("a", "shut") == "CLOSED"
    assert [item.event for item in store.one().mail] == ["note"]


def test_silent_where_nothing_is_to_be_told(store: Store) -> None:
    store.idle("a")
    store.ask("a", on_success="")

    assert store.answer("a", "") == "SILENT"
    assert (store.mailbox("a"), store.open_effects("a")) == ([], [])
    assert store.answer("a", "") == "CLOSED"


def test_full_it_stays_open_and_is_answered_when_there_is_room(store: Store) -> None:
    store.idle("a", machine=Small.definition)
    store.ask("a")
    store.sent("a", "1")
    store.redis.rpush(store.keys.mailbox("a"), "2")

    assert store.answer("a") == "FULL"
    assert not store.redis.exists("rq:job:cause--e1a")
    assert store.open_effects("a") == ["cause--e1"]
    assert store.mailbox("a") == ["1", "2"]
    store.redis.rpop(store.keys.mailbox("a"))
    assert store.answer("a") == "ANSWERED cause--e1a"


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "effects_of"])
def test_broken_where_a_key_is_of_another_type_and_it_stays_open(store: Store, part: str) -> None:
    store.idle("a")
    store.ask("a")
    born = store.snapshot("a")["born"]
    key = getattr(store.keys, part)("a")
    kept = store.redis.dump(key) if part == "snapshot" else None
    effects = store.redis.hgetall(store.keys.effects_of("a"))
    store.redis.delete(key)
    store.redis.set(key, "of another type")

    assert store.answer("a", born=born) == "BROKEN"
    assert store.redis.get(key) == b"of another type"
    assert not store.redis.exists("rq:job:cause--e1a")
    store.redis.delete(key)
    if kept is not None:
        store.redis.restore(key, 0, kept)
    if part == "effects_of":
        store.redis.hset(key, mapping=effects)
    assert store.answer("a", born=born) == "ANSWERED cause--e1a"


def test_unknown_where_the_fsm_was_deleted_by_hand(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    born = store.snapshot("a")["born"]
    store.redis.delete(store.keys.snapshot("a"))

    assert store.answer("a", born=born) == "UNKNOWN"
    assert store.open_effects("a") == []


def test_another_life_of_the_name_gets_no_answer(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    born = store.snapshot("a")["born"]
    store.redis.delete(store.keys.snapshot("a"))
    store.idle("a")

    assert store.answer("a", born=born) == "UNKNOWN"
    assert store.mailbox("a") == []


def test_finished_it_is_recorded_as_failed_with_the_reason(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.sent("a", "last")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))

    assert store.answer("a", raw=b"7") == "FINISHED shut"
    job = store.job("cause--e1a")
    assert (job["place"], job["status"], job["fsm"], job["event"]) == ("failed", "failed", "a", "note")
    assert job["exc_info"] == "answer of effect cause--e1 not delivered: FINISHED shut"
    assert orjson.loads(job["data"])[2][3] == 7
    assert store.redis.zscore("rq:failed:fsm", "cause--e1a")
    assert store.redis.ttl("rq:job:cause--e1a") > 0
    (line,) = orjson.loads(store.log_lines()[-1])
    assert line == {"name": "a", "event": "note", "job": "cause--e1a", "error": "undeliverable: FINISHED shut"}
    assert store.answer("a") == "CLOSED"


@pytest.mark.parametrize("status", ["paused", "failed"])
def test_an_fsm_that_does_not_move_keeps_its_answer_for_later(store: Store, status: str) -> None:
    store.idle("a")
    store.ask("a")
    store.redis.hset(store.keys.snapshot("a"), "status", status)

    assert store.answer("a") == "ANSWERED cause--e1a"
    assert (store.mailbox("a"), store.ready()) == (["cause--e1a"], [])


def test_an_answer_never_overwrites_a_record(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.redis.hset(store.keys.job("cause--e1a"), mapping={"place": "done", "fsm": "a"})

    word, _, job_id = store.answer("a").partition(" ")
    assert (word, job_id[:11]) == ("ANSWERED", "cause--e1ar")
    assert store.job("cause--e1a") == {"place": "done", "fsm": "a"}
    assert store.mailbox("a") == [job_id]


def test_the_answers_of_two_namespaces_stay_apart(store: Store, another: Callable[[str], Store]) -> None:
    store.idle("a")
    store.ask("a")
    other = another("shop")
    other.idle("a")

    assert other.answer("a") == "CLOSED"
    assert store.answer("a") == "ANSWERED cause--e1a"


# What a commit opens, and a purge closes.


def test_a_commit_opens_its_effects(store: Store) -> None:
    store.idle("a")
    store.ask("a", on_success="note", on_failure="shut", waits=(1, 2), seconds=7)

    note = run(store.redis, verbs.note_of(store.keys, "cause--e1", "a"))
    assert note == {
        "func": "shop.charge",
        "queue": "fsm-effects",
        "on_success": "note",
        "on_failure": "shut",
        "born": store.snapshot("a")["born"],
        "cause": "cause",
        "at_ms": 0,
    }
    job = store.job("cause--e1")
    assert (job["retries_left"], job["retry_intervals"], job["timeout"]) == ("2", "[1,2]", "7")
    assert (job["fsm_of"], job["ns"]) == ("a", "default")
    assert job["success_callback_name"] == "workers.answers.success"
    due = store.redis.zscore(store.keys.effects, "cause--e1 a")
    seconds, micros = store.redis.time()
    assert 0 < due - (seconds * 1000 + micros / 1000) <= 5000


def test_rq_calls_nobody_back_where_nothing_is_to_be_told(store: Store) -> None:
    store.idle("a")
    store.ask("a", on_success="", on_failure="")

    assert not [field for field in store.job("cause--e1") if "callback" in field]
    assert store.open_effects("a") == ["cause--e1"]


def test_a_commit_that_lost_its_lock_opens_none(store: Store) -> None:
    store.waiting("a")
    work = store.work(store.one()).apply().out(Effect("cause--e1", "fsm-effects", "shop.charge", b"[]"))
    store.lapse("a")

    assert store.commit(work) == ["STALE"]
    assert store.open_effects("a") == []
    assert store.listed("fsm-effects") == []


def test_the_effect_of_an_event_that_was_requeued_gets_another_id_and_its_own_answer(store: Store) -> None:
    store.idle("a")
    first = store.ask("a")
    second = store.ask("a")

    assert first == "cause--e1"
    assert second.startswith("cause--e1r")
    assert sorted(store.open_effects("a")) == sorted([first, second])
    assert store.answer("a", effect_id=second) == f"ANSWERED {second}a"
    assert store.answer("a", effect_id=first) == f"ANSWERED {first}a"


def test_a_purge_leaves_nothing_open(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    born = store.snapshot("a")["born"]

    assert store.purge("a") == "PURGED"
    assert store.open_effects("a") == []
    assert store.answer("a", born=born) == "CLOSED"
    assert store.redis.zcard(store.keys.effects) == 0
    assert not store.redis.exists("rq:job:cause--e1a")


def test_the_watch_forgets_what_a_purge_closed(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.purge("a")
    store.idle("a")

    assert store.look() == {}
    assert store.redis.zcard(store.keys.effects) == 0
