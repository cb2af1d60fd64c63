import dataclasses
import enum
import functools
import inspect
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions

from fsm.errors import DefinitionError, PayloadError
from fsm.machine.json_values import MAX_DEPTH
from fsm.machine.values import JSON, Codec, codec_for

T = TypeVar("T")
ID = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
NAIVE = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - naive on purpose: it must be refused
NAN = float("nan")
INF = float("inf")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Pairs(NamedTuple):
    a: int
    b: int = 2


@dataclass
class Line:
    sku: str
    price: int = 0


@dataclass
class LongLine(Line):
    note: str = ""


@dataclass
class Cart:
    items: list[Line] = field(default_factory=list)
    by_name: dict[str, Line] = field(default_factory=dict)
    first: Line | None = None
    total: int = 0


@dataclass
class Everything:
    when: datetime = NOON
    day: date = date(2026, 3, 1)
    at: time = time(12, 30)
    span: timedelta = timedelta(seconds=90)
    amount: Decimal = Decimal("1.50")
    ident: UUID = ID
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    maybe: float | None = None
    weight: float = 0.5
    tags: set[str] = field(default_factory=lambda: {"x", "y"})
    pair: tuple[int, str] = (1, "x")
    many: tuple[int, ...] = (1, 2)
    counts: dict[int, int] = field(default_factory=lambda: {1: 2})
    raw: bytes = b"\x00\xff"
    free: Any = None
    frozen: frozenset[int] = frozenset({1})


@dataclass
class Tree:
    value: int = 0
    children: list["Tree"] = field(default_factory=list)


@dataclass(eq=False)
class Incomparable:
    items: list[Line] = field(default_factory=list)
    note: str | None = None


@dataclass
class Forgetful:
    seen: float | None = field(default=None, compare=False)


@dataclass
class Box(Generic[T]):
    value: T


@dataclass
class Tidy:
    name: str
    size: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.name = self.name.strip()
        self.size = len(self.name)


@dataclass
class Picky:
    n: int = 0

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError(self.n)


@dataclass
class Restless:
    x: Any = None

    def __post_init__(self) -> None:
        self.x = [self.x]


@dataclass
class Growing:
    items: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.items.append(Line("more"))


@dataclass
class Opaque:
    x: Any = None

    def __post_init__(self) -> None:
        self.x = object()


@dataclass
class Cached:
    n: int = 0

    def __post_init__(self) -> None:
        self._seen = {self.n}

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.n


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Options(TypedDict, total=False):
    depth: float | None


@attrs.define
class Parcel:
    weight: float
    lines: list[Line] = attrs.field(factory=list)


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Renamed(msgspec.Struct, rename="camel"):
    unit_price: int
    in_stock: bool = True


class Maybe(msgspec.Struct, omit_defaults=True):
    x: int | msgspec.UnsetType = msgspec.UNSET


class TaggedRow(msgspec.Struct, array_like=True, tag=True):
    a: int
    b: int = 0


@dataclass
class Vague:
    x: object = None


class Row(msgspec.Struct, array_like=True):
    a: int
    b: int = 0


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    lives: int
    tricks: list[str] = []


@dataclass
class Owner:
    pet: Cat | Dog
    row: Row | None = None
    address: Address | None = None
    pairs: Pairs | None = None


class Item(pydantic.BaseModel):
    sku: str
    price: float = 1.0
    when: datetime | None = None


class Order(pydantic.BaseModel):
    items: list[Item] = []
    free: Any = None
    count: int = 0


class Open(pydantic.BaseModel, extra="allow"):
    a: int = 0


class Aliased(pydantic.BaseModel):
    unit_price: int = pydantic.Field(alias="unitPrice")


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Secretive(pydantic.BaseModel):
    a: int = 0
    _seen: int = pydantic.PrivateAttr(default=0)


class Place(typing_extensions.TypedDict):  # pydantic asks for this one before Python 3.12
    street: str


def first_word(value: Any) -> Any:
    return value["words"][0] if isinstance(value, dict) else value


class Various(pydantic.BaseModel):
    one: int | Item = 0
    place: Place | None = None
    word: Annotated[str, pydantic.BeforeValidator(first_word)] = ""


class Fragile(pydantic.BaseModel):
    n: int = 0

    @pydantic.field_validator("n")
    @classmethod
    def look_up(cls, n: int) -> int:
        return {0: 0}[n]


@pydantic.dataclasses.dataclass
class Slip:
    n: int
    item: Item | None = None


def refused(act: Callable[[], object]) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        act()
    return caught.value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# --- pure JSON ---------------------------------------------------------------------------------------------------

UNTYPED = [
    Any,
    object,
    dict,
    list,
    dict[str, Any],
    list[Any],
    Mapping[str, Any],
    dict[Any, Any],
    T,
    inspect.Parameter.empty,
]


