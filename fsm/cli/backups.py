"""`fsm backup`: what backups there are, and whether they are as they were written.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsm import config
from fsm.backup import DIRECTORY
from fsm.backup.choosing import looked_at, verify_file
from fsm.backup.directory import Backups
from fsm.cli.place import placed
from fsm.cli.printing import (
    Styled,
    clock_time,
    complain,
    is_terminal,
    json_option,
    print_array,
    print_line,
    print_table,
)
from fsm.errors import BackupError

if TYPE_CHECKING:
    from fsm.backup.choosing import Backup
    from fsm.cli.place import Place

__all__ = ["backup", "backups_of", "directory_option", "is_file"]

_COLUMNS = ("id", "created", "FSMs", "bytes", "what", "file", "problem")

directory_option = click.option(
    "--dir", "directory", metavar="DIR", default=DIRECTORY, show_default=True, help="Where the backups lie."
)


def backups_of(place: Place, directory: str) -> Backups:
    """Give the backups of the namespace of a command.

    Raises:
        ConfigError: It cannot be the name of a namespace.
    """
    return Backups(directory, config.resolve("namespace", place.namespace))


def is_file(wanted: str) -> bool:
    """Tell a FILE from an ID: an id is no path, and no file of its name is here."""
    return bool(wanted) and (os.sep in wanted or wanted.endswith(".gz") or Path(wanted).exists())


@click.group()
@placed
def backup(place: Place) -> None:
    """Save all FSMs of a namespace, and restore them."""
    click.get_current_context().obj = place


@backup.command(name="list")
@click.argument("directory", metavar="[DIR]", default=DIRECTORY)
@json_option
@placed
def list_backups(place: Place, directory: str, *, as_json: bool) -> None:
    """List the backups of the namespace in DIR, by default ./backups.

    First the newest, which `restore` takes, and the one before it, then those that are kept by their ids, newest first.
    It looks at the beginning and the end of each: `fsm backup verify` reads all of it. Piped, a line is: id, when it
    was begun, FSMs, bytes, what it is, file, what is wrong with it.
    """
    found = backups_of(place, directory).all()
    if as_json:
        print_array(one.as_json() for one in found)
    elif found or not is_terminal():
        print_table(_COLUMNS, map(_row, found))
    else:
        print_line(f"no backups in {directory}")


@backup.command()
@click.argument("wanted", metavar="[FILE|ID|DIR]...", nargs=-1)
@directory_option
@json_option
@placed
def verify(place: Place, wanted: tuple[str, ...], directory: str, *, as_json: bool) -> None:
    """Read backups from the first byte to the last, and tell whether they are as they were written.

    FILE is any file of a backup, ID one that `fsm backup list` shows, and DIR stands for the newest in it of the
    namespace; without any it is the newest of --dir. Exits with 1 where one is not good.
    """
    found = [_verified(place, directory, one) for one in wanted or ("",)]
    if as_json:
        print_array(one.as_json() for one in found)
    else:
        for one in found:
            if one.problem:
                complain(f"backup {one.path}: {one.problem}")
            else:
                print_line(Styled("good", "green"), one.id, clock_time(one.created_at), one.fsms, one.size, one.path)
    if any(one.problem for one in found):
        raise SystemExit(1)


def _verified(place: Place, directory: str, wanted: str) -> Backup:
    backups = backups_of(place, directory)
    path = Path(wanted)
    try:
        if wanted and path.is_dir():
            path = backups_of(place, wanted).stable
            return verify_file(path, "stable")
        if is_file(wanted):
            return verify_file(path)
        path = backups.snapshot(wanted) if wanted else backups.stable
        return backups.verify(wanted)
    except BackupError as error:
        return looked_at(path, "file", error.problem)


def _row(one: Backup) -> tuple[Any, ...]:
    created = clock_time(one.created_at)
    return one.id, created, one.fsms, one.size, one.role, one.path, Styled(one.problem, "red")
