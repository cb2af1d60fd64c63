"""What a worker has in its hands where handlers run side by side: FSMs that wait for a slot, run, or are done.

The main thread claims while there is room, and puts what it got here; the crew runs as many at once as there are
slots; the thread of relief commits what is done every 5 ms, and gives back what waited in vain. Distinct FSMs run side
by side; one FSM never does, for nobody can claim it while its lock is ours.

**How much is claimed.** No more than there are slots where handlers take longer than 20 ms; where they are quicker,
about 20 ms of work for all slots, by what the last ones took. What has waited for longer for a slot goes back to the
front of those that wait, so that an idle worker gets it at once.

**Suspects are alone.** An FSM on which a worker died is claimed only with empty hands, and nothing is claimed beside
it: whoever dies with several FSMs in hand is charged for each of them, and then each runs alone until it is cleared.
While it waits for empty hands, at the front, those behind it wait too; for a second, then they may pass.

Who calls this: the worker, with `--concurrency` above 1.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.store.calls import Claims
from workers.activation import Activation
from workers.crew import Crew
from workers.intake import AHEAD_S
from workers.last_resort import stack_of

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Sequence

    from fsm.app import App
    from fsm.store.calls import Claimed
    from fsm.store.keys import Keys
    from fsm.store.places import Placer
    from workers.batch import Relief
    from workers.committer import Committer
    from workers.intake import Intake
    from workers.lease import LeaseKeeper
    from workers.pulse import Pulse

__all__ = ["Hands"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")
# As much as a claim brings: Redis serves nobody else meanwhile.
_COMMIT_BYTES = 4 << 20
_COMMIT_FSMS = 1000
# One commit names one time of the claim; of claims so far apart the records would tell a wrong start of their jobs.
_SAME_CLAIM_MS = 50
# Slots that get free one by one are gathered for so long, and for this share of what a handler takes.
_GATHER_S, _GATHER = 0.002, 0.05
# The main thread does what else it has to do so often at least, while it waits for room.
_LOOK_S = 0.1
# And looks so often at least whether it may have a suspect, which are left while something is in hand.
_SLEEP_S = 0.2
# A suspect before all others holds them up for so long, until hands are empty for it; each time twice as long.
_PATIENCE_S, _LONGEST_PATIENCE_S = 1.0, 60.0
_MOST_STACKS = 5
_DOOR_S = 1.0
# The weight of the last FSM in the mean of what they take.
_WEIGHT = 0.1


@dataclass(slots=True, eq=False)
class _Piece:
    """One FSM in hand."""

    fsm: Claimed
    at: str
    at_ms: int
    asked_at: float
    put_at: float
    make: type[Activation]
    thread: int = 0
    work: Activation | None = None
    block: list[Any] | None = None


class Hands:
    """FSMs that are run side by side.

    Args:
        slots: How many at once.
        ahead: How many more may wait for a slot where handlers are quick.
        app: The machines.
        keys: Of the namespace.
        keeper: Who renews the locks.
        intake: Who gives FSMs back.
        committer: Who commits; here by one thread at a time.
        relief: The thread that looks after this while there is something in hand.
        pulse: What is done is counted there.
        placer: Says on which hosts FSMs are run, where that is left to the ring.
    """

    def __init__(  # noqa: PLR0913 - all rooms of a worker meet here
        self,
        slots: int,
        ahead: int,
        app: App,
        keys: Keys,
        keeper: LeaseKeeper,
        intake: Intake,
        committer: Committer,
        relief: Relief,
        pulse: Pulse,
        placer: Placer | None = None,
    ) -> None:
        self._slots = slots
        self._ahead = ahead
        self._crew = Crew(slots)
        self._app = app
        self._keys = keys
        self._keeper = keeper
        self._intake = intake
        self._committer = committer
        self._relief = relief
        self._pulse = pulse
        self._placer = placer
        self._waiting: deque[_Piece] = deque()
        self._running: set[_Piece] = set()
        self._done: list[_Piece] = []
        # Of all that is in hand, until it is committed or given back.
        self._tokens: Counter[str] = Counter()
        self._has_suspect = False
        self._is_ending = self._is_over = False
        self._mean_s = AHEAD_S
        self._busy_since = 0.0
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._door = threading.Lock()
        # When a claim brought something last, or could have.
        self._brought_at = time.monotonic()
        self._patience_s = _PATIENCE_S

    # From the main thread.

    def drive(self, work: Coroutine[Any, Any, R]) -> R:
        """Drive a coroutine on the event loop of async handlers: what it opens there is theirs to use."""
        return self._crew.drive(work)

    @property
    def is_busy(self) -> bool:
        """Whether anything is in hand."""
        return bool(self._tokens)

    @property
    def tokens(self) -> Collection[str]:
        """Tokens of what is in hand."""
        with self._changed:
            return list(self._tokens)

    @property
    def overdue(self) -> Activation | None:
        """What goes on though its time-out is over, and some seconds more."""
        piece: _Piece | None = self._crew.overdue
        return piece.work if piece else None

    def where(self) -> str:
        """Tell where handlers stand; of many, a few."""
        threads = dict.fromkeys(piece.thread for piece in list(self._running))
        return "\n\n".join(map(stack_of, list(threads)[:_MOST_STACKS]))

    def claim(self) -> Claims:
        """Claim what there is room for; where there is none, wait for it for a moment."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._room() > 0, _LOOK_S):
                return Claims([], [])
            room = self._room()
        if room < self._slots // 4:
            # Each claim has a price of its own.
            time.sleep(min(_GATHER_S, _GATHER * self._mean_s))
            room = max(room, self._room())
        with self._door:
            if self._is_ending or self._is_over:
                return Claims([], [])
            is_busy = self.is_busy
            claims = self._intake.claim(room, leaves_suspects=is_busy)
            if is_busy and not claims.held and time.monotonic() - self._brought_at > self._patience_s:
                claims = self._pass_by()
            if claims.held or not is_busy:
                self._brought_at = time.monotonic()
            return claims

    def _pass_by(self) -> Claims:
        """Let others pass a suspect that waits for empty hands: a handler of minutes may be what they are not empty of.

        It waits for longer each time, so that it has its turn at last where hands are never empty for long.
        """
        claims = self._intake.claim(1)
        self._brought_at = time.monotonic()
        if not claims.has_suspect:
            return claims
        self._patience_s = min(2 * self._patience_s, _LONGEST_PATIENCE_S)
        self._intake.give_back(claims.held, tail=True)
        return Claims([], [])

    def shut(self) -> None:
        """Claim nothing any more, from now on; a claim that is under way may bring something until this returns."""
        self._is_over = True
        if self._door.acquire(timeout=_DOOR_S):
            self._door.release()

    def rest(self, *, is_burst: bool) -> None:
        """Wait a little after a claim that brought nothing, though something is in hand."""
        with self._changed:
            if self._room() <= 0:
                return
            if is_burst:
                self._changed.wait(_LOOK_S)
                return
        # What is done meanwhile may be to be tried again soon, and no sleep is broken off for that.
        self._intake.sleep(min(_SLEEP_S, max(AHEAD_S, self._mean_s)))

    def _room(self) -> int:
        if self._has_suspect:
            return 0
        most = int(self._slots * max(1.0, AHEAD_S / max(self._mean_s, 1e-6)))
        running = len(self._running) + len(self._waiting)
        return min(min(most, self._slots + self._ahead) - running, self._slots + 2 * self._ahead - self._tokens.total())

    def put(self, claims: Claims, make: type[Activation] = Activation) -> None:
        """Take what a claim brought, and begin with it; `make` is how its FSMs are run."""
        now = time.monotonic()
        with self._changed:
            if not self._tokens:
                self._busy_since = now
                self._relief.watch(self)
            self._has_suspect = claims.has_suspect
            if self._has_suspect:
                self._patience_s = _PATIENCE_S
            for fsm in claims.held:
                self._tokens[fsm.token] += 1
                self._waiting.append(_Piece(fsm, claims.at, claims.at_ms, claims.asked_at, now, make))
            begun = self._begin()
        self._start(begun)

    def wait(self, seconds: float) -> None:
        """Wait until nothing is in hand, for some time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._tokens, seconds)

    def begin_no_more(self) -> None:
        """Claim and begin nothing any more: what is in hand is finished. A signal's handler calls this: no lock."""
        self._is_ending = True

    def drop_waiting(self) -> None:
        """Give back what was not begun."""
        with self._turn:
            self._give_back(0.0)

    def finish(self) -> None:
        """Give back what was not begun, and wait until all else is done and committed."""
        try:
            self.drop_waiting()
        finally:
            while self.is_busy:
                self.wait(0.1)

    def stop(self) -> None:
        """Run and commit nothing any more; what is in hand is given back by whoever calls this."""
        with self._changed:
            self._is_over = True
            self._waiting.clear()
            is_running = bool(self._running)
        if is_running:
            self._crew.break_off()
            with self._changed:
                self._changed.wait_for(lambda: not self._running, 1.0)

    def close(self) -> None:
        """End the threads that run FSMs, and the loop."""
        self._crew.close()

    # From the crew.

    def _begin(self) -> list[_Piece]:
        """Give what is to be started now; under the guard."""
        begun = []
        while self._waiting and len(self._running) < self._slots and not (self._is_ending or self._is_over):
            piece = self._waiting.popleft()
            self._running.add(piece)
            begun.append(piece)
        return begun

    def _start(self, pieces: Sequence[_Piece]) -> None:
        given = 0
        try:
            for piece in pieces:
                is_async = self._app.behaviours[piece.fsm.machine].is_async
                self._crew.give(partial(self._run, piece), piece, is_async=is_async)
                given += 1
        except BaseException:
            # What nobody runs would be waited for without end.
            with self._changed:
                self._running.difference_update(pieces[given:])
                self._waiting.extendleft(reversed(pieces[given:]))
            raise

    async def _run(self, piece: _Piece) -> None:
        fsm, begin, piece.thread = piece.fsm, time.monotonic(), threading.get_ident()
        try:
            if self._keeper.is_trusted(fsm.name, fsm.token):
                of, times = self._app.behaviours[fsm.machine], (piece.at_ms, piece.asked_at)
                work = piece.work = piece.make(of, fsm, self._keys, self._crew, *times, self._placer)
                piece.block = await work.run(begin + AHEAD_S)
            else:
                _log.warning("the lock of FSM %r was lost before its events were run", fsm.name)
                self._keeper.let_go([(fsm.name, fsm.token)])
        except BaseException:  # noqa: BLE001 - as in `TransitionWorker._activate`; and an interrupt is no affair of threads
            if not self._is_over:
                _log.exception("FSM %r could not be run; it is left to its lease", fsm.name)
                self._intake.leave(fsm.token)
                self._keeper.let_go([(fsm.name, fsm.token)])
        finally:
            self._end(piece, time.monotonic() - begin)

    def _end(self, piece: _Piece, seconds: float) -> None:
        with self._changed:
            self._running.discard(piece)
            self._mean_s += _WEIGHT * (seconds - self._mean_s)
            if piece.block is None:
                self._forget([piece])
            else:
                self._done.append(piece)
            if piece.work is not None:
                self._pulse.count(done=piece.work.done, failed=piece.work.failed)
            begun = self._begin()
            is_last = not self._running
            self._changed.notify_all()
        if is_last:
            self._relief.hurry()
        self._start(begun)

    # From the thread of relief.

    def relieve(self) -> None:
        """Commit what is done, and give back what waits for a slot for too long."""
        with self._turn:
            while pieces := self._next_commit():
                blocks = [piece.block for piece in pieces if piece.block is not None]
                try:
                    self._committer.commit(pieces[-1].at, blocks, [piece.fsm.name for piece in pieces], later=False)
                finally:
                    with self._changed:
                        self._forget(pieces)
                        self._changed.notify_all()
            self._give_back(time.monotonic() - 2 * AHEAD_S)

    def _next_commit(self) -> list[_Piece]:
        """Take what is to be committed together out of what is done."""
        with self._changed:
            if self._is_over or not self._done:
                return []
            self._done.sort(key=lambda piece: piece.at_ms)
            last, size, count = self._done[0].at_ms + _SAME_CLAIM_MS, 0, 0
            for piece in self._done:
                if piece.at_ms > last or size > _COMMIT_BYTES or count == _COMMIT_FSMS:
                    break
                size += piece.work.size if piece.work else 0
                count += 1
            pieces, self._done = self._done[:count], self._done[count:]
            return pieces

    def _give_back(self, before: float) -> None:
        """Give back what waits since before that; 0: whatever waits."""
        with self._changed:
            late = []
            while self._waiting and (not before or self._waiting[0].put_at < before):
                late.append(self._waiting.popleft())
            if not late:
                return
            # What is claimed from now on gets a slot at once, until handlers are quick again.
            self._mean_s = max(self._mean_s, AHEAD_S)
        try:
            self._intake.give_back([piece.fsm for piece in late])
        finally:
            with self._changed:
                self._forget(late)
                self._changed.notify_all()

    def _forget(self, pieces: Collection[_Piece]) -> None:
        """Have them in hand no more; under the guard."""
        for piece in pieces:
            token = piece.fsm.token
            self._tokens[token] -= 1
            if not self._tokens[token]:
                del self._tokens[token]
        if not self._tokens:
            self._has_suspect = False
            self._pulse.count(seconds=time.monotonic() - self._busy_since)
            self._relief.watch(None)
