"""The benchmark in its small form: that it measures what it says, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from bench import machine, meter, report
from bench.lane import Lane
from bench.worker import ROOT, BenchError

if TYPE_CHECKING:
    import redis

    from fsm.store.embedded import EmbeddedServer

_FSMS = 200
_SMALL = 10
_SEVEN = [
    "ours_per_s",
    "rq_simple_per_s",
    "ratio",
    "enqueue_many_per_s",
    "redis_us",
    "python_us",
    "idle_fsm_bytes",
]
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.quick", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def small_run(redis_server: EmbeddedServer) -> subprocess.CompletedProcess[str]:
    """One run with 200 FSMs, on a server of its own; `redis_server` says loudly where there is no server program."""
    return _bench("--json", "--fsms", str(_FSMS), "--rounds", "1")


@pytest.fixture
def result(small_run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert small_run.returncode == 0, small_run.stderr
    parsed: dict[str, Any] = json.loads(small_run.stdout)
    return parsed


def _span(began_ms: int, ended_ms: int) -> tuple[datetime, datetime]:
    return _BEGIN + timedelta(milliseconds=began_ms), _BEGIN + timedelta(milliseconds=ended_ms)


def _round(fsms: int, ours: float, rq: float) -> report.Round:
    return report.Round(fsms, ours, rq, enqueue_per_s=1.0, redis_us=1.0, server_us=1.0, python_us=1.0)


def test_it_prints_one_object_with_the_seven_figures_first(result: dict[str, Any]) -> None:
    assert list(result)[:7] == _SEVEN


def test_every_figure_is_a_number_above_zero(result: dict[str, Any]) -> None:
    about = result.pop("about")
    if sys.platform != "linux":
        result = {name: value for name, value in result.items() if not name.startswith("python_us")}
    assert all(isinstance(value, int | float) for value in result.values()), result
    # So few FSMs weigh no more than the buffers of clients, which Redis frees when it likes.
    result.pop("idle_fsm_bytes")
    assert all(value >= 0 for value in result.values()), result
    # The worker's µs come in ticks of 10 ms, so a run as short as this may show none.
    assert all(result[name] > 0 for name in _SEVEN if name not in ("python_us", "idle_fsm_bytes")), result
    assert about["rounds"] == 1


def test_all_events_were_applied(result: dict[str, Any]) -> None:
    """Ten each in the small size to begin with, one each in the large size, ten each in the small size."""
    assert result["about"]["events"] == result["about"]["applied"] == 10 * _SMALL + _FSMS + 10 * _SMALL


def test_it_says_on_what_it_was_measured(result: dict[str, Any], raw_redis: redis.Redis) -> None:
    about = result["about"]
    assert about["redis_server"] == raw_redis.info("server")["redis_version"]
    assert {"processor", "cores", "python", "rq", "redis", "commit", "seconds"} <= set(about)


def test_progress_goes_to_stderr(small_run: subprocess.CompletedProcess[str]) -> None:
    assert "round 1" in small_run.stderr
    assert "round 1" not in small_run.stdout


def test_a_wrong_option_ends_with_code_2(redis_server: EmbeddedServer) -> None:
    done = _bench("--fsms", "0")
    assert done.returncode == 2
    assert "--fsms" in done.stderr


def test_the_payload_has_100_bytes() -> None:
    assert len(orjson.dumps(machine.new_payload())) == 100


def test_a_rate_leaves_out_what_ended_last() -> None:
    # 30 jobs in three commits; the last of them is still being written at 200 ms.
    spans = [_span(0, 100)] * 10 + [_span(100, 150)] * 10 + [_span(150, 200)] * 10
    assert meter.rate(spans) == pytest.approx(100)


def test_a_backlog_of_one_commit_is_counted_whole() -> None:
    assert meter.rate([_span(0, 100)] * 10) == pytest.approx(100)


def test_a_job_that_has_not_ended_is_no_figure(raw_redis: redis.Redis) -> None:
    raw_redis.hset("rq:job:waits", mapping={"started_at": "2026-01-01T00:00:00.000000Z"})
    with pytest.raises(BenchError, match="job waits has not ended"):
        meter.take_spans(raw_redis, ["waits"])


@pytest.mark.parametrize(
    ("count", "version", "told"),
    [
        (0, 0, "0 were applied in 0 versions"),
        (2, 2, "2 were applied in 2 versions"),
        # Each seen to pass with its half of the comparison removed from `Lane.check`.
        (0, 1, "0 were applied in 1 versions"),
        (1, 2, "1 were applied in 2 versions"),
    ],
)
def test_an_event_that_was_lost_or_applied_twice_is_no_figure(
    redis_url: str, raw_redis: redis.Redis, count: int, version: int, told: str
) -> None:
    with Lane(redis_url, workers=0) as lane:
        lane.populate(["fsm"])
        lane.send(["fsm"])
        payload = machine.new_payload()
        payload["count"] += count
        written = {"payload": orjson.dumps(payload), "version": version}
        raw_redis.hset(lane.client.keys.snapshot("fsm"), mapping=written)
        with pytest.raises(BenchError, match=f"1 events were sent, and {told}"):
            lane.check()
        payload["count"] = machine.FIRST_COUNT + 1
        raw_redis.hset(lane.client.keys.snapshot("fsm"), mapping={"payload": orjson.dumps(payload), "version": 1})
        assert lane.check() == 1


def test_a_ratio_is_made_of_neighbours_and_the_slower_size_is_shown() -> None:
    # The machine halves its speed in the second round: the ratios do not notice, a ratio of medians would.
    measured = report.Measured(
        [_round(1000, 8000, 100), _round(30000, 4000, 100), _round(1000, 4000, 50), _round(30000, 2000, 50)], 400.0
    )
    found = report.figures(measured)
    assert (found["ratio_1000"], found["ratio_30000"], found["ratio"]) == (80.0, 40.0, 40.0)
    assert (found["ours_1000_per_s"], found["ours_30000_per_s"], found["ours_per_s"]) == (6000, 3000, 3000)


def test_a_host_that_does_not_tell_processor_time_shows_none() -> None:
    rounds = [report.Round(10, 1.0, 1.0, enqueue_per_s=1.0, redis_us=1.0, server_us=1.0, python_us=None)]
    assert report.figures(report.Measured(rounds))["python_us"] is None
