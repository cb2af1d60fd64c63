"""`fsm drain`: the workers of a host end, in order.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fsm.cli.lengths import timeout as time_out
from fsm.cli.place import placed
from fsm.cli.printing import complain, json_option, print_json, print_line
from fsm.machine import duration_text

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["drain"]

_NOT_OVER = 1


@click.command()
@click.argument("host")
@time_out("60s", " until they have ended")
@click.option("--no-wait", "is_not_waited", is_flag=True, help="Ask only.")
@json_option
@placed
def drain(place: Place, host: str, *, timeout: float, is_not_waited: bool, as_json: bool) -> None:
    """End the workers of a host, in order.

    They take no new work, finish what they have in hand, give back the rest, and exit with 0, within their shutdown
    time-out, as after SIGTERM. Workers that are started on this host later are not asked. Exits with 1 where some have
    not ended in time; they still do.
    """
    with place.client() as client:
        found = client.drain(host, timeout=0 if is_not_waited else timeout)
    if as_json:
        print_json({"host": host, "left": found.left})
    elif found.is_done:
        print_line("drained", host)
    else:
        for worker, held in found.left.items():
            print_line("ends", worker, held)
    if not found.is_done and not is_not_waited:
        waited = duration_text(round(timeout * 1000))
        who = "1 worker has" if len(found.left) == 1 else f"{len(found.left)} workers have"
        complain(f"host {host}: {who} not ended within {waited}, but will")
        raise SystemExit(_NOT_OVER)
