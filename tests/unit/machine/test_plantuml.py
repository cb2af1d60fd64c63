from __future__ import annotations

import pytest

from fsm.errors import DefinitionError, DiagramError, ValidationError
from fsm.machine import Edge, Graph, parse


def read(*lines: str) -> Graph:
    """Parse lines beside an edge that makes the diagram whole."""
    return parse("\n".join(["@startuml", "[*] --> a", *lines, "a --> [*] : leave", "@enduml"]))


def problems(*lines: str) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as raised:
        read(*lines)
    error = raised.value
    if isinstance(error, DiagramError):
        return (f"line {error.line}: {error.problem}: `{error.text}`",)
    assert isinstance(error, ValidationError)
    return error.problems


PLAIN = read()


@pytest.mark.parametrize(
    "line",
    [
        "a --> b : go",
        "a-->b:go",
        "a -> b : go",
        "a ---> b : go",
        "a -down-> b : go",
        "a -l-> b : go",
        "a -[#red]-> b : go",
        "a -[#red,dashed]-> b : go",
        "a -up[#red]-> b : go",
        "a -[#red]up-> b : go",
        "a --> b #pink : go",
    ],
)
def test_arrows_may_have_length_direction_and_style(line: str) -> None:
    graph = read(line, "b --> [*]")
    assert graph.edges[0] == Edge("a", "go", "b")
    assert (graph.start, graph.ends) == ("a", {"b"})


def test_a_diagram_may_have_a_name_and_comments_around_it() -> None:
    text = "' before\n/' a\nblock '/\n\n@startuml order\n[*] --> a\na --> [*] : leave\n@enduml\n\n' behind\n"
    assert parse(text) == PLAIN


def test_labels_and_the_entry_event_are_as_in_mermaid() -> None:
    text = "@startuml\n[*] --> a : begin\na --> b : x [g]\na --> [*] : x [else], y?\nb --> a : z!\n@enduml"
    mermaid = text.replace("@startuml", "stateDiagram-v2").replace("\n@enduml", "")
    assert parse(text) == parse(mermaid)


@pytest.mark.parametrize(
    "line", ['state "half-installed" as b', 'state "half-installed" as b #pink', 'state b as "half-installed"']
)
def test_the_quoted_text_of_an_alias_is_the_name_of_the_state(line: str) -> None:
    assert read(line, "a --> b : go", "b --> [*]").edges[0].target == "half-installed"


@pytest.mark.parametrize(
    "lines",
    [
        ("' a --> z : x",),
        ("/' a --> z : x '/",),
        ("/'", "a --> z : x", "'/"),
        ("hide empty description",),
        ("skinparam backgroundColor red",),
        ("skinparam state {", "BackgroundColor red", "}"),
        ("<style>", "a { }", "</style>"),
        ("title Some --> title",),
        ("title", "a --> b", "end title"),
        ("scale 350 width",),
        ("left to right direction",),
        ("header text",),
        ("center footer text",),
        ("caption text",),
        ("legend right", "a --> b", "endlegend"),
        ("!theme plain",),
        ("!pragma layout smetana",),
        ("note left of a : text",),
        ("note right of a", "a --> z : x", "end note"),
        ("note on link", "text", "endnote"),
        ('note "floating" as N1',),
        ("note as N1", "text", "end note"),
        ("a : a description",),
        ("state a",),
        ("state a : a description",),
        ("state a #pink",),
        ("state a <<important>>",),
        ("a : goes --> there",),
    ],
)
def test_what_carries_no_meaning_is_passed_over(lines: tuple[str, ...]) -> None:
    assert read(*lines) == PLAIN


@pytest.mark.parametrize(
    ("lines", "feature", "at"),
    [
        (("state b {", "[*] --> c", "c --> d : x", "}"), "composite state", 3),
        (("state b <<fork>>",), "fork", 3),
        (("state b <<join>>",), "join", 3),
        (("state b <<choice>>",), "choice", 3),
        (("state b <<history>>",), "history", 3),
        (("state b <<entryPoint>>",), "entry and exit points", 3),
        (("state b <<end>>",), "entry and exit points", 3),
        (("--",), "concurrency", 3),
        (("||",), "concurrency", 3),
        (("a --> [H] : x",), "history", 3),
        (("a --> b[H*] : x",), "history", 3),
        (("a --> ==bar== : x",), "fork", 3),
    ],
)
def test_what_we_do_not_support_is_refused_by_name_and_line(lines: tuple[str, ...], feature: str, at: int) -> None:
    with pytest.raises(DiagramError) as raised:
        read(*lines)
    assert f"{feature} is not supported: " in raised.value.problem
    assert raised.value.line == at


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("a, b --> c : x", "cannot be an id", "declare `state"),
        ("a --> half-installed : x", "cannot be an id", 'state "half-installed" as half_installed'),
        ('"a b" --> c : x', "cannot be an id", "declare `state"),
        ("title --> a : x", "own word", 'state "title" as title_state'),
        ("a --> state : x", "own word", 'state "state" as state_state'),
        ("a <-- b : x", "no arrow", "from left to right"),
        ("a --x b : x", "no arrow", "from left to right"),
        ("a --> b", "no event", "name the event"),
        ("a --> b :", "empty", "a --> b : EVENT"),
        ("a --> b : x ' why", "cannot be read", "EVENT after 24h"),
        ("a --> : x", "missing", "a --> b"),
        ("[*] --> [*]", "leads to the end", "put a state between"),
        ("!define X a", "preprocessor", "write out"),
        ("what is this", "cannot be read", "a --> b"),
        ("}", "closes nothing", "take it away"),
        ('state "a: b" as c', "name of a state", "colon"),
        ("state b as c", "cannot be read", 'state "any name" as id'),
        ("note left of a", "not closed", "end note"),
        ("/' never", "not closed", "'/"),
        ("skinparam {", "not closed", "`}`"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(line: str, problem: str, remedy: str) -> None:
    found = [one for one in problems(line) if one.startswith("line 3:")]
    assert any(problem in one and remedy in one and f"`{line}`" in one for one in found), found


def test_a_diagram_must_be_closed() -> None:
    with pytest.raises(DiagramError, match="@enduml"):
        parse("@startuml\n[*] --> a\na --> [*] : leave")


def test_nothing_may_stand_behind_the_end() -> None:
    with pytest.raises(DiagramError) as raised:
        parse("@startuml\n[*] --> a\na --> [*] : leave\n@enduml\na --> b : x")
    assert raised.value.line == 5
