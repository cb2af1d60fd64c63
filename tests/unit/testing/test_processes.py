"""Processes of tests, and how their ends are judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fsm.testing.processes import Worker

# Ends a moment after the first SIGTERM, with the number of those that came after it as its code.
COUNTING = """
import signal, sys, time
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGTERM, note)
print("ready", flush=True)
while not count:
    time.sleep(0.01)
end = time.monotonic() + 0.3
while time.monotonic() < end:
    time.sleep(0.01)
sys.exit(count - 1)
"""


def worker(tmp_path: Path, code: str) -> Worker:
    said = tmp_path / "said"
    with said.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=file)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    return Worker("it", "name", process, said)


def test_a_worker_is_asked_to_stop_once_however_often_it_is_waited_for(tmp_path: Path) -> None:
    # Seen to fail, now and then, when each asking sent a signal: the second one ends a worker that is about to end.
    one = worker(tmp_path, COUNTING)

    one.ask_to_stop()

    assert one.stop() == ""
    assert one.stop() == ""


@pytest.mark.parametrize(
    ("code", "fault"),
    [("print('ready')", ""), ("import sys; print('ready'); sys.exit(3)", "ended with code 3")],
)
def test_an_end_with_an_error_is_a_fault(tmp_path: Path, code: str, fault: str) -> None:
    one = worker(tmp_path, code)
    one._process.wait()

    assert one.stop().endswith(fault)
    assert bool(one.stop()) is bool(fault)


def test_one_that_was_killed_is_no_fault(tmp_path: Path) -> None:
    one = worker(tmp_path, COUNTING)

    one.kill()

    assert one.stop() == ""


def test_what_it_said_is_kept_when_its_file_is_dropped(tmp_path: Path) -> None:
    one = worker(tmp_path, "import sys; print('ready'); sys.stderr.write('woe')")
    one._process.wait()

    one.forget()

    assert one.output == "woe"
    assert not (tmp_path / "said").exists()
