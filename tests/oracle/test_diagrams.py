"""What we read in a diagram, Mermaid reads in it.

Asked are every diagram of the repository, all that our tests accept, and what we write. `fsm/machine` promises that
what it accepts is also valid for Mermaid; here that is held against Mermaid's own parser. PlantUML is not asked.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsm.machine import Edge, Graph, parse
from fsm.machine.draft import Draft
from fsm.machine.labels import read_label
from fsm.machine.names import END, flowchart_id_remedy, mermaid_id_remedy
from fsm.machine.parse import examine
from tests.oracle.conftest import Answer, Mermaid
from tests.property.test_diagrams import graphs

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", "node_modules", "build", "dist", "__pycache__"}
HEADER = re.compile(r"^\s*(?:stateDiagram|graph\b|flowchart\b)", re.MULTILINE)
FENCE = re.compile(r"^(?P<indent> *)```[^\n`]*\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.oracle


def is_for_mermaid(text: str) -> bool:
    """Tell whether we accept it, with an end or without, and not as PlantUML."""
    return bool(HEADER.search(text)) and "@startuml" not in text and not examine(text, endless=True)[1]


def texts() -> Iterator[str]:
    """Every block of a page and every string in Python that may be a diagram."""
    for path in sorted(ROOT.rglob("*.md")):
        if not SKIPPED & set(path.relative_to(ROOT).parts):
            yield from (found["text"] for found in FENCE.finditer(path.read_text(encoding="utf-8")))
    for path in sorted(ROOT.rglob("*.py")):
        if not SKIPPED & set(path.relative_to(ROOT).parts):
            yield from (
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value
            )


DIAGRAMS = [text for text in dict.fromkeys(texts()) if is_for_mermaid(text)]


def differences(mermaid: Mermaid, text: str) -> list[str]:
    """What Mermaid reads otherwise than we in a text that we accept: faults, states, their names, edges."""
    return differences_to(mermaid.read(tidy(text)), text)


def tidy(text: str) -> str:
    """Take the margin away, as Mermaid does it with the diagrams of a page."""
    return textwrap.dedent(text).strip()


def differences_to(answer: Answer, text: str) -> list[str]:
    """Compare Mermaid's answer with our reading of a text."""
    if answer.error:
        return [f"Mermaid cannot read it: {answer.error}"]
    draft = Draft(text)
    importlib.import_module("fsm.machine.parse")._read(draft)
    found = []
    if set(draft.first) != set(answer.states):
        found.append(f"states: ours are {sorted(draft.first)}, Mermaid's {sorted(answer.states)}")
    found += [
        f"the name of {state}: ours is {name!r}, Mermaid's {answer.states[state].texts}"
        for state, name in draft.names.items()
        if state in answer.states and answer.states[state].texts[:1] != [name]
    ]
    starts, edges, ends = [], [], []
    for source, target, label in answer.edges:
        if source == END:
            starts.append((target, label or END))
        elif target == END and not label:
            ends.append(source)
        else:
            edges += edges_of(source, label, target)
    # In flowcharts starts and ends are not written but found.
    ours = [
        ("starts", [] if draft.is_flowchart else [(start.state, start.entry) for start in draft.starts], starts),
        ("edges", draft.edges, edges),
        ("ends", [] if draft.is_flowchart else [state for state, _ in draft.ends], ends),
    ]
    return found + [f"{what}: ours are {mine}, Mermaid's {its}" for what, mine, its in ours if mine != its]


def edges_of(source: str, label: str, target: str) -> list[Edge | str]:
    """Give the edges that one arrow of Mermaid's means by its label."""
    labels, faults = read_label(label)
    return [
        *(Edge(source, one.event, target, one.guard, one.mark, one.fails, one.after_ms) for one in labels),
        *map(str, faults),
    ]


def test_there_are_diagrams_to_ask_about() -> None:
    headers = {text.split(maxsplit=1)[0] for text in DIAGRAMS}

    assert len(DIAGRAMS) > 50
    assert {"stateDiagram-v2", "flowchart", "graph"} <= headers


@pytest.mark.parametrize("text", DIAGRAMS, ids=lambda text: f"{' '.join(text.split())[:40]}…")
def test_mermaid_reads_a_diagram_of_this_repository_as_we_do(mermaid: Mermaid, text: str) -> None:
    assert differences(mermaid, text) == []


@pytest.mark.parametrize("text", DIAGRAMS, ids=lambda text: f"{' '.join(text.split())[:40]}…")
def test_mermaid_reads_what_we_write_of_a_diagram_as_we_do(mermaid: Mermaid, text: str) -> None:
    graph = parse(text, endless=True)

    assert differences(mermaid, graph.render("mermaid")) == []


def test_mermaid_reads_as_we_do_what_the_tests_of_our_readers_accept(mermaid: Mermaid, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.oracle.recorder",
            "-p",
            "no:cacheprovider",
            *(
                f"tests/unit/machine/test_{name}.py"
                for name in ("flowchart", "labels", "mermaid", "ornaments", "parse")
            ),
        ],
        cwd=ROOT,
        env=os.environ | {"DIAGRAMS_SEEN": str(seen)},
        capture_output=True,
        text=True,
        check=False,
    )
    accepted = [text for text in json.loads(seen.read_text(encoding="utf-8")) if is_for_mermaid(text)]

    assert done.returncode == 0, done.stdout
    assert len(accepted) > 100
    assert {text: found for text in accepted if (found := differences(mermaid, text))} == {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs(), data=st.data())
