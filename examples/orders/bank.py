"""A bank with a book of its own: the effect of `pay`.

It stands for any system beside Redis: what it does cannot be part of a commit. An effect may be run more than once,
when its worker dies; the bank honours an idempotency key, as real ones do, so that an order is charged once all the
same. Its book is a SQLite file, named by `ORDERS_BANK`; its answer takes `ORDERS_BANK_SECONDS` to arrive.

Who calls this: RQ, by the dotted path in the effects of orders.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

__all__ = ["Declined", "book", "charge"]

_SOLVENT = 0.8
_PATIENCE_S = 30.0
_TABLE = """
    create table if not exists charges (
        key text primary key,
        name text not null,
        total integer not null,
        receipt text
    )
"""


class Declined(Exception):  # noqa: N818 - what a bank says, and no error of the program
    """The customer has not so much money."""


def book() -> Path:
    """Give the file of the bank's book."""
    return Path(os.environ.get("ORDERS_BANK", "bank.sqlite3"))


def charge(name: str, total: int, *, key: str) -> dict[str, str | int]:
    """Charge an order: once for each key, whatever was decided then.

    Args:
        name: Name of the order.
        total: In whole coins.
        key: Idempotency key: asked again with the same one, the bank says again what it said.

    Raises:
        Declined: There is not so much money.
    """
    with closing(sqlite3.connect(book(), timeout=_PATIENCE_S)) as connection, connection:
        connection.execute(_TABLE)
        connection.execute("begin immediate")
        found = connection.execute("select receipt from charges where key = ?", (key,)).fetchone()
        if found is None:
            found = (f"receipt-{key[:8]}" if random.random() < _SOLVENT else None,)
            connection.execute("insert into charges values (?, ?, ?, ?)", (key, name, total, *found))
    # The book is written, and nobody knows of it yet: the moment in which a crash is worst.
    time.sleep(float(os.environ.get("ORDERS_BANK_SECONDS", "0")))
    (receipt,) = found
    if receipt is None:
        problem = f"no {total} coins on the account"
        raise Declined(problem)
    return {"receipt": receipt, "total": total}
