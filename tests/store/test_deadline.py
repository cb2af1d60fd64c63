"""The deadline of an effect: what has not ended by then has failed, once, and what it says later is not heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from fsm import verbs
from fsm.store import alarms, calls
from fsm.store.requests import run
from tests.store.test_answer import ODD_NAMES, Small

if TYPE_CHECKING:
    from tests.store.conftest import Store

ID = "cause--e1"
HOUR_MS = 3_600_000


def asked(store: Store, name: str = "a", **more: object) -> str:
    """Let an FSM at rest ask for an effect that has an hour: its member of `timers`."""
    store.idle(name)
    assert store.ask(name, **({"deadline_ms": HOUR_MS} | more)) == ID
    return alarms.deadline(ID, name)


def due(store: Store, *, ahead_ms: int = 2 * HOUR_MS) -> int:
    """Let the hour pass: how many members were done."""
    return run(store.redis, calls.due(store.keys, ahead_ms=ahead_ms))[0]


def timers(store: Store) -> list[str]:
    return [member.decode() for member in store.redis.zrange(store.keys.timers, 0, -1)]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_beyond_it_the_fsm_is_told_that_the_effect_failed(store: Store, name: str) -> None:
    member = asked(store, name)
    seconds, _ = store.redis.time()
    assert abs(store.redis.zscore(store.keys.timers, member) - seconds * 1000 - HOUR_MS) < 60_000
    assert due(store, ahead_ms=0) == 0

    assert due(store) == 1

    (got,) = store.one().mail
    assert (got.job_id, got.event, got.place) == (f"{ID}a", "note", b"mail")
    assert orjson.loads(got.data) == [
        "workers.jobs.transition",
        None,
        ["default", name, "note", {"type": "deadline", "message": "it had not ended by then"}],
        {},
    ]
    assert orjson.loads(got.meta or b"") == {"effect": ID}
    assert (store.open_effects(name), timers(store), store.redis.zcard(store.keys.effects)) == ([], [], 0)


def test_a_late_answer_is_refused(store: Store) -> None:
    asked(store)
    due(store)

    assert store.answer("a") == "CLOSED"
    assert store.mailbox("a") == [f"{ID}a"]


def test_what_was_answered_in_time_has_no_deadline_any_more(store: Store) -> None:
    # Seen to fail without the ZREM in `close`: a million answered effects of a day stood in `timers` until it was over.
    asked(store)
    assert store.answer("a").startswith("ANSWERED")

    assert timers(store) == []
    assert due(store) == 0
    assert store.mailbox("a") == [f"{ID}a"]


def test_nor_what_ended_where_nobody_wanted_to_know(store: Store) -> None:
    asked(store, on_success="")
    store.redis.hset(store.keys.job(ID), "status", "finished")
    store.look()

    assert (store.open_effects("a"), timers(store)) == ([], [])


def test_the_deadline_is_told_once(store: Store) -> None:
    member = asked(store)
    due(store)
    before = store.mailbox("a")
    store.redis.zadd(store.keys.timers, {member: 1})

    assert due(store) == 0
    assert (store.mailbox("a"), timers(store)) == (before, [])


@pytest.mark.parametrize("status", ["queued", "scheduled"])
def test_what_nobody_began_is_not_begun_any_more(store: Store, status: str) -> None:
    # Seen to fail without `withdraw`: it was run an hour later, for nobody.
    asked(store)
    if status == "scheduled":
        store.redis.delete("rq:queue:fsm-effects")
        store.redis.zadd("rq:scheduled:fsm-effects", {ID: 9_999_999_999})
        store.redis.hset(store.keys.job(ID), "status", status)
    due(store)

    assert store.job(ID)["status"] == "canceled"
    assert store.listed("fsm-effects") == []
    assert not store.redis.exists("rq:scheduled:fsm-effects")
    assert store.redis.zscore("rq:canceled:fsm-effects", ID)


def test_what_is_under_way_is_left_alone(store: Store) -> None:
    asked(store)
    store.redis.hset(store.keys.job(ID), "status", "started")
    due(store)

    assert store.job(ID)["status"] == "started"


def test_without_a_record_it_is_told_all_the_same(store: Store) -> None:
    asked(store)
    store.redis.delete(store.keys.job(ID))

    assert due(store) == 1
    assert store.mailbox("a") == [f"{ID}a"]
    assert not store.redis.exists(store.keys.job(ID))


def test_a_full_mailbox_is_tried_again_a_second_later(store: Store) -> None:
    store.idle("a", machine=Small.definition)
    store.ask("a", deadline_ms=HOUR_MS)
    member = alarms.deadline(ID, "a")
    store.sent("a", "1")
    store.redis.rpush(store.keys.mailbox("a"), "2")
    seconds, _ = store.redis.time()
    store.redis.zadd(store.keys.timers, {member: 1})

    assert due(store, ahead_ms=0) == 0
    assert store.open_effects("a") == [ID]
    assert abs(store.redis.zscore(store.keys.timers, member) - seconds * 1000 - 1000) < 60_000
    store.redis.rpop(store.keys.mailbox("a"))
    assert due(store) == 1


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "effects_of"])
def test_where_a_key_is_of_another_type_it_waits_for_its_repair(store: Store, part: str) -> None:
    member = asked(store)
    key = getattr(store.keys, part)("a")
    store.redis.delete(key)
    store.redis.set(key, "of another type")

    assert due(store) == 0
    assert timers(store) == [member]
    assert store.redis.get(key) == b"of another type"


def test_a_note_that_was_edited_by_hand_stops_nobody_else(store: Store) -> None:
    member = asked(store)
    store.redis.hset(store.keys.effects_of("a"), ID, "{no json")
    store.redis.zadd(store.keys.timers, {"deadline": 1, "deadline x": 1})

    assert due(store) == 0
    assert member in timers(store)


def test_of_an_fsm_that_has_finished_it_is_recorded_as_failed(store: Store) -> None:
    asked(store)
    store.sent("a", "last")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))

    assert due(store) == 1
    assert store.job(f"{ID}a")["exc_info"] == f"answer of effect {ID} not delivered: FINISHED shut"


def test_another_life_of_the_name_hears_nothing(store: Store) -> None:
    asked(store)
    store.redis.delete(store.keys.snapshot("a"))
    store.idle("a")

    assert due(store) == 1
    assert store.mailbox("a") == []


def test_purged_its_deadline_is_dropped_when_it_comes(store: Store) -> None:
    asked(store)
    assert store.purge("a") == "PURGED"

    assert due(store) == 0
    assert timers(store) == []


def test_an_effect_of_a_requeued_event_has_the_deadline_of_its_own_id(store: Store) -> None:
    # Seen to fail where the commit was told the member: the id had been used, and the effect got another.
    store.redis.hset(store.keys.job(ID), "place", "done")
    store.idle("a")
    job_id = store.ask("a", deadline_ms=HOUR_MS)

    assert job_id != ID
    assert timers(store) == [alarms.deadline(job_id, "a")]
    assert due(store) == 1


def test_the_agenda_shows_it(store: Store) -> None:
    member = asked(store)
    (effect,) = verbs.carry(verbs.agenda(store.keys, "a"), lambda request: run(store.redis, request)).effects

    assert effect.deadline is not None
    assert round(effect.deadline.timestamp() * 1000) == store.redis.zscore(store.keys.timers, member)
