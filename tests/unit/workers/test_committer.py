"""Commits on their way: when their locks are let go, when their replies are read, and what the log is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm.errors import StoreError
from fsm.store.keys import Keys
from workers.committer import Committer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.store.requests import Request


class Road:
    """Carrier, line and keeper in one, noting what is asked of them."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.words: list[str] = ["REST"]
        self.fails: StoreError | None = None
        self.nonces: list[int] = []
        self.retries = 0
        road: Any = self
        self.committer = Committer(road, road, Keys("default"), "w", road, lease_ms=1000, note_retry=self._note_retry)

    def _note_retry(self) -> None:
        self.retries += 1

    def _answer(self) -> list[str]:
        if self.fails is not None:
            raise self.fails
        return self.words

    def post(self, request: Request[Any]) -> int:
        self.nonces.append(request.arguments[4])
        self.did.append("post")
        return len(self.nonces)

    def result(self, ticket: int) -> list[str]:
        self.did.append(f"read {ticket}")
        return self._answer()

    def carry(self, request: Request[Any], until: float) -> list[str]:
        assert until > 0
        self.nonces.append(request.arguments[4])
        self.did.append("carry")
        return self._answer()

    def let_go(self, names: Iterable[str]) -> None:
        self.did.append("let go " + " ".join(names))

    def commit(self, *names: str, later: bool = True) -> None:
        self.committer.commit("now", [[1, name] for name in names], names, later)


def test_the_reply_to_a_commit_is_read_before_the_next_is_sent_and_only_once() -> None:
    road = Road()
    road.commit("a")
    road.commit("b")
    road.committer.read()
    road.committer.read()

    assert road.did == ["let go a", "post", "let go b", "read 1", "post", "read 2"]
    assert road.nonces == sorted(set(road.nonces))


def test_a_commit_beside_a_slow_handler_leaves_the_line_alone() -> None:
    # The line is the main thread's: a reply that is under way there is not read by the thread of Relief.
    road = Road()
    road.commit("a")
    road.commit("b", later=False)

    assert road.did == ["let go a", "post", "let go b", "carry"]
    assert len(set(road.nonces)) == 2


@pytest.mark.parametrize("later", [True, False])
def test_a_commit_that_is_not_written_is_told_to_the_log_alone(later: bool, caplog: pytest.LogCaptureFixture) -> None:
    road = Road()
    road.fails = StoreError("Redis is away")
    road.commit("a", "b", later=later)
    road.committer.read()
    road.committer.read()

    assert [record.getMessage() for record in caplog.records] == [
        "a commit of 2 FSMs was not written and will be run again: Redis is away"
    ]


def test_what_was_lost_or_broken_is_told_by_name(caplog: pytest.LogCaptureFixture) -> None:
    road = Road()
    road.words = ["READY", "STALE", "BROKEN"]
    road.commit("a", "b", "c", later=False)

    first, second = (record.getMessage() for record in caplog.records)
    assert "FSM 'b' was lost" in first
    assert "FSM 'c' is not a hash" in second


def test_told_of_an_event_that_is_to_be_tried_again_it_says_so() -> None:
    road = Road()
    road.words = ["AT"]
    road.commit("a", later=False)

    assert road.retries == 1
