"""Pure JSON values: what is one, its compact text, and where in a value the fault lies.

Who calls this: `values`, which adds declared types; everyone else asks `values.codec_for`. What it may not import:
anything of ours but `fsm.errors`; no Redis, no RQ.

orjson alone does not keep the promise that nothing changes in silence: it writes NaN as null, a tuple as a list, an
enum as its value, a UUID as text, and it reads an integer of 65 bits as a float. So a value is looked through before it
is written (`_is_plain`, made for speed; only where it says no does `_refuse` look again, for the path), and a text is
written anew after it was read: where both texts are the same, nothing can have been lost.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import orjson

from fsm.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MAX_DEPTH",
    "Codec",
    "JSONCodec",
    "atom_problem",
    "fault_in",
    "is_plain_json",
    "key_problem",
    "not_finite",
    "refuse_json",
    "shown",
    "step",
    "type_name",
]

# Levels of lists and dicts in one value. orjson writes 254; the rest is for whoever wraps a value before writing it.
MAX_DEPTH = 200
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1  # what orjson, and most other readers of JSON, keep as an integer
_ATOMS = frozenset({str, int, bool, type(None)})
_PLAIN_KEY = re.compile(r"[^\W\d]\w*")
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (tuple, "make it a list, or declare the type"),
    ((set, frozenset), "make it a sorted list, or declare the type"),
    ((bytes, bytearray, memoryview), "make it text (say base64), or declare the type"),
    (Enum, "use its .value, or declare the type"),
    ((str, int, float, dict, list), "its class would be lost: convert it to the plain builtin, or declare the type"),
    ((Decimal, UUID, date, datetime, time, timedelta), "convert it to text, or declare the type"),
)


class Codec(ABC):
    """How values of one type become bytes and values again; stateless and thread-safe.

    What `decode(encode(value))` gives equals `value`, else `encode` refuses.

    Attributes:
        type: The declared type, as it was given to `codec_for`.
    """

    __slots__ = ("type",)

    type: Any

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Write `value` as compact JSON in UTF-8.

        Raises:
            PayloadError: It is not of this type or would change; with the path of the fault.
        """

    @abstractmethod
    def decode(self, raw: bytes) -> Any:
        """Read a value that shares nothing with any other.

        Raises:
            PayloadError: The text is no JSON or not of this type; with the path of the fault.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any] | None:
        """Draw the JSON schema of the type; None for pure JSON and for what no schema can say."""

    @abstractmethod
    def default(self) -> Any:
        """Make the payload of an FSM that is started without one, new each time.

        Raises:
            PayloadError: The type cannot be made without arguments.
        """


class JSONCodec(Codec):
    """Values without a declared type: pure JSON, of any kind or of one.

    Args:
        declared: The type as it was declared, such as `Any` or `dict[str, Any]`.
        kind: `dict` or `list` where only that is allowed on top, None for any value.
    """

    __slots__ = ("kind",)

    def __init__(self, declared: Any = Any, kind: type[dict[str, Any] | list[Any]] | None = None) -> None:
        self.type = declared
        self.kind = kind

    def encode(self, value: Any) -> bytes:
        """Write `value`, which must be made of dict, list, str, int, float, bool and None, exactly."""
        if self.kind is not None and type(value) is not self.kind:
            self._refuse_kind(value)
        if not is_plain_json(value):
            refuse_json(value)
        try:
            return orjson.dumps(value)
        except TypeError as error:  # orjson checks what _is_plain leaves to it: keys, 65-bit integers, surrogates
            refuse_json(value, error)

    def decode(self, raw: bytes) -> Any:
        """Read a value; refuses also what readers of JSON disagree about: a key twice, integers of 65 bits."""
        value: Any = None
        try:
            value = orjson.loads(raw)
            lossless = orjson.dumps(value) == raw
        except (ValueError, TypeError):
            lossless = False
        if not lossless:
            value = _read_slowly(raw)
        if self.kind is not None and type(value) is not self.kind:
            self._refuse_kind(value)
        return value

    def schema(self) -> None:
        """Return None: pure JSON needs no schema."""
        return

    def default(self) -> Any:
        """Make an empty list where a list is declared, else an empty dict."""
        return [] if self.kind is list else {}

    def _refuse_kind(self, value: Any) -> NoReturn:
        wanted = "a list" if self.kind is list else "a dict"
        raise PayloadError(f"{type_name(self.type)} is declared: pass {wanted}, not {shown(value)}")


def is_plain_json(value: Any) -> bool:
    """Say whether `value` is made of JSON's own builtins; keys, ranges and surrogates are left to orjson."""
    kind: type[Any] = type(value)
    if kind is dict and _ATOMS.issuperset(map(type, value.values())):
        return True  # as most payloads are
    if kind is dict or kind is list:
        try:
            return _is_plain(value, 1)
        except RecursionError:  # the caller's own stack is nearly used up: let refuse_json judge, it needs none
            return fault_in(value) is None
    return kind in _ATOMS or (kind is float and bool(value - value == 0.0))


