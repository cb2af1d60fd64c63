"""`fsm log`: what every commit did.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fsm import verbs
from fsm.cli.place import placed
from fsm.cli.printing import Styled, clock_time, is_terminal, json_option, print_array, print_json, print_line
from fsm.errors import UnknownFSMError
from fsm.machine import span_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.store.keys import Keys
    from fsm.verbs import Plan

__all__ = ["log"]

_SCREENFUL = 100


@click.command()
@click.argument("name", required=False)
@click.option("--follow", "-f", "is_following", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    default=_SCREENFUL,
    show_default=True,
    help="The last so many, 0 for all.",
)
@json_option
@placed
def log(place: Place, name: str | None, *, is_following: bool, limit: int, as_json: bool) -> None:
    """Show what was done, of one FSM or of all.

    Oldest first. Piped, a line is: time, name, machine, event, from, to, version, ms, refusal or error, worker, job.
    Where an event is to be tried again, in the place of a refusal stands when. Where an operator did something, event
    is the verb, and there stands who it was.
    With --json it is one array; with --follow, which has no end, one JSON object a line.
    The log is capped: old entries are gone.
    """
    with place.client() as client:
        end = client.ask(verbs.log_end(client.keys))
        past = iter(client.do(_newest(client.keys, end, name, limit))) if limit else _until(client, end, name)
        first = next(past, None)
        if first is None and name is not None and not is_following and not client.exists(name):
            raise UnknownFSMError(name, client.namespace)
        lines = _chain(first, past, client.log(name, follow=True, after=end) if is_following else iter(()))
        if as_json and not is_following:
            print_array(lines)
            return
        for line in lines:
            if as_json:
                print_json(line, is_line=True)
                sys.stdout.flush()
            else:
                _show(line)


def _chain(
    first: dict[str, Any] | None, past: Iterator[dict[str, Any]], coming: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    if first is not None:
        yield first
    yield from past
    yield from coming


def _until(client: Client, end: str, name: str | None) -> Iterator[dict[str, Any]]:
    """Give all lines up to an entry: what comes later would never let a busy log end."""
    after = "0-0"
    while after != end and (page := client.ask(verbs.read_log(client.keys, after))):
        for entry_id, line in page:
            if _order(entry_id) > _order(end):
                return
            after = entry_id
            if name is None or line.get("name") == name:
                yield line


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def _newest(keys: Keys, end: str, name: str | None, limit: int) -> Plan[list[dict[str, Any]]]:
    """Read the last lines up to an entry, backwards, so that a long log costs no more than what is shown."""
    found: list[dict[str, Any]] = []
    before: str | None = end
    while before is not None and len(found) < limit:
        lines, before = yield verbs.log_back(keys, before)
        found.extend(line for line in lines if name is None or line.get("name") == name)
    return found[:limit][::-1]


def _show(line: dict[str, Any]) -> None:
    refused, error, ending = line.get("refused"), line.get("error"), line.get("ending")
    source, target, version = line.get("from", ""), line.get("to", ""), line.get("version", "")
    wait_ms = line.get("retry_in_ms")
    if isinstance(wait_ms, int):
        why = f"failed: {error}" if error else "asks for it"
        outcome = Styled(f"again in {span_text(wait_ms)}: attempt {line.get('attempt')} {why}", "yellow")
    elif error:
        outcome = Styled(f"failed: {error}", "red")
    elif refused:
        outcome = Styled(f"refused: {refused}", "yellow")
    elif line.get("verb"):
        outcome = Styled(f"by {line.get('by', '')}", "cyan")
    else:
        outcome = Styled(ending or "", "dim")
    at, name, event = clock_time(line["at_ms"]), line.get("name"), line.get("event") or line.get("verb")
    if is_terminal():
        way = f"{source} → {target}" if source != target else source
        took = f"{line['ms']} ms" if "ms" in line else ""
        version = f"v{version}" if version != "" else ""
        print_line(Styled(at, "dim"), Styled(name, "bold"), event, way, version, took, outcome)
        return
    columns = (at, name, line.get("machine"), event, source, target, version, line.get("ms"), outcome)
    print_line(*columns, line["worker"], line.get("job"))
