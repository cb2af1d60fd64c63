"""Faults that are ordered for another process: what may be ordered, and that it arrives as it was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fsm import ConfigError
from fsm.testing import FaultPoint
from fsm.testing.faults import VARIABLE, ordered


def test_what_is_ordered_arrives_as_it_was_meant(tmp_path: Path) -> None:
    faults = [
        FaultPoint("after claim", "kill"),
        FaultPoint("before handler", "delay", seconds=0.5, nth=3, name="ö: 'x'\n"),
        FaultPoint("after commit sent", "stop", once=tmp_path / "done"),
    ]

    arrived = ordered(FaultPoint.environment_of(faults)[VARIABLE])

    assert arrived[:2] == faults[:2]
    assert arrived[2] == FaultPoint("after commit sent", "stop", once=str(tmp_path / "done"))


def test_one_fault_is_a_list_of_one() -> None:
    fault = FaultPoint("after commit", "kill", nth=2)

    assert fault.environment() == FaultPoint.environment_of([fault])


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"point": "in handler", "action": "kill"}, "FaultPoint(point): 'in handler' is none of after claim, before"),
        ({"point": ["after claim"], "action": "kill"}, "FaultPoint(point)"),
        ({"point": "after claim", "action": "die"}, "FaultPoint(action): 'die' is none of kill, stop, delay"),
        ({"point": "after claim", "action": "delay"}, "FaultPoint(seconds)"),
        ({"point": "after claim", "action": "stop", "seconds": 1}, "lets it go on as well"),
        ({"point": "after claim", "action": "delay", "seconds": "1s"}, "FaultPoint(seconds)"),
        ({"point": "after claim", "action": "delay", "seconds": float("nan")}, "FaultPoint(seconds)"),
        ({"point": "after claim", "action": "kill", "nth": 0}, "FaultPoint(nth)"),
        ({"point": "after claim", "action": "kill", "nth": True}, "FaultPoint(nth)"),
        ({"point": "after claim", "action": "kill", "name": 7}, "FaultPoint(name)"),
        ({"point": "after claim", "action": "kill", "once": 7}, "FaultPoint(once)"),
    ],
)
def test_a_wrong_fault_is_refused_by_what_is_wrong_with_it(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FaultPoint(**wrong)

    assert what in str(caught.value)


@pytest.mark.parametrize(
    "text", ["kill", "{}", "[7]", '[{"point": "after claim"}]', '[{"point":"after claim","action":"kill","when":1}]']
)
def test_a_variable_that_was_not_written_by_a_fault_point_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="FSM_FAULTS"):
        ordered(text)
