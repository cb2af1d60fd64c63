from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.machine import Machine, Settings
from fsm.store import calls
from fsm.store.requests import run

if TYPE_CHECKING:
    from tests.store.conftest import Store


def test_created_writes_snapshot_index_entry_event_and_makes_it_ready(store: Store) -> None:
    assert store.start("a") == ["CREATED"]

    snapshot = store.snapshot("a")
    assert snapshot["machine"] == "Ticket"
    assert snapshot["state"] == "open"
    assert snapshot["status"] == "starting"
    assert snapshot["version"] == "0"
    assert int(snapshot["born"]) // 1000 == int(snapshot["updated_at"])
    (job_id,) = store.mailbox("a")
    job = store.job(job_id)
    assert (job["event"], job["place"], job["status"], job["born"]) == ("[*]", "mail", "queued", snapshot["born"])
    assert store.ready() == ["a"]
    assert store.listed() == [job_id]
    assert store.redis.zscore(store.keys.state("Ticket", "open"), "a") == float(snapshot["updated_at"])


def test_exists_where_another_life_has_the_name(store: Store) -> None:
    store.start("a")
    before = store.dump()

    assert store.start("a", "b") == ["EXISTS Ticket", "CREATED"]
    assert before.items() & store.dump().items() >= {
        (key, value) for key, value in before.items() if key.endswith(b":a")
    }


def test_broken_where_a_key_of_it_is_of_another_type(store: Store) -> None:
    store.redis.set(store.keys.snapshot("a"), "not a hash")
    store.redis.set(store.keys.mailbox("b"), "not a list")

    assert store.start("a", "b", "c") == ["BROKEN", "BROKEN", "CREATED"]
    assert store.ready() == ["c"]
    assert not store.redis.exists(store.keys.snapshot("b"))
    assert len(store.redis.keys("rq:job:*")) == 1


def test_broken_where_its_queue_cannot_be_rung(store: Store) -> None:
    store.redis.set(store.keys.ready("fsm"), "not a zset")
    before = store.dump()

    assert store.start("a") == ["BROKEN"]
    assert store.dump() == before


def test_repeated_says_created_again_and_writes_nothing(store: Store) -> None:
    request = calls.start(store.keys, store.machine, store.births(["a", "b"]))
    assert run(store.redis, request) == ["CREATED", "CREATED"]
    before = store.dump()

    assert run(store.redis, request) == ["CREATED", "CREATED"]
    assert store.dump() == before


def test_repeated_after_the_fsm_moved_on_leaves_it_alone(store: Store) -> None:
    request = calls.start(store.keys, store.machine, store.births(["a"]))
    run(store.redis, request)
    store.commit(store.one())
    before = store.dump()

    assert run(store.redis, request) == ["CREATED"]
    assert store.dump() == before


def test_repeated_after_a_purge_does_not_raise_the_dead(store: Store) -> None:
    request = calls.start(store.keys, store.machine, store.births(["a"]))
    run(store.redis, request)
    assert store.purge("a") == "PURGED"

    assert run(store.redis, request) == ["CREATED"]
    assert not store.redis.exists(store.keys.snapshot("a"))
    assert store.ready() == []


def test_a_name_that_was_purged_is_free_for_another_life(store: Store) -> None:
    store.idle("a")
    first = store.snapshot("a")["born"]
    store.purge("a")

    assert store.start("a") == ["CREATED"]
    assert store.snapshot("a")["born"] != first


def test_old_mail_under_a_deleted_snapshot_does_not_keep_a_new_fsm_asleep(store: Store) -> None:
    store.idle("a")
    store.sent("a", "old")
    store.redis.delete(store.keys.snapshot("a"))
    assert store.claim().held == []

    assert store.start("a") == ["CREATED"]
    assert [mail.event for mail in store.one().mail] == ["note", "[*]"]


def test_an_index_of_another_type_does_not_stop_a_start(store: Store) -> None:
    store.redis.set(store.keys.state("Ticket", "open"), "not a zset")

    assert store.start("a") == ["CREATED"]
    assert store.one().name == "a"


def test_ten_thousand_starts_in_one_call(real_store: Store) -> None:
    names = [f"n{i}" for i in range(10_000)]

    assert real_store.start(*names) == ["CREATED"] * 10_000
    assert real_store.redis.zcard(real_store.keys.ready("fsm")) == 10_000
    assert real_store.ready() == names
    assert real_store.redis.zcard(real_store.keys.state("Ticket", "open")) == 10_000


