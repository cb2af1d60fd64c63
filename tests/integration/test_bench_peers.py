"""Throughput beside other queues in its small form: who is measured, who is missing, and what is no figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from bench import machine
from bench.peers import drain
from bench.peers.catalogue import PEERS
from bench.peers.door import entity
from bench.peers.environment import found
from bench.worker import BenchError

if TYPE_CHECKING:
    import redis

    from tests.integration.conftest import Small


@pytest.fixture(scope="module")
def contest(small: Small) -> dict[str, Any]:
    """The throughput bench in its small form, with what of the peers needs nothing that is not installed."""
    return small("throughput")


def test_throughput_measures_ours_and_rq_side_by_side(contest: dict[str, Any]) -> None:
    assert {"against_rq_simple", "ours_per_s_200", "ours_per_s_20"} == set(contest["figures"])
    assert all(value > 0 for value in contest["figures"].values())
    rows = [(row["name"], row["setting"].get("entities")) for row in contest["rows"] if "command" not in row["setting"]]
    assert rows[:4] == [("fsm-workers", 200), ("fsm-workers", 20), ("RQ SimpleWorker", 200), ("RQ SimpleWorker", 20)]
    assert all(row["median"] > 0 for row in contest["rows"])


def test_throughput_tells_each_peer_that_was_not_measured_and_why(contest: dict[str, Any]) -> None:
    measured = {row["name"] for row in contest["rows"]}
    for peer in PEERS:
        assert (peer.name in measured) != bool(contest["missing"].get(peer.name)), peer.name


def test_the_ceiling_has_the_commands_of_both_halves(contest: dict[str, Any]) -> None:
    halves = {row["setting"]["half"]: row["more"]["commands"] for row in contest["rows"] if row["name"] == "ceiling"}
    assert halves == {"send": 6, "claim and commit": 18}


def test_a_peer_without_an_environment_is_missing_with_what_to_do() -> None:
    assert found("no-such-queue").missing == "no-such-queue is not installed: run `make bench-peers`"


def test_the_rate_of_a_peer_leaves_out_its_start_and_its_tail() -> None:
    # It starts for three seconds, does 40 a second for two, and loses a second over the last job.
    looks = [(0.0, 0), (3.0, 10), (4.0, 50), (5.0, 90), (6.0, 91)]
    assert drain.rate(looks, 91) == pytest.approx(40)


def test_a_job_that_a_peer_lost_is_no_figure(
    raw_redis: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with `if lost:` taken out of `Book.check`.
    monkeypatch.setattr(drain, "_LATE_S", 0.0)
    book = drain.Book(redis_url, 3)
    try:
        book.next(3, 4)
        done = {0: 3, 1: 1}
        for number, times in done.items():
            payload = orjson.dumps({"count": machine.FIRST_COUNT + times})
            raw_redis.hset(f"bench:entity:{entity(number)}", mapping={"state": "right", "payload": payload})
        with pytest.raises(BenchError, match=r"1 entities .*entity-000002 \(1 jobs, 0 done\)"):
            book.check()
        raw_redis.hset(f"bench:entity:{entity(2)}", mapping={"state": "right", "payload": payload})
        # The first was sent two jobs and did three: at least once is what such queues promise, and it is told.
        assert book.check() == 1
    finally:
        book.close()
