"""Full mailboxes and long ones, with real workers: nobody waits for ever, and nobody waits for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm import MailboxFullError
from fsm.store.codec import rq_ms
from tests.integration.crowd_machines import ANSWERED, Fighter, Heap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm import Client
    from tests.integration.conftest import Processes

APP = ("--app", "tests.integration.crowd_machines")
FIGHTERS = ("left", "right")


def test_two_fsms_that_fill_each_others_mailboxes_go_on(
    client: Client, processes: Processes, until: Callable[..., Any]
) -> None:
    # Seen to fail without the bound in `deliver`: the mailbox of the one that stood held 60 events.
    client.start_many(Fighter, FIGHTERS)
    processes.worker(*APP)
    processes.worker(*APP)
    until(lambda: all(client.state(name).version == 1 for name in FIGHTERS), 30)
    client.pause("left")
    assert all(one.error is None for one in client.transition_many([("right", "hit")] * 20))
    until(lambda: client.state("right").payload.get("hits") == 20, 30)

    # Its own bound for who sends from outside, twice that for its neighbour.
    assert client.redis.llen(client.keys.mailbox("left")) == 40
    with pytest.raises(MailboxFullError, match=r"mailbox of FSM 'left' is full \(20 events\)"):
        client.transition("left", "hit")
    with pytest.raises(MailboxFullError):
        client.call("left", "hit", key="k")
    assert isinstance(client.transition_many([("left", "hit")])[0].error, MailboxFullError)
    failed = client.redis.zrange("rq:failed:fsm", 0, -1)
    reasons = {client.redis.hget(f"rq:job:{job.decode()}", "exc_info") for job in failed}
    assert (len(failed), reasons) == (20, {b"mail from right not delivered: FULL"})

    client.resume("left")
    until(lambda: client.state("left").payload.get("hits", 0) >= ANSWERED, 30)
    until(lambda: not any(client.redis.exists(client.keys.mailbox(name)) for name in FIGHTERS), 30)
    payloads = [client.state(name).payload for name in FIGHTERS]
    # None is lost and none comes twice: each was applied, or its record says why not.
    assert sum(one["hits"] for one in payloads) == 20 + sum(one["sent"] for one in payloads) - client.redis.zcard(
        "rq:failed:fsm"
    )
    assert {client.state(name).status for name in FIGHTERS} == {"running"}


def test_a_mailbox_of_100_000_events_does_not_hold_up_other_fsms(
    client: Client, processes: Processes, until: Callable[..., Any]
) -> None:
    # Seen to fail where `claim` took as many events of one FSM as it takes in all: 1,000 of the large one came between.
    others = [f"small-{n}" for n in range(10)]
    client.start_many(Heap, ["large", *others])
    verdicts = client.transition_many([("large", "count")] * 100_000)
    assert not any(verdict.error for verdict in verdicts)
    processes.worker(*APP)
    between = []
    for turn in range(1, 4):
        before = client.state("large").version
        until(lambda before=before: client.state("large").version > before, 30)
        sent = client.transition_many([(name, "count") for name in others])
        until(lambda version=turn + 1: all(client.state(name).version == version for name in others), 30)
        since_ms = client.redis.hget(f"rq:job:{sent[0].job_id}", "enqueued_at")
        between.append(_of_the_large_one(client, others, turn + 1, since_ms))
    assert client.redis.llen(client.keys.mailbox("large")), "it was gone before the others came: nothing was shown"
    # The hundred that the worker had in hand, and the next hundred at most.
    assert max(between) <= 300, between


def _of_the_large_one(client: Client, others: list[str], version: int, since: bytes) -> int:
    """Count the events of the large one that were committed after the others' were sent, and before they were done."""
    begin = rq_ms(since.decode())
    assert begin is not None
    count, left = 0, set(others)
    for line in client.log():
        if line["at_ms"] > begin and line["name"] == "large":
            count += 1
        elif line["name"] in left and line["version"] == version:
            left.remove(line["name"])
            if not left:
                return count
    pytest.fail(f"not in the log: {left}")
