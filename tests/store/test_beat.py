from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.store import presence
from fsm.store.requests import Request, run

if TYPE_CHECKING:
    from tests.store.conftest import Store


def beat(store: Store, done: int = 0, failed: int = 0, seconds: float = 0.0, number: int = 1) -> list[bytes]:
    keys = (store.keys.workers, store.keys.rq_worker("w1"))
    return run(store.redis, Request(list, "beat", keys, ["w1", "default", done, failed, seconds, number]))


def test_beaten_notes_the_time_of_redis(store: Store) -> None:
    seconds, _ = store.redis.time()

    assert beat(store) == [b"BEATEN"]
    assert 0 <= store.redis.zscore(store.keys.workers, "w1") - seconds * 1000 < 60_000


def test_counters_are_added_to_rqs_record(store: Store) -> None:
    store.redis.hset("rq:worker:w1", mapping={"birth": "2026", "successful_job_count": 5})

    beat(store, done=2, failed=1, seconds=0.5)
    record = store.redis.hgetall("rq:worker:w1")
    assert (record[b"successful_job_count"], record[b"failed_job_count"]) == (b"7", b"1")
    assert float(record[b"total_working_time"]) == 0.5
    assert record[b"fsm"] == b"default"


def test_a_record_that_is_gone_is_not_made_again(store: Store) -> None:
    beat(store, done=2)

    assert not store.redis.exists("rq:worker:w1")


def test_each_beat_is_counted(store: Store) -> None:
    store.redis.hset("rq:worker:w1", "birth", "2026")
    for number in (7, 8, 9):
        beat(store, done=2, number=number)

    assert store.redis.hget("rq:worker:w1", "successful_job_count") == b"6"


def test_repeated_it_counts_the_worker_and_its_work_once_also_behind_a_newer_one(store: Store) -> None:
    # Seen to fail without the comparison of numbers: what a worker did was counted as often as a reply was lost.
    store.redis.hset("rq:worker:w1", "birth", "2026")
    for number in (7, 7, 8, 7):
        beat(store, done=2, seconds=0.5, number=number)

    assert store.redis.zcard(store.keys.workers) == 1
    record = store.redis.hgetall("rq:worker:w1")
    assert (record[b"successful_job_count"], float(record[b"total_working_time"])) == (b"4", 1.0)


def test_a_number_that_was_edited_by_hand_stops_no_heartbeat(store: Store) -> None:
    store.redis.hset("rq:worker:w1", mapping={"birth": "2026", "beat": "seven"})

    assert beat(store) == [b"BEATEN"]


@pytest.mark.parametrize(
    ("record", "is_stranger"), [({"birth": "2026"}, True), ({"birth": "2026", "life": "ab12"}, False), ({}, False)]
)
def test_a_worker_of_ours_is_known_as_one_before_its_first_beat(
    store: Store, record: dict[str, str], is_stranger: bool
) -> None:
    # Seen to fail while it was known by what `beat` writes: workers that were killed between birth and beat, and those
    # that were just starting, were warned of as strangers.
    if record:
        store.redis.hset("rq:worker:w1", mapping=record)

    assert run(store.redis, presence.is_stranger("rq:worker:w1")) is is_stranger
