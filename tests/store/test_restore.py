from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm.backup import restoring, saving
from fsm.store import calls, dumping
from fsm.store.keys import Keys
from fsm.store.requests import run
from fsm.verbs import announce, carry
from tests.store.conftest import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.backup.restoring import Count
    from tests.store.conftest import Store


def save(store: Store) -> list[Any]:
    """All lines of a backup."""
    found = Lines()
    assert carry(saving.save(store.keys, found.write), lambda request: run(store.redis, request)) == []
    return found


def restore(store: Store, lines: list[Any], into: str = "", **more: Any) -> Count:
    keys, progress = Keys(into) if into else store.keys, more.pop("progress", lambda _: None)
    plan = restoring.restore(keys, lines, store.keys.namespace, restoring.Wish(**more), progress)
    return carry(plan, lambda request: run(store.redis, request))


def words(store: Store, lines: list[Any], **more: Any) -> list[str]:
    """The words of the script, of FSMs that go back where they came from."""
    fsms = [restoring.restore_of(line, store.keys, store.keys) for line in lines if hasattr(line, "mail")]
    return run(store.redis, dumping.restore(store.keys, fsms, **more))


def full(store: Store) -> None:
    """FSMs of all kinds: at rest, with mail, with a delayed event, that has failed, that has finished."""
    store.idle("rest", "mail", "late", "over", "failed")
    store.sent("over", "last")
    store.commit(store.work(store.one()).apply().move("shut", "finished"))
    store.fail("failed", "bad")
    store.sent("mail", "one", "two")
    store.send("late", "note", "soon", more=("due", "+60000"))


