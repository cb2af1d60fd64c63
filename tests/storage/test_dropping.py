"""Rows of lives that are over: noted where they end, dropped by whoever knows the storage, and by nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, Machine, MemoryStorage, verbs
from fsm.store import calls, dropping, retention
from fsm.store.requests import run
from tests.storage.cabinet import KEYS, Cabinet, Killed, Office, book, plain_book
from workers import breaker
from workers.dropping import Dropping
from workers.executors import InlineExecutor
from workers.shelf import Shelf

if TYPE_CHECKING:
    import fakeredis
    import redis


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(breaker, "_SHORTEST_S", 0.0)


@pytest.fixture
def cabinet() -> Cabinet:
    return Cabinet()


@pytest.fixture
def office(fake_redis: fakeredis.FakeRedis, cabinet: Cabinet) -> Office:
    return Office(fake_redis, book(cabinet))


def dropper(office: Office, age_ms: int = 0) -> Dropping:
    behaviours = office.behaviours
    ask = lambda request: run(office.client, request)  # noqa: E731 - short
    return Dropping(KEYS, Shelf(KEYS, lambda: behaviours, InlineExecutor(timed=False), ask), age_ms)


def look(office: Office) -> int:
    return dropper(office).look(lambda request: run(office.client, request))


def killed() -> None:
    raise Killed


def purge(office: Office, *names: str) -> None:
    for name in names:
        assert run(office.client, calls.purge(KEYS, name)) == "PURGED"


def notes(office: Office) -> list[str]:
    found: Any = office.client.zrange(KEYS.drops("Book"), 0, -1)
    return [note.decode() for note in found]


def started(office: Office, *names: str) -> None:
    office.start(*names)
    for name in names:
        office.send(name, 1)
    office.settle()


def test_the_row_of_a_purged_fsm_is_dropped_by_a_worker_that_knows_its_storage(
    office: Office, cabinet: Cabinet
) -> None:
    # Seen to fail without `note_drop` in purge.lua.
    started(office, "a", "b")
    born = office.snapshot("a")[b"born"].decode()
    purge(office, "a")
    assert (notes(office), set(cabinet.rows)) == ([f"{born} a"], {"a", "b"})

    assert look(office) == 1

    assert (notes(office), set(cabinet.rows)) == ([], {"b"})
    assert office.client.exists(KEYS.drops("Book")) == 0


def test_the_row_of_an_expired_fsm_is_dropped(office: Office, cabinet: Cabinet) -> None:
    # Seen to fail without `note_drop` in expire.lua.
    started(office, "a", "b")
    office.send("a", 0, event="shut")
    office.settle()
    found = run(office.client, retention.expire(KEYS, "Book", "shut", 0))
    assert list(found.gone) == ["a"]

    assert look(office) == 1
    assert (notes(office), set(cabinet.rows)) == ([], {"b"})


def test_the_row_of_one_that_was_purged_before_redis_was_told_of_it_is_dropped(
    office: Office, cabinet: Cabinet
) -> None:
    # Seen to fail without the look at the machine's announcement in `note_drop`.
    run(office.client, verbs.announce(KEYS, [office.machine.definition], 1))
    office.start("a")
    cabinet.after_store = [killed]
    with pytest.raises(Killed):
        office.turn("w1")
    office.bury("w1")
    assert b"+s" not in office.snapshot("a")[b"definition"]
    purge(office, "a")

    assert look(office) == 1
    assert (notes(office), cabinet.rows) == ([], {})


def test_nothing_is_noted_of_an_fsm_whose_payload_lies_in_redis(fake_redis: fakeredis.FakeRedis) -> None:
    office = Office(fake_redis, plain_book())
    run(office.client, verbs.announce(KEYS, [office.machine.definition], 1))
    started(office, "a")
    purge(office, "a")
    assert notes(office) == []


def test_a_new_life_of_the_name_keeps_its_row(office: Office, cabinet: Cabinet) -> None:
    started(office, "a")
    purge(office, "a")
    started(office, "a")
    born = office.snapshot("a")[b"born"].decode()

    look(office)

    assert (notes(office), cabinet.rows["a"].born) == ([], born)


def test_a_life_that_came_back_from_a_backup_keeps_its_row(office: Office, cabinet: Cabinet) -> None:
    # Seen to fail without `_is_back`: the FSM was left without a row.
    started(office, "a")
    kept = office.client.dump(KEYS.snapshot("a"))
    purge(office, "a")
    office.client.restore(KEYS.snapshot("a"), 0, kept)

    assert look(office) == 0
    assert (notes(office), set(cabinet.rows)) == ([], {"a"})


def test_what_was_purged_just_now_may_be_restored_and_is_left_for_a_while(office: Office, cabinet: Cabinet) -> None:
    # Seen to fail without the look at when it was noted: a restore in the place of what is there purges first.
    started(office, "a", "b")
    purge(office, "a", "b")
    office.client.zincrby(KEYS.drops("Book"), -60_000, next(note for note in notes(office) if note.endswith("b")))

    assert dropper(office, 60_000).look(lambda request: run(office.client, request)) == 1
    assert (set(cabinet.rows), len(notes(office))) == ({"a"}, 1)


def test_while_the_storage_is_down_the_notes_stay_and_nobody_waits_for_it(
    office: Office, cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with `is_patient` left out: it was asked three times.
    started(office, "a")
    purge(office, "a")
    cabinet.is_down = True
    monkeypatch.setattr(breaker, "_SHORTEST_S", 60.0)
    one = dropper(office)
    asked: list[int] = []
    down = cabinet._meet
    monkeypatch.setattr(cabinet, "_meet", lambda faults: (asked.append(1), down(faults)))

    assert one.look(lambda request: run(office.client, request)) == 0
    assert (len(notes(office)), len(asked)) == (1, 1)

    cabinet.is_down = False
    assert look(office) == 1
    assert notes(office) == []


def test_a_look_is_short_and_comes_again_soon_where_there_is_more(
    office: Office, cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "MOST_AT_ONCE", 2)
    now = [100.0]
    monkeypatch.setattr("workers.dropping.time.monotonic", lambda: now[0])
    started(office, "a", "b", "c")
    purge(office, "a", "b", "c")
    one = dropper(office)

    counts = []
    for _ in range(14):
        counts.append(one.look(lambda request: run(office.client, request)))
        now[0] += 0.6
    assert counts == [2, 0, 1, *[0] * 11]
    assert set(cabinet.rows) == set()


def test_what_was_written_there_by_hand_stops_nobody(office: Office, cabinet: Cabinet) -> None:
    started(office, "a")
    purge(office, "a")
    office.client.zadd(KEYS.drops("Book"), {"x": 1, "12 \xff": 1, f"{'9' * 30} a": 1, b"\xff\xfe": 1})

    assert look(office) == 1
    assert notes(office) == []


def test_a_key_of_another_type_stops_no_purge_and_no_worker(office: Office) -> None:
    started(office, "a")
    office.client.set(KEYS.drops("Book"), "x")
    purge(office, "a")
    # Seen to fail without a look at what Redis said: the worker ended.
    assert look(office) == 0


def test_a_storage_that_raises_something_of_its_own_stops_no_worker(
    office: Office, cabinet: Cabinet, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(office, "a")
    purge(office, "a")

    def broken(*_: Any) -> int:
        raise KeyError

    monkeypatch.setattr(cabinet, "drop_many", broken)
    assert look(office) == 0
    assert len(notes(office)) == 1


def test_of_a_real_redis_the_same(raw_redis: redis.Redis) -> None:
    cabinet = Cabinet()
    office = Office(raw_redis, book(cabinet))
    started(office, "a", "b")
    office.send("b", 0, event="shut")
    office.settle()
    purge(office, "a")
    run(office.client, retention.expire(KEYS, "Book", "shut", 0))
    assert len(notes(office)) == 2

    assert look(office) == 2
    assert cabinet.rows == {}
    assert notes(office) == []


def test_in_memory_it_is_dropped_with_the_purge() -> None:
    # Seen to fail without `_ENDING` in `workers.inline`.
    class Slip(Machine[dict[str, int]]):
        storage = MemoryStorage()
        diagram = """
        stateDiagram-v2
            [*] --> open
            open --> paid : pay
            paid --> [*]
        """

    storage = Slip.storage
    with Client("memory://") as client:
        client.start_fsm(Slip, "a", {"n": 1})
        client.start_fsm(Slip, "b", {"n": 2})
        client.transition("b", "pay")
        assert storage.get("a").payload == {"n": 1}
        client.purge("a")
        assert storage.load("a") is None
        assert client.purge_finished(older_than=0) == 1
        assert storage.load("b") is None
