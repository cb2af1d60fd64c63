"""How a worker takes work: claims of the right size, FSMs that it cannot run, sleep, and what dead workers left.

Who calls this: the worker, between one batch and the next.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import calls, presence
from workers.carrier import is_passing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fsm.store.calls import Claimed, Claims
    from fsm.store.keys import Keys
    from workers.carrier import Carrier
    from workers.lease import LeaseKeeper

__all__ = ["AHEAD_S", "Intake"]

_log = logging.getLogger("fsm.worker")
# Work that is claimed ahead, in seconds of what handlers were measured to take.
AHEAD_S = 0.020
# An idle worker looks at `ready` this often, in case RQ's list was emptied behind its back.
_SLEEP_S = 1
# A worker that was not heard of for this long is dead: six heartbeats.
_DEAD_AFTER_MS = 30_000
_STRANGE_PAUSE_S = 0.2


class Intake:
    """Claims FSMs for one worker.

    Args:
        carrier: Carries the requests.
        keys: Of the namespace.
        worker: Name of the worker.
        queues: Names of queues, in order of preference.
        keeper: Who renews the locks.
        machines: Names of the machines that this worker knows.
        lease_ms: How long a lock lasts unrenewed.
        batch: Most FSMs in one claim.
    """

    def __init__(  # noqa: PLR0913 - what a claim is made of
        self,
        carrier: Carrier,
        keys: Keys,
        worker: str,
        queues: Sequence[str],
        keeper: LeaseKeeper,
        machines: Collection[str],
        *,
        lease_ms: int,
        batch: int,
    ) -> None:
        self._carrier = carrier
        self._keys = keys
        self._worker = worker
        self._queues = tuple(queues)
        self._keeper = keeper
        self._machines = machines
        self._lease_ms = lease_ms
        self._batch = batch
        # Numbers grow also over a restart under the same name: the last verdicts of the former life are not ours.
        self._number = time.time_ns() // 1000
        self._seconds_per_fsm = AHEAD_S / batch
        self._recovered_at = 0.0
        self._found: list[str] = []
        self._reported: set[str] = set()
        self.is_sleeping = False

    def claim(self) -> Claims:
        """Claim from each queue in order, until the batch is full: about 20 ms of work, down to one FSM."""
        want = max(1, min(self._batch, int(AHEAD_S / max(self._seconds_per_fsm, 1e-6))))
        claims = calls.Claims([], [])
        for queue in self._queues:
            more = self._claim_from(queue, want - len(claims.held), {fsm.token for fsm in claims.held})
            claims.held += more.held
            claims.at = claims.at or more.at
            claims.at_ms = claims.at_ms or more.at_ms
            if len(claims.held) >= want:
                break
        return self._known(claims)

    def _claim_from(self, queue: str, fsms: int, kept: Collection[str]) -> Claims:
        self._number += 1
        token = secrets.token_hex(16)
        found, self._found = self._found, []
        asked_at = time.monotonic()
        claims = self._carrier.carry(
            calls.claim(
                self._keys,
                self._worker,
                queue,
                token,
                self._number,
                lease_ms=self._lease_ms,
                fsms=fsms,
                kept=tuple(kept),
                found=tuple(found),
            )
        )
        self._keeper.hold([fsm.name for fsm in claims.held], token, asked_at)
        for name, why in claims.broken:
            _log.error("a key of FSM %r is of another type and it cannot go on: %s", name, why)
        return claims

    def _known(self, claims: Claims) -> Claims:
        """Keep FSMs whose machine this worker knows; the others go to the tail, where another worker may find them."""
        strange = [fsm for fsm in claims.held if fsm.machine not in self._machines]
        for fsm in strange:
            if fsm.machine not in self._reported:
                self._reported.add(fsm.machine)
                _log.warning(
                    "FSM %r waits for a worker that knows machine %r; this one knows %s",
                    fsm.name,
                    fsm.machine,
                    ", ".join(sorted(self._machines)),
                )
        if strange:
            self.give_back(strange, tail=True)
            claims.held = [fsm for fsm in claims.held if fsm.machine in self._machines]
            if not claims.held:
                # They ring again at once: wait, so that a worker that knows them gets a chance before us.
                time.sleep(_STRANGE_PAUSE_S)
        return claims

    def give_back(self, fsms: Sequence[Claimed], *, tail: bool = False) -> None:
        """Release FSMs unworked: to the front of those that wait, or to the tail."""
        pairs = [(fsm.name, fsm.token) for fsm in fsms]
        self._carrier.carry(calls.release(self._keys, self._worker, pairs, tail=tail))
        self._keeper.let_go(fsm.name for fsm in fsms)

    def learn(self, fsms: int, seconds: float) -> None:
        """Remember what FSMs take, for the size of the next claim."""
        if fsms:
            self._seconds_per_fsm = 0.7 * self._seconds_per_fsm + 0.3 * seconds / fsms

    def sleep(self) -> None:
        """Sleep until an id comes on RQ's list, a second at most."""
        # With several queues the id is only in the reply: that sleep must not be broken off.
        self.is_sleeping = len(self._queues) == 1
        try:
            found = self._carrier.once(presence.sleep(self._keys, self._worker, self._queues, _SLEEP_S))
            self._found += [found] if found else []
        except StoreError as error:
            if not is_passing(error):
                raise
            _log.warning("lost Redis while asleep: %s", error)
        finally:
            self.is_sleeping = False

    def recover(self) -> int:
        """Free what dead workers held, at most once a second; gives how much there is to do now."""
        now = time.monotonic()
        if now - self._recovered_at < _SLEEP_S:
            return 0
        self._recovered_at = now
        dead = self._carrier.carry(presence.silent(self._keys, int(time.time() * 1000) - _DEAD_AFTER_MS))
        freed, rehung = self._carrier.carry(calls.recover(self._keys, dead))
        if dead:
            self._carrier.carry(presence.leave(self._keys, dead))
        if freed:
            _log.warning("freed %d FSMs whose worker died", freed)
        return freed + rehung
