"""What stands beside the machine is passed over only in the shape in which Mermaid reads it.

Most of the refused ones Mermaid itself refuses or draws otherwise; some stand so near to these that telling them apart
is not worth the rules. tests/oracle asks Mermaid about all that is accepted.
"""

from __future__ import annotations

import pytest

from fsm.errors import DefinitionError
from fsm.machine import parse
from fsm.machine.parse import examine

STATES = "stateDiagram-v2\n[*] --> a\n{}\na --> [*] : leave"
NODES = "flowchart LR\na -->|go| b\n{}"


def faults(text: str) -> list[str]:
    return [str(fault) for fault in examine(text)[1]]


@pytest.mark.parametrize(
    "line",
    [
        "classDef hot fill:#f00,color:white",
        "class a, z hot",
        "style a fill:#f00",
        'click a href "https://there"',
        'click a "https://there" "a hint"',
        "note right of a\n  text\n  end note",
        "accDescr {\n  text\n}",
        "%%{init: {'theme': 'dark'}}%%",
        "%%{wrap}%%",
        "%%",
        "accDescr {}",
    ],
)
def test_a_state_diagram_may_have_it(line: str) -> None:
    assert parse(STATES.format(line)) == parse(STATES.format(""))


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("note left of z : text", "'z' is no state", "name a state"),
        ("note left of z\ntext\nend note", "'z' is no state", "name a state"),
        ("class ü hot", "may not read this `class`", "ASCII"),
        ("classDef default fill:#f00", "may not read this `classDef`", "classDef name"),
        ("classDef hot", "may not read this `classDef`", "fill:#eee"),
        ('click a "https://there"', "may not read this `click`", "href"),
        ("click a call it()", "may not read this `click`", "href"),
        ('click a href "https://there" ', "spaces behind", "take them away"),
        ('click a href "https://there?direction LR"', "may not read this `click`", "href"),
        ("note right of a\n: text\nend note", "for the whole note", "without a colon"),
        ("note right of a\ntext\nend note of mine", "behind `end note`", "line of its own"),
        ("note right of a\ntext\nend  note", "the note is not closed", "end note"),
        ("hide  empty description", "cannot be read", "write"),
        ("a : one::two", "in a description", "take it away"),
        ("a : one:", "in a description", "take it away"),
        ("a:::state --> a : again", "may not read this class", "a:::name"),
        ("a:::hot-spot", "may not read this class", "a:::name"),
        ("state a : one as two", "an alias or a composite state", "without `state`"),
        ("state as", "an alias or a composite state", "without `state`"),
        ('state a : "one"', "an alias or a composite state", "without `state`"),
        ("state a\n\naccDescr { one }", "declared in the line before", "above"),
        ("accDescr { one } two", "behind the description", "line of its own"),
        ("a : in direction LR", "for a direction", "other words"),
        ("%% one\u2028two", "for a comment", "take it away"),
        ("%%%%{init: {}}%%", "for a comment", "take it away"),
        ('click scale href "https://there"', "may not read this `click`", "href"),
        ("%%{init: theme}%%", "may not read this directive", "JSON"),
        ("%%{init: {theme: dark}}%%", "may not read this directive", "JSON"),
        ("%%{theme: dark}%%", "may not read this directive", "JSON"),
    ],
)
def test_a_state_diagram_must_not_have_it(line: str, problem: str, remedy: str) -> None:
    found = faults(STATES.format(line))

    assert any(problem in one and remedy in one for one in found), found


