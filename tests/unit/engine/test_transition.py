"""What a handler sees of a transition, and what it may put into it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
import redis
import rq

from fsm import Goto, HandlerError, Machine, PayloadError, Retry, RetryPolicy, Settings, Transition
from fsm.engine import Effect, Event, HandlerTimeout, Mail, NewFSM, checked_event, checked_name, derived_id
from fsm.errors import ConfigError
from tests.unit.engine.probe import Probe, life_of


def transition(event: Event | None = None) -> Transition[dict[str, Any]]:
    return Transition(life_of(Probe()), event or Event("job", "go", b'{"a":[1]}', {"actor": "ada"}, 2), "a", "a", 2)


def test_its_repr_names_fsm_and_event_and_shows_nothing_of_payload_or_data() -> None:
    # Seen to fail without `__repr__` and without `__rich_repr__`: those of a struct show all that it holds, and rich
    # asks the second as it prints a traceback with locals.
    t = transition(Event("job", "go", b'{"card":"4111"}'))
    assert t.data == {"card": "4111"}
    assert repr(t) == "Transition('fsm-1', 'go')"
    assert t.__rich_repr__() == [("name", "fsm-1"), ("event", "go")]


def test_the_repr_of_what_is_made_around_it_shows_nothing_of_the_payload_either() -> None:
    # Seen to fail without `__repr__` and `__rich_repr__` of each: error trackers send the locals of every frame.
    life = life_of(Probe())
    assert life.payload == {"n": 7}
    assert repr(life) == "Life('fsm-1', 'a')"
    assert life.__rich_repr__() == [("name", "fsm-1"), ("state", "a")]


def effect(path: str) -> None:
    """Stand for an effect of an application."""


@dataclass
class Cart:
    owner: str
    items: list[str] = field(default_factory=list)


class Shop(Machine[Cart]):
    settings = Settings(payload_limit=60)
    diagram = """
    stateDiagram-v2
        [*] --> open : begin
        open --> [*] : close
    """


def test_a_transition_says_what_is_being_done() -> None:
    t = transition()

    assert (t.name, t.event, t.job_id, t.source, t.target) == ("fsm-1", "go", "job", "a", "a")
    assert (t.version, t.attempt, t.data, t.payload, t.meta) == (7, 2, {"a": [1]}, {"n": 7}, {"actor": "ada"})
    assert t.now == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_meta_is_a_private_copy() -> None:
    event = Event("job", "go", meta={"actor": {"name": "ada"}})
    t = transition(event)

    t.meta["actor"]["name"] = object()

    assert t.meta["actor"]["name"] != "ada"
    assert event.meta == {"actor": {"name": "ada"}}


def test_the_log_knows_where_it_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    t = transition()
    with caplog.at_level(logging.INFO, "fsm.transition"):
        t.log.info("paid")

    record = caplog.records[0]
    assert {name: vars(record)[name] for name in ("fsm", "machine", "event", "job_id", "attempt", "version")} == {
        "fsm": "fsm-1",
        "machine": "Probe",
        "event": "go",
        "job_id": "job",
        "attempt": 2,
        "version": 7,
    }
    assert t.machine == "Probe"


def test_the_log_keeps_what_the_caller_adds(caplog: pytest.LogCaptureFixture) -> None:
    # Seen to fail with LoggerAdapter itself, which before Python 3.13 drops the caller's `extra`.
    with caplog.at_level(logging.INFO, "fsm.transition"):
        transition().log.info("paid %d", 12, extra={"amount": 12, "event": "its own"})

    record = caplog.records[0]
    assert (record.getMessage(), vars(record)["amount"], vars(record)["event"]) == ("paid 12", 12, "its own")
    assert vars(record)["fsm"] == "fsm-1"


def test_what_leaves_is_gathered_in_order_with_ids_that_a_crash_does_not_change() -> None:
    def make() -> Transition[dict[str, Any]]:
        t = transition()
        data = {"n": 1}
        t.send("other", "go", data)
        data["n"] = 2
        t.start_fsm(Shop, "shop", Cart("ada"))
        t.enqueue(effect, "path", tries=3)
        t.start_fsm(Shop, "edge", Cart("ada"), host="edge-7")
        t.enqueue("shop.bank.charge", 12, queue="slow")
        return t

    first, second = make().outbox, make().outbox

    assert first == second
    assert first == [
        Mail("job--s1", "other", "go", b'{"n":1}'),
        NewFSM("job--f2", "shop", Shop.definition, b'{"owner":"ada","items":[]}'),
        Effect("job--e3", "fsm-effects", f"{__name__}.effect", first[2].call),
        NewFSM("job--f4", "edge", Shop.definition, b'{"owner":"ada","items":[]}', "edge-7"),
        Effect("job--e5", "slow", "shop.bank.charge", b'["shop.bank.charge",null,[12],{}]'),
    ]
    assert first[2].call == b'["%s.effect",null,["path"],{"tries":3}]' % __name__.encode()


@pytest.mark.parametrize("host", ["", "edge 7", "a@b", 7])
def test_a_host_that_cannot_be_one_is_refused_where_it_is_asked_for(host: Any) -> None:
    t = transition()
    with pytest.raises(PayloadError, match="the name of a host is"):
        t.start_fsm(Shop, "shop", Cart("ada"), host=host)

    assert t.outbox == []


def test_ids_that_would_grow_too_long_are_folded_to_something_as_unique() -> None:
    ids, job_id = set(), "a" * 24
    for _ in range(100):
        job_id = derived_id(job_id, "s1")
        ids.add(job_id)

    assert len(ids) == 100
    assert max(map(len, ids)) <= 64
    assert derived_id("x" * 128, "h1") != derived_id("y" * 128, "h1")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must not be empty"),
        ("x" * 513, "at most 512 bytes, and 'xxxx"),
        ("é" * 257, "has 514"),
        ("\ud800", "holds a lone surrogate"),
        (None, "is text, not NoneType None"),
        (b"x", "is text, not bytes"),
        (7, "is text, not int 7"),
    ],
)
def test_names_that_cannot_be_are_refused_wherever_they_are_given(name: Any, problem: str) -> None:
    t = transition()

    for give in (checked_name, lambda name: t.send(name, "go"), lambda name: t.start_fsm(Shop, name, Cart("ada"))):
        with pytest.raises(PayloadError, match=problem):
            give(name)
    assert t.outbox == []


@pytest.mark.parametrize("name", ["x", "x" * 512, "é" * 256, "a b:c\n{d}\t🐙", " ", "\x00"])
def test_any_other_text_is_a_name(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("event", ["", "x" * 513, "\ud800", None, 7, b"go"])
def test_events_that_cannot_be_are_refused(event: Any) -> None:
    with pytest.raises(PayloadError, match="the name of an event"):
        checked_event(event)
    with pytest.raises(PayloadError, match="the name of an event"):
        transition().send("other", event)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (None, r"\$: "),
        (Cart("ada", ["tea"] * 20), r"\$: the payload has \d+ bytes, and Settings\(payload_limit=…\) allows 60"),
        ({"owner": 7}, r"\$\.owner: "),
        (Cart("ada", [7]), r"\$\.items\[0\]: "),  # type: ignore[list-item]  # that is what is tried
    ],
)
def test_an_fsm_cannot_be_started_with_a_payload_that_it_could_not_carry(payload: Any, problem: str) -> None:
    t = transition()

    with pytest.raises(PayloadError, match=problem):
        t.start_fsm(Shop, "shop", payload)
    assert t.outbox == []


@pytest.mark.parametrize(
    "func",
    [
        "print",
        "a b.c",
        "",
        "shop.",
        "__main__.charge",
        lambda: None,
        partial(effect, "x"),
        Shop.freeze.__get__(Shop()),
        7,
        None,
    ],
)
def test_an_effect_must_be_importable_by_another_process(func: Any) -> None:
    with pytest.raises(PayloadError, match="func: an effect"):
        transition().enqueue(func)


@pytest.mark.parametrize("queue", ["", None, 7, b"slow", "a\nb", "\ud800"])
def test_the_queue_of_an_effect_is_a_name(queue: Any) -> None:
    t = transition()

    with pytest.raises(PayloadError, match="queue: the queue of an effect is its name"):
        t.enqueue(effect, "x", queue=queue)
    assert t.outbox == []


def test_the_end_of_an_effect_comes_back_as_an_event_of_this_machine() -> None:
    t = transition()

    t.enqueue(effect, on_success="quit", on_failure="go")

    assert (t.outbox[0].on_success, t.outbox[0].on_failure) == ("quit", "go")
    for wrong in ({"on_success": "riskj"}, {"on_failure": "riskj"}):
        with pytest.raises(HandlerError, match=r"='riskj': machine 'Probe' has no such event, did you mean 'risky'\?"):
            t.enqueue(effect, **wrong)
    with pytest.raises(HandlerError, match="on_success=7: machine"):
        t.enqueue(effect, on_success=7)
    assert len(t.outbox) == 1


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (None, ()),
        (0, ()),
        (2, (0, 0)),
        (RetryPolicy(attempts=1), ()),
        (RetryPolicy(attempts=5, delay="1s", factor=3, max_delay="10s"), (1, 3, 9, 10)),
        (rq.Retry(max=3, interval=[10, 30]), (10, 10, 30)),
        (rq.Retry(max=2, interval=5), (5, 5)),
        (rq.Retry(max=1, interval=[1, 2, 3]), (3,)),
    ],
    ids=str,
)
def test_retries_of_an_effect_are_told_in_several_ways(retry: Any, waits: tuple[int, ...]) -> None:
    t = transition()

    t.enqueue(effect, retry=retry)

    assert t.outbox[0].waits == waits
    if isinstance(retry, rq.Retry):
        job = rq.job.Job(connection=redis.Redis())
        job.retry_intervals = list(retry.intervals)
        theirs = []
        for left in range(retry.max, 0, -1):
            job.retries_left = left
            theirs.append(job.get_retry_interval())
        assert tuple(theirs) == waits


@pytest.mark.parametrize("retry", [-1, True, 1.5, "3", 1001, RetryPolicy(attempts=1002)], ids=str)
def test_retries_of_an_effect_that_cannot_be_are_refused(retry: Any) -> None:
    with pytest.raises(PayloadError, match="retry: the retries of an effect are a number from 0 to 1000"):
        transition().enqueue(effect, retry=retry)


@pytest.mark.parametrize(("given", "seconds"), [(None, 180), ("2m", 120), (0.5, 1), (61, 61)])
def test_an_effect_may_run_for_as_long_as_it_is_told(given: Any, seconds: int) -> None:
    t = transition()

    t.enqueue(effect, job_timeout=given)

    assert t.outbox[0].seconds == seconds
    with pytest.raises(PayloadError, match="job_timeout: "):
        t.enqueue(effect, job_timeout="soon")


def test_arguments_of_an_effect_must_be_json() -> None:
    with pytest.raises(PayloadError, match=r"\$\[0\]: a bytes is not JSON"):
        transition().enqueue(effect, b"")
    with pytest.raises(PayloadError, match=r"\$\.when: a datetime is not JSON"):
        transition().enqueue(effect, when=datetime.now(UTC))


def test_a_reply_is_what_it_was_when_it_was_given() -> None:
    t, value = transition(), {"n": 1}

    t.reply(value)
    value["n"] = 2

    assert t.replied == {"n": 1}
    with pytest.raises(PayloadError):
        t.reply(object())


def test_the_time_out_of_a_handler_is_no_exception_that_it_would_catch() -> None:
    assert not issubclass(HandlerTimeout, Exception)
    assert issubclass(HandlerError, Exception)


def test_answers_are_values() -> None:
    assert Goto("a") == Goto("a")
    assert Retry(after="30s") != Retry()
    with pytest.raises(ConfigError, match=r"Retry\(after=…\)"):
        Retry(after="soon")


def test_what_is_sent_may_join_its_mailbox_later() -> None:
    t = transition()

    t.send("ada", "go")
    t.send("ada", "go", delay=0)
    t.send("ada", "go", delay="10m")
    t.send("ada", "go", delay=timedelta(seconds=1.5))
    t.send("ada", "go", at=datetime(2026, 12, 1, 8, tzinfo=timezone(timedelta(hours=1))))
    t.send("ada", "go", at=datetime(1960, 1, 1, tzinfo=UTC))

    assert [mail.due for mail in t.outbox if isinstance(mail, Mail)] == [
        "",
        "",
        "+600000",
        "+1500",
        "1796108400000",
        "0",
    ]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"delay": -1}, "delay: -1 is negative"),
        ({"delay": "soon"}, "delay: 'soon' is no length of time"),
        ({"delay": True}, "delay: True is no length of time"),
        ({"at": datetime(2026, 12, 1)}, "at: must be an aware datetime"),  # noqa: DTZ001 - naive, as told
        ({"at": 7}, "at: must be an aware datetime, .* not 7"),
        ({"delay": 1, "at": datetime(2026, 12, 1, tzinfo=UTC)}, "delay and at exclude one another"),
    ],
)
def test_a_time_that_is_none_sends_nothing(when: Any, problem: str) -> None:
    t = transition()

    with pytest.raises(PayloadError, match=problem):
        t.send("ada", "go", **when)
    assert t.outbox == []


def test_an_effect_may_have_a_deadline() -> None:
    t = transition()
    t.enqueue(effect, on_failure="go", deadline="10m")
    t.enqueue(effect, on_failure="go")

    assert [item.deadline_ms for item in t.outbox if isinstance(item, Effect)] == [600_000, None]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"deadline": "10m"}, "deadline: the deadline of an effect tells its FSM by the on_failure event: give one"),
        ({"deadline": "10m", "on_success": "go"}, "on_failure"),
        ({"deadline": "soon", "on_failure": "go"}, "deadline: 'soon' is no length of time"),
        ({"deadline": 0, "on_failure": "go"}, "deadline: 0 is too short"),
    ],
)
def test_a_deadline_that_tells_nobody_or_is_none_is_refused(options: Any, problem: str) -> None:
    t = transition()

    with pytest.raises(PayloadError, match=problem):
        t.enqueue(effect, **options)
    assert t.outbox == []
