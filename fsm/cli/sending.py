"""Commands that change something: `fsm start`, `fsm transition`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fsm import config
from fsm.cli.durable import durability_option
from fsm.cli.lengths import length
from fsm.cli.lengths import timeout as time_out
from fsm.cli.place import placed
from fsm.cli.printing import complain, json_option, print_array, print_fields, print_json, print_line, spinner
from fsm.errors import FSMError, TransitionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.cli.place import Place
    from fsm.engine import Outcome
    from fsm.handles import TransitionJob

__all__ = ["start", "tell_end", "tell_sent", "transition"]


def _json(value: str) -> Any:
    """Read a JSON value of the command line, with all its digits: what is too large is refused where it is sent."""
    try:
        return json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        hint = f"{value!r} is not JSON ({error}): quote strings as '\"tea\"'"
        raise click.BadParameter(hint) from error


def _moment(value: str) -> datetime:
    """Read a moment of the command line, with its zone."""
    form = "write it as 2026-12-01T08:00+01:00"
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        hint = f"{value!r} is no moment: {form}"
        raise click.BadParameter(hint) from error
    if moment.tzinfo is None:
        hint = f"{value!r} has no zone: {form}"
        raise click.BadParameter(hint)
    return moment


def _refuse(word: str) -> NoReturn:
    message = f"{word} is no JSON number"
    raise ValueError(message)


@click.command()
@click.argument("machine")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--payload", type=_json, metavar="JSON", help="What each of them begins with; else the default of its type."
)
@click.option("--state", metavar="STATE", help="Adopt what is alive already, in this state: no entry event is run.")
@click.option("--exist-ok", is_flag=True, help="One of this name and MACHINE may exist; it is left as it is.")
@click.option("--host", metavar="NAME", help="Run them on this host alone; they wait while no worker of it is there.")
@durability_option
@json_option
@placed
def start(  # noqa: PLR0913 - one parameter an option
    place: Place,
    machine: str,
    names: tuple[str, ...],
    payload: Any,
    *,
    state: str | None,
    exist_ok: bool,
    host: str | None,
    durability: str | None,
    as_json: bool,
) -> None:
    """Start FSMs of a MACHINE.

    MACHINE is its name, in --app or else as workers announced it, or module:Class. A worker runs their entry event.
    """
    of = place.known_machine(machine)
    with place.client(place.cluster(), durability) as client:
        items = [(name, payload) for name in names]
        verdicts = client.start_many(of, items, state=state, exist_ok=exist_ok, host=host)
    if as_json:
        print_array(
            {
                "name": verdict.name,
                "started": verdict.ok and bool(verdict.job_id),
                "job_id": verdict.job_id or None if verdict.ok else None,
                "error": None if verdict.error is None else str(verdict.error),
            }
            for verdict in verdicts
        )
    for verdict in verdicts:
        if verdict.error is not None:
            complain(verdict.error)
        elif not as_json:
            print_line("started" if verdict.job_id else "exists", verdict.name)
    if not all(verdict.ok for verdict in verdicts):
        click.get_current_context().exit(1)


@click.command()
@click.argument("name")
@click.argument("event")
@click.argument("data", type=_json, metavar="[DATA]", required=False)
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for its end and print it.")
@time_out("10s", "")
@click.option("--settle", "is_settling", is_flag=True, help="Wait also for the hard events that follow.")
@click.option("--key", metavar="TEXT", help="Your own name for this event: sent again with it, it is applied once.")
@click.option("--if-version", type=int, metavar="N", help="Refuse it when the FSM has another version.")
@click.option("--start", "to_start", metavar="MACHINE", help="Start the FSM if there is none; as in `fsm start`.")
@click.option("--meta", type=_json, metavar="JSON", help="A JSON object for t.meta and the log.")
@click.option("--job-id", metavar="ID", help="An id of your own in the place of a key, unique over all FSMs.")
@click.option("--delay", type=length, metavar="TIME", help="Let it join the mailbox later: seconds, or as 1m30s.")
@click.option("--at", type=_moment, metavar="WHEN", help="Or then: a moment with its zone, 2026-12-01T08:00+01:00.")
@durability_option
@json_option
@placed
def transition(  # noqa: PLR0913 - one parameter an option
    place: Place,
    name: str,
    event: str,
    data: Any,
    *,
    is_waiting: bool,
    timeout: float,
    is_settling: bool,
    key: str | None,
    if_version: int | None,
    to_start: str | None,
    meta: Any,
    job_id: str | None,
    delay: float | None,
    at: datetime | None,
    durability: str | None,
    as_json: bool,
) -> None:
    """Send an EVENT to the FSM called NAME.

    DATA is JSON. Without --wait it is done when the event is in the mailbox. With --wait, or --settle, the exit code
    is 1 when the event was refused or failed. A repeat is safe with the same --key or --job-id only.
    """
    is_waiting = is_waiting or is_settling
    machine = None if to_start is None else place.known_machine(to_start)
    wanted = config.resolve("durability") if durability is None else durability
    with place.client(None if to_start is None else place.cluster(), wanted) as client:
        job = client.transition(
            name,
            event,
            data,
            key=key,
            if_version=if_version,
            start=machine,
            meta=meta,
            result=is_waiting,
            job_id=job_id,
            delay=delay,
            at=at,
        )
        if is_waiting:
            # What the worker did because of it came after what was proven of the event.
            tell_end(job, timeout, is_settling=is_settling, as_json=as_json, when=lambda: client.sync(wanted))
        else:
            tell_sent(job, as_json=as_json)


def tell_sent(job: TransitionJob, *, as_json: bool) -> None:
    """Print of an event that it is in the mailbox."""
    if as_json:
        print_json({"name": job.name, "event": job.event, "job_id": job.id})
    else:
        print_line("sent", job.event, job.name, job.id)


def tell_end(
    job: TransitionJob, timeout: float, *, is_settling: bool, as_json: bool, when: Callable[[], object] = bool
) -> Outcome:
    """Wait for the end of an event and print it.

    Args:
        job: The event.
        timeout: Seconds.
        is_settling: Wait for the hard events that follow as well.
        as_json: Print JSON.
        when: Called when it has ended, or has not in time: it returns when that may be told.

    Raises:
        TransitionError: It was refused or failed; as JSON that is printed as well.
    """
    try:
        with spinner(f"waiting for job {job.id}"):
            try:
                outcome = job.result(timeout, settle=is_settling)
            except FSMError:
                when()
                raise
            when()
    except FSMError as error:
        if as_json:
            print_json(_as_json(job, error))
        raise
    _print_outcome(outcome, as_json=as_json)
    return outcome


def _as_json(job: TransitionJob, error: FSMError) -> dict[str, Any]:
    """Give an error in the form of an outcome."""
    known = (
        (error.state, error.version, error.reason) if isinstance(error, TransitionError) else (None, None, str(error))
    )
    state, version, reason = known
    return {
        "name": job.name,
        "event": job.event,
        "state": state,
        "version": version,
        "job_id": job.id,
        "ok": False,
        "reply": None,
        "reason": reason,
        "error": type(error).__name__,
    }


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(outcome) | {"error": None})
        return
    print_fields(
        [
            ("state", outcome.state),
            ("version", outcome.version),
            ("reply", None if outcome.reply is None else json.dumps(outcome.reply, ensure_ascii=False, indent=2)),
            ("not done", outcome.reason),
        ]
    )
