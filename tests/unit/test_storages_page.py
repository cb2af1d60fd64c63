"""The examples of docs/storages.md do what the page says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fsm import Owner
from fsm.storage.protocol import FILTERS
from fsm.testing import trial
from fsm.testing.storage import StorageContract, snapshot

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "storages.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def run(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[name], f"docs/storages.md: {name}.py", "exec"), names)  # noqa: S102 - our own page
    return names


def test_a_storage_is_used_by_hand_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    run("shelf")


def test_a_payload_keeps_a_row_of_its_own_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = run("purse")
    purse = trial(page["Shopper"], payload=page["Purse"](5))
    purse.send("pay", 2)
    with page["Shopper"].storage as storage:
        storage.init()
        engine = storage._database.engines.engine
        page["purses"].create(engine)
        assert storage.store("a", snapshot("a", payload={"coins": purse.payload.coins}, state="out"), None)
        with engine.begin() as connection:
            assert connection.execute(sa.select(page["purses"])).all() == [("a", 3, "out")]
            connection.execute(sa.update(page["purses"]).values(coins=7))
        assert storage.get("a").payload == {"coins": 7}


def test_the_page_names_what_a_payload_is_told_of_its_fsm() -> None:
    assert [field.name for field in fields(Owner) if f"`{field.name}`" not in PAGE] == []


def test_the_test_of_the_page_is_the_contract() -> None:
    made = run("test_mine")["TestMine"]

    assert isinstance(made, type)
    assert issubclass(made, StorageContract)


def test_the_page_names_all_filters() -> None:
    assert [name for name in FILTERS if f"`{name}`" not in PAGE] == []


def test_the_page_names_all_columns() -> None:
    tables = pytest.importorskip("fsm.storage.tables")

    assert [column.name for column in tables.tables("t")[1].c if f"`{column.name}`" not in PAGE] == []
