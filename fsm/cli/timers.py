"""Commands about time: `fsm timers`, `fsm tick`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fsm.cli.lengths import timeout as time_out
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
from fsm.cli.sending import tell_end, tell_sent
from fsm.machine import span_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.verbs import TimerView

__all__ = ["tick", "timers"]

_STYLES = {"failed": "red", "fired": "green"}
_SCREENFUL = 100


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--all", "is_all", is_flag=True, help="All of them, also on a terminal, which else gets 100.")
@json_option
@placed
def timers(place: Place, name: str | None, *, is_all: bool, as_json: bool) -> None:
    """List what is to come, soonest first.

    Of the FSM called NAME its timers and delayed events; without it what is armed for any FSM. Piped, a line is: FSM,
    event, when, how it stands, what it is (timer, tick or delay), its key, its scope.
    """
    with place.client() as client:
        found = _walk(client) if name is None else iter(client.timers(name))
        if as_json:
            print_array(view.as_json() for view in found)
        elif is_all or name is not None or not is_terminal():
            _print(found)
        else:
            _print(view for _, view in zip(range(_SCREENFUL), found, strict=False))
            if next(found, None) is not None:
                complain(f"these are the first {_SCREENFUL}: --all lists all")


def _walk(client: Client) -> Iterator[TimerView]:
    page = client.timers(count=1000)
    yield from page
    while page.cursor:
        page = client.timers(cursor=page.cursor, count=1000)
        yield from page


def _print(views: Iterator[TimerView]) -> None:
    head = ("FSM", "event", "when", "stands", "what", "key", "scope")
    if is_terminal():
        print_table(head, map(_row, views))
    else:
        # As they come: there may be a million.
        for view in views:
            print_line(*_row(view))


def _row(view: TimerView) -> tuple[Any, ...]:
    stands = view.status if not view.late else f"{view.status}, {span_text(int(view.late * 1000))} late"
    styled = Styled(stands, _STYLES.get(view.status, ""))
    return view.name, view.event, clock_time(view.at), styled, view.kind, view.key, view.scope


@click.command()
@click.argument("name")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for its end and print it.")
@time_out("10s", "")
@json_option
@placed
def tick(place: Place, name: str, *, is_waiting: bool, timeout: float, as_json: bool) -> None:
    """Let an FSM run its `on_timer` now.

    The next tick comes when it is due all the same. With --wait, the exit code is 1 when it was not done.
    """
    with place.client() as client:
        job = client.tick(name)
        if not is_waiting:
            tell_sent(job, as_json=as_json)
        elif not tell_end(job, timeout, is_settling=False, as_json=as_json).ok:
            click.get_current_context().exit(1)
