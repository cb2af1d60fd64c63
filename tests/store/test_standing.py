"""Why an FSM stands where it stands, for who looks at it without waiting for an event; over both servers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm.engine.effects import Effect
from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import announce, carry, why

if TYPE_CHECKING:
    from tests.store.conftest import Store


def ask(store: Store, name: str = "a") -> str:
    """Ask as `fsm state` does; every length of time is told as "2s"."""
    said: str = carry(why(store.keys, name), lambda request: run(store.redis, request))
    return re.sub(r"\b\d+(\.\d+ )?s\b", "2s", said)


def now_ms(store: Store) -> int:
    seconds, us = store.redis.time()
    return int(seconds) * 1000 + int(us) // 1000


def noted(store: Store, field: str, **note: Any) -> None:
    """Put a failure or a refusal of an event into the snapshot."""
    value = {"event": "note", "job": "j", "at_ms": now_ms(store), **note}
    store.redis.hset(store.keys.snapshot("a"), field, orjson.dumps(value))


def listen(store: Store, queue: str, worker: str = "rq1") -> None:
    """Register a worker of RQ's."""
    store.redis.sadd(Keys.rq_workers(queue), Keys.rq_worker(worker))
    store.redis.hset(Keys.rq_worker(worker), "birth", "now")


@pytest.fixture
def asked_for(store: Store) -> Store:
    """An FSM at rest which asked for an effect that answers, `e1`."""
    store.waiting("a")
    effect = Effect("e1", "fsm-effects", "shop.charge", b"[]", on_success="shut")
    assert store.commit(store.work(store.one()).apply().out(effect)) == ["REST"]
    note = orjson.loads(store.redis.hget(store.keys.effects_of("a"), "e1"))
    store.redis.hset(store.keys.effects_of("a"), "e1", orjson.dumps({**note, "at_ms": now_ms(store)}))
    return store


# With mail.


def test_events_wait_and_nobody_listens(store: Store) -> None:
    store.waiting("a")
    store.sent("a", "a-2", "a-3")

    assert ask(store) == "3 events wait: no worker listens on queue 'fsm': start one with `fsm worker`"
    store.redis.set("rq:suspended", 1)
    assert ask(store) == "3 events wait: workers are suspended: `rq resume` lets them go on"


def test_one_that_has_not_begun_says_so(store: Store) -> None:
    store.start("a")
    listen(store, "fsm")

    assert ask(store) == "it has not begun: its entry event waits: it waits on queue 'fsm', where 1 worker listens"
    store.sent("a", "a-1")
    assert ask(store).startswith("it has not begun: its entry event and 1 more wait: ")


def test_a_worker_has_it_in_hand_at_an_event(store: Store) -> None:
    store.waiting("a")
    store.one()

    assert ask(store) == "worker w1 has had it in hand for 2s, at event 'note'"
    store.sent("a", "a-2")
    assert ask(store).endswith(", at event 'note', and 1 event waits behind it")
    store.redis.unlink(store.keys.job("a-1"))
    assert ask(store) == "worker w1 has had it in hand for 2s, and 1 event waits behind it"


# At rest.


def test_one_at_rest_waits_for_what_is_allowed(store: Store) -> None:
    store.idle("a")

    assert ask(store) == "no event waits for it"
    run(store.redis, announce(store.keys, [store.machine], 0))
    assert ask(store) == "it waits for note or shut"


def test_a_state_that_nothing_leads_out_of_is_named(store: Store) -> None:
    store.idle("a")
    store.redis.hset(store.keys.machines, "Ticket", b'{"allowed":{"open":[]}}')

    assert ask(store) == "no event leads out of 'open'"
    store.redis.hset(store.keys.machines, "Ticket", "damaged")
    assert ask(store) == "no event waits for it"


def test_one_that_has_finished_says_where_and_when(store: Store) -> None:
    store.waiting("a")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))

    assert ask(store) == "it has finished in 'shut', 2s ago"
    store.redis.delete(store.keys.finished_of("Ticket", "shut"))
    assert ask(store) == "it has finished in 'shut'"


def test_what_was_refused_last_is_told_until_something_else_was_done(store: Store) -> None:
    store.idle("a")
    version = int(store.snapshot("a")["version"])
    noted(store, "refused", refused="rejected", reason="not\ntoday", version=version)

    assert ask(store) == "no event waits for it; note was refused 2s ago: not"
    noted(store, "refused", refused="rejected", reason="not today", version=version - 1)
    assert ask(store) == "no event waits for it"


