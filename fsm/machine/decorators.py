"""`@on`, `@guard`, `@enter` and `@leave`: they mark methods, nothing else; the machine reads the marks.

Who calls this: users, in the body of a machine. PURE: imports `fsm.errors` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, Literal, TypeVar

from fsm.errors import DefinitionError

__all__ = ["Mark", "enter", "guard", "leave", "marks_of", "on"]

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__fsm_marks__"


@dataclass(frozen=True, slots=True)
class Mark:
    """What one decorator said of one method.

    Args:
        kind: Which decorator.
        name: The event, guard or state.
        sources: For `@on`: only in these states; empty for everywhere.
    """

    kind: Literal["on", "guard", "enter", "leave"]
    name: str
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        source = self.sources[0] if len(self.sources) == 1 else self.sources
        return f"@{self.kind}({self.name!r}, source={source!r})" if self.sources else f"@{self.kind}({self.name!r})"


def on(event: str, source: str | tuple[str, ...] | list[str] | None = None) -> Callable[[F], F]:
    """Make a method the handler of an event.

    Args:
        event: Name as in the diagram, without marks; also the name of the entry event.
        source: Only in this state or these states; by default wherever the diagram allows the event.

    Raises:
        DefinitionError: The event is not given, or the method is no plain method.
    """
    sources = (source,) if isinstance(source, str) else tuple(source or ())
    if not all(sources):
        raise DefinitionError(
            f"@on({event!r}, source={source!r}): a source is the name of a state, or a tuple of names"
        )
    return _marker(Mark("on", _named("on", event, "event"), sources))


def guard(name: str) -> Callable[[F], F]:
    """Make a method the guard of this name: it gets the transition and says whether the edge may be taken.

    Raises:
        DefinitionError: The name is not given, or the method is no plain method.
    """
    return _marker(Mark("guard", _named("guard", name, "guard")))


def enter(state: str) -> Callable[[F], F]:
    """Call a method whenever this state is entered.

    Raises:
        DefinitionError: The state is not given, or the method is no plain method.
    """
    return _marker(Mark("enter", _named("enter", state, "state")))


def leave(state: str) -> Callable[[F], F]:
    """Call a method whenever this state is left.

    Raises:
        DefinitionError: The state is not given, or the method is no plain method.
    """
    return _marker(Mark("leave", _named("leave", state, "state")))


def marks_of(function: Any) -> tuple[Mark, ...]:
    """Give the marks of a method, the lowest decorator's first; empty for anything else."""
    return getattr(function, _ATTRIBUTE, ()) if isfunction(function) else ()


def _named(decorator: str, name: Any, kind: str) -> str:
    if not isinstance(name, str) or not name:
        shown = f"@{decorator} without a name" if callable(name) else f"@{decorator}({name!r})"
        raise DefinitionError(f'{shown}: name the {kind}, as in @{decorator}("{kind}")')
    return name


def _marker(mark: Mark) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        if not isfunction(function):
            raise DefinitionError(f"{mark} stands on {function!r}: put it on a plain method, below other decorators")
        setattr(function, _ATTRIBUTE, (*marks_of(function), mark))
        return function

    return decorate
