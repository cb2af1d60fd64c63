from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from examples.orders import Cart, Line, Order, bank
from examples.orders.__main__ import main
from examples.orders.bank import Declined, charge
from examples.orders.webhook import notify
from fsm import Client, InvalidDataError, NotAllowedError, RejectedError
from fsm.testing import Trial, cover, trial


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORDERS_BANK", str(tmp_path / "bank.sqlite3"))
    return tmp_path / "bank.sqlite3"


def filled(*skus: str) -> Trial[Cart]:
    """An order with these things in its cart, at a coin each."""
    order = trial(Order)
    for sku in skus:
        order.send("add", Line(sku, 1))
    return order


def test_every_edge_of_an_order_can_be_walked() -> None:
    with cover(Order) as walked:
        order = filled("tea", "cup")
        order.send("pay")
        order.fail(order.enqueued[0], Declined("no 2 coins"))
        assert (order.state, order.payload.declined) == ("cart", "no 2 coins")
        order.send("pay")
        order.succeed(order.enqueued[0], {"receipt": "receipt-1", "total": 2})
        assert (order.state, order.payload.receipt, order.payload.declined) == ("shipped", "receipt-1", "")
        assert order.payload.parcel.startswith("parcel-")
        order.send("deliver")
        assert order.status == "finished"

        broken = filled("glass")
        broken.send("pay")
        broken.succeed(broken.enqueued[0], {"receipt": "receipt-2", "total": 1})
        assert (broken.state, broken.status) == ("returned", "finished")

        cancelled = filled("tea")
        cancelled.send("cancel")
        assert cancelled.status == "finished"

    assert walked.missing == ()


def test_what_should_not_be_is_refused() -> None:
    order = trial(Order)

    with pytest.raises(RejectedError, match="empty cart"):
        order.send("pay")
    with pytest.raises(NotAllowedError):
        order.send("deliver")
    with pytest.raises(InvalidDataError, match="price"):
        order.send("add", {"sku": "tea", "price": "12"})
    assert (order.state, order.payload.items) == ("cart", [])


def test_the_bank_is_asked_with_a_key_of_its_own_for_each_payment() -> None:
    order = filled("tea")

    order.send("pay")
    first = order.enqueued[0]
    order.fail(first, Declined("no"))
    order.send("pay")
    second = order.enqueued[0]

    assert first.args == second.args == ("trial", 1)
    assert first.kwargs["key"] != second.kwargs["key"]


def test_the_bank_says_the_same_thing_for_the_same_key(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "_SOLVENT", 1.0)
    first = charge("order-1", 12, key="a" * 24)
    monkeypatch.setattr(bank, "_SOLVENT", 0.0)

    assert charge("order-1", 12, key="a" * 24) == first == {"receipt": "receipt-aaaaaaaa", "total": 12}
    for _ in range(2):
        with pytest.raises(Declined, match="no 12 coins"):
            charge("order-1", 12, key="b" * 24)
    with sqlite3.connect(book) as connection:
        assert connection.execute("select count(*) from charges").fetchone() == (2,)


def shipped(client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An order that is on its way, in a world in memory."""
    monkeypatch.setattr(bank, "_SOLVENT", 1.0)
    order = client.start_fsm(Order, "order-1")
    order.call("add", Line("tea", 12))
    order.call("pay")
    assert order.state().state == "shipped"
    return order


def test_a_notice_that_comes_twice_is_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client("memory://") as client:
        order = shipped(client, monkeypatch)
        notice = b'{"id": "evt_7", "order": "order-1"}'

        first, again = notify(client, notice), notify(client, notice)

        assert first[0] == 200
        assert again == first
        assert order.state().state == "delivered"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"id": "evt_8"}', 400),
        (b'{"id": "evt_8", "order": "order-2"}', 404),
        (b'{"id": "evt_8", "order": ""}', 422),
    ],
)
def test_a_notice_that_cannot_be_taken_is_answered_with_its_status(
    body: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client("memory://") as client:
        shipped(client, monkeypatch)

        assert notify(client, body)[0] == status


def test_a_notice_that_finds_a_full_mailbox_is_to_come_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client("memory://") as client:
        shipped(client, monkeypatch)
        client.redis.hset(client.keys.snapshot("order-1"), "max_mailbox", 1)
        client.redis.rpush(client.keys.mailbox("order-1"), "an event that waits")

        status, reply = notify(client, b'{"id": "evt_9", "order": "order-1"}')

        assert status == 429
        assert "order-1" in reply["error"]


def test_wrong_use_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://localhost"]) == 2
    assert "examples.orders: URL 'http://localhost'" in capsys.readouterr().err


def test_an_unreachable_redis_is_told_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "redis://localhost:1/0", "--orders", "1"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
