"""The examples of docs/deploys.md do what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fsm import Client

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deploys.md").read_text("utf-8")


def test_the_tests_of_the_page_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = []
    for name, text in re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, f"docs/deploys.md: {name}.py", "exec"), vars(module))  # noqa: S102 - our own page
        tests += [test for name, test in vars(module).items() if name.startswith("test_")]

    assert len(tests) == 1
    for test in tests:
        test()
    new = vars(sys.modules["orders_2"])["Order"]
    with Client("memory://the-page-of-deploys") as client:
        assert vars(sys.modules["deploy_gate"])["may_be_deployed"](client, new)
