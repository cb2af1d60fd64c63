from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm.backup import saving
from fsm.store import dumping
from fsm.store.requests import run
from fsm.verbs import carry
from tests.store.conftest import Lines

if TYPE_CHECKING:
    from fsm.backup.form import SavedFSM
    from fsm.store.dumping import Dump
    from tests.store.conftest import Store


def dump(store: Store, *names: str, enough: int = 1 << 20) -> Dump:
    return run(store.redis, dumping.dump(store.keys, names, enough))


def lines(store: Store) -> list[Any]:
    """All lines of a backup."""
    found = Lines()
    assert carry(saving.save(store.keys, found.write), lambda request: run(store.redis, request)) == []
    return found


def line(store: Store, name: str) -> SavedFSM:
    (fsm,) = dump(store, name).fsms
    return saving.line_of(store.keys, fsm)


def test_dumped_is_all_that_is_the_own_of_an_fsm(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one", "two")
    store.send("a", "note", "late", more=("due", "+60000"))

    (fsm,) = dump(store, "a").fsms

    assert fsm.name == b"a"
    assert float(fsm.since) == store.redis.zscore(store.keys.state("Ticket", "open"), "a")
    hash_of = dict(zip(fsm.snapshot[::2], fsm.snapshot[1::2], strict=True))
    assert hash_of == store.redis.hgetall(store.keys.snapshot("a"))
    assert (fsm.urgent, fsm.mail, fsm.later[0]) == ([], [b"one", b"two"], b"late")
    assert float(fsm.later[1]) == store.redis.zscore(store.keys.later("a"), "late")
    for job_id, record in zip(("one", "two", "late"), fsm.records, strict=True):
        assert dict(zip(record[::2], record[1::2], strict=True)) == store.redis.hgetall(f"rq:job:{job_id}")


def test_dumped_it_has_its_open_effects_with_their_deadlines(store: Store) -> None:
    store.idle("a")
    effect = store.ask("a", "cause--e1", deadline_ms=60_000)
    other = store.ask("a", "cause--e2")

    (fsm,) = dump(store, "a").fsms

    noted = {fsm.effects[at]: fsm.effects[at + 2] for at in range(0, len(fsm.effects), 3)}
    ends = store.redis.zscore(store.keys.timers, f"deadline {effect} a")
    assert float(noted[effect.encode()]) == ends
    assert noted[other.encode()] == b""


def test_dumped_is_nothing_of_who_is_not_there_or_is_being_purged(store: Store) -> None:
    store.idle("a", "b")
    store.sent("b", "one", "two", "three")
    assert store.purge("b", most=1) == "AGAIN"

    found = dump(store, "nobody", "b", "a")

    assert (found.looked_at, [fsm.name for fsm in found.fsms]) == (3, [b"a"])


def test_dumped_are_no_more_than_the_bytes_allow_but_one(store: Store) -> None:
    store.idle("a", "b", "c")

    found = dump(store, "a", "b", "c", enough=1)
    assert (found.looked_at, [fsm.name for fsm in found.fsms]) == (1, [b"a"])


@pytest.mark.parametrize("part", ["snapshot", "mailbox", "urgent", "later", "effects_of"])
def test_broken_where_a_key_is_of_another_type(store: Store, part: str) -> None:
    store.idle("a", "b")
    key = getattr(store.keys, part)("a")
    store.redis.delete(key)
    store.redis.set(key, "of another type")

    a, b = dump(store, "a", "b").fsms

    assert (a.name, a.snapshot) == (b"a", None)
    assert b.snapshot


def test_a_record_of_another_type_is_no_record(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    store.redis.delete("rq:job:one")
    store.redis.set("rq:job:one", "of another type")

    assert dump(store, "a").fsms[0].records == [[]]


def test_repeated_it_gives_the_same_and_nothing_is_written(store: Store) -> None:
    store.idle("a")
    store.sent("a", "one")
    before = store.dump()

    assert dump(store, "a") == dump(store, "a")
    assert store.dump() == before


def test_delayed_events_come_in_the_order_in_which_they_were_accepted(store: Store) -> None:
    # Of equal times Redis sorts by the id. Seen to fail without the look at the alarm.
    store.idle("a")
    due = 1_000 * int(store.redis.time()[0]) + 60_000
    for job_id in ("c", "a", "b"):
        store.send("a", "note", job_id, more=("due", str(due)))

    assert [event.id for event in line(store, "a").later] == ["c", "a", "b"]


def test_a_backup_has_all_fsms_in_as_many_calls_as_it_takes(store: Store) -> None:
    names = [f"fsm {n}" for n in range(450)]
    store.start(*names)

    found = lines(store)

    assert sorted(one.name for one in found) == sorted(names)


def test_a_backup_names_who_cannot_be_read_and_goes_on(store: Store) -> None:
    store.idle("a", "b")
    store.redis.set(store.keys.snapshot("c"), "of another type")
    found = Lines()

    broken = carry(saving.save(store.keys, found.write), lambda request: run(store.redis, request))

    assert broken == ["c"]
    assert sorted(one.name for one in found) == ["a", "b"]


def test_a_backup_asks_again_for_those_whose_bytes_were_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail where the rest of a call was not asked again.
    monkeypatch.setattr(dumping.dump, "__defaults__", (1,))
    names = ["a", "b", "c", "d"]
    store.start(*names)

    assert sorted(one.name for one in lines(store)) == names


def test_one_that_moves_between_its_snapshot_and_its_time_is_saved_as_it_was_at_one_moment(store: Store) -> None:
    # Seen to fail without the comparison of `since` with `updated_at`: the snapshot was of a first visit to the state,
    # the time of a second one.
    store.idle("a")
    key = store.keys.snapshot("a")
    is_moved = False
    found = Lines()

    def ask(request: Any) -> Any:
        nonlocal is_moved
        if request.commands and request.commands[0][0] == "ZMSCORE" and not is_moved:
            is_moved = True
            later = int(store.redis.hget(key, "updated_at")) + 1000
            store.redis.hset(key, mapping={"version": 7, "updated_at": later})
            store.redis.zadd(store.keys.state("Ticket", "open"), {"a": later})
        return run(store.redis, request)

    store.redis.hset(key, "updated_at", int(store.redis.hget(key, "updated_at")) - 60_000)
    assert carry(saving.save(store.keys, found.write), ask) == []

    (one,) = found
    assert is_moved
    assert (one.fields["version"], one.since) == ("7", one.fields["updated_at"])


def test_one_that_is_written_after_it_had_no_mail_is_saved_with_what_it_has_since(store: Store) -> None:
    # Seen to fail without the comparison of `updated_at` with the time of the question: its effect was not in it.
    store.idle("a")
    key = store.keys.snapshot("a")
    found = Lines()

    def ask(request: Any) -> Any:
        if not request.commands or request.commands[0][0] != "TIME":
            return run(store.redis, request)
        commands = request.commands
        replies = [store.redis.execute_command(*command) for command in commands if command[0] != "HGETALL"]
        store.ask("a", "cause--e1")
        store.redis.hset(key, "updated_at", 1000 * int(store.redis.time()[0]) + 5000)
        replies += [store.redis.execute_command(*command) for command in commands if command[0] == "HGETALL"]
        return request.read(replies)

    store.redis.hset(key, "updated_at", int(store.redis.hget(key, "updated_at")) - 60_000)
    assert carry(saving.save(store.keys, found.write), ask) == []

    assert list(found[0].effects) == ["cause--e1"]


def test_those_that_rest_and_those_that_have_mail_are_all_saved_with_all_they_have(store: Store) -> None:
    names = [f"fsm {n:03}" for n in range(130)]
    store.idle(*names)
    lively = names[::13]
    for name in lively:
        store.sent(name, f"one of {name}", f"two of {name}")
    for name in names:
        key = store.keys.snapshot(name)
        store.redis.hset(key, "updated_at", int(store.redis.hget(key, "updated_at")) - 60_000)

    found = {one.name: one for one in lines(store)}

    assert sorted(found) == names
    assert [name for name in names if found[name].mail] == lively
    for name, one in found.items():
        assert float(one.since) == store.redis.zscore(store.keys.state("Ticket", "open"), name)
        assert one.snapshot().keys() == store.snapshot(name).keys()
