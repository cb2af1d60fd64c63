"""What a worker has in its hands between a claim and its commits, and who relieves it when a handler is slow.

Handlers run one after the other in the worker's main thread. While they are quick, that thread commits many FSMs at
once. When one takes longer than some ms, `Relief` commits meanwhile what was done before it, and gives the FSMs behind
it back, so that another worker gets them: a slow handler delays only its own FSM.

Who calls this: the worker.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsm.store.calls import Claimed, Claims

__all__ = ["COMMIT_WITHIN_S", "STORE_WITHIN_S", "Batch", "InHand", "Relief"]

_log = logging.getLogger("fsm.worker")
# What is done is committed so soon, though its neighbours still run; looked at twice in that time.
COMMIT_WITHIN_S = 0.010
# Where each commit is a transaction of a database beside it, there are fewer of them.
STORE_WITHIN_S = 0.025
_LOOK_S = 0.005
# For some 50 ms after the last batch.
_IDLE_LOOKS = 10
# As much as a claim brings: Redis serves nobody else meanwhile.
_COMMIT_BYTES = 4 << 20
# FSMs behind a handler that runs for so long are given back.
_SLOW_S = 0.020


class Batch:
    """The FSMs of one claim: those to come, the one that is run, and those that are done.

    Args:
        claims: What the claim brought.
        commit: Commits blocks: time of the claim, blocks, names, and whether the reply may be read later. It is called
            by one thread at a time.
        give_back: Releases FSMs unworked.
        drop_ahead: Releases what was claimed ahead.
        until: `time.monotonic()` after which the rest is given back, but for the first: another worker that is idle
            gets it at once. What commits take is not counted.
        within_s: What is done is committed so soon, though its neighbours still run.
    """

    def __init__(  # noqa: PLR0913 - who does what, and when
        self,
        claims: Claims,
        commit: Callable[[str, Sequence[list[Any]], Sequence[str], bool], None],
        give_back: Callable[[Sequence[Claimed]], None],
        drop_ahead: Callable[[], None],
        until: float = math.inf,
        within_s: float = COMMIT_WITHIN_S,
    ) -> None:
        self._within_s = within_s
        # What the commits of the main thread took.
        self.committing_s = 0.0
        self._at = claims.at
        self._rest = deque(claims.held)
        self._commit = commit
        self._give_back = give_back
        self._drop_ahead = drop_ahead
        self._until = until
        self._blocks: list[list[Any]] = []
        self._bytes = 0
        self._first_done_at = 0.0
        # When the FSM was taken that is run, by `time.monotonic()`; 0 while none is.
        self.begun_at = 0.0
        self._guard = threading.Lock()

    def take(self, block: list[Any] | None = None, size: int = 0, *, is_over: bool = False) -> Claimed | None:
        """Note what came of the FSM taken last, commit what is due, and give the next FSM to be run.

        Args:
            block: What is to be written for it, if anything.
            size: About how many bytes that is.
            is_over: Begin no other after the first: what was not begun is given back.

        Returns:
            The next FSM, or `None` when none is left.
        """
        with self._guard:
            now = time.monotonic()
            if block is not None:
                if not self._blocks:
                    self._first_done_at = now
                self._blocks.append(block)
                self._bytes += size
            if self._blocks and (now - self._first_done_at > self._within_s or self._bytes > _COMMIT_BYTES):
                self._until += self._flush_timed(now)
                now = time.monotonic()
            if self.begun_at and (is_over or now > self._until):
                self._drop_rest()
            if not self._rest:
                self.begun_at = 0.0
                return None
            self.begun_at = now
            return self._rest.popleft()

    def close(self) -> None:
        """Commit what is done, and give back what was not begun."""
        with self._guard:
            self.begun_at = 0.0
            self._flush_timed(time.monotonic())
            self._drop_rest()

    def relieve(self) -> None:
        """Commit and give back while the main thread is in a slow handler; from the thread of `Relief`."""
        begun_at = self.begun_at
        if not begun_at or time.monotonic() - begun_at < _LOOK_S:
            return
        with self._guard:
            if self.begun_at != begun_at:
                return
            self._flush(later=False)
            if time.monotonic() - begun_at > _SLOW_S:
                self._drop_rest()
                self._drop_ahead()

    def _flush_timed(self, begin: float) -> float:
        self._flush()
        took = time.monotonic() - begin
        self.committing_s += took
        return took

    def _flush(self, *, later: bool = True) -> None:
        if self._blocks:
            blocks = self._blocks
            self._blocks, self._bytes = [], 0
            self._commit(self._at, blocks, [block[1] for block in blocks], later)

    def _drop_rest(self) -> None:
        if self._rest:
            rest = list(self._rest)
            self._rest.clear()
            self._give_back(rest)


class InHand(Protocol):
    """What a worker has in its hands, as `Relief` knows it."""

    def relieve(self) -> None:
        """Commit and give back what is to be."""


class Relief:
    """The thread that looks after the batch in hand, some hundred times a second; it rests where there is none.

    It looks for a while after the last one too: to wake a thread takes longer than to run many an event, and a batch
    that comes meanwhile finds it awake.

    Args:
        also: Called at each of these looks, after it.
    """

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        self._also = also
        self._batch: InHand | None = None
        # Whether there was one since the last look.
        self._had_one = False
        self._is_working = threading.Event()
        self._is_hurried = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="fsm-relief", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, batch: InHand | None) -> None:
        """Look after this batch from now on; `None`: after none."""
        self._batch = batch
        self._had_one = True
        # After it is noted: who is about to rest looks once more.
        if batch is not None and not self._is_working.is_set():
            self._is_working.set()

    def hurry(self) -> None:
        """Look at once."""
        self._is_hurried.set()

    def stop(self) -> bool:
        """Stop the thread and wait for it, for five seconds at most; tells whether it has ended."""
        self._is_over.set()
        self._is_working.set()
        self._is_hurried.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        return not self._thread.is_alive()

    def _look(self) -> None:
        idle = 0
        while not self._is_over.is_set():
            batch = self._batch
            idle = 0 if self._had_one or batch is not None else idle + 1
            self._had_one = False
            if idle > _IDLE_LOOKS:
                self._rest()
                continue
            if batch is not None:
                try:
                    try:
                        batch.relieve()
                    finally:
                        self._also()
                except StoreError as error:
                    _log.warning("what is done waits for the slow handler beside it: %s", error)
                except Exception:  # noqa: BLE001 - a thread that ended here would let each slow handler delay all others
                    _log.exception("what is done waits for the slow handler beside it")
            self._is_hurried.wait(_LOOK_S)
            self._is_hurried.clear()

    def _rest(self) -> None:
        """Wait for the next batch."""
        self._is_working.clear()
        if self._batch is None and not self._is_over.is_set():
            self._is_working.wait()
            self._had_one = True
