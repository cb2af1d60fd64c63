"""Names and values on their whole way: start, send, claim, handler, commit, and read back equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fsm import Client, Machine, Settings, Transition, on
from fsm.errors import FSMExistsError, PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

quick = settings(
    max_examples=settings.default.max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Echo(Machine):
    """Keeps what it was told last, and says it."""

    settings = Settings(endless=True, dedup="1d")
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : tell
        open --> open : pass_on
    """

    @on("tell")
    def tell(self, t: Transition) -> None:
        """Keep and say it."""
        t.payload["told"] = t.data
        t.reply(t.data)

    @on("pass_on")
    def pass_on(self, t: Transition) -> None:
        """Send it to another one, which is started for that."""
        t.start_fsm(Echo, t.data["to"], {"by": t.name})
        t.send(t.data["to"], "tell", t.data["value"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A world in memory: the scripts over fakeredis, and a worker in this thread."""
    with Client("memory://?effects=off") as made:
        yield made


texts = st.text(min_size=1, max_size=40) | st.text(st.sampled_from("a\n\r\x00 :/*\"'\\%{}é😀\u2028"), min_size=1)
names = st.one_of(texts, st.sampled_from(["x" * 512, "é" * 256, "😀" * 128, "BROKEN", "*", "-1", "nil", " "]))
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
values = st.recursive(leaves, lambda one: st.lists(one) | st.dictionaries(st.text(max_size=8), one), max_leaves=12)


@quick
@given(name=names, value=values, meta=st.dictionaries(st.text(max_size=5), leaves, max_size=3))
def test_any_name_and_any_value_come_back_as_they_were(
    client: Client, name: str, value: Any, meta: dict[str, Any]
) -> None:
    client.redis.flushall()
    client.start_fsm(Echo, name, {"first": value})
    outcome = client.call(name, "tell", value, meta=meta, key=name)
    assert (outcome.name, repr(outcome.reply)) == (name, repr(value))
    snapshot = client.state(name)
    assert snapshot.name == name
    assert repr(snapshot.payload) == repr({"first": value, "told": value})
    lines = list(client.log(name))
    assert [line["event"] for line in lines] == ["[*]", "tell"]
    assert repr(lines[1].get("meta", {})) == repr(meta)
    assert [one.name for one in client.snapshots()] == [name]
    # Sent again with its key, it is the same event.
    assert client.call(name, "tell", value, key=name).job_id == outcome.job_id
    client.purge(name)


@quick
@given(name=names, other=names, value=values)
def test_what_a_handler_sends_comes_as_it_was(client: Client, name: str, other: str, value: Any) -> None:
    assume(name != other)
    client.redis.flushall()
    client.start_fsm(Echo, name)
    client.transition(name, "pass_on", {"to": other, "value": value})
    assert repr(client.state(other).payload) == repr({"by": name, "told": value})


bad_names = st.one_of(
    st.sampled_from(["", "x" * 513, "é" * 257, "\ud800", None, 7, b"x", ("x",)]),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),
)


@quick
@given(name=bad_names)
def test_what_is_no_name_is_refused_before_redis_is_asked(client: Client, name: Any) -> None:
    for deed in (
        lambda: client.start_fsm(Echo, name),
        lambda: client.transition(name, "tell"),
        lambda: client.transition("x", name),
        lambda: client.state(name),
        lambda: client.jobs(name),
        lambda: client.purge(name),
        lambda: client.retry(name),
    ):
        with pytest.raises(PayloadError):
            deed()


def nested(depth: int) -> Any:
    """Make lists in one another."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, 2**64]}, r"\$\.a\[1\]"),
        ({"a": float("nan")}, r"\$\.a"),
        ({"a": {1: 2}}, r"\$\.a"),
        ({"a": ["\ud800"]}, r"\$\.a\[0\]"),
        ({"a": nested(300)}, r"\$\.a\[0\]\[0\]"),
        ({"a": nested(100_000)}, r"\$\.a\[0\]\[0\]"),
        ({"a": b"x"}, r"\$\.a"),
    ],
    ids=["65 bits", "NaN", "a key that is no text", "surrogate", "deep", "very deep", "bytes"],
)
def test_a_value_that_is_no_json_is_refused_with_its_path(client: Client, value: Any, path: str) -> None:
    client.redis.flushall()
    client.start_fsm(Echo, "x")
    for deed in (
        lambda: client.start_fsm(Echo, "y", value),
        lambda: client.transition("x", "tell", value),
        lambda: client.transition("x", "tell", meta=value),
    ):
        with pytest.raises(PayloadError, match=path):
            deed()
    with pytest.raises(FSMExistsError):
        client.start_fsm(Echo, "x")
