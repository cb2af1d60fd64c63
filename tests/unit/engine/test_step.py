"""The endings of a transition, as a table: what is decided, and what is left of the FSM."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm import (
    AbandonedError,
    Goto,
    HandlerError,
    HandlerTimeoutError,
    InvalidDataError,
    Machine,
    NotAllowedError,
    Reject,
    RejectedError,
    Settings,
    StaleVersionError,
    Stay,
    Transition,
    on,
)
from fsm.engine import Behaviour, Event, Mail, abandon, give_up, step
from tests.unit.engine.probe import PAYLOAD, P, Probe, apply, drive, life_of, raising

if TYPE_CHECKING:
    from collections.abc import Callable

ORDINARY = ["leave a", "on_leave", "enter b", "on_enter"]


def change(t: P, *_: Any) -> None:
    t.payload["n"] += 1
    t.send("other", "event", t.payload)


def spoil(t: P, *_: Any) -> None:
    change(t)
    problem = "as told"
    raise ValueError(problem)


# Done.


@pytest.mark.parametrize(
    ("event", "answer", "state", "ending", "entered", "called"),
    [
        ("go", None, "b", "", True, ["go", *ORDINARY]),
        ("go", Goto("b"), "b", "", True, ["go", *ORDINARY]),
        ("go", Stay(), "a", "", False, ["go"]),
        ("loop", None, "a", "", True, ["loop", "leave a", "on_leave", "on_enter"]),
        ("loop", Stay(), "a", "", False, ["loop"]),
        ("choose", Goto("c"), "c", "", True, ["choose", "leave a", "on_leave", "on_enter"]),
        ("choose", Stay(), "a", "", False, ["choose"]),
        ("last", None, "over", "finished", True, ["leave a", "on_leave", "on_enter", "on_terminate"]),
        ("quit", None, "a", "finished", False, ["quit", "on_terminate"]),
        ("quit", Goto("[*]"), "a", "finished", False, ["quit", "on_terminate"]),
        ("quit", Stay(), "a", "", False, ["quit"]),
        ("dive", None, "hard", "", True, ["leave a", "on_leave", "on_enter"]),
    ],
)
def test_an_event_that_is_done_moves_the_fsm_and_runs_its_hooks_in_order(
    event: str, answer: Any, state: str, ending: str, entered: bool, called: list[str]
) -> None:
    def act(t: P, *_: Any) -> Any:
        change(t)
        t.reply({"was": t.version})
        return answer

    machine = Probe(**{event: act})
    life = life_of(machine)

    decision = apply(machine, life, event)

    assert (decision.kind, decision.source, decision.state, decision.version) == ("done", "a", state, 8)
    assert (decision.ending, decision.entered, decision.soft, decision.text) == (ending, entered, False, "")
    assert machine.names() == called
    assert (life.state, life.version, life.status) == (state, 8, ending or "running")
    if event in called:
        assert life.raw == b'{"n":8}'
        assert decision.result == {"state": state, "version": 8, "reply": {"was": 7}}
        assert decision.outbox == [Mail("job--s1", "other", "event", b'{"n":8}')]
    else:
        assert (life.raw, decision.result) == (PAYLOAD, {"state": state, "version": 8})


def test_handlers_and_hooks_see_source_and_target() -> None:
    machine = Probe()

    apply(machine, life_of(machine), "go", b"5")

    assert machine.calls == [
        ("go", "a", "b", 5),
        ("leave a", "a", "b"),
        ("on_leave", "a", "b"),
        ("enter b", "a", "b"),
        ("on_enter", "a", "b"),
    ]


def test_a_handler_of_several_targets_sees_no_target_and_an_ending_one_its_own_state() -> None:
    machine = Probe(choose=lambda _: Goto("c"))
    apply(machine, life_of(machine), "choose")
    apply(machine, life_of(machine), "quit")

    assert machine.calls[0] == ("choose", "a", "a")
    assert machine.calls[1] == ("leave a", "a", "c")
    assert machine.calls[-2:] == [("quit", "a", "a"), ("on_terminate", "a", "a")]


@pytest.mark.parametrize("hook", ["leave a", "on_leave", "enter b", "on_enter"])
def test_what_a_hook_does_to_the_payload_and_sends_is_part_of_the_transition(hook: str) -> None:
    machine = Probe(**{hook: change})
    life = life_of(machine)

    decision = apply(machine, life, "go")

    assert life.raw == b'{"n":8}'
    assert [mail.job_id for mail in decision.outbox] == ["job--s1"]


def test_states_that_were_left_are_remembered_up_to_the_setting_which_counts_the_present_one() -> None:
    machine = Probe()
    life = life_of(machine)

    seen = []
    for event in ("go", "back", "loop", "go", "back", "last"):
        apply(machine, life, event)
        seen.append(life.history)

    assert seen == [
        ("a",),
        ("a", "b"),
        ("a", "b"),
        ("b", "a"),
        ("a", "b"),
        ("b", "a"),
    ]


@pytest.mark.parametrize("length", [0, 1])
def test_without_history_none_is_kept(length: int) -> None:
    class Forgetful(Probe):
        settings = Settings(history=length)

    machine = Forgetful()
    life = life_of(machine)

    apply(machine, life, "go")

    assert life.history == ()


def test_events_of_one_claim_share_the_payload_and_a_failure_between_them_leaves_no_trace() -> None:
    machine = Probe(loop=change, risky=spoil)
    life = life_of(machine)

    for event in ("loop", "go", "back"):
        apply(machine, life, event)
    machine.acts["loop"] = spoil
    apply(machine, life, "loop")
    machine.acts["loop"] = change
    apply(machine, life, "loop")

    assert (life.raw, life.version) == (b'{"n":9}', 12)


# Guards.


@pytest.mark.parametrize(
    ("yes", "no", "state", "asked"),
    [
        (True, True, "b", ["yes"]),
        (True, False, "b", ["yes"]),
        (False, False, "c", ["yes", "no"]),
        (False, True, "over", ["yes", "no"]),
        (1, "", "b", ["yes"]),
        ((), [], "c", ["yes", "no"]),
    ],
)
def test_guards_are_tried_in_the_order_of_the_text(yes: Any, no: Any, state: str, asked: list[str]) -> None:
    machine = Probe(yes=lambda _: yes, no=lambda _: no)

    decision = apply(machine, life_of(machine), "ask")

    assert decision.state == state
    assert machine.names()[: len(asked) + 1] == [*asked, "ask"]


def test_goto_leads_only_where_the_guards_allow() -> None:
    machine = Probe(yes=lambda _: True, ask=lambda _: Goto("c"))

    decision = apply(machine, life_of(machine), "ask")

    assert decision.kind == "failed"
    assert "Goto('c'): 'ask' does not lead there from 'a', only to 'b'" in decision.result["message"]


def test_a_guard_that_raises_is_a_failure_and_the_handler_is_not_run() -> None:
    machine = Probe(yes=raising(ValueError("no idea")))

    decision = apply(machine, life_of(machine), "ask")

    assert (decision.kind, decision.result["message"]) == ("failed", "no idea")
    assert machine.names() == ["yes", "on_failure"]


# Refused.

REFUSALS: list[tuple[str, str, bytes, dict[str, Callable[..., Any]], str, str, type[Exception]]] = [
    ("not allowed here", "back", b"null", {}, "not_allowed", "not allowed here", NotAllowedError),
    ("no guard holds", "only", b"null", {}, "guard", "no guard holds", NotAllowedError),
    ("answered", "loop", b"null", {"loop": lambda _: Reject("no", x=1)}, "rejected", "no", RejectedError),
    ("raised", "loop", b"null", {"loop": raising(Reject("no", x=1))}, "rejected", "no", RejectedError),
    ("by a guard", "only", b"null", {"yes": raising(Reject("no", x=1))}, "rejected", "no", RejectedError),
    ("by a hook", "loop", b"null", {"on_leave": raising(Reject("no", x=1))}, "rejected", "no", RejectedError),
    ("wrong data", "go", b'"x"', {}, "invalid_data", "$: ", InvalidDataError),
    ("broken data", "go", b"{", {}, "invalid_data", "$: ", InvalidDataError),
]


@pytest.mark.parametrize(
    ("event", "raw", "acts", "kind", "reason", "error"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_an_event_that_is_refused_changes_nothing_but_the_version(
    event: str, raw: bytes, acts: dict[str, Callable[..., Any]], kind: str, reason: str, error: type[Exception]
) -> None:
    machine = Probe(**acts)
    life = life_of(machine)

    decision = apply(machine, life, event, raw)

    assert (decision.kind, decision.state, decision.version, decision.ending) == ("refused", "a", 8, "")
    assert decision.result["refused"] == kind
    assert decision.result["reason"].startswith(reason)
    assert decision.result["allowed"] == list(Probe.graph.allowed("a"))
    assert decision.result.get("details", {}) == {"rejected": {"x": 1}, "invalid_data": {"path": "$"}}.get(kind, {})
    assert (life.state, life.version, life.status, life.raw, life.history) == ("a", 8, "running", PAYLOAD, ())
    hook, source, _, given = machine.calls[-1]
    assert (hook, source, type(given)) == ("on_refused", "a", error)
    assert (given.name, given.event, given.state, given.version, given.job_id) == ("fsm-1", event, "a", 7, "job")
    if isinstance(given, NotAllowedError):
        assert given.allowed == Probe.graph.allowed("a")
    if isinstance(given, RejectedError):
        assert given.details == {"x": 1}


def test_what_was_sent_before_the_refusal_is_dropped_and_what_the_hook_sends_goes_out() -> None:
    def reject(t: P) -> Reject:
        change(t)
        return Reject("no")

    machine = Probe(loop=reject, on_refused=change)
    life = life_of(machine)

    decision = apply(machine, life, "loop")

    assert [mail.data for mail in decision.outbox] == [b'{"n":8}']
    assert life.raw == PAYLOAD
    assert life.payload == {"n": 7}


def test_a_refusal_that_the_settings_ignore_is_no_error() -> None:
    machine = Probe()

    decision = apply(machine, life_of(machine), "beat")

    assert (decision.kind, decision.soft, decision.result["soft"]) == ("refused", True, True)


def test_a_soft_event_that_is_refused_is_no_error() -> None:
    machine = Probe(maybe=lambda _: Reject("no"))

    assert apply(machine, life_of(machine), "maybe").soft


@pytest.mark.parametrize("reason", [42, None, object(), "\ud800"])
def test_a_rejection_whose_reason_cannot_be_written_is_a_failure(reason: Any) -> None:
    machine = Probe(loop=lambda _: Reject(reason))

    decision = apply(machine, life_of(machine), "loop")

    assert decision.kind == "failed"
    assert orjson.dumps(decision.result)


@pytest.mark.parametrize("details", [{"x": object()}, {"x": float("nan")}, {"x": 2**65}, {"x": b""}])
def test_a_rejection_whose_details_are_no_json_is_a_failure_that_names_the_path(details: dict[str, Any]) -> None:
    machine = Probe(loop=lambda _: Reject("no", **details))

    decision = apply(machine, life_of(machine), "loop")

    assert (decision.kind, decision.result["type"]) == ("failed", "PayloadError")
    assert decision.result["message"].startswith("$[1].x: ")
    assert machine.names() == ["loop", "on_failure"]


def test_a_rejection_of_a_class_of_ones_own_is_a_rejection() -> None:
    class TooLate(Reject):
        def __init__(self, when: int) -> None:
            self.when = when

    machine = Probe(loop=raising(TooLate(3)))

    assert apply(machine, life_of(machine), "loop").result["refused"] == "rejected"


def test_a_hook_of_a_refusal_that_raises_makes_it_a_failure() -> None:
    machine = Probe(loop=lambda _: Reject("no"), on_refused=spoil)
    life = life_of(machine)

    decision = apply(machine, life, "loop")

    assert (decision.kind, decision.result["message"], decision.outbox) == ("failed", "as told", [])
    assert (life.raw, life.version) == (PAYLOAD, 8)


def test_a_hard_event_that_is_refused_leaves_an_fsm_that_cannot_go_on() -> None:
    machine = Probe(rise=lambda _: Reject("no"))
    life = life_of(machine, "hard")

    decision = apply(machine, life, "rise")

    assert (decision.kind, decision.ending, life.status) == ("refused", "failed", "failed")


# Failed.


class Nasty(Exception):  # noqa: N818 - what users raise is named as they like
    def __str__(self) -> str:
        raise ValueError


class Bare(BaseException):
    """What is no Exception, as some libraries raise."""


FAILURES: list[tuple[str, Any, str, str]] = [
    ("an exception", raising(KeyError("k")), "KeyError", "'k'"),
    ("exit", raising(SystemExit(3)), "SystemExit", "3"),
    ("no Exception", raising(Bare("b")), "Bare", "b"),
    ("cancelled", raising(asyncio.CancelledError()), "CancelledError", ""),
    ("its text raises", raising(Nasty()), "Nasty", "(its text cannot be made: ValueError)"),
    ("half a character", raising(ValueError("\ud800")), "ValueError", "\\ud800"),
    ("a time-out of its own", raising(TimeoutError("mine")), "TimeoutError", "mine"),
    ("a wrong target", lambda _: Goto("c"), "HandlerError", "Goto('c'): 'loop' does not lead there from 'a'"),
    ("an unknown target", lambda _: Goto("nowhere"), "HandlerError", "Goto('nowhere'): 'loop' does not lead"),
    ("text", lambda _: "b", "HandlerError", "a handler answers None, Goto, Stay, Reject or Retry, not 'b'"),
    ("false", lambda _: False, "HandlerError", "a handler answers None"),
    ("a class", lambda _: Stay, "HandlerError", "a handler answers None"),
    ("an awaitable", lambda _: asyncio.sleep(0), "HandlerError", "'loop' is a plain method and returned something to"),
    ("payload too large", lambda t: t.payload.update(x="x" * 300), "PayloadError", "$: the payload has 314 bytes"),
    ("payload no JSON", lambda t: t.payload.update(x=object()), "PayloadError", "$.x: an object is not JSON"),
    ("payload NaN", lambda t: t.payload.update(x=float("nan")), "PayloadError", "$.x: NaN is not JSON"),
    ("payload not of its type", lambda t: setattr(t, "payload", [1]), "PayloadError", "$: dict[str, Any] is declared"),
    ("mail no JSON", lambda t: t.send("x", "y", b""), "PayloadError", "$: a bytes is not JSON"),
]


@pytest.mark.parametrize(("act", "kind", "message"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_an_event_that_fails_leaves_state_and_payload_as_they_were(act: Any, kind: str, message: str) -> None:
    def sent_and_failed(t: P) -> Any:
        change(t)
        return act(t)

    machine = Probe(loop=sent_and_failed)
    life = life_of(machine)

    decision = apply(machine, life, "loop")

    assert (decision.kind, decision.source, decision.state, decision.version) == ("failed", "a", "a", 8)
    assert (decision.ending, decision.soft, decision.entered, decision.outbox) == ("", False, False, [])
    assert decision.result["failed"] == "handler"
    assert (decision.result["type"], decision.result["state"], decision.result["version"]) == (kind, "a", 8)
    assert decision.result["message"].startswith(message)
    assert orjson.dumps(decision.result)
    assert (life.state, life.version, life.status, life.raw, life.history) == ("a", 8, "running", PAYLOAD, ())
    assert life.payload == {"n": 7}
    hook, source, target, error = machine.calls[-1]
    assert (hook, source, target, type(error)) == ("on_failure", "a", "a", HandlerError)
    assert (error.type, error.message) == (kind, decision.result["message"])
    if kind == "HandlerError":
        assert (decision.text, error.traceback) == (decision.result["message"], "")
    else:
        assert decision.text == error.traceback
        assert "Traceback (most recent call last)" in decision.text


@pytest.mark.parametrize("hook", ["leave a", "on_leave", "enter b", "on_enter"])
def test_a_hook_that_raises_is_a_failure_and_the_fsm_stays(hook: str) -> None:
    machine = Probe(**{hook: spoil})
    life = life_of(machine)

    decision = apply(machine, life, "go")

    assert (decision.kind, decision.state, decision.outbox, life.raw) == ("failed", "a", [], PAYLOAD)


def test_a_hook_of_the_end_that_raises_keeps_the_fsm_alive() -> None:
    machine = Probe(on_terminate=spoil)
    life = life_of(machine)

    decision = apply(machine, life, "quit")

    assert (decision.kind, decision.ending, life.status, life.raw) == ("failed", "", "running", PAYLOAD)


def test_several_targets_want_an_answer() -> None:
    machine = Probe()

    decision = apply(machine, life_of(machine), "choose")

    assert decision.result["message"].startswith("'choose' has several targets here ('b', 'c')")


def test_what_the_process_is_told_is_no_failure() -> None:
    machine = Probe(loop=raising(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        apply(machine, life_of(machine), "loop")


def test_the_hook_of_a_failure_has_an_outbox_of_its_own_whose_ids_differ_from_one_failure_to_the_next() -> None:
    machine = Probe(loop=spoil, on_failure=lambda t, _: t.send("boss", "alarm", t.data))
    life = life_of(machine)

    first = apply(machine, life, "loop").outbox
    second = apply(machine, life, "loop").outbox
    machine.acts["loop"] = change
    done = apply(machine, life, "loop").outbox

    assert first == [Mail("job--v7s1", "boss", "alarm", b'{"type":"ValueError","message":"as told"}')]
    assert [mail.job_id for mail in second + done] == ["job--v8s1", "job--s1"]


def test_the_hook_of_a_failure_sees_the_payload_as_it_was_and_cannot_change_it() -> None:
    seen = []

    def look(t: P, _: Exception) -> None:
        seen.append(dict(t.payload))
        change(t)

    machine = Probe(loop=spoil, on_failure=look)
    life = life_of(machine)

    apply(machine, life, "loop")

    assert seen == [{"n": 7}]
    assert (life.raw, life.payload) == (PAYLOAD, {"n": 7})


def test_the_hook_of_a_failure_that_raises_as_well_is_told_and_hides_nothing() -> None:
    machine = Probe(loop=raising(KeyError("first")), on_failure=spoil)

    decision = apply(machine, life_of(machine), "loop")

    assert decision.result["type"] == "KeyError"
    assert decision.result["message"] == "'first'; and then its failure hook raised ValueError: as told"
    assert decision.text.index("KeyError: 'first'") < decision.text.index("ValueError: as told")
    assert decision.outbox == []


def test_a_soft_event_that_fails_is_no_error() -> None:
    machine = Probe(maybe=spoil)
    life = life_of(machine)

    decision = apply(machine, life, "maybe")

    assert (decision.kind, decision.soft, decision.result["soft"], decision.ending) == ("failed", True, True, "")
    assert (life.state, life.raw) == ("a", PAYLOAD)


def test_a_failure_takes_its_fails_edge_with_leave_and_enter_hooks() -> None:
    seen = []
    machine = Probe(risky=spoil, on_enter=lambda t: seen.append((t.data, t.payload["n"])))
    life = life_of(machine)

    decision = apply(machine, life, "risky")

    assert (decision.kind, decision.source, decision.state, decision.entered) == ("failed", "a", "c", True)
    assert (life.state, life.status, life.raw, life.history) == ("c", "running", PAYLOAD, ("a",))
    assert machine.names() == ["risky", "on_failure", "leave a", "on_leave", "on_enter"]
    assert seen == [({"type": "ValueError", "message": "as told"}, 7)]


def test_a_refusal_takes_no_fails_edge() -> None:
    machine = Probe(risky=lambda _: Reject("no"))

    decision = apply(machine, life_of(machine), "risky")

    assert (decision.kind, decision.state) == ("refused", "a")


def test_what_hooks_do_on_the_way_of_a_fails_edge_is_kept() -> None:
    machine = Probe(risky=spoil, on_enter=change)
    life = life_of(machine)

    decision = apply(machine, life, "risky")

    assert life.raw == b'{"n":8}'
    assert [mail.job_id for mail in decision.outbox] == ["job--v7s1"]


def test_a_hook_on_the_way_of_a_fails_edge_that_raises_leaves_the_fsm_where_it_was() -> None:
    machine = Probe(risky=raising(KeyError("k")), on_enter=spoil)
    life = life_of(machine)

    decision = apply(machine, life, "risky")

    assert (decision.state, life.state, decision.entered, decision.outbox) == ("a", "a", False, [])
    assert (life.raw, life.payload) == (PAYLOAD, {"n": 7})


def test_a_fails_edge_to_the_end_finishes_the_fsm() -> None:
    machine = Probe(doomed=spoil)
    life = life_of(machine)

    decision = apply(machine, life, "doomed")

    assert (decision.kind, decision.state, decision.ending, life.status) == ("failed", "a", "finished", "finished")
    assert machine.names() == ["doomed", "on_failure", "on_terminate"]


def test_a_hard_event_that_fails_leaves_an_fsm_that_cannot_go_on_unless_it_has_a_fails_edge() -> None:
    machine = Probe(rise=spoil, crack=spoil)
    hard, frail = life_of(machine, "hard"), life_of(machine, "frail")

    stuck, saved = apply(machine, hard, "rise"), apply(machine, frail, "crack")

    assert (stuck.ending, hard.state, hard.status) == ("failed", "hard", "failed")
    assert (saved.ending, frail.state, frail.status) == ("", "c", "running")


def test_an_abandoned_event_is_not_run_and_takes_its_fails_edge() -> None:
    machine = Probe()
    life = life_of(machine)

    decision = drive(machine, abandon(Behaviour(machine), life, Event("job", "risky"), 4))

    assert decision.result["failed"] == "abandoned"
    assert decision.result["message"] == "workers died 4 times on this event"
    assert (decision.state, machine.names()[0]) == ("c", "on_failure")
    assert isinstance(machine.calls[0][3], AbandonedError)


@pytest.mark.parametrize(("deaths", "calls", "state"), [(6, ["on_failure"], "c"), (7, [], "a")])
def test_where_workers_go_on_dying_in_the_hooks_of_the_failure_it_is_recorded_without_them(
    deaths: int, calls: list[str], state: str
) -> None:
    # Seen to fail without it: a failure hook that kills its process killed every worker, one after the other.
    machine = Probe()
    life = life_of(machine)

    decision = drive(machine, abandon(Behaviour(machine), life, Event("job", "risky"), deaths))

    assert (decision.result["failed"], decision.kind, life.state) == ("abandoned", "failed", state)
    assert machine.names()[:1] == calls
    assert ("hooks of its failure" in decision.result["message"]) is (deaths == 7)


def test_an_event_that_is_given_up_for_good_takes_no_fails_edge() -> None:
    machine = Probe()
    life = life_of(machine)

    decision = drive(machine, give_up(Behaviour(machine), life, Event("job", "risky"), "why", final=True))

    assert (decision.result["failed"], decision.text, life.state) == ("handler", "why", "a")


def test_a_state_that_the_machine_has_no_more_fails_every_event_and_keeps_the_fsm() -> None:
    machine = Probe()
    life = life_of(machine, "renamed")

    decision = apply(machine, life, "go")

    assert (decision.kind, life.state, life.raw) == ("failed", "renamed", PAYLOAD)
    assert "'Probe' has no state 'renamed'" in decision.result["message"]


def test_a_payload_that_is_none_fails_who_looks_at_it_and_stays_as_it_is() -> None:
    machine = Probe(loop=change)
    life = life_of(machine, raw=b"{broken")

    looked, passed = apply(machine, life, "loop"), apply(machine, life, "go")

    assert (looked.kind, looked.result["type"]) == ("failed", "PayloadError")
    assert (passed.kind, life.raw) == ("done", b"{broken")


def test_a_failure_deep_in_recursion_is_recorded_with_the_end_of_its_traceback() -> None:
    def dig(t: P) -> None:
        dig(t)

    decision = apply(machine := Probe(loop=dig), life_of(machine), "loop")

    assert decision.result["type"] == "RecursionError"
    assert len(decision.text) <= 16_384


def test_state_on_the_machine_is_refused_with_the_place_where_it_belongs() -> None:
    machine = Probe(loop=lambda _: setattr(machine, "memory", 1))

    decision = apply(machine, life_of(machine), "loop")

    assert decision.result["type"] == "AttributeError"
    assert "state belongs in t.payload" in decision.result["message"]


# The entry event.


def test_the_entry_event_starts_the_fsm() -> None:
    machine = Probe(born=change)
    life = life_of(machine, status="starting")

    decision = apply(machine, life, "born")

    assert machine.calls == [("on_start", "a", "a"), ("born", "a", "a"), ("on_enter", "a", "a")]
    assert (decision.kind, decision.source, decision.state, decision.version) == ("done", "a", "a", 8)
    assert (decision.entered, decision.result) == (True, {"state": "a", "version": 8})
    assert (life.status, life.raw, life.history) == ("running", b'{"n":8}', ())


@pytest.mark.parametrize("hook", ["on_start", "born", "on_enter"])
def test_an_entry_event_that_fails_leaves_an_fsm_that_cannot_go_on(hook: str) -> None:
    machine = Probe(**{hook: spoil})
    life = life_of(machine, status="starting")

    decision = apply(machine, life, "born")

    assert (decision.kind, decision.ending, life.status, life.version) == ("failed", "failed", "failed", 8)
    assert (life.state, life.raw, decision.outbox) == ("a", PAYLOAD, [])


def test_an_entry_event_cannot_be_refused() -> None:
    machine = Probe(born=lambda _: Reject("too early"))
    raised = Probe(born=raising(Reject("too early")))

    answered = apply(machine, life_of(machine, status="starting"), "born")
    thrown = apply(raised, life_of(raised, status="starting"), "born")

    assert "answers nothing" in answered.result["message"]
    assert "cannot be refused, and its handler said Reject('too early')" in thrown.result["message"]
    assert (answered.ending, thrown.ending) == ("failed", "failed")


class Sprint(Machine):
    """Ends where it begins, by an entry event without a name."""

    diagram = """
    stateDiagram-v2
        [*] --> done
        done --> [*]
    """


def test_an_fsm_may_end_with_its_entry() -> None:
    machine = Sprint()
    life = life_of(machine, "done", status="starting")

    decision = apply(machine, life, "[*]")

    assert (decision.kind, decision.ending, life.status) == ("done", "finished", "finished")


class Fussy(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> a : begin
        a --> [*] : end
    """

    @on("begin")
    def begin(self, t: Transition[dict[str, Any]], number: int) -> None:
        t.payload["number"] = number


