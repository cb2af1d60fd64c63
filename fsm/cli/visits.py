"""Commands about the way of one FSM through its states: `fsm wait`, `fsm history`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fsm import verbs
from fsm.cli.lengths import timeout as time_out
from fsm.cli.place import placed
from fsm.cli.printing import clock_time, json_option, print_array, print_json, print_line, print_table, spinner
from fsm.errors import FSMError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.client import Client

__all__ = ["history", "wait"]


@click.command()
@click.argument("name")
@click.argument("states", metavar="STATE...", nargs=-1, required=True)
@time_out("30s", "")
@json_option
@placed
def wait(place: Place, name: str, states: tuple[str, ...], *, timeout: float, as_json: bool) -> None:
    """Wait until the FSM called NAME is in a STATE.

    Or has passed through it since. Exit code 0 when it was there; 1, with the reason, when it ended elsewhere, failed,
    or did not come there in time. Prints where it stands then: name, state, version.
    """
    with place.client() as client:
        try:
            with spinner(f"waiting for {name} to be {' or '.join(states)}"):
                snapshot = client.wait_for(name, states, timeout=timeout)
        except FSMError as error:
            if as_json:
                print_json({"name": name, "reached": False, "reason": str(error), "error": type(error).__name__})
            raise
    if as_json:
        found = {"state": snapshot.state, "status": snapshot.status, "version": snapshot.version}
        print_json({"name": name, "reached": True, "reason": None, "error": None, **found})
    else:
        print_line(snapshot.name, snapshot.state, snapshot.version)


@click.command()
@click.argument("name")
@click.option("--events", is_flag=True, help="Show what became of each event, as Settings(audit=True) keeps it.")
@json_option
@placed
def history(place: Place, name: str, *, events: bool, as_json: bool) -> None:
    """Show the last states of an FSM.

    Oldest first, the present one last; piped, a line is: state, and of the event that led there time, name, version,
    job. The log, which is capped, may have forgotten all but the state.

    With --events, a line is: time, event, state before, state after, version, what became of it, job. Without
    Settings(audit=True) it is what the log still knows.
    """
    if events:
        _show_events(place, name, as_json=as_json)
        return
    with place.client() as client:
        found = client.do(verbs.visits(client.keys, name))
    if as_json:
        print_array(asdict(visit) for visit in found)
        return
    rows: list[tuple[Any, ...]] = [
        (visit.state, clock_time(visit.at_ms), visit.event, visit.version, visit.job_id) for visit in found
    ]
    print_table(("state", "since", "event", "version", "job"), rows)


def _show_events(place: Place, name: str, *, as_json: bool) -> None:
    with place.client() as client:
        if as_json:
            print_array(_all_lines(client, name))
            return
        print_table(("at", "event", "from", "to", "version", "outcome", "job"), map(_row, _all_lines(client, name)))


def _all_lines(client: Client, name: str) -> Iterator[dict[str, Any]]:
    after = ""
    while lines := client.history(name, after=after, limit=1000):
        yield from lines
        after = lines[-1]["id"]


def _row(line: dict[str, Any]) -> tuple[Any, ...]:
    event = line.get("event") or line.get("verb")
    outcome = line.get("ending") or "done"
    if "error" in line:
        outcome = f"failed: {line['error']}"
    elif "refused" in line:
        outcome = f"refused: {line['refused']}"
    elif "by" in line:
        outcome = f"by {line['by']}"
    return (
        clock_time(line["at_ms"]),
        event,
        line.get("from"),
        line.get("to"),
        line.get("version"),
        outcome,
        line.get("job"),
    )
