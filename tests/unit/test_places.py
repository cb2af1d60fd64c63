"""In which queue an FSM waits, whatever it is that says so."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fsm import StoreError
from fsm.store.places import Placer, parse


def raising(error: Exception) -> Any:
    def whois(name: str) -> str:
        raise error

    return whois


def test_an_fsm_begins_where_its_machine_says() -> None:
    placer = Placer({"a": "edge-1"}.get)

    assert placer.first("orders", "any", "a") == "orders"
    assert placer.first("orders", "ring", "a") == "orders~edge-1"
    assert placer.first("orders", "ring", "nobody's") == "orders"


def test_an_fsm_moves_to_the_host_whose_it_is_by_now() -> None:
    placer = Placer({"a": "edge-1"}.get)

    assert placer.next("orders~edge-2", "ring", "a") == "orders~edge-1"
    assert placer.next("orders", "ring", "a") == "orders~edge-1"
    assert placer.next("orders~edge-1", "ring", "a") == ""


def test_an_fsm_stays_where_nobody_is_known() -> None:
    """Seen to move to the base queue, and back at once, when Redis had been away for longer than hosts live unheard."""
    assert Placer({}.get).next("orders~edge-2", "ring", "a") == ""
    assert Placer(raising(StoreError("away"))).next("orders~edge-2", "ring", "a") == ""


def test_one_that_is_pinned_never_moves() -> None:
    placer = Placer({"a": "edge-1"}.get)

    assert placer.next("orders@edge-2", "ring", "a") == ""
    assert placer.next("orders@edge-2", "any", "a") == ""


def test_one_whose_machine_is_of_the_ring_no_more_goes_back() -> None:
    placer = Placer(raising(AssertionError("nobody is to be asked")))

    assert placer.next("orders~edge-2", "any", "a") == "orders"
    assert placer.next("orders", "any", "a") == ""


@pytest.mark.parametrize("answer", ["", "edge 1", "a~b", "ä", 7, b"edge", "x" * 101])
def test_an_answer_that_is_no_host_is_logged_once_and_any_worker_serves(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    placer = Placer(lambda _name: answer)

    with caplog.at_level(logging.ERROR, "fsm.placement"):
        assert placer.first("orders", "ring", "a") == "orders"
        assert placer.next("orders~edge-2", "ring", "b") == ""
    assert [record.getMessage() for record in caplog.records] == [
        "whois('a') gave no host: FSMs are run by any worker meanwhile"
    ]
    # Seen to be that a string was expected, of what is none.
    assert f"host {answer!r}: use 1 to 100 of the characters" in caplog.text


def test_what_an_applications_own_code_raises_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    placer = Placer(raising(ZeroDivisionError("theirs")))

    assert placer.first("orders", "ring", "a") == "orders"
    assert "theirs" in caplog.text


def test_redis_that_is_away_is_told_by_whoever_writes(caplog: pytest.LogCaptureFixture) -> None:
    assert Placer(raising(StoreError("away"))).first("orders", "ring", "a") == "orders"
    assert not caplog.records


@pytest.mark.parametrize("queue", ["orders", "fsm.shop", "o~", "~edge", "@edge", ""])
def test_what_names_no_host_is_a_queue_of_everyone(queue: str) -> None:
    assert parse(queue) == (queue, "", False)
