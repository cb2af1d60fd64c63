"""One FSM in memory: what a unit test of an application sees of it."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fsm import (
    CallTimeoutError,
    ConfigError,
    DefinitionError,
    FSMFinishedError,
    HandlerError,
    InvalidDataError,
    Machine,
    Migration,
    NotAllowedError,
    PayloadError,
    RejectedError,
    Retry,
    RetryPolicy,
    Settings,
    StaleVersionError,
    Transition,
    UnknownMachineError,
    guard,
    on,
)
from fsm.testing import Trial, trial
from tests.unit.testing.shop import Bank, Cart, Line, Order, Parcel, charge

T = Transition[dict[str, Any]]


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def order(bank: Bank) -> Trial[Cart]:
    return trial(Order(bank))


@pytest.fixture
def paying(order: Trial[Cart]) -> Trial[Cart]:
    """An order that waits for its bank."""
    order.send("add", {"sku": "tea", "price": 12})
    order.send("pay")
    return order


def test_it_begins_with_its_entry_event_and_its_hooks(order: Trial[Cart], bank: Bank) -> None:
    assert bank.book == ["trial begins"]
    assert (order.state, order.status, order.version, order.history) == ("cart", "running", 1, ("cart",))
    assert order.payload == Cart()
    assert [(line["event"], line["to"]) for line in order.log] == [("begin", "cart")]


def test_a_state_is_where_it_begins_without_hooks(bank: Bank) -> None:
    order = trial(Order(bank), state="paying", payload=Cart(["tea"], 12), name="order-42")

    assert (order.name, order.state, order.status, order.version) == ("order-42", "paying", "running", 0)
    assert (order.payload, order.log, bank.book) == (Cart(["tea"], 12), [], [])


def test_a_hard_event_is_owed_by_a_state_in_which_it_begins(bank: Bank) -> None:
    order = trial(Order(bank), state="packed")

    assert (order.state, bank.book) == ("shipped", ["trial ships"])


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("payin", "no state 'payin' in machine 'Order', did you mean 'paying'"),
        ("[*]", "end in '[*]'"),
        ("delivered", "end in 'delivered'"),
        (7, "no state 7"),
    ],
)
def test_a_state_that_it_cannot_begin_in_is_refused(state: Any, text: str) -> None:
    with pytest.raises(DefinitionError, match=text.replace("[", r"\[").replace("*", r"\*")):
        trial(Order, state=state)


def test_an_event_gives_what_a_caller_is_told(order: Trial[Cart]) -> None:
    order.now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    order.send("add", Line("tea", 12))

    outcome = order.send("pay", meta={"actor": "ada"})

    assert (outcome.name, outcome.event, outcome.state, outcome.version) == ("trial", "pay", "paying", 3)
    assert outcome.ok
    assert outcome.reply == {"total": 12, "at": "2026-05-01T12:00:00+00:00"}
    assert order.log[-1] == {
        "name": "trial",
        "machine": "Order",
        "event": "pay",
        "from": "cart",
        "to": "paying",
        "version": 3,
        "job": outcome.job_id,
        "meta": {"actor": "ada"},
    }


def test_ids_of_jobs_are_the_same_in_each_run() -> None:
    ids = []
    for _ in range(2):
        order = trial(Order)
        ids.append([order.send("add", Line("tea", 12)).job_id, order.send("pay").job_id, order.enqueued[0].job_id])

    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_what_a_handler_sends_is_seen_in_order(paying: Trial[Cart]) -> None:
    first, second = paying.enqueued

    assert (first.func, first.args, first.kwargs) == ("tests.unit.testing.shop.charge", ("trial",), {"total": 12})
    assert (first.queue, first.on_success, first.on_failure, first.retries) == (
        "fsm-effects",
        "captured",
        "declined",
        (),
    )
    assert (second.func, second.args, second.queue, second.timeout) == ("shop.mail.thank", ("trial",), "letters", 5)
    assert (second.on_success, second.on_failure, second.retries) == (None, None, (0, 0))
    assert (paying.sent, paying.started) == ([], [])


def test_a_success_comes_back_as_its_event_and_hard_events_and_own_mail_follow(paying: Trial[Cart], bank: Bank) -> None:
    outcome = paying.succeed(paying.enqueued[0], "receipt-7")

    assert outcome is not None
    assert (outcome.event, outcome.state) == ("captured", "packed")
    assert (paying.state, paying.history) == ("shipped", ("paying", "packed", "shipped"))
    assert paying.payload.items == ["tea", "receipt-7"]
    assert paying.sent == [("stock", "take", {"for": "trial"})]
    assert paying.started == [("Parcel", "parcel-trial", {"weight": 2})]
    assert [line["event"] for line in paying.log] == ["begin", "add", "pay", "captured", "ship", "remind"]
    assert [one.func for one in paying.enqueued] == ["shop.mail.thank"]
    assert bank.book == ["trial begins", "trial ships"]


@pytest.mark.parametrize("which", [charge, "tests.unit.testing.shop.charge"], ids=["function", "path"])
def test_an_effect_is_known_by_its_function_where_only_one_is_open(paying: Trial[Cart], which: Any) -> None:
    outcome = paying.succeed(which, "receipt-7")

    assert outcome is not None
    assert outcome.event == "captured"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError("no line"), "TimeoutError: no line"),
        ("no line", "Exception: no line"),
        (OSError(), "OSError: OSError"),
    ],
)
def test_a_failure_comes_back_with_type_and_message(paying: Trial[Cart], error: Any, told: str) -> None:
    outcome = paying.fail(charge, error)

    assert outcome is not None
    assert (outcome.event, outcome.state) == ("declined", "cart")
    assert paying.payload.items == [told]


def test_a_value_that_is_no_json_comes_back_as_a_failure(paying: Trial[Cart]) -> None:
    outcome = paying.succeed(charge, {1, 2})

    assert outcome is not None
    assert outcome.event == "declined"
    assert paying.payload.items[0].startswith("PayloadError: $: an effect returns JSON values")


def test_an_effect_without_events_ends_in_silence(paying: Trial[Cart]) -> None:
    before = paying.version

    assert paying.succeed("shop.mail.thank", object()) is None
    assert paying.version == before
    assert [one.func for one in paying.enqueued] == ["tests.unit.testing.shop.charge"]


def test_a_second_answer_is_refused(paying: Trial[Cart]) -> None:
    effect = paying.enqueued[0]
    paying.succeed(effect, "receipt-7")

    with pytest.raises(PayloadError, match=r"charge \(trial-3--e1\) was answered before; open are shop.mail.thank"):
        paying.fail(effect, "late")
    with pytest.raises(PayloadError, match=r"no effect of tests.*charge is open"):
        paying.succeed(charge, "again")
    assert paying.state == "shipped"


def test_an_effect_of_another_trial_is_refused(paying: Trial[Cart]) -> None:
    other = trial(Order, name="other")
    other.send("add", Line("tea", 1))
    other.send("pay")

    with pytest.raises(PayloadError, match="is none of this trial"):
        paying.succeed(other.enqueued[0], "receipt-7")


def test_a_function_does_not_tell_which_of_two_open_effects_is_meant(paying: Trial[Cart]) -> None:
    paying.fail(charge, "declined")
    paying.send("pay")

    with pytest.raises(PayloadError, match=r"2 effects of shop.mail.thank are open: pass the one"):
        paying.succeed("shop.mail.thank")


def test_an_answer_after_the_end_is_told_and_closes_the_effect(paying: Trial[Cart]) -> None:
    paying.fail(charge, "no")
    paying.send("pay")
    first, second = paying.enqueued[0], paying.enqueued[1]
    paying.send("declined", {"type": "a", "message": "b"})
    paying.send("cancel")

    with pytest.raises(FSMFinishedError):
        paying.succeed(second, "receipt")
    assert paying.succeed(first) is None
    assert [one.func for one in paying.enqueued] == ["shop.mail.thank"]


def test_a_refusal_raises_what_a_caller_would_get(order: Trial[Cart]) -> None:
    with pytest.raises(RejectedError, match="empty cart") as rejected:
        order.send("pay")
    with pytest.raises(NotAllowedError) as not_allowed:
        order.send("deliver")

    assert rejected.value.details == {"hint": "add something"}
    assert not_allowed.value.allowed == ("add", "pay", "cancel", "peek", "nudge")
    assert (order.state, order.version, order.error) == ("cart", 3, None)
    assert order.refused is not None
    assert (order.refused["refused"], order.refused["event"]) == ("not_allowed", "deliver")
    assert order.log[-1]["refused"] == "not_allowed"


def test_an_event_that_the_machine_does_not_have_is_refused_before_it_is_sent(order: Trial[Cart]) -> None:
    with pytest.raises(NotAllowedError, match="did you mean 'pay'"):
        order.send("pya")

    assert order.version == 1


def test_a_refusal_or_failure_that_is_no_error_is_an_outcome(order: Trial[Cart]) -> None:
    nudge, peek = order.send("nudge"), order.send("peek")

    assert (nudge.ok, nudge.reason) == (False, "no guard holds")
    assert (peek.ok, peek.reason) == (False, "nothing to see")
    assert (order.refused, order.error) == (None, None)


def test_a_failure_raises_and_is_kept_until_an_event_is_done(bank: Bank) -> None:
    order = trial(Order(bank), state="cart", payload=Cart(["tea"], 12))
    bank.is_broken = True
    order.send("pay")

    order.succeed(charge, "receipt-7")

    assert (order.state, order.status) == ("returned", "finished")
    assert order.error is not None
    assert (order.error["type"], order.error["message"]) == ("OSError", "the bank is closed")
    assert order.log[-1]["error"] == "the bank is closed"
    with pytest.raises(FSMFinishedError, match="'returned'"):
        order.send("deliver")


class Fragile(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> whole
        whole --> whole : touch
        whole --> broken : drop
        broken --> whole : mend!
    """

    @on("touch")
    def touch(self, t: T) -> None:
        t.payload["touched"] = True
        problem = "a crack"
        raise ValueError(problem)

    @on("mend")
    def mend(self, t: T) -> None:
        problem = "no glue"
        raise ValueError(problem)


