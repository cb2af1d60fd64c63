"""Commands that show FSMs: `fsm state`, `fsm ls`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from fsm import registry, verbs
from fsm.cli.lengths import length, moment
from fsm.cli.payloads import Payloads
from fsm.cli.place import placed
from fsm.cli.printing import (
    Styled,
    clock_time,
    complain,
    is_terminal,
    json_option,
    print_array,
    print_fields,
    print_json,
    print_table,
)
from fsm.errors import ConfigError, UnknownFSMError, UnknownMachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.store.codec import Snapshot

__all__ = ["check_filters", "ls", "state"]

_STYLES = {"finished": "dim", "failed": "red", "damaged": "red", "starting": "cyan", "paused": "yellow"}
_SCREENFUL = 100
_PAGE = 500


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@placed
def state(place: Place, names: tuple[str, ...], *, as_json: bool) -> None:
    """Show FSMs, with all that is known of them.

    With --json one NAME gives an object, several give an array. A payload that lies in the storage of its machine is
    read there, where --app names the application.
    """
    found: list[dict[str, Any]] = []
    is_first = True
    is_complete = True
    with place.client() as client, Payloads(place, client) as payloads:
        for name in names:
            try:
                snapshot, is_there = _read(client, payloads, name)
            except UnknownFSMError as error:
                complain(error)
                is_complete = False
                continue
            about = snapshot.as_json() | {
                "waiting": client.ask(registry.waiting(client.keys, name)),
                "allowed": client.allowed(name),
                "why": client.do(verbs.why(client.keys, name)),
            }
            if as_json:
                found.append(about)
                continue
            if not is_first:
                click.echo()
            is_first = False
            _show(snapshot, about, "" if is_there else payloads.place_of(snapshot))
        is_complete = is_complete and payloads.is_complete
    if as_json and len(names) > 1:
        print_array(found)
    elif found:
        print_json(found[0])
    if not is_complete:
        click.get_current_context().exit(1)


def _read(client: Client, payloads: Payloads, name: str) -> tuple[Snapshot, bool]:
    """Read one FSM, with its payload where that can be read, and tell whether it could."""
    for found in payloads.filled([client.state(name)]):
        return found
    raise UnknownFSMError(name, client.namespace)


def _show(snapshot: Snapshot, about: dict[str, Any], where: str) -> None:
    payload = json.dumps(snapshot.payload, ensure_ascii=False, indent=2)
    print_fields(
        [
            ("name", Styled(snapshot.name, "bold")),
            ("machine", snapshot.machine),
            ("state", Styled(snapshot.state, "bold")),
            ("status", Styled(snapshot.status, _STYLES.get(snapshot.status, ""))),
            ("version", snapshot.version),
            ("queue", snapshot.queue),
            ("updated", clock_time(snapshot.updated_at)),
            ("retry at", clock_time(snapshot.retry_at)),
            ("timers", ", ".join(f"{key} at {clock_time(at)}" for key, at in snapshot.timers.items())),
            ("waiting", f"{about['waiting']} events" if about["waiting"] != 1 else "1 event"),
            ("allowed", ", ".join(about["allowed"])),
            ("history", " → ".join(snapshot.history)),
            ("deaths", f"{snapshot.tries} workers died on it" if snapshot.tries else None),
            ("error", _note(snapshot.error, "red")),
            ("refused", _note(snapshot.refused, "yellow")),
            ("payload", where or payload),
            ("why", about["why"]),
        ]
    )


def _note(note: dict[str, Any] | None, style: str) -> Styled | None:
    """Say in one line what failed or was refused last, and when."""
    if note is None:
        return None
    kind = note.get("type") or note.get("failed") or note.get("refused") or ""
    why = note.get("message") or note.get("reason") or ""
    at_ms = note.get("at_ms")
    when = f" ({clock_time(at_ms)})" if isinstance(at_ms, int) else ""
    return Styled(f"{note.get('event')}: {kind}{': ' if kind and why else ''}{why}{when}", style)


@click.command()
@click.option("--machine", metavar="NAME", help="Only FSMs of this machine.")
@click.option("--state", "in_state", metavar="NAME", help="Only FSMs in this state.")
@click.option("--status", type=click.Choice(verbs.STATUSES), help="Only FSMs of this status.")
@click.option("--failed/--not-failed", default=None, help="Only FSMs whose last event failed, or only the others.")
@click.option("--started-after", type=moment, metavar="TIME", help="Only FSMs that were started later.")
@click.option("--updated-before", type=moment, metavar="TIME", help="Only FSMs that nothing was written of since.")
@click.option("--in-state-longer-than", type=length, metavar="LENGTH", help="Only FSMs long in their state: 1d12h.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"At most so many, 0 for all.  [{_SCREENFUL} on a terminal, else all]",
)
@click.option("--cursor", default="", help="Go on behind an earlier list, which ended with this.")
@json_option
@placed
def ls(  # noqa: PLR0913 - one parameter an option
    place: Place,
    *,
    machine: str | None,
    in_state: str | None,
    limit: int | None,
    cursor: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """List FSMs by machine and state.

    Those longest in their state come first; with --failed, those that failed first. Who comes to a state meanwhile is
    left out: a terminal is told since when, as is each object of --json. Piped, a line is: name, machine, state,
    status, version, last commit. Payloads are in --json; one that lies in the storage of its machine is read there,
    where --app names the application, else it is null and `is_stored` is true.
    """
    if limit is None:
        limit = _SCREENFUL if is_terminal() and not as_json else 0
    with place.client() as client, Payloads(place, client) as payloads:
        check_filters(client, machine, in_state)
        found = _Found(client, limit, cursor, {"machine": machine, "state": in_state, **filters})
        if as_json:
            found.fill = lambda page: (snapshot for snapshot, _ in payloads.filled(page))
            print_array(snapshot.as_json() | {"as_of": found.as_of.isoformat()} for snapshot in found)
        else:
            print_table(("name", "machine", "state", "status", "version", "updated"), _rows(found))
        if is_terminal() and not as_json:
            complain(f"as of {found.as_of.astimezone():%H:%M:%S}")
        if found.is_cut_short():
            complain(f"… and more: --limit 0 shows all, --cursor {found.cursor} goes on")
        if not payloads.is_complete:
            click.get_current_context().exit(1)


class _Found:
    """What a query finds, page by page, until so many were given; 0 for all."""

    def __init__(self, client: Client, most: int, cursor: str, filters: dict[str, Any]) -> None:
        self._client = client
        self._left = most or None
        self._filters = filters
        self.cursor = cursor
        self.as_of = datetime.now(UTC)
        self.fill: Callable[[list[Snapshot]], Iterable[Snapshot]] = iter

    def __iter__(self) -> Iterator[Snapshot]:
        while self._left != 0:
            limit = _PAGE if self._left is None else min(_PAGE, self._left)
            page = self._client.query(**self._filters, limit=limit, cursor=self.cursor)
            if self._left is not None:
                self._left -= len(page)
            self.cursor, self.as_of = page.cursor, page.as_of
            yield from self.fill(page)
            if not self.cursor:
                return

    def is_cut_short(self) -> bool:
        """Tell whether there are more."""
        cursor = self.cursor
        while cursor:
            page = self._client.query(**self._filters, limit=1, cursor=cursor)
            if page:
                return True
            cursor = page.cursor
        return False


def _rows(snapshots: Iterable[Snapshot]) -> Iterator[tuple[Any, ...]]:
    for snapshot in snapshots:
        style = _STYLES.get(snapshot.status, "")
        yield (
            snapshot.name,
            snapshot.machine,
            snapshot.state,
            Styled(snapshot.status, style),
            snapshot.version,
            clock_time(snapshot.updated_at),
        )


def check_filters(client: Client, machine: str | None, in_state: str | None) -> None:
    """Refuse names that nobody has announced: an empty list would look like an answer.

    Raises:
        UnknownMachineError: No machine of this name has been started or served here.
        ConfigError: No machine has a state of this name.
    """
    known = client.machines()
    pairs = [(of, name) for of, about in known.items() for name in about.get("states", ())]
    # Those of older diagrams too: FSMs may be left there.
    older: list[tuple[str, str]] = client.ask(verbs.indexed(client.keys))
    pairs += older
    if machine is not None and machine not in known and machine not in {of for of, _ in pairs}:
        raise UnknownMachineError(machine, tuple(known))
    if in_state is None:
        return
    states = dict.fromkeys(name for of, name in pairs if machine in (None, of))
    if in_state not in states:
        of = f"machine {machine!r} has" if machine else "the machines known here have"
        listed = ", ".join(states) or "none"
        raise ConfigError(f"--state {in_state!r}", f"no such state: {of} {listed}")
