"""The host: a process that keeps so many workers, each a process of its own, and those for effects beside them.

A worker that dies is started anew, under a new name, after a pause that doubles while it keeps dying. What it held is
freed at once, by its parent, that saw it die: nobody waits for the end of a lease. One that is silent for a minute,
and was not stopped by somebody (SIGSTOP), is stuck in C code that holds Python's lock, and is killed.

The main thread keeps processes and never waits for Redis: what that is to be told, and asked, is the business of a
`Ward`, which has a thread of its own. What happens comes by one queue: deaths from a thread for each worker, signals,
and from the ward who is silent.

Who calls this: `fsm worker --processes N`.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.countdown import AT_ONCE_S, ONE_SIGNAL_S
from workers.ward import Ward
from workers.worker import worker_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from fsm.store.keys import Keys
    from workers.effects import EffectsCrew

__all__ = ["Host"]

_log = logging.getLogger("fsm.host")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# One that lived for so long is started anew after the first pause.
_LIVED_S = 10.0
_LOOK_S = 1.0
_CHECK_S = 0.1
# A second signal within a second of the first would be taken for the same by a worker, which heard that a little later.
_TOLD_AGAIN_S = ONE_SIGNAL_S + 0.25
# A worker ends itself so long after its own time is over; what is still there then is killed.
_KILL_AFTER_S = AT_ONCE_S + 5.0
_WRONG_USE = 2
_FAILED = 1


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one worker, and the process that has it now."""

    number: int
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    began_at: float = 0.0
    pause: float = 0.0
    due_at: float | None = 0.0
    is_aborted: bool = False
    told_at: float | None = None
    is_hurried: bool = False


@dataclass(frozen=True, slots=True)
class _Died:
    slot: _Slot
    code: int


@dataclass(frozen=True, slots=True)
class _Silent:
    name: str
    seconds: float


