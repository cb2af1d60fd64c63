"""How a payload keeps a row of your own in step with its FSM: what its class says for that, and how it is checked.

`SqlStorage(url, persist=Account)` calls these methods with its own connection, in the transaction in which it compares
and sets the row of the FSM: both are written, or none is. Its own row keeps the payload as well, so that the engine
goes on as ever, and a handler that fails leaves nothing behind anywhere.

**What you change by hand counts.** Whoever reads the payload gets what `fetch` gives: a worker before it runs an event,
and `client.state`. An edit has no version: it becomes a part of the version that the next event makes. One that comes
while an event is run is seen before anything is written: nothing of that event counts, and it is run again, a second
later, on the row as it is then.

Who calls this: `sql`, which checks the class that it is given; applications, for their annotations. It imports nothing
that talks to anybody.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fsm.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Owner", "Persistable", "RowBusyError", "checked_class"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose payload it is, and as of which step.

    Args:
        namespace: Of the FSM: two namespaces may have FSMs of one name in one database.
        name: Of the FSM.
        machine: Name of its machine.
        state: State of the graph; for `save`, the one that this step leads to.
        version: For `save`, that of this step; else that of the step that was stored last.
    """

    namespace: str
    name: str
    machine: str
    state: str
    version: int


class RowBusyError(StoreError):
    """One row cannot be had now, as where somebody holds it locked; the others of the storage can.

    Attributes:
        name: Of the FSM that has to wait.
    """

    name = ""


@runtime_checkable
class Persistable(Protocol):
    """A payload that loads and stores itself, in the transaction of its FSM's row.

    All of it is done by the `connection`, an `sqlalchemy.Connection`, or a `Session` over it: nothing else is
    undone where the transaction is. It is neither committed nor rolled back here. Of one event it may be done several
    times, of which one counts. A `StoreError` that it raises says that it cannot be done now: this FSM waits.

    A class may have `discard(cls, connection, owner)` too, a class method: called where the row of the FSM is removed,
    as after a purge. Without it, the row of yours stays as it is.
    """

    @classmethod
    def fetch(cls, connection: Any, owner: Owner) -> Self | None:
        """Give the payload as your row has it now; None where there is none, and then the copy counts.

        Called once before an event, and once more before what came of it is written: what both give is compared. With
        `with_for_update()` in its SELECT no edit comes between the second one and `save`. It is not called before the
        first step of a life was stored: an FSM begins with the payload that it was started with.
        """
        ...

    def save(self, connection: Any, owner: Owner) -> None:
        """Write your row: insert it, or update the one that is there.

        What it raises, a constraint that is violated too, is the failure of the event, as if its handler had raised it.
        """
        ...


def checked_class(given: Any) -> type[Any] | None:
    """Check what was given as `SqlStorage(persist=…)`.

    Raises:
        ConfigError: It is no class, or a method is missing or of another kind.
    """
    if given is None:
        return None
    setting = f"SqlStorage(persist={getattr(given, '__name__', type(given).__name__)})"
    if not isinstance(given, type):
        raise ConfigError(setting, "is no class: give the class of the machine's payload")
    for name, arguments in (("fetch", "cls, connection, owner"), ("save", "self, connection, owner")):
        if not callable(getattr(given, name, None)):
            problem = f"class {given.__name__} has no method {name}({arguments}): see fsm.Persistable"
            raise ConfigError(setting, problem)
    for name in ("fetch", "save", "discard"):
        method = inspect.getattr_static(given, name, None)
        if method is None:
            continue
        if inspect.iscoroutinefunction(inspect.unwrap(getattr(method, "__func__", method))):
            problem = f"{name} of {given.__name__} is async: it is called within a transaction; make it a plain method"
            raise ConfigError(setting, problem)
        is_of_class = isinstance(method, classmethod | staticmethod)
        if is_of_class is (name == "save"):
            kind = "no class method: it is called on an object" if is_of_class else "a class method: say @classmethod"
            raise ConfigError(setting, f"{name} of {given.__name__} has to be {kind}")
    return given