def test_an_entry_handler_that_wants_data_is_told_that_there_are_none() -> None:
    machine = Fussy()

    decision = apply(machine, life_of(machine, status="starting"), "begin")

    assert (decision.kind, decision.result["type"], decision.ending) == ("failed", "PayloadError", "failed")


# One method for all events, async methods, time-outs.


class Whole(Machine[dict[str, Any]]):
    """Decides everything in one method, one event beside it."""

    diagram = """
    stateDiagram-v2
        [*] --> a
        a --> b : go
        a --> c : go
        a --> b : own
        b --> [*] : end
        c --> [*] : end
    """

    def on_transition(self, t: Transition[dict[str, Any]]) -> Goto | None:
        t.payload["seen"] = [t.event, t.data]
        return Goto(t.data) if t.event == "go" else None

    @on("own")
    def own(self, t: Transition[dict[str, Any]]) -> None:
        t.payload["seen"] = "own"


def test_one_method_may_decide_all_transitions_beside_handlers_of_their_own() -> None:
    machine = Whole()
    went, own = life_of(machine), life_of(machine)

    apply(machine, went, "go", b'"c"')
    apply(machine, own, "own")
    decision = apply(machine, went, "end")

    assert (went.state, orjson.loads(went.raw)["seen"]) == ("c", ["end", None])
    assert (own.state, orjson.loads(own.raw)["seen"]) == ("b", "own")
    assert decision.ending == "finished"