def test_what_failed_last_is_told(store: Store) -> None:
    store.idle("a")
    version = int(store.snapshot("a")["version"])
    noted(store, "refused", refused="rejected", reason="not today", version=version, at_ms=now_ms(store) - 5000)
    noted(store, "error", failed="handler", type="ValueError", message="odd " * 100)

    said = ask(store)
    assert said.startswith("no event waits for it; note failed 2s ago: ValueError: odd odd")
    assert len(said) < 300
    store.redis.hset(store.keys.snapshot("a"), mapping={"error": "{", "refused": "[]"})
    assert ask(store) == "no event waits for it"


@pytest.mark.parametrize(
    ("field", "note", "said"),
    [
        ("error", {"failed": "handler", "type": "ValueError", "message": "odd"}, "note failed 2s ago: ValueError: odd"),
        ("refused", {"refused": "rejected", "reason": "not today"}, "note was refused 2s ago: not today"),
    ],
)
def test_one_that_has_failed_says_in_what(store: Store, field: str, note: dict[str, str], said: str) -> None:
    store.waiting("a")
    store.redis.hset(store.keys.snapshot("a"), "status", "failed")
    noted(store, field, **note)

    assert ask(store) == f"it cannot go on by itself: in 'open' {said}; `fsm retry a` lets it go on"


def test_one_that_has_failed_says_what_failed_last(store: Store) -> None:
    store.waiting("a")
    store.redis.hset(store.keys.snapshot("a"), "status", "failed")
    noted(store, "error", failed="handler", type="ValueError", message="odd", at_ms=now_ms(store) - 5000)
    noted(store, "refused", refused="rejected", reason="not today")

    assert ask(store).startswith("it cannot go on by itself: in 'open' note was refused 2s ago: not today; ")


# Effects.


def test_an_effect_waits_for_a_worker(asked_for: Store) -> None:
    begin = "it waits for the effect shop.charge, asked for 2s ago, which waits on queue 'fsm-effects', where "

    assert ask(asked_for) == begin + "no worker listens"
    listen(asked_for, "fsm-effects")
    assert ask(asked_for) == begin + "1 worker listens"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"status": "started", "worker_name": "rq1", "started_at": "now"},
            "which worker rq1 has run for 2s",
        ),
        ({"status": "started", "started_at": "just now"}, "which runs"),
        ({"status": "scheduled"}, "which is to be tried again now"),
        ({"status": "failed"}, "whose job is failed: its answer is on the way"),
    ],
)
def test_an_effect_is_told_by_what_rq_does_with_it(asked_for: Store, fields: dict[str, str], said: str) -> None:
    if fields.get("started_at") == "now":
        fields = fields | {"started_at": datetime.now(UTC).isoformat()}
    asked_for.redis.hset(asked_for.keys.job("e1"), mapping=fields)

    assert ask(asked_for) == f"it waits for the effect shop.charge, {said}"


def test_an_effect_that_is_tried_again_says_when(asked_for: Store) -> None:
    asked_for.redis.hset(asked_for.keys.job("e1"), "status", "scheduled")
    asked_for.redis.zadd(asked_for.keys.rq_registry("scheduled", "fsm-effects"), {"e1": now_ms(asked_for) // 1000 + 30})

    assert ask(asked_for) == "it waits for the effect shop.charge, which is tried again in 2s"


def test_an_effect_whose_job_is_gone_is_told(asked_for: Store) -> None:
    asked_for.redis.delete(asked_for.keys.job("e1"))

    assert (
        ask(asked_for) == "it waits for the effect shop.charge, whose job is gone: workers look after such, and tell it"
    )


def test_of_several_effects_the_oldest_is_told(asked_for: Store) -> None:
    first = orjson.loads(asked_for.redis.hget(asked_for.keys.effects_of("a"), "e1"))
    for effect_id, changes in {
        "older": {"func": "shop.ask", "at_ms": first["at_ms"] - 9000},
        "silent": {"func": "shop.tell", "at_ms": 1, "on_success": "", "on_failure": ""},
        "of another life": {"func": "shop.past", "at_ms": 2, "born": "7"},
    }.items():
        asked_for.redis.hset(asked_for.keys.effects_of("a"), effect_id, orjson.dumps({**first, **changes}))

    assert re.fullmatch(r"it waits for the effect shop\.ask, .*; and for 1 more", ask(asked_for))


def test_an_effect_that_does_not_answer_is_not_waited_for(store: Store) -> None:
    store.waiting("a")
    store.commit(store.work(store.one()).apply().out(Effect("e1", "fsm-effects", "shop.tell", b"[]")))

    assert ask(store) == "no event waits for it"