@pytest.mark.parametrize("tp", UNTYPED, ids=str)
def test_untyped_values_are_pure_json_and_have_no_schema(tp: Any) -> None:
    codec = codec_for(tp)
    value: Any = [] if tp in (list, list[Any]) else {}
    assert codec.schema() is None
    assert codec.default() == value
    assert codec.default() is not codec.default()
    fault = refused(lambda: codec.encode([(1,)] if value == [] else {"a": (1,)}))
    assert fault.path == ("$[0]" if value == [] else "$.a")


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 1.5, -0.0, 1e300, 5e-324, 2**64 - 1, -(2**63), "", "é 🙂 \x00 \u2028", [], {},
        {"": {"a b": [1, [2, {"x": None}]]}}, nested(MAX_DEPTH),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_pure_json_comes_back_as_it_was(value: Any) -> None:
    raw = JSON.encode(value)
    assert repr(JSON.decode(raw)) == repr(value)


def test_json_is_compact_utf_8() -> None:
    assert JSON.encode({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (NAN, "NaN"), (INF, "inf"), (-INF, "-inf"),
        (2**64, "64 bits"), (-(2**63) - 1, "64 bits"), (10**5000, "64 bits"),
        (b"x", "base64"), (bytearray(b"x"), "base64"), (memoryview(b"x"), "base64"),
        ((1,), "list"), (Pairs(1), "list"), ({1}, "list"), (frozenset({1}), "list"),
        (NOON, "text"), (NAIVE, "text"), (date(2026, 1, 1), "text"), (time(1), "text"), (timedelta(1), "text"),
        (Decimal(1), "text"), (ID, "text"),
        (Colour.RED, ".value"), (Level.LOW, ".value"), (Word.YES, ".value"),
        (Text("a"), "builtin"), (Whole(1), "builtin"), (Real(1.0), "builtin"),
        (OrderedDict(a=1), "builtin"), (defaultdict(int), "builtin"),
        (Line("a"), "declare"), (Point(1), "declare"), (object(), "declare"), (1j, "declare"), (Line, "declare"),
        ("\ud800", "surrogate"), ("a\udfff", "surrogate"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: value, "$"),
        (lambda value: [0, value], "$[1]"),
        (lambda value: {"items": [0, 1, {"price": value}]}, "$.items[2].price"),
        (lambda value: {"unit price": value, "z": NAN}, '$["unit price"]'),
    ],
    ids=["top", "list", "deep", "odd key"],
)
def test_what_is_not_json_is_refused_with_its_path(
    value: Any, word: str, wrap: Callable[[Any], Any], path: str
) -> None:
    fault = refused(lambda: JSON.encode(wrap(value)))
    assert fault.path == path
    assert word in fault.problem


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1,), b"a", Text("a"), Word.YES, Level.LOW, "\ud800"], ids=repr)
def test_keys_that_are_not_proper_text_are_refused(key: Any) -> None:
    fault = refused(lambda: JSON.encode({"a": [{"b": 1}, {"c": 1, key: 2}]}))
    assert fault.path == "$.a[1]"
    assert fault.problem.startswith("key ")


def test_a_value_that_refers_to_itself_is_refused() -> None:
    loop: dict[str, Any] = {"a": [1]}
    loop["a"].append(loop)
    fault = refused(lambda: JSON.encode(loop))
    assert (fault.path, "refers to itself" in fault.problem) == ("$.a[1]", True)


def test_the_same_part_twice_is_no_cycle() -> None:
    part = {"x": [1]}
    assert JSON.decode(JSON.encode({"a": part, "b": [part, part]})) == {"a": part, "b": [part, part]}


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 255, 5_000, 200_000])
def test_too_deep_values_are_refused_both_ways(depth: int) -> None:
    fault = refused(lambda: JSON.encode(nested(depth)))
    assert "deeper than 200" in fault.problem
    if depth > 254:
        assert "deeper than 200" in refused(lambda: JSON.decode(b"[" * depth + b"]" * depth)).problem


def test_a_value_is_judged_also_where_the_stack_is_nearly_used_up() -> None:
    value, limit = nested(150), sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        raw = JSON.encode(value)
    finally:
        sys.setrecursionlimit(limit)
    assert JSON.decode(raw) == value


@pytest.mark.parametrize(
    ("raw", "path", "word"),
    [
        (b"", "$", "not JSON"), (b"{", "$", "not JSON"), (b"\xff", "$", "not JSON"), (b"{'a':1}", "$", "not JSON"),
        (b"1 2", "$", "not JSON"), (b'"a\nb"', "$", "not JSON"),
        (b'{"a":[NaN]}', "$.a[0]", "NaN"), (b"-Infinity", "$", "-inf"), (b'{"a":1e999}', "$.a", "inf"),
        (b'{"a":[18446744073709551616]}', "$.a[0]", "64 bits"), (b"-9223372036854775809", "$", "64 bits"),
        (b'["\\ud800"]', "$[0]", "surrogate"), (b'{"a":1,"b":2,"a":3}', "$", "'a' stands twice"),
        (b'{"\\ud800":1}', "$", "surrogate"),
    ],
)  # fmt: skip
def test_text_that_readers_of_json_would_change_is_refused(raw: bytes, path: str, word: str) -> None:
    fault = refused(lambda: JSON.decode(raw))
    assert fault.path == path
    assert word in fault.problem


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b' { "a" : [ 1 ,\n2 ] } ', {"a": [1, 2]}),
        (b'"\\u00e9\\ud83d\\ude42"', "é🙂"),
        (b"[1E2,1e+2,100.0,0.10]", [100.0, 100.0, 100.0, 0.1]),
        (b"18446744073709551615", 2**64 - 1),
    ],
)
def test_json_of_other_writers_is_read(raw: bytes, value: Any) -> None:
    assert JSON.decode(raw) == value


