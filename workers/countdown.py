"""The time that a process has to end, counted from the first signal that asks it to.

First signal: the process ends in order, if it does so in time. When the time is over it gets a second signal, as an
operator in haste would send it: it gives back what it holds, without finishing what is in hand. Some seconds after a
second signal, whoever sent it, the process is ended from here, and what it holds is given back from here.

Python runs the handlers of signals in the main thread, when that comes back from where it is: not while a handler is
stuck in C code. So the countdown hears of signals by the pipe into which Python's own C code writes each of them.

Who calls this: `fsm worker`.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

from workers import last_resort

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AT_ONCE_S", "ONE_SIGNAL_S", "Countdown"]

# What was told to end at once has so long to do it.
AT_ONCE_S = 5.0
# Two signals within this time are one, sent twice: by a terminal to a group of processes, and by the first of them.
ONE_SIGNAL_S = 1.0
_ASKING = {signal.SIGTERM, signal.SIGINT}


class Countdown:
    """Counts in a thread of its own; it is started and stopped in the main thread.

    Args:
        seconds: From the first signal on.
        give_back: Gives back what the process holds, when nothing else does; called in the thread of the countdown.
    """

    def __init__(self, seconds: float, give_back: Callable[[], object]) -> None:
        self._seconds = seconds
        self._give_back = give_back
        self.is_asked = False
        self._thread = threading.Thread(target=self._count, name="fsm-countdown", daemon=True)
        self._heard, self._heard_by_c = socket.socketpair()
        self._heard_by_c.setblocking(False)  # noqa: FBT003 - no other name for it
        self._before = -1

    def start(self) -> None:
        """Listen to signals from now on."""
        self._before = signal.set_wakeup_fd(self._heard_by_c.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """Stop counting: the process has come to its end by itself, perhaps by a signal before the start."""
        signal.set_wakeup_fd(self._before)
        self._heard_by_c.close()  # which ends the thread
        if self._thread.is_alive():
            self._thread.join()
        self._heard.close()

    def _count(self) -> None:
        asked_at = until = 0.0
        is_hurried = False
        while True:
            pause = max(0.0, until - time.monotonic()) if asked_at else None
            if select.select([self._heard], [], [], pause)[0]:
                numbers = self._heard.recv(64)
                if not numbers:
                    return
                if is_hurried or not _ASKING & set(numbers):
                    continue
                now = time.monotonic()
                if not asked_at:
                    self.is_asked = True
                    asked_at, until = now, now + self._seconds
                elif now - asked_at > ONE_SIGNAL_S:
                    is_hurried, until = True, now + AT_ONCE_S
            elif not is_hurried:
                is_hurried, until = True, time.monotonic() + AT_ONCE_S
                how = f"not over {self._seconds:g} s after the signal to end: what is in hand is given back"
                last_resort.tell(logging.WARNING, how)
                # To the main thread itself: another one would hear it, but not come back from what it waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            else:
                last_resort.end(self._give_back, "this worker did not end by itself, and is ended")
