"""A process that sends: `python -m tests.chaos.producers URL NUMBER PLAN`, as many events as it is allowed so far.

On its input come lines with the number of events that it may have sent by then; on its output go lines with the number
that it has sent. Every event has a key: what is unknown (Redis was away) is sent again until it is known, and now and
then so is what was accepted long ago.
"""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import islice
from typing import Any

from fsm import Client, MailboxFullError, StoreError, verbs
from tests.chaos.plan import Plan

_CHUNK = 25
_PAUSE_S = 0.05
# Of so many chunks, one is sent again though it was accepted.
_AGAIN = 15
# And not later than this: `dedup` of the machines is twice as long.
_KNOWN_S = 60.0


def main(url: str, number: int, plan: Plan) -> None:
    """Send this producer's share."""
    by, sent, allowed = f"p{number}", 0, 0
    draw = random.Random(f"{plan.seed}/again/{number}")
    letters = plan.letters(number)
    earlier: list[tuple[float, list[tuple[str, int]]]] = []
    with Client(url) as client:
        while sent < plan.share(number):
            while allowed <= sent:
                allowed = int(sys.stdin.readline() or sys.exit(0))
            chunk = list(islice(letters, min(_CHUNK, allowed - sent)))
            # Before: some of it may be applied while what was refused is sent again and again.
            sent_at = time.monotonic()
            _send(client, by, chunk)
            sent += len(chunk)
            sys.stdout.write(f"{sent}\n")
            sys.stdout.flush()
            earlier.append((sent_at, chunk))
            # A key is known for two minutes, and on a busy machine twenty chunks may be older than that.
            earlier = [one for one in earlier[-20:] if time.monotonic() - one[0] < _KNOWN_S]
            if draw.randrange(_AGAIN) == 0 and earlier:
                _send(client, by, draw.choice(earlier)[1])


def _send(client: Client, by: str, chunk: list[tuple[str, int]]) -> None:
    sendings = [
        verbs.sending(None, name, "note", {"by": by, "n": n}, {"by": by, "n": n}, key=f"{by} {n}") for name, n in chunk
    ]
    while True:
        try:
            verdicts: list[Any] = client.do(verbs.send_many(client.keys, sendings, None))
        except StoreError:
            time.sleep(_PAUSE_S)
            continue
        errors = [verdict.error for verdict in verdicts if verdict.error is not None]
        if not errors:
            return
        if not any(isinstance(error, MailboxFullError) for error in errors):
            raise errors[0]
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Plan(**json.loads(sys.argv[3])))
