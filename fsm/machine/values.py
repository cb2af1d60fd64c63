"""The types of payloads and event data: one codec per type, and nothing that passes through it changes in silence.

Who calls this: the definition of a machine, to learn its codecs; engine and client use the codecs. What it may not
import: anything of ours but `fsm.errors` and `json_values`; no Redis, no RQ; pydantic only for a type that is its own.

msgspec writes whatever a field holds, NaN as null and a date as text, and reads past keys that it does not know. So a
value is read back after it was written and compared with what came in, by a check that is built once per type. A text
that its own reading writes again to the letter holds no unknown keys; only another text is compared key by key.
"""
# Longer than 400 lines: the codecs of types and the comparison of what they give back change together.

# ruff: noqa: FBT001, FBT003 - a check is a plain function of three, called for each field: keywords would cost time

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NoReturn, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from fsm.errors import DefinitionError, PayloadError
from fsm.machine.json_values import (
    MAX_DEPTH,
    Codec,
    JSONCodec,
    atom_problem,
    fault_in,
    is_plain_json,
    key_problem,
    not_finite,
    shown,
    step,
    type_name,
)

__all__ = ["JSON", "Codec", "codec_for"]

# A path below the value, and the problem there.
_Fault = tuple[str, str]
# (given, got back, may given be the JSON form of got) -> what changed
_Check = Callable[[Any, Any, bool], _Fault | None]

JSON: Codec = JSONCodec()

_BUILTINS = frozenset({dict, list, str, int, float, bool, type(None)})
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19  # -2**63 has nineteen digits: shorter integers fit
_JSON_FORMS = frozenset({str, int, float, bool, type(None)})
_SHOWN = 60  # characters of a value in a message
_AT = re.compile(r"(?P<problem>.*) - at (?P<key>`key` in )?`(?P<path>\$.*)`", re.DOTALL)


def codec_for(tp: Any) -> Codec:
    """Find the codec of a type; the same one each time.

    Args:
        tp: `Any`, `object`, `dict`, `list`, `dict[str, Any]` or a missing annotation: pure JSON. What pydantic made:
            pydantic. Anything else: what msgspec knows.

    Raises:
        DefinitionError: No codec can keep the promise for this type; says why.
    """
    try:
        return _cached_codec(tp)
    except TypeError:  # Annotated[…] with something unhashable: the one kind of type that cannot be a key
        return _make_codec(tp)


def _make_codec(tp: Any) -> Codec:
    if tp in (Any, object, inspect.Parameter.empty):
        return JSON
    try:
        if _is_pydantic(tp):
            return _PydanticCodec(tp)
        node, anything = shapes.type_info(tp), shapes.AnyType()
        if node == anything:
            return JSONCodec(tp)
        if node in (shapes.DictType(shapes.StrType(), anything), shapes.DictType(anything, anything)):
            return JSONCodec(tp, dict)
        if node == shapes.ListType(anything):
            return JSONCodec(tp, list)
        return _MsgspecCodec(tp, node)
    except DefinitionError:
        raise
    except Exception as error:  # resolving a type runs annotations of the user's, which may raise anything
        raise DefinitionError(
            f"type {type_name(tp)} cannot be used for a payload or event data: {error}; use a dataclass, TypedDict, "
            "Struct, attrs or pydantic class at the top of a module, or dict[str, Any]"
        ) from error


_cached_codec = lru_cache(maxsize=None)(_make_codec)


def _made_without_arguments(codec: Codec) -> Any:
    try:
        value = codec.type()
        codec.encode(value)
    except Exception as error:  # the constructor is the user's and may raise anything
        name = type_name(codec.type)
        raise PayloadError(f"a payload of type {name} must be given: {name}() fails with {error}") from error
    return value


