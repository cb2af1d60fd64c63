"""The examples of docs/services.md do what the page says."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from fsm import config
from fsm.engine import Decision, Event, Life, step
from workers.executors import InlineExecutor

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "services.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


class AsyncBank:
    """Belongs to a loop, as the page says of pools."""

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert asyncio.get_running_loop() is self.loop

    async def charge(self, key: str, cents: int) -> str:
        assert asyncio.get_running_loop() is self.loop
        return f"receipt of {cents} for {key}"


ASYNC_ORDER = """
class AsyncOrder(Order):
    @on("pay")
    async def pay(self, t: Transition, cents: int) -> None:
        t.payload["receipt"] = await self.bank.charge(key=t.job_id, cents=cents)
"""


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> dict[str, Any]:
    """The names of the page, after all its blocks; Django is a stand-in that notes what is called."""

    @contextmanager
    def atomic() -> Iterator[None]:
        seen.append("begin")
        try:
            yield
        except BaseException as fault:
            seen.append(f"roll back: {type(fault).__name__}")
            raise
        seen.append("commit")

    django, database = ModuleType("django"), ModuleType("django.db")
    database.close_old_connections = lambda: seen.append("close old")  # type: ignore[attr-defined]
    database.transaction = ModuleType("transaction")  # type: ignore[attr-defined]
    database.transaction.atomic = atomic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django", django)
    monkeypatch.setitem(sys.modules, "django.db", database)
    names: dict[str, Any] = {"__name__": "page", "AsyncBank": AsyncBank}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"block {number}", "exec"), names)  # noqa: S102 - our own page
        if number == 0:
            exec(ASYNC_ORDER, names)  # noqa: S102 - what the page leaves to the reader
    return names


def pay(app: Any, data: bytes = b"12") -> tuple[Decision, Life]:
    """Pay an order, as a worker does."""
    executor = InlineExecutor(timed=False)
    app.open(executor.drive)
    try:
        behaviour = next(iter(app.behaviours.values()))
        life = Life("order-42", "open", b"{}", 1, "running", behaviour.definition)
        return executor.run(step(behaviour, life, Event("job", "pay", data)), is_async=behaviour.is_async), life
    finally:
        app.close()
        executor.close()


@pytest.mark.parametrize("app", ["app", "async_app", "django_app", "logged_app"])
def test_every_app_of_the_page_runs(page: dict[str, Any], app: str) -> None:
    decision, life = pay(page[app])

    assert (decision.kind, decision.state) == ("done", "paid")
    assert life.payload == {"receipt": "receipt of 12 for job"}


def test_djangos_connections_are_looked_after_and_a_transaction_is_made_for_each_transition(
    page: dict[str, Any], seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pay(page["django_app"])
    assert seen == ["close old", "begin", "commit", "close old"]
    seen.clear()

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("as told")

    monkeypatch.setattr(page["Bank"], "charge", fail)
    assert pay(page["django_app"])[0].kind == "failed"
    assert seen == ["close old", "begin", "roll back: ValueError", "close old"]


@pytest.mark.parametrize("around", ["logged", "both"])
def test_lines_of_a_library_tell_their_transition(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, around: str
) -> None:
    def charge(*_: Any, **__: Any) -> str:
        logging.getLogger("bank").warning("charging")
        return "receipt"

    monkeypatch.setattr(page["Bank"], "charge", charge)
    caplog.handler.addFilter(page["tell"])
    pay(page["App"]([page["Order"]], lifespan=page["services"], around=page[around]))
    logging.getLogger("bank").warning("idle")
    caplog.handler.removeFilter(page["tell"])

    told = [(record.getMessage(), vars(record)["transition"]) for record in caplog.records]
    assert told == [("charging", "order-42 pay"), ("idle", "-")]


def test_the_table_of_settings_is_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(--[\w-]+)`[^|]*)?\s?\| `(\w+)` \| (?:`([^`]+)`)?", PAGE, re.MULTILINE)
    shown: Callable[[Any], str] = lambda value: "on" if value is True else str(value) if value else ""  # noqa: E731

    assert [(name, variable, default) for name, _, variable, default in rows] == [
        (setting.name, setting.variable, shown(setting.default)) for setting in config.SETTINGS.values()
    ]
    assert all(option in ("", config.SETTINGS[name].option) for name, option, _, _ in rows)
