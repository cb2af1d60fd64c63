"""What is in hand where handlers run side by side, seen from the main thread, the crew, and the thread of relief."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fsm.errors import StoreError
from fsm.store.calls import Claims
from workers import hands as room
from workers.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Sequence

MS = 0.001


class Crew:
    """Keeps what it is given, and ends it when the test says so."""

    overdue = None

    def __init__(self, _size: int) -> None:
        self.given: list[Any] = []
        self.is_broken_off = False

    def give(self, _work: object, about: Any, *, is_async: bool) -> None:
        assert not is_async
        self.given.append(about)

    def break_off(self) -> None:
        self.is_broken_off = True


class Hall:
    """Hands with two slots, and all that they asked for, in order."""

    def __init__(self, slots: int = 2) -> None:
        self.did: list[Any] = []
        self.refuses = False
        self.left: list[str] = []
        rooms: Any = SimpleNamespace(
            behaviours={"Box": SimpleNamespace(is_async=False)},
            commit=self._commit,
            give_back=self._give_back,
            watch=lambda what: self.did.append("watched" if what else "rests"),
            hurry=lambda: None,
            count=lambda **_: None,
            claim=self._claim,
            sleep=lambda seconds: self.did.append(("sleep", seconds)),
        )
        self.hands = Hands(slots, 8, rooms, rooms, rooms, rooms, rooms, rooms, rooms)
        self.crew: Any = self.hands._crew
        self.number = 0

    def _commit(self, at: str, blocks: Sequence[Any], names: Sequence[str], *, later: bool) -> None:
        assert not later
        assert len(blocks) == len(names)
        self.did.append((f"commit {at}", *names))

    def _claim(self, most: int, *, leaves_suspects: bool) -> Claims:
        self.did.append((most, leaves_suspects))
        return Claims([], [])

    def _give_back(self, fsms: Sequence[Any], *, tail: bool = False) -> None:
        assert tail == (fsms[0].name == "suspect")
        self.did.append(("give back", *(fsm.name for fsm in fsms)))
        if self.refuses:
            raise StoreError("Redis is full")

    def put(self, *names: str, at_ms: int = 0, is_suspect: bool = False) -> None:
        self.number += 1
        token, probation = f"t{self.number}", 0 if is_suspect else None
        held: Any = [SimpleNamespace(name=n, token=token, machine="Box", probation=probation) for n in names]
        self.hands.put(Claims(held, [], f"at {at_ms}", at_ms))

    def running(self) -> set[str]:
        return {piece.fsm.name for piece in self.hands._running}

    def end(self, name: str, seconds: float, size: int = 0) -> None:
        """Let the crew end one."""
        piece = next(piece for piece in self.crew.given if piece.fsm.name == name)
        piece.block, piece.work = [name], SimpleNamespace(size=size, done=1, failed=0)
        self.hands._end(piece, seconds)

    @property
    def room(self) -> int:
        return self.hands._room()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda _: None
    monkeypatch.setattr("workers.hands.time", clock)
    return clock


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> Hall:
    monkeypatch.setattr(room, "Crew", Crew)
    return Hall()


def test_no_more_is_claimed_than_there_are_slots_where_handlers_are_slow(hall: Hall) -> None:
    hall.put("a")
    assert hall.room == 1
    hall.hands.claim()
    hall.put("b")

    assert hall.room == 0
    hall.end("a", 0.050)
    assert hall.room == 1
    assert hall.did == ["watched", (1, True)]


def test_some_20_ms_of_work_are_claimed_ahead_where_handlers_are_quick(hall: Hall) -> None:
    # Seen to fail with a room of free slots alone.
    for number in range(60):
        hall.put(f"f{number}")
        hall.end(f"f{number}", 9 * MS)
        hall.hands.relieve()

    # Two slots, 9 ms each: four in 20 ms.
    assert hall.room == 4
    hall.put("a", "b", "c")
    assert hall.running() == {"a", "b"}
    assert hall.room == 1
    hall.end("b", 9 * MS)
    assert hall.running() == {"a", "c"}


def test_who_is_told_to_end_claims_and_begins_nothing_more_though_slots_get_free(hall: Hall) -> None:
    # Seen to fail without the looks at `_is_ending` in `claim` and in `_begin`, each.
    hall.put("a", "b", "c")
    hall.hands.begin_no_more()
    hall.end("a", 0.050)
    assert hall.running() == {"b"}
    hall.hands.drop_waiting()
    assert hall.room == 1

    assert hall.hands.claim().held == []
    assert hall.did == ["watched", ("give back", "c")]


def test_what_waits_in_vain_for_a_slot_is_given_back_and_nothing_more_is_claimed_ahead(
    hall: Hall, clock: SimpleNamespace
) -> None:
    # Seen to fail without `_give_back` in `relieve`; and without a new mean: it was claimed again at once.
    for number in range(60):
        hall.put(f"f{number}")
        hall.end(f"f{number}", 5 * MS)
        hall.hands.relieve()
    hall.put("slow", "slow too", "behind", "last")
    clock.now += 0.039
    hall.hands.relieve()
    hall.did.clear()

    clock.now += 0.002
    hall.hands.relieve()

    assert hall.did == [("give back", "behind", "last")]
    assert hall.room == 0
    assert hall.hands.tokens == ["t61"]


def test_what_is_done_is_committed_though_its_neighbours_run(hall: Hall) -> None:
    hall.put("a", "b", at_ms=1)
    hall.end("a", 0.050)
    hall.put("c", at_ms=2)
    hall.hands.relieve()

    assert hall.did == ["watched", ("commit at 1", "a")]
    assert sorted(hall.hands.tokens) == ["t1", "t2"]
    hall.end("b", 0.050)
    hall.end("c", 0.050)
    hall.hands.relieve()
    assert hall.did[2:] == [("commit at 2", "b", "c"), "rests"]
    assert not hall.hands.is_busy


def test_claims_that_are_far_apart_are_committed_apart(hall: Hall) -> None:
    # Seen to fail without `_SAME_CLAIM_MS`: jobs of the second had begun before they were sent.
    hall.put("minutes", at_ms=1)
    hall.put("quick", at_ms=60_000)
    hall.end("quick", 0.050)
    hall.end("minutes", 60)
    hall.hands.relieve()

    assert hall.did == ["watched", ("commit at 1", "minutes"), ("commit at 60000", "quick"), "rests"]


def test_a_commit_is_bounded_in_bytes(hall: Hall) -> None:
    for name in "abc":
        hall.put(name)
        hall.end(name, 0.050, 3 << 20)
    hall.hands.relieve()

    assert hall.did == ["watched", ("commit at 0", "a", "b"), ("commit at 0", "c"), "rests"]


def test_a_rest_is_as_short_as_handlers_are(hall: Hall) -> None:
    # Seen to fail with 0.2 s always: an event to be tried again in 50 ms was, after 300 ms.
    for seconds, rest in ((MS, 20 * MS), (10.0, 0.2)):
        for number in range(20):
            hall.put(name := f"{seconds} {number}")
            hall.end(name, seconds)
            hall.hands.relieve()
        hall.did.clear()
        hall.put(name := f"{seconds} last")
        hall.hands.rest(is_burst=False)
        hall.end(name, seconds)
        hall.hands.relieve()

        assert hall.did[:2] == ["watched", ("sleep", rest)]


def test_a_suspect_is_alone_until_it_is_committed(hall: Hall) -> None:
    # Seen to fail without `_has_suspect`: another was claimed while it was committed.
    hall.put("suspect", is_suspect=True)
    assert hall.room == 0
    hall.end("suspect", MS)
    assert hall.room == 0
    hall.hands.relieve()

    assert hall.room == 2


def test_others_pass_a_suspect_that_waits_for_empty_hands_and_each_time_later(
    hall: Hall, clock: SimpleNamespace
) -> None:
    # Seen to fail without `_pass_by`: behind a handler of minutes all else waited for it.
    suspect: Any = Claims([SimpleNamespace(name="suspect", token="t", probation=0)], [])  # type: ignore[list-item] # a part of one
    asked: list[bool] = []

    def claim(_most: int, *, leaves_suspects: bool = False) -> Claims:
        asked.append(leaves_suspects)
        return Claims([], []) if leaves_suspects else suspect

    hall.hands._intake.claim = claim  # type: ignore[assignment, method-assign]
    hall.put("minutes")
    for seconds in (0.9, 0.2, 1.9, 0.2):
        clock.now += seconds
        assert hall.hands.claim().held == []

    assert asked == [True, True, False, True, True, False]
    assert hall.did == ["watched", *[("give back", "suspect")] * 2]
    hall.put("suspect", is_suspect=True)
    assert hall.hands._patience_s == 1


def test_a_commit_that_cannot_be_sent_leaves_nothing_in_hand(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.put("a")
    hall.end("a", MS)

    def fail(*_: object, **__: object) -> None:
        problem = "no rights"
        raise StoreError(problem)

    monkeypatch.setattr(hall.hands, "_committer", SimpleNamespace(commit=fail))
    with pytest.raises(StoreError):
        hall.hands.relieve()
    assert not hall.hands.is_busy


def test_what_could_not_be_given_back_is_not_run_by_us_either(hall: Hall, clock: SimpleNamespace) -> None:
    hall.put("a", "b", "behind")
    clock.now += 1
    hall.refuses = True

    with pytest.raises(StoreError):
        hall.hands.relieve()
    hall.end("a", MS)

    assert hall.running() == {"b"}


def test_what_could_not_be_started_goes_back_at_the_end(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail without `except` in `_start`: the end waited for what nobody ran.
    def fail(*_: object, **__: object) -> None:
        problem = "can't start new thread"
        raise RuntimeError(problem)

    monkeypatch.setattr(hall.crew, "give", fail)
    with pytest.raises(RuntimeError):
        hall.put("a", "b", "c")
    assert not hall.running()
    hall.hands.finish()

    assert hall.did == ["watched", ("give back", "a", "b", "c"), "rests"]


def test_after_a_stop_nothing_is_begun_committed_or_claimed(hall: Hall) -> None:
    # Seen to fail without `_is_over` in `_next_commit`: what had been given back was committed under its old token.
    hall.put("a", "b", "c")
    hall.end("a", MS)
    hall.end("b", MS)
    hall.end("c", MS)
    hall.put("d", "e", "f")
    hall.hands.shut()
    hall.did.clear()

    hall.end("d", MS)
    hall.hands.relieve()
    assert hall.hands.claim().held == []
    assert hall.running() == {"e"}
    assert not [what for what in hall.did if str(what[0]).startswith("commit")]