def test_a_failed_handler_leaves_state_and_payload_as_they_were() -> None:
    vase = trial(Fragile)

    with pytest.raises(HandlerError, match="a crack") as raised:
        vase.send("touch")

    assert "in touch" in raised.value.traceback
    assert (vase.state, vase.payload, vase.version) == ("whole", {}, 2)
    assert vase.error is not None
    assert vase.error["type"] == "ValueError"


def test_an_fsm_that_failed_for_good_applies_nothing_as_in_production() -> None:
    vase = trial(Fragile)

    assert vase.send("drop").state == "broken"

    assert vase.status == "failed"
    with pytest.raises(CallTimeoutError, match=r"has failed in state 'broken' and applies no events \(no glue\)"):
        vase.send("touch")


def test_a_failed_entry_event_is_seen_in_status_and_error(bank: Bank) -> None:
    bank.is_broken = True

    order = trial(Order(bank))

    assert order.status == "failed"
    assert order.error is not None
    assert order.error["message"] == "the bank is closed"


@pytest.mark.parametrize(
    ("data", "path"),
    [({"sku": "tea"}, "price"), ({"sku": "tea", "price": 1, "colour": "red"}, "colour"), (7, "object")],
)
def test_data_from_anywhere_are_refused_as_a_worker_refuses_them(order: Trial[Cart], data: Any, path: str) -> None:
    with pytest.raises(InvalidDataError, match=path):
        order.send("add", data)


