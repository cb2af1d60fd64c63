"""What a worker's log looks like."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from fsm.engine import Event, Life, Transition
from fsm.machine import Machine, Settings
from workers.stderr import log_to_stderr

Begin = Callable[..., io.StringIO]


class Order(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : pay
    """


def transition(name: str = "order-42", attempt: int = 1) -> Transition[dict[str, object]]:
    life = Life(name, "open", b"{}", 3, "running", Order.definition)
    return Transition(life, Event("job-1", "pay", attempt=attempt), "open", "open", attempt)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Set up the log as a worker does; gives what is written to stderr."""
    root = logging.getLogger()
    before: list[tuple[list[logging.Handler], int]] = []

    def set_up(level: str, *, is_terminal: bool = False, own: tuple[logging.Handler, ...] = ()) -> io.StringIO:
        # Here and not in a fixture: pytest adds handlers of its own when the test begins.
        before.append((root.handlers[:], root.level))
        root.handlers[:] = own
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        log_to_stderr(level)
        return stream

    yield set_up
    for handlers, level in before:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_a_line_of_a_handler_says_for_which_fsm_and_event(begin: Begin) -> None:
    stderr = begin("info")

    transition().log.info("paid %d", 12)
    logging.getLogger("fsm.worker").info("started")
    transition(attempt=2).log.warning("again")
    transition().log.debug("unseen")

    paid, started, again = stderr.getvalue().splitlines()
    assert paid.endswith(" INFO fsm.transition [order-42 pay] paid 12")
    assert started.endswith(" INFO fsm.worker started")
    assert again.endswith(" WARNING fsm.transition [order-42 pay, attempt 2] again")


def test_at_debug_it_says_all_that_it_knows(begin: Begin) -> None:
    stderr = begin("debug")

    transition().log.debug("paid")

    assert "[order-42 pay, machine Order, version 3, job_id job-1, attempt 1] paid" in stderr.getvalue()


def test_a_name_of_several_lines_stays_one_and_steers_no_terminal(begin: Begin) -> None:
    stderr = begin("info")

    transition("a\nb\x1b[31m").log.info("paid")

    assert stderr.getvalue().count("\n") == 1
    assert r"[a\nb\x1b[31m pay] paid" in stderr.getvalue()


def test_on_a_terminal_it_says_so_too(begin: Begin) -> None:
    stderr = begin("info", is_terminal=True)

    transition().log.info("paid")

    assert "[order-42 pay] paid" in re.sub(r"\x1b\[[0-9;]*m", "", stderr.getvalue())


def test_what_an_application_has_set_up_is_left_alone(begin: Begin) -> None:
    own = logging.NullHandler()

    begin("info", own=(own,))

    assert logging.getLogger().handlers == [own]
