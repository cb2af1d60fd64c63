import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import fakeredis
import pytest
from click.testing import Result

from fsm.app import classes
from fsm.cli import graphviz
from fsm.client import Client
from fsm.errors import ConfigError
from fsm.machine import Edge, Graph, parse

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
        (("cli_shop:Door", "--format", "png"), 2, "mermaid"),
        (("cli_shop:Door", "--output", "door.png"), 2, "no format is known by the suffix '.png'"),
        ((), 2, "name a file, module:Class, or an FSM"),
    ],
)
def test_what_cannot_be_drawn_is_said(fsm: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    Path("bad.mmd").write_text(BAD, encoding="utf-8")

    done = fsm("draw", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


@pytest.mark.parametrize(
    ("file", "begin"),
    [
        ("door.mmd", "stateDiagram-v2\n"),
        ("door", "stateDiagram-v2\n"),
        ("door.puml", "@startuml\n"),
        ("door.DOT", "digraph {\n"),
        ("door.gv", "digraph {\n"),
    ],
)
def test_the_name_of_the_file_says_what_is_drawn(fsm: Run, file: str, begin: str) -> None:
    done = fsm("draw", "cli_shop:Door", "-o", file)

    assert (done.exit_code, done.output) == (0, "")
    assert Path(file).read_text(encoding="utf-8").startswith(begin)


def test_the_format_that_is_named_counts_more_than_the_name_of_the_file(fsm: Run) -> None:
    fsm("draw", "cli_shop:Door", "-o", "door.png", "--format", "dot")

    assert Path("door.png").read_text(encoding="utf-8").startswith("digraph {")


@pytest.fixture
def door(fsm: Run, work: Callable[[], None]) -> str:
    """An FSM that went from closed to open."""
    assert fsm("start", "cli_shop:Door", "door-1").exit_code == 0
    assert fsm("transition", "door-1", "push").exit_code == 0
    work()
    return "door-1"


@pytest.mark.parametrize(
    ("form", "current", "visited"),
    [
        ("mermaid", "class open current", "class closed visited"),
        ("plantuml", "state open #ffca28", "state closed #fff3c4"),
        (
            "dot",
            '"open" [shape=box style="rounded,filled" fillcolor="#ffca28"',
            '"closed" [shape=box style="rounded,filled"',
        ),
    ],
)
@pytest.mark.parametrize(
    "arguments", [(), ("cli_shop:Door",), ("cli_shop",), ("--app", "cli_shop"), ("--app", "cli_shop:Lamp")]
)
def test_the_state_of_an_fsm_is_marked_and_where_it_was(
    fsm: Run, door: str, arguments: tuple[str, ...], form: str, current: str, visited: str
) -> None:
    done = fsm("draw", "--fsm", door, "--format", form, *arguments)

    assert (done.exit_code, done.stderr) == (0, "")
    assert current in done.stdout
    assert visited in done.stdout
    assert done.stdout.count("#ffca28") == done.stdout.count("#fff3c4") == 1


def test_a_file_may_be_drawn_with_the_state_of_an_fsm(fsm: Run, door: str) -> None:
    Path("ours.mmd").write_text("stateDiagram-v2\n[*] --> open\nopen --> [*] : leave\n", encoding="utf-8")

    done = fsm("draw", "ours.mmd", "--fsm", door)

    assert "class open current" in done.stdout
    assert "visited" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--fsm", "nobody"), 1, "nobody"),
        (("--fsm", "door-1", "cli_shop:Lamp"), 2, "is machine 'Lamp', and this FSM is one of 'Door'"),
        (("--fsm", "door-1", "door.mmd"), 2, "it is in state 'open', which this diagram of 'Door' has not"),
        (("--fsm", "door-1", "--format", "png"), 2, "svg"),
    ],
)
def test_an_fsm_that_cannot_be_marked_is_said(
    fsm: Run, door: str, arguments: tuple[str, ...], code: int, text: str
) -> None:
    Path("door.mmd").write_text(GOOD, encoding="utf-8")

    done = fsm("draw", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_machine_that_nobody_has_announced_is_said(fsm: Run, door: str, fake: fakeredis.FakeServer) -> None:
    fakeredis.FakeRedis(server=fake).delete("fsm:default:machines")

    done = fsm("draw", "--fsm", door)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "unknown machine 'Door'" in done.stderr


@pytest.fixture
def dot() -> str:
    """Graphviz. Without it: a failure in CI, a skip elsewhere."""
    if program := shutil.which("dot"):
        return program
    if os.environ.get("CI"):
        pytest.fail("CI draws pictures: install graphviz")
    pytest.skip("no pictures are drawn: Graphviz's dot is not on PATH")


SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_holds_every_state_and_event_and_the_mark(fsm: Run, door: str, dot: str) -> None:
    done = fsm("draw", "--fsm", door, "-o", "door.svg")

    assert (done.exit_code, done.output) == (0, "")
    picture = ET.parse("door.svg")  # noqa: S314 - our own picture
    texts = {text.text for text in picture.iter(f"{SVG}text")}
    assert {"closed", "open", "gone", "push", "pull", "break", "leave"} <= texts
    assert [path.get("fill") for path in picture.iter(f"{SVG}path")].count("#ffca28") == 1


@pytest.mark.parametrize(
    "name", ["a b", "zurück", "日本", 'say "hi"', "a & b", "&amp;", "a\\b", "a\\", "<b>", "a|{b}", "\\N"]
)
def test_a_picture_shows_a_name_as_it_is(dot: str, name: str) -> None:
    graph = Graph((name, "end"), (Edge(name, "go", "end"),), name, ends=frozenset({"end"}))

    picture = ET.fromstring(graphviz.svg(graph.render("dot", current=name)))  # noqa: S314 - our own picture

    # Graphviz writes spaces that do not break.
    texts = {(text.text or "").replace("\u00a0", " ") for text in picture.iter(f"{SVG}text")}
    assert texts == {name, "end", "go"}


def test_without_graphviz_it_is_said_what_to_install(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    done = fsm("draw", "cli_shop:Door", "--format", "svg")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "apt-get install graphviz" in done.stderr
    assert "--format dot" in done.stderr


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exec sleep 60", "took more than 0.2 s"),
        ("echo bad luck >&2; exit 3", "ended with 3 (bad luck)"),
        ("exit 0", "ended with 0 ()"),
    ],
)
def test_a_graphviz_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str) -> None:
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(ConfigError) as raised:
        graphviz.svg("digraph {}", timeout=0.2 if "sleep" in script else 30)

    assert text in str(raised.value)
    assert "--format dot" in str(raised.value)


