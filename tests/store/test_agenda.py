"""What is before an FSM: events that wait, and effects that are open."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm import verbs
from fsm.errors import StoreError, UnknownFSMError
from fsm.store.requests import run
from tests.store.test_answer import ODD_NAMES

if TYPE_CHECKING:
    from fsm.verbs import Agenda
    from tests.store.conftest import Store


def agenda(store: Store, name: str = "a", **more: Any) -> Agenda:
    return verbs.carry(verbs.agenda(store.keys, name, **more), lambda request: run(store.redis, request))


def test_nothing_is_before_an_fsm_at_rest(store: Store) -> None:
    store.idle("a")

    assert agenda(store) == verbs.Agenda("a")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_events_that_wait_come_in_their_order_with_all_that_is_known_of_them(store: Store, name: str) -> None:
    store.idle(name)
    store.send(name, "note", "one", raw=b'{"n":[1]}', meta=b'{"actor":"ann"}')
    store.send(name, "shut", "two")

    one, two = agenda(store, name).events
    assert (one.job_id, one.event, one.data, one.meta) == ("one", "note", {"n": [1]}, {"actor": "ann"})
    assert (one.status, one.is_held) == ("queued", False)
    assert one.since is not None
    assert abs(datetime.now(UTC) - one.since) < timedelta(minutes=1)
    assert (two.job_id, two.event, two.data, two.meta) == ("two", "shut", None, {})


def test_urgent_events_come_first(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.redis.rpush(store.keys.urgent("a"), "hard")
    store.redis.hset(store.keys.job("hard"), mapping={"event": "ship", "status": "queued"})

    assert [event.job_id for event in agenda(store).events] == ["hard", "one"]


def test_the_first_event_of_an_fsm_that_a_worker_holds_is_in_its_hands(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    store.one("edge-7")

    found = agenda(store)
    assert found.worker == "edge-7"
    assert [event.is_held for event in found.events] == [True, False]


def test_more_events_than_are_asked_for_are_counted(store: Store) -> None:
    store.idle("a")
    store.sent("a", "1", "2", "3", "4")
    store.redis.rpush(store.keys.urgent("a"), "hard")

    found = agenda(store, most=2)
    assert ([event.job_id for event in found.events], found.more_events) == (["hard", "1"], 3)


def test_records_of_events_that_were_deleted_or_edited_are_told_as_they_are(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    store.send("a", "note", "three", raw=b"[3]")
    store.redis.delete(store.keys.job("one"))
    store.redis.hset(store.keys.job("two"), mapping={"data": "no JSON", "meta": "[]", "enqueued_at": "soon"})
    packed = zlib.compress(store.job("three")["data"].encode())
    store.redis.hset(store.keys.job("three"), "data", packed)

    one, two, three = agenda(store).events
    assert (one.event, one.data, one.since, one.status) == ("", None, None, "")
    assert (two.event, two.data, two.meta, two.since) == ("note", None, {}, None)
    # RQ packs the data of a job that it writes anew.
    assert (three.event, three.data) == ("note", [3])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_open_effects_come_with_all_that_is_known_of_them(store: Store, name: str) -> None:
    store.idle(name)
    store.ask(name, waits=(0, 5), on_failure="shut", queue="reports", call=b'["shop.charge",null,["x",2],{"k":[]}]')
    store.redis.hset(store.keys.job("cause--e1"), mapping={"status": "started", "deaths": 2})

    (effect,) = agenda(store, name).effects
    assert (effect.job_id, effect.func, effect.args, effect.kwargs) == ("cause--e1", "shop.charge", ["x", 2], {"k": []})
    assert (effect.queue, effect.status, effect.retries_left, effect.deaths) == ("reports", "started", 2, 2)
    assert (effect.on_success, effect.on_failure, effect.cause) == ("note", "shut", "cause")


def test_effects_that_ended_are_not_before_it(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.answer("a")

    found = agenda(store)
    assert found.effects == []
    assert [event.job_id for event in found.events] == ["cause--e1a"]


def test_the_oldest_effects_come_first_and_the_rest_is_counted(store: Store) -> None:
    store.idle("a")
    for n, at_ms in enumerate((3000, 1000, 20_000)):
        store.redis.hset(store.keys.effects_of("a"), f"e{n}", orjson.dumps({"at_ms": at_ms, "func": "f"}))

    assert [effect.job_id for effect in agenda(store).effects] == ["e1", "e0", "e2"]
    assert agenda(store).effects[0].since == datetime.fromtimestamp(1, UTC)
    found = agenda(store, most=2)
    assert (len(found.effects), found.more_effects) == (2, 1)


@pytest.mark.parametrize("note", ["no JSON", "[]", "{}", '{"at_ms":"soon","on_success":null}', '{"at_ms":1e300}'])
def test_an_effect_without_a_record_or_with_a_note_that_was_edited_is_told_as_it_is(store: Store, note: str) -> None:
    store.idle("a")
    store.redis.hset(store.keys.effects_of("a"), "e1", note)

    (effect,) = agenda(store).effects
    assert (effect.job_id, effect.status, effect.args, effect.since, effect.on_success) == ("e1", "", [], None, "")


def test_effects_of_an_fsm_that_has_finished_are_told(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.sent("a", "last")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))

    assert [effect.job_id for effect in agenda(store).effects] == ["cause--e1"]


@pytest.mark.parametrize("status", ["", "purging"])
def test_an_fsm_that_is_not_there_has_no_agenda(store: Store, status: str) -> None:
    if status:
        store.idle("a")
        store.redis.hset(store.keys.snapshot("a"), "status", status)

    with pytest.raises(UnknownFSMError):
        agenda(store)


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "effects_of"])
def test_a_key_of_another_type_is_an_error_of_ours(store: Store, part: str) -> None:
    store.idle("a")
    key = getattr(store.keys, part)("a")
    store.redis.delete(key)
    store.redis.set(key, "of another type")

    with pytest.raises(StoreError, match="WRONGTYPE"):
        agenda(store)


def test_as_json_it_is_json(store: Store) -> None:
    store.idle("a")
    store.ask("a")
    store.sent("a", "one")

    found = agenda(store).as_json()
    assert orjson.loads(orjson.dumps(found)) == found
    assert found["events"][0]["since"].endswith("+00:00")
    assert (found["name"], found["effects"][0]["job_id"], found["more_events"]) == ("a", "cause--e1", 0)
