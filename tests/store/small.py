"""A machine whose mailboxes are soon full."""

from __future__ import annotations

from fsm.machine import Machine, Settings


class Small(Machine):
    """A machine with room for two events."""

    settings = Settings(max_mailbox=2)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : note
        open --> shut : shut
        shut --> [*]
    """
