"""The points of a worker's work: what is armed, when it happens, and that nothing does where nothing is armed."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsm import ConfigError
from fsm.testing import FaultPoint
from workers import points


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    points.arm({})


def happened(faults: list[FaultPoint], *reached: tuple[str, list[str]]) -> list[int]:
    """Which of the visits took their time, where each fault is a delay."""
    points.arm(FaultPoint.environment_of(faults))
    assert points.armed is not None
    took = []
    for number, (point, names) in enumerate(reached):
        begin = time.monotonic()
        points.armed.reach(point, names)  # type: ignore[arg-type] # a word of those
        if time.monotonic() - begin >= 0.05:
            took.append(number)
    return took


def test_nothing_is_armed_where_nothing_is_ordered() -> None:
    for environment in ({}, {"FSM_FAULTS": ""}, {"FSM_FAULTS": "[]"}):
        points.arm(environment)

        assert points.armed is None


def test_a_fault_happens_at_its_point_and_once() -> None:
    fault = FaultPoint("after claim", "delay", seconds=0.05)
    visits = [("before commit", ["a"]), ("after claim", ["a"]), ("after claim", ["a"])]

    assert happened([fault], *visits) == [1]


def test_a_fault_happens_at_the_nth_visit_with_its_fsm() -> None:
    fault = FaultPoint("after claim", "delay", seconds=0.05, nth=2, name="a")
    visits = [("after claim", names) for names in (["a", "b"], ["b"], ["c", "a"], ["a"])]

    assert happened([fault], *visits) == [2]


def test_a_fault_that_happened_once_does_not_happen_in_the_next_process(tmp_path: Path) -> None:
    fault = FaultPoint("after claim", "delay", seconds=0.05, once=tmp_path / "done")

    assert happened([fault], ("after claim", ["a"])) == [0]
    assert happened([fault], ("after claim", ["a"])) == []


def test_two_faults_of_one_point_are_counted_each_by_itself() -> None:
    faults = [FaultPoint("after claim", "delay", seconds=0.05, nth=nth) for nth in (1, 3)]

    assert happened(faults, *[("after claim", ["a"])] * 4) == [0, 2]


def test_a_worker_that_is_armed_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fsm.worker"):
        points.arm(FaultPoint("after claim", "kill", nth=7).environment())

    assert "told by FSM_FAULTS to kill itself after claim (time 7)" in caplog.text


def test_a_process_that_is_given_a_wrong_fault_does_not_begin() -> None:
    with pytest.raises(ConfigError, match="FSM_FAULTS"):
        points.arm({"FSM_FAULTS": "kill"})


@pytest.mark.parametrize(("action", "code"), [("kill", -9), ("delay", 0)])
def test_a_fault_kills_its_own_process(action: str, code: int) -> None:
    script = "import os; from workers import points; points.arm(os.environ); points.armed.reach('after claim', ['a'])"
    fault = FaultPoint("after claim", action, seconds=0.01 if action == "delay" else 0)  # type: ignore[arg-type] # a word

    done = subprocess.run([sys.executable, "-c", script], env=fault.environment(), check=False, stderr=subprocess.PIPE)

    assert done.returncode == code