class _MsgspecCodec(Codec):
    __slots__ = ("_check", "_decode", "_encode", "_is_recursive", "_is_wary")

    def __init__(self, tp: Any, node: shapes.Type) -> None:
        self.type = tp
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(tp).decode
        checks = _Checks(tp)
        self._check = checks.of(node)
        self._is_recursive = checks.is_recursive
        self._is_wary = checks.is_wary

    def encode(self, value: Any) -> bytes:
        """Write an instance, or the same given as plain builtins, always as an instance would be written."""
        raw = self._write(value)
        try:
            got = self._read(raw)
        except PayloadError:
            for path, part in _parts_of_all(value):
                if type(part) is float and part - part != 0.0:  # became null, which the error would speak of
                    raise PayloadError(not_finite(part), path) from None
            raise
        if self._is_recursive or _has_long_number(raw):
            JSON.decode(raw)
        is_loose = type(value) in _BUILTINS
        self._compare(value, got, is_loose)
        if is_loose and self._is_wary:
            self._compare(got, got, False)  # also the defaults that were filled in
        return self._encode(got) if is_loose else raw

    def decode(self, raw: bytes) -> Any:
        """Read by the declared type alone: no number from a text, no key that is not declared."""
        got = self._read(raw)
        if self._is_recursive or _has_long_number(raw) or not self._is_own_text(got, raw):
            self._compare(JSON.decode(raw), got, True)
        if self._is_wary:
            self._compare(got, got, False)
        return got

    def schema(self) -> dict[str, Any] | None:
        try:
            return msgspec.json.schema(self.type)
        except (TypeError, NotImplementedError):
            return None

    def default(self) -> Any:
        return _made_without_arguments(self)

    def _compare(self, given: Any, got: Any, is_loose: bool) -> None:
        fault = self._check(given, got, is_loose)
        if fault is not None:
            raise PayloadError(fault[1], "$" + fault[0])

    def _write(self, value: Any) -> bytes:
        try:
            return self._encode(value)
        except Exception as error:  # properties and iterators of the user's classes may raise anything
            path, problem = self._unwritable(value, error)
            raise PayloadError(problem, path) from error

    def _unwritable(self, value: Any, error: Exception) -> tuple[str, str]:
        """Follow the first part that cannot be written, down to what it is about."""
        path, outer = "$", [value]
        while True:
            for below, part in _parts(value):
                if inner := self._refusal(part):
                    path, value, error = path + below, part, inner
                    break
            else:
                keys = [key for key in value if self._refusal({key: None})] if isinstance(value, dict) else []
                problem = key_problem(keys[0]) if keys else atom_problem(value)
                if problem is None and isinstance(error, RecursionError):
                    problem = f"is nested deeper than {MAX_DEPTH} levels: make it flatter"
                return path, problem or f"cannot be written as JSON: {error}"
            if any(value is part for part in outer):
                return path, "refers to itself: JSON has no references, leave it out"
            if len(outer) > MAX_DEPTH:
                return path, f"is nested deeper than {MAX_DEPTH} levels: make it flatter"
            outer.append(value)

    def _refusal(self, part: Any) -> Exception | None:
        try:
            self._encode(part)
        except Exception as error:  # noqa: BLE001 - as in _write
            return error
        return None

    def _read(self, raw: bytes) -> Any:
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            JSON.decode(raw)  # what is not even JSON is said first
            path, problem = self._located(str(error), raw)
            raise PayloadError(f"{problem}: send what {type_name(self.type)} declares", path) from error
        except Exception as error:  # no JSON, or a __post_init__ of the user's, which may raise anything
            JSON.decode(raw)
            raise PayloadError(f"cannot be read as {type_name(self.type)}: {error}") from error

    def _located(self, text: str, raw: bytes) -> tuple[str, str]:
        """Split an error of msgspec into path and problem, with the keys for which it writes `[...]`.

        msgspec reads in order and stops at the first fault: the key is the last of the shortest run of entries which
        fails in the same words.
        """
        match = _AT.fullmatch(text)
        if match is None:
            return "$", text
        rest, path, tree = match["path"][1:] + ("[...]" if match["key"] else ""), "$", json.loads(raw)
        here = tree
        while rest:
            if rest.startswith("[...]") and isinstance(here, dict):
                entries, rest = list(here.items()), rest[5:]
                low, high = 1, len(entries)
                while low < high:
                    middle = (low + high) // 2
                    here.clear()
                    here.update(entries[:middle])
                    if self._says(text, tree):
                        high = middle
                    else:
                        low = middle + 1
                here.clear()
                here.update(entries[:low])  # no more: later entries may hold the same fault
                key: Any = entries[low - 1][0]
            elif isinstance(here, list) and (index := re.match(r"\[(\d+)\]", rest)):
                key, rest = int(index[1]), rest[index.end() :]
            else:
                keys = [key for key in here if rest.startswith(f".{key}")] if isinstance(here, dict) else []
                if not keys:
                    return path + rest, match["problem"]
                key = max(keys, key=len)
                rest = rest[len(key) + 1 :]
            here, path = here[key], path + step(key)
        return path, f"as a key: {match['problem']}" if match["key"] else match["problem"]

    def _says(self, text: str, tree: Any) -> bool:
        try:
            self._decode(json.dumps(tree))
        except msgspec.ValidationError as error:
            return str(error) == text
        return False

    def _is_own_text(self, got: Any, raw: bytes) -> bool:
        try:
            return self._encode(got) == raw
        except (TypeError, ValueError, RecursionError):
            return False


