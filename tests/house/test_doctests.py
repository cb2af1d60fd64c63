"""Every example in a docstring does what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("fsm", "workers")
    for path in (ROOT / package).rglob("*.py")
)
# The rooms whose functions are pure must show what they do.
SHOWN = ("fsm.machine", "fsm.engine")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name}: see the output above"


@pytest.mark.parametrize("room", SHOWN)
def test_a_pure_room_has_examples(room: str) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [name for name in MODULES if name == room or name.startswith(f"{room}.")]

    examples = [
        example
        for name in modules
        for found in finder.find(importlib.import_module(name))
        for example in found.examples
    ]

    assert modules
    assert examples
