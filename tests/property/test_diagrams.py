from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsm.errors import DefinitionError, ValidationError
from fsm.machine import Edge, Graph, Guard, parse
from fsm.machine.names import state_name_remedy
from fsm.machine.parse import error_of, examine

quick = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

events = st.from_regex(r"[a-zé_][a-z0-9_]{0,3}([.-][a-z0-9]{1,2})?", fullmatch=True)
words = [
    "state",
    "note",
    "default",
    "end",
    "title",
    "s1",
    "s2",
    "class",
    "as",
    "fails",
    "half-installed",
    "a.b",
    "click.x",
]
names = (
    st.sampled_from(words)
    | st.from_regex(r"[a-z][a-z0-9]{0,2}", fullmatch=True)
    | st.text(min_size=1, max_size=8).filter(lambda name: not state_name_remedy(name))
)


@st.composite
def graphs(draw: Callable[[Any], Any]) -> Graph:
    """Draw graphs that can be read: each state has at least one way in, and the marks fit."""
    states = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    is_end = [draw(st.booleans()) for _ in states]
    is_end[0] = is_end[0] and len(states) == 1
    open_states = [state for state, ended in zip(states, is_end, strict=True) if not ended]
    edges: list[Edge] = []
    # A tree first, so that each state is reachable.
    for number, state in enumerate(states[1:], 1):
        source = draw(st.sampled_from([one for one in states[:number] if one in open_states]))
        edges.append(Edge(source, f"{draw(events)}_t{number}", state))
    if open_states:
        for number in range(draw(st.integers(0, 6))):
            source, target = draw(st.sampled_from(open_states)), draw(st.sampled_from([*states, "[*]"]))
            event = f"{draw(events)}_x{number}"
            kind = draw(st.sampled_from(["plain", "soft", "timer", "guarded", "fails"]))
            after = draw(st.integers(1, 10**9)) if kind == "timer" else None
            if kind == "guarded":
                name = draw(events.filter(lambda text: text not in {"not", "else"}))
                guard = Guard(name, draw(st.booleans()))
                edges += [Edge(source, event, target, guard), Edge(source, event, source, Guard("else"))]
            else:
                edges.append(Edge(source, event, target, mark="?" if kind == "soft" else "", after_ms=after))
            if kind == "fails":
                edges.append(Edge(source, event, draw(st.sampled_from(states)), fails=True))
    order = tuple(draw(st.permutations(states)))
    entry = draw(st.just("[*]") | events)
    ends = frozenset(state for state, ended in zip(states, is_end, strict=True) if ended)
    return Graph(order, tuple(edges), states[0], entry, ends)


@quick
@given(graphs(), st.sampled_from(["mermaid", "plantuml"]))
def test_what_is_rendered_is_read_back(graph: Graph, syntax: str) -> None:
    again = parse(format(graph, syntax), endless=True)
    assert again == graph
    assert again.fingerprint == graph.fingerprint


@quick
@given(graphs())
def test_each_path_is_a_way_from_the_start_to_an_end(graph: Graph) -> None:
    leads = {(edge.source, edge.target) for edge in graph.edges}
    enders = {source for source, target in leads if target == "[*]"} | graph.ends
    paths = [path for path, _ in zip(graph.paths(), range(50), strict=False)]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path[0] == graph.start
        assert path[-1] in enders
        assert len(set(path)) == len(path)
        assert all(step in leads for step in itertools.pairwise(path))
    for loop in graph.loops(50):
        assert len(set(loop)) == len(loop)
        assert all(step in leads for step in zip(loop, (*loop[1:], loop[0]), strict=True))


def plain_reach(edges: set[tuple[int, int]], start: int) -> set[int]:
    """Give what can be reached, as plainly as it can be said."""
    reached = {start}
    while more := {b for a, b in edges if a in reached} - reached:
        reached |= more
    return reached


@quick
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))), st.sets(st.integers(0, 6), max_size=3))
def test_unreachable_states_and_those_without_an_end_are_found_as_by_plain_search(
    edges: set[tuple[int, int]], ends: set[int]
) -> None:
    edges = {(a, b) for a, b in edges if a not in ends}
    states = {0, *ends, *(state for edge in edges for state in edge)}
    lines = [f"s{a} --> s{b} : e{a}_{b}" for a, b in sorted(edges)] + [f"s{end} --> [*]" for end in sorted(ends)]
    reached = plain_reach(edges, 0)
    hopeful = {state for state in states if plain_reach(edges, state) & ends}
    try:
        graph = parse("\n".join(["stateDiagram-v2", "[*] --> s0", *lines]))
    except ValidationError as error:
        found = " ".join(error.problems)
        assert {state for state in states if f"state 's{state}' is unreachable" in found} == states - reached
        assert {state for state in states if f"from state 's{state}'" in found} == reached - hopeful
        assert states - reached or reached - hopeful
    else:
        assert reached == states == hopeful
        for state in states:
            path = graph.shortest_path("s0", f"s{state}")
            assert path is not None
            assert len(path) <= len(states)