class Dreamer(Machine[dict[str, Any]]):
    """Async methods, by name what they do."""

    settings = Settings(timeout="60ms")
    diagram = """
    stateDiagram-v2
        [*] --> a
        a --> b : go
        a --> b : block
        b --> [*]
    """

    def __init__(self, **acts: Callable[..., Any]) -> None:
        self.acts = acts

    async def _act(self, name: str, t: P) -> Any:
        return await self.acts[name](t) if name in self.acts else None

    @on("go")
    async def go(self, t: P) -> Any:
        return await self._act("go", t)

    @on("block")
    def block(self, t: P) -> None:
        time.sleep(60)

    async def on_enter(self, t: P) -> None:
        await self._act("on_enter", t)

    async def on_failure(self, t: P, _error: Exception) -> None:
        await self._act("on_failure", t)


async def nap(t: P) -> None:
    change(t)
    await asyncio.sleep(0.045)


def test_async_methods_run_like_plain_ones() -> None:
    async def work(t: P) -> Stay:
        await asyncio.sleep(0)
        change(t)
        return Stay()

    machine = Dreamer(go=work)
    life = life_of(machine)

    decision = apply(machine, life, "go")

    assert (decision.kind, decision.state, life.raw) == ("done", "a", b'{"n":8}')


async def dream(t: P) -> None:
    change(t)
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    "acts", [{"go": dream}, {"on_enter": dream}, {"go": nap, "on_enter": nap}], ids=["handler", "hook", "both together"]
)
def test_async_methods_that_take_too_long_fail(acts: dict[str, Any]) -> None:
    machine = Dreamer(**acts)
    life = life_of(machine)

    decision = apply(machine, life, "go")

    assert (decision.result["failed"], decision.result["type"]) == ("timeout", "HandlerTimeoutError")
    assert "0.06 s" in decision.result["message"]
    assert (life.state, life.raw, decision.outbox) == ("a", PAYLOAD, [])


