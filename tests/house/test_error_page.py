"""The table of docs/errors.md has every error, with the status code that the example's web applications answer."""

import inspect
import re
from pathlib import Path

import pytest

from examples.onboarding import http
from fsm import errors

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(?P<name>\w+)` \|(?P<told>.*)\| (?P<status>[^|]*) \|$", re.MULTILINE)
TREE = [found for found in vars(errors).values() if inspect.isclass(found) and found.__module__ == errors.__name__]
ROWS = {match["name"]: match for match in ROW.finditer((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))}
SAMPLES = {
    "str": "x",
    "int": 1,
    "float": 1.0,
    "tuple[str, ...]": (),
    "dict[str, Any] | None": {},
}


def sample(cls: type[errors.FSMError]) -> errors.FSMError:
    """One of this class."""
    if cls.__init__ is Exception.__init__:
        return cls("x")
    return cls(*(SAMPLES[str(field.annotation)] for field in inspect.signature(cls).parameters.values()))


def test_every_error_is_in_the_table_in_the_order_of_the_tree() -> None:
    assert list(ROWS) == [cls.__name__ for cls in TREE]


@pytest.mark.parametrize("cls", TREE)
def test_the_table_tells_the_status_code_that_is_answered(cls: type[errors.FSMError]) -> None:
    status = ROWS[cls.__name__]["status"]

    assert str(http.status_of(sample(cls))) == status.partition(",")[0]


def test_a_time_out_without_an_event_is_told_with_its_own_code() -> None:
    assert http.status_of(errors.CallTimeoutError("ann", "purge", "", 1.0)) == 504
    assert "504 without a job" in ROWS["CallTimeoutError"]["status"]


@pytest.mark.parametrize("cls", [cls for cls in TREE if cls.__subclasses__() == []])
def test_each_error_is_told_in_full(cls: type[errors.FSMError]) -> None:
    cells = [cell.strip() for cell in ROWS[cls.__name__]["told"].split("|")]

    assert len(cells) == 3
    assert all(cells)