pieces = st.sampled_from(
    [
        *[
            "stateDiagram-v2",
            "graph TD",
            "@startuml",
            "@enduml",
            "[*]",
            "-->",
            "->",
            "--",
            "|",
            ":",
            ":::",
            ";",
            ",",
            "\n",
        ],
        *[
            " ",
            "a",
            "b",
            "c",
            "state ",
            "note ",
            "left of ",
            "end note",
            '"',
            "as ",
            "{",
            "}",
            "%%",
            "%%{",
            "}%%",
            "---",
        ],
        *["!", "?", "[", "]", "(", ")", "<<fork>>", "after 1h", "fails", "else", "not ", "'", "/'", "'/", "title", "&"],
        *["==", "-.", ".->", "==>", "@", "#", "\\", "\t", "\r", "\x00", "\ud800", "accDescr {", "subgraph x", "end"],
    ]
)


@pytest.mark.parametrize("header", ["", "stateDiagram-v2\n[*] --> a\n", "graph TD\n", "@startuml\n[*] --> a\n"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=80) | st.lists(pieces, max_size=40).map("".join))
def test_any_text_gives_a_graph_or_a_definition_error(header: str, text: str) -> None:
    try:
        graph = parse(header + text)
    except DefinitionError:
        _, faults = examine(header + text)
        assert faults
        assert str(error_of(faults))
        assert all(fault.what and fault.remedy and fault.line >= 1 and fault.column >= 1 for fault in faults)
    else:
        assert parse(graph.render()) == graph
        assert parse(graph.render("plantuml")) == graph


@pytest.mark.parametrize(
    "piece",
    [
        "-",
        "- ",
        "[",
        '"',
        "a --> ",
        ":",
        ":::",
        "state ",
        " ",
        "|",
        "{",
        "a, ",
        "x [",
        "(",
        "a-",
        "[a",
        "-[",
        ".",
        "=",
        "a;",
        "a -->|x| ",
        "-- ",
        "[*] --> ",
    ],
)
@pytest.mark.parametrize("header", ["stateDiagram-v2\n", "graph TD\n", "@startuml\n"])
@pytest.mark.timeout(30)
def test_a_long_line_does_not_hang(header: str, piece: str) -> None:
    for text in (piece * 20_000, f"a {piece * 20_000}", f"a --> b : {piece * 20_000}"):
        with contextlib.suppress(DefinitionError):
            parse(header + text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("state s{n} {{\n", "}}\n"),
        ("state s{n} {{\n[*] --> a{n}\n", "}}\n"),
        ("subgraph s{n}\n", "end\n"),
        ("a{n} --> b{n} : x\n", ""),
        ("a{n} -->|x| a{m}\n", ""),
        ("a --> a{n} : x{n}, y{n} [g{n}]\n", ""),
        ("a{n} --> a{m} : x!\n", ""),
        ("[*] --> a{n}\n", "a{n} --> [*]\n"),
        ("note left of a{n} : x\n", ""),
        ("%% {n}\n", ""),
        ("/' {n}\n", "'/\n"),
        ("a{n}:::b{n}\n", ""),
    ],
)
@pytest.mark.parametrize("header", ["stateDiagram-v2\n", "graph TD\n", "@startuml\n"])
@pytest.mark.timeout(20)
def test_many_lines_and_deep_nesting_do_not_hang(header: str, before: str, after: str) -> None:
    count = 30_000 // len(before + after)
    lines = [before.format(n=n, m=n + 1) for n in range(count)]
    lines += [after.format(n=n) for n in reversed(range(count))]
    for text in (header + "".join(lines), header + "[*] --> a0\n" + "".join(lines)):
        with contextlib.suppress(DefinitionError):
            parse(text)


controls = st.lists(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Zs", "Mn", "Co"]) | pieces, max_size=40).map(
    "".join
)


@pytest.mark.parametrize("header", ["stateDiagram-v2\n[*] --> a\n", "graph TD\n", "@startuml\n[*] --> a\n"])
@settings(max_examples=settings.default.max_examples // 8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=controls, again=st.integers(1, 3000), last=controls)
def test_large_texts_of_control_characters_give_a_graph_or_a_definition_error(
    header: str, first: str, again: int, last: str
) -> None:
    text = header + (first * again)[:100_000] + last
    with contextlib.suppress(DefinitionError):
        parse(text)
