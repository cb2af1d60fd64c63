"""The contract of storages, as tests: derive from it, give a `storage`, and pytest holds yours against each sentence.

    from fsm.testing.storage import StorageContract

    class TestMine(StorageContract):
        @pytest.fixture
        def storage(self):
            return MyStorage(…)

A storage that workers use for many FSMs at once is held against `BatchStorageContract`, which asks for all of this and
more. What the sentences mean stands in `fsm.storage.protocol`.

Who calls this: tests of storages, ours and those of users. It imports pytest, which nothing else of ours needs.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fsm.errors import ConfigError, PayloadError, StaleVersionError, UnknownFSMError
from fsm.storage.protocol import FILTERS, BatchStorage, Row, Storage, Stored

__all__ = ["BatchStorageContract", "StorageContract", "row", "snapshot"]

_BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_ERROR = {"failed": "handler", "type": "ValueError", "message": "no\x00 such “thing”", "event": "pay"}
# What is easily lost on the way: each is a payload.
_PAYLOADS: tuple[Any, ...] = (
    {},
    [],
    None,
    {"empty": [], "nothing": None, "yes": True, "no": False, "half": 0.1, "large": 1e300},
    {"least": -(2**63), "most": 2**64 - 1, "beyond a float": 2**53 + 1},
    {"text": "nul \x00, tab \t, quote ' \" \\, “ß漢🙂\u2028”", "": "no key"},
    {"z": 1, "a": 2, "nested": [[[{"deep": [1, [2]]}]]]},
    "text alone",
)
_NAMES = (
    "order:42",
    "two\nlines\tand \x00 nul",
    " spaces ",
    "100%_like\\",
    "'; DROP TABLE fsm_snapshots; --",
    "ß漢🙂",
    "x" * 512,
    "漢" * 170,
    "\x1fE",
)


def snapshot(name: str = "a", **changes: Any) -> Stored:
    """Give a snapshot to be stored: of machine "Order" in state "cart", version 1; what else is wanted is told.

    Its `born` is that of its `started_at`, as Redis draws it.
    """
    started_at = changes.get("started_at", _BEGIN)
    plain: dict[str, Any] = {
        "name": name,
        "machine": "Order",
        "state": "cart",
        "payload": {"items": ["tea"]},
        "version": 1,
        "status": "running",
        "born": str(int(started_at.timestamp()) * 1_000_000 + started_at.microsecond),
        "definition": "1a2b3c4d",
        "started_at": started_at,
        "updated_at": started_at,
    }
    return Stored(**plain | changes)


def row(name: str = "a", version: int = 1, **changes: Any) -> Row:
    """Give a row as workers store it: the step to `version` of an FSM of machine "Order", of whose life this is one."""
    plain: dict[str, Any] = {
        "name": name,
        "born": "1000",
        "machine": "Order",
        "state": "cart",
        "status": "running",
        "version": version,
        "base": version - 1,
        "payload": b'{"items":["tea"]}',
        "definition": "1a2b3c4d",
        "started_ms": 1,
        "updated_ms": version,
        "over": "1000" if version > 1 else None,
    }
    return Row(**plain | changes)


def _after(minutes: float) -> datetime:
    return _BEGIN + timedelta(minutes=minutes)


def _walk(storage: Storage, **filters: Any) -> list[str]:
    """Ask for all pages: the names, as they come."""
    names: list[str] = []
    cursor = ""
    for _ in range(1000):
        page = storage.query(**filters | {"cursor": cursor})
        names += [found.name for found in page.snapshots]
        cursor = page.cursor
        if not cursor:
            return names
    pytest.fail("a query of few FSMs does not come to an end")


class StorageContract:
    """What each storage does: one FSM at a time, as people and applications use it."""

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage that is tested, empty; to be given by whoever derives from this."""
        pytest.fail("derive from StorageContract, and give it a fixture `storage`")

    @pytest.fixture
    def reopened(self, storage: Storage) -> Storage:
        """The same storage as another process sees it; where there is none, the same object."""
        return storage

    # One FSM

    def test_it_is_a_storage(self, storage: Storage) -> None:
        assert isinstance(storage, Storage)

    def test_what_was_stored_comes_back_equal_field_by_field(self, storage: Storage, reopened: Storage) -> None:
        whole = snapshot(
            state="paying",
            version=2**40,
            status="failed",
            definition="1a2b3c4d.3",
            updated_at=_after(1) + timedelta(milliseconds=7),
            error=_ERROR,
            last_job="0123456789abcdef01234567--h1",
            pending=bytes(range(256)),
        )

        assert storage.store("a", whole, None) is True
        assert storage.load("a") == whole
        assert reopened.get("a") == whole

    @pytest.mark.parametrize("payload", _PAYLOADS, ids=range(len(_PAYLOADS)))
    def test_any_json_is_a_payload(self, storage: Storage, payload: Any) -> None:
        storage.put("a", snapshot(payload=payload))

        found = storage.get("a").payload
        assert found == payload
        assert repr(found) == repr(payload)  # True is no 1, 1.0 no 1, and the order of keys stays

    def test_a_payload_of_a_megabyte_is_kept(self, storage: Storage) -> None:
        large = {"text": "ß" * 500_000, "numbers": list(range(10_000))}
        storage.put("a", snapshot(payload=large))

        assert storage.get("a").payload == large

    @pytest.mark.parametrize("payload", [float("nan"), {"a": {1, 2}}, {"at": _BEGIN}, 2**64, {1: 2}, "\ud800"], ids=str)
    def test_a_payload_that_is_no_json_is_refused(self, storage: Storage, payload: Any) -> None:
        with pytest.raises(PayloadError):
            storage.store("a", snapshot(payload=payload), None)
        with pytest.raises(PayloadError):
            storage.put("a", snapshot(payload=payload))
        assert storage.load("a") is None

    def test_any_text_of_512_bytes_is_a_name(self, storage: Storage) -> None:
        for number, name in enumerate(_NAMES):
            assert storage.store(name, snapshot(name, version=number), None) is True

        assert [storage.get(name).version for name in _NAMES] == list(range(len(_NAMES)))
        assert Counter(_walk(storage)) == Counter(_NAMES)
        assert Counter(_walk(storage, limit=1)) == Counter(_NAMES)

    def test_names_are_told_apart_by_each_character(self, storage: Storage) -> None:
        for name in ("a", "A", "a ", "ä", "a\u0308"):
            assert storage.store(name, snapshot(name), None) is True

    def test_a_snapshot_of_another_name_is_refused(self, storage: Storage) -> None:
        with pytest.raises(PayloadError, match="'b'"):
            storage.store("b", snapshot("a"), None)
        with pytest.raises(PayloadError, match="'b'"):
            storage.put("b", snapshot("a"))

    def test_an_fsm_that_is_not_there_is_none_or_an_error(self, storage: Storage) -> None:
        assert storage.load("nobody") is None
        assert storage.last_error("nobody") is None
        with pytest.raises(UnknownFSMError, match="nobody"):
            storage.get("nobody")

    def test_a_namespace_knows_nothing_of_another(self, storage: Storage) -> None:
        other = storage.of("shop")
        storage.put("a", snapshot())
        other.put("a", snapshot(version=7))

        assert (storage.get("a").version, other.get("a").version) == (1, 7)
        assert other.delete("a") is True
        assert storage.load("a") is not None
        assert _walk(other) == []

    # Compare and set

    def test_a_store_goes_on_from_the_version_that_was_read(self, storage: Storage) -> None:
        storage.store("a", snapshot(), None)

        assert storage.store("a", snapshot(version=4, state="paying"), 1) is True
        assert (storage.get("a").version, storage.get("a").state) == (4, "paying")

    def test_a_store_onto_another_version_writes_nothing(self, storage: Storage) -> None:
        storage.store("a", snapshot(version=3), None)

        assert storage.store("a", snapshot(version=3, payload="lost"), 2) is False
        assert storage.store("a", snapshot(version=5, payload="lost"), 4) is False
        assert storage.get("a") == snapshot(version=3)

    def test_a_first_store_onto_one_that_is_there_writes_nothing(self, storage: Storage) -> None:
        storage.store("a", snapshot(), None)

        assert storage.store("a", snapshot(version=2), None) is False
        assert storage.get("a") == snapshot()

    def test_a_later_store_onto_nothing_writes_nothing(self, storage: Storage) -> None:
        assert storage.store("a", snapshot(version=2), 1) is False
        assert storage.load("a") is None

    def test_a_store_onto_another_life_writes_nothing(self, storage: Storage) -> None:
        storage.store("a", snapshot(), None)
        later = snapshot(version=2, started_at=_after(1))

        assert storage.store("a", later, 1) is False
        assert storage.get("a") == snapshot()

    def test_of_two_stores_at_once_one_wins(self, storage: Storage) -> None:
        storage.store("a", snapshot(version=0), None)
        rounds, threads = 5, 4
        with ThreadPoolExecutor(threads) as pool:
            for version in range(rounds):

                def attempt(who: int, version: int = version) -> bool:
                    return storage.store("a", snapshot(version=version + 1, payload=who), version)

                won = list(pool.map(attempt, range(threads)))
                assert won.count(True) == 1
                assert storage.get("a").payload == won.index(True)

    def test_of_two_first_stores_at_once_one_wins(self, storage: Storage) -> None:
        threads = 4
        with ThreadPoolExecutor(threads) as pool:
            for name in ("a", "b", "c"):

                def attempt(who: int, name: str = name) -> bool:
                    return storage.store(name, snapshot(name, payload=who), None)

                won = list(pool.map(attempt, range(threads)))
                assert won.count(True) == 1
                assert storage.get(name).payload == won.index(True)

    # Put

    def test_a_put_is_there_whether_or_not_something_was(self, storage: Storage) -> None:
        storage.put("a", snapshot())
        storage.put("a", snapshot(version=5, state="paying"))

        assert storage.get("a") == snapshot(version=5, state="paying")

    def test_the_same_put_may_be_repeated(self, storage: Storage) -> None:
        storage.put("a", snapshot(version=5))
        storage.put("a", snapshot(version=5, payload="mended"))

        assert storage.get("a").payload == "mended"

    def test_an_older_version_is_not_put_over_a_newer_one(self, storage: Storage) -> None:
        storage.put("a", snapshot(version=5))

        with pytest.raises(StaleVersionError, match="version 5"):
            storage.put("a", snapshot(version=4))
        assert storage.get("a") == snapshot(version=5)

    def test_a_later_life_is_put_over_an_earlier_one_and_never_the_reverse(self, storage: Storage) -> None:
        storage.put("a", snapshot(version=5))
        later = snapshot(version=0, started_at=_after(1))
        storage.put("a", later)

        assert storage.get("a") == later
        with pytest.raises(StaleVersionError, match="later life"):
            storage.put("a", snapshot(version=9))
        assert storage.get("a") == later

    # Errors

    def test_an_error_is_noted_and_forgotten_and_the_version_stays(self, storage: Storage) -> None:
        storage.put("a", snapshot(version=3))
        storage.store_error("a", _ERROR)

        assert storage.last_error("a") == _ERROR
        assert storage.get("a") == snapshot(version=3, error=_ERROR)
        storage.store_error("a", None)
        assert storage.last_error("a") is None
        assert storage.get("a") == snapshot(version=3)

    def test_a_store_brings_its_own_error_or_none(self, storage: Storage) -> None:
        storage.put("a", snapshot(error=_ERROR))
        storage.store("a", snapshot(version=2), 1)

        assert storage.last_error("a") is None

    def test_an_error_of_an_fsm_that_is_not_there_is_refused(self, storage: Storage) -> None:
        with pytest.raises(UnknownFSMError, match="nobody"):
            storage.store_error("nobody", _ERROR)
        assert storage.load("nobody") is None

    # Away with it

    def test_deleted_it_is_gone_and_a_second_time_there_is_nothing(self, storage: Storage) -> None:
        storage.put("a", snapshot())
        storage.put("b", snapshot("b"))

        assert (storage.delete("a"), storage.delete("a")) == (True, False)
        assert storage.load("a") is None
        assert _walk(storage) == ["b"]

    def test_purged_nothing_of_it_is_left(self, storage: Storage) -> None:
        storage.put("a", snapshot(error=_ERROR))

        assert (storage.purge("a"), storage.purge("a")) == (True, False)
        assert (storage.load("a"), storage.last_error("a")) == (None, None)
        assert _walk(storage) == []

    def test_a_name_that_was_deleted_may_be_stored_again(self, storage: Storage) -> None:
        storage.put("a", snapshot(version=9))
        storage.delete("a")

        assert storage.store("a", snapshot(version=0, started_at=_after(1)), None) is True

    # Queries

    @pytest.fixture
    def shop(self, storage: Storage) -> Storage:
        """Some FSMs of two machines."""
        for number in range(6):
            started_at = _after(number)
            storage.put(
                f"o{number}",
                snapshot(
                    f"o{number}",
                    state=("cart", "paying")[number % 2],
                    status="finished" if number == 4 else "running",
                    error=_ERROR if number < 2 else None,
                    started_at=started_at,
                ),
            )
        storage.put("p0", snapshot("p0", machine="Parcel", state="sent", started_at=_after(3)))
        return storage

    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            ({}, "o0 o1 o2 o3 o4 o5 p0"),
            ({"machine": None, "failed": None, "limit": None, "cursor": None}, "o0 o1 o2 o3 o4 o5 p0"),
            ({"machine": "Parcel"}, "p0"),
            ({"machine": "Nobody"}, ""),
            ({"state": "paying"}, "o1 o3 o5"),
            ({"machine": "Parcel", "state": "paying"}, ""),
            ({"status": "finished"}, "o4"),
            ({"status": "running", "state": "cart"}, "o0 o2"),
            ({"status": "failed"}, ""),
            ({"failed": True}, "o0 o1"),
            ({"failed": False}, "o2 o3 o4 o5 p0"),
            ({"failed": True, "state": "paying"}, "o1"),
            ({"started_after": _after(3)}, "o4 o5"),
            ({"started_after": _after(3) - timedelta(microseconds=1)}, "o3 o4 o5 p0"),
            ({"updated_before": _after(1)}, "o0"),
            ({"updated_before": _after(1) + timedelta(microseconds=1)}, "o0 o1"),
            ({"started_after": _after(0), "updated_before": _after(3)}, "o1 o2"),
            ({"in_state_longer_than": "1h"}, "o0 o1 o2 o3 o4 o5 p0"),
            ({"in_state_longer_than": timedelta(days=365 * 900)}, ""),
        ],
        ids=str,
    )
    def test_each_filter_finds_what_it_says(self, shop: Storage, filters: dict[str, Any], names: str) -> None:
        assert sorted(_walk(shop, **filters)) == names.split()
        assert sorted(_walk(shop, **filters | {"limit": 1})) == names.split()

    def test_snapshots_come_whole(self, shop: Storage) -> None:
        (found,) = shop.query(machine="Parcel").snapshots

        assert found == shop.get("p0")

    def test_they_come_by_machine_state_and_since_when(self, shop: Storage) -> None:
        names = [name for name in _walk(shop) if name != "o4"]

        assert names == ["o0", "o2", "o1", "o3", "o5", "p0"]
        assert [name for name in _walk(shop, limit=2) if name != "o4"] == names

    def test_since_when_is_since_it_came_into_its_state(self, storage: Storage) -> None:
        storage.put("a", snapshot("a"))
        storage.put("b", snapshot("b", updated_at=_after(1)))
        storage.store("a", snapshot("a", version=2, updated_at=_after(2)), 1)
        assert _walk(storage) == ["a", "b"]

        storage.store("a", snapshot("a", version=3, state="paying", updated_at=_after(3)), 2)
        storage.store("a", snapshot("a", version=4, updated_at=_after(4)), 3)
        assert _walk(storage) == ["b", "a"]

    def test_many_that_came_in_one_moment_come_each_once(self, storage: Storage) -> None:
        names = [f"n{number:03}" for number in range(25)]
        for name in reversed(names):
            storage.put(name, snapshot(name))

        assert _walk(storage, limit=4) == names
        assert _walk(storage) == names

    def test_those_that_stand_still_come_once_whatever_others_do(self, storage: Storage) -> None:
        names = [f"n{number:02}" for number in range(20)]
        for number, name in enumerate(names):
            storage.put(name, snapshot(name, updated_at=_after(number)))
        moving = [name for number, name in enumerate(names) if number % 2]
        seen: list[str] = []
        cursor, later = "", 100
        while True:
            page = storage.query(limit=3, cursor=cursor)
            seen += [found.name for found in page.snapshots]
            cursor = page.cursor
            if not cursor:
                break
            for name in moving[:2]:
                later += 1
                storage.store(name, snapshot(name, version=2, state="paying", updated_at=_after(later)), 1)
            del moving[:2]
            storage.put(f"new{later}", snapshot(f"new{later}", started_at=_after(later + 0.5)))

        counted = Counter(seen)
        assert [name for name in names[::2] if counted[name] != 1] == []
        assert [name for name in names if counted[name] > 1] == []

    def test_a_page_goes_on_though_its_last_fsm_is_gone(self, storage: Storage) -> None:
        for name in ("a", "b", "c", "d"):
            storage.put(name, snapshot(name))
        page = storage.query(limit=2)
        assert [found.name for found in page.snapshots] == ["a", "b"]
        storage.purge("b")

        assert _walk_from(storage, page.cursor) == ["c", "d"]

    def test_a_filter_that_is_none_is_an_error_that_names_those_there_are(self, storage: Storage) -> None:
        with pytest.raises(ConfigError) as raised:
            storage.query(stat="cart")
        assert all(name in str(raised.value) for name in FILTERS)

    @pytest.mark.parametrize(
        "filters",
        [
            {"limit": 0},
            {"limit": 1001},
            {"limit": True},
            {"limit": "10"},
            {"status": "asleep"},
            {"failed": "yes"},
            {"machine": 7},
            {"state": b"cart"},
            {"started_after": "yesterday"},
            {"updated_before": _BEGIN.replace(tzinfo=None)},
            {"in_state_longer_than": "long"},
            {"in_state_longer_than": -1},
            {"cursor": 7},
        ],
        ids=str,
    )
    def test_a_value_that_is_not_allowed_is_an_error(self, storage: Storage, filters: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            storage.query(**filters)

    @pytest.mark.parametrize("cursor", ["x", "AAAA", "ß", "W10", "bnVsbA", "WzEsMiwzLDQsNSw2XQ"])
    def test_a_cursor_that_is_none_is_refused(self, storage: Storage, cursor: str) -> None:
        with pytest.raises(PayloadError, match="cursor"):
            storage.query(cursor=cursor)

    def test_a_cursor_of_other_filters_is_refused(self, shop: Storage) -> None:
        cursor = shop.query(limit=1).cursor

        assert shop.query(limit=2, cursor=cursor).snapshots
        with pytest.raises(PayloadError, match="cursor"):
            shop.query(state="cart", cursor=cursor)

    # Many at once

    def test_threads_share_it(self, storage: Storage) -> None:
        names = [f"n{number}" for number in range(40)]
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda name: storage.store(name, snapshot(name), None), names))
            found = list(pool.map(lambda name: storage.get(name).name, names))

        assert found == names


