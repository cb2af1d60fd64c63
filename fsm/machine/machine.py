"""`Machine`: the class that users derive from. Its diagram says what may happen, its methods what is done then.

Who calls this: users write subclasses; app, engine and client read `definition`, `graph` and `settings`.
PURE: imports `fsm.errors` and its neighbours in this room only.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self

from fsm.errors import DefinitionError
from fsm.machine.definition import Definition, define
from fsm.machine.settings import Settings

if TYPE_CHECKING:
    # The default is for type checkers alone: `typing` of Python 3.11 does not know it yet.
    from typing_extensions import TypeVar

    from fsm.machine.graph import Graph

    P = TypeVar("P", default=dict[str, Any])
else:
    from typing import TypeVar

    P = TypeVar("P")

__all__ = ["Machine"]


class _NoDiagramError(DefinitionError, AttributeError):
    """A machine without a diagram was used; an AttributeError as well, so that `hasattr` and `inspect` go on."""

    def __init__(self, machine: type) -> None:
        super().__init__(f"machine {machine.__name__!r} has no diagram: derive a class from it that has one")


class _Missing:
    """Stands where a subclass with a diagram has its graph and definition."""

    def __get__(self, machine: object, owner: type) -> NoReturn:
        raise _NoDiagramError(owner)


class Machine(Generic[P]):
    """A machine whose FSMs carry a payload of type `P`; `Machine` alone carries `dict[str, Any]`.

    A subclass has a `diagram` and, if it wants, `settings`, handlers (`@on`), guards (`@guard`), `@enter` and `@leave`
    methods, and any of these hooks as plain methods: `on_transition(t)`, `on_start(t)`, `on_enter(t)`, `on_leave(t)`,
    `on_refused(t, error)`, `on_failure(t, error)`, `on_terminate(t)`, `on_timer(t)`; and
    `migrate(snapshot, from_version)`, for FSMs that an older `definition_version` wrote last. Diagram, settings and
    methods are inherited; a class without a diagram is abstract. All that is wrong with a class is raised
    when it is made.

    One instance serves a whole worker process: services come in by `__init__`, state belongs in the payload.

    >>> class Door(Machine):
    ...     diagram = '''
    ...     stateDiagram-v2
    ...         [*] --> closed
    ...         closed --> open : push
    ...         open --> [*] : leave
    ...     '''
    >>> Door.graph.states, Door.allowed("closed"), Door.definition.name
    (('closed', 'open'), ('push',), 'Door')
    """

    diagram: ClassVar[str]
    settings: ClassVar[Settings] = Settings()
    storage: ClassVar[Any] = None
    if TYPE_CHECKING:
        graph: ClassVar[Graph]
        definition: ClassVar[Definition]
    else:
        graph = _Missing()
        definition = _Missing()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "diagram"):
            frame = inspect.currentframe()
            caller = frame.f_back if frame else None
            cls.definition = define(cls, Machine, dict(caller.f_locals) if caller else {})
            cls.graph = cls.definition.graph
            cls.settings = cls.definition.settings

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Refuse to make an instance of a machine without a diagram."""
        if not hasattr(cls, "definition"):
            raise _NoDiagramError(cls)
        return super().__new__(cls)

    @classmethod
    def allowed(cls, state: str) -> tuple[str, ...]:
        """Give the events that may be sent in a state, in order of the diagram.

        Raises:
            DefinitionError: There is no such state, or the machine has no diagram.
        """
        return cls.graph.allowed(state)

    @classmethod
    def responds(cls, state: str, event: str) -> bool:
        """Tell whether the event may be sent in a state.

        Raises:
            DefinitionError: There is no such state, or the machine has no diagram.
        """
        return cls.graph.responds(state, event)

    def freeze(self) -> None:
        """Let no attribute be set or deleted from now on; the engine does this before the first event."""
        self.__dict__["_is_frozen"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_if_frozen(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_if_frozen(name)
        super().__delattr__(name)

    def _refuse_if_frozen(self, name: str) -> None:
        if "_is_frozen" in self.__dict__:
            machine = type(self).__name__
            problem = (
                f"self.{name} of machine {machine!r} cannot be set: state belongs in t.payload, "
                "because one instance serves all FSMs of a worker; services are set in __init__"
            )
            raise AttributeError(problem)
