"""The operator's commands: `fsm retry`, `fsm skip`, `fsm pause`, `fsm resume`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fsm import verbs
from fsm.cli.lengths import timeout as time_out
from fsm.cli.place import placed
from fsm.cli.printing import complain, json_option, print_json, print_line
from fsm.store.records import checked_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.cli.place import Place

__all__ = ["pause", "resume", "retry", "skip"]


def _conditions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the conditions under which it may touch the FSM."""
    for option in (
        click.option("--if-version", type=int, metavar="N", help="Only if the FSM has still this version."),
        click.option("--born", metavar="ID", default="", help="Only if it is still this life of the name."),
    ):
        function = option(function)
    return function


_timeout = time_out("10s", " for a worker that has it in hand")


@click.command()
@click.argument("name")
@_conditions
@_timeout
@json_option
@placed
def retry(place: Place, name: str, *, as_json: bool, **options: Any) -> None:
    """Try again what failed last.

    An FSM of status failed goes on with the hard or entry event that it owes; one that waits for the time of a retry
    does not wait any longer; else the event that failed last comes before all mail. Exits with 1 where there is nothing
    to retry.
    """
    found = _steer(place, "retry", name, **options)
    _tell("retry", name, found, "nothing has failed that could be tried again", as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("job", required=False)
@_conditions
@_timeout
@json_option
@placed
def skip(place: Place, name: str, job: str | None, *, as_json: bool, **options: Any) -> None:
    """Take out the event that would be applied next.

    With JOB only if that is the next one, as `fsm jobs` lists them. An FSM of status failed gives up the hard event
    that it owes, and goes on with its mail. Exits with 1 where nothing was skipped.
    """
    wanted = "" if job is None else checked_id(job, ours=True)
    found = _steer(place, "skip", name, job_id=wanted, **options)
    nothing = "no event waits"
    if found.word == "OTHER":
        nothing = f"event {found.event!r} is next, job {found.job_id}"
    _tell("skip", name, found, nothing, as_json=as_json)


@click.command()
@click.argument("name")
@_conditions
@json_option
@placed
def pause(place: Place, name: str, *, as_json: bool, **options: Any) -> None:
    """Let an FSM stand.

    Its mail is kept and grows, and none of it is applied before `fsm resume`. What a worker has in hand is finished.
    """
    _tell("pause", name, _steer(place, "pause", name, **options), as_json=as_json)


@click.command()
@click.argument("name")
@_conditions
@json_option
@placed
def resume(place: Place, name: str, *, as_json: bool, **options: Any) -> None:
    """Let a paused FSM go on with its mail.

    One that was not paused goes on as it did; that is no error.
    """
    found = _steer(place, "resume", name, **options)
    if not found.is_done and not as_json:
        print_line("not paused", name)
        return
    _tell("resume", name, found, as_json=as_json)


def _steer(place: Place, verb: Any, name: str, **options: Any) -> verbs.Steered:
    with place.client() as client:
        return client.do(verbs.steer(client.keys, verb, name, **options))


def _tell(verb: str, name: str, found: verbs.Steered, nothing: str = "", *, as_json: bool) -> None:
    """Print what was done; where there was nothing to do and that was not what was meant, end with exit code 1."""
    if as_json:
        is_about = found.is_done and found.job_id
        job, event = (found.job_id, found.event) if is_about else (None, None)
        print_json({"name": name, "verb": verb, "done": found.is_done, "job_id": job, "event": event})
    elif found.is_done:
        print_line(found.word.lower(), name, *filter(None, (found.event, found.job_id)))
    if not found.is_done and nothing:
        complain(f"{verb} of FSM {name!r}: {nothing}")
        click.get_current_context().exit(1)
