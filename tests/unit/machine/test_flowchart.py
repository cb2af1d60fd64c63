from __future__ import annotations

import pytest

from fsm.errors import DefinitionError, DiagramError, ValidationError
from fsm.machine import Edge, Graph, Guard, parse


def read(*lines: str) -> Graph:
    return parse("\n".join(["graph TD", *lines]))


def problems(*lines: str) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as raised:
        read(*lines)
    error = raised.value
    if isinstance(error, DiagramError):
        return (f"line {error.line}: {error.problem}: `{error.text}`",)
    assert isinstance(error, ValidationError)
    return error.problems


AB = Graph(("a", "b"), (Edge("a", "go", "b"),), "a", ends=frozenset({"b"}))


@pytest.mark.parametrize(
    "text",
    [
        "graph TD\na -->|go| b",
        "graph\na -->|go| b",
        "flowchart LR\na --> |go| b",
        "flowchart\na-->|go|b",
        "graph TD;\na -->|go| b;",
        "graph TD; a-->|go|b;",
        "graph LR\na -- go --> b",
        "graph LR\na ---> |go| b",
        "graph LR\na ==>|go| b",
        "graph LR\na == go ==> b",
        "graph LR\na -.->|go| b",
        "graph LR\na -. go .-> b",
        'graph LR\na -->|"go"| b',
        'graph LR\na -- "go" --> b',
        "graph LR\na:::hot -->|go| b:::cold",
        "graph LR\na[Text] -->|go| b((Text))",
        "graph LR\na(Some text) --> |go| b{x}",
        "graph LR\na([x]) --> |go| b[[x]]",
        "graph LR\na[(x)] --> |go| b(((x)))",
        "graph LR\na{{x}} --> |go| b>x]",
        "graph LR\na[/x/] --> |go| b[\\x\\]",
        "graph LR\na\nb\na -->|go| b",
        "%% comment\n\n%%{init: {}}%%\ngraph LR\na -->|go| b",
        "---\ntitle: x\n---\ngraph LR\na -->|go| b",
    ],
)
def test_one_edge_can_be_written_in_many_ways(text: str) -> None:
    assert parse(text) == AB


@pytest.mark.parametrize(
    "line",
    [
        "%% a -->|x| z",
        "classDef hot fill:#f00;",
        "class a hot;",
        "style a fill:#f00",
        "linkStyle 0 stroke:#f00",
        'click a "http://there;x"',
        "direction LR",
        "accTitle: a title; and more",
        "accDescr: a --> z",
        "accDescr {\na --> z\n}",
    ],
)
def test_what_carries_no_meaning_is_passed_over(line: str) -> None:
    assert read("a -->|go| b", line) == AB


def test_statements_are_divided_by_lines_and_semicolons_and_may_be_chains() -> None:
    assert read("a -->|x| b -- y --> c; c -->|z| d;", "b-->|w|d;style a fill:#f00;").edges == (
        Edge("a", "x", "b"),
        Edge("b", "y", "c"),
        Edge("c", "z", "d"),
        Edge("b", "w", "d"),
    )


def test_labels_have_the_same_grammar_as_in_state_diagrams() -> None:
    graph = read(
        'a -->|"x [g]"| b', "a -- x [else] --> c", "b -->|y!| c", "b -->|y fails| d", "c -->|z after 1h, w?| d"
    )
    assert graph.edges == (
        Edge("a", "x", "b", Guard("g")),
        Edge("a", "x", "c", Guard("else")),
        Edge("b", "y", "c", mark="!"),
        Edge("b", "y", "d", fails=True),
        Edge("c", "z", "d", after_ms=3_600_000),
        Edge("c", "w", "d", mark="?"),
    )


def test_quoted_text_of_a_node_is_the_name_of_the_state_and_other_text_is_not() -> None:
    graph = read('a["half-installed"] -->|go| b[Some text]', "b -->|on| c", 'c("x y")')
    assert graph.states == ("half-installed", "b", "x y")


def test_ids_may_have_hyphens_and_any_script() -> None:
    assert read("half-installed -->|x| zürich.2", "zürich.2 -->|y| 状態").states == (
        "half-installed",
        "zürich.2",
        "状態",
    )


def test_starts_and_ends_are_the_nodes_without_incoming_and_outgoing_edges() -> None:
    graph = read("a -->|x| b", "b -->|y| a2", "b -->|z| c", "a -->|again| a")
    assert graph.start == "a"
    assert graph.ends == {"a2", "c"}
    assert graph.entry == "[*]"


