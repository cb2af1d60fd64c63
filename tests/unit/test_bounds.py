"""What is bounded, so that nobody's data hold up the others: payloads, events, replies, effects, and what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, HandlerError, Machine, PayloadError, Settings, Transition, on, verbs
from fsm.engine import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1000
LARGE = "x" * LIMIT


class Small(Machine):
    settings = Settings(payload_limit=LIMIT, endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note, say, send, sprout, ask, refuse, flood, many
    """

    @on("note")
    def note(self, t: Transition) -> None:
        t.payload["data"] = t.data

    @on("say")
    def say(self, t: Transition) -> None:
        t.reply(t.payload.get("of", LARGE))

    @on("send")
    def send(self, t: Transition) -> None:
        t.send("other", "note", LARGE)

    @on("sprout")
    def sprout(self, t: Transition) -> None:
        t.start_fsm(Small, "other", {"x": LARGE})

    @on("ask")
    def ask(self, t: Transition) -> None:
        t.enqueue("shop.bank.charge", LARGE)

    @on("refuse")
    def refuse(self, t: Transition) -> None:
        raise Reject("no", why=LARGE)

    @on("many")
    def many(self, t: Transition) -> None:
        for _ in range(t.data):
            t.send("other", "note")

    @on("flood")
    def flood(self, t: Transition) -> None:
        for _ in range(t.data):
            t.send("other", "note", "x" * (LIMIT - 2))


class Roomy(Small):
    settings = Settings(payload_limit=2_000_000)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("memory://?effects=off") as made:
        made.start_fsm(Small, "a")
        yield made


def test_the_data_of_an_event_are_bounded_where_they_are_sent(client: Client) -> None:
    # Seen to fail without `check_size` in `verbs.sending`: the event was taken, whatever its size.
    with pytest.raises(PayloadError, match=r"the data of event 'note' have 1002 bytes, and .* allows 1000"):
        client.transition("a", "note", LARGE, machine=Small)
    with pytest.raises(PayloadError, match="1002 bytes"):
        client.transition_many([("a", "note", 1), ("a", "note", LARGE)], machine=Small)
    assert client.state("a").version == 1


def test_by_name_alone_the_bound_is_the_default(client: Client) -> None:
    client.start_fsm(Roomy, "r")
    with pytest.raises(PayloadError, match=r"have 1048577 bytes, and .* allows 1048576"):
        client.transition("r", "note", "x" * 1_048_575)
    with pytest.raises(PayloadError, match=r"meta has \d+ bytes"):
        client.transition("r", "note", meta={"x": "x" * 1_048_575})
    assert client.call("r", "note", "x" * 1_048_575, machine=Roomy).ok


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ("say", "a reply has 1002 bytes"),
        ("send", "the data of an event have 1002 bytes"),
        ("sprout", r"the payload has 1008 bytes"),
        ("ask", r"the arguments of an effect have \d+ bytes"),
        ("refuse", r"a refusal has \d+ bytes"),
    ],
)
def test_what_a_handler_gives_is_bounded(client: Client, event: str, what: str) -> None:
    # Seen to fail without `check_size` in each of the methods of `Transition`: what it sent was done.
    with pytest.raises(HandlerError, match=what):
        client.call("a", event)
    assert not client.exists("other")


@pytest.mark.parametrize(
    ("event", "most", "what"),
    [
        ("many", 1000, "a transition sends at most 1000 events, FSMs and effects"),
        ("flood", 16, r"what a transition sends has 17000 bytes, .* is allowed, 16000"),
    ],
)
def test_what_one_transition_sends_is_bounded(client: Client, event: str, most: int, what: str) -> None:
    # Seen to fail without the two checks in `Transition._leave`: one commit wrote 10,000 events.
    client.start_fsm(Small, "other")
    assert client.call("a", event, most).ok
    assert client.state("other").version == 1 + most
    with pytest.raises(HandlerError, match=what):
        client.call("a", event, most + 1)
    assert client.state("other").version == 1 + most


def test_what_an_effect_returned_is_bounded_by_the_machine_that_asked() -> None:
    assert verbs.success_data("x" * 98, 100)
    with pytest.raises(PayloadError, match=r"an effect returns JSON values, .* it has 101 bytes, and .* allows 100"):
        verbs.success_data("x" * 99, 100)

    def told(note: Any) -> Any:
        plan = verbs.succeed(Client("redis://x").keys, "e1", "a", "x" * 1_500_000)
        next(plan)
        return plan.send(note)

    assert told({"on_success": "note", "limit": 2_000_000}).script == "answer"
    with pytest.raises(PayloadError, match="allows 1048576"):
        told({"on_success": "note"})


def test_the_bound_of_an_effect_is_noted_where_it_is_not_the_default(client: Client) -> None:
    client.start_fsm(Roomy, "r")
    client.transition("r", "ask")
    note = verbs.note_of
    effect = client.jobs("r").effects[0].job_id
    found = client.ask(note(client.keys, effect, "r"))
    assert found is not None
    assert found["limit"] == 2_000_000
