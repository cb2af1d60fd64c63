"""Plans that wait: for chains of hard events, for states, and for nothing inside of a handler."""

from __future__ import annotations

from typing import Any

import pytest

from fsm import (
    CallTimeoutError,
    DefinitionError,
    FailedError,
    FSMFinishedError,
    HandlerError,
    HandlerTimeoutError,
    Outcome,
    RejectedError,
    StoreError,
    UnknownFSMError,
    verbs,
)
from fsm.engine import Event, Transition, inside
from fsm.verbs import JobView
from tests.unit.engine.office import Parcel
from tests.unit.engine.probe import Probe, life_of
from tests.unit.test_verbs import FIELDS, KEYS, follow


def seen(word: str, event: str = "pack", /, **result: Any) -> JobView:
    return JobView(word, "0-0", "p", event, result, "", "queued")


def settle(*views: JobView | None) -> Outcome:
    outcome: Outcome = follow(verbs.settle(KEYS, "j", "p", "pack", 5), *views)[1]
    return outcome


# Chains.


def test_an_event_that_nothing_follows_settles_as_it_ends() -> None:
    assert settle(seen("DONE", state="open", version=2, reply=7)) == Outcome("p", "pack", "open", 2, "j", reply=7)


def test_a_chain_settles_where_its_last_event_leads_with_the_reply_of_the_first() -> None:
    requests, outcome = follow(
        verbs.settle(KEYS, "j", "p", "pack", 5),
        seen("DONE", state="packed", version=2, reply=7, next="j--h1"),
        seen("WAITING", "send"),
        None,
        seen("DONE", "send", state="sent", version=3, next="j--h1h1", reply=8),
        seen("DONE", "arrive", state="home", version=4),
    )

    assert outcome == Outcome("p", "pack", "home", 4, "j", reply=7)
    asked = [request.keys[0] for request in requests if request.script]
    assert asked == ["rq:job:j", "rq:job:j--h1", "rq:job:j--h1", "rq:job:j--h1h1"]


def test_a_failure_that_took_its_edge_settles_where_it_led_with_the_first_reason() -> None:
    outcome = settle(
        seen("DONE", state="packed", version=2, next="j--h1"),
        seen(
            "FAILED", "send", state="broken", version=3, failed="handler", message="too heavy", fails="broken", next="k"
        ),
        seen("FAILED", "mend", state="scrap", version=4, failed="handler", message="no glue", fails="scrap"),
    )

    assert outcome == Outcome("p", "pack", "scrap", 4, "j", ok=False, reason="too heavy")


def test_a_failure_without_an_edge_is_raised_as_that_event_s() -> None:
    with pytest.raises(HandlerTimeoutError, match="event 'send' of FSM 'p' in state 'packed': slow") as raised:
        settle(
            seen("DONE", state="packed", version=2, next="j--h1"),
            seen("FAILED", "send", state="packed", version=3, failed="timeout", message="slow"),
        )

    assert raised.value.job_id == "j--h1"


def test_a_refusal_is_raised_at_either_place() -> None:
    refused = {"state": "packed", "version": 3, "refused": "rejected", "reason": "no"}
    with pytest.raises(RejectedError):
        settle(seen("DONE", **refused))
    with pytest.raises(RejectedError, match="event 'send'"):
        settle(seen("DONE", state="packed", version=2, next="j--h1"), seen("DONE", "send", **refused))


def test_a_soft_failure_settles_as_not_ok() -> None:
    outcome = settle(seen("DONE", state="open", version=2, failed="handler", message="m", soft=True))

    assert (outcome.ok, outcome.reason) == (False, "m")


def test_a_chain_that_does_not_come_to_rest_in_time_names_the_event_that_is_due() -> None:
    away = StoreError("away just then")
    with pytest.raises(CallTimeoutError, match=r"event 'send' .* within 0 s; it stays enqueued as job j--h1"):
        follow(
            verbs.settle(KEYS, "j", "p", "pack", 0),
            seen("DONE", state="packed", version=2, next="j--h1"),
            seen("WAITING", "send"),
            away,
        )


