"""How a trial begins: what of a machine is tried, and where.

Who calls this: tests of applications.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from fsm.engine import Behaviour, Life, checked_name, encode_payload
from fsm.errors import ConfigError, UnknownMachineError
from fsm.machine import Machine
from fsm.machine.signatures import constructor
from fsm.store.blueprint import Blueprint
from fsm.testing.trials import Trial

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["trial"]

P = TypeVar("P")


def trial(
    machine: Machine[P] | type[Machine[P]],
    *,
    state: str | None = None,
    payload: Any = None,
    name: str = "trial",
    now: datetime | None = None,
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

    Raises:
        DefinitionError: There is no such state, or FSMs end in it.
        PayloadError: The payload, the name or the time is not what it should be.
        ConfigError: The class cannot be made without arguments.
        UnknownMachineError: It is no machine.
    """
    made = _made(machine)
    definition = type(made).definition
    if state is not None:
        Blueprint.of(definition, "").check_adoptable(state)
    begin, status = (definition.graph.start, "starting") if state is None else (state, "running")
    life = Life(checked_name(name), begin, encode_payload(definition, payload), 0, status, definition)
    return Trial(Behaviour(made), life, now)


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
