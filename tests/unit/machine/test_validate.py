from __future__ import annotations

import pytest

from fsm.errors import ValidationError
from fsm.machine import parse


def problems(*lines: str, endless: bool = False) -> tuple[str, ...]:
    """Give what is wrong with a diagram that can be read; nothing for a good one."""
    try:
        parse("\n".join(["stateDiagram-v2", *lines]), endless=endless)
    except ValidationError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("lines", "line", "what", "remedy"),
    [
        (("a --> b : x", "b --> [*]"), 1, "has no start", "write `[*] --> state`"),
        (("[*] --> a", "[*] --> b", "a --> b : x", "b --> [*]"), 3, "several starts: line 2", "keep one"),
        (("[*] --> a", "[*] --> a", "a --> [*]"), 3, "several starts: line 2", "keep one"),
        (("[*] --> a", "a --> [*] : x", "b --> a : y"), 4, "'b' is unreachable", "write an edge that leads there"),
        (("[*] --> a", "a --> [*] : x", "state b"), 4, "'b' is unreachable", "write an edge that leads there"),
        (("[*] --> a", "a --> b : x", "a --> [*] : y"), 3, "no end can be reached from state 'b'", "endless=True"),
        (("[*] --> a", "a --> [*] : x", "a --> [*] : x"), 4, "duplicate edge: line 3", "take one of them away"),
        (("[*] --> a", "a --> [*]", "a --> [*]"), 4, "duplicate edge: line 3", "take one of them away"),
        (("[*] --> a", "a --> [*] : x, x"), 3, "duplicate edge: line 3", "take one of them away"),
        (("[*] --> a", "a --> [*] : x", "a --> [*] : x fails", "a --> [*] : x fails"), 5, "duplicate", "take one"),
        (("[*] --> a", "a --> [*]", "a --> a : x"), 4, "can never be taken: entering 'a' ends", "`a --> [*] : EVENT`"),
        (
            ("[*] --> a", "a --> [*] : x!", "a --> a : y"),
            4,
            "the hard event 'x' of line 3 is not the only",
            "`x fails`",
        ),
        (("[*] --> a", "a --> [*] : x!", "a --> a : y after 1h"), 4, "is not the only way out", "`x fails`"),
        (("[*] --> a", "a --> [*] : x!", "a --> a : y fails"), 4, "is not the only way out", "`x fails`"),
        (("[*] --> a", "a --> [*] : x! [g]", "a --> a : x? [else]"), 4, "hard in line 3 and soft here", "one mark"),
        (("[*] --> a", "a --> [*] : x", "a --> a : y fails"), 4, "'y' cannot fail in 'a'", "`a --> … : y`"),
        (
            ("[*] --> a", "a --> [*] : x", "a --> a : x fails", "a --> [*] : x fails"),
            5,
            "leads elsewhere in line 4",
            "keep one",
        ),
        (
            ("[*] --> a", "a --> b : x!", "b --> a : y!", "b --> [*] : y fails"),
            3,
            "go round for ever: a --> b --> a",
            "take the `!` away",
        ),
        (("[*] --> a", "a --> a : x!", "a --> [*] : x fails"), 3, "go round for ever: a --> a", "take the `!` away"),
        (("[*] --> a", "a --> a : x [else]", "a --> [*] : x [g]"), 4, "[else] of line 3 is not the last", "behind all"),
        (("[*] --> a", "a --> a : x", "a --> [*] : x [else]"), 4, "[else] can never be taken: line 3", "a guard"),
        (("[*] --> a", "a --> a : x [g]", "a --> [*] : x [g]"), 4, "line 3 has the same guard [g]", "another guard"),
        (
            ("[*] --> a", "a --> a : x [g] after 1h", "a --> [*] : x [else] after 2h"),
            4,
            "the timer of 'x' in 'a' takes another time in line 3",
            "give it one time, or use two events",
        ),
    ],
)
def test_each_check_names_line_text_and_remedy(lines: tuple[str, ...], line: int, what: str, remedy: str) -> None:
    found = problems(*lines)
    text = ("stateDiagram-v2", *lines)[line - 1]
    assert any(
        one.startswith(f"line {line}: ") and what in one and f"`{text}`" in one and remedy in one for one in found
    ), found


@pytest.mark.parametrize(
    "lines",
    [
        ("[*] --> a", "a --> [*]"),
        ("[*] --> a", "a --> [*] : x!", "a --> a : x fails"),
        ("[*] --> a", "a --> b : x! [g]", "a --> [*] : x! [else]", "b --> [*]"),
        ("[*] --> a", "a --> a : x [g]", "a --> [*] : x [not g]"),
        ("[*] --> a", "a --> a : x [g]", "a --> [*] : x"),
        ("[*] --> a", "a --> a : x [g], y [g]", "a --> [*] : x [else], y [else]"),
        ("[*] --> a", "a --> a : x", "a --> [*] : x"),
        # The handler of b's event, or a guard of it, may lead out of the circle.
        ("[*] --> a", "a --> b : x!", "b --> a : y!", "b --> [*] : y!"),
        ("[*] --> a", "a --> b : x! [g]", "a --> a : x! [else]", "b --> [*]"),
    ],
)
def test_what_can_work_passes(lines: tuple[str, ...]) -> None:
    assert problems(*lines) == ()


def test_a_ring_beside_the_way_is_unreachable_though_each_state_in_it_is_entered() -> None:
    found = problems("[*] --> a", "a --> [*] : x", "c --> d : y", "d --> c : z")
    assert [one.partition(": `")[0] for one in found] == [
        "line 4: state 'c' is unreachable: no way leads there from the start",
        "line 4: state 'd' is unreachable: no way leads there from the start",
    ]


def test_an_endless_machine_needs_no_end_but_all_else() -> None:
    assert problems("[*] --> a", "a --> b : x", "b --> a : y", endless=True) == ()
    assert len(problems("[*] --> a", "a --> b : x", "b --> a : y")) == 2
    assert len(problems("[*] --> a", "a --> a : x", "b --> a : y", endless=True)) == 1


def test_a_failure_may_be_the_only_way_to_an_end() -> None:
    assert problems("[*] --> a", "a --> a : x", "a --> [*] : x fails") == ()


def test_all_problems_are_told_at_once() -> None:
    found = problems("[*] --> a", "[*] --> b", "a --> a : x!", "a --> b : y", "b --> b : z fails", "c --> c : w, w")
    kinds = ("several starts", "go round", "only way out", "cannot fail", "unreachable", "duplicate", "no end")
    assert [any(kind in one for one in found) for kind in kinds] == [True] * len(kinds)