def _is_plain(value: dict[str, Any] | list[Any], depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    item: Any
    for item in value.values() if type(value) is dict else value:
        kind: type[Any] = type(item)
        if kind in _ATOMS:
            continue
        if kind is float:
            if item - item != 0.0:  # NaN and the infinities give NaN
                return False
        elif not ((kind is dict or kind is list) and _is_plain(item, depth + 1)):
            return False
    return True


def refuse_json(value: Any, error: Exception | None = None, path: str = "$") -> NoReturn:
    """Say what in `value` is not JSON, where, and what to do about it.

    Args:
        error: What the writer said, for the case that nothing else is found.
        path: Where `value` itself stands.

    Raises:
        PayloadError: Always.
    """
    below, problem = fault_in(value) or ("", f"cannot be written as JSON: {error}")
    raise PayloadError(problem, path + below) from error


def fault_in(value: Any) -> tuple[str, str] | None:
    """Find the first fault in the order of the text: its path below `value`, and the problem."""
    if problem := atom_problem(value):
        return "", problem
    # A stack of iterators instead of recursion: what is nested without end must be told, not crash.
    stack = [("", value, _entries(value))] if type(value) is dict or type(value) is list else []
    while stack:
        path, container, entries = stack[-1]
        for key, item in entries:
            if type(container) is dict and (problem := key_problem(key)):
                return path, problem
            below = path + step(key)
            if problem := atom_problem(item):
                return below, problem
            if type(item) is dict or type(item) is list:
                if any(item is outer for _, outer, _ in stack):
                    return below, "refers to itself: JSON has no references, leave it out"
                if len(stack) >= MAX_DEPTH:
                    return below, f"is nested deeper than {MAX_DEPTH} levels: make it flatter"
                stack.append((below, item, _entries(item)))
                break
        else:
            stack.pop()
    return None


def _entries(container: Any) -> Iterator[tuple[Any, Any]]:
    return iter(container.items() if type(container) is dict else enumerate(container))


def atom_problem(value: Any) -> str:
    """Say what is wrong with `value` itself, whatever it contains; "" when nothing is."""
    kind = type(value)
    if kind is float:
        return "" if value - value == 0.0 else not_finite(value)
    if kind is int:
        return "" if _MIN_INT <= value <= _MAX_INT else f"{shown(value)} does not fit in 64 bits: send it as text"
    if kind is str:
        return "" if _is_utf8(value) else "holds half of a surrogate pair, which is no character: repair the text"
    if kind in _ATOMS or kind is dict or kind is list:
        return ""
    for classes, remedy in _REMEDIES:
        if isinstance(value, classes):
            return f"{shown(value)} is not JSON: {remedy}"
    return f"{shown(value)} is not JSON: declare its type, or send dict, list, str, int, float, bool and None only"


def key_problem(key: Any) -> str:
    """Say what is wrong with a key of an object; "" when nothing is."""
    if type(key) is not str:
        is_long = type(key) is int and not _MIN_INT <= key <= _MAX_INT  # Python may refuse to write it
        return f"key {'' if is_long else repr(key)} is {shown(key)}: keys of JSON are str, convert it"
    return "" if _is_utf8(key) else f"key {key!r} holds half of a surrogate pair: repair the text"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_finite(value: float | Decimal) -> str:
    """Word the refusal of NaN and the infinities."""
    return f"{value} is not JSON: use None or text, or leave it out".replace("nan", "NaN")


def step(key: object) -> str:
    """Write one step of a path: `[2]` for an index, `.price` or `["unit price"]` for a key."""
    if isinstance(key, int):
        return f"[{key}]"
    text = str(key)
    return f".{text}" if _PLAIN_KEY.fullmatch(text) else f"[{json.dumps(text)}]"


def type_name(tp: Any) -> str:
    """Name a type as its user wrote it: `Order`, `list[int]`, `dict[str, Any]`."""
    if isinstance(tp, type) and not hasattr(tp, "__args__"):
        return tp.__qualname__
    return str(tp).replace("typing.", "")


def shown(value: object) -> str:
    """Name the type of a value with its article: `a str`, `an int`, `None`."""
    if value is None:
        return "None"
    return f"{'an' if type_name(type(value))[0] in 'aeiouAEIOU' else 'a'} {type_name(type(value))}"


def _read_slowly(raw: bytes) -> Any:
    """Read a text that orjson would not have written, without losing what orjson loses.

    Spaces, escapes and other ways to write a float are welcome; what readers of JSON disagree about is not.
    """
    try:
        value = json.loads(bytes(raw).decode(), object_pairs_hook=_once_each)
    except PayloadError:
        raise
    except RecursionError:
        raise PayloadError(f"is nested deeper than {MAX_DEPTH} levels: make it flatter") from None
    except ValueError as error:
        raise PayloadError(f"is not JSON: {error}") from error
    if fault := fault_in(value):
        raise PayloadError(fault[1], "$" + fault[0])
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PayloadError(f"key {twice!r} stands twice in one object: keep one")
    return entries
