"""The example of docker-compose.yml and the Procfile, with real workers: also with workers that are killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.orders import Cart, Line, Order
from fsm import Client, RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Processes

APP = ("--app", "examples.orders")


@pytest.fixture(autouse=True)
def book(tmp_path: Path, processes: Processes) -> Path:
    """The bank's book, for all processes of a test."""
    processes.environment["ORDERS_BANK"] = str(tmp_path / "bank.sqlite3")
    return tmp_path / "bank.sqlite3"


def captured(book: Path) -> list[tuple[str, int]]:
    """How often each order was charged, by the bank's own book."""
    with sqlite3.connect(book) as connection:
        query = "select name, count(*) from charges where receipt is not null group by name"
        return connection.execute(query).fetchall()


def test_the_shop_sends_each_order_to_its_door_or_back(client: Client, processes: Processes, book: Path) -> None:
    processes.worker(*APP, effects=True)
    producer = processes.run("-m", "examples.orders", "--orders", "8", "--at-once", "4")
    out, _ = producer.communicate(timeout=60)
    assert producer.returncode == 0, out
    told = re.findall(r"^order-\w+-\d: cart > .*(?:shipped|returned|cancelled) \(\d+ coins", out, re.MULTILINE)
    assert len(told) == len(out.splitlines()) == 8
    counts = client.counts()["Order"]
    assert counts["shipped"] + counts["returned"] + counts["cancelled"] == 8
    assert len(captured(book)) == counts["shipped"] + counts["returned"]


def test_a_shop_that_is_run_again_adds_nothing_and_pays_nothing_twice(
    client: Client, processes: Processes, book: Path
) -> None:
    processes.worker(*APP, effects=True)
    outs = []
    for _ in range(2):
        producer = processes.run("-m", "examples.orders", "--orders", "4", "--at-once", "4", "--run", "monday")
        out, _ = producer.communicate(timeout=60)
        assert producer.returncode == 0, out
        outs.append(out)
    coins = [re.findall(r"\((\d+) coins", out) for out in outs]
    assert coins[0] == coins[1]
    assert all(count == 1 for _, count in captured(book))


def test_an_order_that_is_paid_ships_itself(client: Client, processes: Processes) -> None:
    processes.worker(*APP, effects=True)
    order = client.start_fsm(Order, "order-42")
    with pytest.raises(RejectedError, match="empty cart"):
        order.call("pay")
    order.transition("add", Line("tea", 12))
    while order.call("pay").state == "paying":
        if order.wait_for(("cart", "shipped"), timeout=20).state == "shipped":
            break
    cart = order.state().payload
    assert (cart.items, cart.total) == (["tea"], 12)
    assert re.fullmatch(r"parcel-\w{8}", cart.parcel)
    assert cart.receipt.startswith("receipt-")


def test_a_broken_glass_is_returned(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    order = client.start_fsm(Order, "order-42", Cart(["glass"], 9), state="paying")
    order.call("captured", {"receipt": "receipt-1", "total": 9})
    snapshot = order.wait_for("returned", timeout=20)
    assert snapshot.status == "finished"
    assert snapshot.error is not None
    assert snapshot.error["message"] == "the glass broke"


def test_the_bank_is_asked_by_a_stock_rq_worker_as_well(client: Client, processes: Processes, book: Path) -> None:
    processes.worker(*APP)
    processes.rq_worker("fsm-effects")
    order = client.start_fsm(Order, "order-42", Cart(["tea", "tea"], 24))
    order.call("pay")
    order.wait_for(("cart", "shipped"), timeout=30)
    with sqlite3.connect(book) as connection:
        assert connection.execute("select name, total from charges").fetchall() == [("order-42", 24)]


def test_a_notice_of_the_carrier_that_comes_twice_is_one_event(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    order = client.start_fsm(Order, "order-42", Cart(["tea"], 12), state="shipped")
    hook = processes.run("-m", "examples.orders.webhook", "--port", "0")
    assert hook.stdout is not None
    url = hook.stdout.readline().rpartition(" ")[2].strip()
    replies = []
    for _ in range(2):
        body = json.dumps({"id": "evt_7", "order": "order-42"}).encode()
        with urllib.request.urlopen(url, data=body, timeout=10) as reply:  # noqa: S310 - our own server
            replies.append((reply.status, json.loads(reply.read())))
    assert order.wait_for("delivered", timeout=20).status == "finished"
    assert replies[0] == replies[1]
    assert replies[0][0] == 200


def descendants(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the children of a process, then those of theirs."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, queue = [], [process.pid]
    while queue:
        more = children.get(queue.pop(0), [])
        found += more
        queue += more
    return found


def asking(workers: list[subprocess.Popen[str]]) -> list[int] | None:
    """Process ids of RQ's worker, and of the process in which it runs an effect, where one does."""
    return next((below for below in map(descendants, workers) if len(below) > 1), None)


@pytest.mark.chaos
@pytest.mark.slow
def test_workers_of_both_kinds_are_killed_and_no_order_is_charged_twice_or_stuck(
    client: Client, processes: Processes, book: Path, until: Callable[..., Any]
) -> None:
    """SIGKILL comes at any moment, also between the bank's book and the answer, eight times; then all goes on."""
    processes.environment["ORDERS_BANK_SECONDS"] = "0.3"
    chance = random.Random(20261121)
    lease = ("--lease", "1s")
    workers = [processes.worker(*APP, *lease, effects=True) for _ in range(2)]
    producer = processes.run("-m", "examples.orders", "--orders", "40", "--at-once", "12", "--run", "war")
    kills = {"worker": 0, "effects": 0}
    while min(kills.values()) < 4 and producer.poll() is None:
        if kills["effects"] <= kills["worker"]:
            # While the bank is being asked: RQ's worker, the process in which it runs the effect, or both.
            victims = until(lambda: asking(workers) or producer.poll() is not None, 60)
            for pid in [] if victims is True else chance.choice((victims, victims[:1], victims[1:])):
                with_pid_gone(pid)
            kills["effects"] += 1
        else:
            victim = chance.randrange(len(workers))
            until(lambda: descendants(workers[victim]), 30)  # noqa: B023 - used at once; it is up
            time.sleep(chance.uniform(0.0, 0.5))
            workers[victim].kill()
            workers[victim].communicate()
            workers[victim] = processes.worker(*APP, *lease, effects=True)
            kills["worker"] += 1
    out, _ = producer.communicate(timeout=100)

    assert producer.returncode == 0, out
    assert min(kills.values()) >= 4, f"the shop was done before {kills}"
    states = client.counts()["Order"]
    assert states["shipped"] + states["returned"] + states["cancelled"] == 40, states
    charged = captured(book)
    assert [one for one in charged if one[1] > 1] == []
    assert len(charged) == states["shipped"] + states["returned"]


def with_pid_gone(pid: int) -> None:
    """Kill a process that may have ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
