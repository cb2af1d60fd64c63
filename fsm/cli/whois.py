"""`fsm whois`: to which hosts the ring gives names.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fsm.cli.place import placed
from fsm.cli.printing import complain, json_option, print_array, print_table

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["whois"]


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@placed
def whois(place: Place, names: tuple[str, ...], *, as_json: bool) -> None:
    """Say to which hosts the ring gives names.

    It says so of any names, of FSMs or not: where an FSM waits, `fsm state` shows. Where --app is an App with a cluster
    of its own, that is asked. Piped, a line is: name, host. Exits with 1 where a name has no host.
    """
    own = place.cluster()
    with place.client(own) as client:
        found = [(name, client.whois(name)) for name in names]
    if as_json:
        print_array({"name": name, "host": host} for name, host in found)
    else:
        print_table(("name", "host"), ((name, host or "") for name, host in found))
    homeless = [name for name, host in found if not host]
    if homeless:
        complain(
            "no host is alive: start a worker with `fsm worker`"
            if own is None
            else f"the cluster of --app gives no host to {', '.join(homeless)}: any worker runs them"
        )
        click.get_current_context().exit(1)
