from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fsm.errors import ConfigError
from fsm.machine.durations import duration_ms, duration_text, span_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (2, 2_000),
        (2.5, 2_500),
        (timedelta(minutes=1, milliseconds=5), 60_005),
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("24h", 86_400_000),
        ("1d12h", 129_600_000),
        ("2w", 1_209_600_000),
        ("1.5s", 1_500),
        ("1m500ms", 60_500),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_text(value: Any, expected: int) -> None:
    assert duration_ms(value, "delay") == expected


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        10**400,
        True,
        None,
        timedelta(seconds=-1),
        "",
        " ",
        "30",
        "s",
        "5y",
        "1d 12h",
        "-5s",
        "5S",
        "٣s",
        [],
        "9" * 400 + "s",
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_setting(value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        duration_ms(value, "Settings(timeout)")
    assert raised.value.setting == "Settings(timeout)"
    assert "1d12h" in str(raised.value)


@pytest.mark.parametrize("milliseconds", [0, 1, 999, 1_000, 61_001, 86_400_000, 694_861_001])
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    assert duration_ms(duration_text(milliseconds), "delay") == milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (0.9, "0s"), (61, "1m1s"), (3600, "1h"), (90_061, "1d1h"), (59, "59s")]
)
def test_people_are_told_the_two_largest_units(seconds: float, text: str) -> None:
    assert span_text(int(seconds * 1000)) == text
