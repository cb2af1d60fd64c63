"""An order, from the cart to the door: a typed payload, a decision, an effect, a hard event and its failure.

    fsm worker --app examples.orders                       as many as you like, on any host
    python -m examples.orders [--url URL] [--orders N]     starts orders, sends them through, prints what happens

Who calls this: docker-compose.yml and the Procfile, and readers: it is the machine of the README, ready to run. It
imports what `fsm` offers to everyone.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsm import (
    Client,
    ConfigError,
    FSMError,
    FSMFinishedError,
    FSMHandle,
    Machine,
    Reject,
    RejectedError,
    Settings,
    Transition,
    on,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cart", "Line", "Order", "charge", "main"]

# What happens, and how often.
_FORGETFUL, _UNDECIDED, _SOLVENT = 0.2, 0.1, 0.8
_PRICES = {"tea": 12, "cup": 7, "kettle": 40, "glass": 9}
# Long enough for a worker that is just being started beside us.
_PATIENCE_S = 30.0


@dataclass
class Cart:
    """What an order carries along.

    Args:
        items: What was added, oldest first.
        total: Their prices, in whole coins.
        parcel: Number of the parcel, once it was shipped.
    """

    items: list[str] = field(default_factory=list)
    total: int = 0
    parcel: str = ""


@dataclass
class Line:
    """The data of `add`: one thing and its price, in whole coins."""

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
    def add(self, t: Transition[Cart], line: Line) -> None:
        """Put something into the cart."""
        t.payload.items.append(line.sku)
        t.payload.total += line.price

    @on("pay")
    def pay(self, t: Transition[Cart]) -> None:
        """Ask the bank for the money: an RQ job that goes with the commit, so that it holds up nobody."""
        if not t.payload.items:
            problem = "empty cart"
            raise Reject(problem)
        t.enqueue("examples.orders.charge", t.name, t.payload.total)

    @on("ship")
    def ship(self, t: Transition[Cart]) -> None:
        """Hand the parcel over; nobody sends this event, it fires when an order is packed."""
        if "glass" in t.payload.items:
            problem = "the glass broke"
            raise RuntimeError(problem)
        # The id of the job is the same if a worker dies here and another runs this again: no second parcel.
        t.payload.parcel = f"parcel-{t.job_id[:8]}"


def charge(order: str, total: int) -> str:
    """Stand in for a bank: the effect of `pay`, run by an RQ worker on the queue `fsm-effects`.

    Args:
        order: Name of the order.
        total: In whole coins.

    Returns:
        The receipt.
    """
    return f"{total} coins for {order}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Start orders and send them through; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders", description="Start orders, send them through, print what happens."
    )
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--orders", type=int, default=20, metavar="N", help="how many (20)")
    options = parser.parse_args(arguments)
    run = secrets.token_hex(2)
    try:
        with Client(options.url) as client:
            for number in range(options.orders):
                _tell_story(client.start_fsm(Order, f"order-{run}-{number}"))
    except FSMError as error:
        print(f"examples.orders: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _tell_story(order: FSMHandle[Cart]) -> None:
    """Send one order from the cart to its end, and print the way it took."""
    way = ["cart"]
    try:
        if random.random() < _FORGETFUL:
            # Somebody who pays before there is anything to pay for.
            way.append(_call(order, "pay"))
    except RejectedError as refusal:
        way.append(f"pay was refused, {refusal.reason}")
    for sku in random.choices(list(_PRICES), weights=(4, 3, 2, 1), k=random.randint(1, 3)):
        _call(order, "add", Line(sku, _PRICES[sku]))
        way.append(f"+ {sku}")
    if random.random() < _UNDECIDED:
        way.append(_call(order, "cancel"))
    else:
        while way[-1] != "packed":
            way.append(_call(order, "pay"))
            way.append(_call(order, "captured" if random.random() < _SOLVENT else "declined"))
        # `ship` is a hard event: it is run before this one, which may find the order returned and over.
        try:
            way.append(_call(order, "deliver"))
        except FSMFinishedError as finished:
            way.append(finished.state)
    cart = order.state().payload
    print(f"{order.name}: {' > '.join(way)} ({cart.total} coins{', ' if cart.parcel else ''}{cart.parcel})", flush=True)


def _call(order: FSMHandle[Cart], event: str, data: Line | None = None) -> str:
    """Send an event, wait for its end, and give the state that the order is in now."""
    return order.call(event, data, timeout=_PATIENCE_S).state


if __name__ == "__main__":
    sys.exit(main())
