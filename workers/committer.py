"""How a worker's commits leave it: ahead of their replies from the main thread, at once from the thread of `Relief`.

What is done under a lock that is not trusted any more (see `lease`) does not leave it at all.

Who calls this: the worker and its batch, one thread at a time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from fsm.errors import StoreError
from fsm.store import calls, commits
from workers import points
from workers.stored import StoredBlock, stored_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsm.store.keys import Keys
    from workers.carrier import Carrier, Line, Ticket
    from workers.lease import LeaseKeeper
    from workers.shelf import Shelf

__all__ = ["Committer"]

_log = logging.getLogger("fsm.worker")


class Committer:
    """Commits what is done, and tells the log what was not written.

    Args:
        carrier: Carries commits whose reply is waited for.
        line: Carries commits ahead of their replies.
        keys: Of the namespace.
        worker: Name of the worker.
        keeper: Who renews the locks: not those of what is committed.
        lease_ms: For how long the worker's own keys are kept.
        note_retry: Called where an event is to be tried again, so that somebody looks when.
        shelf: The storages of the machines, if any has one: they are told before Redis is.
    """

    def __init__(  # noqa: PLR0913 - what a commit is made of
        self,
        carrier: Carrier,
        line: Line,
        keys: Keys,
        worker: str,
        keeper: LeaseKeeper,
        *,
        lease_ms: int,
        note_retry: Callable[[], None],
        shelf: Shelf | None = None,
    ) -> None:
        self._shelf = shelf
        self._carrier = carrier
        self._line = line
        self._keys = keys
        self._worker = worker
        self._keeper = keeper
        self._lease_ms = lease_ms
        self._note_retry = note_retry
        # As the numbers of claims: they grow over a restart under the same name.
        self._nonce = time.time_ns() // 1000
        self._under_way: tuple[Ticket[list[str]], Sequence[str]] | None = None

    def commit(self, claimed_at: str, blocks: Sequence[list[Any]], names: Sequence[str], later: bool) -> None:  # noqa: C901, FBT001 - one guard after the other; a callback
        """Commit what is done. It does not raise: what is not written is run again, by whoever claims it next.

        On a crash before Redis has it: the lease ends and the events are run again. After: nothing is to be done.

        Args:
            claimed_at: Time of the claim.
            blocks: One for each FSM.
            names: The FSMs.
            later: Send it and read the reply with the next claim: only from the main thread.
        """
        if points.armed is not None:
            points.armed.reach("before commit", names)
        if later:
            # First, while the keeper still renews these locks: it may take as long as Redis is away.
            self.read()
        if self._shelf is not None:
            blocks = self._store(self._shelf, blocks)
            if not blocks:
                return
            names = [block[1] for block in blocks]
        ends = self._keeper.let_go([(block[1], block[2]) for block in blocks])
        now = time.monotonic()
        lost = [name for name, end in zip(names, ends, strict=True) if end <= now]
        if lost:
            for name in lost:
                _log.warning("the lock of FSM %r was lost before its commit: nothing was written", name)
            kept = [number for number, end in enumerate(ends) if end > now]
            if not kept:
                return
            blocks, names = [blocks[number] for number in kept], [names[number] for number in kept]
        self._nonce += 1
        request = commits.commit(self._keys, self._worker, self._nonce, self._lease_ms, claimed_at, blocks)
        # The first of these locks that is not trusted any more: these are renewed no longer.
        until = min(end for end in ends if end > now)
        if later:
            self._under_way = (self._line.post(request, until), names)
            if points.armed is not None:
                points.armed.reach("after commit sent", names)
            return
        try:
            words = self._carrier.carry(request, until)
            if points.armed is not None:
                points.armed.reach("after commit sent", names)
            self._tell(words, names)
        except StoreError as error:
            _log.error("a commit of %d FSMs was not written and will be run again: %s", len(names), error)

    def _store(self, shelf: Shelf, blocks: Sequence[list[Any]]) -> Sequence[list[Any]]:
        """Tell the storages, under locks that are renewed meanwhile; gives what Redis is to be told."""
        if not any(isinstance(block, StoredBlock) for block in blocks):
            return blocks
        trusted = []
        for block in blocks:
            if self._keeper.is_trusted(block[1], block[2]):
                trusted.append(block)
            else:
                _log.warning("the lock of FSM %r was lost before its commit: nothing was written", block[1])
                self._keeper.let_go([(block[1], block[2])])
        kept = shelf.store(trusted)
        if points.armed is not None and (names := stored_names(kept.blocks)):
            points.armed.reach("after store", names)
        if kept.lost:
            pairs = [(fsm.name, fsm.token) for fsm in kept.lost]
            try:
                self._carrier.carry(calls.release(self._keys, self._worker, pairs))
            except StoreError as error:
                _log.warning("%d FSMs were not released, and end with their lease: %s", len(pairs), error)
            finally:
                self._keeper.let_go(pairs)
        return kept.blocks

    def read(self) -> None:
        """Read the reply of the commit that was sent last, if it was not read yet."""
        if self._under_way is not None:
            ticket, names = self._under_way
            self._under_way = None
            try:
                self._tell(self._line.result(ticket), names)
            except StoreError as error:
                _log.error("a commit of %d FSMs was not written and will be run again: %s", len(names), error)

    def _tell(self, words: list[str], names: Sequence[str]) -> None:
        if points.armed is not None:
            points.armed.reach("after commit", names)
        for name, word in zip(names, words, strict=True):
            if word == "AT":
                self._note_retry()
            elif word == "STALE":
                _log.warning("the lock of FSM %r was lost before its commit: nothing was written", name)
            elif word == "BROKEN":
                _log.error("the snapshot of FSM %r is not a hash any more: nothing was written", name)
