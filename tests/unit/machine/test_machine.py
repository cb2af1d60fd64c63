from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fsm.errors import DefinitionError
from fsm.machine import Machine, Settings, on


class Door(Machine):
    settings = Settings(name="door", queue="doors", timeout=5)
    diagram = "stateDiagram-v2\n[*] --> closed\nclosed --> opened : push\nopened --> [*] : leave"

    def __init__(self, service: str = "none") -> None:
        self.service = service

    @on("push")
    def push(self, t: Any) -> str:
        return f"base {t}"

    @on("leave")
    def leave(self, t: Any) -> None: ...


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    total: int = 0


@dataclass
class Line:
    sku: str
    price: int


class Order(Machine[Cart]):
    """An order, from the cart to the door."""

    settings = Settings(queue="orders", timeout="30s")
    diagram = """
    stateDiagram-v2
        [*] --> cart
        cart --> cart : add
        cart --> paying : pay
        cart --> cancelled : cancel
        paying --> packed : captured
        paying --> cart : declined
        packed --> shipped : ship!
        packed --> returned : ship fails
        shipped --> delivered : deliver
        delivered --> [*]
        cancelled --> [*]
        returned --> [*]
    """

    @on("add")
    def add(self, t: Any, line: Line) -> None:
        t.payload.items.append(line.sku)
        t.payload.total += line.price


def test_the_order_of_the_documentation_works_as_written() -> None:
    definition = Order.definition
    assert Order.allowed("cart") == ("add", "pay", "cancel")
    assert Order.responds("packed", "ship")
    assert Order.graph.hard_event("packed") == "ship"
    assert Order.graph.ends == {"delivered", "cancelled", "returned"}
    assert definition.payload.default() == Cart()
    data = definition.handlers["cart", "add"].data
    assert data is not None
    assert data.decode(b'{"sku":"tea","price":12}') == Line("tea", 12)
    assert (Order.settings.queue, Order.settings.timeout_ms, Order.settings.name) == ("orders", 30_000, "Order")


def test_handlers_are_inherited_and_overridden_by_the_name_of_their_method() -> None:
    class Gate(Door):
        def push(self, t: Any) -> str:
            return f"gate {t}"

        leave = None  # type: ignore[assignment]

    assert {key: handler.method for key, handler in Gate.definition.handlers.items()} == {("closed", "push"): "push"}
    assert Gate().push(7) == "gate 7"


def test_an_overriding_method_may_handle_something_else() -> None:
    class Gate(Door):
        leave = None  # type: ignore[assignment]

        @on("leave")
        def push(self, t: Any) -> str:
            return f"gate {t}"

    assert set(Gate.definition.handlers) == {("opened", "leave")}


def test_handlers_may_come_from_a_class_that_is_no_machine() -> None:
    class Mixin:
        @on("push")
        def mixed(self, t: Any) -> None: ...

    class Gate(Mixin, Machine):
        diagram = Door.diagram

    assert Gate.definition.handlers["closed", "push"].method == "mixed"


def test_the_diagram_is_inherited_and_settings_field_by_field_but_not_the_name() -> None:
    class Gate(Door):
        settings = Settings(timeout=7)

    class Wicket(Gate): ...

    assert Gate.graph == Wicket.graph == Door.graph
    assert (Gate.settings.queue, Gate.settings.timeout_ms) == ("doors", 7_000)
    assert (Wicket.settings.queue, Wicket.settings.timeout_ms) == ("doors", 7_000)
    assert [one.definition.name for one in (Door, Gate, Wicket)] == ["door", "Gate", "Wicket"]


def test_settings_of_an_abstract_class_are_inherited_too() -> None:
    class Shop(Machine):
        settings = Settings(queue="shop")

    class Till(Shop):
        settings = Settings(timeout=1)
        diagram = Door.diagram

    assert (Till.settings.queue, Till.settings.timeout_ms) == ("shop", 1_000)


def test_a_class_without_a_diagram_is_abstract_and_says_so_when_it_is_used() -> None:
    class Shop(Machine):
        settings = Settings(queue="shop")

    for use in (lambda: Shop.definition, lambda: Shop.graph, Shop, lambda: Shop.allowed("a"), lambda: Machine.graph):
        with pytest.raises(DefinitionError, match="has no diagram: derive a class"):
            use()
    assert not hasattr(Shop, "definition")


def test_services_are_set_by_the_constructor_and_nothing_after_the_freeze() -> None:
    door = Door("bell")
    door.service = "gong"
    door.freeze()
    with pytest.raises(AttributeError, match=r"self.count of machine 'Door' .* state belongs in t.payload"):
        door.count = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"state belongs in t.payload"):
        door.service = "other"
    with pytest.raises(AttributeError, match=r"state belongs in t.payload"):
        del door.service
    assert door.service == "gong"
    assert Door().service == "none"


def test_an_attribute_can_be_deleted_before_the_freeze() -> None:
    door = Door("bell")
    del door.service
    assert not hasattr(door, "service")


def test_freezing_twice_is_harmless() -> None:
    door = Door()
    door.freeze()
    door.freeze()
