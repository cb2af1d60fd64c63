"""How a worker takes work: claims of the right size, FSMs that it cannot run, and sleep.

Who calls this: the worker, between one batch and the next.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING

from fsm.errors import StoreError
from fsm.store import calls, presence
from workers import points
from workers.portions import Portions
from workers.strangers import SLICE_S, Strangers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fsm.store.calls import Claimed, Claims
    from fsm.store.keys import Keys
    from fsm.store.requests import Request
    from workers.carrier import Carrier, Line, Ticket
    from workers.lease import LeaseKeeper

__all__ = ["AHEAD_S", "Intake"]

_log = logging.getLogger("fsm.worker")
# Work that is claimed ahead, in seconds of what handlers were measured to take.
AHEAD_S = 0.020
# An idle worker looks at `ready` this often, in case RQ's list was emptied behind its back.
_SLEEP_S = 1.0
# Claims smaller than this are those of slow handlers: for them nothing is claimed ahead.
_FLOW = 16
# Tokens of FSMs that were left to their lease, so many that those of one lease find room.
_MOST_LEFT = 256


class Intake:
    """Claims FSMs for one worker.

    Args:
        carrier: Carries the requests.
        line: Carries claims, ahead of their replies; commits go the same way, so that they keep their order.
        keys: Of the namespace.
        worker: Name of the worker.
        queues: Names of queues, in order of preference.
        keeper: Who renews the locks.
        strangeness: Says in a clause why this worker cannot run an FSM; "" where it can.
        lease_ms: How long a lock lasts unrenewed.
        batch: Most FSMs in one claim.
        in_hand: Gives the tokens of what is run beside the claims, which they must not free.
        hear: Is told when the next of all that waits for its time is due, by `time.monotonic()`.
    """

    def __init__(  # noqa: PLR0913 - what a claim is made of
        self,
        carrier: Carrier,
        line: Line,
        keys: Keys,
        worker: str,
        queues: Sequence[str],
        keeper: LeaseKeeper,
        strangeness: Callable[[Claimed], str],
        *,
        lease_ms: int,
        batch: int,
        in_hand: Callable[[], Collection[str]] = tuple,
        hear: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._carrier = carrier
        self._line = line
        self._keys = keys
        self._worker = worker
        self._queues = tuple(queues)
        self._keeper = keeper
        self._lease_ms = lease_ms
        self._batch = batch
        self._in_hand = in_hand
        self._hear = hear
        # Numbers grow also over a restart under the same name: the last verdicts of the former life are not ours.
        self._number = time.time_ns() // 1000
        self._seconds_per_fsm = AHEAD_S / batch
        # A claim frees what this worker holds with other tokens: claims whose reply was lost. These two it must not
        # free: batches in hand or whose commit is under way, and FSMs that are left to their lease.
        self._recent: deque[str] = deque(maxlen=2 + len(self._queues))
        self._left: deque[str] = deque(maxlen=_MOST_LEFT)
        # And claims that are under way beside each other.
        self._posted: list[str] = []
        # Queues of single hosts, that are served beside.
        self._beside: tuple[str, ...] = ()
        self._portions = Portions()
        # The queue that gave as much as it was asked for, and from which is claimed ahead.
        self._flowing = ""
        self._is_suspects_turn = False
        self._ahead: tuple[Ticket[Claims], str, float] | None = None
        # Whether that was sent with empty hands, when an id woke the worker: then it is the claim of the next turn, and
        # before all else of that, for what it brings is run by nobody meanwhile.
        self.is_woken = False
        self._found: list[str] = []
        # What this turn brought that cannot be run here; and until when nothing else is expected.
        self._strange: list[str] = []
        self._strangers = Strangers(strangeness)
        self._pauses_until = 0.0
        # Whether the last turn brought none but such; and whether there may be others behind them.
        self.is_among_strangers = self.is_passing = False
        self.is_sleeping = False
        self._sleeps_here = False

    def claim(self, room: int | None = None, *, leaves_suspects: bool = False) -> Claims:
        """Claim from each queue in order, until the batch is full.

        Args:
            room: At most so many FSMs; if not given, about 20 ms of work, down to one FSM.
            leaves_suspects: Leave FSMs on which workers died, and those behind them, to a later claim.
        """
        if (left_s := self._pauses_until - time.monotonic()) > 0 and self._ahead is None:
            time.sleep(min(left_s, SLICE_S))
            if left_s > SLICE_S:
                return calls.Claims([], [])
        begin, self._strange = time.monotonic(), []
        # Strange ones are not run, so that many of them are a matter of ms.
        want = (
            self._batch
            if self.is_passing and room is None
            else self._want()
            if room is None
            else min(room, self._batch)
        )
        is_woken = self.is_woken
        claims = self._take_ahead()
        beside = self._beside  # the thread that hears of them may change them meanwhile
        if beside and self._recent.maxlen != (most := 2 + 3 * (len(beside) + len(self._queues))):
            self._recent = deque(self._recent, maxlen=most)
        if is_woken:
            self._flowing = ""
        elif beside and want >= max(_FLOW, len(beside) + len(self._queues)):
            claims = self._claim_round((*beside, *self._queues), claims, want, leaves_suspects=leaves_suspects)
        else:
            if not claims.held:
                claims = self._claim_in_order(
                    self._portions.order(beside, self._queues), want, leaves_suspects=leaves_suspects
                )
            first = claims.held[0].queue if claims.held else ""
            is_full = want >= _FLOW and len(claims.held) >= want
            self._flowing = first if is_full and first == self._queues[0] else ""
        self._pass_by(time.monotonic() - begin, is_alone=not claims.held)
        return claims

    def _pass_by(self, seconds: float, *, is_alone: bool) -> None:
        """Heed what this turn brought that cannot be run here, and pause where there was nothing else for a while."""
        self.is_among_strangers, self.is_passing = is_alone and bool(self._strange), False
        if not self.is_among_strangers:
            return
        # They ring again at once: a worker that knows them is to get a chance before us.
        pause_s = self._strangers.meet(self._strange, seconds)
        self.is_passing = not pause_s
        if pause_s:
            self._pauses_until = time.monotonic() + pause_s
            time.sleep(min(pause_s, SLICE_S))

    def serve(self, queues: Sequence[str]) -> None:
        """Serve these queues beside our own, in this order and before them, until the next call; from any thread."""
        self._beside = tuple(queue for queue in queues if queue not in self._queues)

    @property
    def beside(self) -> Sequence[str]:
        """Queues that are served beside our own."""
        return self._beside

    def _claim_in_order(self, queues: Sequence[str], want: int, *, leaves_suspects: bool) -> Claims:
        """Claim from one queue after the other, until there is enough."""
        claims = calls.Claims([], [])
        for queue in queues:
            self._portions.note(queue)
            more = self._collect(self._post(queue, want - len(claims.held), leaves_suspects=leaves_suspects))
            if claims.held and more.has_suspect:
                if self._is_for_suspect():
                    claims, more = more, claims
                self.give_back(more.held)
                break
            _add(claims, more)
            if more.has_suspect or len(claims.held) >= want:
                break
        return claims

    def _is_for_suspect(self) -> bool:
        """Whether this turn is for a suspect, which is run alone: of two turns it gets one, for others always come."""
        is_so = self._is_suspects_turn
        self._is_suspects_turn = not self._is_suspects_turn
        return is_so

    def _claim_round(self, queues: Sequence[str], ahead: Claims, want: int, *, leaves_suspects: bool) -> Claims:
        """Claim from all queues at once."""
        come = {ahead.held[0].queue: ahead} if ahead.held else {}
        asked = self._portions.asked(queues, come, want, len(ahead.held))
        posted = [self._post(queue, fsms, leaves_suspects=leaves_suspects) for queue, fsms in asked.items()]
        tokens = {token for _, token, _ in posted}
        try:
            for queue, one in zip(asked, posted, strict=True):
                more = self._collect(one)
                self._portions.learn(queue, asked[queue], len(more.held))
                if more.held:
                    come[queue] = more
        finally:
            # Where one cannot be read, nobody reads those behind it: what they brought is freed by the next claim.
            self._posted = [token for token in self._posted if token not in tokens]
        full = [queue for queue in come if queue not in asked or self._portions.is_full(queue)]
        most_of_all = max(full, key=lambda queue: len(come[queue].held), default="")
        self._flowing = most_of_all if most_of_all and len(come[most_of_all].held) >= _FLOW else ""
        # What was claimed ahead may be of a queue that is served no more.
        return self._merge([come[queue] for queue in dict.fromkeys((*queues, *come)) if queue in come])

    def _merge(self, come: Sequence[Claims]) -> Claims:
        """Make one claim of several; where there are suspects among them, one of those alone, or all but those."""
        suspects = [one for one in come if one.has_suspect]
        plain = [one for one in come if not one.has_suspect]
        if suspects and not plain:
            plain, suspects = suspects[:1], suspects[1:]
        elif suspects and self._is_for_suspect():
            plain, suspects = suspects[:1], [*suspects[1:], *plain]
        for one in suspects:
            self.give_back(one.held)
        claims = calls.Claims([], [])
        for one in plain:
            _add(claims, one)
        return claims

    def claim_ahead(self) -> None:
        """Send the next claim while the present batch is run, if there is likely to be something."""
        if self._flowing:
            # Suspects are left: if the batch in hand kills this worker, nobody else is to be charged for it.
            want = self._portions.ahead(self._want()) if self._beside else self._want()
            self._ahead = self._post(self._flowing, want, leaves_suspects=True)

    def leave(self, token: str) -> None:
        """Leave what was claimed with this token to its lease, so that its end is seen as a death and counted."""
        if token not in self._left:
            self._left.append(token)

    @property
    def left(self) -> Collection[str]:
        """Tokens of what was left to its lease."""
        return self._left

    def drop_ahead(self) -> None:
        """Give back what was claimed ahead: the batch in hand takes longer than was thought, or the worker pauses."""
        claims = self._take_ahead()
        if claims.held:
            self.give_back(claims.held)

    def drop_found(self) -> None:
        """Tell Redis of ids that were found in the last sleep: a worker that stops makes no more claims to do so."""
        if self._found:
            # Of no FSM: what is found, is looked at all the same, also by a Redis that is full.
            self._collect(self._post(self._queues[0], 0))

    def _take_ahead(self) -> Claims:
        # Forgotten before its reply is read: a reply that cannot be had must not be waited for twice.
        ahead, self._ahead, self.is_woken = self._ahead, None, False
        return calls.Claims([], []) if ahead is None else self._collect(ahead)

    def _want(self) -> int:
        return max(1, min(self._batch, int(AHEAD_S / max(self._seconds_per_fsm, 1e-6))))

    def _post(self, queue: str, fsms: int, *, leaves_suspects: bool = False) -> tuple[Ticket[Claims], str, float]:
        return self._send(*self._request(queue, fsms, leaves_suspects=leaves_suspects))

    def _send(self, request: Request[Claims], token: str) -> tuple[Ticket[Claims], str, float]:
        asked_at = time.monotonic()
        self._posted.append(token)
        return self._line.post(request), token, asked_at

    def _request(self, queue: str, fsms: int, *, leaves_suspects: bool = False) -> tuple[Request[Claims], str]:
        self._number += 1
        token = secrets.token_hex(16)
        found, self._found = self._found, []
        request = calls.claim(
            self._keys,
            self._worker,
            queue,
            token,
            self._number,
            lease_ms=self._lease_ms,
            fsms=fsms,
            leaves_suspects=leaves_suspects,
            kept=(*self._recent, *self._posted, *self._in_hand(), *self._left),
            found=tuple(found),
        )
        return request, token

    def _collect(self, posted: tuple[Ticket[Claims], str, float]) -> Claims:
        ticket, token, asked_at = posted
        try:
            claims = self._line.result(ticket)
        finally:
            self._posted.remove(token)
        if claims.due_s is not None:
            # Since it was asked, not since it is read: what was claimed ahead was answered long ago.
            self._hear(asked_at + claims.due_s)
        claims.asked_at = asked_at
        if claims.held:
            self._recent.append(token)
            names = [fsm.name for fsm in claims.held]
            self._keeper.hold(names, token, asked_at)
            if points.armed is not None:
                points.armed.reach("after claim", names)
        for name, why in claims.broken:
            _log.error("a key of FSM %r is of another type and it cannot go on: %s", name, why)
        for job_id in claims.moved:
            _log.warning(
                "job %r is no event of an FSM, and somebody put it on our queue: it goes to the effects", job_id
            )
        return self._known(claims) if claims.held else claims

    def _known(self, claims: Claims) -> Claims:
        """Keep FSMs that this worker can run; the others go to the tail, where another worker may find them."""
        claims.held, strange = self._strangers.part(claims.held)
        if strange:
            self.give_back(strange, tail=True)
            self._strange += [fsm.name for fsm in strange]
        return claims

    def give_back(self, fsms: Sequence[Claimed], *, tail: bool = False) -> None:
        """Release FSMs unworked: to the front of those that wait, or to the tail.

        On a crash, or where Redis refuses it: they end with their lease, which is not renewed any more.
        """
        pairs = [(fsm.name, fsm.token) for fsm in fsms]
        try:
            self._carrier.carry(calls.release(self._keys, self._worker, pairs, tail=tail))
        except StoreError:
            # Nobody here knows of them any more: renewed for ever, they would wait for ever.
            self._keeper.let_go(pairs)
            raise
        self._keeper.let_go(pairs)

    def learn(self, fsms: int, seconds: float) -> None:
        """Remember what FSMs take, for the size of the next claim."""
        if fsms:
            self._seconds_per_fsm = 0.7 * self._seconds_per_fsm + 0.3 * seconds / fsms

    def sleep(self, most_s: float = _SLEEP_S, *, claims: bool = False) -> None:
        """Sleep until an id comes on RQ's list, a second at most: also what is due comes by that.

        Args:
            most_s: Not a second, but so long at most.
            claims: Claim as soon as an id has come, with empty hands; `claim` gives what that brings. It is to be
                called soon: see `is_woken`. Most of what a claim takes here was done before the sleep.
        """
        # With several queues the id is only in the reply: that sleep must not be broken off. And which of them is to be
        # claimed from is not known before.
        queues = (*self._beside, *self._queues)
        is_one = len(queues) == 1
        prepared = self._request(self._queues[0], self._want()) if claims and is_one else None
        sleep = presence.sleep(self._keys, self._worker, queues, round(most_s, 3))
        found = queue = ""
        self.is_sleeping = is_one
        try:
            found, queue = self._carrier.once(sleep)
            self._sleeps_here = False
        except StoreError as error:
            # Away, or full: then it refuses to move an id, and we look at `ready` in the same rhythm.
            if not self._sleeps_here:
                _log.warning("worker %s cannot sleep in Redis, and sleeps here meanwhile: %s", self._worker, error)
            self._sleeps_here = True
            # Not in step with all others.
            time.sleep(most_s * random.uniform(0.5, 1))  # noqa: S311 - chance without secrets
        finally:
            self.is_sleeping = False
        if not found:
            return
        if not is_one:
            self._found.append(found)
            if claims and self._beside:
                self._ahead, self.is_woken = self._post(queue, self._want()), True
        elif prepared is not None:
            self._ahead, self.is_woken = self._send(*prepared), True


def _add(claims: Claims, more: Claims) -> None:
    """Add to a claim what another one brought."""
    claims.held += more.held
    claims.at = claims.at or more.at
    if not claims.at_ms:
        claims.at_ms, claims.asked_at = more.at_ms, more.asked_at
