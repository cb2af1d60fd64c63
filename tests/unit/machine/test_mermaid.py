from __future__ import annotations

import pytest

from fsm.errors import DefinitionError, DiagramError, ValidationError
from fsm.machine import Edge, Graph, parse


def read(*lines: str) -> Graph:
    """Parse lines behind the header, beside an edge that makes the diagram whole."""
    return parse("\n".join(["stateDiagram-v2", "[*] --> a", *lines, "a --> [*] : leave"]))


def problems(*lines: str) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as raised:
        read(*lines)
    error = raised.value
    if isinstance(error, DiagramError):
        return (f"line {error.line}: {error.problem}: `{error.text}`",)
    assert isinstance(error, ValidationError)
    return error.problems


PLAIN = read()


@pytest.mark.parametrize("header", ["stateDiagram", "stateDiagram-v2", "  stateDiagram-v2  "])
def test_both_headers_are_read(header: str) -> None:
    graph = parse(f"\n{header}\n[*] --> a\na --> b : go\nb --> [*]\n")
    assert graph.states == ("a", "b")
    assert graph.edges == (Edge("a", "go", "b"),)
    assert (graph.start, graph.entry, graph.ends, graph.events) == ("a", "[*]", {"b"}, ("go",))


def test_edges_know_their_lines_and_equality_does_not() -> None:
    text = "stateDiagram-v2\n\n[*] --> a\na --> b : go\nb --> [*]"
    assert parse(text).edges[0].line == 4
    assert parse(text) == parse(text.replace("\n\n", "\n"))


def test_a_label_of_the_start_names_the_entry_event() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a : begin\na --> [*] : leave")
    assert (graph.entry, graph.events) == ("begin", ("leave",))


@pytest.mark.parametrize("label", ["begin!", "begin [x]", "begin, start", "begin after 1h", "begin fails"])
def test_an_entry_event_is_one_bare_name(label: str) -> None:
    with pytest.raises(DiagramError, match="entry event"):
        parse(f"stateDiagram-v2\n[*] --> a : {label}\na --> [*] : leave")


def test_an_unlabelled_edge_to_the_end_ends_and_a_labelled_one_is_an_event() -> None:
    graph = parse("stateDiagram-v2\n[*] --> a\na --> b : go\na --> [*] : leave\nb --> [*]")
    assert graph.ends == {"b"}
    assert graph.edges_for("a", "leave") == (Edge("a", "leave", "[*]"),)


@pytest.mark.parametrize(
    "line", ["a-->b:go", "a -->b: go", "a--> b :go", "a\t-->\tb\t:\tgo", "a:::hot --> b:::cold : go"]
)
def test_an_edge_may_be_written_with_or_without_spaces_and_classes(line: str) -> None:
    graph = read(line, "b --> [*]")
    assert graph.edges[0] == Edge("a", "go", "b")


def test_ids_may_be_of_any_script_with_digits_and_dots() -> None:
    graph = read("a --> zürich.2 : go", "zürich.2 --> 状態 : go", "状態 --> [*]")
    assert graph.states == ("a", "zürich.2", "状態")


def test_the_quoted_text_of_an_alias_is_the_name_of_the_state() -> None:
    graph = read('state "half-installed" as half_installed', "a --> half_installed : go", "half_installed --> [*]")
    assert graph.states == ("a", "half-installed")
    assert graph.edges[0] == Edge("a", "go", "half-installed")
    assert graph.ends == {"half-installed"}


def test_an_alias_may_come_after_the_first_use_and_have_a_class() -> None:
    graph = read("a --> b : go", "b --> [*]", 'state "half installed" as b:::hot')
    assert graph.states == ("a", "half installed")


@pytest.mark.parametrize(
    "lines",
    [
        ("%% a --> z : x",),
        ("  %% a comment",),
        ("", "   "),
        ("note left of a : text",),
        ("note right of a", "b --> c --> : nonsense", "end note"),
        ("Note right of a", "text", "End Note"),
        ('note "floating" as N1',),
        ("direction LR",),
        ("classDef hot fill:#f00,color:white;",),
        ("class a hot",),
        ("style a fill:#f00",),
        ('click a href "http://there"',),
        ("hide empty description",),
        ("scale 350 width",),
        ("accTitle: a title",),
        ("accDescr: a text",),
        ("accDescr {", "a --> z : x", "}"),
        ("accDescr { text }",),
        ("a : a description",),
        ("a:::hot",),
        ("a",),
        ("state a",),
        ("state a : a description",),
        ("%%{init: {'theme': 'dark'}}%%",),
        ("%%{init: {", "'theme': 'dark'", "}}%%"),
    ],
)
def test_what_carries_no_meaning_is_passed_over(lines: tuple[str, ...]) -> None:
    assert read(*lines) == PLAIN


def test_frontmatter_comments_and_directives_may_stand_before_the_header() -> None:
    text = "---\ntitle: a --> b\n---\n%% comment\n%%{init: {}}%%\nstateDiagram-v2\n[*] --> a\na --> [*] : leave"
    assert parse(text) == PLAIN
    assert parse("\n" + "\n".join(f"    {line}" for line in text.split("\n"))) == PLAIN


@pytest.mark.parametrize(
    ("lines", "feature", "at"),
    [
        (("state b {", "[*] --> c", "c --> d : x", "}"), "composite state", 3),
        (('state "B b" as b {', "}"), "composite state", 3),
        (("state b <<fork>>",), "fork", 3),
        (("state b <<join>>",), "join", 3),
        (("state b <<choice>>",), "choice", 3),
        (("state b [[fork]]",), "fork", 3),
        (("", "--"), "concurrency", 4),
        (("a --> [H] : go",), "history", 3),
        (("a --> b[H*] : go",), "history", 3),
    ],
)
def test_what_we_do_not_support_is_refused_by_name_and_line(lines: tuple[str, ...], feature: str, at: int) -> None:
    with pytest.raises(DiagramError) as raised:
        read(*lines)
    assert f"{feature} is not supported: " in raised.value.problem
    assert raised.value.line == at


