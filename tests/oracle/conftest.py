"""Mermaid itself, in one Node process for all tests of this folder.

At home without Node or without `make oracle` these tests are skipped, and say so; in CI they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Drawn:
    """A state of the picture.

    Args:
        texts: What is written in it: its name first, where it has an alias.
        classes: By which it is styled.
    """

    texts: list[str]
    classes: list[str]


@dataclass(frozen=True)
class Answer:
    """What Mermaid makes of a text.

    Args:
        error: Why it cannot be read; "" when it can.
        states: What stands in the picture, by its id. Start and end are not among it.
        edges: From, to, label, in order of the text. In state diagrams `[*]` is start and end.
    """

    error: str = ""
    states: dict[str, Drawn] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)


class Mermaid:
    """Mermaid's parser.

    Args:
        process: That runs mermaid.mjs.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, text: str) -> Answer:
        """Have a diagram read."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(text), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, f"Node has ended, with {self._process.wait()}: what it said stands above"
        found: dict[str, Any] = json.loads(line)
        if not found["ok"]:
            return Answer(error=found["error"] or "an error without a text")
        states = {state: Drawn(texts, classes) for state, texts, classes in found["states"]}
        return Answer("", states, [(source, target, label) for source, target, label in found["edges"]])


@pytest.fixture(scope="session")
def mermaid() -> Iterator[Mermaid]:
    """Mermaid, ready to read."""
    node = shutil.which("node")
    missing = (
        "node is not on PATH"
        if not node
        else ""
        if (HERE / "node_modules" / "mermaid").is_dir()
        else "mermaid is not installed: `make oracle`"
    )
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI asks Mermaid itself: {missing}")
    if missing:
        pytest.skip(f"!!! NOT HELD AGAINST MERMAID: {missing}")
    with subprocess.Popen(
        [str(node), str(HERE / "mermaid.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        yield Mermaid(process)
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=10)
