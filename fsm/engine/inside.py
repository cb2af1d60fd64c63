"""Whether we are in a handler, guard or hook just now: there nobody may wait for an FSM.

A handler that waits holds its worker, and its FSM's lock, for something that perhaps only this worker could do.

Who calls this: the step says when user code begins and ends; the plans that wait ask. PURE.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fsm.errors import HandlerError

if TYPE_CHECKING:
    from fsm.engine.transition import Transition

__all__ = ["current", "refuse_to_wait"]

# A context variable: coroutines that run beside one another on one loop each have their own.
current: ContextVar[Transition[Any] | None] = ContextVar("fsm_transition", default=None)


def refuse_to_wait(what: str) -> None:
    """Refuse what would wait, where user code of a transition asks for it.

    Args:
        what: The call, as in "call('pay')".

    Raises:
        HandlerError: We are in a handler, guard or hook; the reason says what to use instead.
    """
    t = current.get()
    if t is None:
        return
    reason = (
        f"{what} would wait inside of a handler, and hold its worker meanwhile: send with t.send(…), "
        "let an effect answer with t.enqueue(…, on_success=…), or draw a hard event `x!` that follows by itself"
    )
    details = {"type": HandlerError.__name__, "message": reason}
    raise HandlerError(t.name, t.event, t.source, t.version, t.job_id, reason, details)
