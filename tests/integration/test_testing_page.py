"""docs/testing.md, as a reader would try it: its files in a folder, and pytest there."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fsm.store.embedded import EmbeddedServer

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def test_every_block_of_python_is_a_file() -> None:
    assert len(FILES) == PAGE.count("```python\n") == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "needs", "passed"),
    [
        ("test_order.py", (), 5),
        ("test_walks.py", (), 1),
        ("test_api.py", ("fastapi", "httpx2"), 3),
        ("test_views.py", ("django",), 2),
        ("test_whole.py", (), 2),
        ("test_faults.py", (), 1),
        ("test_time.py", (), 2),
    ],
)
def test_the_tests_of_the_page_pass(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    test: str,
    needs: tuple[str, ...],
    passed: int,
) -> None:
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"this part of the page needs {package}")
    if test in {"test_whole.py", "test_faults.py", "test_time.py"}:
        _: EmbeddedServer = request.getfixturevalue("redis_server")
    for variable in ("FSM_URL", "FSM_NAMESPACE", "FSM_APP"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, text in FILES.items():
        if name == test or not name.startswith("test_"):
            (pytester.path / name).write_text(text, "utf-8")
    is_installed = any(one.value == "fsm.testing.plugin" for one in entry_points(group="pytest11"))

    result = pytester.runpytest_subprocess(*(() if is_installed else ("-p", "fsm.testing.plugin")), test, timeout=100)

    result.assert_outcomes(passed=passed)
