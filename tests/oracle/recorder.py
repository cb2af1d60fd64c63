"""A plugin of pytest that notes every text which the tests have read as a diagram, into the file in DIAGRAMS_SEEN."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from fsm.machine.draft import Draft

# By its name: `fsm.machine.parse` is the function, not its module.
_READER = importlib.import_module("fsm.machine.parse")
_SEEN: dict[str, None] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Look over the shoulder of `parse`."""
    read = _READER._read

    def noting(draft: Draft) -> None:
        _SEEN["\n".join(draft.lines)] = None
        read(draft)

    _READER._read = noting


def pytest_unconfigure(config: pytest.Config) -> None:
    """Write down what was seen."""
    Path(os.environ["DIAGRAMS_SEEN"]).write_text(json.dumps(list(_SEEN)), encoding="utf-8")