def _walk_from(storage: Storage, cursor: str) -> list[str]:
    names: list[str] = []
    while cursor:
        page = storage.query(cursor=cursor)
        names += [found.name for found in page.snapshots]
        cursor = page.cursor
    return names


class BatchStorageContract(StorageContract):
    """What workers want beside: many FSMs in one transaction."""

    @pytest.fixture
    def batch(self, storage: Storage) -> BatchStorage:
        """The storage, as workers use it."""
        assert isinstance(storage, BatchStorage)
        return storage

    def test_rows_come_back_byte_for_byte(self, batch: BatchStorage, storage: Storage) -> None:
        whole = row(
            payload=b'{ "spaces" : [1,  2.50, "\\u0000\\u00e9"] }',
            version=2**40,
            base=2**40 - 3,
            over=None,
            error=b'{"message":"no"}',
            last_job="job-1",
            token="0123",  # noqa: S106 - of a claim, and no secret
            pending=b"\x00\xff" * 500,
        )

        assert batch.store_many("default", [whole]) == {"a"}
        assert batch.load_many("default", ["a", "nobody"]) == {"a": whole}
        assert storage.get("a").payload == {"spaces": [1, 2.5, "\x00é"]}

    def test_nothing_is_stored_and_loaded_of_nobody(self, batch: BatchStorage) -> None:
        assert batch.store_many("default", []) == set()
        assert batch.load_many("default", []) == {}
        assert batch.drop_many("default", {}) == 0

    def test_those_that_lose_are_left_out_and_the_others_stand(self, batch: BatchStorage) -> None:
        batch.store_many("default", [row(name) for name in ("a", "b", "c", "d")])
        batch.store_many("default", [row("b", 2)])
        rows = [row("d", 2), row("c", 2), row("b", 2, payload=b'"lost"'), row("a", 2), row("e"), row("nobody", 2)]

        assert batch.store_many("default", rows) == {"a", "c", "d", "e"}
        found = batch.load_many("default", ["a", "b", "c", "d", "e", "nobody"])
        assert {name: one.version for name, one in found.items()} == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}
        assert found["b"].payload == row().payload

    def test_where_there_must_be_none_there_is_none(self, batch: BatchStorage) -> None:
        assert batch.store_many("default", [row()]) == {"a"}
        assert batch.store_many("default", [row()]) == set()
        assert batch.store_many("default", [row(born="2000")]) == set()

    def test_a_step_goes_on_from_its_base_and_no_other_version(self, batch: BatchStorage) -> None:
        batch.store_many("default", [row()])

        assert batch.store_many("default", [row(version=5, base=1)]) == {"a"}
        assert batch.store_many("default", [row(version=3, base=2)]) == set()
        assert batch.store_many("default", [row(version=6, base=5)]) == {"a"}

    def test_a_later_life_takes_the_place_of_the_one_that_was_loaded(self, batch: BatchStorage) -> None:
        batch.store_many("default", [row(version=7, over=None)])
        later = row(version=1, base=0, born="2000", over="1000")

        assert batch.store_many("default", [replace(later, over="1500")]) == set()
        assert batch.store_many("default", [later]) == {"a"}
        assert batch.load_many("default", ["a"]) == {"a": replace(later, over=None)}
        # Who belongs to the life that is over comes too late.
        assert batch.store_many("default", [row(version=8)]) == set()

    def test_lives_that_are_over_are_dropped_and_later_ones_stay(self, batch: BatchStorage) -> None:
        batch.store_many("default", [row("a"), row("b"), row("c", born="2000")])

        assert batch.drop_many("default", {"a": "1000", "b": "999", "c": "3000", "nobody": "1"}) == 2
        assert set(batch.load_many("default", ["a", "b", "c"])) == {"b"}
        assert batch.drop_many("default", {"a": "1000"}) == 0

    def test_a_batch_knows_nothing_of_another_namespace(self, batch: BatchStorage) -> None:
        batch.store_many("default", [row()])

        assert batch.load_many("shop", ["a"]) == {}
        assert batch.store_many("shop", [row(version=2)]) == set()
        assert batch.drop_many("shop", {"a": "1000"}) == 0
        assert set(batch.load_many("default", ["a"])) == {"a"}

    def test_a_thousand_rows_go_in_one_call(self, batch: BatchStorage) -> None:
        names = [f"n{number}" for number in range(1000)]

        assert batch.store_many("default", [row(name) for name in names]) == set(names)
        assert batch.store_many("default", [row(name, 2) for name in names]) == set(names)
        assert {one.version for one in batch.load_many("default", names).values()} == {2}

    def test_batches_that_cross_stand_in_nobodys_way(self, batch: BatchStorage) -> None:
        names = [f"n{number:02}" for number in range(30)]
        batch.store_many("default", [row(name) for name in names[:15]])
        threads = 4

        def attempt(who: int) -> set[str]:
            # Each in an order of its own: who waits for another while that waits for him would never end.
            turned = names[who * 7 :] + names[: who * 7]
            rows = [row(name, 2 if name in names[:15] else 1, payload=str(who).encode()) for name in turned]
            return batch.store_many("default", rows)

        with ThreadPoolExecutor(threads) as pool:
            won = list(pool.map(attempt, range(threads)))
        assert Counter(name for stored in won for name in stored) == Counter(names)
        found = batch.load_many("default", names)
        assert all(found[name].payload == str(who).encode() for who, stored in enumerate(won) for name in stored)

    def test_what_users_store_workers_load_and_the_reverse(self, batch: BatchStorage, storage: Storage) -> None:
        storage.store("a", snapshot(version=3), None)
        storage.store("a", snapshot(version=5), 3)
        loaded = batch.load_many("default", ["a"])["a"]
        assert (loaded.version, loaded.base, loaded.token, loaded.pending) == (5, 3, "", b"")

        step = replace(loaded, version=6, base=5, over=loaded.born, state="paying", pending=b"x")
        assert batch.store_many("default", [step]) == {"a"}
        assert (storage.get("a").state, storage.get("a").version, storage.get("a").pending) == ("paying", 6, b"x")