def test_several_nodes_without_incoming_edges_are_several_starts() -> None:
    assert any("several starts" in one and "line 3" in one for one in problems("a -->|x| c", "b -->|x| c"))


def test_a_ring_has_no_start() -> None:
    found = problems("a -->|x| b", "b -->|y| a")
    assert any("no start" in one and "incoming" in one for one in found)


@pytest.mark.parametrize(
    ("lines", "feature", "at"),
    [
        (("subgraph one", "b -->|x| c", "end"), "subgraph", 2),
        (("a & b -->|x| c",), "several nodes", 2),
        (("a -->|x| b & c",), "several nodes", 2),
    ],
)
def test_what_we_do_not_support_is_refused_by_name_and_line(lines: tuple[str, ...], feature: str, at: int) -> None:
    with pytest.raises(DiagramError) as raised:
        read(*lines)
    assert f"{feature}" in raised.value.problem
    assert "is not supported: " in raised.value.problem
    assert raised.value.line == at


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("a --> b", "no event", "name the event"),
        ("a -->|| b", "no event", "name the event"),
        ("a --- b", "no arrow", "a -->|EVENT| b"),
        ("a --x b", "no arrow", "a -->|EVENT| b"),
        ("a --order--> b", "no arrow", "a -->|EVENT| b"),
        ("a <--> b", "no arrow", "a -->|EVENT| b"),
        ("a -.- b", "no arrow", "a -->|EVENT| b"),
        ("a ~~~ b", "no arrow", "a -->|EVENT| b"),
        ("a -->|x [g]| b", "needs quotes", '|"x [g]"|'),
        ("a -->|x y| b", "cannot be read", "EVENT after 24h"),
        ("a -->|x!!| b", "more than one mark", "`x!`"),
        ("a -->|x|", "a node is missing", "a -->|EVENT| b"),
        ("-->|x| b", "a node is missing", "a -->|EVENT| b"),
        ("a -->|x| b %% why", "comment", "line of its own"),
        ("a --> b : x", "no labels behind a colon", "a -->|EVENT| b"),
        ("a b -->|x| c", "cannot be read", "one statement a line"),
        ("a[x -->|x| c", "not closed", "`]`"),
        ('a["x -->|x| c', "not closed", "`]`"),
        ('a["x"', "not closed", "`]`"),
        ("a[x (y)] -->|x| c", "may not read the text", "quotes"),
        ('a["x: y"] -->|x| c', "name of a state", "colon"),
        ("a@{ shape: rect }", "cannot be read", 'a["any name"]'),
        ("x-->|y| b", "part of the arrow", "put a space"),
        ("a#b -->|y| b", "cannot be an id", "letters"),
        ("[*] -->|y| b", "a node is missing", "a -->|EVENT| b"),
        ("accDescr {", "not closed", "`}`"),
        ("style a fill:#f00; a -->|x| b", "misread", "line of its own"),
    ],
)
def test_what_mermaid_would_misread_is_refused_with_the_remedy(line: str, problem: str, remedy: str) -> None:
    found = problems(line)
    assert any(problem in one and remedy in one and f"`{line}`" in one for one in found), found


@pytest.mark.parametrize(
    "word", ["end", "graph", "flowchart", "subgraph", "style", "linkStyle", "class", "click", "href", "_self"]
)
@pytest.mark.parametrize("line", ["a -->|x| {}", "{} -->|x| a"])
def test_mermaids_own_words_are_refused_as_ids(word: str, line: str) -> None:
    found = problems(line.format(word))
    assert any("own word" in one and f'["{word}"]`' in one for one in found), found


@pytest.mark.parametrize("word", ["end-x", "style.x", "classü"])
def test_ids_that_begin_with_a_word_of_mermaids_are_refused(word: str) -> None:
    assert any("own word" in one for one in problems(f"a -->|x| {word}"))


def test_a_node_called_direction_is_no_direction() -> None:
    assert read("direction -->|x| b").states == ("direction", "b")


@pytest.mark.parametrize("word", ["End", "note", "state", "scale", "endpoint", "default", "classy", "direction"])
def test_other_words_are_good_ids(word: str) -> None:
    assert read(f"a -->|x| {word}").states == ("a", word)


def test_a_node_is_called_unreachable_only_when_no_line_was_unreadable() -> None:
    assert len(problems("a -->|x| b", "what ever", "c -->|y| b")) == 1
