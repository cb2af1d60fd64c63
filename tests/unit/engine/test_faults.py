"""What user code raised: whose it is, and how it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import pytest

from fsm.engine.faults import is_for_us, said, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable


class NastyError(SyntaxError):
    """Raises whatever it is asked for."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def __str__(self) -> NoReturn:
        raise self.raised

    @property
    def __notes__(self) -> NoReturn:
        raise self.raised


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (ValueError("as told"), "as told"),
        (ValueError(), "ValueError"),
        (ValueError("\udc80"), "\\udc80"),
        (ValueError("x" * 10_000), "x" * 2000),
        (NastyError(KeyError()), "(its text cannot be made: KeyError)"),
        (NastyError(SystemExit()), "(its text cannot be made: SystemExit)"),
    ],
)
def test_the_text_of_an_exception_can_always_be_told(fault: Exception, text: str) -> None:
    assert said(fault) == text


def test_the_traceback_of_an_exception_can_always_be_told() -> None:
    assert traceback_of(ValueError("x")) == "ValueError: x\n"
    assert traceback_of(ValueError("x" * 20_000)).endswith("x\n")
    assert len(traceback_of(ValueError("x" * 20_000))) == 16_384
    # Python 3.13 makes it in spite of all; older ones raise what the exception raises.
    told = traceback_of(NastyError(KeyError()))
    assert (
        "the traceback of NastyError cannot be made: KeyError" in told or "NastyError: <exception str() failed>" in told
    )


@pytest.mark.parametrize(
    ("fault", "ours"),
    [(KeyboardInterrupt, True), (GeneratorExit, True), (SystemExit, False), (ValueError, False)],
)
def test_only_what_is_meant_for_the_process_passes(fault: Callable[[], BaseException], ours: bool) -> None:
    assert is_for_us(fault()) is ours


def test_a_cancellation_passes_only_where_our_own_task_is_cancelled() -> None:
    async def both() -> tuple[bool, bool]:
        foreign = is_for_us(asyncio.CancelledError())
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            own = is_for_us(error)
            task.uncancel()
            return foreign, own
        return foreign, False

    assert is_for_us(asyncio.CancelledError()) is False
    assert asyncio.run(both()) == (False, True)
