"""The machine of an order: a typed payload, a decision, an effect that answers, a hard event and its failure."""

from __future__ import annotations

from dataclasses import dataclass, field

from fsm import Machine, Reject, Settings, Transition, on

__all__ = ["Cart", "Line", "Order", "Receipt", "Trouble"]


@dataclass
class Cart:
    """What an order carries along.

    Args:
        items: What was added, oldest first.
        total: Their prices, in whole coins.
        receipt: Number of the bank's receipt, once it was paid.
        parcel: Number of the parcel, once it was shipped.
        declined: Why the bank said no, the last time it did.
    """

    items: list[str] = field(default_factory=list)
    total: int = 0
    receipt: str = ""
    parcel: str = ""
    declined: str = ""


@dataclass
class Line:
    """The data of `add`: one thing and its price, in whole coins."""

    sku: str
    price: int


@dataclass
class Receipt:
    """The data of `captured`: what the bank's `charge` returns."""

    receipt: str
    total: int


@dataclass
class Trouble:
    """The data of `declined`: how the effect failed."""

    type: str
    message: str


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
        """Ask the bank for the money: an effect, so that a slow bank holds up no order, not even this one."""
        if not t.payload.items:
            problem = "empty cart"
            raise Reject(problem)
        # The id of the job is the same whenever this event is run again, and another when the order is paid again.
        t.enqueue(
            "examples.orders.bank.charge",
            t.name,
            t.payload.total,
            key=t.job_id,
            on_success="captured",
            on_failure="declined",
        )

    @on("captured")
    def captured(self, t: Transition[Cart], receipt: Receipt) -> None:
        """Note the receipt; `ship` follows by itself."""
        t.payload.receipt = receipt.receipt
        t.payload.declined = ""

    @on("declined")
    def declined(self, t: Transition[Cart], trouble: Trouble) -> None:
        """Note why: the cart is as it was, and can be paid again."""
        t.payload.declined = trouble.message

    @on("ship")
    def ship(self, t: Transition[Cart]) -> None:
        """Hand the parcel over; nobody sends this event, it fires when an order is packed."""
        if "glass" in t.payload.items:
            problem = "the glass broke"
            raise RuntimeError(problem)
        # As with the bank: no second parcel if a worker dies here and another runs this again.
        t.payload.parcel = f"parcel-{t.job_id[:8]}"
