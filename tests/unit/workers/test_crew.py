"""The crew: as many threads as there is work at once, one loop, and nobody's work ends a thread."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fsm.engine import HandlerTimeout
from workers.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Work = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def crew() -> Iterator[Crew]:
    before = sys.getswitchinterval()
    crew = Crew(4)
    yield crew
    crew.close()
    assert sys.getswitchinterval() == before


def test_each_order_has_a_thread_and_those_that_end_are_used_again(crew: Crew) -> None:
    # Seen to fail where a thread was started if none waited for an order: one may have been told of other work already.
    for count in (1, 2, 3, 4) * 8:
        meet = threading.Barrier(count + 1)

        async def work(meet: threading.Barrier = meet) -> None:
            meet.wait(10)

        for _ in range(count):
            crew.give(work, None, is_async=False)
        meet.wait(10)

    assert len(crew._threads) <= 4


def test_where_no_more_threads_can_be_started_those_that_there_are_do_it_all(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Seen to fail where that was raised: the worker ended, and waited at its end for what nobody ran.
    start, done = threading.Thread.start, threading.Semaphore(0)

    def start_two(thread: threading.Thread) -> None:
        if len(crew._threads) == 2:
            problem = "can't start new thread"
            raise RuntimeError(problem)
        start(thread)

    async def work() -> None:
        time.sleep(0.01)  # noqa: ASYNC251 - plain code
        done.release()

    monkeypatch.setattr(threading.Thread, "start", start_two)
    for _ in range(20):
        crew.give(work, None, is_async=False)

    assert all(done.acquire(timeout=10) for _ in range(20))
    assert caplog.text.count("no more than 2 threads") == 1


def test_threads_that_wait_in_c_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail where each was waited for by itself: a second signal took minutes, with hundreds of them.
    monkeypatch.setattr("workers.crew._CLOSE_S", 0.5)
    crew, go_on = Crew(8), threading.Event()

    async def work() -> None:
        go_on.wait(60)

    for _ in range(8):
        crew.give(work, None, is_async=False)
    begin = time.monotonic()
    crew.close()
    seconds = time.monotonic() - begin
    go_on.set()

    assert seconds < 2.5


def test_what_user_code_raises_ends_no_thread(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    async def bad() -> None:
        raise SystemExit

    async def good() -> None:
        done.set()

    for _ in range(8):
        crew.give(bad, None, is_async=False)
    crew.give(good, None, is_async=False)

    assert done.wait(10)
    assert "interrupted beside its work" in caplog.text


def test_coroutines_share_the_loop_of_services_and_each_is_timed_by_itself(crew: Crew) -> None:
    loops: set[Any] = set()
    said: list[str] = []
    over = threading.Semaphore(0)

    async def loop() -> Any:
        return asyncio.get_running_loop()

    async def blocks() -> None:
        loops.add(await loop())
        try:
            # Seconds of its own time-out, then some, before the thread of the loop is interrupted.
            with crew.timed(0.01, is_async=True):
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    pass
        except HandlerTimeout:
            said.append("interrupted")
        over.release()

    async def waits() -> None:
        with crew.timed(0.01, is_async=True):
            await asyncio.sleep(0.05)
            loops.add(await loop())
        said.append("waited")
        over.release()

    opened_on = crew.drive(loop())
    crew.give(waits, None, is_async=True)
    crew.give(blocks, None, is_async=True)

    assert over.acquire(timeout=20)
    assert over.acquire(timeout=20)
    assert sorted(said) == ["interrupted", "waited"]
    assert loops == {opened_on}


@pytest.mark.parametrize("is_async", [False, True])
def test_who_breaks_off_interrupts_what_runs(crew: Crew, *, is_async: bool) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            with crew.timed(60, is_async=is_async):
                begun.set()
                for _ in range(2000):
                    if is_async:
                        await asyncio.sleep(0.01)
                    else:
                        time.sleep(0.01)  # noqa: ASYNC251 - plain code
        finally:
            ended.set()

    crew.give(work, None, is_async=is_async)
    assert begun.wait(10)
    crew.break_off()

    assert ended.wait(5)


def test_what_is_late_is_told_by_what_it_is_about(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_GRACE_S", "_SECOND_RING_S"):
        monkeypatch.setattr(f"workers.timekeeper.{name}", 0.01)
    monkeypatch.setattr("workers.timekeeper._raise", lambda *_: None)  # as where it heeds none
    go_on = threading.Event()

    async def work() -> None:
        with crew.timed(0.01, is_async=False):
            go_on.wait(20)

    crew.give(work, "the late one", is_async=False)
    deadline = time.monotonic() + 10
    while crew.overdue is None and time.monotonic() < deadline:
        time.sleep(0.01)

    assert crew.overdue == "the late one"
    go_on.set()
