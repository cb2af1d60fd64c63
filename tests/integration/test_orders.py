"""The example of docker-compose.yml and the Procfile, with a real worker and a stock RQ worker for its effects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from examples.orders import Cart, Line, Order
from fsm import Client, RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Processes

APP = ("--app", "examples.orders")


def test_the_producer_sends_each_order_to_an_end(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    producer = processes.run("-m", "examples.orders", "--orders", "8")
    out, _ = producer.communicate(timeout=60)
    assert producer.returncode == 0, out
    told = re.findall(r"^order-\w+-\d: cart > .*(?:delivered|returned|cancelled) \(\d+ coins", out, re.MULTILINE)
    assert len(told) == len(out.splitlines()) == 8
    counts = client.counts()["Order"]
    assert counts["delivered"] + counts["returned"] + counts["cancelled"] == 8


def test_an_order_is_packed_and_ships_itself(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    order = client.start_fsm(Order, "order-42")
    with pytest.raises(RejectedError, match="empty cart"):
        order.call("pay")
    order.transition("add", Line("tea", 12))
    order.call("pay")
    order.transition("captured")
    assert order.call("deliver").state == "delivered"
    cart = order.state().payload
    assert (cart.items, cart.total) == (["tea"], 12)
    assert re.fullmatch(r"parcel-\w{8}", cart.parcel)


def test_a_broken_glass_is_returned(client: Client, processes: Processes, until: Callable[..., Any]) -> None:
    processes.worker(*APP)
    order = client.start_fsm(Order, "order-42", Cart(["glass"], 9))
    order.transition("pay")
    order.transition("captured")
    until(lambda: order.state().status == "finished")
    snapshot = order.state()
    assert snapshot.state == "returned"
    assert snapshot.error is not None
    assert snapshot.error["message"] == "the glass broke"


def test_the_bank_is_asked_by_a_stock_rq_worker(client: Client, processes: Processes) -> None:
    client.start_fsm(Order, "order-42", Cart(["tea", "tea"], 24)).transition("pay")
    processes.worker(*APP, "--burst").communicate(timeout=30)
    (job_id,) = client.redis.lrange("rq:queue:fsm-effects", 0, -1)
    processes.rq_worker("--burst", "fsm-effects").communicate(timeout=30)
    job = Job.fetch(job_id.decode(), connection=client.redis, serializer=JSONSerializer)
    assert job.return_value() == "24 coins for order-42"
