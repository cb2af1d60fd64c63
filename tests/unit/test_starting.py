"""Starting by class and by name: what is announced, what is read of it, and what may be adopted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from fsm import (
    DefinitionError,
    FSMExistsError,
    Machine,
    PayloadError,
    Settings,
    StoreError,
    UnknownMachineError,
    verbs,
)
from fsm.store.blueprint import Blueprint
from fsm.store.places import Placer
from tests.unit.test_verbs import KEYS, follow


@dataclass
class Cart:
    owner: str


class Order(Machine[Cart]):
    settings = Settings(queue="orders", max_mailbox=7, definition_version=3, timeout="1.5s", payload_limit=40)
    diagram = """
    stateDiagram-v2
        [*] --> cart : open
        cart --> paid : pay
        paid --> sent : send!
        paid --> lost : send fails
        sent --> [*] : close
        lost --> [*]
    """


class Plain(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : go
    """


def announced(*definitions: Any) -> dict[str, Any]:
    """What lies in Redis after these were announced, by name."""
    command = verbs.announce(KEYS, [machine.definition for machine in definitions], 5).commands[0]
    return {name: orjson.loads(about) for name, about in zip(command[2::2], command[3::2], strict=True)}


def blueprint_of(machine: Any) -> Blueprint:
    name = machine.definition.name
    return Blueprint.announced(name, announced(machine)[name])


def test_what_is_announced_says_as_much_as_the_class() -> None:
    for machine in (Order, Plain):
        by_class = Blueprint.of(machine.definition, KEYS.default_queue)
        by_name = blueprint_of(machine)

        assert by_name.arguments() == by_class.arguments()
        assert (by_name.states, by_name.ends, by_name.hard) == (by_class.states, by_class.ends, dict(by_class.hard))
        assert by_name.payload_limit == by_class.payload_limit
    assert blueprint_of(Order).hard == {"paid": "send"}


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("200ms", 60), ("1m", 60), ("60100ms", 61), ({"go": "5m", "*": "1m"}, 300)]
)
def test_the_time_that_rq_gives_a_job_is_enough_to_import_the_application(timeout: Any, seconds: int) -> None:
    # Seen to fail with the time of the handler alone: on a busy machine stock workers failed each job of `Trouble`,
    # whose handlers had half a second, before they came to it.
    class Timed(Plain):
        settings = Settings(endless=True, timeout=timeout)

    assert Blueprint.of(Timed.definition, "fsm").timeout == seconds


def test_a_default_payload_is_announced_where_there_is_one() -> None:
    assert blueprint_of(Plain).payload == b"{}"
    assert blueprint_of(Order).payload is None


def test_an_announcement_still_says_what_lists_want_of_it() -> None:
    about = announced(Order)["Order"]

    assert (about["events"], about["seen_at"], about["allowed"]["cart"]) == (["pay", "send", "close"], 5, ["pay"])
    assert "cart --> paid : pay" in about["diagram"]


@pytest.mark.parametrize("about", [None, [], {}, {"start": 1}, 7, "x"])
def test_an_announcement_that_cannot_be_read_is_named_with_what_to_do(about: Any) -> None:
    with pytest.raises(StoreError, match=r"announced of machine 'Order' cannot be read .* or pass the class"):
        Blueprint.announced("Order", about)


def test_an_announcement_that_is_no_json_is_named_too() -> None:
    with pytest.raises(StoreError, match="announced of machine 'Order' cannot be read"):
        follow(verbs.blueprint(KEYS, "Order"), b"{")


def test_a_machine_that_nobody_announced_is_unknown_and_the_others_are_named() -> None:
    with pytest.raises(UnknownMachineError, match="unknown machine 'Ordr': known are Order, Plain"):
        follow(verbs.blueprint(KEYS, "Ordr"), None, ["Order", "Plain"])


def test_by_name_a_payload_is_plain_json_within_the_bound() -> None:
    order = blueprint_of(Order)

    assert verbs.first_payload(order, {"owner": "ada"}) == b'{"owner":"ada"}'
    assert verbs.first_payload(blueprint_of(Plain), None) == b"{}"
    with pytest.raises(
        PayloadError, match=r"FSMs of machine 'Order' have no payload to begin with by default: give one"
    ):
        verbs.first_payload(order, None)
    with pytest.raises(PayloadError, match="Cart"):
        verbs.first_payload(order, Cart("ada"))
    with pytest.raises(PayloadError, match=r"has 52 bytes, and Settings\(payload_limit=…\) allows 40"):
        verbs.first_payload(order, {"owner": "a" * 40})


