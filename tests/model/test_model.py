"""The scripts against a plain model of them, on fakeredis and on a real server.

Seen to fail within 30 to 60 examples when one of these was taken out, each by itself:

- commit: the comparison of tokens (whole, or of the worker alone), the kept verdicts of a nonce, the ring of what has
  mail left, the removal of urgent ids, `LPOP` from the head (from the tail instead), no ring while a retry waits, who
  comes to those with an error and leaves them;
- claim: `LATE`, the same FSMs for the same number, `NX` of the lock, freeing what the worker does not name and keeping
  what it names, an id that comes twice being done the second time, suspects alone, left to later claims and with one
  event, the note in `held`, only what failed being adopted, nothing of what waits for its time or is paused;
- recover: the count of `tries`, the ring, the look at a lock that still stands, the token of a dead worker's claim;
- release, extend: the token; send: the memory of the job id, and of what was deleted in a worker's hands; cancel:
  what a worker holds, the ring, the alarm; purge: the lock, and that it leaves those with an error; due: the ring, also
  of delayed mail; steer: the nonce, `HELD`;
- the activation: the place of an event whose id comes again, or that waits for its time, a hard event made again and
  owed while it waits, whether the timer of an event still stands; the dropping of ended records: the place of one that
  is in use again.

Found by other examples, or by many more: the memory of an entry event's id, the hand of a worker that slept, `born` of
a purge, a purge that leaves alone what was applied.
Not found: the look at the version in steer, older verdicts that would take the place of newer ones; whom `expire`
leaves, for hardly one has mail when it has finished; and what only hands in Redis lead to, mail of an earlier life in a
mailbox and mail that somebody else than the holder took out.

HYPOTHESIS_PROFILE=long goes on for many minutes, with other examples each time.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Driving

if TYPE_CHECKING:
    import redis

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
# The first costs some 0.1 s an example on an idle machine, the second the half.
EXAMPLES = {"fake": 2000, "real": 10_000} if IS_LONG else {"fake": 8, "real": 30}


@pytest.mark.timeout(36_000 if IS_LONG else 300)
@pytest.mark.parametrize("kind", ["fake", "real"])
def test_redis_does_what_the_model_does(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    # Handlers fail here by the thousand, and each is worth a traceback elsewhere.
    caplog.set_level(logging.ERROR, "fsm.worker")
    client: redis.Redis = request.getfixturevalue({"fake": "fake_redis", "real": "raw_redis"}[kind])
    machine = type("Driving", (Driving,), {"redis": client})
    # A failure is printed as the calls that led to it. Without `explain`, which tries many more to say less.
    phases = [Phase.generate, Phase.shrink]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[kind],
            stateful_step_count=50,
            deadline=None,
            derandomize=not IS_LONG,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
