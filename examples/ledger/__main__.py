"""`python -m examples.ledger`: a day at the counter, a line for each thing that happens, and a look at the sums."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

import sqlalchemy as sa

from examples.ledger.books import add_interest, customers, open_books, report
from examples.ledger.machine import Account, Savings, Transfer
from fsm import Client, ConfigError, FailedError, FSMError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

# Long enough for a worker that is just being started beside us.
_PATIENCE_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Spend the day; gives the exit code: 1 where a coin is missing, or there is one too many."""
    parser = argparse.ArgumentParser(prog="python -m examples.ledger", description="Spend a day at a bank's counter.")
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--run", default=secrets.token_hex(2), help="names are <customer>-<run>")
    options = parser.parse_args(arguments)
    books = open_books()
    try:
        with Client(options.url) as client:
            Savings.storage.init()
            for line in _day(client, books, options.run):
                print(line, flush=True)
            return _close(books, options.run)
    except FSMError as error:
        print(f"examples.ledger: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    finally:
        Savings.storage.close()
        books.dispose()


def _day(client: Client, books: sa.Engine, run: str) -> Iterator[str]:
    names = [f"{customer}-{run}" for customer in ("ann", "bob")]
    with books.begin() as connection:
        connection.execute(sa.insert(customers), [{"id": name, "name": name} for name in names])
    ann, bob = (client.start_fsm(Savings, name, Account(name)) for name in names)
    for account in (ann, bob):
        account.call("deposit", 100, timeout=_PATIENCE_S)
    yield "ann and bob: 100 each"
    ann.call("transfer", Transfer(bob.name, 30), timeout=_PATIENCE_S)
    yield "30 of them go from ann to bob"
    try:
        ann.call("withdraw", 71, timeout=_PATIENCE_S)
    except RefusedError as error:
        yield f"ann wants 71: {error.reason}"
    try:
        ann.call("fee", 71, timeout=_PATIENCE_S)
    except FailedError as error:
        yield f"a fee of 71: {error.reason.splitlines()[0]}"
    with books.begin() as connection:
        add_interest(connection, 1)
    yield f"interest at night, by plain SQL: ann has {ann.state().payload.balance}"
    ann.call("withdraw", 71, timeout=_PATIENCE_S)
    yield "ann wants 71, and has them now"
    # Behind what ann has sent, which came into bob's mailbox with the commit of her transfer.
    bob.call("freeze", timeout=_PATIENCE_S)
    yield "bob's account is frozen"


def _close(books: sa.Engine, run: str) -> int:
    """Print the report, and see that it is what the day has made of it."""
    with books.connect() as connection:
        lines = [line for line in report(connection) if line.customer.endswith(f"-{run}")]
    for line in lines:
        print(f"    {line.customer:10} {line.accounts} account, {line.frozen} frozen: {line.balance:4} coins")
    right = {f"ann-{run}": 0, f"bob-{run}": 131}
    if {line.customer: line.balance for line in lines} != right:
        print(f"the books are wrong: {lines}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
