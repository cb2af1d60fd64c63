"""Arrows between the rooms point one way, and few rooms know RQ or Redis."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

# Who imports rq, and that it is no more and no less.
RQ = {
    "fsm/store/records.py",
    "workers/answers.py",
    "workers/commands.py",
    "workers/effects.py",
    "workers/inline.py",
    "workers/jobs.py",
    "workers/runner.py",
    "workers/upkeep.py",
    "workers/worker.py",
}
# Rooms that talk to Redis themselves: the store, and the processes that are RQ workers.
REDIS = ("fsm/store/", "fsm/testing/", "workers/")
# Names of drawers: a module is a room, named by what it is for.
DRAWERS = {"common", "hel" + "pers", "misc", "types", "util", "utils"}
# Modules of more than 400 lines, each with its reason.
LONG = {
    "fsm/engine/step.py": "the step and its other ends, refused and failed, are one story",
    "workers/worker.py": "RQ's worker is one class, and all that ours does differently stands beside it",
    "fsm/config.py": "a list of settings, each beside the few lines that read it",
    "fsm/store/connection.py": "one way to a server: the URL, the time-outs, and what each of its errors means",
    "fsm/store/embedded.py": "one server a directory: its files, its start, its end and how it is told to sync",
    "fsm/errors.py": "one tree in one file: its docstring draws it, and most of it is texts",
    "fsm/machine/settings.py": "a list of settings, each by itself short: named, said, typed, given, checked",
    "fsm/machine/values.py": "the typed codecs and the check of what they lose change together",
    "fsm/store/calls.py": "a list of calls, each short by itself: what it sends and what comes back",
    "fsm/client.py": "applications call one class, and most of it says what they may expect: the plans are elsewhere",
    "fsm/testing/storage.py": "a contract in sentences, one test each: users derive from one class",
    "workers/activation.py": "one story from the claim of an FSM to its block, and each part writes to that block",
}


def modules(root: Path = ROOT) -> list[Path]:
    return sorted(path for package in ("fsm", "workers") for path in (root / package).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that this one imports, at its top or anywhere inside."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def importers(package: str) -> set[str]:
    return {name(path) for path in modules() if any(found.split(".")[0] == package for found in imported(path))}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Import-linter over `root`, by the contracts of the pyproject.toml in it."""
    return subprocess.run([sys.executable, "-c", LINT], cwd=root, capture_output=True, text=True, check=False)


def test_the_arrows_point_one_way() -> None:
    done = lint(ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A project of our rooms, all empty, under our contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in (
        "cli",
        "testing",
        "app",
        "client",
        "handles",
        "carrier",
        "verbs",
        "store",
        "engine",
        "machine",
        "config",
        "errors",
    ):
        package = tmp_path / "fsm" / room
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (tmp_path / "fsm" / "__init__.py").touch()
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").touch()
    return tmp_path


def test_the_contracts_allow_what_they_should(model: Path) -> None:
    (model / "fsm" / "store" / "__init__.py").write_text("import redis, rq\nimport fsm.engine\n", encoding="utf-8")
    (model / "workers" / "__init__.py").write_text("import fsm.client\n", encoding="utf-8")

    done = lint(model)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "target", "contract"),
    [
        ("errors", "fsm.config", "rooms"),
        ("machine", "fsm.engine", "rooms"),
        ("engine", "fsm.store", "rooms"),
        ("store", "fsm.client", "rooms"),
        ("client", "fsm.cli", "rooms"),
        ("cli", "workers", "workers use fsm"),
        ("machine", "redis", "neither Redis nor RQ"),
        ("engine", "rq.job", "neither Redis nor RQ"),
    ],
)
def test_an_arrow_that_points_back_is_found_out(model: Path, room: str, target: str, contract: str) -> None:
    (model / "fsm" / room / "__init__.py").write_text(f"import {target}\n", encoding="utf-8")

    done = lint(model)

    assert done.returncode != 0
    assert re.search(rf"{contract}[^\n]* BROKEN", done.stdout), done.stdout + done.stderr


def test_a_room_without_a_place_is_found_out(model: Path) -> None:
    (model / "fsm" / "attic.py").touch()

    done = lint(model)

    assert done.returncode != 0
    assert "attic" in done.stdout + done.stderr


def test_rq_is_imported_where_this_test_says_and_nowhere_else() -> None:
    assert importers("rq") == RQ


def test_redis_is_imported_in_the_store_and_the_workers_only() -> None:
    found = importers("redis")

    assert {path for path in found if not path.startswith(REDIS)} == set()
    assert any(path.startswith("fsm/store/") for path in found)


def test_pickle_is_nowhere() -> None:
    assert importers("pickle") | importers("shelve") | importers("marshal") == set()


# What of RQ reads records, and unpickles them unless it is told how to read them.
READERS = re.compile(
    r"(\w+\.)*(Queue|Worker|SimpleWorker|EffectsWorker|Job|Job\.(create|fetch|fetch_many)|Result(\.\w+)?)"
)
# By their names: a registry without its queue, and all that RQ offers over groups, has no serializer of its own.
NEVER = {"DefaultSerializer", "PickleSerializer", "Group", "WorkerPool"}


def unsafe(tree: ast.Module) -> Iterator[str]:
    """Calls that would read records of RQ's by its default, which is pickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and READERS.fullmatch(ast.unparse(node.func)):
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if said.get("serializer") != "JSONSerializer":
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and "Registry" in ast.unparse(node.func):
            if "queue" not in {word.arg for word in node.keywords}:
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rq":
            yield from (alias.name for alias in node.names if alias.name in NEVER)


def test_nothing_of_rq_is_used_with_its_default_serializer() -> None:
    assert [f"{name(path)}: {call}" for path in modules() if name(path) in RQ for call in unsafe(tree(path))] == []


@pytest.mark.parametrize(
    "line",
    [
        "Queue('fsm', connection=c)",
        "rq.Queue('fsm', connection=c, serializer='pickle')",
        "Job.fetch(id, connection=c)",
        "FailedJobRegistry('fsm', connection=c)",
        "from rq.serializers import DefaultSerializer",
    ],
)
def test_a_use_of_the_default_serializer_is_found_out(line: str) -> None:
    assert len(list(unsafe(ast.parse(line)))) == 1


def test_keys_are_made_in_the_store_only() -> None:
    """A string that begins like a key of ours or of RQ, outside docstrings."""
    found = {
        f"{name(path)}:{node.lineno}"
        for path in modules()
        if not name(path).startswith("fsm/store/")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.match(r"(rq|fsm):[a-z{]*\S*$", node.value)
    }

    assert found == set()


def test_there_are_no_drawers() -> None:
    assert {name(path) for path in modules() if {path.stem, path.parent.name} & DRAWERS} == set()


def test_a_module_of_more_than_400_lines_has_its_reason() -> None:
    long = {name(path) for path in modules() if len(path.read_text(encoding="utf-8").splitlines()) > 400}

    assert long == set(LONG), LONG


def test_no_metaclass() -> None:
    found = {
        f"{name(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and (any(word.arg == "metaclass" for word in node.keywords) or "type" in map(ast.unparse, node.bases))
    }

    assert found == set()
