"""What is asked, in which order, and what the replies mean: plans without a Redis."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from fsm import (
    AbandonedError,
    CallTimeoutError,
    FailedError,
    FSMExistsError,
    FSMFinishedError,
    HandlerError,
    HandlerTimeoutError,
    InvalidDataError,
    KeyConflictError,
    Machine,
    MailboxFullError,
    NotAllowedError,
    Outcome,
    PayloadError,
    RefusedError,
    RejectedError,
    StaleVersionError,
    StoreError,
    Transition,
    UnknownFSMError,
    UnknownMachineError,
    on,
    verbs,
)
from fsm.machine.names import state_name_remedy
from fsm.store import calls
from fsm.store.keys import Keys
from fsm.verbs import JobView, ended, standing
from fsm.verbs.sending import encode_data
from tests.unit.engine.office import Parcel

KEYS = Keys("default")
_NOTHING = object()


@dataclass
class Line:
    sku: str
    price: int


class Basket(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : add
        open --> closed : close
        closed --> closed : close
        closed --> [*] : end
    """

    @on("add")
    def add(self, t: Transition[dict[str, Any]], line: Line) -> None:
        t.payload[line.sku] = line.price

    @on("close", source="open")
    def close(self, t: Transition[dict[str, Any]], reason: str) -> None: ...

    @on("close", source="closed")
    def close_again(self, t: Transition[dict[str, Any]], times: int) -> None: ...


def follow(plan: Generator[Any, Any, Any], *replies: Any) -> tuple[list[Any], Any]:
    """Carry a plan with these replies, already read; gives its requests and its value."""
    requests: list[Any] = []
    value = None
    answers = iter(replies)
    try:
        request = plan.send(None)
        while True:
            requests.append(request)
            reply = next(answers, _NOTHING)
            if reply is _NOTHING:
                pytest.fail(f"the plan asks for more than {len(replies)} replies")
            request = plan.throw(reply) if isinstance(reply, Exception) else plan.send(reply)
    except StopIteration as end:
        value = end.value
    assert len(requests) == len(replies)
    return requests, value


def seen(word: str, result: dict[str, Any] | None = None, text: str = "", status: str = "queued") -> JobView:
    return JobView(word, "0-0", "p", "put", result or {}, text, status)


# How an event ended.

AT = {"state": "open", "version": 3}
ENDS: list[tuple[JobView, type[Exception], str]] = [
    (seen("DONE", {**AT, "refused": "not_allowed", "reason": "no", "allowed": ["put"]}), NotAllowedError, "here: put"),
    (seen("DONE", {**AT, "refused": "guard", "reason": "no guard", "allowed": []}), NotAllowedError, "here: nothing"),
    (seen("DONE", {**AT, "refused": "rejected", "reason": "empty"}), RejectedError, "empty"),
    (seen("DONE", {**AT, "refused": "stale_version", "reason": "old"}), StaleVersionError, "old"),
    (seen("DONE", {**AT, "refused": "invalid_data", "reason": "$.a: b"}), InvalidDataError, r"\$\.a: b"),
    (seen("DONE", {**AT, "refused": "new kind", "reason": "r"}), RefusedError, "r"),
    (seen("DONE", {**AT, "refused": "finished"}), FSMFinishedError, "'p' has finished in state 'open'"),
    (seen("FAILED", {**AT, "failed": "handler", "message": "m"}), HandlerError, "'put' of FSM 'p' in state 'open': m"),
    (seen("FAILED", {**AT, "failed": "timeout", "message": "m"}), HandlerTimeoutError, "m"),
    (seen("FAILED", {**AT, "failed": "abandoned", "message": "m"}), AbandonedError, "m"),
    (seen("FAILED", {"failed": "undeliverable"}, "mail not delivered"), FailedError, "mail not delivered"),
    (seen("FAILED", {}, "edited"), FailedError, "edited"),
    (seen("MISSING"), FailedError, "its job has no record: it was deleted, or ended longer ago than result_ttl"),
    (seen("GONE"), FailedError, "an operator took it away before it was applied"),
    (seen("GONE", {"failed": "gone", "reason": "purged with its FSM"}), FailedError, "purged with its FSM"),
    (seen("WAITING", status="canceled"), FailedError, "an operator took it away"),
    (seen("DONE", {**AT, "version": "x"}), StoreError, "job j of FSM 'p' cannot be read: was it edited by hand"),
    (seen("DONE", {**AT, "refused": "rejected", "details": [1]}), StoreError, "was it edited by hand"),
    (seen("DONE", {**AT, "refused": "guard", "allowed": 7}), StoreError, "was it edited by hand"),
    (seen("DONE"), StoreError, "job j of FSM 'p' has ended and has no result of ours"),
]


