import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm.errors import PayloadError
from fsm.machine.values import JSON, Codec, codec_for

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON_VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
# What orjson writes without a word, though it comes back as something else, and what it does not write.
STRANGERS = (
    st.floats()
    | st.integers()
    | st.binary()
    | st.datetimes()
    | st.uuids()
    | st.decimals()
    | st.tuples(ATOMS)
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]))
)
ANYTHING = st.recursive(
    ATOMS | STRANGERS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner),
    max_leaves=20,
)


@dataclass
class Part:
    name: str
    price: float = 0.0
    note: str | None = None


@dataclass
class Whole:
    parts: list[Part] = field(default_factory=list)
    by_name: dict[str, Part] = field(default_factory=dict)
    count: int = 0
    amount: Decimal = Decimal(0)
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    free: Any = None


WHOLES = st.builds(
    Whole,
    parts=st.lists(st.builds(Part, st.text(), st.floats(), st.none() | st.text())),
    by_name=st.dictionaries(st.text(), st.builds(Part, st.text())),
    count=st.integers() | st.booleans(),
    amount=st.decimals(),
    when=st.datetimes(timezones=st.none() | st.timezones()),
    free=ANYTHING,
)


@given(JSON_VALUES)
def test_json_comes_back_as_it_was(value: Any) -> None:
    raw = JSON.encode(value)
    assert repr(JSON.decode(raw)) == repr(value)  # repr tells 1 from True and -0.0 from 0.0, as == does not
    assert json.loads(raw) == value


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_of_another_writer_is_read_alike(value: Any, ascii_only: bool, indent: int | None) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert repr(JSON.decode(raw)) == repr(value)


def written(codec: Codec, value: Any) -> bytes | None:
    """Encode; where that is refused, hold the refusal to be one that we know, with a path."""
    try:
        return codec.encode(value)
    except PayloadError as fault:
        refusal = fault
    assert refusal.path.startswith("$")
    assert "cannot be written" not in refusal.problem
    return None


@given(ANYTHING)
def test_any_value_comes_back_as_it_was_or_is_refused(value: Any) -> None:
    raw = written(JSON, value)
    assert raw is None or repr(JSON.decode(raw)) == repr(value)


@given(st.binary() | st.text().map(str.encode))
def test_any_text_is_read_as_json_or_refused(raw: bytes) -> None:
    try:
        value = JSON.decode(raw)
    except PayloadError:
        return
    assert value == json.loads(raw)
    assert repr(JSON.decode(JSON.encode(value))) == repr(value)


@given(WHOLES)
def test_any_typed_value_comes_back_equal_or_is_refused(value: Whole) -> None:
    codec = codec_for(Whole)
    raw = written(codec, value)
    if raw is None:
        return
    got = codec.decode(raw)
    assert (got.parts, got.by_name, got.amount) == (value.parts, value.by_name, value.amount)
    assert repr(got.free) == repr(value.free)
    assert (got.when.astimezone(UTC), type(got.count)) == (value.when.astimezone(UTC), int)
    assert codec.encode(got) == raw


@given(
    st.builds(Whole, parts=st.lists(st.builds(Part, st.text(), st.integers(-9, 9).map(float))), count=st.integers(0, 9))
)
def test_a_typed_value_may_be_sent_as_plain_json(value: Whole) -> None:
    codec = codec_for(Whole)
    plain = JSON.decode(codec.encode(value))
    assert codec.decode(codec.encode(plain)) == value
    assert codec.decode(json.dumps(plain, indent=1).encode()) == value


@given(JSON_VALUES)
def test_plain_json_of_a_wrong_form_is_refused_by_a_type(value: Any) -> None:
    with pytest.raises(PayloadError):
        codec_for(Part).decode(JSON.encode({"name": value, "unknown": value}))
