"""What operators do while real workers run: retry, skip, pause, resume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fsm import CallTimeoutError, Client, FailedError
from tests.integration.operator_machines import WIND, Mill
from tests.integration.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from fsm.store.embedded import EmbeddedServer
    from tests.integration.conftest import Processes

APP = ("--app", "tests.integration.operator_machines")


@pytest.fixture
def wind(tmp_path: Path, processes: Processes) -> Path:
    """The file without which no mill grinds."""
    path = tmp_path / "wind"
    processes.environment[WIND] = str(path)
    return path


@pytest.fixture
def fsm(processes: Processes) -> Callable[..., str]:
    """Run the command `fsm` as an operator does: what it printed."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "from fsm.cli import main; main()", *arguments]
        done = subprocess.run(
            command, env=processes.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_fsm_that_cannot_go_on_is_found_and_retried_and_goes_on_with_its_mail_in_order(
    processes: Processes, client: Client, wind: Path, fsm: Callable[..., str], until: Callable[..., Any]
) -> None:
    processes.worker(*APP)
    mill = client.start_fsm(Mill, "mill")
    mill.transition("mill", job_id="mill-1")
    until(lambda: mill.state().status == "failed")
    jobs = [mill.transition("note", number) for number in range(3)]

    assert fsm("ls", "--status", "failed").split("\t")[:4] == ["mill", "Mill", "milling", "failed"]
    assert "`fsm retry mill` lets it go on" in fsm("state", "mill")
    wind.touch()
    assert fsm("retry", "mill") == "retried\tmill\tgrind\tmill-1--h1\n"

    assert all(job.result(30).ok for job in jobs)
    state = mill.state()
    assert (state.state, state.status, state.error, state.payload) == ("idle", "running", None, {"notes": [0, 1, 2]})
    assert client.job("mill-1--h1").status() == "done"
    lines = [(line.get("verb") or line["event"], line.get("error")) for line in mill.log()]
    assert lines[:5] == [("[*]", None), ("mill", None), ("grind", "no wind"), ("retry", None), ("grind", None)]


def test_an_event_that_waits_for_its_retry_is_tried_at_once_or_skipped(
    processes: Processes, client: Client, wind: Path, until: Callable[..., Any]
) -> None:
    processes.worker(*APP)
    mill = client.start_fsm(Mill, "mill")
    waits = mill.transition("wait")
    behind = mill.transition("note", 1)
    until(lambda: mill.state().retry_at is not None, 30)
    with pytest.raises(
        CallTimeoutError, match=r"event 'wait' is tried again in .* `fsm retry mill` does it now, and 1 "
    ):
        behind.result(0)
    assert [(event.attempt, event.next_at is not None) for event in mill.jobs().events] == [(2, True), (1, False)]

    wind.touch()
    assert mill.retry() == waits
    assert behind.result(30).ok
    assert mill.state().retry_at is None
    wind.unlink()
    waits = mill.transition("wait")
    behind = mill.transition("note", 2)
    until(lambda: mill.state().retry_at is not None, 30)
    assert mill.skip(waits.id) == waits

    assert behind.result(30).ok
    assert (mill.state().payload, client.redis.zcard(client.keys.timers)) == ({"notes": [1, 2]}, 0)


def test_a_paused_fsm_stands_under_load_and_goes_on_in_order_when_it_is_resumed(
    processes: Processes, client: Client, raw_redis: redis.Redis, until: Callable[..., Any]
) -> None:
    # Seen to fail without the look at `paused` in `claim`.
    processes.worker(*APP)
    processes.worker(*APP)
    mill, witness = client.start_fsm(Mill, "mill"), client.start_fsm(Mill, "witness")
    client.transition_many([("mill", "note", number) for number in range(500)])
    until(lambda: mill.state().version > 1)

    mill.pause()
    until(lambda: not raw_redis.exists(client.keys.lock("mill")))
    stands = mill.state()
    last = client.transition_many([("mill", "note", number) for number in range(500, 700)])[-1]
    # Both workers have nothing else to do than what is ready: they would have come to it.
    for number in range(20):
        witness.call("note", number, timeout=30)

    assert (stands.status, mill.state()) == ("paused", stands)
    assert mill.resume()
    assert client.job(last.job_id).result(30).ok
    assert mill.state().payload == {"notes": list(range(700))}


def test_a_poison_is_skipped_and_the_next_event_is_not_charged_with_its_deaths(
    processes: Processes, client: Client, until: Callable[..., Any]
) -> None:
    victim = processes.worker(*APP, "--lease", "500ms")
    mill = client.start_fsm(Mill, "mill")
    until(lambda: mill.state().version == 1, 30)
    poison = mill.transition("jam")
    until(lambda: victim.poll() is not None, 30)
    later = [mill.transition("note", number) for number in range(2)]

    # Waits for the end of the dead worker's lease.
    skipped = mill.skip(poison.id, timeout=30)

    assert skipped == poison
    survivor = processes.worker(*APP, "--lease", "500ms")
    assert all(job.result(30).ok for job in later)
    assert (mill.state().payload, mill.state().tries) == ({"notes": [0, 1]}, 0)
    assert survivor.poll() is None
    with pytest.raises(FailedError, match="skipped by"):
        poison.result(1)


def test_a_call_whose_reply_is_lost_skips_one_event_and_no_more(client: Client, redis_server: EmbeddedServer) -> None:
    # Seen to fail without the answer kept under the nonce in `steer`.
    client.start_fsm(Mill, "mill")
    client.redis.delete(client.keys.mailbox("mill"))
    client.redis.hdel(client.keys.snapshot("mill"), "status")
    sent = client.transition_many([("mill", "note", number) for number in range(60)])
    with Proxy(redis_server.url.removeprefix("unix://"), seed=1) as proxy, Client(proxy.url) as far:
        proxy.loses_one_in = 4
        skipped = [far.skip("mill") for _ in range(40)]

    assert proxy.lost > 5
    assert [job and job.id for job in skipped] == [verdict.job_id for verdict in sent[:40]]
    assert len(client.jobs("mill").events) == 20
    assert len([line for line in client.log() if line.get("verb") == "skip"]) == 40
