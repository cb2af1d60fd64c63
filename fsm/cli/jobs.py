"""`fsm jobs`: what waits for an FSM, and what it waits for.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fsm.cli.place import placed
from fsm.cli.printing import Styled, clock_time, complain, json_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.verbs import Agenda, EffectView, EventView

__all__ = ["jobs"]

_STYLES = {"started": "green", "in hand": "green", "failed": "red", "no record": "yellow", "tried again": "yellow"}


@click.command()
@click.argument("name", metavar="NAME")
@json_option
@placed
def jobs(place: Place, name: str, *, as_json: bool) -> None:
    """List what waits for an FSM, and its open effects.

    At most 1,000 of each, in the order in which they come. Piped, a line is: event or effect, job, what it is, how it
    stands, since when, and what comes with it: the meta of an event, the events that an effect brings back.
    """
    with place.client() as client:
        found = client.jobs(name)
    if as_json:
        print_json(found.as_json())
        return
    print_table(("", "job", "what", "stands", "since", "brings"), _rows(found))
    more = ((found.more_events, "event"), (found.more_delayed, "delayed event"), (found.more_effects, "effect"))
    for count, kind in more:
        if count:
            complain(f"… and {count} more {kind}{'s' if count > 1 else ''}")


def _rows(found: Agenda) -> Iterator[tuple[Any, ...]]:
    for event in (*found.events, *found.delayed):
        what = event.event if event.data is None else f"{event.event} {_json(event.data)}"
        meta = _json(event.meta) if event.meta else ""
        yield "event", event.job_id, what, _styled(_event_stands(event, found)), clock_time(event.since), meta
    for effect in found.effects:
        given = [_json(value) for value in effect.args]
        given += [f"{key}={_json(value)}" for key, value in effect.kwargs.items()]
        what = f"{effect.func}({', '.join(given)})"
        brings = " or ".join(filter(None, (effect.on_success, effect.on_failure)))
        yield "effect", effect.job_id, what, _styled(_effect_stands(effect)), clock_time(effect.since), brings


def _event_stands(event: EventView, found: Agenda) -> str:
    stands = "waiting" if event.status else "no record"
    if event in found.delayed:
        return f"due at {clock_time(event.next_at)}" if event.status else stands
    if event.is_held:
        stands = f"in hand of {found.worker}"
    elif event.next_at is not None:
        stands = f"tried again at {clock_time(event.next_at)}"
    return f"{stands}, attempt {event.attempt}" if event.attempt > 1 else stands


def _effect_stands(effect: EffectView) -> str:
    parts = [f"{effect.status or 'no record'} in {effect.queue}"]
    if effect.retries_left:
        parts.append(f"{effect.retries_left} retries left" if effect.retries_left > 1 else "1 retry left")
    if effect.deaths:
        parts.append(f"{effect.deaths} workers died on it" if effect.deaths > 1 else "1 worker died on it")
    if effect.deadline is not None:
        parts.append(f"deadline {clock_time(effect.deadline)}")
    return ", ".join(parts)


def _styled(stands: str) -> Styled:
    style = next((style for word, style in _STYLES.items() if stands.startswith(word)), "")
    return Styled(stands, style)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
