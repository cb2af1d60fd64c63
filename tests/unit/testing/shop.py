"""An order with all that a trial must be able to run, and doubles of what it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fsm import Machine, Reject, Settings, Transition, enter, guard, on


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    total: int = 0


@dataclass
class Line:
    sku: str
    price: int


class Bank:
    """Keeps a book, and breaks when it is told to."""

    def __init__(self) -> None:
        self.book: list[str] = []
        self.is_broken = False

    def note(self, text: str) -> None:
        if self.is_broken:
            problem = "the bank is closed"
            raise OSError(problem)
        self.book.append(text)


def charge(name: str, total: int) -> str:
    """Stand for an effect; trials do not run it."""
    return f"receipt of {name} over {total}"


class Order(Machine[Cart]):
    settings = Settings(refused={"nudge": "ignore"}, history=3)
    diagram = """
    stateDiagram-v2
        [*] --> cart : begin
        cart --> cart : add
        cart --> vip : pay [rich]
        cart --> paying : pay [else]
        cart --> cancelled : cancel
        cart --> cart : peek?
        cart --> cart : nudge [rich]
        vip --> paying : welcome!
        paying --> packed : captured
        paying --> cart : declined
        packed --> shipped : ship!
        packed --> returned : ship fails
        shipped --> shipped : remind
        shipped --> delivered : deliver
        delivered --> [*]
        cancelled --> [*]
        returned --> [*]
    """

    def __init__(self, bank: Bank | None = None) -> None:
        self.bank = bank or Bank()

    def on_start(self, t: Transition[Cart]) -> None:
        self.bank.note(f"{t.name} begins")

    @on("add")
    def add(self, t: Transition[Cart], line: Line) -> None:
        t.payload.items.append(line.sku)
        t.payload.total += line.price

    @guard("rich")
    def is_rich(self, t: Transition[Cart]) -> bool:
        return t.payload.total > 100

    @on("pay")
    def pay(self, t: Transition[Cart]) -> None:
        if not t.payload.items:
            problem = "empty cart"
            raise Reject(problem, hint="add something")
        t.enqueue(charge, t.name, total=t.payload.total, on_success="captured", on_failure="declined")
        t.enqueue("shop.mail.thank", t.name, queue="letters", job_timeout="5s", retry=2)
        t.reply({"total": t.payload.total, "at": t.now.isoformat()})

    @on("peek")
    def peek(self, t: Transition[Cart]) -> None:
        problem = "nothing to see"
        raise LookupError(problem)

    @on("captured")
    def captured(self, t: Transition[Cart], receipt: str) -> None:
        t.payload.items.append(receipt)
        t.send("stock", "take", {"for": t.name})
        t.start_fsm(Parcel, f"parcel-{t.name}", {"weight": len(t.payload.items)})

    @on("declined")
    def declined(self, t: Transition[Cart], why: dict[str, Any]) -> None:
        t.payload.items = [f"{why['type']}: {why['message']}"]

    @on("ship")
    def ship(self, t: Transition[Cart]) -> None:
        self.bank.note(f"{t.name} ships")

    @enter("shipped")
    def on_its_way(self, t: Transition[Cart]) -> None:
        if t.event == "ship":
            t.send(t.name, "remind")


class Parcel(Machine[dict[str, Any]]):
    diagram = """
    stateDiagram-v2
        [*] --> packed
        packed --> [*] : send
    """
