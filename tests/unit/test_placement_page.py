"""The examples of docs/placement.md do what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fsm import Client

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "placement.md").read_text("utf-8")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of the page, by name."""
    found = {}
    for name, text in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL):
        module = found[name] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, f"docs/placement.md: {name}.py", "exec"), vars(module))  # noqa: S102 - our own page
    return found


def test_fsms_go_to_the_queues_of_their_hosts(modules: dict[str, ModuleType]) -> None:
    racks = modules["racks"]
    with Client("memory://", app=racks.app, cluster=racks.racks) as client:
        modules["plant"].begin(client)

        assert client.state("sensor-9").queue == f"fsm~{client.whois('sensor-9')}"
        assert client.state("pump-1").queue == "fsm@edge-7"


def test_a_customers_fsms_are_run_together(modules: dict[str, ModuleType]) -> None:
    racks = modules["racks"].racks

    assert racks.nodes() == ["edge-1", "edge-2", "edge-3"]
    assert len({racks.whois(f"ada.sensor-{n}") for n in range(50)}) == 1
    assert len({racks.whois(f"customer-{n}.sensor") for n in range(50)}) == 3
    assert modules["racks"].app.cluster is racks