@pytest.mark.parametrize(
    "line",
    [
        "classDef hot,cold fill:#f9f,stroke:red,stroke-width:4px",
        "style a fill:#fff, stroke:#333,stroke-dasharray: 5 5",
        "linkStyle 0 stroke:#f00",
        "linkStyle default interpolate basis stroke:red",
        "class a,b hot;",
        "click a cb",
        'click a call f() "a hint"',
        'click a href "https://there" "a hint" _blank',
    ],
)
def test_a_flowchart_may_have_it(line: str) -> None:
    assert parse(NODES.format(line)) == parse(NODES.format(""))


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("style z fill:#f00", "'z' is no state", "name a state"),
        ("linkStyle 1 stroke:#f00", "may not read this `linkStyle`", "from 0"),
        ("style a fill:rgb(1,2,3)", "may not read this `style`", "fill:#eee"),
        ("style a fill:default", "may not read this `style`", "fill:#eee"),
        ("style a fi--ll:#f00", "may not read this `style`", "fill:#eee"),
        ("class a  hot", "may not read this `class`", "class a,b name"),
        ("class a hot ", "spaces behind", "take them away"),
        ("click a hot ;", "spaces behind", "take them away"),
        ("click a call f(x)", "may not read this `click`", "href"),
        ("b:::end -->|on| c", "may not read this class", "a:::name"),
        ("b -->|on|  c", "two spaces behind a label", "write one"),
        ('b -->| "on"| c', "space before these quotes", "take it away"),
        ('b[ "B"] -->|on| c', "space before these quotes", "take it away"),
        ("b -- go--> c", "takes the 'o' for a part of the arrow", "a space before the arrow"),
        ("b == max==> c", "takes the 'x' for a part of the arrow", "a space before the arrow"),
        ("b -. go.-> c", "takes the 'o' for a part of the arrow", "a space before the arrow"),
        ("b[one @ two] -->|on| c", "may not read the text", "into quotes"),
        ("b[direction TB] -->|on| c", "for a direction", "other words"),
        ("b -->|on| c; direction LR", "for a direction", "line of its own"),
        ("b -->|on| ⅷ", "cannot be an id", "quoted text"),
        ("b -->|on| call", "own word", '`call_state["call"]`'),
        ("accDescr {\none } two", "behind the description", "line of its own"),
        ("%%", "empty comment", "write a word"),
    ],
)
def test_a_flowchart_must_not_have_it(line: str, problem: str, remedy: str) -> None:
    found = faults(NODES.format(line))

    assert any(problem in one and remedy in one for one in found), found


@pytest.mark.parametrize("header", ["graph ;", "graph;"])
def test_a_flowchart_without_a_direction_begins_on_a_line_of_its_own(header: str) -> None:
    assert faults(f"{header}a -->|go| b")


@pytest.mark.parametrize(
    "lines",
    [
        "title: one --> two",
        "# a comment\n\ntitle: 'a: b'\nconfig:\n  theme: dark\n  themeVariables:\n    lineColor: '#f00'\n  look: neo",
    ],
)
@pytest.mark.parametrize("indent", ["", "    "])
def test_frontmatter_is_passed_over(lines: str, indent: str) -> None:
    text = f"---\n{lines}\n---\n{STATES.format('')}"

    assert parse("\n".join(f"{indent}{line}" for line in text.split("\n"))) == parse(STATES.format(""))


@pytest.mark.parametrize(
    "lines",
    [
        "title",
        "title: one: two",
        "title: {one",
        "title: one\ntitle: two",
        "title: one\n  look: neo",
        "config:\n  look: neo\n theme: dark",
        "title: one\n\x0b",
        "[*] --> a",
    ],
)
def test_frontmatter_that_mermaid_may_not_read_is_refused(lines: str) -> None:
    found = faults(f"---\n{lines}\n---\n{STATES.format('')}")

    assert any("frontmatter" in one and "key: value" in one for one in found), found


@pytest.mark.parametrize("text", ["  ---\n  title: x\n  ---\n", "---\ntitle: x\n  ---\n"])
def test_frontmatter_that_is_indented_otherwise_than_the_rest_is_refused(text: str) -> None:
    assert any("does not see the end" in one for one in faults(f"{text}{STATES.format('')}"))


@pytest.mark.parametrize("word", ["constructor", "toString", "__proto__", "root_start", "root_end"])
def test_mermaid_loses_states_of_such_ids(word: str) -> None:
    with pytest.raises(DefinitionError, match=f'state "{word}" as'):
        parse(f"stateDiagram-v2\n[*] --> {word}\n{word} --> [*] : leave")


@pytest.mark.parametrize("word", ["constructor", "toString", "__proto__", "root_start", "root_end"])
def test_states_of_such_names_are_written_with_an_alias(word: str) -> None:
    graph = parse(f'stateDiagram-v2\nstate "{word}" as x\n[*] --> x\nx --> [*] : leave')

    assert f'state "{word}" as s1' in graph.render("mermaid")
    assert parse(graph.render("mermaid")) == graph