# States.


def at(state: str, version: int = 1, status: bytes | None = None, *, born: bytes = b"7", ms: int = 5000) -> Any:
    """What a look at an FSM gives, read."""
    reply = ([(b"%d-0" % ms, {})], [born, b"%d" % version, status, state.encode(), b"P"])
    return verbs.reaching._look(KEYS, "p").read(reply)


ANNOUNCED = b"""{"start":"open","entry":"[*]","queue":"fsm","fingerprint":"f","definition_version":1,"max_mailbox":1,
"payload_limit":9,"timeout":1,"result_ttl":60,"states":["open","packed","sent"],"ends":[],"hard":{}}"""


def wait_for(*replies: Any, states: Any = "packed", timeout: float | None = 5) -> Any:
    first, *rest = replies
    return follow(verbs.wait_for(KEYS, "p", states, timeout), first, ANNOUNCED, *rest)


def line(to: str, name: str = "p", entry: str = "6-0") -> tuple[str, dict[str, Any]]:
    return entry, {"name": name, "to": to}


def test_an_fsm_that_is_there_already_is_given_at_once() -> None:
    _, snapshot = wait_for(at("packed"), FIELDS)

    assert snapshot.name == "p"


def test_an_fsm_that_has_not_begun_is_in_no_state_yet() -> None:
    wait_for(at("packed", status=b"starting"), [], None, at("packed", 2), FIELDS)


def test_one_of_several_states_will_do() -> None:
    wait_for(at("sent"), FIELDS, states=("packed", "sent"))


def test_the_log_is_read_where_the_version_changed_and_only_from_there() -> None:
    requests, _ = wait_for(
        at("open", 1, ms=5000), [],
        None, at("open", 1, ms=6000),
        None, at("open", 2, ms=7000), [line("open", entry="6500-0"), line("packed", "q", "6600-0")], [],
        None, at("open", 3, ms=8000), [line("packed", entry="7500-0")],
        FIELDS,
    )  # fmt: skip

    reads = [request.commands[0][-1] for request in requests if request.commands[0][:2] == ("XREAD", "COUNT")]
    assert reads == ["5000-0", "6000-0", "6600-0", "6600-0"]


def test_the_end_of_the_log_is_asked_for_at_the_first_look_and_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr("fsm.verbs.reaching.time.monotonic", lambda: next(now))
    requests, _ = wait_for(at("open"), [], *[None, at("open")] * 6, None, at("packed", 2), FIELDS, timeout=None)

    looks = [len(request.commands) for request in requests if request.commands[-1][0] == "HMGET"]
    assert looks[0] == 2
    assert looks.count(2) in range(2, len(looks))


def test_in_an_empty_log_all_is_new() -> None:
    assert verbs.reaching._look(KEYS, "p").read(([], [b"7", b"1", None, b"open", b"P"])).log_end == "0-0"


def test_it_is_not_missed_that_it_passed_between_the_first_two_looks() -> None:
    wait_for(at("sent"), [line("packed")], FIELDS)


def test_an_entry_event_that_is_to_be_tried_again_has_brought_it_nowhere() -> None:
    # Seen to fail without the look at `retry_in_ms`: an FSM that had not begun was said to be in its first state.
    entry_id, tried = line("open")

    with pytest.raises(CallTimeoutError, match="did not come about"):
        wait_for(
            at("open", status=b"starting"),
            [(entry_id, {**tried, "retry_in_ms": 5})],
            [],
            StoreError("away just then"),
            states="open",
            timeout=0,
        )


def test_pauses_grow_and_none_goes_beyond_the_end() -> None:
    requests, _ = wait_for(at("open"), [], *[None, at("open")] * 12, None, at("packed", 2), FIELDS, timeout=None)

    pauses = [request.commands[0][2] for request in requests if "BLOCK" in request.commands[0]]
    assert (pauses[0], pauses[-1]) == (20, 250)
    assert pauses == sorted(pauses)

    requests, _ = wait_for(at("open"), [], None, at("packed", 2), FIELDS, timeout=0.005)
    assert 1 <= requests[3].commands[0][2] <= 5