@pytest.mark.parametrize(
    "arguments",
    [("add", {"sku": {1}}), ("add", float("nan")), ("", None), (7, None), ("add", Line("tea", "12"))],
    ids=str,
)
def test_what_cannot_be_sent_is_told_to_the_sender(order: Trial[Cart], arguments: tuple[Any, Any]) -> None:
    with pytest.raises(PayloadError):
        order.send(*arguments)
    assert order.version == 1


@pytest.mark.parametrize("payload", [{"total": "much"}, {"colour": "red"}, 7])
def test_a_payload_that_is_not_of_its_type_is_refused(payload: Any) -> None:
    with pytest.raises(PayloadError):
        trial(Order, payload=payload)


def test_data_and_payload_make_the_way_through_json() -> None:
    class Box(Machine):
        diagram = """
        stateDiagram-v2
            [*] --> open
            open --> open : put
            open --> [*] : close
        """

        @on("put")
        def put(self, t: T, data: Any) -> None:
            data.append("seen")
            t.payload["data"] = data

    given = ["a"]
    box = trial(Box, payload={"kept": given})
    box.send("put", given)
    box.payload["data"].append("mine")

    assert given == ["a"]
    assert box.payload == {"kept": ["a"], "data": ["a", "seen"]}


def test_an_older_version_is_refused(order: Trial[Cart]) -> None:
    order.send("add", Line("tea", 12), if_version=1)

    with pytest.raises(StaleVersionError) as raised:
        order.send("pay", if_version=1)

    assert raised.value.details == {"version": 2, "if_version": 1}
    assert order.send("pay", if_version=2).ok