def test_a_time_out_of_one_event_is_no_other_events() -> None:
    # Seen to fail with the time-out of the machine for every event.
    class Sleeper(Dreamer):
        settings = Settings(timeout={"go": "20ms", "*": "10s"})

    machine = Sleeper(go=nap)

    decision = apply(machine, life_of(machine), "go")

    assert "0.02 s" in decision.result["message"]


def test_after_a_time_out_the_hook_of_the_failure_has_its_own_time() -> None:
    machine = Dreamer(go=dream, on_failure=nap)

    decision = apply(machine, life_of(machine), "go")

    assert [mail.job_id for mail in decision.outbox] == ["job--v7s1"]


def test_a_time_out_inside_an_async_handler_is_its_own_affair() -> None:
    async def impatient(_: P) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    machine = Dreamer(go=impatient)

    decision = apply(machine, life_of(machine), "go")

    assert (decision.result["failed"], decision.result["type"]) == ("handler", "TimeoutError")


def test_a_cancelled_task_of_a_handler_is_a_failure_and_no_end_of_the_worker() -> None:
    async def careless(_: P) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    machine = Dreamer(go=careless)

    decision = apply(machine, life_of(machine), "go")

    assert (decision.result["failed"], decision.result["type"]) == ("handler", "CancelledError")