@pytest.mark.parametrize(("view", "error", "text"), ENDS)
def test_an_end_that_is_an_error_is_raised_by_its_kind(view: JobView, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as raised:
        ended("j", view, "?", "?")

    assert type(raised.value) is error
    if isinstance(raised.value, RefusedError | FailedError):
        assert (raised.value.name, raised.value.event, raised.value.job_id) == ("p", "put", "j")


def test_a_rejection_brings_the_details_of_its_handler_and_nothing_else() -> None:
    view = seen("DONE", {**AT, "refused": "rejected", "reason": "r", "allowed": ["put"], "details": {"allowed": 3}})

    with pytest.raises(RejectedError) as raised:
        ended("j", view, "p", "put")

    assert raised.value.details == {"allowed": 3}


@pytest.mark.parametrize(
    ("view", "outcome"),
    [
        (seen("DONE", {**AT, "reply": [1]}), Outcome("p", "put", "open", 3, "j", ok=True, reply=[1])),
        (seen("DONE", {**AT}, status="canceled"), Outcome("p", "put", "open", 3, "j")),
        (
            seen("DONE", {**AT, "refused": "guard", "reason": "no", "soft": True}),
            Outcome("p", "put", "open", 3, "j", ok=False, reason="no"),
        ),
        (
            seen("DONE", {**AT, "failed": "handler", "message": "m", "soft": True}),
            Outcome("p", "put", "open", 3, "j", ok=False, reason="m"),
        ),
    ],
)
def test_an_end_that_is_no_error_is_an_outcome(view: JobView, outcome: Outcome) -> None:
    assert ended("j", view, "?", "?") == outcome


@pytest.mark.parametrize(
    ("view", "word"),
    [
        (seen("WAITING"), "waiting"),
        (seen("WAITING", status="finished"), "waiting"),
        (seen("WAITING", status="canceled"), "cancelled"),
        (seen("GONE", status="canceled"), "cancelled"),
        (seen("GONE", status="failed"), "gone"),
        (seen("DONE", AT), "done"),
        (seen("DONE", AT, status="canceled"), "done"),
        (seen("DONE", {"refused": "guard"}), "refused"),
        (seen("DONE", {"failed": "handler", "soft": True}), "failed"),
        (seen("FAILED"), "failed"),
        (seen("FAILED", status="canceled"), "failed"),
        (seen("MISSING"), "unknown"),
    ],
)
def test_where_a_job_stands_is_judged_by_its_place(view: JobView, word: str) -> None:
    assert standing(view) == word


def test_a_waiter_looks_sleeps_and_looks_again() -> None:
    requests, outcome = follow(
        verbs.wait(KEYS, "j", "p", "put", 60), seen("WAITING"), None, seen("WAITING"), None, seen("DONE", AT)
    )

    assert outcome.state == "open"
    assert [request.script or request.commands[0][0] for request in requests] == ["ask", "XREAD", "ask", "XREAD", "ask"]
    command = requests[1].commands[0]
    assert (command[command.index("BLOCK") + 1], command[-2:]) == (1000, ("rq:results:j", "0-0"))


def test_of_what_was_just_sent_nobody_asks_whether_it_has_ended_before_the_sleep() -> None:
    # Without `just_sent` a call takes a round trip more.
    requests, outcome = follow(
        verbs.wait(KEYS, "j", "p", "put", 60, just_sent=True), None, seen("WAITING"), None, seen("DONE", AT)
    )

    assert [request.script or request.commands[0][0] for request in requests] == ["XREAD", "ask", "XREAD", "ask"]
    assert [request.commands[0][-1] for request in requests[::2]] == ["0", "0-0"]
    assert all(request.is_ahead for request in requests)
    assert outcome.ok


def test_without_time_to_wait_what_was_just_sent_is_looked_at_all_the_same() -> None:
    (request,), outcome = follow(verbs.wait(KEYS, "j", "p", "put", 0, just_sent=True), seen("DONE", AT))

    assert (request.script, outcome.ok) == ("ask", True)


def test_a_waiter_without_a_limit_sleeps_in_slices() -> None:
    requests, _ = follow(verbs.wait(KEYS, "j", "p", "put", None), seen("WAITING"), None, seen("DONE", AT))

    assert 1000 in requests[1].commands[0]


@pytest.mark.parametrize("timeout", [0, -1, 0.0001])
def test_a_waiter_gives_up_when_its_time_is_over_and_says_that_the_event_stays(timeout: float) -> None:
    with pytest.raises(CallTimeoutError, match=r"it stays enqueued as job j") as raised:
        follow(verbs.wait(KEYS, "j", "p", "put", timeout), seen("WAITING"), StoreError("away just then"))

    assert (raised.value.name, raised.value.event, raised.value.job_id) == ("p", "put", "j")


# Sending.


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("UNKNOWN", UnknownFSMError, "no FSM 'p' in namespace 'default'"),
        ("FINISHED open", FSMFinishedError, "'p' has finished in state 'open'"),
        ("FINISHED a state of words", FSMFinishedError, "'a state of words'"),
        ("FULL 100", MailboxFullError, r"mailbox of FSM 'p' is full \(100 events\)"),
        ("CONFLICT", KeyConflictError, "key 'mine' was used for another event"),
        ("SKIPPED", RefusedError, "an event for this FSM before it in the same call was refused"),
        ("BROKEN", StoreError, "fsm:default:snapshot:p should be a hash, fsm:default:mailbox:p a list"),
    ],
)
def test_each_refusal_of_a_send_has_its_error(word: str, error: type[Exception], text: str) -> None:
    item = verbs.Sending("p", "put", job_id="mine")

    _, verdicts = follow(verbs.send_many(KEYS, [item]), [word])

    assert (verdicts[0].ok, type(verdicts[0].error)) == (False, error)
    with pytest.raises(error, match=text):
        raise verdicts[0].error


