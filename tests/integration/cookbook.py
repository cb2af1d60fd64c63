"""What docs/redis-cli.md looks at: the machines of its world, and how its FSMs come to stand where they do.

Who calls this: the worker processes of the test of that page, for the machines; the test itself, for `set_up`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsm import Machine, RefusedError, Reject, Settings, Transition, on, registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm import Client

# Where this file is there, the courier has come.
COURIER = "FSM_TEST_COURIER"
_PATIENCE_S = 30.0
# The courier is waited for as long as the page is read, also on a machine that has much else to do.
_PAGE_S = 240.0


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    total: int = 0


@dataclass
class Line:
    sku: str
    price: int


class Order(Machine[Cart]):
    """The order of the README, with a bank that is an effect, a shelf that may be empty, and a courier to wait for."""

    settings = Settings(timeout="5m", result_ttl="10m")
    diagram = """
    stateDiagram-v2
        [*] --> cart
        cart --> cart : add
        cart --> paying : pay
        cart --> cancelled : cancel
        cart --> cancelled : expire after 24h
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
    def add(self, t: Transition[Cart], line: Line) -> None:
        t.payload.items.append(line.sku)
        t.payload.total += line.price

    @on("pay")
    def pay(self, t: Transition[Cart]) -> None:
        if not t.payload.items:
            problem = "empty cart"
            raise Reject(problem)
        t.enqueue("shop.bank.charge", t.payload.total, on_success="captured", on_failure="declined")

    @on("captured")
    def captured(self, t: Transition[Cart]) -> None:
        if "moon" in t.payload.items:
            problem = "no moon on the shelf"
            raise LookupError(problem)

    @on("deliver")
    def deliver(self, t: Transition[Cart]) -> None:
        deadline = time.monotonic() + _PAGE_S
        while not Path(os.environ[COURIER]).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


class Invoice(Machine):
    """Goes out by mail by itself, unless nobody comes for it."""

    settings = Settings(result_ttl="10m", audit=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : address
        open --> printed : print
        printed --> sent : mail!
        sent --> [*]
    """

    @on("mail")
    def mail(self, t: Transition[dict[str, Any]]) -> None:
        if not Path(os.environ[COURIER]).exists():
            problem = "the post office is closed"
            raise ConnectionError(problem)


def set_up(client: Client, courier: Path, run_effects: Callable[[], None]) -> None:
    """Bring the FSMs of the page to where it finds them; a worker must run, and is left with an order in hand.

    Args:
        client: Of an empty namespace.
        courier: The file that says whether the courier has come; it is away afterwards.
        run_effects: Runs all effects that are queued, and returns.
    """
    courier.touch()
    # The worker tells which machines there are before it takes anything.
    _wait(lambda: client.redis.hlen(client.keys.machines) == 2)
    for number in (41, 44, 45):
        _order(client, number, "moon" if number == 45 else "tea")
    run_effects()
    for number, state in ((41, "shipped"), (44, "shipped"), (45, "paying")):
        _settle(client, f"order-{number}", state)
    client.call("order-41", "deliver", timeout=_PATIENCE_S)
    courier.unlink()
    _order(client, 42, "tea")
    with suppress(RefusedError):
        client.transition("order-42", "deliver", job_id="deliver-42").result(_PATIENCE_S)
    client.start_fsm(Order, "ann: two chairs").call("cancel", timeout=_PATIENCE_S)
    client.start_fsm(Order, "order-43")
    client.start_fsm(Order, "order-46", host="edge-7")
    client.transition("order-46", "cancel", delay="2d", job_id="cancel-46")
    client.start_fsm(Invoice, "invoice-7")
    client.transition("invoice-7", "print", job_id="print-7").result(_PATIENCE_S)
    _settle(client, "order-43", "cart")
    _settle(client, "invoice-7", "printed")

    client.transition("order-44", "deliver", job_id="deliver-44")
    _wait(lambda: client.redis.exists(client.keys.lock("order-44")))
    client.transition("order-43", "add", {"sku": "cup", "price": 7}, job_id="add-43a", meta={"actor": "ann"})
    client.transition("order-43", "add", {"sku": "pot", "price": 40}, job_id="add-43b")
    client.transition("order-45", "declined", key="stripe:evt_7")


def _order(client: Client, number: int, sku: str) -> None:
    """Start an order with one thing in it, and pay for it."""
    order = client.start_fsm(Order, f"order-{number}")
    order.call("add", {"sku": sku, "price": 12}, timeout=_PATIENCE_S)
    order.transition("pay", job_id=f"pay-{number}", meta={"actor": "ann"}).result(_PATIENCE_S)


def _settle(client: Client, name: str, state: str) -> None:
    """Wait until all mail of an FSM is applied, and see where it is."""
    waiting = partial(client.ask, registry.waiting(client.keys, name))
    _wait(lambda: not waiting() and not client.redis.exists(client.keys.lock(name)))
    assert client.state(name).state == state


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the world of the page was not set up in time"
        time.sleep(0.01)