def test_one_that_has_finished_elsewhere_does_not_come_there_any_more() -> None:
    with pytest.raises(FSMFinishedError, match="'p' has finished in state 'sent'"):
        wait_for(at("sent", status=b"finished"), [])


@pytest.mark.parametrize("look", [at("open", born=b""), at("open", status=b"purging")])
def test_one_that_is_not_there_is_unknown(look: Any) -> None:
    with pytest.raises(UnknownFSMError, match="'p'"):
        follow(verbs.wait_for(KEYS, "p", "packed", 5), look)


def test_one_that_has_failed_brings_its_error() -> None:
    fields = {**FIELDS, b"error": b'{"event":"send","job":"j1","message":"too heavy"}'}

    with pytest.raises(FailedError, match="event 'send' of FSM 'p' in state 'open': too heavy") as raised:
        wait_for(at("open", status=b"failed"), [], fields)

    assert raised.value.job_id == "j1"


def test_one_that_failed_in_the_state_itself_has_come_there() -> None:
    wait_for(at("packed", status=b"failed"), FIELDS)


def test_another_life_of_the_name_is_not_waited_for() -> None:
    with pytest.raises(UnknownFSMError):
        wait_for(at("open"), [], None, at("packed", born=b"8"))


def test_a_state_that_the_machine_does_not_have_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"no state 'pakced' in machine 'P', did you mean 'packed'\?"):
        wait_for(at("open"), states="pakced")
    with pytest.raises(DefinitionError, match="no state 'gone'"):
        wait_for(at("open"), states=["packed", "gone"])
    with pytest.raises(DefinitionError, match="no state to wait for"):
        follow(verbs.wait_for(KEYS, "p", [], 5))


def test_with_the_class_its_states_are_known_without_asking() -> None:
    look = at("open")
    parcel = verbs.reaching._Seen(look.log_end, "7", "1", "", "open", "Parcel")

    with pytest.raises(DefinitionError, match="machine 'Parcel', did you mean 'packed'"):
        follow(verbs.wait_for(KEYS, "p", "pakced", 5, Parcel.definition), parcel)


def test_a_machine_that_nobody_announced_has_any_state() -> None:
    follow(verbs.wait_for(KEYS, "p", "odd", 5), at("odd"), None, [], FIELDS)


def test_a_wait_that_takes_too_long_says_where_the_fsm_is() -> None:
    text = r"state 'packed' or state 'sent' of FSM 'p' did not come about within 0 s: it is in state 'open'; call again"

    with pytest.raises(CallTimeoutError, match=text) as raised:
        wait_for(at("open"), [], StoreError("away just then"), states=("packed", "sent"), timeout=0)

    assert raised.value.job_id == ""


# Inside.


@pytest.mark.parametrize(
    "plan",
    [
        verbs.wait(KEYS, "j", "p", "put", 1),
        verbs.settle(KEYS, "j", "p", "put", 1),
        verbs.wait_for(KEYS, "p", "packed", 1),
        verbs.purge(KEYS, "p", "", 1),
        verbs.log_page(KEYS, None, "$", 1000),
    ],
)
def test_inside_of_a_handler_every_wait_is_refused_before_anything_is_asked(plan: Any) -> None:
    before = inside.current.get()
    inside.current.set(Transition(life_of(Probe()), Event("job", "loop"), "a", "a", 1))
    try:
        with pytest.raises(HandlerError, match="would wait inside of a handler"):
            plan.send(None)
    finally:
        inside.current.set(before)


def test_inside_of_a_handler_the_log_may_be_read_without_waiting() -> None:
    before = inside.current.get()
    inside.current.set(Transition(life_of(Probe()), Event("job", "loop"), "a", "a", 1))
    try:
        assert follow(verbs.log_page(KEYS, None, "0-0"), [])[1] == ([], None)
    finally:
        inside.current.set(before)