def test_a_step_that_is_cancelled_from_outside_ends() -> None:
    machine = Dreamer(go=dream)

    async def cancelled() -> None:
        task = asyncio.create_task(step(Behaviour(machine), life_of(machine), Event("job", "go")))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        drive(machine, cancelled())


def hang(t: P, *_: Any) -> None:
    change(t)
    time.sleep(60)


@pytest.mark.parametrize("act", ["loop", "on_enter", "on_leave"])
def test_plain_methods_that_take_too_long_fail(act: str) -> None:
    machine = Probe(**{act: hang})
    life = life_of(machine)

    decision = drive(machine, step(Behaviour(machine), life, Event("job", "loop")), timed=True)

    assert decision.result["failed"] == "timeout"
    assert decision.result["message"] == "took longer than the time-out of 0.08 s: raise Settings(timeout=…)"
    assert isinstance(machine.calls[-1][3], HandlerTimeoutError)
    assert (life.state, life.raw, decision.outbox) == ("a", PAYLOAD, [])


@pytest.mark.parametrize(
    ("acts", "failed"),
    [
        ({"loop": spoil, "on_failure": hang}, "handler"),
        ({"loop": lambda _: Reject("no"), "on_refused": hang}, "timeout"),
    ],
    ids=["on_failure", "on_refused"],
)
def test_hooks_of_failures_and_refusals_that_hang_are_interrupted(acts: dict[str, Any], failed: str) -> None:
    machine = Probe(**acts)

    decision = drive(machine, step(Behaviour(machine), life_of(machine), Event("job", "loop")), timed=True)

    assert (decision.kind, decision.result["failed"], decision.outbox) == ("failed", failed, [])


