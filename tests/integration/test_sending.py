"""Keys, versions, starts on the way and waits, with real workers beside real clients."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from rq.suspension import resume, suspend

from fsm import (
    CallTimeoutError,
    Client,
    FailedError,
    HandlerError,
    KeyConflictError,
    StaleVersionError,
)
from tests.integration.machines import Journal, Nosy, Parcel, Slow

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.integration.conftest import Processes


def age(raw_redis: redis.Redis, seconds: int) -> None:
    """Make the time of all ended records be over that end so soon."""
    now: Any = raw_redis.time()
    ended: Any = raw_redis.zrange("fsm:default:ended", 0, -1, withscores=True)
    for batch, end in ended:
        if end <= int(now[0]) + seconds:
            raw_redis.zadd("fsm:default:ended", {batch: 1})


def test_an_event_is_applied_once_per_key_however_many_send_it_before_and_after_its_end(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    journal = client.start_fsm(Journal, "j")
    processes.worker()

    def send(number: int) -> str:
        return journal.transition("note", number % 10, key=f"evt-{number % 10}").id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(send, range(200)))
    assert len(set(ids)) == 10
    until(lambda: len(journal.state().payload) == 10)
    plain = journal.transition("note", 10)
    plain.result()

    # What has no key is forgotten after `result_ttl`, what has one is not.
    age(raw_redis, 70)
    until(lambda: journal.transition("note", 11).result() and not raw_redis.exists(f"rq:job:{plain.id}"))
    again = journal.transition("note", 3, key="evt-3")
    assert again.id == ids[3]
    assert again.result(1).ok
    with pytest.raises(KeyConflictError):
        journal.transition("note", 4, key="evt-3")
    assert sorted(set(journal.state().payload)) == list(range(12))
    assert [journal.state().payload.count(number) for number in range(10)] == [1] * 10


def test_a_stock_worker_of_rqs_keeps_the_record_of_a_key_as_well(
    processes: Processes, client: Client, raw_redis: redis.Redis
) -> None:
    journal = client.start_fsm(Journal, "j")
    left: list[Any] = []
    # Each is the one job that RQ finds on its list, and runs to its end in its own way.
    for number, options in ((0, {}), (1, {"key": "k"}), (2, {})):
        job = journal.transition("note", number, **options)
        assert processes.rq_worker("--burst", "fsm").wait(60) == 0
        left.append(raw_redis.ttl(f"rq:job:{job.id}"))

    assert journal.state().payload == [0, 1, 2]
    assert 80_000 < left[1] <= 86_400
    assert 0 < left[2] <= 60
    assert journal.transition("note", 1, key="k").status() == "done"


def test_of_all_who_decided_on_one_version_one_is_heard(processes: Processes, client: Client) -> None:
    journal = client.start_fsm(Journal, "j")
    processes.worker()
    journal.call("note", 0, timeout=20)

    for round_ in range(1, 6):
        version = journal.state().version
        assert isinstance(version, int)

        def decide(number: int, version: int = version) -> bool:
            try:
                return journal.call("note", number, if_version=version, timeout=20).ok
            except StaleVersionError:
                return False

        with ThreadPoolExecutor(6) as pool:
            heard = list(pool.map(decide, [round_ * 10 + n for n in range(6)]))
        assert heard.count(True) == 1

    assert len(journal.state().payload) == 6


def test_an_fsm_that_many_start_at_once_is_started_once_and_gets_all_events(
    processes: Processes, client: Client, until: Callable[..., Any]
) -> None:
    processes.worker()
    until(lambda: "Journal" in client.machines())

    def send(number: int) -> bool:
        start: Any = (Journal, []) if number % 2 else "Journal"
        return client.call(f"j-{number % 5}", "note", number, start=start, timeout=20).ok

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(send, range(100)))

    notes = [client.state(f"j-{n}", Journal).payload for n in range(5)]
    assert sorted(number for one in notes for number in one) == list(range(100))
    assert [client.state(f"j-{n}").version for n in range(5)] == [21] * 5


def test_a_call_settles_where_its_chain_comes_to_rest(processes: Processes, client: Client) -> None:
    processes.worker()
    client.start_many(Parcel, ["light", "heavy", "late"])

    light = client.call("light", "pack", {}, settle=True, timeout=20)
    heavy = client.call("heavy", "pack", {"heavy": True}, settle=True, timeout=20)
    late = client.transition("late", "pack", {"heavy": True}, key="k")

    assert (light.ok, light.state, light.version, light.event) == (True, "home", 4, "pack")
    assert (heavy.ok, heavy.state, heavy.reason) == (False, "broken", "too heavy")
    assert late.result(20).state == "packed"
    assert late.result(settle=True).state == "broken"
    assert client.call("late", "pack", {"heavy": True}, key="k", settle=True).state == "broken"


def test_an_adopted_fsm_goes_on_from_its_state(processes: Processes, client: Client) -> None:
    processes.worker()

    parcel = client.start_fsm(Parcel, "p", state="packed")
    journal = client.start_fsm(Journal, "j", [7], state="odd")

    assert parcel.wait_for("home", timeout=20).history == ("packed", "sent", "home")
    assert journal.call("note", 8, timeout=20).state == "even"
    assert (journal.state().payload, journal.state().history) == ([7, 8], ("odd", "even"))


def test_a_state_is_not_missed_though_the_fsm_only_passes_through(
    processes: Processes, client: Client, until: Callable[..., Any]
) -> None:
    processes.worker()
    for number in range(8):
        parcel = client.start_fsm(Parcel, f"p-{number}")
        with ThreadPoolExecutor(1) as beside:
            waiter = beside.submit(parcel.wait_for, "packed", timeout=20)
            # It sleeps in Redis: so it has begun.
            until(lambda: any(one["cmd"] == "xread" for one in client.redis.client_list()))
            parcel.transition("pack", {})
            assert waiter.result().state == "home"


@pytest.mark.parametrize(("event", "what"), [("call", "call('note') of FSM 'j'"), ("dream", "waiting for state 'odd'")])
def test_a_handler_that_waits_fails_at_once_and_says_what_to_use(
    processes: Processes, client: Client, event: str, what: str
) -> None:
    journal = client.start_fsm(Journal, "j")
    nosy = client.start_fsm(Nosy, "n")
    processes.worker()

    with pytest.raises(HandlerError) as raised:
        nosy.call(event, "j", timeout=20)

    assert raised.value.type == "HandlerError"
    assert what in raised.value.message
    assert "t.send(" in raised.value.message
    assert journal.state().payload == []


def test_a_timeout_says_that_no_worker_listens_and_then_who_has_it_in_hand(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    slow = client.start_fsm(Slow, "s")
    with pytest.raises(CallTimeoutError, match="no worker listens on queue 'fsm'") as nobody:
        slow.call("nap", 2, timeout=0.1)
    worker = processes.worker("--name", "sleepy")
    until(lambda: raw_redis.exists("fsm:default:lock:s") and slow.state().version == 0)

    with pytest.raises(CallTimeoutError, match=r"worker sleepy has had it in hand for \d+\.\d s, and 2 events wait"):
        slow.call("nap", 0, timeout=0.2)
    assert client.job(nobody.value.job_id).result(20).ok

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    with pytest.raises(CallTimeoutError, match="no worker listens"):
        slow.call("nap", 0, timeout=0.1)


def test_a_timeout_says_that_workers_are_suspended(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    journal = client.start_fsm(Journal, "j")
    processes.worker()
    journal.call("note", 1, timeout=20)
    suspend(raw_redis)
    until(lambda: b"suspended" in [raw_redis.hget(key, "state") for key in raw_redis.smembers("rq:workers")])

    with pytest.raises(CallTimeoutError, match="workers are suspended: `rq resume` lets them go on") as raised:
        journal.call("note", 2, timeout=0.2)

    resume(raw_redis)
    assert client.job(raised.value.job_id).result(20).ok


def test_an_fsm_that_has_failed_says_so_to_who_waits(
    processes: Processes, client: Client, until: Callable[..., Any]
) -> None:
    processes.worker()
    parcel = client.start_fsm(Parcel, "p", {"journal": "j"}, state="sent")
    until(lambda: parcel.state().status == "failed")

    with pytest.raises(CallTimeoutError, match=r"it cannot go on by itself: in .sent. arrive failed"):
        parcel.call("pack", {}, timeout=0.1)
    with pytest.raises(FailedError, match="event 'arrive' of FSM 'p' in state 'sent': 'touch'"):
        parcel.wait_for("home", timeout=5)