NEXT = """
from fsm import Machine, Settings


class Old(Machine):
    settings = Settings(name="Order")
    diagram = '''
    stateDiagram-v2
        [*] --> review : begin
        review --> review : note
        review --> packed : approve
        review --> kept : keep
        kept --> kept : remind after 1h
        kept --> packed : done
        packed --> [*] : ship
    '''


class New(Machine):
    settings = Settings(name="Order", queue="orders")
    diagram = '''
    stateDiagram-v2
        [*] --> checking
        checking --> packed : accept
        checking --> kept : keep
        kept --> packed : accept!
        packed --> [*] : ship
    '''


class Migrating(New):
    settings = Settings(name="Order", definition_version=2)

    def migrate(self, snapshot, from_version):
        snapshot.state = {"review": "checking"}.get(snapshot.state, snapshot.state)
"""


@pytest.fixture
def living(fsm: Run, fake: fakeredis.FakeServer) -> str:
    """A module with the next definition of a machine, and FSMs of the one before."""
    Path("cli_next.py").write_text(NEXT, encoding="utf-8")
    machine = classes("cli_next:Old")[0]
    with Client("redis://x") as client:
        for number in range(40):
            client.start_fsm(machine, f"o-{number}", state="kept" if number > 36 else "review")
        for number in range(2):
            client.transition(f"o-{number}", "approve")
        client.transition("o-2", "note", delay="1h")
    return "cli_next"


