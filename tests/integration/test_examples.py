"""`make examples`, as a person starts it: all examples, each with its worker, on a Redis of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.__main__ import found

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """Starts the examples with a folder for temporary files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FSM_")}
        if server := os.environ.get("FSM_SERVER"):
            environment["FSM_SERVER"] = server
        process = subprocess.Popen(
            [sys.executable, "-m", "examples", *arguments],
            cwd=ROOT,
            env={**environment, "TMPDIR": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=20)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path)
    yield started
    started.end()


@pytest.mark.slow
def test_all_examples_run_one_after_the_other_and_leave_nothing_behind(run: Run) -> None:
    process = run.start()
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert re.findall(r"^== (\w+): \S", out, re.MULTILINE) == found()
    assert re.search(rf"^{', '.join(found())}: done in \d+ s$", out, re.MULTILINE)
    assert list(run.folder.iterdir()) == []


def test_a_signal_ends_it_with_all_that_it_started(run: Run) -> None:
    process = run.start("approval")
    assert process.stdout is not None
    while "== approval" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert list(run.folder.iterdir()) == []
