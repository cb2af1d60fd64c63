"""A machine as it is known after its class was made: graph, settings, codecs, and which method does what.

Who calls this: the machine, once per class. Engine, store and client read the result. PURE: imports `fsm.errors` and
its neighbours in this room only.

All that is wrong is reported at once: faults of the diagram first, then those of decorators, methods and settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fsm.errors import ConfigError, DefinitionError
from fsm.machine.decorators import Mark, marks_of
from fsm.machine.graph import Graph
from fsm.machine.json_values import type_name
from fsm.machine.marks import mark_of
from fsm.machine.names import END, hint
from fsm.machine.parse import error_of, examine
from fsm.machine.settings import OTHERS, Settings
from fsm.machine.signatures import arguments_problem, checked_codec, data_codec, is_async, payload_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.machine.draft import Fault
    from fsm.machine.values import Codec

__all__ = ["HOOKS", "Definition", "Handler", "define"]

# Hook -> how many arguments it takes beside `self`.
HOOKS: Mapping[str, int] = MappingProxyType(
    {
        "on_transition": 1,
        "on_start": 1,
        "on_enter": 1,
        "on_leave": 1,
        "on_refused": 2,
        "on_failure": 2,
        "on_terminate": 1,
        "on_timer": 1,
        "migrate": 2,
    }
)
_FORMS = {"migrate": "(self, snapshot, from_version)"}
# What a class of a user's must not use for anything else.
_RESERVED = ("allowed", "definition", "freeze", "graph", "responds")
# What a storage has at least; all of it is said in `fsm.storage.protocol`, which this room does not know.
_STORAGE = ("load", "store")


@dataclass(frozen=True, slots=True)
class Handler:
    """The method that handles an event.

    Args:
        method: Its name.
        data: Codec of the event's data, by the annotation of its second parameter; None when it takes only `t`.
    """

    method: str
    data: Codec | None


@dataclass(frozen=True)
class Definition:
    """All that engine, store and client know of a machine.

    Args:
        name: Name of the machine.
        graph: Its diagram.
        settings: Its settings, complete.
        fingerprint: 8 hex digits that change when the graph does.
        payload: Codec of its payload.
        payload_type: `P` of `Machine[P]`.
        handlers: (source, event) -> handler; that of a named entry event under ("", event).
        guards: Name of a guard -> method.
        enter: State -> methods called when it is entered, in order of definition.
        leave: State -> methods called when it is left, in order of definition.
        hooks: Which of the `on_…` hooks the machine has, and `migrate`.
        has_async: A handler, guard or hook is a coroutine function.
        storage: Where snapshots lie beside Redis; None where they lie in Redis alone.
        mark: What snapshots of it carry: fingerprint, version where it is not 1, and whether it has a storage.
    """

    name: str
    graph: Graph
    settings: Settings
    fingerprint: str
    payload: Codec
    payload_type: Any
    handlers: Mapping[tuple[str, str], Handler]
    guards: Mapping[str, str]
    enter: Mapping[str, tuple[str, ...]]
    leave: Mapping[str, tuple[str, ...]]
    hooks: frozenset[str]
    has_async: bool
    storage: Any = None
    mark: str = field(init=False)

    def __post_init__(self) -> None:
        # A field, and no property: it is read once for each FSM that a worker commits.
        mark = mark_of(self.fingerprint, self.settings.definition_version, is_stored=self.storage is not None)
        object.__setattr__(self, "mark", mark)


def define(machine: type, base: type, scope: Mapping[str, Any]) -> Definition:
    """Make the definition of a machine from its class.

    Args:
        machine: The class, with a diagram of its own or of a base's.
        base: `Machine` itself, whose own methods are not the user's.
        scope: Names that were in reach where the class was made, for annotations of classes inside functions.

    Raises:
        DiagramError: The diagram cannot be read for one fault, and all else is well.
        ValidationError: All that is wrong, otherwise.
    """
    return _Builder(machine, base, scope).build()


class _Builder:
    def __init__(self, machine: type, base: type, scope: Mapping[str, Any]) -> None:
        self.machine = machine
        self.base = base
        self.scope = scope
        self.problems: list[str] = []
        # Bases first, so that methods come in the order in which a reader meets them.
        self.bases = [one for one in reversed(machine.__mro__) if one not in base.__mro__]
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.guards: dict[str, str] = {}
        self.around: dict[str, dict[str, list[str]]] = {"enter": {}, "leave": {}}
        self.has_async = False

    def build(self) -> Definition:
        settings = self._settings()
        diagram: Any = getattr(self.machine, "diagram", None)
        graph: Graph | None = None
        faults: tuple[Fault, ...] = ()
        if isinstance(diagram, str):
            graph, faults = examine(diagram, endless=settings.endless)
        else:
            self.problems.append(f"diagram is {type(diagram).__name__}, not text: write the diagram as a string")
        self._check_reserved()
        methods = list(self._methods())
        hooks = self._hooks()
        payload_type, payload = self._payload()
        storage = self._storage(payload)
        if graph is not None:
            for name, function, mark in methods:
                self._take(graph, name, function, mark)
            self._check_guards(graph)
            self._check_settings(graph, settings)
            self._check_timer(settings, hooks)
            if "on_transition" not in hooks:
                self._check_targets(graph)
        if faults or self.problems or graph is None or payload is None:
            raise error_of(faults, settings.name, tuple(self.problems))
        return Definition(
            name=settings.name,
            graph=graph,
            settings=settings,
            fingerprint=graph.fingerprint,
            payload=payload,
            payload_type=payload_type,
            handlers=MappingProxyType(self.handlers),
            guards=MappingProxyType(self.guards),
            enter=_frozen(self.around["enter"]),
            leave=_frozen(self.around["leave"]),
            hooks=hooks,
            has_async=self.has_async,
            storage=storage,
        )

    def _settings(self) -> Settings:
        """Merge the settings of the class and its bases; the name is the class's own."""
        merged = Settings()
        for one in self.bases:
            settings = vars(one).get("settings")
            if isinstance(settings, Settings):
                merged = settings.inherit(merged)
            elif settings is not None:
                problem = f"settings of {one.__name__} is {settings!r}: write `settings = Settings(…)`"
                self.problems.append(problem)
        own = vars(self.machine).get("settings")
        name = own.name if isinstance(own, Settings) and own.name else self.machine.__name__
        try:
            return Settings(**{**merged.given, "name": name})
        except ConfigError as error:
            self.problems.append(f"class {name}: {error}")
            return merged

    def _check_reserved(self) -> None:
        for one in self.bases:
            for name in _RESERVED:
                value = vars(one).get(name)
                # A base with a diagram has a graph and a definition of ours.
                if name in vars(one) and not isinstance(value, (Graph, Definition)):
                    problem = f"{name!r} in class {one.__name__} is a reserved name: every machine has it, use another"
                    self.problems.append(problem)

    def _storage(self, payload: Codec | None) -> Any:
        """Give the storage of the class or of its nearest base that says one; `storage = None` takes it away."""
        storage = inspect.getattr_static(self.machine, "storage", None)
        missing = [name for name in _STORAGE if not callable(getattr(storage, name, None))]
        if storage is not None and (missing or isinstance(storage, type)):
            # By its type alone: a URL that was written here has a password in it.
            given = f"the class {storage.__name__}" if isinstance(storage, type) else f"a {type(storage).__name__}"
            remedy = "give an object with the methods of fsm.storage.protocol.Storage, or None"
            self.problems.append(f"storage of {self.machine.__name__} is {given}: {remedy}")
        persist = getattr(storage, "persist", None)
        if isinstance(persist, type) and payload is not None and payload.type is not persist:
            what = f"storage of {self.machine.__name__} has persist={persist.__name__}"
            remedy = f"write Machine[{persist.__name__}], or give this machine a storage of its own, in another table"
            self.problems.append(f"{what}, and its payload is of type {type_name(payload.type)}: {remedy}")
        return storage

    def _methods(self) -> Iterator[tuple[str, Callable[..., Any], Mark]]:
        """Give each marked method with its marks.

        A method is overridden by its name: the newest function counts, with the newest marks that the name was given.
        """
        marks: dict[str, tuple[Mark, ...]] = {}
        for one in self.bases:
            for name, value in vars(one).items():
                if found := marks_of(value):
                    marks[name] = found
        for name, found in marks.items():
            function = inspect.getattr_static(self.machine, name)
            if function is None:
                # `method = None` takes an inherited handler away.
                continue
            if not inspect.isfunction(function):
                self.problems.append(f"method {name!r} is {function!r}: a method of a machine is a plain function")
                continue
            if name in HOOKS:
                problem = f"{found[0]} stands on the hook {name!r}, a reserved name: name the method otherwise"
                self.problems.append(problem)
                continue
            self.has_async |= is_async(function)
            for mark in found:
                yield name, function, mark

    def _hooks(self) -> frozenset[str]:
        hooks = set()
        for name, count in HOOKS.items():
            hook = inspect.getattr_static(self.machine, name, None)
            if hook is None:
                continue
            if not inspect.isfunction(hook):
                self.problems.append(f"hook {name!r} is {hook!r}: a hook is a plain method")
                continue
            hooks.add(name)
            self.has_async |= is_async(hook)
            self._fits(name, hook, count, count)
        return frozenset(hooks)

    def _take(self, graph: Graph, name: str, function: Callable[..., Any], mark: Mark) -> None:
        if mark.kind == "on":
            self._take_handler(graph, name, function, mark)
            return
        self._fits(name, function, 1, 1)
        if mark.kind == "guard":
            self._take_guard(graph, name, mark)
        elif mark.name not in graph.states:
            self.problems.append(f"{mark} of method {name!r}: unknown state{hint(mark.name, graph.states, 'states')}")
        else:
            self.around[mark.kind].setdefault(mark.name, []).append(name)

    def _take_handler(self, graph: Graph, name: str, function: Callable[..., Any], mark: Mark) -> None:
        keys = self._keys_of(graph, name, mark)
        if not keys or not self._fits(name, function, 1, 2):
            return
        handler = Handler(name, self._data_codec(name, function))
        rivals: dict[str, list[str]] = {}
        for key in keys:
            other = self.handlers.setdefault(key, handler).method
            if other != name:
                rivals.setdefault(other, []).append(repr(key[0]) if key[0] else "the start")
        for other, states in rivals.items():
            where = f"both take {mark.name!r} in {', '.join(states)}"
            remedy = "take one away, or give each its states: @on(event, source=…)"
            self.problems.append(f"two handlers for one edge: {other!r} and {name!r} {where}: {remedy}")

    def _keys_of(self, graph: Graph, name: str, mark: Mark) -> list[tuple[str, str]]:
        """Give the edges that a handler is for; where the mark names what is not there, this is a problem."""
        where, event = f"{mark} of method {name!r}", mark.name
        if event == END or event not in {graph.entry, *graph.events}:
            self.problems.append(f"{where}: unknown event{hint(event, _events_of(graph), 'events')}")
            return []
        sources = {state for state in graph.states if graph.edges_for(state, event)}
        if event == graph.entry:
            sources.add(END)
        for source in mark.sources:
            if source not in graph.states and source != END:
                self.problems.append(f"{where}: unknown state {source!r}{hint(source, graph.states, 'states')}")
            elif source not in sources:
                remedy = f"draw `{source} --> … : {event}`, or take the source away"
                self.problems.append(f"{where}: state {source!r} has no edge for that event: {remedy}")
        wanted = sources.intersection(mark.sources) if mark.sources else sources
        return [("" if source == END else source, event) for source in (END, *graph.states) if source in wanted]

    def _take_guard(self, graph: Graph, name: str, mark: Mark) -> None:
        used = tuple(dict.fromkeys(edge.guard.name for edge in graph.edges if edge.guard and edge.guard.name != "else"))
        other = self.guards.setdefault(mark.name, name)
        if mark.name == "else":
            self.problems.append(f"{mark} of method {name!r}: [else] needs no method: take it away")
        elif mark.name not in used:
            self.problems.append(f"{mark} of method {name!r}: unknown guard{hint(mark.name, used, 'guards')}")
        elif other != name:
            self.problems.append(f"two methods for one guard: {other!r} and {name!r} are both {mark}: take one away")

    def _check_guards(self, graph: Graph) -> None:
        for edge in graph.edges:
            if edge.guard and edge.guard.name not in {"else", *self.guards}:
                meant = hint(edge.guard.name, tuple(self.guards), "guards with a method")
                remedy = f'mark a method with @guard("{edge.guard.name}")'
                problem = (
                    f"line {edge.line}: guard {edge.guard.name!r} of {edge.event!r} has no method{meant}: {remedy}"
                )
                self.problems.append(problem)

    def _check_settings(self, graph: Graph, settings: Settings) -> None:
        known = _events_of(graph)
        for setting, events in (
            ("refused", settings.refused),
            ("retry", settings.retry),
            ("timeout", settings.timeout),
        ):
            for event in events if isinstance(events, Mapping) else ():
                if event not in known and (setting, event) != ("timeout", OTHERS):
                    self.problems.append(f"Settings({setting}): unknown event {event!r}{hint(event, known, 'events')}")

    def _check_timer(self, settings: Settings, hooks: frozenset[str]) -> None:
        if settings.timer is not None and "on_timer" not in hooks:
            remedy = "write a method on_timer(self, t), or take the timer away"
            self.problems.append(f"Settings(timer={settings.timer!r}): nothing would be done each time: {remedy}")

    def _check_targets(self, graph: Graph) -> None:
        """An event with several targets and no guards is decided by its handler: there must be one."""
        for state in graph.states:
            for event in graph.allowed(state):
                free = [edge for edge in graph.edges_for(state, event) if edge.guard is None]
                targets = dict.fromkeys(edge.target for edge in free)
                if len(targets) > 1 and (state, event) not in self.handlers:
                    several = ", ".join(map(repr, targets))
                    remedy = f'write a handler @on("{event}") that answers Goto(…), or guards in the diagram'
                    where = f"line {free[-1].line}: {event!r} leads from {state!r} to several targets, {several}"
                    self.problems.append(f"{where}: {remedy}")

    def _fits(self, name: str, function: Callable[..., Any], least: int, most: int) -> bool:
        """Check that a method takes as many arguments beside `self` as it will be given."""
        if problem := arguments_problem(function, least, most, _FORMS.get(name, "")):
            self.problems.append(f"method {name!r} {problem}")
        return not problem

    def _data_codec(self, name: str, function: Callable[..., Any]) -> Codec | None:
        try:
            return data_codec(function, self.machine, self.scope)
        except DefinitionError as error:
            self.problems.append(f"method {name!r}: {error}")
            return None

    def _payload(self) -> tuple[Any, Codec | None]:
        what = "the type of the payload"
        try:
            tp = payload_type(self.machine, self.base, self.scope)
            return tp, checked_codec(tp, what)
        except DefinitionError as error:
            self.problems.append(str(error))
            return Any, None


def _frozen(methods: dict[str, list[str]]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({state: tuple(names) for state, names in methods.items()})


def _events_of(graph: Graph) -> tuple[str, ...]:
    return graph.events if graph.entry == END else tuple(dict.fromkeys((graph.entry, *graph.events)))
