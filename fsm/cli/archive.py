"""`fsm backup` whole: what saves and restores, beside what lists and verifies.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fsm.backup import DIRECTORY, MAX_SNAPSHOTS
from fsm.cli.backups import backup, directory_option, is_file
from fsm.cli.bars import bar
from fsm.cli.place import placed
from fsm.cli.printing import Styled, complain, json_option, print_fields, print_json, print_line

if TYPE_CHECKING:
    from fsm.archive import Restored, Saved
    from fsm.cli.place import Place

__all__ = ["backup"]

_MOST_TOLD = 20

into_option = click.option("--into", metavar="NAMESPACE", help="Into this one, and not that which was saved.")
replace_option = click.option(
    "--replace", is_flag=True, help="Purge what is in the way: another life of the name, or an older version."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Verify and count, and write nothing.")


@backup.command()
@click.argument("directory", metavar="[DIR]", default=DIRECTORY)
@click.option(
    "--max",
    "max_snapshots",
    metavar="N",
    type=click.IntRange(min=0),
    default=MAX_SNAPSHOTS,
    show_default=True,
    help="How many are kept by their ids; older ones are removed.",
)
@json_option
@placed
def save(place: Place, directory: str, max_snapshots: int, *, as_json: bool) -> None:
    """Save all FSMs of the namespace into DIR, by default ./backups.

    They go on meanwhile: each is saved as it stands at one moment, with its mail, delayed events, timers and open
    effects. Piped, a line is: id, FSMs, bytes, file. Exits with 1 where an FSM cannot be read.
    """
    with place.client() as client, bar("saving") as progress:
        saved = client.backup(directory, max_snapshots=max_snapshots, progress=progress)
    _print_saved(saved, as_json=as_json)
    for name in saved.broken:
        complain(f"FSM {name!r} is not in it: a key of it is of another type")
    if saved.broken:
        raise SystemExit(1)


@backup.command()
@click.argument("wanted", metavar="[FILE|ID]", default="")
@directory_option
@into_option
@replace_option
@click.option("--no-effects", is_flag=True, help="Forget open effects; else their FSMs are told that they failed.")
@dry_run_option
@json_option
@placed
def restore(  # noqa: PLR0913 - one argument an option
    place: Place,
    wanted: str,
    directory: str,
    into: str | None,
    *,
    replace: bool,
    no_effects: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put back the FSMs of a backup that are not there: of FILE, of an ID, or of the newest that is good.

    An FSM that is there, and not older, is kept; nothing is overwritten without --replace. It may be repeated. Exits
    with 1 where an FSM of the backup is not there in the end, or no backup is good: then nothing was touched.
    """
    source, snapshot = (wanted, "") if wanted and is_file(wanted) else (directory, wanted)
    with place.client() as client, bar("restoring") as progress:
        restored = client.restore(
            source,
            snapshot,
            into=into,
            replace=replace,
            effects=not no_effects,
            dry_run=dry_run,
            progress=progress,
        )
    _print_restored(restored, as_json=as_json)


@backup.command()
@click.argument("name")
@click.argument("file", metavar="[FILE]", default="")
@json_option
@placed
def export(place: Place, name: str, file: str, *, as_json: bool) -> None:
    """Save one FSM into FILE, with its last lines of the log: to look at it elsewhere, or to bring it there.

    FILE is by default the name with .fsm.gz behind it. It must not be there. Piped, a line is: id, FSMs, bytes, file.
    """
    with place.client() as client:
        saved = client.export_fsm(name, file or f"{_as_file(name)}.fsm.gz")
    _print_saved(saved, as_json=as_json)


@backup.command(name="import")
@click.argument("file")
@into_option
@replace_option
@dry_run_option
@json_option
@placed
def import_fsm(  # noqa: PLR0913 - one argument an option
    place: Place, file: str, into: str | None, *, replace: bool, dry_run: bool, as_json: bool
) -> None:
    """Put back an FSM that was exported into FILE, as `restore` does."""
    with place.client() as client:
        restored = client.import_fsm(file, into=into, replace=replace, dry_run=dry_run)
    _print_restored(restored, as_json=as_json)


def _as_file(name: str) -> str:
    """Give the name of an FSM as that of a file here: it may hold any text."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:100]


def _print_saved(saved: Saved, *, as_json: bool) -> None:
    if as_json:
        print_json(saved.as_json())
    else:
        print_line(saved.id, saved.fsms, saved.size, saved.path)
    if saved.stored:
        complain(
            f"warning: the payload of {_fsms(saved.stored)} is not in it, but in the storage of their machine: "
            "back up that database too, both while no worker runs"
        )


def _print_restored(restored: Restored, *, as_json: bool) -> None:
    for one in restored.passed_over:
        complain(f"warning: backup {one.path} is passed over: {one.problem}")
    if as_json:
        print_json(restored.as_json())
    else:
        would = "would be " if restored.is_dry_run else ""
        replaced = f", {restored.replaced} of them in the place of another" if restored.replaced else ""
        print_fields(
            [
                ("backup", restored.path),
                ("id", restored.id),
                ("begun", restored.created_at),
                ("namespace", restored.namespace),
                (f"{would}restored", f"{restored.restored}{replaced}"),
                ("kept", restored.kept or None),
                ("name is taken", Styled(restored.existing, "red") if restored.existing else None),
                ("in hand", Styled(restored.held, "red") if restored.held else None),
                ("broken", Styled(restored.broken, "red") if restored.broken else None),
                ("met twice", restored.repeated or None),
                ("missing", "; ".join(restored.missing)),
            ]
        )
        for name, why in restored.left[:_MOST_TOLD]:
            complain(f"FSM {name!r} was not restored: {_WHY[why]}")
        if len(restored.left) > _MOST_TOLD:
            complain("and more: --json names up to a thousand")
    if restored.stored:
        complain(
            f"warning: the payload of {_fsms(restored.stored)} is not in the backup, but in the storage of their "
            f"machine: that must have their rows, of namespace {restored.namespace!r} and of the same moment"
        )
    if not restored.is_whole:
        raise SystemExit(1)


def _fsms(count: int) -> str:
    return f"{count} FSM{'' if count == 1 else 's'}"


_WHY = {
    "existing": "another life of its name is there, or an older version of it: --replace purges that",
    "held": "a worker had what is there in hand all the time: begin again",
    "broken": "a key of it is of another type here, or what was saved is no snapshot: `fsm synch` tells which",
}
