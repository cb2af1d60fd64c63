"""What a worker writes to stderr: its log, and whose event each line of a handler's log is about.

Who calls this: `fsm worker`, once per process, before the application is imported.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from fsm.cli.printing import safe

__all__ = ["log_to_stderr"]


def log_to_stderr(level: str, worker: str = "") -> None:
    """Log to stderr, in colour where a person looks; handlers that an application has set up already are left alone.

    What was written by `t.log` says for which FSM and event: `[order-42 pay]`; at "debug" it says all that it knows.

    Args:
        level: The lowest that is written.
        worker: Said in each line, where several processes write to one stderr.
    """
    who = f"{worker} ".replace("%", "%%") if worker else ""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow to import, and most workers write where nobody looks
        from rich.logging import RichHandler  # noqa: PLC0415 - as above

        handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
        pattern = f"{who}%(whose)s%(message)s"
    else:
        handler = logging.StreamHandler()
        pattern = f"%(asctime)s %(levelname)s %(name)s {who}%(whose)s%(message)s"
    handler.setFormatter(_Formatter(pattern, is_full=level == "debug"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _Formatter(logging.Formatter):
    """Puts into `%(whose)s` what a record knows of its transition."""

    def __init__(self, pattern: str, *, is_full: bool) -> None:
        super().__init__(pattern, validate=False)  # `whose` is no field that logging knows
        self._is_full = is_full

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        record.whose = self._whose(record)
        return super().formatMessage(record)

    def _whose(self, record: logging.LogRecord) -> str:
        def known(field: str) -> Any:
            return getattr(record, field, None)

        if known("fsm") is None:
            return ""
        parts = [f"{known('fsm')} {known('event') or ''}".rstrip()]
        if self._is_full:
            parts += [
                f"{field} {known(field)}" for field in ("machine", "version", "job_id") if known(field) is not None
            ]
        if self._is_full or known("attempt") not in (None, 1):
            parts.append(f"attempt {known('attempt')}")
        # Names of FSMs hold any text: a line of the log stays one line, and steers no terminal.
        return f"[{safe(', '.join(parts))}] "