class _Checks:
    """Builds the check of a type from its shape.

    Attributes:
        is_recursive: A type holds itself, so its values may be of any depth.
        is_wary: Some value of the type can be read and written alike, yet is refused: a naive datetime, say.
    """

    def __init__(self, tp: Any) -> None:
        self._type = tp
        self._built: dict[int, _Check | None] = {}
        self.is_recursive = False
        self.is_wary = False

    def of(self, node: shapes.Type) -> _Check:
        if id(node) in self._built:
            built = self._built[id(node)]
            if built is not None:
                return built
            self.is_recursive = True
            # Not the check itself: it is not there before all of its parts are.
            return lambda given, got, loose: self.of(node)(given, got, loose)  # noqa: PLW0108 - see above
        self._built[id(node)] = None
        check = self._built[id(node)] = self._build(node)
        return check

    def _build(self, node: shapes.Type) -> _Check:  # noqa: C901, PLR0911, PLR0912 - one branch per kind of node
        match node:
            case shapes.Metadata():
                return self.of(node.type)
            case shapes.DateTimeType():
                self.is_wary = True
                return _check_datetime
            case shapes.DecimalType():
                self.is_wary = True
                return _check_decimal
            case shapes.UnionType():
                return self._union(node)
            case shapes.TypedDictType():
                return _typed_dict_check({field.encode_name: self.of(field.type) for field in node.fields})
            case shapes.NamedTupleType():
                return self._object(node, is_array=True)
            case shapes.DataclassType():
                return self._object(node)
            case shapes.StructType():
                return self._object(node, node.tag_field, is_array=node.array_like)
            case shapes.TupleType():
                return _sequence_check([self.of(item) for item in node.item_types])
            case shapes.ListType() | shapes.VarTupleType():
                return _sequence_check(self.of(node.item_type))
            case shapes.SetType() | shapes.FrozenSetType():
                return _set_check(self.of(node.item_type))
            case shapes.DictType():
                return _dict_check(self.of(node.key_type), self.of(node.value_type))
        if isinstance(node, _LEAVES):
            return _same
        held = getattr(node, "cls", type(node))
        if held is object or isinstance(node, shapes.AnyType):
            return _check_any
        raise DefinitionError(
            f"type {type_name(self._type)} holds {type_name(held)}, which is not known as JSON: use a dataclass, "
            "TypedDict, Struct or attrs class there, or Any for pure JSON; pydantic models belong into pydantic models"
        )

    def _union(self, node: shapes.UnionType) -> _Check:
        """Choose by what was read: msgspec allows only unions in which that is clear."""
        by_class: dict[type, _Check] = {}
        for member in node.types:
            check = self.of(member)
            if check is _check_any:
                return check
            by_class[_class_read_for(member)] = check
        if all(check is _same for check in by_class.values()):
            return _same
        return lambda given, got, loose: by_class.get(type(got), _same)(given, got, loose)

    def _object(  # noqa: C901 - both forms of an object, instance and JSON, are one check
        self,
        node: shapes.DataclassType | shapes.StructType | shapes.NamedTupleType,
        tag: str | None = None,
        *,
        is_array: bool = False,
    ) -> _Check:
        cls = get_origin(node.cls) or node.cls
        for field in node.fields:
            if _is_shared(field.default):
                raise DefinitionError(
                    f"field {field.name} of {type_name(cls)} has a default that all instances would share and change: "
                    "give it a default_factory, or freeze its class"
                )
        fields = [(field.name, field.encode_name, self.of(field.type)) for field in node.fields]
        in_text: dict[Any, tuple[str, _Check]]  # key of an object, or index of an array -> field and its check
        if is_array:
            in_text = {index: (name, check) for index, (name, _, check) in enumerate(fields, start=tag is not None)}
        else:
            in_text = {key: (name, check) for name, key, check in fields}
        # msgspec has read the tag already: nothing of it is left to compare.
        skip: Any = object() if tag is None else 0 if is_array else tag
        form = list if is_array else dict
        names = {name for name, _, _ in fields}

        def check(given: Any, got: Any, loose: bool) -> _Fault | None:
            if type(given) is cls:
                for name, key, check_field in fields:
                    was, became = getattr(given, name, msgspec.UNSET), getattr(got, name)
                    # False: what stands in an instance must be of its type, not the JSON form of it
                    if (check_field is not _same or was != became) and (fault := check_field(was, became, False)):
                        return step(key) + fault[0], fault[1]
                return _surplus(given, got, names)
            if not loose or type(given) is not form:
                return "", f"is {shown(given)}, not {type_name(cls)}: make it one"
            for at, was in given.items() if isinstance(given, dict) else enumerate(given):
                if at == skip:
                    continue
                if at not in in_text:
                    return step(at), f"{type_name(cls)} knows no such key: leave it out, or declare it"
                attribute, check_field = in_text[at]
                if fault := check_field(was, getattr(got, attribute), loose):
                    return step(at) + fault[0], fault[1]
            return None

        return check


