"""Three hosts of two processes under load: one dies, one is cut off and heals, a fourth joins, the first is drained.

No event is lost, applied twice or out of order; and what everybody counts at the end is the same, and true.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fsm import Client
from fsm.store.embedded import EmbeddedServer
from tests.cluster.journey import ClusterPlan, Journey, command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Host

# What others need beyond the lease to go on, by the contract; and what a machine with much else to do may take.
_TAKEOVER_MS, _BUSY_MS = 2000, 3000
# `make cluster` asks for more.
EVENTS = int(os.environ.get("CLUSTER_EVENTS", "6000"))
PLAN = ClusterPlan(fsms=40, events=EVENTS, lease_ms=2000, retries=True, poisons=0, delayed=max(64, EVENTS // 100))


def lose(journey: Journey, host: Host) -> None:
    """A host dies, with all its processes."""
    takeover = journey.strike(host, "died", host.stop_all, host.go_on)
    host.kill()
    journey.taken_over(takeover)
    journey.goes_on()


def cut_off_and_heal(journey: Journey, host: Host) -> None:
    """A host is cut off for longer than its lease, with what it has in hand, and comes back."""
    takeover = journey.strike(host, "was cut off", host.way.darken, host.way.lighten)
    journey.taken_over(takeover)
    journey.goes_on()
    assert [line for line in journey.lines_of(host) if line > takeover.at_ms + 500] == [], "nobody could hear it"
    healed_ms = time.time() * 1000
    host.way.lighten()
    journey.until(lambda: journey.lines_of(host)[-1] > healed_ms, "it goes on when it is back")


def join(journey: Journey, host: Host) -> None:
    """A host joins, and takes its part."""
    host.start()
    journey.until(host.is_at_work, f"{host.name} is at work")
    journey.until(lambda: journey.lines_of(host), f"{host.name} takes its part")


def drain(journey: Journey, host: Host, url: str) -> None:
    """A host ends in order, as an operator told it."""
    drained = command(url, "drain", host.name, "--timeout", "30")
    assert drained.returncode == 0, drained.stderr
    assert host.wait() == 0
    assert host.workers() == []
    journey.goes_on()


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(240 + EVENTS // 100)  # a dozen processes are started, while others start theirs
def test_hosts_die_are_cut_off_join_and_are_drained_and_every_event_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    passed: list[float] = []
    with EmbeddedServer() as server:
        journey = Journey(PLAN, server, tmp_path)
        first, second, third, fourth = journey.hosts
        with journey.under_way(first, second, third):
            acts = (
                lambda: journey.goes_on(300),
                lambda: lose(journey, second),
                lambda: cut_off_and_heal(journey, third),
                lambda: join(journey, fourth),
                lambda: drain(journey, first, server.url),
            )
            for number, act in enumerate(acts, 1):
                journey.load(number / (len(acts) + 1))
                act()
                passed.append(time.monotonic() - begin)
            journey.calm()
            passed.append(time.monotonic() - begin)
            faults = journey.judge()
            seen = []
            for host in (third, fourth):
                with Client(host.way.url, namespace="default") as client:
                    seen.append(journey.views(client))
            assert command(third.way.url, "synch").stdout == ""
            counted = command(fourth.way.url, "count").stdout
            ends = [host.stop() for host in (third, fourth)]

    with capsys.disabled():
        told = [*journey.takeovers, f"synch {journey.synched} times", f"{time.monotonic() - begin:.0f} s in all"]
        told.append("began, lost, cut off, joined, drained, calm after " + ", ".join(f"{one:.0f} s" for one in passed))
        stale = len(third.lines("nothing was written", "was lost before its events were run"))
        told.append(f"{stale} times {third.name} was told that its lock was lost")
        sys.stdout.write("\n" + "".join(f"  {line}\n" for line in told))
    assert faults == [], "\n".join(faults)
    assert ends == [0, 0]
    assert journey.synched > 3
    # A late joiner sees what everybody does: each FSM once.
    assert seen[0] == seen[1]
    assert sorted(seen[0]["all"]) == sorted(PLAN.names())
    assert seen[0]["count"] == PLAN.fsms == int(counted)
    assert seen[0]["finished"] == PLAN.fuses
    assert seen[0]["nodes"] == [third.name, fourth.name]
    # Each is pinned, or any host runs it, or it has moved to where the ring has it, or will with its next event.
    pinned = {name: seen[0]["all"][name].host for name in journey.pinned.values()}
    assert pinned == {name: host for host, name in journey.pinned.items()}
    for takeover in journey.takeovers:
        assert takeover.held, f"{takeover}: nothing was at stake"
        assert max(takeover.taken) < PLAN.lease_ms + _TAKEOVER_MS + _BUSY_MS, str(takeover)
