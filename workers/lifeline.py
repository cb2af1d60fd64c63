"""How a process ends with the one that started it: the pipe to its standard input closes then, whatever happened.

Who calls this: the worker for effects, and the workers of a host.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["end_with_parent"]


def end_with_parent(is_asked: Callable[[], bool]) -> None:
    """Ask this process to end in order (SIGTERM) when its standard input is closed.

    Args:
        is_asked: Whether it was asked before: a second signal would be taken for haste.
    """
    threading.Thread(target=_listen, args=(is_asked,), name="fsm-parent", daemon=True).start()


def _listen(is_asked: Callable[[], bool]) -> None:
    while os.read(0, 1024):
        pass
    if not is_asked():
        os.kill(os.getpid(), signal.SIGTERM)
