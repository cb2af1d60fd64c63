from __future__ import annotations

from typing import Any

import pytest

from fsm.errors import DefinitionError
from fsm.machine import Edge, Graph, Guard, parse

GRAPH = Graph(
    states=("half-installed", "b", "note", "s1", "end", "a.b"),
    edges=(
        Edge("b", "go", "half-installed", Guard("rich", negated=True)),
        Edge("b", "go", "note", Guard("else")),
        Edge("b", "late", "[*]", after_ms=90_000),
        Edge("half-installed", "ship", "s1", mark="!"),
        Edge("half-installed", "ship", "b", fails=True),
        Edge("note", "beat", "end", mark="?"),
        Edge("s1", "on", "a.b"),
    ),
    start="b",
    entry="begin",
    ends=frozenset({"end", "a.b"}),
)


@pytest.mark.parametrize("syntax", ["mermaid", "plantuml"])
def test_what_is_rendered_is_read_back(syntax: str) -> None:
    text = format(GRAPH, syntax)
    assert parse(text) == GRAPH
    assert parse(text).fingerprint == GRAPH.fingerprint


def test_mermaid_is_written_with_aliases_only_where_names_need_them() -> None:
    assert GRAPH.render("mermaid") == (
        "stateDiagram-v2\n"
        '    state "half-installed" as s2\n'
        "    state b\n"
        '    state "note" as s3\n'
        "    state s1\n"
        '    state "end" as s4\n'
        '    state "a.b" as s5\n'
        "    [*] --> b : begin\n"
        "    b --> s2 : go [not rich]\n"
        "    b --> s3 : go [else]\n"
        "    b --> [*] : late after 1m30s\n"
        "    s2 --> s1 : ship!\n"
        "    s2 --> b : ship fails\n"
        "    s3 --> s4 : beat?\n"
        "    s1 --> s5 : on\n"
        "    s4 --> [*]\n"
        "    s5 --> [*]\n"
    )


def test_plain_names_are_written_without_declarations() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a\na --> b : x\nb --> [*]")
    assert graph.render("plantuml") == "@startuml\n[*] --> a\na --> b : x\nb --> [*]\n@enduml\n"


def test_the_order_of_states_survives() -> None:
    graph = parse("stateDiagram-v2\nstate c\nb --> c : x\n[*] --> b\nc --> [*]")
    assert parse(graph.render()).states == graph.states == ("c", "b")


def test_dot_has_all_states_and_edges_quoted() -> None:
    text = GRAPH.render("dot")
    assert text.startswith("digraph {\n")
    assert text.endswith("}\n")
    assert '    "[*]" -> "b" [label="begin"]\n' in text
    assert '    "b" -> "half-installed" [label="go [not rich]"]\n' in text
    assert '    "b" -> "[*] end" [label="late after 1m30s"]\n' in text
    assert '    "end" -> "[*] end"\n' in text


def test_an_unknown_format_names_those_that_there_are() -> None:
    with pytest.raises(DefinitionError, match=r"unknown format 'svg' .* mermaid, plantuml, dot"):
        format(GRAPH, "svg")


def test_format_without_a_name_is_that_of_any_object() -> None:
    assert f"{GRAPH}" == str(GRAPH)


@pytest.mark.parametrize("syntax", ["mermaid", "plantuml"])
def test_marks_change_nothing_in_what_is_read_back(syntax: str) -> None:
    for current in GRAPH.states:
        text = GRAPH.render(syntax, current=current, visited=GRAPH.states)  # type: ignore[arg-type]
        assert parse(text) == GRAPH


def test_a_mark_in_mermaid_is_a_class() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a\na --> b : x\nb --> c : y\nc --> [*]")

    text = graph.render("mermaid", current="b", visited=("b", "a"))

    assert text.splitlines()[-4:] == [
        "    classDef current fill:#ffca28,stroke:#b26a00,stroke-width:3px,color:#000",
        "    class b current",
        "    classDef visited fill:#fff3c4,color:#000",
        "    class a visited",
    ]


def test_a_state_that_mermaid_cannot_class_by_its_name_gets_an_alias_when_it_is_marked() -> None:
    graph = parse("stateDiagram-v2\n[*] --> zurück\nzurück --> [*] : x")

    assert "state" not in graph.render().split("\n", 1)[1]
    assert 'state "zurück" as s1' in graph.render(current="zurück")
    assert "class s1 current" in graph.render(current="zurück")


def test_a_mark_in_plantuml_and_dot_is_a_colour() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a\na --> b : x\nb --> c : y\nc --> [*]")

    assert graph.render("plantuml", current="b", visited=("a",)).startswith(
        "@startuml\nstate a #fff3c4\nstate b #ffca28\n[*] --> a\n"
    )
    dot = graph.render("dot", current="b", visited=("a",))
    assert '    "b" [shape=box style="rounded,filled" fillcolor="#ffca28" penwidth=3]\n' in dot
    assert '    "a" [shape=box style="rounded,filled" fillcolor="#fff3c4"]\n' in dot
    assert '    "c" [shape=box style=rounded]\n' in dot


def test_names_are_escaped_in_dot() -> None:
    name = 'a "b" \\ & c'
    text = Graph((name,), (Edge(name, "go", "[*]"),), name).render("dot")

    assert r'"a \"b\" \\ & c" [shape=box style=rounded label="a \"b\" \\ &amp; c"]' in text
    assert r'"[*]" -> "a \"b\" \\ & c"' in text


@pytest.mark.parametrize("marks", [{"current": "x"}, {"visited": ("x", "b")}])
def test_a_state_that_is_not_there_cannot_be_marked(marks: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="no state 'x'"):
        GRAPH.render("dot", **marks)
