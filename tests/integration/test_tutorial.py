"""The tutorial, as a reader follows it: its files are written into an empty folder, its commands typed there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fsm import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<text>.*?)^```\s*$", re.DOTALL | re.MULTILINE)
# The reader makes an environment first; this one runs in it already.
INSTALLING = ("pip ", "python3 -m venv", "mkdir ")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; the Redis that was started in it is stopped."""
    yield tmp_path
    with Client(f"embedded://{tmp_path}/data") as client:
        client.redis.shutdown(nosave=True)


def type_in(folder: Path, text: str) -> str:
    """Run the commands of one block, as a person types them; gives all that was printed."""
    lines = [line for line in text.splitlines() if not line.startswith(INSTALLING)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FSM_", "PYTEST_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = "\n".join(["set -m", *lines, "wait"])
    # Into a file: a Redis that was started here goes on, and would keep a pipe open.
    said = folder / "said.txt"
    with said.open("w") as out:
        subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, stdout=out, stderr=out, timeout=90, check=False
        )
    return said.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_reader_who_types_it_gets_what_it_says(folder: Path) -> None:
    said = []
    for block in FENCE.finditer((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        kind, _, name = block["info"].partition(" ")
        if name:
            (folder / name).write_text(block["text"], encoding="utf-8")
        elif kind == "sh":
            said.append(type_in(folder, block["text"]))
    together = "\n".join(said)

    assert re.search(r"^[23] passed", together, re.MULTILINE), together
    assert "allowed here: solve" in together
    assert re.search(r"state: +working", together), together
    assert re.search(r"printer\s+Ticket\s+solved", together), together
    assert re.search(r"^(?:shipped|cart) Cart\(items=\['tea'\]", together, re.MULTILINE), together
    tests = type_in(folder, "python -m pytest -q")
    assert "3 passed" in tests, tests
