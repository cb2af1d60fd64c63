"""`client.check`: what a definition that is to be deployed would leave behind of the FSMs that live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from fsm import Client, Finding, Machine, Migration, Settings, UnknownMachineError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Old(Machine):
    settings = Settings(name="Order", definition_version=2, timer="1h")
    diagram = """
    stateDiagram-v2
        [*] --> review
        review --> review : note
        review --> packed : approve
        packed --> kept : keep
        kept --> packed : done
        packed --> [*] : ship
    """

    def on_timer(self, _t: Any) -> None: ...


class New(Machine):
    """Its author forgot to raise `definition_version`."""

    settings = Settings(name="Order", definition_version=2)
    diagram = """
    stateDiagram-v2
        [*] --> checking
        checking --> packed : approve
        packed --> kept : keep
        packed --> [*] : ship
        kept --> [*]
    """

    def migrate(self, snapshot: Migration, from_version: int) -> None: ...


class Raised(New):
    settings = Settings(name="Order", definition_version=3)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    server = fakeredis.FakeServer()
    monkeypatch.setattr("fsm.client.connect", lambda *_, **__: fakeredis.FakeRedis(server=server))
    with Client("redis://x") as made:
        yield made


def kinds(findings: tuple[Finding, ...]) -> list[tuple[str, str, int]]:
    return [(one.kind, one.about, one.count) for one in findings]


@pytest.mark.parametrize("mail", [False, True])
def test_a_migration_that_nobody_asks_is_told_of(client: Client, mail: bool) -> None:
    # Seen to fail by the index: whoever has a `migrate` was taken to lead all of them on.
    for number in range(3):
        client.start_fsm(Old, f"o-{number}", state="review")

    found = client.check(New, mail=mail)

    assert kinds(found.findings) == [("state", "review", 3)]
    assert "at its own definition_version" in found.findings[0].text
    assert not found.is_ok
    assert client.check(Raised, mail=mail).is_ok


def test_fsms_in_a_state_in_which_they_would_have_ended_are_told_of(client: Client) -> None:
    # Seen to fail without a look for them: they live there for ever, and refuse whatever comes.
    client.start_fsm(Old, "o", state="kept")

    assert [one.text for one in client.check(New).findings] == [
        "1 FSM is in `kept`, in which the new definition ends: `migrate` must lead them elsewhere"
    ]


def test_open_effects_whose_answer_has_no_edge_are_told_of_where_mail_is_looked_at(client: Client) -> None:
    # Seen to fail without a look at them: their answers are refused when they come.
    client.start_fsm(Old, "o", state="packed")
    notes = [
        {"func": "shop.weigh", "on_success": "weighed", "on_failure": "ship"},
        {"func": "shop.weigh", "on_success": "weighed", "on_failure": None},
        ["by hand"],
    ]
    for number, note in enumerate(notes):
        client.redis.hset(client.keys.effects_of("o"), str(number), json.dumps(note))
    client.redis.hset(client.keys.effects_of("o"), "odd", "{")

    assert client.check(Raised).is_ok
    [found] = client.check(Raised, mail=True).findings
    assert (found.kind, found.about, found.count) == ("effect", "weighed", 2)
    assert found.text == "2 open effects answer by `weighed`, which has no edge"


@pytest.mark.parametrize(("mail", "count"), [(False, 2), (True, 1)])
def test_fsms_in_a_storage_that_the_definition_has_not_are_told_of(client: Client, mail: bool, count: int) -> None:
    # Seen to fail with `mail` where only what was announced counted: both, and none once another was announced.
    class Stored(Old):
        settings = Old.settings
        storage = type("Shelf", (), {"load": print, "store": print})()

    client.start_fsm(Stored, "a", state="packed")
    client.start_fsm(Stored, "b", state="packed")
    client.redis.hset(client.keys.snapshot("b"), "definition", Stored.definition.mark)
    client.redis.hset(client.keys.snapshot("a"), "definition", Old.definition.mark)

    [found] = client.check(Raised, mail=mail).findings
    assert (found.kind, found.count) == ("storage", count)


def test_what_is_no_machine_is_refused(client: Client) -> None:
    for odd in (dict, "Order"):
        with pytest.raises(UnknownMachineError):
            client.check(odd)  # type: ignore[arg-type] # that is what it is about
