"""How a process ends whose main thread cannot: from another thread, within seconds, and telling where it stood.

Who calls this: the worker, when a handler heeds no time-out; the countdown of a worker that was asked to end.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, NoReturn

from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXIT_CODE", "end", "stack_of", "tell"]

_log = logging.getLogger("fsm.worker")
EXIT_CODE = 1
_WITHIN_S = 3.0


def tell(level: int, text: str) -> threading.Thread:
    """Log something from a thread of its own: it may be the log that this process is stuck in."""
    thread = threading.Thread(target=_log.log, args=(level, "%s", text), name="fsm-last-words", daemon=True)
    thread.start()
    return thread


def stack_of(thread: int) -> str:
    """Tell where a thread stands, as a traceback does."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and the only way
    return "".join(traceback.format_stack(frame)).rstrip() if frame else "(it has ended)"


def end(do: Callable[[], object], why: str) -> NoReturn:
    """Do one thing more, for three seconds at most, and end this process with code 1, whatever its threads are in.

    Args:
        do: The last thing; what it cannot do is logged.
        why: For the log, where it stands beside where the main thread is.
    """
    # Python's own C code ends the process when the time is over. It would also say where each thread is, but what
    # nobody reads blocks who writes it.
    faulthandler.dump_traceback_later(_WITHIN_S, exit=True, file=os.open(os.devnull, os.O_WRONLY))
    try:
        told = tell(
            logging.CRITICAL, f"{why}. Its main thread is here:\n{stack_of(threading.main_thread().ident or 0)}"
        )
        try:
            do()
        except StoreError as error:
            _log.critical("what this worker held waits for the end of the lease: %s", error)
        finally:
            told.join()
    finally:
        os._exit(EXIT_CODE)