@pytest.mark.parametrize("version", [-1, True, "2", 1.0])
def test_a_version_that_is_none_is_refused(order: Trial[Cart], version: Any) -> None:
    with pytest.raises(PayloadError, match="if_version"):
        order.send("pay", if_version=version)


def test_time_stands_where_it_was_set() -> None:
    class Watch(Machine):
        diagram = """
        stateDiagram-v2
            [*] --> on
            on --> on : look
            on --> [*] : stop
        """

        @on("look")
        def look(self, t: T) -> None:
            t.reply([t.now.isoformat(), t.attempt])

    noon = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    watch = trial(Watch, now=noon)

    assert watch.send("look").reply == ["2026-05-01T12:00:00+00:00", 1]
    watch.now += timedelta(days=1)
    assert watch.send("look").reply == ["2026-05-02T12:00:00+00:00", 1]
    assert abs(trial(Watch).now - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("now", [datetime(2026, 5, 1), "noon", 7])  # noqa: DTZ001 - that is what is refused
def test_a_time_without_a_zone_is_refused(now: Any) -> None:
    with pytest.raises(PayloadError, match="aware"):
        trial(Parcel, now=now)


def test_a_machine_that_needs_services_must_be_made() -> None:
    class Needy(Parcel):
        def __init__(self, bank: Bank) -> None:
            self.bank = bank

    with pytest.raises(ConfigError, match=r"Needy cannot be made without arguments .*as trial\(.*Needy\(…\)\)"):
        trial(Needy)


@pytest.mark.parametrize("thing", [7, "Order", Bank, None])
def test_what_is_no_machine_is_refused(thing: Any) -> None:
    with pytest.raises(UnknownMachineError):
        trial(thing)


class Circle(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> round
        round --> round : turn
        round --> [*] : stop
    """

    @on("turn")
    def turn(self, t: T, times: int | None) -> None:
        if times is None or times:
            t.send(t.name, "turn", None if times is None else times - 1)


def test_mail_to_itself_is_run_until_none_is_left() -> None:
    circle = trial(Circle)

    circle.send("turn", 3)

    assert circle.version == 5
    assert circle.sent == []


def test_a_circle_of_mail_ends_with_an_error() -> None:
    circle = trial(Circle)

    with pytest.raises(HandlerError, match="more than 1000 events followed from it"):
        circle.send("turn")
    assert circle.send("stop").state == "round"


def test_mail_to_itself_that_comes_after_the_end_is_refused_in_the_log() -> None:
    class Late(Circle):
        @on("stop")
        def stop(self, t: T) -> None:
            t.send(t.name, "turn")
            t.start_fsm(Circle, t.name)

    late = trial(Late)
    late.send("stop")

    assert late.status == "finished"
    assert [(line.get("refused"), line.get("error")) for line in late.log[-2:]] == [
        (None, "exists"),
        ("finished", None),
    ]
    assert late.started == []


class Slow(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> idle
        idle --> busy : work [ready]
        idle --> idle : work [else]
        busy --> idle : rest
    """

    def __init__(self) -> None:
        self.loops: list[Any] = []

    @guard("ready")
    async def ready(self, t: T) -> bool:
        await asyncio.sleep(0)
        return t.data != "not yet"

    @on("work")
    async def work(self, t: T) -> None:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())


def test_async_handlers_run_on_one_loop_of_the_trials_own() -> None:
    machine = Slow()
    with trial(machine) as slow:
        assert slow.send("work", "not yet").state == "idle"
        assert slow.send("work").state == "busy"

        assert len(set(machine.loops)) == 1
        assert not machine.loops[0].is_closed()
    assert machine.loops[0].is_closed()
    assert slow.send("rest").state == "idle"


def test_a_loop_that_is_forgotten_is_closed() -> None:
    machine = Slow()
    slow = trial(machine)
    slow.send("work")

    del slow
    gc.collect()

    assert machine.loops[0].is_closed()


def test_a_test_that_is_a_coroutine_may_try_async_and_plain_machines() -> None:
    async def test() -> tuple[str, str]:
        with trial(Slow) as slow:
            return slow.send("work").state, trial(Order).send("cancel").state

    assert asyncio.run(test()) == ("busy", "cancelled")
    assert threading.active_count() == 1


def test_a_plain_machine_runs_without_a_loop() -> None:
    class Plain(Circle):
        @on("stop")
        def stop(self, t: T) -> None:
            t.reply(asyncio.run(_seven()))

    assert trial(Plain).send("stop").reply == 7


async def _seven() -> int:
    return 7


def test_an_interrupt_passes_and_leaves_the_fsm_as_it_was() -> None:
    class Stubborn(Circle):
        @on("turn")
        def turn(self, t: T, times: int | None) -> None:
            t.payload["turned"] = True
            t.send(t.name, "turn")
            if times:
                raise KeyboardInterrupt

    stubborn = trial(Stubborn)

    with pytest.raises(KeyboardInterrupt):
        stubborn.send("turn", 1)

    assert (stubborn.version, stubborn.payload) == (1, {})
    assert stubborn.send("stop").version == 2


def test_it_says_what_it_is(order: Trial[Cart]) -> None:
    assert repr(order) == "<trial of Order 'trial': cart, running, version 1>"
    assert order.allowed == ("add", "pay", "cancel", "peek", "nudge")


class Shaky(Machine[dict[str, int]]):
    """Asks for another run as often as it is told; or fails, with a policy for it."""

    settings = Settings(retry={"fail": RetryPolicy(attempts=3, delay="1h", max_delay="1h", jitter=0)})
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : ask
        on --> on : fail
        on --> off : go
        off --> [*] : stop!
    """

    @on("ask")
    def ask(self, t: Transition[dict[str, int]], times: int) -> Retry | None:
        t.payload["attempts"] = t.attempt
        return Retry("10m") if t.attempt <= times else None

    @on("fail")
    def fail(self, t: Transition[dict[str, int]]) -> None:
        raise OSError

    @on("stop")
    def stop(self, t: Transition[dict[str, int]]) -> Retry | None:
        return Retry() if t.attempt == 1 else None


def test_what_is_to_be_tried_again_is_so_at_once_and_each_attempt_is_logged() -> None:
    shaky = trial(Shaky)

    assert shaky.send("ask", 2).ok

    assert shaky.payload == {"attempts": 3}
    assert shaky.error is None
    lines = [(line["event"], line["version"], line.get("attempt"), line.get("retry_in_ms")) for line in shaky.log[1:]]
    assert lines == [("ask", 2, 1, 600_000), ("ask", 3, 2, 600_000), ("ask", 4, None, None)]
    with pytest.raises(HandlerError, match="OSError"):
        shaky.send("fail")
    waits = [line.get("retry_in_ms") for line in shaky.log if line["event"] == "fail"]
    assert waits == [3_600_000, 3_600_000, None]
    assert shaky.send("go").ok
    assert shaky.status == "finished"


def test_a_handler_that_waits_for_what_never_comes_is_told_so() -> None:
    with pytest.raises(HandlerError, match="it was tried 1000 times, and nobody waits here"):
        trial(Shaky).send("ask", 5000)


class Migrating(Machine[dict[str, Any]]):
    settings = Settings(definition_version=3)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> packed : pack
        packed --> sent : send!
        sent --> [*] : arrive
    """

    async def migrate(self, snapshot: Migration, from_version: int) -> None:
        if "odd" in snapshot.payload:
            raise ValueError(snapshot.payload["odd"])
        snapshot.state = {"old": "open", "boxed": "packed"}[snapshot.state]
        snapshot.payload["from"] = from_version


def test_a_trial_of_an_older_version_begins_with_its_migration() -> None:
    with trial(Migrating, state="old", payload={"n": 1}, definition_version=2) as one:
        assert (one.state, one.payload) == ("open", {"n": 1, "from": 2})
        assert one.send("pack").state == "packed"

    # A hard event that is the only way out follows at once, as it does in a worker.
    assert trial(Migrating, state="boxed", definition_version=1).state == "sent"


def test_what_a_migration_raises_the_trial_raises() -> None:
    with pytest.raises(ValueError, match="odd one"):
        trial(Migrating, state="old", payload={"odd": "odd one"}, definition_version=2)


@pytest.mark.parametrize(
    ("machine", "more", "text"),
    [
        (Migrating, {"definition_version": 3, "state": "old"}, "a version below that of 'Migrating', which is 3"),
        (Migrating, {"definition_version": 0, "state": "old"}, "a version below"),
        (Migrating, {"definition_version": 1}, "say in which state it was"),
        (Parcel, {"definition_version": 1, "state": "old"}, "machine 'Parcel' has no method migrate"),
    ],
)
def test_a_trial_of_an_older_version_wants_something_to_migrate(
    machine: type[Machine[Any]], more: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        trial(machine, **more)
