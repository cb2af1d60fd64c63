"""The larger benchmarks in their small form: that they measure what they say, not how fast anything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench import arrivals, sampler

if TYPE_CHECKING:
    from tests.integration.conftest import Small

_FIGURES = {
    "enqueue": {
        "bulk_per_s",
        "single_per_s",
        "threads_per_s",
        "start_many_per_s",
        "rq_single_per_s",
        "ping_per_s",
        "bulk_ratio",
    },
    "latency": {
        "p50_ms_at_100",
        "p99_ms_at_100",
        "rq_p50_ms_at_100",
        "ping_p99_ms_at_100",
        "drained_per_s",
        "calls_per_s",
    },
    "overhead": {
        "redis_us_1",
        "redis_us_10",
        "commands_per_transition_1",
        "job_record_bytes",
    },
    "timers": {
        "p50_ms_at_1000",
        "p99_ms_at_1000",
        "p99_ms_in_a_sleep",
        "timer_bytes",
        "swing_us_timer_among_all",
        "among_all_against_alone",
    },
    # Those of databases are there where workers can use one, and there is one.
    "persistence": {
        "transition_us_redis_100",
        "single_fsync_per_s",
        "threads_replicas_1_per_s",
        "bulk_memory_per_s",
        "saved_per_s",
        "restored_with_mail_per_s",
        "save_peak_more_mb",
        "largest_query_page_ms",
    },
}


@pytest.mark.parametrize("name", _FIGURES)
def test_a_small_run_gives_all_its_figures(name: str, small: Small) -> None:
    said = small(name)
    assert _FIGURES[name] <= set(said["figures"])
    assert all(said["figures"][figure] > 0 for figure in _FIGURES[name]), said["figures"]


class _Clock:
    """A clock that stands still but for sleeps, and for what a test adds."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_latency_counts_from_the_schedule_and_not_from_when_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail with `now` in the place of the scheduled times: what hung for a second cost nobody anything.
    clock = _Clock()
    monkeypatch.setattr(arrivals, "time", clock)
    sends = arrivals.due([0.1, 0.2, 0.3, 2.0])
    first, _ = next(sends)
    clock.now += 1.0
    second, sent_at = next(sends)
    third, _ = next(sends)
    assert (len(first), len(second), len(third)) == (1, 2, 1)
    assert [sent_at - at for at in second] == pytest.approx([0.9, 0.8])
    assert third[0] - first[0] == pytest.approx(1.9)


def test_a_schedule_is_the_same_in_every_run_and_keeps_its_rate() -> None:
    times = arrivals.schedule(100, 5000, "seed")
    assert times == arrivals.schedule(100, 5000, "seed")
    assert times == sorted(times)
    assert times[-1] == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize(("share", "value"), [(50, 50), (90, 90), (99, 99), (100, 100)])
def test_a_percentile_is_one_of_the_values(share: int, value: int) -> None:
    assert arrivals.percentile(list(range(1, 101)), share) == value


def test_a_sample_is_charged_to_the_innermost_room() -> None:
    run = ("/srv/fsm/workers/activation.py", "Activation.run")
    pack = ("/srv/site-packages/redis/connection.py", "HiredisRespSerializer.pack")
    own = ("/usr/lib/python3.11/logging/__init__.py", "Logger.info")
    assert sampler.group_of((own, run)) == ("activation", "activation.Activation.run")
    assert sampler.group_of((pack, run))[0] == "redis-py, hiredis and the socket"
    assert sampler.group_of((own,)) == ("the rest", "")
    groups = sampler.by_group({(run,): 2, (pack, run): 3})
    assert {group: functions.total() for group, functions in groups.items()} == {
        "redis-py, hiredis and the socket": 3,
        "activation": 2,
    }


def _rates(said: dict[str, Any]) -> dict[str, Any]:
    """See that each of its rates is above zero."""
    assert said["unit"] == "transitions a second"
    assert all(value > 0 for row in said["rows"] for value in row["values"]), said["rows"]
    return said


def test_scale_measures_sizes_a_backlog_a_hot_fsm_and_workers(small: Small) -> None:
    """It ends with an error unless all that was sent was applied."""
    said = _rates(small("scale"))
    assert {row["name"] for row in said["rows"]} >= {"a sample of all FSMs", "a backlog at its end", "one hot FSM"}
    # The figure that has a target is that of a million.
    assert {"hot_fsm_per_s", "two_workers_against_one", "largest_against_smallest"} <= set(said["figures"])
    assert "million_against_thousand" not in said["figures"]
    assert {"largest_count_ms", "largest_random_ms", "largest_whois_ms", "largest_page_of_all_ms"} <= set(
        said["figures"]
    )


def test_slow_measures_handlers_that_wait_compute_and_linger(small: Small) -> None:
    said = _rates(small("slow"))
    assert {"concurrency", "workers"} == {key for row in said["rows"] for key in row["setting"]}
    assert {"sync_50ms_at_16_per_s", "async_50ms_at_16_per_s", "two_workers_time_share"} <= set(said["figures"])
