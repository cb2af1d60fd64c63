"""What `send` does with keys, versions, and FSMs that are to be started: one test per word, and per repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.machine import Machine, Settings
from fsm.store import calls
from fsm.store.requests import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Store


class Other(Machine):
    """Another machine, with settings and a queue of its own."""

    settings = Settings(queue="others", max_mailbox=3, definition_version=2, endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> here : arrive
        here --> here : note
    """


def finish(store: Store, name: str = "a") -> None:
    """Apply what waits, and finish."""
    store.commit(store.work(store.one()).apply().move("shut", "finished"))


def stored(store: Store, name: str = "a") -> str:
    return f"hash-{store.snapshot(name)['born']}"


# Keys.


def test_a_key_becomes_a_job_id_with_the_life_of_its_fsm(store: Store) -> None:
    store.idle("a")

    assert store.keyed("a") == f"SENT {stored(store)}"
    job = store.job(stored(store))
    assert (job["key"], job["digest"], job["event"], job["place"]) == ("k", "d1", "note", "mail")
    assert store.mailbox("a") == [stored(store)]


def test_the_same_key_is_a_duplicate_that_names_the_first_job(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    before = store.dump()

    assert store.keyed("a") == f"DUPLICATE mail {stored(store)}"
    assert store.dump() == before
    store.commit(store.one())
    assert store.keyed("a") == f"DUPLICATE done {stored(store)}"


def test_a_key_used_for_other_data_or_another_event_is_a_conflict(store: Store) -> None:
    store.idle("a")
    store.keyed("a")

    assert store.keyed("a", digest="d2") == f"CONFLICT {stored(store)}"
    assert store.keyed("a", "shut", digest="d3") == f"CONFLICT {stored(store)}"
    assert store.mailbox("a") == [stored(store)]


def test_a_key_is_one_fsms_own(store: Store) -> None:
    store.idle("a", "b")

    assert store.keyed("a") == f"SENT {stored(store, 'a')}"
    # The hash is made of name and key; that of another FSM is another one.
    assert store.send("b", "note", "other:", more=("key", "k", "digest", "d1")).startswith("SENT other-")


def test_a_conflict_of_a_key_skips_what_comes_after_and_a_duplicate_does_not(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    same = store.letter("a", job_id="hash:", more=("key", "k", "digest", "d1"))
    other = store.letter("a", job_id="hash:", more=("key", "k", "digest", "d2"))

    words = store.send_all([same, store.letter("a"), other, store.letter("a")])
    assert words == [f"DUPLICATE mail {stored(store)}", "SENT", f"CONFLICT {stored(store)}", "SKIPPED"]


def test_a_key_outlives_the_result_ttl(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    store.sent("a", "plain")
    store.commit(store.one())
    store.age(70)
    for i in range(3):
        store.sent("a", f"later-{i}")
        store.commit(store.one())
    assert not store.redis.exists(store.keys.job("plain"))

    assert store.keyed("a") == f"DUPLICATE done {stored(store)}"
    assert store.keyed("a", digest="d2") == f"CONFLICT {stored(store)}"
    assert store.job(stored(store))["result_ttl"] == "86400"
    store.age(86_500)
    for i in range(3, 6):
        store.sent("a", f"later-{i}")
        store.commit(store.one())
    assert store.keyed("a") == f"SENT {stored(store)}"


def test_a_key_of_a_failed_event_is_remembered_as_long_as_the_failure(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    work = store.work(store.one())
    work.block.keep()
    store.commit(work.fail())

    assert store.keyed("a") == f"DUPLICATE failed {stored(store)}"
    assert 2_591_900 < store.redis.ttl(store.keys.job(stored(store))) <= 2_592_000


def test_a_key_outlives_a_failure_ttl_that_is_shorter(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    work = store.work(store.one())
    work.block._settings = Settings(failure_ttl="60s", dedup="1h")
    work.block.keep()
    store.commit(work.fail())

    assert 3500 < store.redis.ttl(store.keys.job(stored(store))) <= 3600


def test_what_is_kept_is_the_next_event_only(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    fsm = store.one()
    work = store.work(fsm)
    for mail in fsm.mail:
        if mail.job_id == "one":
            work.block.keep()
        work.block.take(mail.job_id)
        work.block.applied(mail.job_id, {"state": "open", "version": 1}, asked=False)
    store.commit(work)
    now, _ = store.redis.time()

    ends = {
        batch.split()[1].decode(): score - now
        for batch, score in store.redis.zrange(store.keys.ended, 0, -1, withscores=True)
    }
    assert 86_300 < ends["one"] <= 86_400
    assert ends["two"] <= 60


def test_a_key_is_forgotten_with_the_life_of_its_fsm(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    first = stored(store)
    assert store.purge("a") == "PURGED"
    store.idle("a")

    assert store.keyed("a") == f"SENT {stored(store)}"
    assert stored(store) != first


def test_a_key_is_a_duplicate_also_when_its_event_has_finished_the_fsm(store: Store) -> None:
    store.idle("a")
    store.keyed("a")
    finish(store)

    assert store.keyed("a") == f"DUPLICATE done {stored(store)}"
    assert store.keyed("a", digest="d2") == f"CONFLICT {stored(store)}"
    assert store.send("a", "note", "hush:", more=("key", "l", "digest", "d1")) == "FINISHED shut"


def test_a_job_id_is_a_duplicate_also_when_its_event_has_finished_the_fsm(store: Store) -> None:
    store.idle("a")
    store.sent("a", "last")
    finish(store)
    before = store.dump()

    letters = [store.letter("a", job_id="last"), store.letter("a"), store.letter("a")]
    assert store.send_all(letters) == ["DUPLICATE done", "FINISHED shut", "SKIPPED"]
    assert store.dump() == before


def test_a_key_sent_twice_in_a_call_that_the_mailbox_refuses_is_no_duplicate(store: Store) -> None:
    assert store.start("a", machine=Other.definition) == ["CREATED"]
    store.sent("a", "j1", "j2")
    letters = [store.letter("a", job_id="hash:", more=("key", "k", "digest", "d1")) for _ in range(2)]

    assert store.send_all(letters) == ["FULL 3", "SKIPPED"]
    assert not store.redis.exists(store.keys.job(stored(store)))


# Versions.


def test_stale_names_version_and_state_and_nothing_is_written(store: Store) -> None:
    store.idle("a")
    version = int(store.snapshot("a")["version"])
    before = store.dump()

    assert store.send("a", more=("if_version", version - 1)) == f"STALE {version} open"
    assert store.dump() == before


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_version_that_may_still_be_right_is_left_to_the_worker(store: Store, ahead: int) -> None:
    store.idle("a")
    version = int(store.snapshot("a")["version"]) + ahead

    assert store.send("a", more=("if_version", version)) == "SENT"
    assert store.one().mail[0].if_version == str(version).encode()


def test_a_stale_event_skips_what_comes_after(store: Store) -> None:
    store.idle("a")
    letters = [store.letter("a", more=("if_version", 0)), store.letter("a")]

    assert store.send_all(letters) == ["STALE 1 open", "SKIPPED"]


def test_a_duplicate_stays_one_when_its_version_has_become_stale(store: Store) -> None:
    store.idle("a")
    assert store.keyed("a", more=("if_version", 1)).startswith("SENT ")
    store.commit(store.one())

    assert store.keyed("a", more=("if_version", 1)) == f"DUPLICATE done {stored(store)}"


def test_a_finished_fsm_has_no_stale_versions(store: Store) -> None:
    store.idle("a")
    store.sent("a", "last")
    finish(store)

    assert store.send("a", more=("if_version", 0)) == "FINISHED shut"


def test_a_version_edited_by_hand_into_nonsense_refuses_nothing(store: Store) -> None:
    store.idle("a")
    store.redis.hset(store.keys.snapshot("a"), "version", "many")

    assert store.send("a", more=("if_version", 0)) == "SENT"


# Starting on the way.


def test_an_fsm_that_does_not_exist_is_started_and_its_event_waits_behind_the_entry_event(store: Store) -> None:
    letters = [store.letter("a", job_id="one"), store.letter("b", job_id="two"), store.letter("a", job_id="three")]

    assert store.start_and_send(*letters) == ["SENT", "SENT", "SENT"]
    fsm, other = store.claim().held
    assert ([mail.event for mail in fsm.mail], fsm.status) == (["[*]", "note", "note"], "starting")
    assert [mail.job_id for mail in fsm.mail[1:]] == ["one", "three"]
    assert (other.name, len(other.mail)) == ("b", 2)
    assert store.redis.zcount(store.keys.state("Ticket", "open"), "-inf", "inf") == 2
    assert store.redis.zcard(store.keys.ready("fsm")) == 0


def test_a_machine_brings_its_own_queue_and_bounds(store: Store) -> None:
    assert store.start_and_send(store.letter("a"), machine=Other.definition) == ["SENT"]

    snapshot = store.snapshot("a")
    assert (snapshot["machine"], snapshot["state"], snapshot["queue"]) == ("Other", "here", "others")
    assert (snapshot["max_mailbox"], snapshot["definition"]) == ("3", f"{Other.definition.fingerprint}.2")
    assert store.ready("others") == ["a"]
    assert [mail.event for mail in store.one(queue="others").mail] == ["arrive", "note"]


def test_an_fsm_that_exists_is_sent_to(store: Store) -> None:
    store.idle("a")

    assert store.start_and_send(store.letter("a", job_id="one")) == ["SENT"]
    assert store.mailbox("a") == ["one"]


def test_exists_names_the_machine_that_has_the_name(store: Store) -> None:
    store.idle("a")
    before = store.dump()

    letters = (store.letter("a"), store.letter("a"))
    assert store.start_and_send(*letters, machine=Other.definition) == ["EXISTS Ticket", "SKIPPED"]
    assert store.dump() == before


def test_a_finished_fsm_is_not_started_again(store: Store) -> None:
    store.idle("a")
    store.sent("a", "last")
    finish(store)

    assert store.start_and_send(store.letter("a")) == ["FINISHED shut"]


def test_an_fsm_that_is_being_purged_is_not_started(store: Store) -> None:
    store.idle("a")
    store.redis.hset(store.keys.snapshot("a"), "status", "purging")

    assert store.start_and_send(store.letter("a")) == ["EXISTS"]


def test_broken_where_an_fsm_cannot_be_started(store: Store) -> None:
    store.redis.set(store.keys.mailbox("a"), "not a list")
    letter = store.letter("b", job_id="two")

    assert store.start_and_send(store.letter("a"), letter) == ["BROKEN", "SENT"]
    assert not store.redis.exists(store.keys.snapshot("a"))


def test_repeated_a_start_with_its_event_is_a_duplicate_and_writes_nothing(store: Store) -> None:
    request = store.starting(store.letter("a", job_id="one"))
    assert run(store.redis, request) == ["SENT"]
    before = store.dump()
    assert run(store.redis, request) == ["DUPLICATE mail"]
    assert store.dump() == before

    store.commit(store.one())
    assert run(store.redis, request) == ["DUPLICATE done"]
    assert store.mailbox("a") == []


@pytest.mark.parametrize("is_keyed", [False, True])
def test_repeated_after_a_purge_does_not_raise_the_dead(store: Store, is_keyed: bool) -> None:
    letter = store.letter("a", job_id="hash:" if is_keyed else "one", more=("digest", "d1") if is_keyed else ())
    request = store.starting(letter)
    run(store.redis, request)
    job_id = stored(store) if is_keyed else "one"
    assert store.purge("a") == "PURGED"
    before = store.dump()

    assert run(store.redis, request) == ["DUPLICATE gone" + (f" {job_id}" if is_keyed else "")]
    assert store.dump() == before


def test_an_event_beside_a_late_start_of_a_purged_fsm_is_unknown(store: Store) -> None:
    request = store.starting(store.letter("a", job_id="one"))
    run(store.redis, request)
    store.purge("a")
    store.redis.delete(store.keys.job("one"))

    assert run(store.redis, request) == ["UNKNOWN"]
    assert not store.redis.exists(store.keys.snapshot("a"))


def test_an_event_for_one_life_starts_no_other(store: Store) -> None:
    assert store.start_and_send(store.letter("a", born="12345")) == ["UNKNOWN"]


def test_a_key_of_another_namespace_is_not_ours(store: Store, another: Callable[[str], Store]) -> None:
    store.idle("a")
    other = another("other")
    other.idle("a")
    store.keyed("a")
    other.redis.hset(other.keys.snapshot("a"), "born", store.snapshot("a")["born"])

    assert other.keyed("a") == f"CONFLICT {stored(store)}"


def test_a_call_without_options_costs_no_command_more(real_store: Store) -> None:
    """Three commands an event: snapshot, record, mailbox; what is known and what rings, is shared."""
    real_store.idle("a")
    run(real_store.redis, calls.send(real_store.keys, [real_store.letter("a")]))
    real_store.redis.config_resetstat()
    run(real_store.redis, calls.send(real_store.keys, [real_store.letter("a")]))

    stats = real_store.redis.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): about["calls"] for name, about in stats.items()}
    ours = {
        name: count for name, count in counts.items() if name not in {"evalsha", "config|resetstat", "config", "info"}
    }
    assert ours == {"time": 1, "exists": 1, "hmget": 1, "zcard": 1, "hset": 1, "rpush": 1}


class Narrow(Machine):
    """A machine with room for one event."""

    settings = Settings(max_mailbox=1, endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> here
        here --> here : note
    """


def test_the_entry_event_of_an_fsm_that_is_started_takes_no_room_from_what_is_sent(store: Store) -> None:
    assert store.start_and_send(store.letter("p"), machine=Narrow.definition) == ["SENT"]
    assert store.start_and_send(store.letter("p"), machine=Narrow.definition) == ["FULL 1"]


def test_a_hard_event_that_is_owed_to_a_keyed_one_is_known_as_such_by_the_next_claim(store: Store) -> None:
    store.waiting("a", "b")
    fsms = store.claim().held
    for fsm, is_keyed in zip(fsms, (True, False), strict=True):
        work = store.work(fsm).apply()
        work.block.record(f"{fsm.name}--h1", "note")
        work.block.owe(f"{fsm.name}--h1", is_keyed=is_keyed)
        store.commit(work)

    assert {fsm.name: fsm.mail[0].is_keyed for fsm in store.claim().held} == {"a": True, "b": False}