def _is_shared(default: Any) -> bool:
    settings = getattr(default, "__dataclass_params__", None) or getattr(default, "__struct_config__", None)
    return settings is not None and not settings.frozen


def _surplus(given: Any, got: Any, names: set[str]) -> _Fault | None:
    """Find an attribute that is no field: it would be lost. What the class makes anew by itself is none."""
    held = getattr(given, "__dict__", None)
    if held and not held.keys() <= names:
        for name in held.keys() - names - vars(got).keys():
            if not hasattr(type(given), name):
                return step(name), f"is no field of {type_name(type(given))} and would be lost: declare it"
    return None


_LEAVES = (
    shapes.NoneType,
    shapes.BoolType,
    shapes.IntType,
    shapes.FloatType,
    shapes.StrType,
    shapes.BytesType,
    shapes.ByteArrayType,
    shapes.MemoryViewType,
    shapes.TimeType,
    shapes.DateType,
    shapes.TimeDeltaType,
    shapes.UUIDType,
    shapes.EnumType,
    shapes.LiteralType,
)


def _class_read_for(node: shapes.Type) -> type:  # noqa: PLR0911 - one return per kind of node
    """Name the class of what msgspec reads for a node, where its check is more than equality."""
    match node:
        case shapes.Metadata():
            return _class_read_for(node.type)
        case shapes.DataclassType() | shapes.StructType() | shapes.NamedTupleType():
            cls: type = get_origin(node.cls) or node.cls
            return cls
        case shapes.TypedDictType() | shapes.DictType():
            return dict
        case shapes.ListType():
            return list
        case shapes.TupleType() | shapes.VarTupleType():
            return tuple
        case shapes.SetType():
            return set
        case shapes.FrozenSetType():
            return frozenset
        case shapes.DateTimeType():
            return datetime
        case shapes.DecimalType():
            return Decimal
    return type(node)  # of no value: a leaf, which needs equality only


