"""The points of a worker's work at which a test may kill, stop or delay it; what it orders is `fsm.testing.FaultPoint`.

Nothing is armed unless the process was started with the variable `FSM_FAULTS`, and then its log says so. Unarmed, a
point is one test of a global, once an event or once a batch: 13 ns as measured.

The faults are those of a process, as a signal is: so they lie in this module, and not in each room that has a point.

Who calls this: the worker arms it; the rooms that claim, run and commit ask `armed`, and tell it where they are.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fsm.testing.faults import FaultPoint, Point

__all__ = ["Faults", "arm", "armed"]

_log = logging.getLogger("fsm.worker")
_VARIABLE = "FSM_FAULTS"


class Faults:
    """What is ordered for this process, and how often it came to each point."""

    def __init__(self, faults: Collection[FaultPoint]) -> None:
        self._left = {fault: fault.nth for fault in faults}
        # The thread of relief commits too.
        self._guard = threading.Lock()

    def reach(self, point: Point, names: Collection[str]) -> None:
        """Be at a point, with work on these FSMs; what is due there happens now.

        On a crash: that is what it is for.
        """
        due = []
        with self._guard:
            for fault in [fault for fault in self._left if fault.point == point]:
                if fault.name is None or fault.name in names:
                    self._left[fault] -= 1
                    if not self._left[fault]:
                        del self._left[fault]
                        due.append(fault)
        for fault in due:
            if fault.once is None or _make(Path(fault.once)):
                _act(fault)


armed: Faults | None = None


def arm(environment: Mapping[str, str]) -> None:
    """Take the faults that this process was started with; with none, every point is passed as if it were not there.

    Raises:
        ConfigError: The variable is not what `FaultPoint` writes.
    """
    global armed  # noqa: PLW0603 - faults are the process's
    text = environment.get(_VARIABLE)
    if not text:
        armed = None
        return
    # Only here: production imports nothing of what tests need.
    from fsm.testing.faults import ordered  # noqa: PLC0415 - as said

    faults = ordered(text)
    armed = Faults(faults) if faults else None
    for fault in faults:
        _log.warning(
            "this process is told by %s to %s itself %s (time %d): no worker of production is",
            _VARIABLE,
            fault.action,
            fault.point,
            fault.nth,
        )


def _make(marker: Path) -> bool:
    """Make the file, and tell whether it was not there."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _act(fault: FaultPoint) -> None:
    if fault.action == "delay":
        time.sleep(fault.seconds)
    else:
        # To this thread itself: sent to the process it would be another one's, and this one would go on meanwhile.
        signal.pthread_kill(threading.get_ident(), signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP)
