"""What every benchmark shares: rounds A B A B, medians, the command line, one JSON object, and where it is kept.

A benchmark is a module `bench.NAME` with a function that measures and gives a `Result`. Its figures are medians of
rounds in which all candidates take their turn, so that what disturbs the machine disturbs all of them; what is said
about them is said as ratios of one run.

Who calls this: the modules of the benchmarks, each run as `python -m bench.NAME [--json] [--save]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import orjson

from bench import report
from bench.worker import ROOT
from fsm import FSMError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["RESULTS", "Result", "Row", "in_turn", "main", "say"]

RESULTS = ROOT / "bench" / "results"
_ROUNDS = 5


@dataclass(slots=True)
class Row:
    """One candidate in one setting.

    Args:
        name: Who was measured, as the page names it.
        setting: What it was given: numbers of entities, concurrency, whatever tells rows of one name apart.
        values: One a round, in the unit of the table.
        more: Further figures of the row, each with its unit in its name.
        note: What a reader must know of it: its lock, its concurrency.
        unit: Of its values, where rows of one benchmark have different ones; then the page has a table for each.
    """

    name: str
    setting: dict[str, Any]
    values: list[float]
    more: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    unit: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)


@dataclass(slots=True)
class Result:
    """All that one benchmark measured.

    Args:
        unit: Of the rows' values.
        rows: In the order of the table.
        figures: Those that are held against a target, by name.
        redis_server: Version of the server.
        missing: Who could not be measured, and why.
    """

    unit: str
    rows: list[Row]
    figures: dict[str, float]
    redis_server: str
    missing: dict[str, str] = field(default_factory=dict)


def in_turn(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let all candidates take their turn, round after round, and give the values of each."""
    values: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name, measure in candidates.items():
            values[name].append(measure())
            say(f"round {number + 1}, {name}: {values[name][-1]:,.1f}")
    return values


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def main(
    name: str,
    about: str,
    measure: Callable[[argparse.Namespace], Result],
    arguments: Sequence[str] | None = None,
    *,
    options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Run one benchmark from the command line: print a table, or one JSON object, and keep it where asked to.

    Args:
        name: Of the module.
        about: What it measures, for `--help`.
        measure: Measures; it is given `rounds`, `small` (whether all is to be tiny: a test of the benchmark itself),
            and the options of its own.
        arguments: Of the command line.
        options: Adds options of its own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--save", action="store_true", help=f"keep the result in bench/results/{name}.json")
    parser.add_argument("--rounds", type=_positive, default=_ROUNDS, help=f"how many ({_ROUNDS})")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that it works, measures nothing")
    if options is not None:
        options(parser)
    options_given = parser.parse_args(arguments)
    begin = time.monotonic()
    try:
        result = measure(options_given)
    except FSMError as error:
        sys.exit(f"bench: {error}")
    said = {
        "bench": name,
        "unit": result.unit,
        "figures": result.figures,
        "rows": [{**asdict(row), "median": row.median} for row in result.rows],
        "missing": result.missing,
        "about": {
            **report.about(result.redis_server),
            "rounds": options_given.rounds,
            "seconds": round(time.monotonic() - begin, 1),
        },
    }
    if options_given.save:
        _path(name).write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2) + b"\n")
    print(orjson.dumps(said).decode() if options_given.json else _table(said))


def _path(name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{name}.json"


def _table(said: dict[str, Any]) -> str:
    lines = [f"{said['bench']}, {said['unit']}", ""]
    for row in said["rows"]:
        setting = ", ".join(
            f"{key} {value:,}" if type(value) is int else f"{key} {value}" for key, value in row["setting"].items()
        )
        lines.append(f"{row['name']:28} {setting:36} {row['median']:>12,.1f} {row['unit']} {row['note']}")
        lines += [f"{'':28} {key}: {value}" for key, value in row["more"].items()]
    lines += ["", *(f"{key:36} {value:>12,}" for key, value in said["figures"].items())]
    lines += ["", *(f"missing: {key}: {why}" for key, why in said["missing"].items())]
    lines += [f"{key}: {value}" for key, value in said["about"].items()]
    return "\n".join(lines)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value
