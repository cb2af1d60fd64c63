"""What a page tells the reader to type exists: commands, options, targets, modules, names.

Blocks of `sh` are read word by word against the command line's own tree. Blocks of `python` must compile, and the names
they import from `fsm` must exist; one that is marked `python run` is run, against a real Redis in `FSM_URL`.
"""

import ast
import importlib
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import fsm

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Lines of the README that a person sees before scrolling.
SCREEN = 50
# Programs that are not ours: that they exist is not for us to test.
FOREIGN = {
    "apt-get",
    "brew",
    "cd",
    "curl",
    "docker",
    "git",
    "head",
    "jq",
    "kill",
    "mkdir",
    "pip",
    "pytest",
    "redis-cli",
    "rq",
    "rq-dashboard",
    "rsync",
    "sha256sum",
    "sqlite3",
    "source",
    "tail",
    "uv",
    "zcat",
}
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["info"].strip(), match["text"])
        for match in FENCE.finditer(text)
    ]


ALL = [
    block
    for path in PAGES
    if path.exists()
    for block in blocks(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
]
SHELL = [block for block in ALL if block.info.split()[:1] == ["sh"]]
PYTHON = [block for block in ALL if block.info.split()[:1] == ["python"]]
# Files that a page has the reader write: the second word of a block's info, as in ```python shop.py
GIVEN = {word for block in ALL for word in block.info.split()[1:2] if "." in word}
DIAGRAMS = [block for block in ALL if block.info == "mermaid" and "stateDiagram" in block.text]


def commands(text: str) -> list[list[str]]:
    """The simple commands of a block, without comments, assignments in front, redirections and what joins them."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for word in [*lexer, ";"]:
            if skip:
                skip = False
            elif set(word) <= set("<>"):
                skip = True
            elif set(word) <= set("|&;"):
                if words:
                    found.append(words)
                words = []
            elif words or not re.match(r"[A-Za-z_]\w*=", word):
                words.append(word)
    return found


def command_line() -> click.Group:
    """The tree behind the console script `fsm`."""
    cli: Any = importlib.import_module("fsm.cli")
    for found in (cli.main, *vars(cli).values()):
        if isinstance(found, click.Group):
            return found
    pytest.fail("fsm.cli holds no click.Group from which the `fsm` command comes")


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Read words as the command line would, down to the last subcommand, without running anything."""
    with command.make_context(command.name, list(words), parent=parent) as context:
        if isinstance(command, click.Group):
            _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            parse(found, rest, context)


def is_module(name: str) -> bool:
    """Whether `python -m` finds it from the root of the checkout."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def check(words: list[str]) -> None:
    """Hold one command against what is there; AssertionError or click.ClickException where it is not."""
    program, rest = words[0], words[1:]
    if program == "fsm":
        parse(command_line(), rest)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        assert {word for word in rest if "=" not in word} <= targets, f"make {rest}: its targets are {sorted(targets)}"
    elif program in {"python", "python3"} and rest[:1] == ["-m"]:
        assert is_module(rest[1]), f"python -m {rest[1]}: no such module"
    elif program in {"python", "python3"}:
        # A file of the checkout, or one that a page gave the reader.
        assert rest[0] in GIVEN or (ROOT / rest[0]).is_file(), f"python {rest[0]}: no such file"
    else:
        assert program in FOREIGN, f"{program}: not ours, and not in this test's list of others' programs"


def test_the_first_screen_says_what_it_is_with_a_diagram_and_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    seen = [block for block in blocks("README.md", text) if block.line + block.text.count("\n") < SCREEN]

    assert text.startswith("# ")
    assert any(block.info == "mermaid" for block in seen)
    assert sum(len(commands(block.text)) for block in seen if block.info.split()[:1] == ["sh"]) >= 2


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_of_a_page_exists(block: Block) -> None:
    assert commands(block.text)
    for words in commands(block.text):
        try:
            check(words)
        except (AssertionError, click.ClickException) as error:
            pytest.fail(f"{block}: `{shlex.join(words)}`: {error}")


def test_the_pages_show_commands_and_python() -> None:
    assert any(words[0] == "fsm" for block in SHELL for words in commands(block.text))
    assert PYTHON


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_of_a_page_compiles_and_imports_what_exists(block: Block) -> None:
    tree = compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST)

    wanted = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "fsm"
        for alias in node.names
    }
    assert wanted - set(fsm.__all__) == set()


def test_python_that_is_marked_runs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FSM_URL", request.getfixturevalue("redis_url"))
    request.getfixturevalue("raw_redis")
    monkeypatch.chdir(tmp_path)
    marked = [block for block in PYTHON if "run" in block.info.split()[1:]]

    for block in marked:
        exec(compile(block.text, str(block), "exec"), {"__name__": "page"})  # noqa: S102 - our own page, marked so

    assert marked, "mark at least one block of python as ```python run"


def test_every_state_diagram_of_a_page_is_one_of_ours() -> None:
    parse_diagram = importlib.import_module("fsm.machine.parse").parse

    graphs = [parse_diagram(block.text, endless=True) for block in DIAGRAMS]

    assert graphs
    assert all(graph.states for graph in graphs)


@pytest.mark.parametrize(
    "line",
    [
        "make nonsense",
        "python -m examples.nonsense",
        "python examples/nonsense.py",
        "fsm nonsense",
        "fsm ls --nonsense",
        "fsm --nonsense ls",
        "nonsense",
    ],
)
def test_a_command_that_does_not_exist_is_found_out(line: str) -> None:
    with pytest.raises((AssertionError, click.ClickException), match="nonsense"):
        check(commands(line)[0])


def test_shell_is_read_as_a_shell_reads_it() -> None:
    text = "# nothing\nFSM_URL=a fsm ls --json | head -1 > out.txt  # all\nmake demo && fsm state \\\n  'a b' &\n"

    assert commands(text) == [["fsm", "ls", "--json"], ["head", "-1"], ["make", "demo"], ["fsm", "state", "a b"]]


NAMED_TEST = re.compile(r"`((?:integration|store|unit|chaos|model|property)/[a-z_/]+\.py)(?:::([a-z_]+))?`")


def test_each_test_that_the_readme_names_is_there() -> None:
    named = NAMED_TEST.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    missing = []
    for path, part in named:
        file = ROOT / "tests" / path
        names = re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE) if file.exists() else []
        if not any(part in name for name in names):
            missing.append(f"{path}::{part}")

    assert len(named) > 20
    assert missing == []
