"""A ledger: accounts in a table of your own, in step with their FSMs, in one transaction of one database.

    fsm worker --app examples.ledger                 as many as you like, on any host
    python -m examples.ledger [--url URL]            deposits, transfers, a fee that is not covered, and a report by SQL

Reading order: `books` (the tables, and the report), `machine` (the account: how it loads and stores itself, and the
diagram with its handlers), `__main__` (a day at the counter). The page is docs/examples/ledger.md.

Who calls this: `make examples`, and readers. It imports what `fsm` offers to everyone, and SQLAlchemy.
"""

from examples.ledger.machine import Account, Savings

__all__ = ["Account", "Savings"]
