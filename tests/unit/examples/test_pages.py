"""Each example has a page, and its page shows the diagram that the example runs."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from examples.__main__ import found
from fsm import Machine, parse

PAGES = Path(__file__).resolve().parents[3] / "docs" / "examples"


def machines(name: str) -> list[type[Machine[Any]]]:
    values = vars(importlib.import_module(f"examples.{name}.machine")).values()
    return [
        value for value in values if isinstance(value, type) and issubclass(value, Machine) and value is not Machine
    ]


@pytest.mark.parametrize("name", found())
def test_the_page_of_an_example_shows_its_diagram_and_how_to_run_it(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    diagrams = re.findall(r"^```mermaid\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    # Whether a machine has to have an end is told by its settings.
    shown = {parse(diagram, endless=True).fingerprint for diagram in diagrams}
    assert {machine.graph.fingerprint for machine in machines(name)} <= shown
    assert f"python -m examples.{name} " in page
    assert f"fsm worker --app examples.{name}" in page
