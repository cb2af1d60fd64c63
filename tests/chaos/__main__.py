"""Workers that are killed and stopped, a Redis that crashes, replies that are lost: and every event counts once.

`python -m tests.chaos --fsms 200 --events 100000 --workers 4 --kills 200 --stops 20 --redis-restarts 3 --seed 1 --json`

Exit code 1 on any event that is lost, applied twice or out of order, on anything left behind, and where versions, log
and payloads disagree.

Reading order: `machines` (what notes what is wrong), `plan` (all choices, by the seed), `producers`, `shore` (Redis,
and the ways to it), `cellar` (the database of their payloads, where they have one), `fleet` (the workers), `witness`
(follows the log), `verdict`, `voyage` (a run), `test_chaos` (its short form).

What a run finds was tried with the numbers of the short form, one protection taken out at a time:

    found      the comparison of the token in commit.lua: lost, twice, versions that go back
    found      `recover` in workers/worker.py: locks up all that the last dead held
    found      LPOP of the applied ids in commit.lua: lost, twice, nothing ends
    found      keys in producers.py: twice
    not found  the number of a commit: its repeat finds no lock any more, and is STALE; only the word is wrong then
    not found  a claim that frees what the one before it took, whose reply was lost: the end of the lease does it later
    not found  the number of a claim: its repeat takes other FSMs, and frees those that the first call took
    not found  claiming suspects alone, in claim.lua: nobody dies often enough beside a poison to be abandoned

Those that it does not find have tests of their own in tests/store.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.plan import Plan
from tests.chaos.voyage import Voyage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPTIONS = {
    "fsms": "FSMs, of five machines",
    "events": "events that producers send",
    "workers": "worker processes; every other one has a parent",
    "kills": "SIGKILLs of workers, up to half of them at fault points",
    "stops": "SIGSTOPs for longer than the lease",
    "restarts": "SIGKILLs of Redis",
    "cuts": "replies that are lost with their connection",
    "poisons": "events that kill whoever runs them",
    "seed": "of all choices",
    "producers": "processes that send",
    "lease_ms": "how long locks outlive a dead worker",
    "concurrency": "handlers side by side in each worker",
}


def _plan(arguments: list[str] | None) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n", 1)[0])
    default = Plan()
    for field in fields(Plan):
        if field.name in _OPTIONS:
            option = "--" + {"restarts": "redis-restarts"}.get(field.name, field.name.replace("_", "-"))
            value = getattr(default, field.name)
            what = f"{_OPTIONS[field.name]} ({value})"
            parser.add_argument(option, dest=field.name, type=int, default=value, metavar="N", help=what)
    parser.add_argument("--retries", action="store_true", help="handlers that fail are tried again")
    deploy = "workers of the next definition come, and run beside those of the first"
    parser.add_argument("--deploy", action="store_true", help=deploy)
    where = "where payloads lie: Redis, unless one of these is told"
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="", help=where)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    given = vars(parser.parse_args(arguments))
    is_json = given.pop("json")
    return Plan(**given), is_json


@contextmanager
def _bar(plan: Plan) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far it is, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kills]} kills"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("storm", total=plan.events, kills=0)
        yield lambda word, done, kills: progress.update(task, description=word, completed=done, kills=kills)


def _lines(report: dict[str, Any]) -> str:
    shown = {key: value for key, value in report.items() if key != "faults"}
    return "\n".join([*(f"{key:16} {value}" for key, value in shown.items()), *report["faults"]])


def main(arguments: list[str] | None = None) -> int:
    """Run it, print what came of it, and give the exit code."""
    plan, is_json = _plan(arguments)
    # Whoever stops it must not leave its workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _bar(plan) as tell:
        report = Voyage(plan, tell).run()
    sys.stdout.write((orjson.dumps(report).decode() if is_json else _lines(report)) + "\n")
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
