from __future__ import annotations

from typing import Any

import pytest

from fsm.errors import DiagramError, ValidationError
from fsm.machine import parse


@pytest.mark.parametrize("text", ["", "   ", "\n\n", "%% only a comment", "' only a comment", "---\ntitle: x\n---\n"])
def test_an_empty_diagram_is_a_fault_with_its_remedy(text: str) -> None:
    with pytest.raises(DiagramError, match="empty: begin with `stateDiagram-v2`"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["sequenceDiagram\na->>b: x", "[*] --> a\na --> [*]", "digraph { a -> b }", "graph XY\na"]
)
def test_an_unknown_syntax_names_those_that_are_read(text: str) -> None:
    with pytest.raises(DiagramError, match="`stateDiagram-v2`, `flowchart TD` or `@startuml`") as raised:
        parse(text)
    assert raised.value.line == 1


def test_text_behind_the_header_is_a_fault() -> None:
    with pytest.raises(DiagramError, match="'LR' stands behind the header"):
        parse("stateDiagram-v2 LR\n[*] --> a\na --> [*]")


@pytest.mark.parametrize("value", [None, 3, b"stateDiagram-v2"])
def test_a_diagram_is_text(value: Any) -> None:
    with pytest.raises(DiagramError, match="a diagram is text, not"):
        parse(value)


def test_one_fault_of_syntax_is_a_diagram_error_with_line_column_and_text() -> None:
    with pytest.raises(DiagramError) as raised:
        parse("\n  stateDiagram-v2\n    [*] --> a\n    a --> b : go now\n    b --> [*]")
    error = raised.value
    assert (error.line, error.column, error.text) == (4, 15, "a --> b : go now")
    assert str(error).startswith("line 4, column 15: 'now' behind event 'go' cannot be read")


def test_several_faults_are_told_together_in_order_of_their_lines() -> None:
    with pytest.raises(ValidationError) as raised:
        parse("stateDiagram-v2\n[*] --> a\na --> b : x!!\nb, c --> d : y\na --> half-way : z\n[*] --> a")
    assert [one.partition(": ")[0] for one in raised.value.problems] == ["line 3", "line 4", "line 5", "line 6"]
    assert all(one.count("`") >= 2 for one in raised.value.problems)


def test_faults_of_syntax_and_of_meaning_are_told_together() -> None:
    with pytest.raises(ValidationError) as raised:
        parse("stateDiagram-v2\n[*] --> a\na --> b : x!!\nb --> c : y\nb --> c : y\nd --> c : z\nc --> [*]")
    first, second, third = raised.value.problems
    assert first.startswith("line 3: event 'x' has more than one mark: `a --> b : x!!`: ")
    assert second.startswith("line 5: duplicate edge")
    assert third.startswith("line 6: state 'd' is unreachable")


def test_one_fault_of_meaning_is_a_validation_error() -> None:
    with pytest.raises(ValidationError) as raised:
        parse("stateDiagram-v2\na --> b : x\nb --> [*]")
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize("last", ["a -->", "a --> b : x y", "half-way --> a : x", "what is this", "a, b --> a : x"])
@pytest.mark.parametrize(
    "text", ["stateDiagram-v2\n[*] --> a\na --> [*] : x\n{}", "stateDiagram-v2\n[*] --> a\na --> [*] : x\n{}\n"]
)
def test_a_malformed_last_line_is_a_fault_with_and_without_newline(text: str, last: str) -> None:
    with pytest.raises((DiagramError, ValidationError), match="line 4"):
        parse(text.format(last))


def test_a_faulty_label_does_not_make_states_unreachable() -> None:
    with pytest.raises(DiagramError):
        parse("stateDiagram-v2\n[*] --> a\na --> b : x y\nb --> c : z\nc --> [*]")


def test_an_unreadable_line_keeps_what_it_might_have_said_from_being_missed() -> None:
    with pytest.raises(DiagramError):
        parse("stateDiagram-v2\n[*] ->> a\nb --> c : z\nc --> b : z\na --> c : z fails")


def test_a_long_line_is_shown_in_part() -> None:
    with pytest.raises(DiagramError) as raised:
        parse("stateDiagram-v2\n[*] --> a\na --> [*] : x\n" + "? " * 5000)
    assert len(str(raised.value)) < 500