def test_check_against_redis_tells_what_a_deploy_would_leave_behind(fsm: Run, living: str) -> None:
    done = fsm("check", f"{living}:New", "--against", "redis://x", "--mail")

    assert done.exit_code == 1
    told = done.stdout.splitlines()
    assert "deploy: 40 FSMs live, and this stands against it:" in told
    assert "  37 FSMs are in `review`, which the new definition lacks" in told
    assert "  2 waiting events `approve` have no edge" in told
    assert "  1 waiting event `note` has no edge" in told
    assert "  3 armed timers `remind` have no edge" in told
    assert "  3 FSMs are in `kept`, whose hard event `accept` is new: nothing fires it for them" in told
    assert "  40 FSMs are in queue `fsm`, and the new definition has `orders`: workers must listen on both" in told
    assert any("definition_version is 1 as before" in line for line in told)


def test_check_against_redis_reads_no_fsm_unless_it_is_asked_to(fsm: Run, living: str) -> None:
    # Seen to fail where mail was read always.
    done = fsm("check", f"{living}:New", "--against", "redis://x", "--json")

    (one,) = json.loads(done.stdout)
    assert (done.exit_code, one["ok"], one["deploy"]["fsms"]) == (1, False, 40)
    assert [(found["kind"], found["about"], found["count"]) for found in one["deploy"]["findings"]] == [
        ("state", "review", 37),
        ("hard", "kept", 3),
        ("queue", "fsm", 40),
    ]


def test_check_against_redis_knows_what_a_migration_leads_on(fsm: Run, living: str) -> None:
    for options in ((), ("--mail",)):
        done = fsm("check", f"{living}:Migrating", "--against", "redis://x", *options)

        assert "  note: 37 FSMs are in `review`, which the new definition lacks: `migrate` leads them on" in done.stdout
        assert "37 FSMs are in `review`, which the new definition lacks\n" not in done.stdout


def test_check_against_redis_tells_each_of_several_definitions_of_one_name_apart(fsm: Run, living: str) -> None:
    # Seen to fail with the checks kept by the names of the machines: all were told what was found of the last.
    done = fsm("check", living, "--against", "redis://x", "--json")

    assert (done.exit_code, [one["ok"] for one in json.loads(done.stdout)]) == (1, [True, False, False])


def test_check_against_redis_finds_nothing_where_nothing_changed(fsm: Run, living: str) -> None:
    done = fsm("check", f"{living}:Old", "--against", "redis://x", "--mail")

    assert done.exit_code == 0
    assert "deploy: 40 FSMs live, and nothing stands against it" in done.stdout


def test_check_against_redis_tells_of_fsms_that_a_newer_definition_wrote(fsm: Run, living: str) -> None:
    with Client("redis://x") as client:
        client.start_fsm(classes(f"{living}:Migrating")[0], "newer", state="kept")

    told = fsm("check", f"{living}:New", "--against", "redis://x").stdout
    assert "  definition_version 2 was announced, and this one is 1: FSMs that it has touched would wait" in told
    told = fsm("check", f"{living}:New", "--against", "redis://x", "--mail").stdout
    assert "  1 FSM is of definition_version 2, and this one is 1: they would wait" in told


def test_check_against_redis_says_where_no_fsm_of_it_was_ever_there(fsm: Run, shop: str) -> None:
    done = fsm("check", f"{shop}:Door", "--against", "redis://x", "--mail")

    assert done.exit_code == 0
    assert "0 FSMs live, and nothing stands against it" in done.stdout
    assert "machine 'Door' was never announced here: was it renamed?" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("cli_shop:Door", "--mail"), "--mail: goes with --against URL"),
        (("door.mmd", "--against", "redis://x"), "name a class, as module:Class"),
    ],
)
def test_check_against_redis_wants_a_class_and_a_redis(fsm: Run, arguments: tuple[str, ...], text: str) -> None:
    Path("door.mmd").write_text(GOOD, encoding="utf-8")

    done = fsm("check", *arguments)

    assert done.exit_code != 0
    assert text in done.stderr