@pytest.mark.parametrize(("tp", "value"), [(dict, [1]), (dict[str, Any], None), (list, {}), (list[Any], "x")], ids=str)
def test_a_declared_dict_or_list_is_held_to_be_one(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    assert "declared" in refused(lambda: codec.encode(value)).problem
    assert "declared" in refused(lambda: codec.decode(JSON.encode(value))).problem


# --- typed: there and back -----------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
TYPED: list[tuple[Any, Any]] = [
    (Line, Line("tea", 12)),
    (Cart, Cart([Line("a", 1), Line("b", 2)], {"x y": Line("c")}, Line("d"), -1)),
    (Everything, Everything()),
    (Everything, Everything(free={"a": [1, None, "x", 1.5]}, maybe=-0.0, colour=Colour.BLUE)),
    (Tree, Tree(1, [Tree(2), Tree(3, [Tree(4)])])),
    (Forgetful, Forgetful(1.5)),
    (Box[int], Box(1)),
    (Address, {"street": "x"}),
    (Address, {"street": "x", "number": 3}),
    (Parcel, Parcel(1.5, [Line("a")])),
    (Point, Point(1, 2)),
    (Renamed, Renamed(1)),
    (Row, Row(1, 2)),
    (Cat | Dog, Dog(1, ["sit"])),
    (Owner, Owner(Cat(9), Row(1), {"street": "x"}, Pairs(1))),
    (int, 2**64 - 1), (int, -(2**63)), (str, "12345678901234567890123"), (bool, True), (float, 1e22), (None, None),
    (int | None, None), (int | str, "1"), (list[Line], [Line("a")]), (dict[str, Line], {"a": Line("a")}),
    (list[int | None], [1, None]), (dict[UUID, date], {ID: date(2026, 1, 1)}), (set[int], {1, 2}), (Pairs, Pairs(1, 2)),
    (list[tuple[int, str]], [(1, "a")]), (Decimal, Decimal("0.10")), (UUID, ID), (Colour, Colour.RED),
    (Annotated[int, msgspec.Meta(gt=0)], 1), (Literal[1, "a"], "a"), (dict[str, Any] | None, {"a": [1]}),
    (datetime, NOON), (datetime, NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    (datetime, datetime(2026, 7, 1, tzinfo=BERLIN)),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)),
    (set[Pairs], {Pairs(1), Pairs(2)}), (list[Any], [1]), (list[Line] | None, [Line("a")]),
    (Decimal | None, Decimal(1)),
    (dict[str, Line] | None, {"a": Line("b")}), (tuple[Line, ...] | None, (Line("a"),)),
    (set[Decimal] | None, {Decimal(1)}),
    (frozenset[Decimal] | None, frozenset({Decimal(1)})), (datetime | None, NOON), (Any | None, [1]),
    (list[Annotated[Line, msgspec.Meta(title="A line")] | None], [Line("a"), None]), (Maybe, Maybe()),
    (Maybe, Maybe(1)),
    (Address | None, {"street": "x"}), (Annotated[list[Line], msgspec.Meta(title="Lines", max_length=3)], [Line("a")]),
    (Pairs | int, Pairs(1)), (Vague, Vague([1])), (TaggedRow | int, TaggedRow(1, 2)), (bytearray, bytearray(b"x")),
]  # fmt: skip