@pytest.mark.parametrize("word", ["SENT", "DUPLICATE mail", "DUPLICATE done"])
def test_what_was_sent_before_is_sent(word: str) -> None:
    _, verdicts = follow(verbs.send_many(KEYS, [verbs.Sending("p", "put", job_id="mine")]), [word])

    assert verdicts == [verbs.Verdict("p", "mine")]


def test_many_events_go_in_calls_of_bounded_size_with_one_verdict_each() -> None:
    count = 2 * calls.MOST_ITEMS + 1
    items = [verbs.sending(None, f"p{number}", "put", number) for number in range(count)]

    requests, verdicts = follow(
        verbs.send_many(KEYS, items), ["SENT"] * calls.MOST_ITEMS, ["UNKNOWN"] * calls.MOST_ITEMS, ["SENT"]
    )

    assert [len(request.arguments[6:]) // 6 for request in requests] == [calls.MOST_ITEMS, calls.MOST_ITEMS, 1]
    assert [verdict.name for verdict in verdicts] == [f"p{number}" for number in range(count)]
    assert sum(verdict.ok for verdict in verdicts) == calls.MOST_ITEMS + 1
    assert len({verdict.job_id for verdict in verdicts}) == count


def test_nothing_is_asked_for_nothing() -> None:
    assert follow(verbs.send_many(KEYS, [])) == ([], [])
    assert follow(verbs.start_many(KEYS, Basket.definition, [])) == ([], [])
    assert follow(verbs.looking.states(KEYS, [])) == ([], [])


def test_data_are_typed_where_the_handlers_of_the_event_agree() -> None:
    definition = Basket.definition

    assert encode_data(definition, "add", Line("tea", 12)) == b'{"sku":"tea","price":12}'
    assert encode_data(definition, "add", {"sku": "tea", "price": 12}) == b'{"sku":"tea","price":12}'
    assert encode_data(definition, "close", "late") == b'"late"'
    assert encode_data(definition, "close", 2) == b"2"
    assert encode_data(definition, "end", {"any": "thing"}) == b'{"any":"thing"}'
    assert encode_data(definition, "add", None) == encode_data(None, "add", None) == b"null"
    with pytest.raises(PayloadError, match=r"\$\.price: "):
        encode_data(definition, "add", {"sku": "tea", "price": "x"})
    with pytest.raises(PayloadError, match="Line"):
        encode_data(None, "add", Line("tea", 12))


@pytest.mark.parametrize("meta", [[], "x", 7, object()])
def test_meta_are_a_dict(meta: Any) -> None:
    with pytest.raises(PayloadError, match="meta: meta is a dict of JSON values, not "):
        verbs.sending(None, "p", "put", None, meta)


# Starting and purging.


def test_each_refusal_of_a_start_has_its_error() -> None:
    _, verdicts = follow(
        verbs.start_many(KEYS, Basket.definition, [("a", None), ("b", None), ("c", None)]),
        ["CREATED", "EXISTS", "BROKEN"],
    )

    assert [type(verdict.error) for verdict in verdicts] == [type(None), FSMExistsError, StoreError]
    assert "fsm:default:snapshot:c should be a hash" in str(verdicts[2].error)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([("a", None), ("", None)], "must not be empty"),
        ([("a", None), ("b", [1])], "declared"),
        ([("a", None), ("b", {"x": "y" * 1_048_576})], "allows 1048576"),
    ],
)
def test_where_one_of_many_is_wrong_none_is_started(items: list[Any], problem: str) -> None:
    with pytest.raises(PayloadError, match=problem):
        follow(verbs.start_many(KEYS, Basket.definition, items))