def plain(store: Store) -> dict[bytes, Any]:
    """What is in Redis of FSMs and their mail: without what counts, and what is there for RQ to see."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": store.redis.hgetall,
        b"list": lambda key: store.redis.lrange(key, 0, -1),
        b"set": store.redis.smembers,
        b"zset": lambda key: store.redis.zrange(key, 0, -1, withscores=True),
    }
    found = {}
    for key in store.redis.scan_iter(count=10_000):
        kind = store.redis.type(key)
        if key.startswith((b"fsm:", b"rq:job:")) and kind in read and b":replies:" not in key and b":ended" not in key:
            found[key] = read[kind](key)
    return found


def test_restored_it_is_all_there_again(store: Store) -> None:
    full(store)
    before = plain(store)
    lines = save(store)
    store.redis.flushall()

    count = restore(store, lines)

    assert (count.restored, count.left) == (5, [])
    after = plain(store)
    job, ready = store.keys.job, store.keys.ready(store.queue).encode()
    # Ring numbers begin anew; records of what has ended, and states in which nobody is, are in no backup.
    anew = {ready, store.keys.timers.encode(), store.keys.states.encode()}
    assert {key for key in before if before[key] != after.get(key) and not key.startswith(b"rq:job:")} <= anew
    assert [name for name, _ in after[ready]] == [b"mail"]
    assert after[job("one").encode()] == before[job("one").encode()]
    assert store.redis.zrange(store.keys.later("late"), 0, -1) == [b"soon"]
    assert store.redis.zscore(store.keys.timers, store.job("soon")["alarm"]) == float(store.job("soon")["due"])
    assert store.redis.zrange("rq:scheduled:fsm", 0, -1) == [b"soon"]


def test_restored_it_goes_on(store: Store) -> None:
    full(store)
    lines = save(store)
    store.redis.flushall()
    restore(store, lines)

    fsm = store.one(name="")
    assert (fsm.name, [mail.job_id for mail in fsm.mail]) == ("mail", ["one", "two"])
    assert store.commit(fsm) == ["REST"]
    assert store.send("rest") == "SENT"
    assert store.send("over") == "FINISHED shut"


def test_restored_what_waits_for_its_time_joins_then(store: Store) -> None:
    store.idle("a")
    store.send("a", "note", "soon", more=("due", "+60000"))
    lines = save(store)
    store.redis.flushall()
    restore(store, lines)

    done, _ = run(store.redis, calls.due(store.keys, ahead_ms=60_000))

    assert done == 1
    assert store.mailbox("a") == ["soon"]
    assert store.ready() == ["a"]


def test_restored_effects_are_looked_after(store: Store) -> None:
    store.idle("a")
    effect = store.ask("a", "cause--e1", deadline_ms=60_000)
    lines = save(store)
    ends = store.redis.zscore(store.keys.timers, f"deadline {effect} a")
    store.redis.flushall()

    restore(store, lines)

    assert store.open_effects("a") == [effect]
    assert store.redis.zscore(store.keys.timers, f"deadline {effect} a") == ends
    # Its job is in no backup: it is gone, so its FSM is told.
    assert store.look() == {effect: ""}


def test_effects_are_left_out_where_that_is_wanted(store: Store) -> None:
    store.idle("a")
    store.ask("a", "cause--e1", deadline_ms=60_000)
    lines = save(store)
    store.redis.flushall()

    restore(store, lines, effects=False)

    assert store.open_effects("a") == []
    assert store.redis.exists(store.keys.timers) == 0


def test_restored_nobody_holds_it_and_no_deaths_are_counted(store: Store) -> None:
    store.start("a")
    store.one()
    store.lapse("a")
    store.recover()
    assert store.snapshot("a")["tries"] == "1"
    store.one()
    lines = save(store)
    store.redis.flushall()

    restore(store, lines)

    assert "tries" not in store.snapshot("a")
    assert store.redis.zcard(store.keys.held) == 0
    assert store.one().name == "a"


def test_kept_where_it_is_there_and_not_older(store: Store) -> None:
    store.waiting("a")
    lines = save(store)
    before = store.dump()

    assert words(store, lines) == ["KEPT"]
    assert store.dump() == before
    store.commit(store.one())
    assert words(store, lines) == ["KEPT"]
    assert store.mailbox("a") == []


def test_exists_where_the_name_has_another_life(store: Store) -> None:
    store.waiting("a")
    lines = save(store)
    store.purge("a")
    store.idle("a")
    born = store.snapshot("a")["born"]

    assert words(store, lines) == [f"EXISTS {born}"]
    assert (count := restore(store, lines)).left == [("a", "existing")]
    assert count.restored == 0
    assert store.snapshot("a")["born"] == born


def test_exists_where_an_older_version_of_it_is_there(store: Store) -> None:
    store.waiting("a")
    older = save(store)
    store.commit(store.one())
    newer = save(store)
    store.redis.flushall()
    restore(store, older)

    assert words(store, newer) == [f"EXISTS {store.snapshot('a')['born']}"]


def test_what_is_in_the_way_is_replaced_where_that_is_wanted(store: Store) -> None:
    store.waiting("a")
    lines = save(store)
    born = store.snapshot("a")["born"]
    store.purge("a")
    store.idle("a")
    store.sent("a", "another")

    count = restore(store, lines, replace=True)

    assert (count.restored, count.replaced) == (1, 1)
    assert store.snapshot("a")["born"] == born
    assert store.mailbox("a") == ["a-1"]
    assert store.commit(store.one()) == ["REST"]


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "urgent", "later", "effects_of"])
def test_broken_where_a_key_is_of_another_type(store: Store, part: str) -> None:
    store.waiting("a", "b")
    lines = save(store)
    store.redis.flushall()
    store.redis.set(getattr(store.keys, part)("a"), "of another type")

    count = restore(store, lines)

    assert (count.restored, count.broken, count.left) == (1, 1, [("a", "broken")])
    assert store.redis.get(getattr(store.keys, part)("a")) == b"of another type"
    assert store.redis.exists("rq:job:a-1") == 0


@pytest.mark.parametrize("field", ["machine", "state", "payload", "version", "born", "updated_at"])
def test_broken_where_what_was_saved_is_no_snapshot(store: Store, field: str) -> None:
    store.idle("a")
    store.redis.hdel(store.keys.snapshot("a"), field)
    lines = save(store)
    store.redis.flushall()

    assert words(store, lines) == ["BROKEN"]
    assert store.redis.dbsize() == 0


def test_repeated_it_is_kept_and_nothing_is_written(store: Store) -> None:
    full(store)
    lines = save(store)
    store.redis.flushall()
    assert words(store, lines) == ["RESTORED"] * 5
    before = store.dump()

    assert words(store, lines) == ["KEPT"] * 5
    assert store.dump() == before


def test_checked_it_says_what_would_be_done_and_nothing_is_written(store: Store) -> None:
    full(store)
    lines = save(store)
    store.redis.flushall()

    assert words(store, lines, is_check=True) == ["RESTORED"] * 5
    count = restore(store, lines, is_check=True)
    assert (count.restored, store.redis.dbsize()) == (5, 0)


def test_mail_that_was_taken_away_with_its_fsm_waits_again_under_its_id(store: Store) -> None:
    store.waiting("a")
    lines = save(store)
    store.purge("a")
    assert store.job("a-1")["place"] == "gone"

    restore(store, lines)

    assert store.job("a-1")["place"] == "mail"
    assert "exc_info" not in store.job("a-1")
    assert store.redis.ttl("rq:job:a-1") == -1
    assert store.redis.zcard("rq:failed:fsm") == 0


def test_an_event_that_was_applied_since_is_applied_again_under_another_id(store: Store) -> None:
    # Seen to fail where it kept its id: its record went with those that are dropped at the end of their time.
    store.idle("a")
    job_id = "0123456789abcdef01234567"
    store.sent("a", job_id)
    lines = save(store)
    store.commit(store.one())
    store.redis.delete(store.keys.snapshot("a"))

    restore(store, lines)
    store.age()
    run(store.redis, calls.recover(store.keys, [], 200))

    (other,) = store.mailbox("a")
    assert other.endswith(f"-{job_id}")
    assert (store.job(other)["place"], store.job(other)["event"]) == ("mail", "note")
    assert store.commit(store.one()) == ["REST"]


def test_mail_that_lies_there_stays_behind_what_is_restored(store: Store) -> None:
    # Somebody deleted the snapshot alone, and what was accepted since the backup is in the mailbox still.
    store.waiting("a")
    lines = save(store)
    store.sent("a", "newer")
    store.redis.delete(store.keys.snapshot("a"))

    restore(store, lines)

    assert store.mailbox("a") == ["a-1", "newer"]
    assert [mail.place for mail in store.one().mail] == [b"mail", b"mail"]


def test_into_another_namespace_it_is_that_ones(store: Store, another: Callable[[str], Store]) -> None:
    full(store)
    lines = save(store)
    before = plain(store)

    count = restore(store, lines, into="copy")

    assert count.restored == 5
    assert {key: value for key, value in plain(store).items() if key in before} == before
    copy = another("copy")
    fsm = copy.one()
    ids = [mail.job_id for mail in fsm.mail]
    assert (fsm.name, [job_id.partition("-")[2] for job_id in ids]) == ("mail", ["one", "two"])
    job = copy.job(ids[0])
    assert (job["ns"], job["origin"]) == ("copy", "fsm.copy")
    assert job["data"].startswith('["workers.jobs.transition",null,["copy","mail","note",')
    assert copy.commit(fsm) == ["REST"]
    assert store.mailbox("mail") == ["one", "two"]


def test_an_fsm_that_stands_comes_back_standing(store: Store) -> None:
    store.waiting("paused", "stuck")
    store.redis.hset(store.keys.snapshot("paused"), "paused", "1790000000000")
    store.redis.hset(store.keys.snapshot("stuck"), "status", "failed")
    lines = save(store)
    store.redis.flushall()

    assert restore(store, lines).restored == 2
    assert store.ready() == []


def test_an_event_that_is_to_be_tried_again_waits_for_its_time(store: Store) -> None:
    store.waiting("a")
    fsm = store.one()
    work = store.work(fsm)
    work.block.again("a-1", 60_000, 1, "it broke")
    assert store.commit(work) == ["AT"]
    lines = save(store)
    at = store.redis.zscore(store.keys.timers, "retry a")
    store.redis.flushall()

    restore(store, lines)

    assert store.redis.zscore(store.keys.timers, "retry a") == at
    assert store.ready() == []
    assert run(store.redis, calls.due(store.keys, ahead_ms=60_000))[0] == 1
    assert store.one().attempts == 1


def test_who_has_an_error_is_among_those_that_have(store: Store) -> None:
    store.idle("a", "b")
    store.redis.hset(store.keys.snapshot("a"), "error", '{"failed":"handler","at_ms":1790000000123}')
    store.redis.hset(store.keys.snapshot("b"), "error", "edited by hand")
    lines = save(store)
    store.redis.flushall()

    restore(store, lines)

    assert store.redis.zscore(store.keys.errors("Ticket"), "a") == 1790000000123
    assert store.redis.zscore(store.keys.errors("Ticket"), "b") > 1790000000123


def test_timers_go_off_at_their_time_but_those_whose_event_waits(store: Store) -> None:
    # Seen to fail, for "gone", without the look at the ids in the mailbox.
    store.idle("a")
    armed = '{"soon":[3,4000000000000],"gone":[2,1790000000000],"over":[1,0]}'
    store.redis.hset(store.keys.snapshot("a"), "timers", armed)
    store.sent("a", "abc--t1v2")
    lines = save(store)
    store.redis.flushall()

    restore(store, lines)

    assert store.redis.zrange(store.keys.timers, 0, -1, withscores=True) == [(b"timer soon a", 4000000000000.0)]


def test_more_fsms_than_one_call_takes(store: Store) -> None:
    names = [f"fsm {n}" for n in range(230)]
    store.start(*names)
    lines = save(store)
    store.redis.flushall()
    told: list[int] = []

    count = restore(store, lines, progress=told.append)

    assert (count.restored, told) == (230, [100, 200, 230])
    assert sorted(store.ready()) == sorted(names)


def test_what_was_saved_twice_counts_once(store: Store) -> None:
    store.waiting("a")
    lines = save(store)

    store.redis.flushall()

    count = restore(store, lines * 2)
    assert (count.restored, count.kept) == (1, 1)


def test_a_record_with_more_fields_than_one_command_takes(store: Store) -> None:
    # Seen to fail where all of them are given to one HSET.
    store.waiting("a")
    store.redis.hset("rq:job:a-1", mapping={f"more {n}": n for n in range(5_000)})
    lines, before = save(store), store.job("a-1")
    store.redis.flushall()

    assert words(store, lines) == ["RESTORED"]
    assert store.job("a-1") == before


def test_held_where_a_worker_has_what_is_to_be_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "_PURGE_TIMEOUT", 0)
    monkeypatch.setattr("fsm.verbs.purging.pause", lambda *_: 1 / 0)
    store.waiting("a", "b")
    lines = save(store)
    for name in ("a", "b"):
        store.purge(name)
        store.start(name)
    store.one(name="a")

    count = restore(store, lines, replace=True)

    assert (count.restored, count.replaced, count.held, count.left) == (1, 1, 1, [("a", "held")])


def test_what_cannot_be_purged_is_told_and_stops_no_other(store: Store) -> None:
    # Seen to fail where the error of the purge ended the restore: "b" was not restored, however often one began.
    store.idle("a", "b")
    lines = save(store)
    store.redis.flushall()
    store.idle("a", "b")
    store.redis.set(store.keys.mailbox("a"), "by hand")

    count = restore(store, lines, replace=True)

    assert (count.restored, count.replaced, count.broken, count.left) == (1, 1, 1, [("a", "broken")])


def test_nothing_is_restored_where_there_can_be_no_alarms(store: Store) -> None:
    # Seen to fail where nobody looked: the script ended in the midst of the FSM, which was KEPT from then on, without
    # its delayed event.
    store.idle("late")
    store.send("late", "note", "soon", more=("due", "+60000"))
    lines = save(store)
    store.redis.flushall()
    store.redis.set(store.keys.timers, "by hand")

    assert words(store, lines) == ["BROKEN"]
    store.redis.delete(store.keys.timers)
    assert words(store, lines) == ["RESTORED"]
    assert store.redis.zcard(store.keys.later("late")) == 1


def test_checked_what_would_be_replaced_is_told_and_stays(store: Store) -> None:
    store.idle("a")
    lines = save(store)
    store.purge("a")
    store.idle("a")
    before = store.dump()

    count = restore(store, lines, replace=True, is_check=True)

    assert (count.restored, count.replaced) == (1, 1)
    assert store.dump() == before


def test_a_machine_that_nobody_announced_since_is_announced_with_its_states(store: Store) -> None:
    store.idle("a")
    run(store.redis, announce(store.keys, [store.machine], 1))
    lines = save(store)
    states = store.redis.smembers(store.keys.states)
    before = store.redis.hgetall(store.keys.machines)
    store.redis.flushall()
    store.redis.hset(store.keys.machines, "Newer", "{}")

    restore(store, lines)

    assert store.redis.hgetall(store.keys.machines) == {**before, b"Newer": b"{}"}
    assert states <= store.redis.smembers(store.keys.states) | {b"Ticket:[*]"}


def test_what_was_announced_since_stays(store: Store) -> None:
    run(store.redis, announce(store.keys, [store.machine], 1))
    lines = save(store)
    store.redis.hset(store.keys.machines, "Ticket", "newer")

    restore(store, lines)

    assert store.redis.hget(store.keys.machines, "Ticket") == b"newer"


def test_saved_again_it_is_what_was_saved(store: Store) -> None:
    full(store)
    store.ask("rest", "cause--e1", deadline_ms=60_000)
    store.redis.hset(store.keys.snapshot("mail"), "timers", '{"soon":[3,4000000000000]}')
    store.sent("rest", "urgent")
    store.redis.rename(store.keys.mailbox("rest"), store.keys.urgent("rest"))
    store.redis.hset(store.keys.snapshot("rest"), "owes", "urgent")
    store.redis.hset(store.keys.snapshot("rest"), "note", b"\xff\x00 no text")
    lines = save(store)
    store.redis.flushall()

    restore(store, lines)

    again = save(store)
    for line in (*lines, *again):
        for event in getattr(line, "later", ()):
            # The number of its acceptance is another one.
            event.fields["alarm"] = ""
    by_name = {line.name: line for line in lines}
    assert {line.name: line for line in again} == by_name


def test_of_two_lines_of_a_name_the_newer_is_taken_where_that_is_wanted(store: Store) -> None:
    store.waiting("a")
    older = save(store)
    store.commit(store.one())
    lines = [*older, *save(store)]
    version = store.snapshot("a")["version"]
    store.redis.flushall()

    would = restore(store, lines, is_check=True)
    first = restore(store, lines)
    again = restore(store, lines, replace=True)

    assert (would.restored, would.repeated) == (1, 1)

    # Seen to fail where nobody knew whose the first was: it was told to be in the way, and the restore to be not whole.
    assert (first.restored, first.repeated, first.existing, first.left) == (1, 1, 0, [])
    assert (again.kept, again.restored, again.replaced) == (1, 1, 1)
    assert (store.snapshot("a")["version"], store.mailbox("a")) == (version, [])
