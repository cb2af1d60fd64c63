"""Options of a send: what is refused before Redis is asked, and what the script's words about them mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fsm import (
    FSMExistsError,
    KeyConflictError,
    NotAllowedError,
    PayloadError,
    RefusedError,
    StaleVersionError,
    verbs,
)
from fsm.store import calls
from tests.unit.engine.office import Parcel
from tests.unit.test_verbs import KEYS, follow

DEFINITION = Parcel.definition


def fields(item: verbs.Sending) -> dict[str, Any]:
    return dict(zip(item.more[::2], item.more[1::2], strict=True))


# Keys.


def test_a_key_makes_an_id_of_fsm_and_key_and_a_digest_of_event_and_data() -> None:
    item = verbs.sending(None, "p", "put", {"n": 1}, key="stripe:evt_1")

    assert item.job_id.endswith(":")
    assert len(item.job_id) == 25
    assert (fields(item)["key"], len(fields(item)["digest"])) == ("stripe:evt_1", 16)


def test_ids_of_keys_differ_by_fsm_and_key_and_not_by_where_one_ends() -> None:
    pairs = [("p", "k"), ("p", "l"), ("q", "k"), ("pk", "k"), ("p", "kk"), ("a", "bc"), ("ab", "c")]

    assert len({verbs.sending(None, name, "put", key=key).job_id for name, key in pairs}) == len(pairs)
    assert verbs.sending(None, "p", "pay", 1, key="k").job_id == verbs.sending(None, "p", "put", 2, key="k").job_id


def test_digests_differ_by_event_and_data_and_not_by_the_order_of_keys() -> None:
    def digest(event: str, data: Any) -> str:
        return str(fields(verbs.sending(None, "p", event, data, key="k"))["digest"])

    different = [("put", 1), ("put", "1"), ("put", None), ("pay", 1), ("put", {"a": 1, "b": 2}), ("put", {"a": 1})]
    assert len({digest(event, data) for event, data in different}) == len(different)
    assert digest("put", {"a": 1, "b": {"c": 2, "d": 3}}) == digest("put", {"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("key", ["k", "x" * 512, "é" * 256, "a:b c\n--", "\0"])
def test_a_key_is_any_text_of_up_to_512_bytes(key: str) -> None:
    assert verbs.sending(None, "p", "put", key=key).key == key


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "a key is text, not empty, such as 'stripe:evt_1', not ''"),
        ("x" * 513, "a key has at most 512 bytes, and 'x{40}'… has 513"),
        ("é" * 257, "has 514"),
        (7, "a key is text, not empty, such as 'stripe:evt_1', not 7"),
        (b"k", "a key is text"),
        (True, "a key is text"),
        ("\ud800", "holds a lone surrogate"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_its_fault(key: Any, problem: str) -> None:
    with pytest.raises(PayloadError, match=f"^key: .*{problem}"):
        verbs.sending(None, "p", "put", key=key)


def test_a_key_and_a_job_id_together_are_refused() -> None:
    with pytest.raises(PayloadError, match="key: a key makes a job id of its own: give either key= or job_id="):
        verbs.sending(None, "p", "put", key="k", job_id="mine")


@pytest.mark.parametrize(
    ("word", "job_id"),
    [("SENT h-7", "h-7"), ("DUPLICATE mail h-7", "h-7"), ("DUPLICATE  h-7", "h-7")],
)
def test_the_words_for_a_key_tell_its_job(word: str, job_id: str) -> None:
    item = verbs.sending(None, "p", "put", key="k")

    assert follow(verbs.send_many(KEYS, [item]), [word])[1] == [verbs.Verdict("p", job_id)]


def test_a_conflict_of_a_key_names_the_key() -> None:
    item = verbs.sending(None, "p", "put", key="stripe:evt_1")

    _, (verdict,) = follow(verbs.send_many(KEYS, [item]), ["CONFLICT h-7"])

    assert isinstance(verdict.error, KeyConflictError)
    assert (verdict.error.key, verdict.error.name, verdict.job_id) == ("stripe:evt_1", "p", "h-7")
    assert "or for other data" in str(verdict.error)


# Versions.


@pytest.mark.parametrize("version", [-1, 1.0, "1", True, 2**53 + 1, [1]])
def test_a_version_that_cannot_be_is_refused(version: Any) -> None:
    with pytest.raises(
        PayloadError, match="if_version: if_version is the version of a snapshot, a whole number from 0"
    ):
        verbs.sending(None, "p", "put", if_version=version)


def test_a_version_and_a_key_go_together() -> None:
    item = verbs.sending(None, "p", "put", key="k", if_version=0)

    assert fields(item).keys() == {"key", "digest", "if_version"}


def test_stale_is_told_with_both_versions_and_the_state() -> None:
    item = verbs.sending(None, "p", "put", if_version=3)

    _, (verdict,) = follow(verbs.send_many(KEYS, [item]), ["STALE 5 a state of words"])

    error = verdict.error
    assert isinstance(error, StaleVersionError)
    assert (error.state, error.version, error.details) == ("a state of words", 5, {"version": 5, "if_version": 3})
    assert str(error) == (
        "event 'put' of FSM 'p' in state 'a state of words': "
        "it was decided on version 3 of the FSM, which has version 5 now"
    )


# What the machine does not have.


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        ("putt", ", did you mean 'put'?; its events: put, pack"),
        ("xyz", "no such event; its events"),
        ("begin", "; its"),
    ],
)
def test_an_event_that_the_machine_does_not_have_comes_with_its_error(event: str, hint: str) -> None:
    error = verbs.sending(DEFINITION, "p", event, object()).error

    assert isinstance(error, NotAllowedError)
    assert error.allowed == DEFINITION.graph.events
    assert hint in str(error)
    assert "in state" not in str(error)


def test_without_the_class_any_event_may_be_sent() -> None:
    assert verbs.sending(None, "p", "putt").error is None


def test_what_has_an_error_is_not_sent_and_later_events_of_its_fsm_are_skipped() -> None:
    events = [("p", "put"), ("p", "putt"), ("q", "put"), ("p", "put"), ("p", "putt")]
    items = [verbs.sending(DEFINITION, name, event) for name, event in events]

    (request,), verdicts = follow(verbs.send_many(KEYS, items), ["SENT", "SENT"])

    assert [request.arguments[6], request.arguments[12]] == ["p", "q"]
    assert len(request.arguments) == 18
    assert [type(verdict.error) for verdict in verdicts] == [
        type(None), NotAllowedError, type(None), RefusedError, RefusedError,
    ]  # fmt: skip
    assert "before it in the same call was refused" in str(verdicts[-1].error)


def test_nothing_is_asked_where_nothing_may_be_sent() -> None:
    items = [verbs.sending(DEFINITION, "p", "putt")] * (calls.MOST_ITEMS + 1)

    requests, verdicts = follow(verbs.send_many(KEYS, items))

    assert (requests, len(verdicts)) == ([], calls.MOST_ITEMS + 1)
    assert [type(verdict.error) for verdict in verdicts[:2]] == [NotAllowedError, RefusedError]


# Starting on the way.


def test_a_machine_is_told_once_and_an_fsm_with_each_event() -> None:
    item = verbs.sending(DEFINITION, "p", "put")

    (request,), verdicts = follow(verbs.send_many(KEYS, [item], DEFINITION, first_payload=b'{"a":1}'), ["SENT"])

    arguments = request.arguments
    assert (arguments[5], arguments[6], len(arguments)) == ("8", "Parcel", 6 + 8 + 6 + 3)
    assert arguments[-2] == b'{"a":1}'
    assert arguments[-3] != verdicts[0].job_id


@pytest.mark.parametrize(
    ("word", "machine", "text"),
    [("EXISTS Order", "Order", "of machine 'Order'"), ("EXISTS", "", "'p' exists already in namespace 'default': use")],
)
def test_an_fsm_of_another_machine_is_told_with_that(word: str, machine: str, text: str) -> None:
    item = verbs.sending(DEFINITION, "p", "put")

    _, (verdict,) = follow(verbs.send_many(KEYS, [item], DEFINITION, first_payload=b"{}"), [word])

    assert isinstance(verdict.error, FSMExistsError)
    assert verdict.error.machine == machine
    assert text in str(verdict.error)


# Many at once.


def test_many_are_checked_and_written_as_each_would_be_alone() -> None:
    items: list[Any] = [
        ("a", "put"),
        ("b", "put"),
        ("c", "putt"),
        ("d", "put", {"n": 1}),
        ("e", "put", None),
        ("f", "put"),
    ]

    many = verbs.sendings(DEFINITION, iter(items), {"actor": "me"})

    alone = [verbs.sending(DEFINITION, *item, meta={"actor": "me"}) for item in items]
    assert [(one.name, one.event, one.raw, one.meta) for one in many if one.error is None] == [
        (one.name, one.event, one.raw, one.meta) for one in alone if one.error is None
    ]
    assert [type(one.error) for one in many] == [type(one.error) for one in alone]
    assert sum(one.error is not None for one in many) == 1


@pytest.mark.parametrize("item", [("", "put"), (7, "put"), ("b", ""), ("b", ["put"]), ("b", "put", float("nan"))])
def test_one_of_many_that_is_wrong_is_refused_behind_those_that_are_not(item: Any) -> None:
    with pytest.raises(PayloadError):
        verbs.sendings(None, [("a", "put"), ("a", "put"), item])


def test_meta_that_is_wrong_is_refused_for_many_as_for_one() -> None:
    with pytest.raises(PayloadError, match="meta is a dict"):
        verbs.sendings(None, [("a", "put")], [1])  # type: ignore[arg-type]
    assert verbs.sendings(None, [], [1]) == []  # type: ignore[arg-type]


# Delays.


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({}, None),
        ({"delay": 0}, None),
        ({"delay": 2.5}, "+2500"),
        ({"delay": "1d12h"}, "+129600000"),
        ({"delay": timedelta(minutes=10)}, "+600000"),
        ({"at": datetime(2026, 12, 1, 8, tzinfo=timezone(timedelta(hours=1)))}, "1796108400000"),
    ],
)
def test_a_delay_is_for_redis_to_add_and_a_moment_is_in_ms(options: dict[str, Any], due: str | None) -> None:
    assert fields(verbs.sending(None, "p", "put", **options)).get("due") == due
    assert [fields(item).get("due") for item in verbs.sendings(None, [("p", "put"), ("q", "put", 1)], **options)] == [
        due
    ] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": "soon"},
        {"delay": float("nan")},
        {"at": datetime(2026, 12, 1)},  # noqa: DTZ001 - what is refused
        {"at": 1_796_108_400},
        {"delay": 1, "at": datetime(2026, 12, 1, tzinfo=UTC)},
    ],
)
def test_what_is_no_delay_and_no_moment_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PayloadError):
        verbs.sending(None, "p", "put", **options)
    with pytest.raises(PayloadError):
        verbs.sendings(None, [], **options)


def test_a_delay_and_a_key_and_a_version_go_together() -> None:
    item = verbs.sending(None, "p", "put", key="k", if_version=3, delay=1)
    assert fields(item).keys() == {"due", "key", "digest", "if_version"}
