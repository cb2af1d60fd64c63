"""The examples of docs/time.md do what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "time.md").read_text("utf-8")


def test_the_tests_of_the_page_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {}
    for name, text in re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, f"docs/time.md: {name}.py", "exec"), vars(module))  # noqa: S102 - our own page
        names |= vars(module)

    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
