from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from fsm.errors import DefinitionError, DiagramError, ValidationError
from fsm.machine import (
    DefinitionMark,
    Handler,
    Machine,
    RetryPolicy,
    Settings,
    codec_for,
    enter,
    guard,
    leave,
    on,
    read_mark,
)

DIAGRAM = """
stateDiagram-v2
    [*] --> cart : open
    cart --> cart : add
    cart --> paying : pay [rich]
    cart --> cart : pay [else]
    paying --> cart : add
    paying --> packed : captured
    packed --> [*]
"""


@dataclass
class Line:
    sku: str


class Base(Machine):
    diagram = DIAGRAM
    settings = Settings(queue="orders", timeout=5)

    @guard("rich")
    def is_rich(self, t: Any) -> bool:
        return bool(t)


class Shelf:
    """What is just enough of a storage."""

    def load(self, name: str) -> None: ...

    def store(self, name: str, snapshot: Any, expected_version: int | None) -> bool: ...


class Marked(Base):
    @on("captured")
    def m(self, t: Any) -> None: ...


def problems(body: dict[str, Any], base: type = Base) -> tuple[str, ...]:
    """Give what is wrong with a class `Order` with this body."""
    with pytest.raises(ValidationError) as raised:
        types.new_class("Order", (base,), exec_body=lambda namespace: namespace.update(body))
    assert raised.value.machine == "Order"
    return raised.value.problems


def method(self: Any, t: Any) -> None:
    """Stand where a method is needed."""


def fresh(*decorators: Any) -> Any:
    """Give a new method with these marks."""
    function = types.FunctionType(method.__code__, globals(), "method")
    for decorate in decorators:
        function = decorate(function)
    return function


def test_a_definition_has_what_the_class_says() -> None:
    class Order(Base):
        settings = Settings(timeout=7)

        @on("add")
        def add(self, t: Any, line: Line) -> None: ...

        @on("captured")
        def captured(self, t: Any) -> None: ...

        @on("open")
        def opened(self, t: Any) -> None: ...

        @enter("packed")
        def tell(self, t: Any) -> None: ...

        @enter("packed")
        @leave("cart")
        def count(self, t: Any) -> None: ...

        def on_start(self, t: Any) -> None: ...

        def on_failure(self, t: Any, error: Any) -> None: ...

    definition = Order.definition
    line = Handler("add", codec_for(Line))
    assert definition.name == "Order"
    assert definition.graph is Order.graph
    assert definition.fingerprint == definition.mark == Order.graph.fingerprint
    assert definition.storage is None
    assert definition.handlers == {
        ("cart", "add"): line,
        ("paying", "add"): line,
        ("paying", "captured"): Handler("captured", None),
        ("", "open"): Handler("opened", None),
    }
    assert definition.guards == {"rich": "is_rich"}
    assert definition.enter == {"packed": ("tell", "count")}
    assert definition.leave == {"cart": ("count",)}
    assert definition.hooks == {"on_start", "on_failure"}
    assert not definition.has_async
    assert (definition.settings.queue, definition.settings.timeout_ms) == ("orders", 7_000)
    assert definition.payload_type == dict[str, Any]


def test_a_definition_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Base.definition.handlers["cart", "add"] = Handler("x", None)  # type: ignore[index]
    with pytest.raises(AttributeError):
        Base.definition.name = "x"  # type: ignore[misc]


def test_a_handler_with_a_source_is_for_that_state_only() -> None:
    class Order(Base):
        @on("add", source="cart")
        def add(self, t: Any) -> None: ...

        @on("add", source=("paying",))
        def add_late(self, t: Any) -> None: ...

    assert {key: handler.method for key, handler in Order.definition.handlers.items()} == {
        ("cart", "add"): "add",
        ("paying", "add"): "add_late",
    }


