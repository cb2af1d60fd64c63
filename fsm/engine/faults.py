"""What user code raised: whose it is, and how it is told.

Who calls this: the step. PURE. An exception is user code too: asked for its text, it may raise again.
"""

from __future__ import annotations

import asyncio
import traceback

__all__ = ["is_for_us", "said", "traceback_of"]

_LONGEST_TEXT = 2000
# The end of a traceback tells more than its beginning; this much of it is kept in a record.
_LONGEST_TRACEBACK = 16_384


def is_for_us(fault: BaseException) -> bool:
    """Tell whether this is what the process wants of us, and no failure: an interrupt, a closed or cancelled step."""
    if isinstance(fault, asyncio.CancelledError):
        # Whoever awaits a task that was cancelled gets this too; then nobody asked our own task to stop.
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop: a plain handler raised it
            return False
        return task is not None and task.cancelling() > 0
    return isinstance(fault, (KeyboardInterrupt, GeneratorExit))


def said(fault: BaseException) -> str:
    """Give the text of an exception, or its class where it has none; bounded, and always UTF-8."""
    try:
        text = str(fault)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code again
        text = f"(its text cannot be made: {type(error).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_TEXT] or type(fault).__name__


def traceback_of(fault: BaseException) -> str:
    """Give the end of the traceback of an exception."""
    try:
        return "".join(traceback.format_exception(fault))[-_LONGEST_TRACEBACK:]
    except Exception as error:  # noqa: BLE001 - it asks the exception for its parts: user code again
        return f"(the traceback of {type(fault).__name__} cannot be made: {type(error).__name__})"
