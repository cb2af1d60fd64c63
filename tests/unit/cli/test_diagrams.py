import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fsm.machine import parse

Run = Callable[..., Result]

GOOD = "stateDiagram-v2\n    [*] --> a\n    a --> b : go\n    b --> a : back\n    b --> [*] : stop\n"
BAD = "stateDiagram-v2\n    [*] --> a\n    a --> b\n    b --> [*] : x;y\n"


@pytest.mark.parametrize("target", ["cli_shop:Door", "door.mmd"])
def test_check_sums_up_a_good_diagram(fsm: Run, target: str) -> None:
    Path("door.mmd").write_text(GOOD, encoding="utf-8")

    done = fsm("check", target)

    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "ok",
        "states",
        "events",
        "start",
        "ends",
        "loops",
    ]


def test_check_gives_the_numbers_as_json(fsm: Run) -> None:
    Path("two.puml").write_text(parse(GOOD).render("plantuml"), encoding="utf-8")

    (one,) = json.loads(fsm("check", "two.puml", "--json").stdout)

    assert one == {
        "name": "two.puml",
        "ok": True,
        "problems": [],
        "states": ["a", "b"],
        "events": ["go", "back", "stop"],
        "start": "a",
        "ends": ["b"],
        "loops": 1,
        "fingerprint": parse(GOOD).fingerprint,
    }


def test_check_names_all_faults_with_their_lines(fsm: Run) -> None:
    Path("bad.mmd").write_text(BAD, encoding="utf-8")

    done = fsm("check", "bad.mmd")
    (one,) = json.loads(fsm("check", "bad.mmd", "--json").stdout)

    assert done.exit_code == 1
    assert done.stdout.startswith("bad.mmd: 2 problems\n  line 3: ")
    assert "\n  line 4: " in done.stdout
    assert (one["ok"], len(one["problems"])) == (False, 2)


def test_check_finds_each_state_diagram_of_a_page_with_the_lines_of_the_page(fsm: Run) -> None:
    page = (
        f"# Page\n\n```mermaid\n{GOOD}```\n\n```python\nx = 1\n```\n\n"
        f"```mermaid\nflowchart TD\n  x --> y\n```\n\n- in a list\n\n  ~~~mermaid\n{BAD}  ~~~\n"
    )
    Path("page.md").write_text(page, encoding="utf-8")

    done = fsm("check", "page.md", "--json")

    good, bad = json.loads(done.stdout)
    lines = page.splitlines()
    assert done.exit_code == 1
    assert (good["name"], good["ok"]) == ("page.md:4", True)
    assert bad["problems"][0].startswith(f"line {lines.index('    a --> b') + 1}: ")


def test_check_tells_the_faults_of_a_class(fsm: Run) -> None:
    text = f"from fsm import Machine, on\n\nclass Bad(Machine):\n    diagram = '''{BAD}'''\n"
    Path("cli_bad.py").write_text(text, encoding="utf-8")

    done = fsm("check", "cli_bad:Bad")

    assert done.exit_code == 1
    assert "line 3: " in done.stdout
    assert done.stderr == ""


def test_check_of_a_module_checks_each_of_its_machines_without_their_services(fsm: Run) -> None:
    done = fsm("check", "cli_shop", "--json")

    assert [(one["name"], one["ok"]) for one in json.loads(done.stdout)] == [("Door", True), ("Lamp", True)]


def test_a_file_without_an_end_is_endless_on_request_only(fsm: Run) -> None:
    Path("ring.mmd").write_text("stateDiagram-v2\n    [*] --> a\n    a --> a : go\n", encoding="utf-8")

    assert fsm("check", "ring.mmd").exit_code == 1
    assert fsm("check", "ring.mmd", "--endless").exit_code == 0


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("missing.mmd", "cannot be read (No such file or directory)"),
        ("cli_missing", "no module 'cli_missing'"),
        ("cli_shop:Nobody", "has no 'Nobody'"),
        ("json", "no machines found"),
        ("not/a/module", "cannot be read"),
        ("empty.md", "has no ```mermaid block"),
        ("latin.mmd", "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", ["check", "draw"])
def test_a_target_that_is_no_diagram_is_wrong_use(fsm: Run, command: str, target: str, text: str) -> None:
    Path("empty.md").write_text("# Nothing\n", encoding="utf-8")
    Path("latin.mmd").write_bytes(b"\xe4")

    done = fsm(command, target)

    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["mermaid", "plantuml"])
def test_what_is_drawn_means_the_same(fsm: Run, form: str) -> None:
    Path("door.mmd").write_text(GOOD, encoding="utf-8")

    done = fsm("draw", "door.mmd", "--format", form)

    assert done.exit_code == 0
    assert parse(done.stdout) == parse(GOOD)


def test_draw_writes_a_file(fsm: Run) -> None:
    done = fsm("draw", "cli_shop:Door", "--format", "dot", "--output", "door.dot")

    assert (done.exit_code, done.output) == (0, "")
    assert Path("door.dot").read_text(encoding="utf-8").startswith("digraph {")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("cli_shop",), 2, "holds 2 diagrams (Door, Lamp)"),
        (("bad.mmd",), 1, "2 problems"),
        (("cli_shop:Door", "--output", "nowhere/door.dot"), 2, "cannot be written"),
        (("cli_shop:Door", "--format", "svg"), 2, "mermaid"),
    ],
)
def test_what_cannot_be_drawn_is_said(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    Path("bad.mmd").write_text(BAD, encoding="utf-8")

    done = fsm("draw", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