@pytest.mark.parametrize(("tp", "value"), TYPED, ids=lambda value: str(value)[:40])
def test_typed_values_come_back_equal_and_of_their_type(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    raw = codec.encode(value)
    got = codec.decode(raw)
    assert type(got) is type(value)
    if isinstance(value, datetime):  # two zones in the hour that a clock is set back: equal are only their instants
        got, value = got.astimezone(UTC), value.astimezone(UTC)
    assert got == value
    # The same bytes, but for the order of sets, which have none: it changes with how they were filled.
    assert sorted(codec.encode(codec.decode(raw))) == sorted(raw)


def test_decode_gives_a_private_copy_each_time() -> None:
    codec = codec_for(Cart)
    raw = codec.encode(Cart([Line("a")]))
    one, other = codec.decode(raw), codec.decode(raw)
    one.items[0].price = 99
    one.by_name["x"] = Line("x")
    assert (other, codec.decode(raw)) == (Cart([Line("a")]), Cart([Line("a")]))


@dataclass(eq=False)
class Shared:
    n: int = 0


@dataclass(eq=False, frozen=True)
class Frozen:
    n: int = 0


def test_a_default_that_all_decoded_values_would_share_is_refused_unless_it_is_frozen() -> None:
    sharing = dataclasses.make_dataclass("Sharing", [("shared", Shared, Shared())])
    with pytest.raises(DefinitionError, match="field shared of Sharing"):
        codec_for(sharing)
    harmless = dataclasses.make_dataclass("Harmless", [("shared", Frozen, Frozen())])
    assert codec_for(harmless).decode(b"{}").shared.n == 0


def test_decimal_uuid_and_datetime_travel_as_text() -> None:
    raw = JSON.decode(codec_for(Everything).encode(Everything()))
    assert (raw["amount"], raw["ident"], raw["when"]) == ("1.50", str(ID), "2026-03-01T12:00:00.123456Z")
    assert (raw["colour"], raw["tags"] in (["x", "y"], ["y", "x"])) == ("red", True)


# --- typed: plain builtins, as senders write them -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tp", "plain", "value"),
    [
        (Line, {"sku": "tea", "price": 12}, Line("tea", 12)),
        (Line, {"sku": "tea"}, Line("tea", 0)),
        (Cart, {"items": [{"sku": "a"}]}, Cart([Line("a")])),
        (list[Line], [{"sku": "a"}], [Line("a")]),
        (Everything, {"when": "2026-03-01T12:00:00+01:00"}, Everything(when=datetime(2026, 3, 1, 11, tzinfo=UTC))),
        (Everything, {"amount": "1.5", "ident": str(ID)}, Everything(amount=Decimal("1.5"))),
        (Everything, {"tags": ["a"], "pair": [2, "y"], "many": []}, Everything(tags={"a"}, pair=(2, "y"), many=())),
        (Everything, {"amount": Decimal("2.5"), "when": NOON}, Everything(amount=Decimal("2.5"))),
        (Everything, {"weight": 1, "counts": {"3": 4}}, Everything(weight=1.0, counts={3: 4})),
        (Cat | Dog, {"type": "dog", "lives": 1}, Dog(1)),
        (Owner, {"pet": {"type": "cat", "lives": 9}, "row": [1]}, Owner(Cat(9), Row(1))),
        (Owner, {"pet": Cat(1), "pairs": [5]}, Owner(Cat(1), pairs=Pairs(5))),
        (Renamed, {"unitPrice": 3}, Renamed(3)),
        (Colour, "blue", Colour.BLUE),
        (UUID, str(ID), ID),
        (Pairs, [1, 3], Pairs(1, 3)),
        (Tidy, {"name": " tea "}, Tidy("tea")),
        (Parcel, {"weight": 2, "lines": [{"sku": "a"}]}, Parcel(2.0, [Line("a")])),
        (Item, {"sku": "a", "when": "2026-03-01T12:00:00Z"}, Item(sku="a", when=datetime(2026, 3, 1, 12, tzinfo=UTC))),
    ],
)
def test_plain_builtins_stand_for_a_typed_value(tp: Any, plain: Any, value: Any) -> None:
    codec = codec_for(tp)
    assert codec.decode(codec.encode(plain)) == value


def test_json_written_without_the_type_is_read_with_it() -> None:
    raw = JSON.encode({"price": 12, "sku": "tea"})
    assert codec_for(Line).decode(raw) == Line("tea", 12)
    assert codec_for(Tidy).decode(b'{"name": " a "}') == Tidy("a")


def test_plain_builtins_are_written_as_the_type_would_be() -> None:
    assert codec_for(Line).encode({"price": 1, "sku": "tea"}) == codec_for(Line).encode(Line("tea", 1))


# --- typed: faults, both ways ---------------------------------------------------------------------------------------

