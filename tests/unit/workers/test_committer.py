"""Commits on their way: when their locks are let go, when their replies are read, and what the log is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fsm.errors import StoreError
from fsm.store.keys import Keys
from workers.committer import Committer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.store.requests import Request


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0, time_ns=lambda: 10**18)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("workers.committer.time", clock)
    return clock


class Road:
    """Carrier, line and keeper in one, noting what is asked of them."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.words: list[str] = ["REST"]
        self.fails: StoreError | None = None
        self.nonces: list[int] = []
        self.retries = 0
        self.sent: list[Any] = []
        self.untils: list[float] = []
        self.trusted = {"a": 110.0, "b": 120.0, "c": 115.0}
        self.while_reading = lambda: None
        road: Any = self
        self.committer = Committer(road, road, Keys("default"), "w", road, lease_ms=1000, note_retry=self._note_retry)

    def _note_retry(self) -> None:
        self.retries += 1

    def _answer(self) -> list[str]:
        if self.fails is not None:
            raise self.fails
        return self.words

    def _note(self, request: Request[Any], until: float, way: str) -> None:
        self.nonces.append(int(request.arguments[4]))
        fsms, frames = map(int, request.arguments[11:13])
        self.sent.append(request.arguments[13 + frames : 13 + frames + fsms])
        self.untils.append(until)
        self.did.append(way)

    def post(self, request: Request[Any], until: float) -> int:
        self._note(request, until, "post")
        return len(self.nonces)

    def result(self, ticket: int) -> list[str]:
        self.did.append(f"read {ticket}")
        self.while_reading()
        return self._answer()

    def carry(self, request: Request[Any], until: float) -> list[str]:
        self._note(request, until, "carry")
        return self._answer()

    def let_go(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        pairs = list(pairs)
        self.did.append("let go " + " ".join(name for name, _ in pairs))
        assert {token for _, token in pairs} == {"token"}
        return [self.trusted[name] for name, _ in pairs]

    def commit(self, *names: str, later: bool = True) -> None:
        self.committer.commit("now", [[("token",), name, "token", b""] for name in names], names, later)


def test_the_reply_to_a_commit_is_read_before_the_next_is_sent_and_only_once() -> None:
    road = Road()
    road.commit("a")
    road.commit("b")
    road.committer.read()
    road.committer.read()

    assert road.did == ["let go a", "post", "read 1", "let go b", "post", "read 2"]
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


def test_locks_are_let_go_when_the_last_reply_is_there_and_not_before() -> None:
    # Seen to fail in the other order: while Redis was away they were not renewed, and lapsed before they were written.
    road = Road()
    road.commit("a")
    road.while_reading = lambda: road.trusted.update(b=500.0)
    road.commit("b")

    assert road.untils == [110.0, 500.0]


@pytest.mark.parametrize("later", [True, False])
def test_what_is_done_under_a_lock_that_is_not_trusted_any_more_is_not_sent(
    later: bool, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    # Seen to fail while commits were sent however late.
    road = Road()
    road.words = ["REST", "REST"]
    clock.now = 112.0
    road.commit("b", "a", "c", later=later)
    road.committer.read()

    assert road.sent == [["b", "c"]]
    assert road.untils == [115.0]
    assert [record.getMessage() for record in caplog.records] == [
        "the lock of FSM 'a' was lost before its commit: nothing was written"
    ]


def test_where_no_lock_is_trusted_any_more_nothing_is_sent(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    road = Road()
    clock.now = 120.0
    road.trusted["c"] = 0.0  # known to be lost
    road.commit("a", "b", "c")
    road.committer.read()

    assert road.did == ["let go a b c"]
    assert len(caplog.records) == 3