def test_a_purge_goes_on_until_it_is_done_and_sleeps_while_a_worker_holds_the_fsm() -> None:
    requests, _ = follow(verbs.purge(KEYS, "p", "", 10), "7", "HELD", None, "AGAIN", "AGAIN", "PURGED")

    assert [request.script or request.commands[0][0] for request in requests] == [
        "HGET", "purge", "XREAD", "purge", "purge", "purge",
    ]  # fmt: skip
    assert all("7" in request.arguments for request in requests if request.script)


def test_a_purge_is_done_when_this_life_is_gone_whoever_took_it() -> None:
    follow(verbs.purge(KEYS, "p", "", 10), "7", "AGAIN", "UNKNOWN")


@pytest.mark.parametrize(("born", "found"), [("", ""), ("6", "7")])
def test_another_life_of_the_name_is_not_purged(born: str, found: str) -> None:
    with pytest.raises(UnknownFSMError, match="'p'"):
        follow(verbs.purge(KEYS, "p", born, 10), found)


def test_after_a_refusal_events_of_that_fsm_in_later_calls_are_not_sent() -> None:
    items = [verbs.sending(None, f"p{number}", "put") for number in range(calls.MOST_ITEMS)]
    items += [verbs.sending(None, "p7", "put"), verbs.sending(None, "p8", "put")]
    words = ["FULL 10" if number == 7 else "SENT" for number in range(calls.MOST_ITEMS)]

    requests, verdicts = follow(verbs.send_many(KEYS, items), words, ["SENT"])

    assert len(requests[1].arguments[6:]) == 6
    assert [verdict.ok for verdict in verdicts[-2:]] == [False, True]
    assert isinstance(verdicts[-2].error, RefusedError)


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("BROKEN", StoreError, "a key of FSM 'p'"),
        ("HELD", CallTimeoutError, "a worker has it in hand"),
    ],
)
def test_each_refusal_of_a_purge_has_its_error(word: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        follow(verbs.purge(KEYS, "p", "", -1), "7", word)


# Looking.

FIELDS = {
    b"machine": b"Parcel", b"state": b"open", b"payload": b'{"n":1}', b"version": b"3", b"status": b"running",
    b"born": b"1700000000000000", b"updated_at": b"1700000000000",
}  # fmt: skip


def test_a_snapshot_is_read() -> None:
    _, snapshot = follow(verbs.state(KEYS, "p"), FIELDS)

    assert (snapshot.name, snapshot.state, snapshot.payload, snapshot.version, snapshot.queue) == (
        "p", "open", {"n": 1}, 3, "fsm",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "shown"),
    [("", "paused"), ("starting", "paused"), ("failed", "failed"), ("finished", "finished")],
)
def test_a_pause_is_noted_apart_from_the_status_and_hides_no_end(status: str, shown: str) -> None:
    _, snapshot = follow(verbs.state(KEYS, "p"), {**FIELDS, b"status": status.encode(), b"paused": b"1700000000000"})

    assert snapshot.status == snapshot.as_json()["status"] == shown


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, ("", 1)),
        ({b"definition": b"1a2b3c4d"}, ("1a2b3c4d", 1)),
        ({b"definition": b"1a2b3c4d.3+s"}, ("1a2b3c4d", 3)),
        # As older versions of ours wrote it.
        ({b"definition": b"1a2b3c4d", b"definition_version": b"2"}, ("1a2b3c4d", 2)),
        ({b"definition": b"1a2b3c4d.3", b"definition_version": b"2"}, ("1a2b3c4d", 3)),
        ({b"definition": b"1a2b3c4d", b"definition_version": b"x"}, ("1a2b3c4d", 1)),
    ],
)
def test_the_definition_that_wrote_a_snapshot_last_is_read(fields: dict[bytes, bytes], shown: tuple[str, int]) -> None:
    _, snapshot = follow(verbs.state(KEYS, "p"), {**FIELDS, **fields})

    assert (snapshot.definition, snapshot.definition_version) == shown


def test_the_time_of_a_retry_is_read() -> None:
    _, snapshot = follow(verbs.state(KEYS, "p"), {**FIELDS, b"retry_at": b"1700000000500"})

    assert snapshot.as_json()["retry_at"] == snapshot.retry_at.isoformat() == "2023-11-14T22:13:20.500000+00:00"
    assert follow(verbs.state(KEYS, "p"), FIELDS)[1].as_json()["retry_at"] is None


