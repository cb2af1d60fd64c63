from __future__ import annotations

import pytest

from fsm.errors import DefinitionError
from fsm.machine import Edge, Guard, parse

GRAPH = parse("""
stateDiagram-v2
    [*] --> cart : open
    cart --> cart : add
    cart --> paying : pay [rich]
    cart --> cart : pay [else]
    cart --> [*] : cancel
    paying --> packed : captured
    paying --> cart : expired after 24h
    packed --> shipped : ship!
    packed --> cart : ship fails
    shipped --> shipped : beat?
    shipped --> delivered : deliver
    delivered --> [*]
""")


def test_states_and_events_come_in_order_of_the_text_without_the_entry_event() -> None:
    assert GRAPH.states == ("cart", "paying", "packed", "shipped", "delivered")
    assert GRAPH.events == ("add", "pay", "cancel", "captured", "expired", "ship", "beat", "deliver")
    assert (GRAPH.start, GRAPH.entry, GRAPH.ends) == ("cart", "open", {"delivered"})


def test_edges_of_an_event_come_in_order_of_the_text_without_its_failure() -> None:
    assert GRAPH.edges_for("cart", "pay") == (
        Edge("cart", "pay", "paying", Guard("rich")),
        Edge("cart", "pay", "cart", Guard("else")),
    )
    assert [edge.target for edge in GRAPH.edges_for("packed", "ship")] == ["shipped"]
    assert GRAPH.edges_for("cart", "ship") == GRAPH.edges_for("nowhere", "ship") == ()


def test_the_failure_of_an_event_has_an_edge_of_its_own() -> None:
    assert GRAPH.fails_edge("packed", "ship") == Edge("packed", "ship", "cart", fails=True)
    assert GRAPH.fails_edge("cart", "pay") is None


def test_a_hard_event_belongs_to_its_state() -> None:
    assert GRAPH.hard_event("packed") == "ship"
    assert GRAPH.hard_event("cart") is None


def test_an_event_is_soft_only_where_it_is_marked() -> None:
    assert GRAPH.is_soft("shipped", "beat")
    assert not GRAPH.is_soft("shipped", "deliver")
    assert not GRAPH.is_soft("cart", "beat")


def test_timers_are_the_edges_with_a_time() -> None:
    assert GRAPH.timers_of("paying") == (Edge("paying", "expired", "cart", after_ms=86_400_000),)
    assert GRAPH.timers_of("cart") == ()


def test_allowed_are_the_events_one_may_send() -> None:
    assert GRAPH.allowed("cart") == ("add", "pay", "cancel")
    assert GRAPH.allowed("packed") == ("ship",)
    assert GRAPH.allowed("delivered") == ()
    assert GRAPH.responds("cart", "pay")
    assert not GRAPH.responds("cart", "deliver")


def test_an_unknown_state_is_named_with_those_that_there_are() -> None:
    for ask in (
        lambda: GRAPH.allowed("lost"),
        lambda: GRAPH.responds("lost", "pay"),
        lambda: GRAPH.shortest_path("lost", "cart"),
        lambda: GRAPH.shortest_path("cart", "lost"),
    ):
        with pytest.raises(DefinitionError, match=r"no state 'lost' .* cart, paying"):
            ask()


def test_paths_lead_from_the_start_to_where_an_fsm_can_end() -> None:
    assert list(GRAPH.paths()) == [("cart",), ("cart", "paying", "packed", "shipped", "delivered")]


def test_the_shortest_path_includes_both_states() -> None:
    assert GRAPH.shortest_path("cart", "packed") == ("cart", "paying", "packed")
    assert GRAPH.shortest_path("cart", "cart") == ("cart",)
    assert GRAPH.shortest_path("delivered", "cart") is None


def test_loops_are_the_cycles_each_once() -> None:
    assert set(GRAPH.loops()) == {("cart",), ("cart", "paying"), ("cart", "paying", "packed"), ("shipped",)}
    assert len(GRAPH.loops()) == 4
    assert len(GRAPH.loops(limit=2)) == 2


def test_the_fingerprint_is_the_same_for_what_means_the_same() -> None:
    text = "stateDiagram-v2\n[*] --> a\na --> b : x\na --> c : y\nb --> [*]\nc --> [*]"
    other = "@startuml\n' why\nstate c\n[*] --> a\na --> c : y\na --> b : x\nc --> [*]\nb --> [*]\n@enduml"
    fingerprint = parse(text).fingerprint
    assert parse(other).fingerprint == fingerprint
    assert len(fingerprint) == 8
    assert set(fingerprint) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a --> b : x", "a --> b : z"),
        ("a --> b : x", "a --> b : x!"),
        ("a --> b : x", "a --> b : x?"),
        ("a --> b : x", "a --> b : x after 1s"),
        ("a --> b : x", "a --> b : x [g]"),
        ("a --> b : x", "a --> b : x\na --> a : x fails"),
        ("[*] --> a", "[*] --> a : begin"),
        ("b --> [*]", "b --> [*] : x"),
    ],
)
def test_the_fingerprint_changes_with_the_meaning(old: str, new: str) -> None:
    text = "stateDiagram-v2\n[*] --> a\na --> b : x\nb --> [*]"
    assert parse(text.replace(old, new)).fingerprint != parse(text).fingerprint


def test_the_order_of_guards_is_part_of_the_meaning() -> None:
    text = "stateDiagram-v2\n[*] --> a\na --> b : x [g]\na --> c : x [h]\nb --> [*]\nc --> [*]"
    turned = "stateDiagram-v2\n[*] --> a\na --> c : x [h]\na --> b : x [g]\nb --> [*]\nc --> [*]"
    assert parse(text).fingerprint != parse(turned).fingerprint


def test_an_event_may_bear_the_name_of_the_entry_event() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a : go\na --> [*] : go")
    assert (graph.entry, graph.events) == ("go", ("go",))
