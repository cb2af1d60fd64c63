"""The error tree is as its docstring draws it, and every error survives pickle and copy."""

import ast
import copy
import inspect
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fsm import errors

ROOT = Path(__file__).resolve().parents[2]
CLASSES: list[type[errors.FSMError]] = [
    found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, errors.FSMError) and found.__module__ == errors.__name__
]
# Raised by handlers and executors to tell the engine something: it catches them, no caller ever meets them.
SIGNALS = {
    "fsm/cli/root.py:Failure",
    "fsm/engine/outcomes.py:HandlerTimeout",
    "fsm/engine/outcomes.py:Reject",
    "fsm/engine/outcomes.py:Retry",
    "fsm/machine/labels.py:LabelFault",
    "fsm/storage/persistable.py:RowBusyError",
}
# One value per kind of field; the text differs per field, so that two fields cannot be taken for one another.
SAMPLES: dict[str, Callable[[str], Any]] = {
    "str": "<{}>".format,
    "int": len,
    "float": lambda field: len(field) / 4,
    "tuple[str, ...]": lambda field: (f"{field} 1", f"{field} 2"),
    "dict[str, Any] | None": lambda field: {field: ["a", 1]},
}


def drawn() -> dict[str, tuple[str, ...]]:
    """The tree of the docstring: class to its bases, in the order drawn."""
    tree: dict[str, tuple[str, ...]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"( {4,})([A-Z]\w*Error)(?: +\((\w+(?:, \w+)*)\))?", line)
        if match is None:
            continue
        depth, name, extra = len(match[1]), match[2], match[3]
        while above and above[-1][0] >= depth:
            above.pop()
        parent = above[-1][1] if above else "Exception"
        tree[name] = (parent, *(extra.split(", ") if extra else ()))
        above.append((depth, name))
    return tree


def fields(cls: type[errors.FSMError]) -> dict[str, Any]:
    """A value for each field that this class takes; none where it takes a bare text."""
    if cls.__init__ is Exception.__init__:
        return {}
    return {name: SAMPLES[str(field.annotation)](name) for name, field in inspect.signature(cls).parameters.items()}


def make(cls: type[errors.FSMError]) -> errors.FSMError:
    """One of this class, with a value in each field."""
    return cls(*(fields(cls).values() or ["what is wrong"]))


def pickled(protocol: int, error: errors.FSMError) -> Any:
    """What another process gets that is sent this error."""
    return pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - it was pickled in this very line


def test_the_docstring_draws_exactly_the_class_tree() -> None:
    real = {cls.__name__: tuple(base.__name__ for base in cls.__bases__) for cls in CLASSES}

    assert drawn() == real
    assert len(real) > 20


def test_every_error_is_public() -> None:
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "through",
    [
        *(pytest.param(partial(pickled, protocol), id=f"pickle{protocol}") for protocol in range(6)),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
    ],
)
def test_an_error_survives_with_its_fields_and_text(
    cls: type[errors.FSMError], through: Callable[[errors.FSMError], errors.FSMError]
) -> None:
    error = make(cls)

    same = through(error)

    assert type(same) is cls
    assert same is not error
    assert vars(same) == vars(error)
    assert same.args == error.args
    assert str(same) == str(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_text_names_the_thing(cls: type[errors.FSMError]) -> None:
    error = make(cls)

    assert str(error.args[0]) in str(error)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if fields(cls)])
def test_every_field_can_be_read_by_its_name(cls: type[errors.FSMError]) -> None:
    error = make(cls)

    assert {name: getattr(error, name) for name in fields(cls)} == fields(cls)


def looked_for(node: ast.AST) -> str:
    """The classes that an `except` or an `isinstance` asks for, as text."""
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        return ast.unparse(node.type)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return ast.unparse(node.args[1])
    return ""


def test_no_other_room_makes_errors_that_leave_it() -> None:
    """A private one is a signal inside its module, which must catch it; public signals are listed above."""
    public: set[str] = set()
    loose: set[str] = set()
    for path in sorted(p for package in ("fsm", "workers") for p in (ROOT / package).rglob("*.py")):
        if path == ROOT / "fsm" / "errors.py":
            continue
        where = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        caught = " ".join(looked_for(node) for node in ast.walk(tree))
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            if not any(re.search(r"(Error|Exception|Warning)$", ast.unparse(base)) for base in node.bases):
                continue
            if not node.name.startswith("_"):
                public.add(f"{where}:{node.name}")
            elif not re.search(rf"\b{node.name}\b", caught):
                loose.add(f"{where}:{node.name}")

    assert public == SIGNALS
    # A DefinitionError to users, and an AttributeError to `hasattr`.
    assert loose == {"fsm/machine/machine.py:_NoDiagramError"}
