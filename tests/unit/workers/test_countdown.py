"""The time that a process has to end, and how it ends when its main thread cannot."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from workers.countdown import Countdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Heard = list[str]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Signals that this process got, and the end that it would have had."""
    heard: Heard = []
    before = {
        number: signal.signal(number, lambda number, _: heard.append(signal.Signals(number).name))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    }
    monkeypatch.setattr("workers.countdown.last_resort.end", lambda give_back, _why: heard.append(give_back()))
    monkeypatch.setattr("workers.countdown.AT_ONCE_S", 0.05)
    monkeypatch.setattr("workers.countdown.ONE_SIGNAL_S", 0.05)
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def counting(heard: Heard) -> Iterator[Callable[[float], Countdown]]:
    """Start a countdown, which is stopped at the end."""
    started: list[Countdown] = []

    def start(seconds: float) -> Countdown:
        countdown = Countdown(seconds, lambda: "given back")
        countdown.start()
        started.append(countdown)
        return countdown

    yield start
    for countdown in started:
        if countdown._thread.is_alive():
            countdown.stop()


def wait_for(heard: Heard, length: int) -> None:
    deadline = time.monotonic() + 5
    while len(heard) < length and time.monotonic() < deadline:
        time.sleep(0.005)


def test_when_its_time_is_over_it_gets_a_second_signal_and_then_is_ended(
    heard: Heard, counting: Callable[[float], Countdown], caplog: pytest.LogCaptureFixture
) -> None:
    # Seen to fail without the `elif not is_hurried`: it waited for its handler.
    countdown = counting(0.1)
    assert not countdown.is_asked
    signal.raise_signal(signal.SIGINT)
    wait_for(heard, 3)

    assert heard[:3] == ["SIGINT", "SIGTERM", "given back"]
    assert countdown.is_asked
    assert "not over 0.1 s after the signal to end" in caplog.text


def test_a_log_that_nobody_reads_does_not_hold_up_the_end(heard: Heard, counting: Callable[[float], Countdown]) -> None:
    # Seen to fail while the countdown itself wrote to the log: where the main thread was stuck in that, both were.
    is_over = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda _: is_over.wait(10)  # type: ignore[assignment, method-assign, return-value] # as a full pipe does
    log = logging.getLogger("fsm.worker")
    log.addHandler(handler)
    try:
        counting(0.05)
        signal.raise_signal(signal.SIGTERM)
        wait_for(heard, 3)
    finally:
        is_over.set()
        log.removeHandler(handler)

    assert heard[:3] == ["SIGTERM", "SIGTERM", "given back"]


def test_a_countdown_that_a_signal_forestalled_can_be_stopped() -> None:
    # Seen to fail while it had no socket before its start: a worker asked to end while it began ended with a traceback.
    Countdown(1, lambda: None).stop()


def test_a_second_signal_leaves_it_no_more_time_and_is_not_sent_again(
    heard: Heard, counting: Callable[[float], Countdown]
) -> None:
    countdown = counting(60)
    signal.raise_signal(signal.SIGTERM)
    while not countdown.is_asked:
        time.sleep(0.005)
    time.sleep(0.1)
    signal.raise_signal(signal.SIGTERM)
    wait_for(heard, 3)

    assert heard[:3] == ["SIGTERM", "SIGTERM", "given back"]


def test_two_signals_at_once_are_one_and_others_are_none(
    heard: Heard, counting: Callable[[float], Countdown], monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are at once, however long this thread waits for its turn between them.
    monkeypatch.setattr("workers.countdown.ONE_SIGNAL_S", 60.0)
    countdown = counting(60)
    signal.raise_signal(signal.SIGALRM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.15)
    countdown.stop()

    assert heard == ["SIGALRM", "SIGTERM", "SIGTERM"]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_process_that_ends_by_itself_is_left_alone(heard: Heard, counting: Callable[[float], Countdown]) -> None:
    countdown = counting(60)
    signal.raise_signal(signal.SIGTERM)
    countdown.stop()

    assert heard == ["SIGTERM"]
    assert "fsm-countdown" not in {thread.name for thread in threading.enumerate()}


LAST = """
import logging, os, time
from fsm.errors import StoreError
from workers import last_resort

logging.basicConfig()
last_resort._WITHIN_S = {}
def hangs(): time.sleep(60)
def fails(): raise StoreError("Redis is away")
def works(): print("given back", flush=True)
last_resort.end({}, "it is stuck")
"""


STUCK = """
import logging, threading
from workers import last_resort

logging.basicConfig()
logging.root.handlers[0].acquire()
last_resort._WITHIN_S = 1
works = lambda: print("given back", flush=True)
threading.Thread(target=last_resort.end, args=(works, "it is stuck")).start()
threading.Event().wait()
"""


def test_the_last_resort_gives_back_also_where_its_process_is_stuck_in_its_log() -> None:
    # Seen to fail while it told the log first.
    done: Any = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert done.stdout == "given back\n"


@pytest.mark.parametrize(
    ("last", "within", "said"),
    [
        ("hangs", 1, "it is stuck. Its main thread is here:"),  # seen to fail without `dump_traceback_later`: it hung
        ("fails", 30, "waits for the end of the lease: Redis is away"),
        ("works", 30, "given back"),
    ],
)
def test_the_last_resort_ends_a_process_whatever_becomes_of_its_last_deed(last: str, within: int, said: str) -> None:
    done: Any = subprocess.run(
        [sys.executable, "-c", LAST.format(within, last)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert said in done.stdout
