"""What the command line asks of durability: `fsm sync`, and the option of those commands that send.

Who calls this: `root`, by name; the commands that send.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fsm import config
from fsm.cli.lengths import timeout as time_out
from fsm.cli.place import placed
from fsm.cli.printing import json_option, print_fields, print_json, spinner

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["durability_option", "sync"]


def _checked(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    return None if value is None else config.check_durability(value, "--durability")


durability_option = click.option(
    "--durability",
    metavar="WORD",
    callback=_checked,
    help="Be done when it is so safe: memory, fsync, replicas:N, fsync+replicas:N.  [FSM_DURABILITY, else [tool.fsm]]",
)


@click.command()
@click.option(
    "--durability",
    metavar="WORD",
    default="fsync",
    show_default=True,
    callback=_checked,
    help="Or on replicas: replicas:N, fsync+replicas:N.",
)
@time_out("10s", "")
@json_option
@placed
def sync(place: Place, durability: str, timeout: float, *, as_json: bool) -> None:
    """Wait until all that Redis has taken is on its disk.

    Whoever sent it. Prints by what that is known, on how many replicas it is where they were asked, and how long it
    took. A Redis of embedded:// syncs always from then on.
    """
    with place.client() as client, spinner("waiting for the disk of Redis"):
        synced = client.sync(durability, timeout=timeout)
    if as_json:
        print_json(asdict(synced))
    else:
        asked = synced.replicas if "replicas" in durability else None
        print_fields([("how", synced.how), ("replicas", asked), ("ms", synced.ms)])
