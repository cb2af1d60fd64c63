"""The shop: starts orders, fills their carts, pays, and tells what became of each.

Every event has a key. A shop may die after it sent an event and before it noted so; started again, it sends it again,
and the order knows the key: nothing is added twice and nothing is paid twice.

Who calls this: `python -m examples.orders`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from examples.orders.machine import Cart, Line, Order
from fsm import RejectedError

if TYPE_CHECKING:
    from fsm import Client, FSMHandle

__all__ = ["serve"]

# What happens, and how often.
_FORGETFUL, _UNDECIDED = 0.2, 0.1
_PRICES = {"tea": 12, "cup": 7, "kettle": 40, "glass": 9}
# Long enough for a worker that is just being started beside us, and for one that died.
_PATIENCE_S = 120.0


def serve(client: Client, name: str) -> str:
    """Send one customer through the shop, and tell how it went.

    Args:
        client: Of the Redis where orders live.
        name: Name of the order; the same name makes the same choices.

    Returns:
        One line.
    """
    chance = random.Random(name)
    order = client.start_fsm(Order, name, exist_ok=True)
    way = ["cart"]
    try:
        if chance.random() < _FORGETFUL:
            # Somebody who pays before there is anything to pay for.
            order.call("pay", key="too early", timeout=_PATIENCE_S)
    except RejectedError as refusal:
        way.append(f"pay was refused, {refusal.reason}")
    for number, sku in enumerate(chance.choices(list(_PRICES), weights=(4, 3, 2, 1), k=chance.randint(1, 3))):
        order.call("add", Line(sku, _PRICES[sku]), key=f"line {number}", timeout=_PATIENCE_S)
        way.append(f"+ {sku}")
    if chance.random() < _UNDECIDED:
        way.append(order.call("cancel", key="cancel", timeout=_PATIENCE_S).state)
    else:
        way += _pay(order)
    cart = order.state().payload
    return f"{name}: {' > '.join(way)} ({cart.total} coins{', ' if cart.parcel else ''}{cart.parcel})"


def _pay(order: FSMHandle[Cart]) -> list[str]:
    """Pay until the bank agrees and the parcel is on its way; gives what happened."""
    way: list[str] = []
    while way[-1:] in ([], ["declined"]):
        order.call("pay", key=f"pay {len(way) + 1}", timeout=_PATIENCE_S)
        # `captured` or `declined` comes from the bank; after `captured`, `ship` follows by itself.
        state = order.wait_for(("cart", "shipped", "delivered", "returned"), timeout=_PATIENCE_S).state
        way.append("declined" if state == "cart" else state)
    return way