def test_mermaid_reads_what_we_write_of_any_graph_as_we_do_and_sees_the_marks(
    mermaid: Mermaid, graph: Graph, data: st.DataObject
) -> None:
    current = data.draw(st.sampled_from(["", *graph.states]))
    visited = data.draw(st.sets(st.sampled_from(graph.states)))
    text = graph.render("mermaid", current=current, visited=visited)

    answer = mermaid.read(tidy(text))

    assert differences_to(answer, text) == []
    seen = {state.texts[0]: state.classes for state in answer.states.values()}
    assert seen == {
        state: ["current"] if state == current else ["visited"] if state in visited else [] for state in graph.states
    }


# Letters, digits and more of all scripts, as Python knows them: `\w`.
characters = st.characters(categories=("L", "N"), include_characters="_")


@settings(max_examples=150, deadline=None)
@given(state=st.text(characters, min_size=1, max_size=4))
def test_mermaid_knows_the_letters_of_the_ids_that_we_accept(mermaid: Mermaid, state: str) -> None:
    if not mermaid_id_remedy(state):
        assert differences(mermaid, f"stateDiagram-v2\n[*] --> {state}\n{state} --> {state} : again") == []
    if not flowchart_id_remedy(state):
        assert differences(mermaid, f"flowchart LR\na_b -->|go| {state}") == []


# What has a meaning in one of Mermaid's syntaxes, or looks like it.
PIECES = [
    *[
        "stateDiagram",
        "[*]",
        " --> ",
        "-->",
        "->",
        "--",
        "---",
        "|",
        ":",
        ":::",
        ":::x",
        ";",
        ",",
        "\n",
        " ",
        "  ",
        "\t",
    ],
    *[
        "\u00a0",
        "\u2028",
        "\v",
        "\r",
        "a",
        "b",
        "ü",
        "x",
        "o",
        "v",
        "1",
        "1a",
        "a.b",
        "a-b",
        "a--b",
        "_",
        "٣",
        "ⅷ",
        "é",
    ],
    *["state ", "note ", "note left of a : t", "note right of zz\nhi\nend note", "end note", "end  note", '"', '"q r"'],
    *[
        " as ",
        "{",
        "}",
        "%%",
        "%% c",
        "%%{init: {}}%%",
        "!",
        "?",
        "[",
        "]",
        "(",
        ")",
        "<<fork>>",
        " after 1h",
        " fails",
    ],
    *[
        "[else]",
        "[not g]",
        "'",
        "title",
        "&",
        "==",
        "-.->",
        "==>",
        "--x",
        "--o",
        "@",
        "#",
        "\\",
        "/",
        "*",
        "+",
        "$",
        "=",
    ],
    *["<", ">", "<br>", "&amp;", "#35;", "~~~", "°", "ﬂ°°", "accDescr { x }", "accDescr {\n x\n}", "accTitle: x"],
    *["subgraph", "end", 'click a href "x"', 'click a "x" "y"', "click a call f()", "click a cb", 'click zz "x"'],
    *["style a fill:#fff", "style zz fill:#fff", "classDef x fill:#fff", "classDef default fill:#fff", "class a x"],
    *[
        "class zz x",
        "linkStyle 0 stroke:#fff,stroke-width:4px",
        "linkStyle 9 stroke:red",
        "direction LR",
        "direction TB",
    ],
    *[
        "hide empty description",
        "scale 3 width",
        "scale",
        "default",
        "root_start",
        "root_end",
        "constructor",
        "__proto__",
    ],
    *[
        "toString",
        "start",
        "End",
        "graph",
        "flowchart",
        "href",
        "call",
        "interpolate",
        "e1@",
        "@{ shape: x }",
        "\u200b",
    ],
    *["state b", "state b : t", "state b:::x", 'state "q" as b', "b : text", "b:::x", "a:::x --> b : e", " o ", " x "],
]


def changed(chance: random.Random, text: str) -> str:
    """Put something into a diagram, or take something out."""
    for _ in range(chance.choice([1, 1, 2])):
        piece, at = chance.choice(PIECES), chance.randrange(len(text) + 1)
        lines, words = text.split("\n"), re.findall(r"\w+", text)
        match chance.randrange(5):
            case 0:
                text = text[:at] + piece + text[at:]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), piece)
                text = "\n".join(lines)
            case 2 if words:
                text = re.sub(rf"\b{chance.choice(words)}\b", lambda _, piece=piece: piece, text)
            case 3:
                text = text[:at] + text[at + chance.randrange(1, 6) :]
            case _:
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
                text = "\n".join(lines)
    return text


def test_mermaid_reads_as_we_do_what_we_accept_of_diagrams_with_something_wrong_in_them(mermaid: Mermaid) -> None:
    """Most changes make a diagram that we refuse, so many are made; the same in each run."""
    chance = random.Random(11)
    short = [text for text in DIAGRAMS if len(text) < 500]
    accepted = [text for _ in range(2000) if is_for_mermaid(text := changed(chance, chance.choice(short)))]

    assert len(accepted) > 100
    assert {text: found for text in accepted if (found := differences(mermaid, text))} == {}
