"""Texts of the repository lead somewhere, and speak of nothing that is only true of one machine."""

import inspect
import re
from pathlib import Path

import pytest

from fsm.store import keys

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", ".venv-peers", "build", "dist", "htmlcov", "node_modules", "__pycache__"}
TEXTS = {".cfg", ".css", ".html", ".ini", ".j2", ".lua", ".md", ".mjs", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
NAMED = {".dockerignore", ".gitignore", "Dockerfile", "LICENSE", "Makefile", "Procfile", "run"}

# Written apart, so that this file does not hold what it forbids.
WORDS = "|".join(("sub" + "agent", "ses" + "sion", "hel" + "per", "DES" + r"IGN\.md", "STY" + r"LE\.md", "DES" + "IGN"))
PATHS = "|".join(("wo" + "rk", "ro" + "ot"))
HOSTS = "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(?:org|com)", r"deb\." + r"debian\.org"))
FORBIDDEN = re.compile(rf"\b(?:{WORDS})s?\b|(?<![\w.~-])/(?:{PATHS})(?![\w.-])|{HOSTS}")
# What tools call by such a word: pytest's scopes and hooks of its own, requests of HTTP clients.
ALLOWED = re.compile(r"""scope=["']\w+["']|pytest\.\w+""")

# As for code, in pyproject.toml.
WIDTH = 120

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)|^\[[^\]\n]+\]:\s+(?P<reference>\S+)", re.MULTILINE)
IMAGE = re.compile(r"!\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")


def texts() -> list[Path]:
    """Every text of ours: no caches, no data."""
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and (path.suffix in TEXTS or path.name in NAMED)
        and not any(part in SKIPPED or part.endswith(("_cache", ".egg-info")) for part in path.relative_to(ROOT).parts)
        and ".hypothesis" not in path.parts
    )


def faults(text: str) -> list[str]:
    """What of the forbidden stands in a text, with its line."""
    return [
        f"{number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in FORBIDDEN.finditer(ALLOWED.sub("", line))
    ]


def anchors(text: str) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for match in [*LINK.finditer(prose), *IMAGE.finditer(prose)]:
        link = next(group for group in match.groups() if group)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        missing = not target.exists()
        if missing or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_text_holds_nothing_of_one_machine(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "made in this ses" + "sion",
        "ask the hel" + "pers",
        "see DES" + "IGN.md",
        "see DES" + "IGN §3",
        "cd /wo" + "rk/main",
        "lies in '/ro" + "ot'",
        "from https://py" + "pi.org/simple",
    ],
)
def test_what_is_forbidden_is_found_out(line: str) -> None:
    assert len(faults(f"good\n{line}")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "COPY workers ./workers",
        "/workers/worker.py",
        "start_new_session=True",
        '@pytest.fixture(scope="session")',
        "a path/to/workshop",
    ],
)
def test_what_looks_alike_is_allowed(line: str) -> None:
    assert faults(line) == []


@pytest.mark.parametrize("page", [path for path in texts() if path.suffix == ".md"], ids=lambda path: path.name)
def test_relative_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](page.md#a-title) [b](page.md#b) [c](none.md) [d](#a-title) [e](https://x.y)\n", "utf-8"
    )

    assert broken(page) == ["page.md#b", "none.md"]


def too_wide(text: str) -> list[int]:
    """The lines of prose that are wider than the code may be; tables and fenced blocks have the width they need."""
    lines = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return [
        number
        for number, line in enumerate(lines.splitlines(), start=1)
        if len(line) > WIDTH and not line.startswith("|")
    ]


@pytest.mark.parametrize("page", [path for path in texts() if path.suffix == ".md"], ids=lambda path: path.name)
def test_prose_is_no_wider_than_code(page: Path) -> None:
    assert too_wide(page.read_text(encoding="utf-8")) == []


def test_a_line_that_is_too_wide_is_found_out() -> None:
    wide = "x" * 121

    assert too_wide(f"# A\n\n```sh\n{wide}\n```\n| {wide} |\n{wide}\n") == [7]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs/architecture.md"])
def test_the_pages_that_a_newcomer_looks_for_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


# What only the machinery asks: numbers that it counts by, answers kept for a repeat, turns, and what tests move.
UNASKED = {"ring", "replies", "hand", "sweep", "crew", "steered", "synced", "clock"}


def test_each_key_is_told_in_the_architecture_and_has_a_line_for_redis_cli() -> None:
    known = set(re.findall(r"^    fsm:(?:<ns>:)?(\w+)", keys.__doc__ or "", re.MULTILINE))
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("architecture", "redis-cli")}
    told = set(re.findall(r"^\| `fsm:(?:<ns>:)?(\w+)", pages["architecture"], re.MULTILINE))
    lines = set(re.findall(r"\bfsm:(?:default:)?(\w+)", pages["redis-cli"]))

    assert {"snapshot", "errors", "audit", "namespaces"} <= known
    assert known - {"clock"} == told
    assert known - UNASKED <= lines
    assert not UNASKED & lines


def test_each_key_that_is_made_is_in_the_list_of_keys() -> None:
    listed = re.findall(r"^    (fsm:\S+)", keys.__doc__ or "", re.MULTILINE)
    made = keys.Keys("<ns>")
    attributes = {getattr(made, name) for name in made.__slots__} - {made.namespace, made.default_queue, made.prefix}
    parts = ("<name>", "<queue>", "<worker>", "<host>", "<id>", "<m>", "<machine>", "<state>")
    shaped = {re.sub(r"<(?!ns>)\w+>", "*", one) for one in listed}
    assert attributes <= set(listed)
    for name, method in vars(keys.Keys).items():
        if not name.startswith("_") and inspect.isfunction(method):
            count = method.__code__.co_argcount - 1
            assert re.sub(r"<(?!ns>)\w+>", "*", getattr(made, name)(*parts[:count])) in shaped, name
