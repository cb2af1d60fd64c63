"""The time of a trial: what is armed and delayed, and what happens as it is moved on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

import pytest

from fsm import FSMFinishedError, HandlerError, Machine, PayloadError, Reject, Settings, Stay, Transition, guard, on
from fsm.testing import Trial, cover, looks, trial

T = Transition[dict[str, Any]]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Rent(Machine):
    """A bicycle that is lent, watched, and missed."""

    settings = Settings(timer="10m")
    diagram = """
    stateDiagram-v2
        [*] --> lent
        lent --> lent : prolong
        lent --> lent : write
        lent --> lent : ask
        lent --> lent : answered
        lent --> late : due [kind] after 1d
        lent --> missed : due [else] after 1d
        lent --> missed : forget after 3d
        lent --> back : return
        late --> missed : due after 1d
        missed --> missed : break
        missed --> missed : write
        missed --> [*] : give_up after 1w
        back --> [*]
    """

    def on_timer(self, t: T) -> None:
        seen = t.payload.setdefault("seen", [])
        seen.append(t.now.strftime("%d %H:%M"))
        if t.payload.get("locked"):
            raise Reject("locked")

    @guard("kind")
    def kind(self, t: T) -> bool:
        return bool(t.payload.get("kind"))

    @on("prolong")
    def prolong(self, t: T, by: str | None) -> Any:
        if by is None:
            return None
        t.after(by, "due", key="due")
        return Stay()

    @on("write")
    def write(self, t: T, wait: str | None) -> Stay:
        t.send("ada", "reminder", {"of": t.name}, delay=wait)
        t.send(t.name, "return", delay="2h")
        t.send("bob", "hello", at=NOON + timedelta(minutes=30))
        t.send("bob", "at once")
        return Stay()

    @on("ask")
    def ask(self, t: T) -> Stay:
        t.enqueue("shop.police.ask", t.name, on_success="answered", on_failure="return", deadline="90m")
        return Stay()

    @on("break")
    def fall(self, t: T) -> None:
        t.after(0, "break", scope="fsm")


@pytest.fixture
def rent() -> Trial[dict[str, Any]]:
    return trial(Rent, now=NOON)


def at(**later: int) -> datetime:
    return NOON + timedelta(**later)


def test_it_shows_what_is_armed_in_the_order_in_which_it_is_due(rent: Trial[dict[str, Any]]) -> None:
    assert list(rent.timers.items()) == [
        ("[timer]", ("[timer]", at(minutes=10), "fsm", None)),
        ("due", ("due", at(days=1), "state", None)),
        ("forget", ("forget", at(days=3), "state", None)),
    ]


def test_time_moves_on_and_fires_what_becomes_due_each_at_its_own_time(rent: Trial[dict[str, Any]]) -> None:
    assert rent.advance("25m") == ["[timer]", "[timer]"]

    assert rent.payload == {"seen": ["01 12:10", "01 12:20"]}
    assert rent.now == at(minutes=25)
    assert rent.timers["[timer]"].at == at(minutes=30)


def test_a_timer_of_the_diagram_moves_the_fsm_and_arms_what_comes_after_it() -> None:
    rent = trial(Rent, state="lent", payload={"kind": True}, now=NOON)

    assert rent.advance("4d").count("due") == 2

    assert (rent.state, rent.history) == ("missed", ("lent", "late", "missed"))
    assert rent.timers["give_up"].at == at(days=1 + 1 + 7)

    rent.advance("7d")
    assert (rent.status, rent.timers) == ("finished", {})
    assert rent.advance("1w") == []


def test_what_is_adopted_has_its_timers() -> None:
    missed = trial(Rent, state="missed", now=NOON)

    assert {key: timer.at for key, timer in missed.timers.items()} == {"[timer]": at(minutes=10), "give_up": at(days=7)}


def test_to_enter_the_state_again_restarts_its_timers_and_to_stay_does_not(rent: Trial[dict[str, Any]]) -> None:
    rent.advance("23h")
    rent.send("prolong", "9d")
    assert rent.timers["due"].at == at(days=9, hours=23)
    assert rent.timers["forget"].at == at(days=3)

    rent.send("prolong")
    assert rent.timers["due"].at == at(days=1, hours=23)
    assert rent.timers["forget"].at == at(days=3, hours=23)


def test_what_is_sent_with_a_delay_arrives_when_it_is_due(rent: Trial[dict[str, Any]]) -> None:
    rent.send("write", "1h")
    assert rent.sent == [("bob", "at once", None)]
    assert rent.delayed == (
        ("bob", "hello", None, at(minutes=30)),
        ("ada", "reminder", {"of": "trial"}, at(hours=1)),
        ("trial", "return", None, at(hours=2)),
    )

    assert "return" not in rent.advance("60m")
    assert rent.sent[1:] == [("bob", "hello", None), ("ada", "reminder", {"of": "trial"})]

    assert rent.advance("60m")[-1] == "return"
    assert (rent.state, rent.status, rent.delayed) == ("back", "finished", ())


def test_what_arrives_after_the_end_is_refused_in_the_log(rent: Trial[dict[str, Any]]) -> None:
    rent.send("write")
    rent.send("return")

    assert rent.advance("3h") == ["return"]

    assert rent.log[-1] == {"name": "trial", "event": "return", "job": rent.log[-1]["job"], "refused": "finished"}
    with pytest.raises(FSMFinishedError):
        rent.tick()


def test_an_effect_that_does_not_end_in_time_fails_once(rent: Trial[dict[str, Any]]) -> None:
    rent.send("ask")
    [effect] = rent.enqueued
    assert effect.deadline == 5400

    assert "return" not in rent.advance("89m")
    assert rent.advance("1m") == ["return"]

    assert (rent.status, rent.enqueued) == ("finished", [])
    with pytest.raises(PayloadError, match="was answered before"):
        rent.succeed(effect)


def test_an_effect_that_ends_in_time_does_not_fail_afterwards(rent: Trial[dict[str, Any]]) -> None:
    rent.send("ask")
    rent.advance("89m")
    rent.succeed("shop.police.ask")

    assert "return" not in rent.advance("1h")
    assert rent.state == "lent"


def test_what_comes_first_of_what_is_due_at_once_is_as_in_redis() -> None:
    class Busy(Machine):
        diagram = """
        stateDiagram-v2
            [*] --> a
            a --> a : go
            a --> a : timed
            a --> a : mailed
            a --> a : failed
            a --> [*] : stop
        """

        @on("go")
        def go(self, t: T) -> Stay:
            t.after("1m", "timed", key="b")
            t.after("1m", "timed", key="a")
            t.send(t.name, "mailed", 1, delay="1m")
            t.send(t.name, "mailed", 2, delay="1m")
            t.enqueue("shop.x", on_failure="failed", deadline="1m")
            return Stay()

        @on("mailed")
        @on("timed")
        @on("failed")
        def note(self, t: T, data: Any) -> Stay:
            t.payload.setdefault("seen", []).append([t.event, data, t.meta.get("timer")])
            return Stay()

    busy = trial(Busy)
    busy.send("go")
    busy.advance("61s")

    assert busy.payload["seen"] == [
        ["failed", {"type": "deadline", "message": "it had not ended by then"}, None],
        ["mailed", 1, None],
        ["mailed", 2, None],
        ["timed", None, "a"],
        ["timed", None, "b"],
    ]


def test_without_a_set_time_it_is_the_real_one_moved_on() -> None:
    rent = trial(Rent)
    before = datetime.now(UTC)

    rent.advance("25h")

    # Times are whole milliseconds.
    assert timedelta(hours=25, milliseconds=-1) <= rent.now - before < timedelta(hours=25, minutes=5)
    assert rent.state == "missed"


def test_the_real_time_that_passes_meanwhile_takes_no_tick_away(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen to fail (five of six ticks) where the real time runs on while `advance` moves it.
    moments = (NOON + timedelta(milliseconds=ms) for ms in count())

    class RealTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return next(moments).astimezone(tz)

    monkeypatch.setattr(looks, "datetime", RealTime)
    rented = trial(Rent)

    assert rented.advance("1h") == ["[timer]"] * 6
    assert timedelta(hours=1) <= rented.now - NOON < timedelta(hours=1, seconds=1)


@pytest.mark.parametrize(
    ("overdue", "fired", "left"),
    [("fire", True, None), ("skip", False, None), ("restart", False, timedelta(days=1))],
)
def test_what_was_due_while_time_was_set_is_overdue(
    overdue: Literal["fire", "skip", "restart"], fired: bool, left: timedelta | None
) -> None:
    class Late(Rent):
        settings = Settings(overdue=overdue, timer="7d")

    rent = trial(Late, now=NOON)

    rent.now = at(days=1, seconds=11)
    assert rent.state == "lent"

    assert rent.advance(0) == (["due"] if fired else [])

    assert rent.state == ("missed" if fired else "lent")
    if not fired:
        assert rent.log[-1]["refused"] == "timer"
        assert rent.log[-1]["reason"].startswith("overdue")
        found = rent.timers.get("due")
        assert (found and found.at - rent.now) == left


def test_a_tick_by_hand_comes_on_top_of_the_others(rent: Trial[dict[str, Any]]) -> None:
    outcome = rent.tick()

    assert (outcome.ok, outcome.state, rent.payload) == (True, "lent", {"seen": ["01 12:00"]})
    assert rent.timers["[timer]"].at == at(minutes=10)


def test_a_tick_that_refuses_is_no_error_of_whoever_asked() -> None:
    rent = trial(Rent, payload={"locked": True}, now=NOON)

    assert (rent.tick().ok, rent.tick().reason, rent.refused) == (False, "locked", None)
    assert rent.advance("20m") == ["[timer]", "[timer]"]


def test_without_timers_only_the_time_moves() -> None:
    class Lamp(Machine):
        diagram = """
        stateDiagram-v2
            [*] --> dark
            dark --> [*] : burn
        """

    lamp = trial(Lamp, now=NOON)

    assert lamp.advance(timedelta(days=9)) == []
    assert lamp.now == at(days=9)


@pytest.mark.parametrize("delay", ["soon", -1, None])
def test_what_is_no_length_of_time_moves_nothing(rent: Trial[dict[str, Any]], delay: Any) -> None:
    with pytest.raises(PayloadError, match="delay"):
        rent.advance(delay)
    assert rent.now == NOON


def test_a_timer_that_arms_itself_at_once_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.testing.trials._MOST_DUE", 50)
    rent = trial(Rent, state="missed", now=NOON)
    rent.send("break")

    with pytest.raises(HandlerError, match="more than 50 timers and delayed events came due"):
        rent.advance("1s")


def test_when_it_cannot_go_on_by_itself_only_what_goes_elsewhere_comes_due() -> None:
    class Stuck(Machine):
        diagram = """
        stateDiagram-v2
            [*] --> a
            a --> b : go
            b --> [*] : end!
        """

        @on("go")
        def go(self, t: T) -> None:
            t.after("1m", "go")
            t.send("ada", "hello", delay="1m")
            t.send(t.name, "go", delay="1m")

        @on("end")
        def end(self, t: T) -> None:
            raise ValueError

    stuck = trial(Stuck, now=NOON)
    stuck.send("go")
    assert stuck.status == "failed"

    assert stuck.advance("1h") == []
    assert stuck.sent == [("ada", "hello", None)]
    assert (len(stuck.timers), len(stuck.delayed)) == (1, 1)


def test_edges_that_timers_take_are_walked() -> None:
    class Timed(Rent):
        pass

    with cover(Timed) as walked:
        rent = trial(Timed, payload={"kind": True}, now=NOON)
        rent.advance("30d")

    assert rent.status == "finished"
    assert walked.walked == (
        "lent --> late : due [kind] after 1d",
        "late --> missed : due after 1d",
        "missed --> [*] : give_up after 1w",
    )
