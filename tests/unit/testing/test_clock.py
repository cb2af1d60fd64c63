"""Time that a test moves, in a world in memory."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fsm import Client, Machine, PayloadError, Retry, Settings, StoreError, Transition, on
from fsm.store import requests
from fsm.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

T = Transition[dict[str, Any]]


class Order(Machine[dict[str, Any]]):
    """Expires in a day unless it is paid, and looks around once an hour."""

    settings = Settings(timer="1h")
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> open : later
        open --> open : again
        open --> open : ask
        open --> open : late
        open --> paid : pay
        open --> expired : expire after 24h
        paid --> [*] : close
        expired --> [*]
    """

    def on_timer(self, t: T) -> None:
        t.payload.setdefault("ticks", []).append(t.now.isoformat())

    @on("note")
    def note(self, t: T, text: str) -> None:
        t.payload.setdefault("notes", []).append(text)

    @on("later")
    def later(self, t: T, hours: float) -> None:
        t.after(timedelta(hours=hours), "note", f"after {hours:g} h", scope="fsm")

    @on("again")
    def again(self, t: T) -> Retry | None:
        t.payload["tried"] = t.attempt
        return Retry("5m") if t.attempt == 1 else None

    @on("ask")
    def ask(self, t: T) -> None:
        t.enqueue("shop.charge", on_success="note", on_failure="late", deadline="10m")

    @on("late")
    def late(self, t: T, data: dict[str, str]) -> None:
        t.payload["late"] = data["type"]


class Loop(Machine):
    """Arms itself again, with next to no time between."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : turn after 1s
    """


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("memory://?effects=off") as made:
        yield made


@pytest.fixture
def clock(client: Client) -> Iterator[Clock]:
    with Clock(client) as made:
        yield made


def test_a_timer_of_a_day_goes_off_when_its_day_is_over(client: Client, clock: Clock) -> None:
    # Seen to fail without `clock.lua`: time stood where it was.
    order = client.start_fsm(Order, "a")
    clock.advance("23h")
    assert order.state().state == "open"

    clock.advance("1h")

    assert order.state().status == "finished"
    assert list(order.log())[-1]["event"] == "expire"


def test_what_is_due_on_the_way_comes_at_its_own_time(client: Client, clock: Clock) -> None:
    # Seen to fail where the time jumped to its end: one tick came, at the end of five hours.
    order = client.start_fsm(Order, "a")
    order.transition("later", 2.5)
    order.transition("note", "delayed", delay="90m")
    begin = clock.now

    clock.advance("5h")

    payload = order.state().payload
    assert payload["notes"] == ["delayed", "after 2.5 h"]
    after = [datetime.fromisoformat(tick) - begin for tick in payload["ticks"]]
    assert len(after) == 5
    assert all(abs(late - timedelta(hours=number)) < timedelta(minutes=1) for number, late in enumerate(after, 1))


def test_handlers_and_snapshots_see_the_time_that_it_is(client: Client, clock: Clock) -> None:
    order = client.start_fsm(Order, "a")
    clock.advance("12h")
    true = datetime.now(UTC)

    order.transition("note", "now")

    assert timedelta(hours=11) < order.state().updated_at - true < timedelta(hours=13)
    assert timedelta(hours=11) < clock.now - true < timedelta(hours=13)


def test_what_redis_and_rq_count_by_themselves_does_not_move(client: Client, clock: Clock) -> None:
    order = client.start_fsm(Order, "a")
    clock.advance("12h")
    job = order.transition("note", "x")

    since = datetime.fromisoformat(client.redis.hget(f"rq:job:{job.id}", "enqueued_at").decode())
    assert abs(since - datetime.now(UTC)) < timedelta(hours=1)
    assert job.result(1).ok
    assert client.redis.ttl("fsm:default:snapshot:a") == -1


def test_a_retry_waits_for_nobody_in_memory(client: Client, clock: Clock) -> None:
    order = client.start_fsm(Order, "a")
    order.transition("again")

    assert order.state().payload["tried"] == 2


def test_the_deadline_of_an_effect_comes(client: Client, clock: Clock) -> None:
    order = client.start_fsm(Order, "a")
    order.transition("ask")
    clock.advance("9m")
    assert "late" not in order.state().payload

    clock.advance("1m")

    assert order.state().payload["late"] == "deadline"


def test_a_machine_that_never_rests_is_told_of(client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.testing.clock._MOST_STOPS", 20)
    client.start_fsm(Loop, "a")

    with pytest.raises(StoreError, match="no time between"):
        clock.advance("1h")


@pytest.mark.parametrize("delay", ["soon", -1, None])
def test_what_is_no_length_of_time_is_told(clock: Clock, delay: Any) -> None:
    with pytest.raises(PayloadError, match="delay"):
        clock.advance(delay)


def test_at_its_end_this_process_goes_by_the_true_time_again(client: Client) -> None:
    # Seen to fail without `cache_clear`: scripts were kept as they were loaded first.
    with Clock(client) as clock:
        clock.advance("25h")
        client.start_fsm(Order, "b")
        assert "fsm:clock" in requests.script("claim")[0]
        assert os.environ[requests.TEST_CLOCK] == "1"
    client.start_fsm(Order, "a")

    assert requests.TEST_CLOCK not in os.environ
    assert client.state("a").updated_at.timestamp() < time.time() + 3600


@pytest.mark.parametrize(
    "name", ["start", "send", "claim", "commit", "due", "recover", "extend", "look", "beat", "host"]
)
def test_no_script_of_production_knows_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(requests.TEST_CLOCK, raising=False)
    requests.script.cache_clear()
    text, sha = requests.script(name)
    monkeypatch.setenv(requests.TEST_CLOCK, "1")
    requests.script.cache_clear()
    moved, other = requests.script(name)
    requests.script.cache_clear()

    assert "fsm:clock" not in text
    # Whether a worker or a host lives is told by the true time, by which registries are read.
    assert ("fsm:clock" in moved, sha != other) == ((False, False) if name in {"beat", "host"} else (True, True))
