from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from examples.ledger import Account, Savings
from examples.ledger.books import accounts, add_interest, customers, open_books, report
from examples.ledger.machine import Transfer
from fsm import NotAllowedError, Owner, RejectedError
from fsm.testing import trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def books(tmp_path: Path) -> Iterator[sa.Connection]:
    engine = open_books(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(sa.insert(customers), [{"id": one, "name": one.title()} for one in ("ann", "bob")])
        yield connection
    engine.dispose()


def owner(name: str, version: int = 1, state: str = "open") -> Owner:
    return Owner("default", name, "Savings", state, version)


def test_an_account_comes_back_as_it_was_saved_until_it_is_discarded(books: sa.Connection) -> None:
    assert Account.fetch(books, owner("a")) is None
    Account("ann", 5).save(books, owner("a"))
    Account("ann", 7).save(books, owner("a", 2, "frozen"))
    assert Account.fetch(books, owner("a")) == Account("ann", 7)
    assert tuple(books.execute(sa.select(accounts)).one()) == ("a", "ann", 7, "frozen", 2)
    Account.discard(books, owner("a"))
    assert Account.fetch(books, owner("a")) is None


def test_the_report_joins_tables_of_which_no_machine_knows(books: sa.Connection) -> None:
    Account("ann", 5).save(books, owner("a"))
    Account("ann", 7).save(books, owner("b", state="frozen"))
    Account("bob").save(books, owner("c"))
    add_interest(books, 1)
    assert report(books) == [("Ann", 2, 1, 14), ("Bob", 1, 0, 1)]


def test_nobody_gets_more_than_there_is() -> None:
    account = trial(Savings, state="open", payload=Account("ann", 5))
    with pytest.raises(RejectedError, match="not covered"):
        account.send("withdraw", 6)
    with pytest.raises(RejectedError, match="not covered"):
        account.send("transfer", Transfer("b", 6))
    account.send("transfer", Transfer("b", 5))
    assert account.payload.balance == 0
    assert [(sent.name, sent.event, sent.data) for sent in account.sent] == [("b", "deposit", 5)]


def test_a_frozen_account_takes_what_is_on_its_way_and_gives_nothing() -> None:
    account = trial(Savings, state="open", payload=Account("ann", 5))
    account.send("freeze")
    account.send("deposit", 2)
    with pytest.raises(NotAllowedError):
        account.send("withdraw", 1)
    account.send("thaw")
    account.send("withdraw", 7)
    account.send("fee", 3)
    assert account.payload.balance == -3
