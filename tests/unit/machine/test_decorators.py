from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from fsm.errors import DefinitionError
from fsm.machine import enter, guard, leave, on
from fsm.machine.decorators import Mark, marks_of


def test_a_decorator_marks_and_gives_back_the_same_function() -> None:
    def pay(self: Any, t: Any) -> None: ...

    assert on("pay")(pay) is pay
    assert marks_of(pay) == (Mark("on", "pay"),)


def test_decorators_stack() -> None:
    @on("pay", source="cart")
    @on("charge", source=("cart", "paying"))
    @enter("paid")
    @leave("cart")
    @guard("rich")
    def pay(self: Any, t: Any) -> None: ...

    assert marks_of(pay) == (
        Mark("guard", "rich"),
        Mark("leave", "cart"),
        Mark("enter", "paid"),
        Mark("on", "charge", ("cart", "paying")),
        Mark("on", "pay", ("cart",)),
    )


def test_marks_survive_a_wrapper_that_keeps_what_it_wraps() -> None:
    @on("pay")
    def pay(self: Any, t: Any) -> None: ...

    @functools.wraps(pay)
    def wrapper(self: Any, t: Any) -> None:
        pay(self, t)

    assert marks_of(wrapper) == (Mark("on", "pay"),)


def test_a_function_without_decorator_has_no_marks() -> None:
    assert marks_of(len) == marks_of(test_decorators_stack) == marks_of(3) == ()


@pytest.mark.parametrize("decorator", [on, guard, enter, leave])
@pytest.mark.parametrize("name", [None, "", 3, lambda: None])
def test_a_decorator_without_a_name_says_how_to_give_one(decorator: Callable[[Any], Any], name: Any) -> None:
    with pytest.raises(DefinitionError, match=rf'as in @{decorator.__name__}\("'):
        decorator(name)


@pytest.mark.parametrize("source", [("cart", ""), ("",)])
def test_a_source_is_the_name_of_a_state(source: Any) -> None:
    with pytest.raises(DefinitionError, match="a source is the name of a state"):
        on("pay", source=source)


@pytest.mark.parametrize("function", [staticmethod(len), classmethod(len), property(len), 3, len])
def test_only_plain_methods_can_be_marked(function: Any) -> None:
    with pytest.raises(DefinitionError, match="plain method"):
        on("pay")(function)