def test_adopting_names_state_and_what_is_owed_there() -> None:
    for state, event, how in (("cart", "open", "rest"), ("paid", "send", "owes"), ("sent", "open", "rest")):
        (request,), _ = follow(verbs.start_many(KEYS, Order.definition, [("a", Cart("ada"))], state=state), ["CREATED"])

        assert (request.arguments[4], request.arguments[5], request.arguments[11]) == (state, event, how)
    (request,), _ = follow(verbs.start_many(KEYS, Order.definition, [("a", Cart("ada"))]), ["CREATED"])
    assert (request.arguments[4], request.arguments[5], request.arguments[11]) == ("cart", "open", "")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("lost", "FSMs of machine 'Order' end in 'lost': one that is adopted is alive, in cart, paid, sent"),
        ("[*]", r"end in '\[\*\]'"),
        ("payed", "no state 'payed' in machine 'Order', did you mean 'paid'\\?; its states: cart, paid, sent, lost"),
        ("", "no state ''"),
        (7, "no state 7"),
    ],
)
@pytest.mark.parametrize("is_by_name", [False, True])
def test_states_in_which_nothing_can_be_adopted_are_refused(state: Any, text: str, is_by_name: bool) -> None:
    machine = blueprint_of(Order) if is_by_name else Order.definition

    with pytest.raises(DefinitionError, match=text):
        follow(verbs.start_many(KEYS, machine, [("a", {"owner": "ada"})], state=state))


def test_what_exists_is_as_good_where_one_says_so_and_it_is_of_that_machine() -> None:
    items = [("a", None), ("b", None), ("c", None), ("d", None)]
    words = ["CREATED", "EXISTS Plain", "EXISTS Order", "EXISTS"]

    _, verdicts = follow(verbs.start_many(KEYS, Plain.definition, items, exist_ok=True), words)

    assert [verdict.ok for verdict in verdicts] == [True, True, False, False]
    assert verdicts[1].job_id == ""
    errors = [verdict.error for verdict in verdicts[2:]]
    assert [error.machine for error in errors if isinstance(error, FSMExistsError)] == ["Order", ""]
    _, verdicts = follow(verbs.start_many(KEYS, Plain.definition, items[:1]), ["EXISTS Plain"])
    assert not verdicts[0].ok


class Sensor(Plain):
    settings = Settings(endless=True, placement="ring")


def test_names_of_one_host_go_together_and_verdicts_come_in_the_order_of_names() -> None:
    whose = {"a": "edge-1", "b": "edge-2", "c": "edge-1", "d": None}
    plan = verbs.start_many(KEYS, Sensor.definition, [(name, None) for name in whose], placer=Placer(whose.get))
    calls = []
    reply = None
    try:
        while True:
            request = plan.send(reply)
            queue, names = request.arguments[6], list(request.arguments[-1 - 4 * 4 :])
            calls.append((queue, [name for name in whose if name in names]))
            reply = ["EXISTS Sensor" if name == "c" else "CREATED" for name in calls[-1][1]]
    except StopIteration as end:
        verdicts = end.value

    assert calls == [("fsm~edge-1", ["a", "c"]), ("fsm~edge-2", ["b"]), ("fsm", ["d"])]
    assert [(verdict.name, verdict.ok) for verdict in verdicts] == [("a", True), ("b", True), ("c", False), ("d", True)]


def test_placement_is_announced_for_who_starts_by_name() -> None:
    assert blueprint_of(Sensor).placement == "ring"
    assert blueprint_of(Plain).placement == "any"
    # Written by a version of ours that had no placement.
    about = announced(Plain)["Plain"]
    del about["placement"]
    assert Blueprint.announced("Plain", about).placement == "any"


@pytest.mark.parametrize("host", ["", "edge 7", "a@b", "a~b", "ä", 7, "x" * 101])
def test_a_host_that_cannot_be_one_is_refused_before_anything_is_started(host: Any) -> None:
    with pytest.raises(PayloadError, match=r"the name of a host is 1 to 100 of the characters"):
        follow(verbs.start_many(KEYS, Plain.definition, [("a", None)], host=host))