@pytest.mark.parametrize(
    ("history", "states"),
    [
        (None, ("open",)),
        (b"", ("open",)),
        (b"lost", ("lost", "open")),
        ("lost>in der Prüfung>7".encode(), ("lost", "in der Prüfung", "7", "open")),
        (b'["lost","7"]', ("lost", "7", "open")),
        (b"[]", ("open",)),
    ],
)
def test_a_history_is_read_in_both_forms_that_were_ever_written(history: bytes | None, states: tuple[str, ...]) -> None:
    fields = FIELDS if history is None else {**FIELDS, b"history": history}

    assert follow(verbs.state(KEYS, "p"), fields)[1].history == states


def test_what_divides_the_states_of_a_history_stands_in_no_name_of_a_state() -> None:
    assert all(state_name_remedy(name) for name in ("in>out", ">", "[in", '["in"]'))


@pytest.mark.parametrize("fields", [{}, {**FIELDS, b"status": b"purging"}])
def test_what_is_not_there_is_unknown(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(UnknownFSMError, match="'p'"):
        follow(verbs.state(KEYS, "p"), fields)
    assert follow(verbs.states(KEYS, ["p", "q"]), [fields, {}])[1] == [None, None]


@pytest.mark.parametrize(
    "edit",
    [
        {b"version": b"x"},
        {b"payload": b"{"},
        {b"updated_at": b""},
        {b"history": b"[7"},
        {b"error": b"{"},
        {b"retry_at": b"1" * 30},
        {b"retry_at": b"x"},
    ],
)
def test_a_snapshot_edited_by_hand_is_named(edit: dict[bytes, bytes]) -> None:
    with pytest.raises(StoreError, match=r"the snapshot of FSM 'p' cannot be read .* edited by hand"):
        follow(verbs.state(KEYS, "p"), {**FIELDS, **edit})


def test_a_key_of_another_type_is_named() -> None:
    wrong = StoreError("Redis holds something else (WRONGTYPE …)")
    away = StoreError("Redis cannot be reached")

    with pytest.raises(StoreError, match="key fsm:default:snapshot:p should be the snapshot of FSM 'p'"):
        follow(verbs.state(KEYS, "p"), wrong)
    with pytest.raises(StoreError) as raised:
        follow(verbs.state(KEYS, "p"), away)
    assert raised.value is away
    assert not isinstance(raised.value, redis.RedisError)


def test_what_is_allowed_is_known_by_the_class_or_by_what_was_announced() -> None:
    known = {"Parcel": {"allowed": {"open": ["put"]}}}

    assert follow(verbs.allowed(KEYS, "p", Parcel.definition), FIELDS)[1] == ("put", "pack")
    assert follow(verbs.allowed(KEYS, "p", None), FIELDS, known)[1] == ("put",)
    assert follow(verbs.allowed(KEYS, "p", Basket.definition), FIELDS, known)[1] == ("put",)
    assert follow(verbs.allowed(KEYS, "p", None), {**FIELDS, b"status": b"finished"})[1] == ()
    with pytest.raises(UnknownMachineError, match="unknown machine 'Parcel': known are Basket"):
        follow(verbs.allowed(KEYS, "p", None), FIELDS, {"Basket": {}})


def test_a_machine_whose_announcement_was_edited_by_hand_is_named() -> None:
    read = verbs.machines(KEYS).read

    assert read({b"b": b"{}", b"a": b'{"queue":"x"}'}) == {"a": {"queue": "x"}, "b": {}}
    with pytest.raises(StoreError, match="machine 'b' in fsm:default:machines cannot be read"):
        read({b"b": b"{"})


def test_counts_go_machine_by_machine() -> None:
    known = {"A": {"states": ["x", "y"]}, "B": {"states": ["z"]}}

    assert follow(verbs.counts(KEYS), known, [], [1, 4, 2, 0, 0, 3])[1] == {"A": {"x": 5, "y": 2}, "B": {"z": 3}}
    # States that no diagram has any more, and machines that nobody announces any more, while FSMs are left of them.
    older = [("A", "w"), ("A", "x"), ("Z", "u"), ("Z", "v")]
    sizes = [0] * 6 + [0, 1, 0, 0, 7, 0]
    assert follow(verbs.counts(KEYS), known, older, sizes)[1] == {
        "A": {"x": 0, "y": 0, "w": 1},
        "B": {"z": 0},
        "Z": {"v": 7},
    }
    assert follow(verbs.counts(KEYS), {}, [])[1] == {}