def _same(given: Any, got: Any, loose: bool) -> _Fault | None:
    if given == got:
        return None
    kind = type(given)
    if kind is float and given - given != 0.0:
        return "", not_finite(given)
    # The JSON form of a value ("red" of Color.RED, text of a UUID) was checked by reading it, and a class may tidy what
    # it reads (strip a text). Only a float may not take the place of a longer integer.
    if loose and kind in _JSON_FORMS and not (kind is int and type(got) is float):
        return None
    return "", f"{_short(given)} would come back as {_short(got)}: give it in its declared type"


def _check_any(given: Any, got: Any, loose: bool) -> _Fault | None:
    if is_plain_json(given) and given == got:
        return None
    return fault_in(given) or _same(given, got, loose)


def _check_datetime(given: Any, got: Any, loose: bool) -> _Fault | None:
    if isinstance(got, datetime):
        if got.tzinfo is None:
            return "", "is a datetime without time zone: give it one, as in datetime.now(UTC)"
        # In the hour that a clock is set back, datetimes of two zones are never equal (PEP 495); their instants are.
        if isinstance(given, datetime) and (given == got or given.astimezone(UTC) == got.astimezone(UTC)):
            return None
    return _same(given, got, loose)


def _check_decimal(given: Any, got: Any, loose: bool) -> _Fault | None:
    if isinstance(got, Decimal) and not got.is_finite():
        return "", not_finite(got)
    return _same(given, got, loose)


def _sequence_check(items: _Check | list[_Check]) -> _Check:
    def check(given: Any, got: Any, loose: bool) -> _Fault | None:
        if items is _same and given == got:
            return None
        if not isinstance(given, list | tuple if loose else type(got)):
            return "", f"is {shown(given)}, not {shown(got)}: make it one"
        if len(given) != len(got):
            return "", f"has {len(given)} items, of which {len(got)} would come back: give all that are declared"
        each = items if isinstance(items, list) else [items] * len(got)
        for index, (was, became, check_item) in enumerate(zip(given, got, each, strict=True)):
            if fault := check_item(was, became, loose):
                return step(index) + fault[0], fault[1]
        return None

    return check


def _set_check(item: _Check) -> _Check:
    def check(given: Any, got: Any, loose: bool) -> _Fault | None:
        if item is _same and given == got:
            return None
        if not isinstance(given, set | frozenset | list if loose else set | frozenset):
            return "", f"is {shown(given)}, not {shown(got)}: make it one"
        if len(given) != len(got):
            return "", "holds an item twice, as no set does: leave one out"
        for index, was in enumerate(given):  # a set has no order, so its items have no partners to be compared with
            if all(item(was, became, loose) for became in got):
                fault = item(was, was, loose) or (
                    "",
                    f"{_short(was)} would come back changed: give it in its declared type",
                )
                return step(index) + fault[0], fault[1]
        return None

    return check


def _dict_check(key: _Check, value: _Check) -> _Check:
    def check(given: Any, got: Any, loose: bool) -> _Fault | None:
        if key is value is _same and given == got:
            return None
        if not isinstance(given, dict):
            return "", f"is {shown(given)}, not a dict: make it one"
        if len(given) != len(got):
            return "", "has two keys that are the same text in JSON: rename one"
        # Text keeps the order of keys, so the n-th of one is the n-th of the other.
        for (was_key, was), (became_key, became) in zip(given.items(), got.items(), strict=True):
            if (key is not _same or was_key != became_key) and (fault := key(was_key, became_key, loose)):
                return "", f"as a key: {fault[1]}"
            if (value is not _same or was != became) and (fault := value(was, became, loose)):
                return step(str(was_key)) + fault[0], fault[1]
        return None

    return check


def _typed_dict_check(keys: dict[str, _Check]) -> _Check:
    def check(given: Any, got: Any, loose: bool) -> _Fault | None:
        if not isinstance(given, dict):
            return "", f"is {shown(given)}, not a dict: make it one"
        for key, was in given.items():
            if key not in keys:
                return step(key), "is no declared key: leave it out, or declare it"
            if fault := keys[key](was, got.get(key, msgspec.UNSET), loose):
                return step(key) + fault[0], fault[1]
        return None

    return check


