"""Loggers are named `fsm.…`: one line in a logging configuration speaks of all that we write."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for package in ("fsm", "workers", "examples") for path in (ROOT / package).rglob("*.py"))
# Functions of the module itself write to the root logger, which is not ours.
ROOT_LOGGER = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def faults(source: str) -> Iterator[str]:
    """Calls that write elsewhere, or could."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in {"logging.getLogger", "getLogger"}:
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if not isinstance(name, str) or not f"{name}.".startswith("fsm."):
                yield ast.unparse(node)
        elif called.startswith("logging.") and called.removeprefix("logging.") in ROOT_LOGGER:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_loggers_of_a_module_are_ours(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


def test_there_are_loggers() -> None:
    assert sum("getLogger(" in path.read_text(encoding="utf-8") for path in MODULES) > 5


@pytest.mark.parametrize(
    "line",
    [
        "logging.getLogger()",
        "logging.getLogger(__name__)",
        "logging.getLogger('rq.worker')",
        "logging.getLogger('fsmx')",
        "logging.info('x')",
    ],
)
def test_another_logger_is_found_out(line: str) -> None:
    assert list(faults(line)) == [line]


@pytest.mark.parametrize("line", ["logging.getLogger('fsm')", "getLogger('fsm.worker')", "log.info('x')"])
def test_one_of_ours_is_not(line: str) -> None:
    assert list(faults(line)) == []