WRONG: list[tuple[Any, Any, str, str]] = [
    (Cart, Cart(total="x"), "$.total", "int"),  # type: ignore[arg-type]
    (Cart, Cart(total=1.5), "$.total", "int"),  # type: ignore[arg-type]
    (Cart, Cart(total=True), "$.total", "bool"),
    (Cart, Cart(total=2**64), "$.total", "64 bits"),
    (Cart, Cart([Line("a"), Line("b", None)]), "$.items[1].price", "null"),  # type: ignore[arg-type]
    (Cart, Cart(by_name={"a": Line("a"), "b c": Line(1)}), '$.by_name["b c"].sku', "int"),  # type: ignore[arg-type]
    (Cart, Cart(items=[{"sku": "a"}]), "$.items[0]", "not Line"),  # type: ignore[list-item]
    (Cart, Cart(items=[LongLine("a")]), "$.items[0]", "LongLine"),
    (Cart, Cart(items=(Line("a"),)), "$.items", "tuple"),  # type: ignore[arg-type]
    (Cart, Cart(by_name={1: Line("a")}), "$.by_name", "key"),  # type: ignore[dict-item]
    (Cart, Cart([Line("\ud800")]), "$.items[0].sku", "surrogate"),
    (Cart, Cart(by_name={"\ud800": Line("a")}), "$.by_name", "surrogate"),
    (Cart, Cart([Line(object())]), "$.items[0].sku", "object"),  # type: ignore[arg-type]
    (Cart, Cart([Line(b"x")]), "$.items[0].sku", "b'x'"),  # type: ignore[arg-type]
    (Cart, Cart([Line(NOON)]), "$.items[0].sku", "datetime"),  # type: ignore[arg-type]
    (Cart, Line("a"), "$", "not Cart"),
    (Cart, 3, "$", "object"), (Cart, None, "$", "null"), (Cart, [], "$", "array"),
    (Cart, {"items": [{"sku": "a"}, {"sku": "b", "colour": 1}]}, "$.items[1].colour", "no such key"),
    (Cart, {"total": 1, "Total": 2}, "$.Total", "no such key"),
    (Cart, {"items": [{"price": 1}]}, "$.items[0]", "sku"),
    (Cart, {"total": "1"}, "$.total", "str"),
    (Cart, {"total": NAN}, "$.total", "NaN"),
    (Cart, {"total": 2**64}, "$.total", "64 bits"),
    (Everything, Everything(weight=NAN), "$.weight", "NaN"),
    (Everything, Everything(maybe=NAN), "$.maybe", "NaN"), (Everything, {"maybe": INF}, "$.maybe", "inf"),
    (Everything, Everything(maybe=-INF), "$.maybe", "-inf"),
    (Everything, Everything(weight=2**60 + 1), "$.weight", "would come back"),
    (Everything, {"weight": 2**60 + 1}, "$.weight", "would come back"),
    (Everything, Everything(when=NAIVE), "$.when", "time zone"), (Everything, {"when": NAIVE}, "$.when", "time zone"),
    (Everything, {"when": "2026-03-01T12:00:00"}, "$.when", "time zone"),
    (Everything, Everything(amount=Decimal("NaN")), "$.amount", "NaN"),
    (Everything, Everything(amount=Decimal("sNaN")), "$.amount", "NaN"),
    (Everything, Everything(amount=Decimal("-Infinity")), "$.amount", "Infinity"),
    (Everything, Everything(ident=str(ID)), "$.ident", "would come back"),  # type: ignore[arg-type]
    (Everything, Everything(colour="red"), "$.colour", "would come back"),  # type: ignore[arg-type]
    (Everything, {"colour": "green"}, "$.colour", "green"), (Everything, {"kind": "c"}, "$.kind", "c"),
    (Everything, Everything(tags=["x"]), "$.tags", "list"),  # type: ignore[arg-type]
    (Everything, {"tags": ["x", "x"]}, "$.tags", "twice"),
    (Everything, {"pair": [1]}, "$.pair", "length"), (Everything, {"counts": {"x": 1}}, "$.counts.x", "key"),
    (Everything, Everything(free={"a": (1,)}), "$.free.a", "tuple"),
    (Everything, Everything(free=[{"x": NAN}]), "$.free[0].x", "NaN"),
    (Everything, Everything(free={1: 2}), "$.free", "key 1"), (Everything, {"free": {1: 2}}, "$.free", "key 1"),
    (Everything, Everything(free=[Level.LOW]), "$.free[0]", "Level"),
    (Everything, Everything(free=[Word.YES]), "$.free[0]", "Word"),
    (Everything, Everything(free=NOON), "$.free", "datetime"),
    (Everything, Everything(free=Line("a")), "$.free", "Line"),
    (Everything, Everything(free=2**64), "$.free", "64 bits"),
    (Everything, Everything(free=nested(MAX_DEPTH + 5)), "$.free", "deeper"),
    (Incomparable, Incomparable([Line("a", NAN)]), "$.items[0].price", "NaN"),  # type: ignore[arg-type]
    (Incomparable, Incomparable(note=b"x"), "$.note", "b'x'"),  # type: ignore[arg-type]
    (Forgetful, Forgetful(NAN), "$.seen", "NaN"),
    (Address, {"street": "x", "city": "y"}, "$.city", "declared"), (Address, {"number": 1}, "$", "street"),
    (Address, {"street": 1}, "$.street", "int"),
    (Parcel, Parcel(INF), "$.weight", "inf"), (Parcel, {"weight": 1.0, "x": 1}, "$.x", "no such key"),
    (Point, {"x": 1, "z": 1}, "$.z", "no such key"), (Point, Point("1"), "$.x", "str"),  # type: ignore[arg-type]
    (Renamed, {"unitPrice": 1, "unit_price": 2}, "$.unit_price", "no such key"),
    (Row, [1, 2, 3], "$[2]", "no such key"), (Pairs, [1, 2, 3], "$", "length"),
    (Cat | Dog, {"type": "dog", "lives": 1, "x": 1}, "$.x", "no such key"),
    (Cat | Dog, {"type": "fox"}, "$.type", "fox"),
    (Owner, {"pet": {"type": "cat", "lives": 9, "tricks": []}}, "$.pet.tricks", "no such key"),
    (Owner, Owner(Cat(1), address={"street": "x", "y": 1}), "$.address.y", "declared"),  # type: ignore[typeddict-unknown-key]
    (Owner, Owner(Cat(1), pairs=(1, 2)), "$.pairs", "tuple"),  # type: ignore[arg-type]
    (Box[int], Box("a"), "$.value", "str"),
    (int, "1", "$", "str"), (int, True, "$", "bool"), (int, 1.5, "$", "float"), (int, 2**64, "$", "64 bits"),
    (str, 1, "$", "int"), (float, "1", "$", "str"), (float, NAN, "$", "NaN"), (list[int], [1, "2"], "$[1]", "str"),
    (list[int], (1, 2), "$", "tuple"), (set[int], [1, 1], "$", "twice"), (datetime, NAIVE, "$", "time zone"),
    (dict[str, float], {"a": 1.0, "b": INF}, "$.b", "inf"), (list[Line], [Line("a"), {"sku": 1}], "$[1].sku", "int"),
    (dict[str, dict[str, int]], {"a": {}, "b": {"c": 1, "d": "x"}}, "$.b.d", "str"),
    (Annotated[int, msgspec.Meta(gt=0)], 0, "$", ">"),
    (datetime, datetime(1800, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")), "$", "would come back"),
    (Picky, {"n": -1}, "$", "-1"),
    (datetime | None, NAIVE, "$", "time zone"), (Any | None, {"a": (1,)}, "$.a", "tuple"),
    (list[Line] | None, [Line("a"), Line("b", NAN)], "$[1].price", "NaN"),  # type: ignore[arg-type]
    (dict[str, Line] | None, {"a": {"sku": "b", "c": 1}}, "$.a.c", "no such key"),
    (tuple[Line, ...] | None, [{"sku": "b", "c": 1}], "$[0].c", "no such key"),
    (set[Decimal] | None, [1, 1], "$", "twice"), (frozenset[Decimal] | None, {Decimal("inf")}, "$[0]", "Infinity"),
    (TaggedRow | int, ["TaggedRow", 1, 2, 3], "$[3]", "no such key"), (Vague, Vague((1,)), "$.x", "tuple"),
    (Decimal | None, Decimal("inf"), "$", "Infinity"), (Everything, Everything(free={None: 1}), "$.free", "key None"),
    (Everything, Everything(free={(1,): 1}), "$.free", "key (1,)"), (dict[int, int], {1: 1, "1": 2}, "$", "same text"),
    (dict[str, int], [], "$", "array"), (Box[dict[str, int]], Box(Address(street="x")), "$.value.street", "str"),
    (Owner, Owner(Cat(1), address=Options()), "$.address", "street"),  # type: ignore[arg-type]
    (Everything, Everything(pair=[1, "x"]), "$.pair", "list"),  # type: ignore[arg-type]
    (dict[UUID, int], {str(ID): 1, "x": 2}, "$.x", "key"), (dict[datetime, int], {NAIVE: 1}, "$", "time zone"),
    (Restless, Restless(), "$.x", "would come back"), (Growing, Growing(), "$.items", "has 1 items"),
    (list[Box[UUID]], [Box(str(ID))], "$[0].value", "would come back"),
    (Box[dict[str, int]], Box(Point(1)), "$.value", "not a dict"),
    (Box[Options], Box(Maybe()), "$.value", "not a dict"),
    (Options, {"depth": NAN}, "$.depth", "NaN"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tp", "value", "path", "word"), WRONG, ids=lambda value: str(value)[:40].encode("ascii", "replace")
)
def test_what_would_change_or_is_not_of_its_type_is_refused_with_its_path(
    tp: Any, value: Any, path: str, word: str
) -> None:
    fault = refused(lambda: codec_for(tp).encode(value))
    assert fault.path.startswith(path) if word == "deeper" else fault.path == path
    assert word in fault.problem


@pytest.mark.parametrize(
    ("tp", "raw", "path", "word"),
    [
        (Cart, b'{"items":[{"sku":"a","price":1},{"sku":"b","price":"1"}]}', "$.items[1].price", "str"),
        (Cart, b'{"by_name":{"a":{"sku":"x"},"b c":{"sku":1},"d":{"sku":2}}}', '$.by_name["b c"].sku', "int"),
        (Cart, b'{"items":[{"sku":"a","price":1,"z":1}]}', "$.items[0].z", "no such key"),
        (Cart, b'{"items":[],"by_name":{},"first":null,"total":18446744073709551616}', "$.total", "64 bits"),
        (Cart, b'{"total":1,"total":2}', "$", "twice"), (Cart, b'{"total":1e999}', "$.total", "inf"),
        (Cart, b'{"first":{"sku":"\\ud800"}}', "$.first.sku", "surrogate"),
        (Cart, b"", "$", "not JSON"), (Cart, b'{"total":NaN}', "$.total", "NaN"), (Cart, b"\xff", "$", "not JSON"),
        (float, b"1152921504606846977", "$", "would come back"), (datetime, b'"2026-03-01T12:00:00"', "$", "time zone"),
        (Everything, b'{"when":"2026-03-01T12:00:00"}', "$.when", "time zone"),
        (Everything, b'{"amount":"Infinity"}', "$.amount", "Infinity"),
        (Everything, b'{"free":{"a":[36893488147419103232]}}', "$.free.a[0]", "64 bits"),
        (dict[str, dict[str, int]], b'{"x":{"a":1},"y":{"a":1,"b":"2"},"z":{"a":"3"}}', "$.y.b", "str"),
        (dict[str, Address], b'{"a":{"street":"x","zip":1}}', "$.a.zip", "declared"),
        (Picky, b'{"n":-1}', "$", "Picky"),
    ],
)  # fmt: skip
def test_text_that_is_not_of_the_type_is_refused_with_its_path(tp: Any, raw: bytes, path: str, word: str) -> None:
    fault = refused(lambda: codec_for(tp).decode(raw))
    assert fault.path == path
    assert word in fault.problem


def test_naive_datetimes_are_refused_also_where_all_fields_are_written_as_we_write_them() -> None:
    raw = codec_for(Everything).encode(Everything()).replace(b"12:00:00.123456Z", b"12:00:00.123456")
    assert refused(lambda: codec_for(Everything).decode(raw)).path == "$.when"


def test_a_naive_default_is_refused_when_it_is_filled_in() -> None:
    @dataclass
    class Stamped:
        at: datetime = NAIVE

    assert refused(lambda: codec_for(Stamped).encode({})).path == "$.at"


def test_set_items_are_checked_though_they_have_no_order() -> None:
    codec = codec_for(set[datetime])
    assert codec.decode(codec.encode({NOON})) == {NOON}
    assert "time zone" in refused(lambda: codec.encode({NOON, NAIVE})).problem


def test_a_typed_value_that_refers_to_itself_is_refused() -> None:
    tree = Tree()
    tree.children.append(Tree(children=[tree]))
    fault = refused(lambda: codec_for(Tree).encode(tree))
    assert "refers to itself" in fault.problem
    assert fault.path == "$.children[0].children[0]"


@pytest.mark.parametrize("depth", [150, 5_000])
def test_a_typed_value_that_is_too_deep_is_refused(depth: int) -> None:
    tree = Tree()
    for _ in range(depth):
        tree = Tree(children=[tree])
    assert "deeper" in refused(lambda: codec_for(Tree).encode(tree)).problem
    raw = b'{"children":[' * depth + b"]}" * depth
    assert "deeper" in refused(lambda: codec_for(Tree).decode(raw)).problem


def test_an_attribute_that_is_no_field_is_refused_because_it_would_be_lost() -> None:
    cart = Cart()
    cart.totl = 1  # type: ignore[attr-defined]
    assert refused(lambda: codec_for(Cart).encode(cart)).path == "$.totl"


def test_what_a_class_makes_anew_by_itself_is_no_state_and_may_be_lost() -> None:
    value = Cached(2)
    assert value.double == 4
    assert codec_for(Cached).decode(codec_for(Cached).encode(value)) == Cached(2)


def test_a_constructor_that_undoes_a_change_is_told() -> None:
    tidy = Tidy("a")
    tidy.size = 7
    assert refused(lambda: codec_for(Tidy).encode(tidy)).path == "$.size"


# --- pydantic -------------------------------------------------------------------------------------------------------

PYDANTIC: list[tuple[Any, Any]] = [
    (Order, Order(items=[Item(sku="a", when=NOON), Item(sku="b", price=2.5)], free={"x": [1]})),
    (Slip, Slip(1, Item(sku="a"))), (list[Item], [Item(sku="a")]), (Item | None, None),
    (dict[str, Item], {"a": Item(sku="b")}),
    (Open, Open(a=1, b="x")), (Aliased, Aliased(unitPrice=3)), (Numbers, Numbers([1, 2])),  # type: ignore[call-arg]
    (Annotated[int, pydantic.Field(gt=0)], 3),
]  # fmt: skip


@pytest.mark.parametrize(("tp", "value"), PYDANTIC, ids=lambda value: str(value)[:40])
def test_pydantic_values_come_back_equal(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    got = codec.decode(codec.encode(value))
    assert (got, type(got)) == (value, type(value))


WRONG_PYDANTIC: list[tuple[Any, Any, str, str]] = [
    (Order, {"items": [{"sku": "a"}, {"sku": 1}]}, "$.items[1].sku", "string"),
    (Order, {"items": [{"sku": "a", "zz": 1}]}, "$.items[0].zz", "no declared key"),
    (Order, {"x": 1}, "$.x", "no declared key"), (Order, {"count": "1"}, "$.count", "integer"),
    (Order, {"items": [{}]}, "$.items[0].sku", "required"), (Order, {"count": NAN}, "$.count", "NaN"),
    (Order, 3, "$", "object"),
    (Order, Order(items=[Item(sku="a", price=NAN)]), "$.items[0].price", "NaN"),
    (Order, Order(free=INF), "$.free", "inf"),
    (Order, Order(items=[Item(sku="a", when=NAIVE)]), "$.items[0].when", "time zone"),
    (Order, {"items": [{"sku": "a", "when": "2026-03-01T12:00:00"}]}, "$.items[0].when", "time zone"),
    (Order, Order(count=2**64), "$.count", "64 bits"), (Order, Order(free=(1, 2)), "$.free", "would come back"),
    (Order, Order(free=Level.LOW), "$.free", "Level"), (Order, Order(free={1, 2}), "$.free", "would come back"),
    (Order, Order.model_construct(count="x"), "$", "count"), (Order, Item(sku="a"), "$", "Order"),
    (Aliased, {"unit_price": 1}, "$.unitPrice", "required"),
    (Aliased, {"unitPrice": 1, "unit_price": 1}, "$.unit_price", "key"),
    (Slip, {"n": 1, "m": 2}, "$.m", "no declared key"),
    (Slip, {"n": 1, "item": {"sku": "a", "b": 1}}, "$.item.b", "key"),
    (Various, {"one": {"sku": 1}}, "$.one", "integer"),
    (Various, {"place": {"street": "x", "zip": 1}}, "$.place.zip", "key"),
    (Fragile, {"n": 1}, "$", "Fragile"), (Fragile, Fragile.model_construct(n=1), "$", "Fragile"),
    (Numbers, ["x"], "$[0]", "integer"), (Annotated[int, pydantic.Field(gt=0)], 0, "$", "greater"),
]  # fmt: skip


@pytest.mark.parametrize(("tp", "value", "path", "word"), WRONG_PYDANTIC, ids=lambda value: str(value)[:40])
def test_pydantic_values_that_would_change_are_refused_with_their_path(
    tp: Any, value: Any, path: str, word: str
) -> None:
    fault = refused(lambda: codec_for(tp).encode(value))
    assert fault.path == path
    assert word in fault.problem


def test_pydantic_refuses_unknown_keys_when_it_reads_unless_the_model_allows_them() -> None:
    assert refused(lambda: codec_for(Order).decode(b'{"items":[{"sku":"a","z":1}]}')).path == "$.items[0].z"
    assert codec_for(Open).decode(b'{"a":1,"z":2}') == Open(a=1, z=2)  # type: ignore[call-arg]


def test_private_state_of_a_model_is_refused_because_it_would_be_lost() -> None:
    value = Secretive(a=1)
    assert codec_for(Secretive).decode(codec_for(Secretive).encode(value)) == value
    value._seen = 7
    assert "would come back" in refused(lambda: codec_for(Secretive).encode(value)).problem


def test_pydantic_may_read_an_object_as_something_else() -> None:
    assert codec_for(Various).decode(b'{"word":{"words":["a","b"]}}') == Various(word="a")


def test_a_class_may_make_of_its_text_what_cannot_be_written_again() -> None:
    assert isinstance(codec_for(Opaque).decode(b'{"x":1}'), Opaque)
    assert refused(lambda: codec_for(Opaque).encode(Opaque())).path == "$.x"


def test_a_path_that_msgspec_writes_in_an_unknown_way_is_passed_on() -> None:
    codec: Any = codec_for(Cart)
    assert codec._located("Odd - at `$.items[0].?`", b'{"items":[{}]}') == ("$.items[0].?", "Odd")


def test_pydantic_is_imported_only_for_its_own_types() -> None:
    code = (
        "import sys; from fsm.machine.values import codec_for; codec_for(dict[str, int]).encode({'a': 1}); "
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- codec_for, schema, default -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tp", [Cart, Order, dict[str, int], Any], ids=str)
def test_a_type_has_one_codec(tp: Any) -> None:
    codec = codec_for(tp)
    assert codec is codec_for(tp)
    assert isinstance(codec, Codec)
    assert codec.type == tp


def test_a_type_that_cannot_be_a_key_has_a_codec_too() -> None:
    unhashable = Annotated[int, ["no", "hash"]]
    assert codec_for(unhashable).decode(b"1") == 1


@dataclass
class Lost:
    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 - it is the fault under test


@dataclass
class Mixed:
    item: Item


@pytest.mark.parametrize(
    ("tp", "name"),
    [
        (complex, "complex"), (list[complex], "complex"), (Callable, "Callable"), ("Cart", "Cart"), (Lost, "Lost"),
        (Line | Cart, "Line"), (Mixed, "Item"), (msgspec.Raw, "Raw"), (3, "3"), (Codec, "Codec"),
        (dict[str, type], "type"),
    ],
    ids=str,
)  # fmt: skip
def test_a_type_that_is_not_known_as_json_is_refused_by_name(tp: Any, name: str) -> None:
    with pytest.raises(DefinitionError, match=name) as caught:
        codec_for(tp)
    assert "use" in str(caught.value)


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (Cart, Cart()), (Everything, Everything()), (Order, Order()), (Options, {}), (list[int], []), (int, 0),
        (Any, {}),
        (dict[str, int], {}),
    ],
)  # fmt: skip
def test_the_default_is_the_type_without_arguments_new_each_time(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    assert codec.default() == value
    assert isinstance(value, int) or codec.default() is not codec.default()


@pytest.mark.parametrize("tp", [Line, Item, Address, Line | None, Parcel, Literal["a"]], ids=str)
def test_without_a_default_a_payload_must_be_given(tp: Any) -> None:
    fault = refused(codec_for(tp).default)
    assert fault.problem.startswith("a payload of type ")
    assert "must be given" in fault.problem


def test_typed_values_have_a_json_schema() -> None:
    schema = codec_for(Line).schema()
    assert schema is not None
    assert schema["$defs"]["Line"]["properties"]["price"]["type"] == "integer"
    schema = codec_for(Item).schema()
    assert schema is not None
    assert schema["properties"]["sku"]["type"] == "string"


@pytest.mark.parametrize("tp", [Vague, set[Vague] | None], ids=str)
def test_a_type_of_msgspec_without_a_schema_still_has_a_codec(tp: Any) -> None:
    assert codec_for(tp).schema() is None


def test_a_type_without_a_schema_still_has_a_codec() -> None:
    class Opaque:
        pass

    class Held(pydantic.BaseModel, arbitrary_types_allowed=True):
        x: Opaque | None = None

    assert codec_for(Held).schema() is None
    assert codec_for(Held).decode(b"{}") == Held()


def test_fields_may_be_named_like_methods_of_dict() -> None:
    made = dataclasses.make_dataclass("Odd", [("items", int), ("keys", int), ("type", int), ("self", int)])
    codec = codec_for(made)
    value = {"items": 1, "keys": 2, "type": 3, "self": 4}
    assert JSON.decode(codec.encode(value)) == value
    assert refused(lambda: codec.encode(value | {"values": 1})).path == "$.values"