class Host:
    """Keeps worker processes.

    Args:
        url: Of Redis; handed over in the environment, where nobody sees its password.
        keys: Of the namespace.
        options: Of each worker, but its name.
        count: How many workers.
        name: Those of the workers begin with it; drawn when not given.
        host: Name of the host in the registry; several such processes may share it.
        is_burst: Whether workers end by themselves when nothing waits.
        shutdown_s: How long workers may take to end.

    Raises:
        StoreError: Redis is away, or will not do.
    """

    def __init__(  # noqa: PLR0913 - all that its workers are made of
        self,
        url: str,
        keys: Keys,
        options: Sequence[str],
        count: int,
        *,
        name: str = "",
        host: str = "",
        is_burst: bool = False,
        shutdown_s: float = 30.0,
    ) -> None:
        self.name = name or worker_name(host)
        self._command = [sys.executable, "-m", "workers", *options, "--no-effects", "--child"]
        self._environment = {**os.environ, "FSM_URL": url}
        self._is_burst = is_burst
        self._shutdown_s = shutdown_s
        self._news: queue.SimpleQueue[_Died | _Silent | None] = queue.SimpleQueue()
        self._ward = Ward(
            url, keys, lambda name, seconds: self._news.put(_Silent(name, seconds)), host, lambda: self._drained(host)
        )
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        self._beside: EffectsCrew | None = None
        self._asked_at: float | None = None
        self._forced_at: float | None = None
        self._is_beside_killed = False
        self._code = 0

    def bury_effects(self, worker: str, queues: Sequence[str]) -> None:
        """Take note of an effects worker that died: what it ran goes back to its queue."""
        self._ward.bury_effects(worker, queues)

    def run(self, beside: EffectsCrew | None = None) -> int:
        """Keep the workers until they have ended: at a signal, or, in a burst, by themselves.

        On a crash: the workers end in order, since the pipes to their standard inputs are closed.

        Args:
            beside: The processes for effects, not started yet.

        Returns:
            Exit code: 1 where a worker cannot be run as it is configured, or had to be ended by force.
        """
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        self._beside = beside
        try:
            self._ward.start()
            if beside is not None:
                beside.start()
            while any(slot.process is not None or slot.due_at is not None for slot in self._slots):
                self._turn()
            if beside is not None:
                self._end_effects(beside)
        finally:
            self._ward.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        _log.info("host %s has ended", self.name)
        return self._code

    def _signalled(self, _signal: int, _frame: FrameType | None) -> None:
        """Note a signal; what is to be done is done by the next turn, which it wakes."""
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif self._forced_at is None and now - self._asked_at > ONE_SIGNAL_S:
            self._forced_at = now
        self._news.put(None)

    def _drained(self, host: str) -> None:
        """Note that the host drains, which is as a first signal; from the thread of the ward."""
        _log.info("host %s drains: its workers end", host)
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        self._news.put(None)

    # A turn: start what is due, wait for news, hear them.

    def _turn(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.due_at is not None and slot.due_at <= now:
                self._start(slot)
        try:
            news = self._news.get(timeout=self._pause())
        except queue.Empty:
            news = None
        if isinstance(news, _Died):
            self._died(news.slot, news.code)
        elif isinstance(news, _Silent):
            self._end_silent(news)
        self._forward()

    def _pause(self) -> float:
        now = time.monotonic()
        due = [slot.due_at - now for slot in self._slots if slot.due_at is not None]
        return max(0.0, min([_LOOK_S if self._asked_at is None else _CHECK_S, *due]))

    def _start(self, slot: _Slot) -> None:
        # New for each: RQ refuses the name of one that died, and what that held must not be taken for this one's.
        slot.name = f"{self.name}-{slot.number}-{secrets.token_hex(2)}"
        slot.began_at = time.monotonic()
        try:
            # Apart from our terminal, so that Ctrl-C reaches it once, by us.
            slot.process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                [*self._command, "--name", slot.name],
                env=self._environment,
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            slot.pause = self._next_pause(slot)
            slot.due_at = time.monotonic() + slot.pause
            _log.error("no worker can be started, the next try is in %.1f s: %s", slot.pause, error)
            return
        slot.due_at, slot.is_aborted = None, False
        self._ward.watch(slot.name, slot.process.pid)
        threading.Thread(target=self._wait_for, args=(slot, slot.process), name=slot.name, daemon=True).start()
        _log.info("worker %s started: process %d", slot.name, slot.process.pid)

    def _wait_for(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        self._news.put(_Died(slot, process.wait()))

    def _next_pause(self, slot: _Slot) -> float:
        lived = time.monotonic() - slot.began_at
        return _FIRST_PAUSE_S if not slot.pause or lived > _LIVED_S else min(2 * slot.pause, _LONGEST_PAUSE_S)

    def _died(self, slot: _Slot, code: int) -> None:
        """Free what a worker held that has ended, and have it started anew, if it is not to be over."""
        if slot.process is not None and slot.process.stdin is not None:
            slot.process.stdin.close()
        slot.process = None
        is_others_at_work = self._ward.forget(slot.name)
        if code:
            self._ward.bury(slot.name)
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        if self._asked_at is not None or (self._is_burst and not code):
            _log.log(logging.WARNING if code else logging.INFO, "worker %s %s", slot.name, how)
            # One that was not up yet has no way to end in order.
            if code and code != -signal.SIGTERM:
                self._code = _FAILED
            return
        if code == _WRONG_USE and not is_others_at_work:
            _log.error("worker %s cannot run as it is configured, it says above why: this host ends", slot.name)
            self._code, self._asked_at = _FAILED, time.monotonic()
            self._forward()
            return
        slot.pause = self._next_pause(slot)
        slot.due_at = time.monotonic() + slot.pause
        _log.warning("worker %s %s; another one starts in %.1f s", slot.name, how, slot.pause)

    def _end_silent(self, news: _Silent) -> None:
        """Kill a worker that is stuck: first so that it says where, which needs nothing of Python."""
        for slot in self._slots:
            if slot.name == news.name and slot.process is not None:
                if slot.is_aborted:
                    slot.process.kill()
                    return
                slot.is_aborted = True
                _log.error("worker %s was not heard of for %d s: it is killed", slot.name, news.seconds)
                slot.process.send_signal(signal.SIGABRT)

    # The end.

    def _forward(self) -> None:
        """Tell the workers what we were told, each thing once; kill what does not end in time."""
        if self._asked_at is None:
            return
        now = time.monotonic()
        last = min(self._asked_at + self._shutdown_s, self._forced_at or math.inf)
        for slot in self._slots:
            slot.due_at = None
            if slot.process is None:
                continue
            if slot.told_at is None:
                slot.told_at = now
                slot.process.send_signal(signal.SIGTERM)
            elif self._forced_at and not slot.is_hurried and now - slot.told_at > _TOLD_AGAIN_S:
                slot.is_hurried = True
                slot.process.send_signal(signal.SIGTERM)
            if now > last + _KILL_AFTER_S:
                if not slot.is_aborted:
                    slot.is_aborted = True
                    _log.error("worker %s did not end in time: it is killed", slot.name)
                slot.process.kill()
        if self._beside is not None:
            self._beside.ask()
            if now > last and not self._is_beside_killed:
                self._is_beside_killed = True
                self._beside.kill()

    def _end_effects(self, beside: EffectsCrew) -> None:
        """Wait for the effects in hand; at the second signal, or when the time is over, for no effect any more."""
        while beside.is_alive:
            self._forward()
            with suppress(queue.Empty):
                self._news.get(timeout=_CHECK_S)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
