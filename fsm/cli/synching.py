"""The command that holds what is noted against the truth: `fsm synch`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fsm.cli.place import placed
from fsm.cli.printing import is_terminal, json_option, print_array, print_line, print_table

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["synch"]


@click.command()
@json_option
@placed
def synch(place: Place, *, as_json: bool) -> None:
    """Hold what is noted of FSMs against the truth.

    What differs is put right and told: index, mailboxes, locks, who is ready, and dead workers. Of a healthy namespace
    nothing is told; it may be run at any time. Exits with 1 where something cannot be repaired.
    """
    with place.client() as client:
        found = client.synch()
    if as_json:
        print_array([one._asdict() for one in found])
    elif found:
        print_table(("name", "what", "how"), found)
    elif is_terminal():
        print_line("nothing differs")
    if any(not one.is_repaired for one in found):
        raise SystemExit(1)
