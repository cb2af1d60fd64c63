"""The examples of docs/storages.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fsm.storage.protocol import FILTERS
from fsm.testing.storage import StorageContract

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "storages.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def run(name: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(BLOCKS[name], f"docs/storages.md: {name}.py", "exec"), names)  # noqa: S102 - our own page
    return names


def test_a_storage_is_used_by_hand_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    run("shelf")


def test_the_test_of_the_page_is_the_contract() -> None:
    made = run("test_mine")["TestMine"]

    assert isinstance(made, type)
    assert issubclass(made, StorageContract)


def test_the_page_names_all_filters() -> None:
    assert [name for name in FILTERS if f"`{name}`" not in PAGE] == []


def test_the_page_names_all_columns() -> None:
    tables = pytest.importorskip("fsm.storage.tables")

    assert [column.name for column in tables.tables("t")[1].c if f"`{column.name}`" not in PAGE] == []
