"""How a trial begins: what of a machine is tried, and where.

Who calls this: tests of applications.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

from fsm.engine import Behaviour, Life, checked_name, encode_payload, migrate
from fsm.engine.mail import moment_ms
from fsm.engine.migrating import MIGRATE
from fsm.errors import ConfigError, UnknownMachineError
from fsm.machine import JSON, Machine, mark_of
from fsm.machine.signatures import constructor
from fsm.store.blueprint import Blueprint
from fsm.testing.driver import Driver
from fsm.testing.trials import Trial

__all__ = ["trial"]

P = TypeVar("P")


def trial(  # noqa: PLR0913 - one a part of what is tried
    machine: Machine[P] | type[Machine[P]],
    *,
    state: str | None = None,
    payload: Any = None,
    name: str = "trial",
    now: datetime | None = None,
    definition_version: int | None = None,
) -> Trial[P]:
    """Make one FSM in memory and begin it: no Redis, no worker, no waiting.

    >>> from fsm import Machine, Reject, on
    >>> class Order(Machine):
    ...     diagram = '''
    ...     stateDiagram-v2
    ...         [*] --> cart
    ...         cart --> cart : add
    ...         cart --> paying : pay
    ...         paying --> [*] : captured
    ...     '''
    ...     @on("add")
    ...     def add(self, t, sku):
    ...         t.payload.setdefault("items", []).append(sku)
    ...     @on("pay")
    ...     def pay(self, t):
    ...         if not t.payload:
    ...             raise Reject("empty cart")
    ...         t.enqueue("shop.bank.charge", t.name, on_success="captured")
    >>> order = trial(Order)
    >>> order.send("pay")
    Traceback (most recent call last):
    fsm.errors.RejectedError: event 'pay' of FSM 'trial' in state 'cart': empty cart
    >>> order.send("add", "tea").version, order.send("pay").state
    (3, 'paying')
    >>> order.succeed("shop.bank.charge", "receipt-7").ok, order.status
    (True, 'finished')

    Args:
        machine: An instance, made with doubles of its services; or the class, where it is made without arguments.
        state: Begin there, as `start_fsm(state=)` does: without the entry event, without hooks. Where the only way out
            is a hard event, that follows at once. Else it begins at the start, with the entry event.
        payload: Of the machine's type, or JSON of that shape; without it the type's default.
        name: Name of the FSM.
        now: What handlers see as `t.now`; it stands still, and can be set by `.now`. Else it is the real time.
        definition_version: State and payload, plain JSON, are those of this older version: `migrate` is run on them,
            and what it raises is raised.

    Raises:
        DefinitionError: There is no such state, or FSMs end in it.
        PayloadError: The payload, the name or the time is not what it should be.
        ConfigError: The class cannot be made without arguments; or there is nothing to migrate.
        UnknownMachineError: It is no machine.
    """
    made = _made(machine)
    definition = type(made).definition
    if definition_version is not None:
        return Trial(*_migrated(made, checked_name(name), state, payload, definition_version, now), now)
    if state is not None:
        Blueprint.of(definition, "").check_adoptable(state)
    begin, status = (definition.graph.start, "starting") if state is None else (state, "running")
    life = Life(checked_name(name), begin, encode_payload(definition, payload), 0, status, definition)
    return Trial(Behaviour(made), life, now)


def _migrated(  # noqa: PLR0913 - the parts of one snapshot
    made: Machine[Any], name: str, state: str | None, payload: Any, version: int, now: datetime | None
) -> tuple[Behaviour, Life]:
    """Make the FSM that comes of an older snapshot."""
    behaviour, definition = Behaviour(made), type(made).definition
    where, ours = "trial(definition_version=…)", definition.settings.definition_version
    if MIGRATE not in definition.hooks:
        raise ConfigError(where, f"machine {definition.name!r} has no method migrate(self, snapshot, from_version)")
    if state is None or not 1 <= version < ours:
        problem = f"say in which state it was, and a version below that of {definition.name!r}, which is {ours}"
        raise ConfigError(where, problem)
    life = Life(name, state, JSON.encode({} if payload is None else payload), 0, "running", definition)
    driver = Driver()
    try:
        at_ms = moment_ms(datetime.now(UTC) if now is None else now)
        driver.run(migrate(behaviour, life, mark_of("", version), at_ms), is_async=behaviour.is_async)
    finally:
        driver.close()
    return behaviour, life


def _made(machine: Any) -> Machine[Any]:
    if isinstance(machine, Machine):
        return machine
    if not (isinstance(machine, type) and issubclass(machine, Machine)):
        raise UnknownMachineError(str(machine))
    try:
        constructor(machine).bind()
    except TypeError as error:
        name = machine.__qualname__
        problem = f"machine {name} cannot be made without arguments ({error}): pass an instance, as trial({name}(…))"
        raise ConfigError("trial", problem) from error
    return machine()