def test_a_handler_that_swallows_every_exception_is_interrupted_all_the_same() -> None:
    def stubborn(t: P) -> None:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001 - that is what is tried
            change(t)

    machine = Probe(loop=stubborn)

    decision = drive(machine, step(Behaviour(machine), life_of(machine), Event("job", "loop")), timed=True)

    assert decision.result["failed"] == "timeout"


# Versions.


@pytest.mark.parametrize("wanted", [6, 8, 0])
def test_an_event_that_was_decided_on_another_version_is_refused_with_both(wanted: int) -> None:
    heard: list[Any] = []
    machine = Probe(on_refused=lambda *seen: heard.append(seen[1]))

    decision = drive(machine, step(Behaviour(machine), life_of(machine), Event("job", "loop", if_version=wanted)))

    assert (decision.kind, decision.state, decision.version) == ("refused", "a", 8)
    assert decision.result["refused"] == "stale_version"
    assert decision.result["details"] == {"version": 7, "if_version": wanted}
    assert f"decided on version {wanted} of the FSM, which has version 7 now" in decision.result["reason"]
    assert [type(error) for error in heard] == [StaleVersionError]
    assert "loop" not in machine.names()


def test_an_event_that_was_decided_on_this_version_is_done() -> None:
    machine = Probe()

    decision = drive(machine, step(Behaviour(machine), life_of(machine), Event("job", "loop", if_version=7)))

    assert decision.kind == "done"


def test_a_stale_event_is_refused_before_its_data_are_read_and_before_it_is_allowed() -> None:
    machine = Probe()

    for event in ("go", "rise"):
        asked = Event("job", event, b'"no number"', if_version=1)
        decision = drive(machine, step(Behaviour(machine), life_of(machine), asked))
        assert decision.result["refused"] == "stale_version"


def test_a_stale_event_of_the_name_of_a_hard_one_does_not_stop_the_fsm() -> None:
    machine = Probe()
    life = life_of(machine, "hard")

    decision = drive(machine, step(Behaviour(machine), life, Event("job", "rise", if_version=1)))

    assert (decision.kind, decision.ending, life.status) == ("refused", "", "running")


def test_a_failure_that_took_its_edge_says_where_to() -> None:
    def fail(t: P) -> None:
        raise ValueError

    assert apply(Probe(risky=fail), life_of(Probe()), "risky").result["fails"] == "c"
    assert apply(Probe(doomed=fail), life_of(Probe()), "doomed").result["fails"] == "a"
    assert "fails" not in apply(Probe(loop=fail), life_of(Probe()), "loop").result
