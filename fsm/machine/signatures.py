"""What the signatures in a machine's class say: the type of its payload, of event data, and how methods are called.

Who calls this: the definition of a machine. PURE: imports `fsm.errors` and its neighbours in this room only.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.errors import DefinitionError, FSMError
from fsm.machine.values import codec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsm.machine.values import Codec

__all__ = ["arguments_problem", "checked_codec", "constructor", "data_codec", "is_async", "payload_type"]

_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Where the data stand in `def add(self, t, line)`.
_DATA = 2


def payload_type(machine: type, base: type, scope: Mapping[str, Any]) -> Any:
    """Give `P` of a class that derives from `Machine[P]`, also through generic classes between them.

    Args:
        machine: The class.
        base: `Machine` itself.
        scope: Names in reach where the class was made.

    Returns:
        `dict[str, Any]` where the class does not say.

    Raises:
        DefinitionError: It is written as text, and that cannot be resolved.
    """
    found = _argument(machine, base)
    if isinstance(found, TypeVar):
        found = found.__bound__ or dict[str, Any]
    if isinstance(found, typing.ForwardRef):
        return _resolved(found, "the type of the payload", _names_of(machine), scope)
    return found


def data_codec(function: Callable[..., Any], machine: type, scope: Mapping[str, Any]) -> Codec | None:
    """Give the codec of the data that a handler takes; None when it takes only `t`.

    Raises:
        DefinitionError: The annotation cannot be resolved, or no codec serves it.
    """
    function = inspect.unwrap(function)
    parameters = _positional(function)
    if len(parameters) <= _DATA:
        return None
    data = parameters[_DATA]
    if data.annotation is data.empty:
        return codec_for(Any)
    what = f"the annotation of {data.name!r}"
    # A handler that was inherited from another module is not to be read with the names of this one.
    is_ours = function.__module__ == machine.__module__
    tp = _resolved(data.annotation, what, function.__globals__, {**scope, **vars(machine)} if is_ours else {})
    return checked_codec(tp, what)


def checked_codec(tp: Any, what: str) -> Codec:
    """Give the codec of a type.

    Raises:
        DefinitionError: There is none; the text begins with `what`.
    """
    try:
        return codec_for(tp)
    except FSMError as error:
        raise DefinitionError(f"{what} cannot be used: {error}") from error


def arguments_problem(function: Callable[..., Any], least: int, most: int, form: str = "") -> str:
    """Say why a method cannot be called with so many arguments beside `self`; "" when it can.

    Args:
        function: The method.
        least: How many it must take,
        most: and may.
        form: What to write instead, where that is not what handlers and hooks of a transition take.
    """
    parameters = inspect.signature(function).parameters.values()
    plain = _positional(function)
    needed = sum(one.default is one.empty for one in plain) - 1
    is_open = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    has_keyword = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    if needed <= most and (len(plain) > least or is_open) and not has_keyword:
        return ""
    form = form or {(1, 1): "(self, t)", (2, 2): "(self, t, error)"}.get((least, most), "(self, t) or (self, t, data)")
    return f"takes {inspect.signature(function)} and will be called otherwise: write {form}"


def constructor(machine: type) -> inspect.Signature:
    """Give what a machine is made with.

    Asked of a class that inherits its `__init__`, Python 3.11.2, which Debian 12 has, tells what `Machine.__new__`
    takes, and that is anything.
    """
    init = inspect.getattr_static(machine, "__init__")
    if init is object.__init__:
        return inspect.Signature()
    _, *parameters = inspect.signature(init).parameters.values()
    return inspect.Signature(parameters)


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inspect.unwrap(function))


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [one for one in inspect.signature(function).parameters.values() if one.kind in _PLAIN]


def _argument(machine: type, base: type) -> Any:
    """Follow `P` from `Machine[P]` up to the class; an unsolved one comes as a TypeVar."""
    for generic in vars(machine).get("__orig_bases__", machine.__bases__):
        origin = typing.get_origin(generic) or generic
        arguments = typing.get_args(generic)
        if origin is base:
            return arguments[0] if arguments else dict[str, Any]
        if isinstance(origin, type) and issubclass(origin, base):
            inner = _argument(origin, base)
            parameters: tuple[Any, ...] = getattr(origin, "__parameters__", ())
            if isinstance(inner, TypeVar) and arguments and inner in parameters:
                return arguments[parameters.index(inner)]
            return inner
    return dict[str, Any]


def _names_of(machine: type) -> dict[str, Any]:
    module = sys.modules.get(machine.__module__)
    return dict(vars(module)) if module else {}


def _resolved(annotation: Any, what: str, names: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    """Resolve one annotation that may be text.

    Only this one: `t: Transition[…]` beside it may be imported for type checkers alone.
    """
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, dict(names), dict(scope), include_extras=True)["it"]
    except Exception as error:  # text of the user's is evaluated here, and may raise anything
        remedy = "import what it names at run time, not under TYPE_CHECKING"
        text = annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
        raise DefinitionError(f"{what}, {text!r}, cannot be resolved ({error}): {remedy}") from error
