"""The machine of an account, and its payload, which is a row of the bank's own table.

Who calls this: workers, as `--app examples.ledger`, and the demo. It imports `fsm`, SQLAlchemy, and the books.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from examples.ledger.books import URL, accounts
from fsm import Machine, Reject, Settings, SqlStorage, Transition, on

if TYPE_CHECKING:
    from fsm import Owner

__all__ = ["Account", "Savings", "Transfer"]


@dataclass
class Account:
    """What is in an account.

    Args:
        customer: Whose it is: a key of the bank's table of customers.
        balance: In whole coins.
    """

    customer: str
    balance: int = 0

    @classmethod
    def fetch(cls, connection: sa.Connection, owner: Owner) -> Account | None:
        """Read the row. It is locked: what is read before a step is stored is still true when `save` writes."""
        asked = sa.select(accounts.c.customer, accounts.c.balance).where(accounts.c.name == owner.name)
        row = connection.execute(asked.with_for_update()).one_or_none()
        return None if row is None else cls(row.customer, row.balance)

    def save(self, connection: sa.Connection, owner: Owner) -> None:
        """Write the row: the state of the FSM too, for reports."""
        change = sa.update(accounts).where(accounts.c.name == owner.name)
        values = {"customer": self.customer, "balance": self.balance, "state": owner.state, "version": owner.version}
        if connection.execute(change.values(values)).rowcount == 0:
            connection.execute(sa.insert(accounts).values(name=owner.name, **values))

    @classmethod
    def discard(cls, connection: sa.Connection, owner: Owner) -> None:
        """Remove the row, where the FSM was purged and its snapshot is removed. Leave this out to keep it."""
        connection.execute(sa.delete(accounts).where(accounts.c.name == owner.name))


@dataclass
class Transfer:
    """The data of `transfer`."""

    to: str
    coins: int


class Savings(Machine[Account]):
    """A savings account."""

    storage = SqlStorage(URL, table="fsm_accounts", persist=Account)
    settings = Settings(queue="accounts", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : deposit, withdraw, transfer, fee
        open --> frozen : freeze
        frozen --> frozen : deposit
        frozen --> open : thaw
    """

    @on("deposit")
    def deposit(self, t: Transition[Account], coins: int) -> None:
        """Take coins; also where the account is frozen, so that no transfer is lost on its way."""
        t.payload.balance += coins

    @on("withdraw")
    def withdraw(self, t: Transition[Account], coins: int) -> Reject | None:
        """Give coins, as far as there are some."""
        if coins > t.payload.balance:
            return Reject("not covered", balance=t.payload.balance)
        t.payload.balance -= coins
        return None

    @on("transfer")
    def transfer(self, t: Transition[Account], order: Transfer) -> Reject | None:
        """Send coins on: they leave with this commit, and arrive with one event of the other account."""
        if order.coins > t.payload.balance:
            return Reject("not covered", balance=t.payload.balance)
        t.payload.balance -= order.coins
        t.send(order.to, "deposit", order.coins)
        return None

    @on("fee")
    def charge(self, t: Transition[Account], coins: int) -> None:
        """Charge a fee without a look at the balance: that is the database's, and an event that it refuses fails."""
        t.payload.balance -= coins