def _raise(fault: _Fault) -> NoReturn:
    raise PayloadError(fault[1], "$" + fault[0])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _has_long_number(raw: bytes) -> bool:
    # Twelve times as fast as a regular expression; digits in a text only cost a second look.
    return _LONG_NUMBER in raw.translate(_DIGITS_AS_ZEROS)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what a value holds, each with its step of the path."""
    if isinstance(value, dict):
        yield from ((step(str(key)), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((step(index), part) for index, part in enumerate(value))
    else:
        names = [*getattr(value, "__struct_fields__", ()), *(field.name for field in _attributes(value))]
        yield from ((step(name), getattr(value, name)) for name in names if hasattr(value, name))


def _attributes(value: Any) -> Iterable[Any]:
    if dataclasses.is_dataclass(value):
        return dataclasses.fields(value)
    attributes: Iterable[Any] = getattr(value, "__attrs_attrs__", ())
    return attributes


def _parts_of_all(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    yield path, value
    for below, part in _parts(value):
        yield from _parts_of_all(part, path + below)


class _PydanticCodec(Codec):
    """Types of pydantic, by its own strict reading; pydantic is imported only for them."""

    __slots__ = ("_adapter", "_may_hold_datetime", "_problem_type")

    def __init__(self, tp: Any) -> None:
        import pydantic  # noqa: PLC0415 - optional: whoever has such a type has it, nobody else needs it

        self.type = tp
        self._adapter: Any = pydantic.TypeAdapter(tp)
        self._problem_type = pydantic.ValidationError
        schema = self.schema()
        self._may_hold_datetime = schema is None or "date-time" in str(schema)

    def encode(self, value: Any) -> bytes:
        if type(value) in _BUILTINS:
            try:
                raw = JSON.encode(value)
            except PayloadError as not_plain:  # it may still hold models, as in list[Model]
                return self._encode_instance(value, not_plain)
            self.decode(raw)
            return raw
        if isinstance(self.type, type) and get_origin(self.type) is None and not isinstance(value, self.type):
            raise PayloadError(f"is {shown(value)}, not {type_name(self.type)}: make it one")
        return self._encode_instance(value)

    def _encode_instance(self, value: Any, not_plain: PayloadError | None = None) -> bytes:
        try:
            raw: bytes = self._adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
            inside = self._adapter.dump_python(value, round_trip=True)
        except Exception as error:  # serialisers of the user's may raise anything
            if not_plain is not None:
                raise not_plain from error
            raise PayloadError(f"cannot be written as {type_name(self.type)}: {error}; correct it there") from error
        for path, part in _parts_of_all(inside):
            if isinstance(part, float | Decimal) and not Decimal(part).is_finite():
                raise PayloadError(not_finite(part), path)
        got = self.decode(raw)
        if fault := _changed(inside, self._adapter.dump_python(got, round_trip=True)):
            _raise(fault)
        if got != value:
            raise PayloadError(f"{_short(value)} would come back as {_short(got)}: pass exactly {type_name(self.type)}")
        return raw

    def decode(self, raw: bytes) -> Any:
        """Read strictly; keys that the model does not know are refused unless it says `extra="allow"`."""
        tree = JSON.decode(raw)
        try:
            got = self._adapter.validate_json(raw, strict=True)
        except self._problem_type as error:
            first = error.errors(include_url=False)[0]
            path = _path(tree, first["loc"], is_missing=first["type"] == "missing")
            raise PayloadError(f"{first['msg']}: send what {type_name(self.type)} declares", path) from error
        except Exception as error:  # validators of the user's may raise anything
            raise PayloadError(f"cannot be read as {type_name(self.type)}: {error}") from error
        if fault := _unknown_key(tree, got):
            _raise(fault)
        if self._may_hold_datetime:
            for path, part in _parts_of_all(self._adapter.dump_python(got, round_trip=True, by_alias=True)):
                if isinstance(part, datetime) and (fault := _check_datetime(part, part, False)):
                    raise PayloadError(fault[1], path)
        return got

    def schema(self) -> dict[str, Any] | None:
        try:
            drawn: dict[str, Any] = self._adapter.json_schema()
        except Exception:  # noqa: BLE001 - a schema is a courtesy, and pydantic has many reasons to have none
            return None
        return drawn

    def default(self) -> Any:
        return _made_without_arguments(self)


def _is_pydantic(tp: Any) -> bool:
    """Say whether a type, or a part of `list[Model]`, `Model | None`, is pydantic's own; imports nothing."""
    made_by = type(tp).__module__.partition(".")[0]
    return hasattr(tp, "__pydantic_validator__") or made_by == "pydantic" or any(map(_is_pydantic, _arguments(tp)))


