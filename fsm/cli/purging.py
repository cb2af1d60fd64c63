"""The command that takes FSMs away, by their names or all that have finished: `fsm purge`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from fsm.cli.bars import bar
from fsm.cli.lengths import length
from fsm.cli.place import placed
from fsm.cli.printing import complain, json_option, print_array, print_fields, print_json, print_line
from fsm.cli.states import check_filters
from fsm.errors import FSMError

if TYPE_CHECKING:
    from fsm.cli.place import Place

__all__ = ["purge"]


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--finished", is_flag=True, help="In the place of names: all that have finished.")
@click.option("--older-than", type=length, metavar="LENGTH", help="With --finished, longer ago than: 30d; 0 for all.")
@click.option("--machine", metavar="NAME", help="With --finished, only FSMs of this machine.")
@click.option("--dry-run", is_flag=True, help="With --finished, count them and take away none.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@json_option
@placed
def purge(  # noqa: PLR0913 - one argument an option
    place: Place,
    names: tuple[str, ...],
    *,
    finished: bool,
    older_than: float | None,
    machine: str | None,
    dry_run: bool,
    is_sure: bool,
    as_json: bool,
) -> None:
    """Take FSMs away.

    Their mail goes with them, and their names are free afterwards. Asks on a terminal; elsewhere it wants --yes. With
    --finished it takes away, a few at a time, what finished longer ago than --older-than.
    """
    if not finished:
        if older_than is not None or machine is not None or dry_run:
            raise click.UsageError("--older-than, --machine and --dry-run go with --finished")
        if not names:
            raise click.UsageError("name the FSMs, or say --finished")
        _purge_named(place, names, is_sure=is_sure, as_json=as_json)
        return
    if names:
        raise click.UsageError("--finished takes no names: it is for all that have finished")
    if older_than is None:
        raise click.UsageError("--finished wants --older-than, such as 30d; 0 is for all that have finished")
    with place.client() as client:
        check_filters(client, machine, None)
        count = client.purge_finished(older_than=older_than, machine=machine, dry_run=True)
        if not dry_run:
            of = f" of machine {machine!r}" if machine else ""
            _be_sure(f"{count} FSM{'s' if count != 1 else ''}{of} that finished", is_sure=is_sure)
            with bar("purging") as progress:
                count = client.purge_finished(older_than=older_than, machine=machine, progress=progress)
    if as_json:
        print_json({"count": count, "dry_run": dry_run})
    else:
        print_fields([("counted" if dry_run else "purged", count)])


def _purge_named(place: Place, names: tuple[str, ...], *, is_sure: bool, as_json: bool) -> None:
    _be_sure(f"FSM {names[0]!r}" if len(names) == 1 else f"{len(names)} FSMs", is_sure=is_sure)
    errors: dict[str, FSMError] = {}
    with place.client() as client:
        for name in dict.fromkeys(names):
            try:
                client.purge(name)
            except FSMError as error:
                errors[name] = error
                complain(error)
            else:
                if not as_json:
                    print_line("purged", name)
    if as_json:
        print_array(
            {"name": name, "purged": name not in errors, "error": str(errors[name]) if name in errors else None}
            for name in dict.fromkeys(names)
        )
    if errors:
        click.get_current_context().exit(1)


def _be_sure(what: str, *, is_sure: bool) -> None:
    """Ask whether that is meant; where nobody can be asked, it must have been said."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("purge takes FSMs away for good: say --yes where nobody can be asked")
    if not click.confirm(f"Take away {what} for good?", err=True):
        complain("nothing was purged")
        click.get_current_context().exit(1)
