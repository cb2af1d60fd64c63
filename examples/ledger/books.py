"""The tables of a bank: customers, whom no machine knows, and accounts, each of which is the row of one FSM.

Who calls this: `machine`, for its table; the demo and the tests, for the rest. It knows nothing of FSMs.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import sqlalchemy as sa

__all__ = ["URL", "Line", "accounts", "add_interest", "customers", "open_books", "report"]

URL = os.environ.get("LEDGER_DB", "sqlite:///ledger.db")

_tables = sa.MetaData()
customers = sa.Table(
    "customers",
    _tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)
accounts = sa.Table(
    "accounts",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("customer", sa.ForeignKey("customers.id"), nullable=False),
    sa.Column("balance", sa.BigInteger, sa.CheckConstraint("balance >= 0", name="no_debts"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)


class Line(NamedTuple):
    """One line of the report: a customer, and what is in all accounts together."""

    customer: str
    accounts: int
    frozen: int
    balance: int


def open_books(url: str = URL) -> sa.Engine:
    """Give the way to the books; they are made, where there are none."""
    engine = sa.create_engine(url)
    _tables.create_all(engine)
    return engine


def report(connection: sa.Connection) -> list[Line]:
    """Tell what each customer has: plain SQL over our own tables, as any tool writes it."""
    asked = """
        SELECT customers.name, count(*), sum(CASE accounts.state WHEN 'frozen' THEN 1 ELSE 0 END), sum(accounts.balance)
        FROM accounts JOIN customers ON customers.id = accounts.customer
        GROUP BY customers.id, customers.name
        ORDER BY customers.name
    """
    return [
        Line(name, number, frozen, int(balance)) for name, number, frozen, balance in connection.exec_driver_sql(asked)
    ]


def add_interest(connection: sa.Connection, coins: int) -> None:
    """Give each account some coins, as a job at night does that has never heard of FSMs."""
    connection.execute(sa.update(accounts).values(balance=accounts.c.balance + coins))