def _arguments(tp: Any) -> Iterable[Any]:
    return () if get_origin(tp) is Literal else (*get_args(tp), *getattr(tp, "__metadata__", ()))


def _changed(given: Any, got: Any) -> _Fault | None:
    """Compare what pydantic takes two values apart into."""
    numbers = (int, float)
    if type(given) is not type(got) and not (type(given) in numbers and type(got) in numbers and given == got):
        return _same(given, got, False) or ("", f"is {shown(given)} and would come back as {shown(got)}: convert it")
    if isinstance(given, dict | list | tuple) and len(given) == len(got):
        for (below, was), (_, became) in zip(_parts(given), _parts(got), strict=True):
            if fault := _changed(was, became):
                return below + fault[0], fault[1]
        return None
    return _check_datetime(given, got, False)


def _path(tree: Any, steps: tuple[Any, ...], *, is_missing: bool) -> str:
    """Write pydantic's location as a path, without the names of models and union members that it mixes in."""
    path = "$"
    for nth, key in enumerate(steps, start=1):
        if key in tree if isinstance(tree, dict) else isinstance(tree, list) and key in range(len(tree)):
            tree = tree[key]
        elif not is_missing or nth < len(steps):
            continue
        path += step(key)
    return path


def _unknown_key(tree: Any, got: Any) -> _Fault | None:
    """Find a key of the text that left no trace in what pydantic read from it."""
    if hasattr(got, "__pydantic_root_model__") and got.__pydantic_root_model__:
        return _unknown_key(tree, got.root)
    if isinstance(tree, list) and isinstance(got, list | tuple) and len(tree) == len(got):
        pairs = list(zip(enumerate(tree), got, strict=True))
        faults = ((key, _unknown_key(was, became)) for (key, was), became in pairs)
    elif isinstance(tree, dict) and isinstance(got, dict) and len(tree) == len(got):
        faults = ((key, _unknown_key(was, got.get(key))) for key, was in tree.items())
    elif isinstance(tree, dict):
        known = _known_keys(got)
        if known is None:
            return None
        for key in tree:
            if key not in known:
                return step(key), "is no declared key: leave it out, or declare it"
        faults = ((key, _unknown_key(was, known[key])) for key, was in tree.items())
    else:
        return None
    return next(((step(key) + fault[0], fault[1]) for key, fault in faults if fault), None)


def _known_keys(got: Any) -> dict[str, Any] | None:
    """List the keys from which `got` may have been read, with what was read; None where any key will do."""
    cls: Any = type(got)
    if isinstance(got, dict):
        return got
    if not dataclasses.is_dataclass(cls) and not hasattr(cls, "__pydantic_fields__"):
        return None
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    if config.get("extra") == "allow":
        return None
    fields = getattr(cls, "__pydantic_fields__", None) or {field.name: field for field in dataclasses.fields(cls)}
    known = {}
    for name, field in fields.items():
        alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None) or name
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        for choice in [*getattr(alias, "choices", [alias]), *([name] if by_name else [])]:
            known[choice if isinstance(choice, str) else choice.path[0]] = getattr(got, name, None)
    return known