def test_data_without_annotation_are_plain_json() -> None:
    class Order(Base):
        @on("add")
        def add(self, t, line=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - as users do who write no annotations
            ...

    assert Order.definition.handlers["cart", "add"].data is codec_for(Any)


def test_annotations_of_classes_inside_functions_are_found() -> None:
    @dataclass
    class Local:
        sku: str

    class Order(Base):
        @on("add")
        def add(self, t: Unknown[Local], line: Local) -> None:  # type: ignore[name-defined]  # noqa: F821 - only that of the data is looked at
            ...

    assert Order.definition.handlers["cart", "add"].data is codec_for(Local)


P = TypeVar("P")


class Generic1(Machine[P], Generic[P]):
    diagram = "stateDiagram-v2\n[*] --> a\na --> [*] : x"


def test_the_payload_type_comes_through_generic_classes() -> None:
    class Typed(Machine[Line]):
        diagram = Generic1.diagram

    class Through(Generic1[Line]): ...

    class Below(Typed): ...

    class Text(Machine["Line"]):
        diagram = Generic1.diagram

    assert [one.definition.payload_type for one in (Typed, Through, Below, Text)] == [Line] * 4
    assert Typed.definition.payload is codec_for(Line)
    assert Generic1.definition.payload_type == dict[str, Any]


@pytest.mark.parametrize("where", ["handler", "guard", "hook", "enter"])
def test_a_coroutine_function_anywhere_makes_it_async(where: str) -> None:
    async def work(self: Any, t: Any) -> None: ...

    marks = {"handler": on("add"), "guard": guard("rich"), "enter": enter("cart"), "hook": lambda it: it}
    name = {"guard": "is_rich", "hook": "on_start"}.get(where, "work")
    order = types.new_class("Order", (Base,), exec_body=lambda body: body.update({name: marks[where](work)}))
    assert order.definition.has_async  # type: ignore[attr-defined]
    assert not Base.definition.has_async


@pytest.mark.parametrize(
    ("body", "problem", "remedy"),
    [
        ({"m": fresh(on("ad"))}, "@on('ad') of method 'm': unknown event", "did you mean 'add'?"),
        ({"m": fresh(on("add!"))}, "@on('add!') of method 'm': unknown event", "did you mean 'add'?"),
        ({"m": fresh(on("fly"))}, "unknown event", "events of this machine: open, add, pay, captured"),
        ({"m": fresh(on("[*]"))}, "unknown event", "events of this machine"),
        ({"m": fresh(on("add", source="carts"))}, "unknown state 'carts'", "did you mean 'cart'?"),
        ({"m": fresh(on("add", source="packed"))}, "state 'packed' has no edge", "take the source away"),
        ({"m": fresh(enter("packd"))}, "@enter('packd') of method 'm': unknown state", "did you mean 'packed'?"),
        ({"m": fresh(leave("crt"))}, "@leave('crt') of method 'm': unknown state", "did you mean 'cart'?"),
        ({"m": fresh(guard("ritch"))}, "@guard('ritch') of method 'm': unknown guard", "did you mean 'rich'?"),
        ({"m": fresh(guard("else"))}, "[else] needs no method", "take it away"),
        ({"m": fresh(guard("rich"))}, "two methods for one guard: 'is_rich' and 'm'", "take one away"),
        ({"is_rich": None}, "guard 'rich' of 'pay' has no method", '@guard("rich")'),
        ({"m": fresh(on("add")), "n": fresh(on("add"))}, "two handlers for one edge: 'm' and 'n'", "source="),
        ({"m": fresh(on("add")), "n": fresh(on("add", source="cart"))}, "both take 'add' in 'cart': ", "source="),
        ({"m": fresh(on("open")), "n": fresh(on("open"))}, "both take 'open' in the start", "take one away"),
        (
            {"settings": Settings(refused={"ad": "ignore"})},
            "Settings(refused): unknown event 'ad'",
            "did you mean 'add'",
        ),
        (
            {"settings": Settings(retry={"py": RetryPolicy()})},
            "Settings(retry): unknown event 'py'",
            "did you mean 'pay'",
        ),
        (
            {"settings": Settings(timeout={"*": "1m", "py": "1s"})},
            "Settings(timeout): unknown event 'py'",
            "did you mean 'pay'",
        ),
        (
            {"settings": Settings(timer="1m")},
            "Settings(timer='1m'): nothing would be done each time",
            "write a method on_timer(self, t), or take the timer away",
        ),
        (
            {"settings": Settings(timer="1m"), "on_timer": None},
            "Settings(timer='1m'): nothing would be done each time",
            "take the timer away",
        ),
        ({"settings": {"queue": "x"}}, "settings of Order is {'queue': 'x'}", "settings = Settings(…)"),
        ({"diagram": 3}, "diagram is int, not text", "write the diagram as a string"),
        ({"graph": fresh()}, "'graph' in class Order is a reserved name", "use another"),
        ({"definition": 3}, "'definition' in class Order is a reserved name", "use another"),
        ({"migrate": fresh()}, "method 'migrate' takes (self, t)", "(self, snapshot, from_version)"),
        ({"storage": "sqlite://"}, "storage of Order is a str", "with the methods of fsm.storage.protocol.Storage"),
        ({"storage": Shelf}, "storage of Order is the class Shelf", "give an object"),
        ({"freeze": fresh(on("add"))}, "'freeze' in class Order is a reserved name", "use another"),
        ({"allowed": fresh()}, "'allowed' in class Order is a reserved name", "use another"),
        ({"settings": fresh(on("add"))}, "settings of Order is <function", "settings = Settings(…)"),
        ({"on_enter": fresh(on("add"))}, "@on('add') stands on the hook 'on_enter', a reserved name", "otherwise"),
        ({"on_start": 3}, "hook 'on_start' is 3", "plain method"),
        ({"on_failure": fresh()}, "method 'on_failure' takes (self, t)", "(self, t, error)"),
        ({"is_rich": guard("rich")(lambda _self: True)}, "method 'is_rich' takes (_self)", "(self, t)"),
        ({"m": on("add")(lambda _self: None)}, "method 'm' takes (_self)", "(self, t) or (self, t, data)"),
        ({"m": on("add")(lambda _self, _a, _b, _c: None)}, "method 'm' takes", "(self, t) or (self, t, data)"),
        ({"m": on("add")(lambda _self, _t, *, _key: None)}, "method 'm' takes", "(self, t) or (self, t, data)"),
    ],
)
def test_each_problem_of_a_class_is_named_with_its_remedy(body: dict[str, Any], problem: str, remedy: str) -> None:
    found = problems(body)
    assert any(problem in one and remedy in one for one in found), found
    assert len(found) == 1


def test_a_storage_is_inherited_and_can_be_taken_away() -> None:
    class Kept(Base):
        storage = Shelf()

    class Same(Kept): ...

    class Plain(Kept):
        storage = None

    assert Same.definition.storage is Kept.storage
    assert Plain.definition.storage is None


def test_the_mark_tells_of_the_graph_the_version_and_the_storage() -> None:
    class Kept(Base):
        settings = Settings(definition_version=3)
        storage = Shelf()

    fingerprint = Base.graph.fingerprint
    assert (Base.definition.mark, Kept.definition.mark) == (fingerprint, f"{fingerprint}.3+s")
    assert read_mark(Kept.definition.mark) == DefinitionMark(fingerprint, 3, is_stored=True)


@pytest.mark.parametrize(
    "text", ["", "x", "1a2b3c4d", "1a2b.0", "1a2b.01", "1a2b.x", "1a2b+t", "1a2b+s.3", ".", "+", "a.9" + "9" * 5000]
)
def test_what_is_no_mark_is_taken_for_a_fingerprint(text: str) -> None:
    assert read_mark(text) == (text, 1, False)


def test_what_overrides_a_handler_is_a_method() -> None:
    assert problems({"m": 3}, Marked) == ("method 'm' is 3: a method of a machine is a plain function",)


def test_an_annotation_that_cannot_be_resolved_says_so() -> None:
    def add(self: Any, t: Any, line: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821 - not there on purpose
        ...

    (problem,) = problems({"add": on("add")(add)})
    assert "method 'add': the annotation of 'line', 'Nowhere', cannot be resolved" in problem
    assert "import what it names at run time" in problem


def test_a_type_that_no_codec_serves_says_so() -> None:
    def add(self: Any, t: Any, line: complex) -> None: ...

    (problem,) = problems({"add": on("add")(add)})
    assert "method 'add': the annotation of 'line' cannot be used" in problem


def test_a_payload_type_that_no_codec_serves_says_so() -> None:
    for argument in (complex, "Nowhere"):
        with pytest.raises(ValidationError, match="the type of the payload"):

            class Order(Machine[argument]):  # type: ignore[valid-type]
                diagram = DIAGRAM.replace(" [rich]", "").replace("    cart --> cart : pay [else]\n", "")


def test_an_unsolved_payload_type_is_its_bound() -> None:
    bound = TypeVar("bound", bound=Line)

    class Order(Machine[bound], Generic[bound]):  # type: ignore[misc,valid-type]
        diagram = Generic1.diagram

    assert Order.definition.payload_type is Line


def test_several_targets_without_guards_need_a_handler_or_on_transition() -> None:
    diagram = "stateDiagram-v2\n[*] --> a\na --> b : x\na --> [*] : x\nb --> [*]"
    (problem,) = problems({"diagram": diagram}, Machine)
    assert problem.startswith("line 4: 'x' leads from 'a' to several targets, 'b', '[*]': write a handler @on(\"x\")")

    class Decided(Machine):
        diagram = "stateDiagram-v2\n[*] --> a\na --> b : x\na --> [*] : x\nb --> [*]"

        @on("x")
        def decide(self, t: Any) -> None: ...

    class CatchAll(Machine):
        diagram = Decided.diagram

        def on_transition(self, t: Any) -> None: ...

    assert Decided.definition.handlers
    assert CatchAll.definition.hooks == {"on_transition"}


def test_faults_of_diagram_decorators_and_settings_are_told_together() -> None:
    found = problems(
        {
            "diagram": "stateDiagram-v2\n[*] --> a\na --> [*] : x\nb --> a : y",
            "settings": Settings(refused={"z": "ignore"}),
            "m": fresh(on("w"), enter("c")),
        },
        Machine,
    )
    assert [one.split(":")[0] for one in found] == [
        "line 4",
        "@on('w') of method 'm'",
        "@enter('c') of method 'm'",
        "Settings(refused)",
    ]


def test_a_diagram_that_cannot_be_read_is_told_with_what_else_is_wrong() -> None:
    found = problems({"diagram": "stateDiagram-v2\n[*] --> a\na --> [*] : x y", "freeze": 3}, Machine)
    assert [one.split(" ")[0] for one in found] == ["line", "'freeze'"]


def test_one_fault_of_syntax_alone_is_a_diagram_error() -> None:
    with pytest.raises(DiagramError) as raised:
        type("Order", (Machine,), {"diagram": "stateDiagram-v2\n[*] --> a\na --> [*] : x y"})
    assert raised.value.line == 3


@pytest.mark.parametrize("name", ["a:b", " a", "a" * 300])
def test_a_class_whose_name_no_machine_may_have_says_so(name: str) -> None:
    with pytest.raises(DefinitionError, match="is no name for a machine"):
        type(name, (Base,), {})


def test_an_endless_machine_says_so_in_its_settings() -> None:
    diagram = "stateDiagram-v2\n[*] --> a\na --> a : x"
    assert "endless=True" in problems({"diagram": diagram}, Machine)[0]
    assert type("Order", (Machine,), {"diagram": diagram, "settings": Settings(endless=True)})