def test_inside_a_composite_state_each_feature_is_still_named() -> None:
    found = problems("state b {", "state c {", "--", "state d <<choice>>", "}", "}", "a --> e : x!!")
    assert [one.split(": `")[0] for one in found] == [
        "line 3: composite state is not supported",
        "line 4: composite state is not supported",
        "line 5: concurrency is not supported",
        "line 6: choice is not supported",
        "line 9: event 'x' has more than one mark",
    ]


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("a, b --> c : x", "drops 'a'", "one edge a line"),
        ("a --> b, c : x", "drops 'b'", "one edge a line"),
        ("a --> b : x; b --> c", "`;`", "one statement a line"),
        ("a --> b : x;", "`;`", "one statement a line"),
        ("a --> b : x %% why", "comment", "line of its own"),
        ("a --> b %% why", "comment", "line of its own"),
        ("state b %% why", "comment", "line of its own"),
        ("a --> half-installed : x", "'half-installed'", 'state "half-installed" as half_installed'),
        ("half-installed --> a : x", "'half-installed'", 'state "half-installed" as half_installed'),
        ("foo bar --> a : x", "'foo bar'", 'state "foo bar" as foo_bar'),
        ("a --> b --> c", "two arrows", "one edge a line"),
        ("a --> b # x : y", "cannot be an id", "declare `state"),
        ("direction TD", "no such direction", "TB, BT, LR or RL"),
        ("note left of a : see http://there", "note of one line", "end note"),
        ("note left of a : this; that", "note of one line", "end note"),
        ("a -> b : x", "no arrow", "a --> b"),
        ("a ==> b : x", "no arrow", "a --> b"),
        ("a <-- b : x", "no arrow", "a --> b"),
        ("a -->|x| b", "cannot be an id", "declare `state"),
        ("a --> : x", "missing", "a --> b"),
        ("--> a : x", "missing", "a --> b"),
        ("-->", "missing", "a --> b"),
        ("a --> b :", "empty", "a --> b : EVENT"),
        ("a --> b", "no event", "name the event"),
        ("a --> b : x y", "cannot be read", "EVENT after 24h"),
        ("[*] --> [*]", "leads to the end", "put a state between"),
        ("what is this", "cannot be read", "a --> b"),
        ("}", "closes nothing", "take it away"),
        ('state "a: b" as c', "name of a state", "colon"),
        ('state "" as c', "name of a state", "neither is empty"),
        ('state " x" as c', "name of a state", "space"),
        ('state "a;b" as c', "`;`", "without `;`"),
        ('state "a\tb" as c', "name of a state", "printable"),
        ("state b as c", "cannot be read", 'state "any name" as id'),
        ("note left of a", "not closed", "end note"),
        ("%%{init", "not closed", "}%%"),
        ("accDescr {", "not closed", "`}`"),
        ("state b {", "not supported", "side by side"),
    ],
)
def test_what_mermaid_would_misread_is_refused_with_the_remedy(line: str, problem: str, remedy: str) -> None:
    found = [one for one in problems(line) if one.startswith("line 3:")]
    assert any(problem in one and remedy in one and f"`{line.strip()}`" in one for one in found), found


@pytest.mark.parametrize(
    "word",
    ["state", "note", "default", "class", "click", "style", "scale", "href", "classDef", "accTitle", "State", "NOTE"],
)
@pytest.mark.parametrize("line", ["a --> {} : x", "{} --> a : x"])
def test_mermaids_own_words_are_refused_as_ids(word: str, line: str) -> None:
    found = problems(line.format(word))
    assert any("own word" in one and f'state "{word}" as {word}_state' in one for one in found), found


@pytest.mark.parametrize("word", ["stateful", "notes", "classy", "styles", "scaled", "direction", "end", "hide", "as"])
def test_longer_words_are_good_ids(word: str) -> None:
    assert word in read(f"a --> {word} : x", f"{word} --> [*]").states


@pytest.mark.parametrize("word", ["default.x", "click.x", "defaultü"])
def test_ids_that_begin_with_a_word_of_mermaids_are_refused(word: str) -> None:
    assert any("own word" in one for one in problems(f"a --> {word} : x"))


def test_one_id_has_one_name() -> None:
    assert any("two names" in one for one in problems('state "x" as b', 'state "y" as b', "a --> b : x", "b --> [*]"))


def test_one_name_has_one_id() -> None:
    found = problems('state "b" as c', "a --> b : x", "a --> c : y", "b --> [*]", "c --> [*]")
    assert any("both mean the state 'b'" in one for one in found)


def test_the_label_of_an_edge_that_is_lost_is_checked_too() -> None:
    found = problems("a, b --> c : x!!", "[*] --> a : y!!")
    assert [one.partition(" ")[2].partition(":")[0] for one in found] == ["3", "3", "4", "4"]


def test_guards_that_look_like_history_are_guards() -> None:
    assert [str(edge.guard) for edge in read("a --> a : x [H]", "a --> a : x [h]").edges[:2]] == ["[H]", "[h]"]


def test_a_description_may_hold_an_arrow() -> None:
    assert read("a : goes --> there") == PLAIN


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_understood(ending: str) -> None:
    assert parse(ending.join(["stateDiagram-v2", "[*] --> a", "a --> [*] : leave"])) == PLAIN