def test_broken_where_the_record_of_its_entry_event_is_of_another_type(store: Store) -> None:
    births = store.births(["a", "b"])
    store.redis.set(store.keys.job(births[0].job_id), "not a hash")

    assert run(store.redis, calls.start(store.keys, store.machine, births)) == ["BROKEN", "CREATED"]
    assert not store.redis.exists(store.keys.snapshot("a"), store.keys.mailbox("a"))


# Adopting what lives already.


class Rocket(Machine):
    """Flies by itself once it is lit."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> ground
        ground --> lit : light
        lit --> sky : fly!
    """


def test_adopted_at_rest_it_runs_in_its_state_and_nothing_rings(store: Store) -> None:
    assert store.start("a", machine=Rocket.definition, state="sky") == ["CREATED"]

    snapshot = store.snapshot("a")
    assert (snapshot["state"], snapshot["version"], "status" in snapshot) == ("sky", "0", False)
    assert store.redis.zrange(store.keys.state("Rocket", "sky"), 0, -1) == [b"a"]
    assert store.ready() == []
    assert store.mailbox("a") == []
    assert store.send("a") == "SENT"
    fsm = store.one()
    assert (fsm.status, fsm.state, [mail.event for mail in fsm.mail]) == ("running", "sky", ["note"])


def test_adopted_where_a_hard_event_leads_on_it_owes_that(store: Store) -> None:
    assert store.start("a", machine=Rocket.definition, state="lit") == ["CREATED"]

    assert store.ready() == ["a"]
    store.send("a")
    fsm = store.one()
    assert (fsm.status, fsm.urgent, [mail.event for mail in fsm.mail]) == ("running", 1, ["fly", "note"])
    assert fsm.owes is not None
    assert fsm.owes.decode() == fsm.mail[0].job_id
    assert store.job(fsm.mail[0].job_id)["born"] == fsm.born


@pytest.mark.parametrize("state", ["sky", "lit"])
def test_repeated_an_adoption_is_known_also_after_a_purge(store: Store, state: str) -> None:
    request = calls.start(store.keys, Rocket.definition, store.births(["a"]), state=state)
    assert run(store.redis, request) == ["CREATED"]
    before = store.dump()
    assert run(store.redis, request) == ["CREATED"]
    assert store.dump() == before

    assert store.purge("a") == "PURGED"
    assert run(store.redis, request) == ["CREATED"]
    assert not store.redis.exists(store.keys.snapshot("a"), store.keys.urgent("a"))


def test_the_record_by_which_an_adoption_is_known_goes_by_itself(store: Store) -> None:
    (birth,) = births = store.births(["a"])
    run(store.redis, calls.start(store.keys, Rocket.definition, births, state="sky"))

    job = store.job(birth.job_id)
    assert (job["place"], job["status"], job["result"]) == ("done", "finished", '{"state":"sky","version":0}')
    assert 50 < store.redis.ttl(store.keys.job(birth.job_id)) <= 60


def test_exists_where_the_name_of_what_is_to_be_adopted_is_taken(store: Store) -> None:
    store.idle("a")

    assert store.start("a", machine=Rocket.definition, state="lit") == ["EXISTS Ticket"]
    assert not store.redis.exists(store.keys.urgent("a"))


def test_broken_where_the_urgent_list_of_what_is_to_be_adopted_is_of_another_type(store: Store) -> None:
    store.redis.set(store.keys.urgent("a"), "not a list")

    assert store.start("a", "b", machine=Rocket.definition, state="lit") == ["BROKEN", "CREATED"]
    assert not store.redis.exists(store.keys.snapshot("a"))


def test_old_mail_under_the_name_of_what_is_adopted_does_not_keep_it_asleep(store: Store) -> None:
    store.redis.rpush(store.keys.mailbox("a"), "old")

    assert store.start("a", machine=Rocket.definition, state="sky") == ["CREATED"]
    assert store.ready() == ["a"]


def test_exists_without_a_machine_while_it_is_being_purged(store: Store) -> None:
    store.idle("a")
    store.redis.hset(store.keys.snapshot("a"), "status", "purging")

    assert store.start("a") == ["EXISTS"]
