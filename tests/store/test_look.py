"""Open effects are looked after: what no callback tells is found, and what a dead worker had is run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.store.test_answer import ODD_NAMES

if TYPE_CHECKING:
    from tests.store.conftest import Store

ID = "cause--e1"


@pytest.fixture
def asked(store: Store) -> Store:
    """A store with an FSM that has asked for one effect."""
    store.idle("a")
    store.ask("a")
    return store


def now(store: Store) -> int:
    """Give the second that the clock of Redis shows."""
    return int(store.redis.time()[0])


def take(store: Store, worker: str = "w1-effects", job_id: str = ID, **more: int | str) -> str:
    """Take an effect off its queue and begin it, as RQ does: its entry in the registry of those who are at it."""
    queue = str(more.get("queue", "fsm-effects"))
    store.redis.lrem(f"rq:queue:{queue}", 0, job_id)
    member = f"{job_id}:{worker}-x"
    until = now(store) + int(more.get("seconds", 65))
    store.redis.zadd(f"rq:wip:{queue}", {member: until})
    store.redis.zadd(f"rq:executions:{job_id}", {f"{worker}-x": until + 60})
    store.redis.hset(f"rq:execution:{member}", "worker_name", worker)
    store.redis.hset(store.keys.job(job_id), mapping={"status": "started", "worker_name": worker})
    return member


def wip(store: Store) -> list[str]:
    return [member.decode() for member in store.redis.zrange("rq:wip:fsm-effects", 0, -1)]


def status(store: Store) -> str:
    return store.job(ID).get("status", "")


def test_looked_where_nothing_is_open(store: Store) -> None:
    assert store.look() == {}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_is_due_is_told_with_its_status(store: Store, name: str) -> None:
    store.idle(name)
    store.ask(name)

    assert store.look() == {ID: "queued"}
    assert store.open_effects(name) == [ID]


def test_what_is_not_due_is_left_alone(asked: Store) -> None:
    assert asked.look(is_due=False) == {}


def test_repeated_what_was_looked_at_is_not_due(asked: Store) -> None:
    asked.look()

    assert asked.look(is_due=False) == {}


@pytest.mark.parametrize("word", ["finished", "failed", "canceled", "stopped"])
def test_ends_are_told_to_who_asks_and_stay_open(asked: Store, word: str) -> None:
    asked.redis.hset(asked.keys.job(ID), "status", word)

    assert asked.look() == {ID: word}
    assert asked.open_effects("a") == [ID]


def test_a_job_that_was_deleted_has_no_status(asked: Store) -> None:
    asked.redis.delete(asked.keys.job(ID))

    assert asked.look() == {ID: ""}


@pytest.mark.parametrize("word", ["finished", "canceled", "stopped", ""])
def test_what_has_nothing_to_tell_is_closed_at_once(store: Store, word: str) -> None:
    store.idle("a")
    store.ask("a", on_success="", on_failure="")
    if word:
        store.redis.hset(store.keys.job(ID), "status", word)
    else:
        store.redis.delete(store.keys.job(ID))

    assert store.look() == {}
    assert store.open_effects("a") == []
    assert store.redis.zcard(store.keys.effects) == 0


@pytest.mark.parametrize(("word", "end"), [("finished", "on_failure"), ("canceled", "on_success"), ("", "on_success")])
def test_only_the_end_that_came_decides_whether_there_is_something_to_tell(store: Store, word: str, end: str) -> None:
    store.idle("a")
    store.ask("a", **{end: ""})
    store.redis.hset(store.keys.job(ID), "status", word)

    assert store.look() == {ID: word}
    assert store.open_effects("a") == [ID]


def test_what_was_answered_is_forgotten(asked: Store) -> None:
    asked.redis.hdel(asked.keys.effects_of("a"), ID)

    assert asked.look() == {}
    assert asked.redis.zcard(asked.keys.effects) == 0


# Workers that die.


def test_the_effect_of_a_worker_that_is_known_to_be_dead_goes_back_to_its_queue(asked: Store) -> None:
    take(asked)

    asked.look(("w1-effects", "fsm-effects"), is_due=False)
    assert asked.listed("fsm-effects") == [ID]
    assert (status(asked), asked.job(ID)["deaths"]) == ("queued", "1")
    assert wip(asked) == []


def test_it_goes_before_what_waits(asked: Store) -> None:
    take(asked)
    asked.redis.rpush("rq:queue:fsm-effects", "other")

    asked.look(("w1-effects", "fsm-effects"))
    assert asked.listed("fsm-effects") == [ID, "other"]


def test_the_effect_of_another_worker_is_left_alone(asked: Store) -> None:
    member = take(asked, "w2-effects")

    assert asked.look(("w1-effects", "fsm-effects")) == {ID: "started"}
    assert (wip(asked), asked.listed("fsm-effects")) == ([member], [])
    assert "missed" not in asked.job(ID)


def test_an_entry_that_nobody_renews_is_that_of_a_dead_worker(asked: Store) -> None:
    take(asked, seconds=-2)

    assert asked.look() == {ID: "queued"}
    assert (asked.listed("fsm-effects"), wip(asked)) == ([ID], [])


def test_a_worker_that_renews_its_entry_is_left_alone(asked: Store) -> None:
    member = take(asked, seconds=1)

    for _ in range(3):
        assert asked.look() == {ID: "started"}
        asked.redis.zadd("rq:wip:fsm-effects", {member: now(asked) + 65}, xx=True)
    assert wip(asked) == [member]
    assert "deaths" not in asked.job(ID)


def test_an_old_entry_of_the_dead_does_not_disturb_who_runs_it_now(asked: Store) -> None:
    take(asked, "w1-effects", seconds=-2)
    living = take(asked, "w2-effects")

    assert asked.look() == {ID: "started"}
    assert wip(asked) == [living]
    assert asked.listed("fsm-effects") == []


def test_the_dead_are_told_by_their_entry_and_not_by_who_ran_it_last(asked: Store) -> None:
    take(asked, "w1-effects")
    living = take(asked, "w2-effects")

    asked.look(("w1-effects", "fsm-effects"))
    assert wip(asked) == [living]
    assert (status(asked), asked.listed("fsm-effects")) == ("started", [])


def test_a_job_that_is_no_effect_is_left_to_rq(asked: Store) -> None:
    asked.redis.hset("rq:job:plain", mapping={"status": "started", "worker_name": "w1-effects"})
    asked.redis.zadd("rq:wip:fsm-effects", {"plain:x": now(asked) - 5, "event:fsm": now(asked) - 5})

    asked.look(("w1-effects", "fsm-effects"))
    assert wip(asked) == ["event:fsm", "plain:x"]


def test_after_too_many_deaths_it_has_failed(asked: Store) -> None:
    for _ in range(3):
        take(asked)
        assert asked.look(("w1-effects", "fsm-effects")) == {ID: "queued"}
    take(asked)

    assert asked.look(("w1-effects", "fsm-effects")) == {ID: "failed"}
    assert asked.job(ID)["exc_info"] == "workers died 4 times on this effect"
    assert asked.listed("fsm-effects") == []
    assert asked.redis.zscore("rq:failed:fsm-effects", ID)


def test_what_rq_wrote_down_as_abandoned_is_run_again(asked: Store) -> None:
    asked.redis.lpop("rq:queue:fsm-effects")
    asked.redis.hset(asked.keys.job(ID), mapping={"status": "failed", "abandoned": "1"})
    asked.redis.zadd("rq:failed:fsm-effects", {ID: 1})

    assert asked.look() == {ID: "queued"}
    assert asked.listed("fsm-effects") == [ID]
    assert asked.redis.zscore("rq:failed:fsm-effects", ID) is None
    assert "abandoned" not in asked.job(ID)


def test_rq_is_let_write_down_what_it_found_abandoned_before_it_is_put_back(asked: Store) -> None:
    take(asked, seconds=-2)
    asked.redis.hset(asked.keys.job(ID), "abandoned", "1")

    assert asked.look()[ID] == "started"
    assert asked.listed("fsm-effects") == []
    # RQ died before it could.
    assert asked.look() == {ID: "queued"}
    assert asked.listed("fsm-effects") == [ID]


def test_an_effect_that_runs_without_an_entry_is_run_again_after_a_second_look(asked: Store) -> None:
    take(asked)
    asked.redis.delete("rq:wip:fsm-effects")

    assert asked.look() == {ID: "started"}
    assert asked.look() == {ID: "queued"}
    assert asked.listed("fsm-effects") == [ID]


# Lists that are emptied.


def test_what_is_not_on_its_list_comes_back_after_a_second_look(asked: Store) -> None:
    asked.redis.delete("rq:queue:fsm-effects")

    assert asked.look() == {ID: "queued"}
    assert asked.listed("fsm-effects") == []
    assert asked.look() == {ID: "queued"}
    assert asked.listed("fsm-effects") == [ID]


def test_what_was_only_on_its_way_at_the_first_look_does_not_come_twice(asked: Store) -> None:
    asked.redis.delete("rq:queue:fsm-effects")
    asked.look()
    asked.redis.rpush("rq:queue:fsm-effects", ID)

    asked.look()
    asked.look()
    assert asked.listed("fsm-effects") == [ID]
    assert "missed" not in asked.job(ID)


def test_what_a_dead_worker_had_just_taken_comes_back(asked: Store) -> None:
    asked.redis.lmove("rq:queue:fsm-effects", "rq:queue:fsm-effects:intermediate")

    asked.look()
    asked.look()
    assert asked.listed("fsm-effects") == [ID]
    assert asked.listed("fsm-effects:intermediate") == []


def test_the_entry_of_a_worker_that_died_before_it_began_goes_with_it(asked: Store) -> None:
    take(asked)
    asked.redis.hset(asked.keys.job(ID), "status", "queued")

    asked.look()
    assert asked.look() == {ID: "queued"}
    assert (asked.listed("fsm-effects"), wip(asked)) == ([ID], [])


def test_a_long_list_is_not_searched(asked: Store) -> None:
    asked.redis.delete("rq:queue:fsm-effects")
    asked.redis.rpush("rq:queue:fsm-effects", *(f"other-{n}" for n in range(1001)))

    asked.look()
    asked.look()
    assert len(asked.listed("fsm-effects")) == 1001


# Retries that wait.


def test_a_retry_that_is_due_is_queued_without_a_scheduler(asked: Store) -> None:
    asked.redis.lpop("rq:queue:fsm-effects")
    asked.redis.hset(asked.keys.job(ID), "status", "scheduled")
    asked.redis.zadd("rq:scheduled:fsm-effects", {ID: now(asked) - 1})

    asked.look()
    assert (status(asked), asked.listed("fsm-effects")) == ("queued", [ID])
    assert asked.redis.zcard("rq:scheduled:fsm-effects") == 0


def test_a_retry_is_looked_after_when_it_is_due(asked: Store) -> None:
    asked.redis.lpop("rq:queue:fsm-effects")
    asked.redis.hset(asked.keys.job(ID), "status", "scheduled")
    due = now(asked) + 4
    asked.redis.zadd("rq:scheduled:fsm-effects", {ID: due})

    assert asked.look() == {ID: "scheduled"}
    assert asked.redis.zscore(asked.keys.effects, f"{ID} a") == due * 1000
    assert asked.listed("fsm-effects") == []


def test_a_retry_that_is_in_no_registry_comes_back_after_a_second_look(asked: Store) -> None:
    asked.redis.lpop("rq:queue:fsm-effects")
    asked.redis.hset(asked.keys.job(ID), "status", "scheduled")

    asked.look()
    asked.look()
    assert (status(asked), asked.listed("fsm-effects")) == ("queued", [ID])


# Keys of another type.


@pytest.mark.parametrize(
    "key",
    [
        "fsm:default:effects",
        "fsm:default:effects:a",
        "rq:job:cause--e1",
        "rq:queue:fsm-effects",
        "rq:queue:fsm-effects:intermediate",
        "rq:wip:fsm-effects",
        "rq:failed:fsm-effects",
        "rq:scheduled:fsm-effects",
        "rq:executions:cause--e1",
    ],
)
@pytest.mark.parametrize("word", ["queued", "started", "scheduled", "failed", "finished", "canceled"])
def test_a_key_of_another_type_stops_no_look(store: Store, key: str, word: str) -> None:
    store.idle("a", "b")
    store.ask("a")
    take(store, seconds=-2)
    store.redis.hset(store.keys.job(ID), mapping={"status": word, "abandoned": "1"})
    store.ask("b", "cause--e2", queue="other")
    store.redis.delete(key)
    store.redis.set(key, "of another type")
    is_index = key == "fsm:default:effects"

    for _ in range(2):
        found = store.look(("w1-effects", "fsm-effects"), is_due=not is_index)
        assert ("cause--e2" in found) is not is_index


def test_an_effect_on_a_queue_of_its_own_is_looked_after_there(store: Store) -> None:
    store.idle("a")
    store.ask("a", queue="reports: daily")
    take(store, queue="reports: daily", seconds=-2)

    assert store.look() == {ID: "queued"}
    assert store.listed("reports: daily") == [ID]
