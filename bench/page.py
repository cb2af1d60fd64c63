"""`python -m bench.page`: write the tables of docs/benchmarks.md anew from bench/results, and draw its charts.

No figure on that page is written by hand. Each of its tables stands between two marks,

    <!-- table: throughput -->
    …
    <!-- end -->

and is what this module makes of `bench/results/throughput.json`, with its chart; a test compares them. What was not
measured yet says so in the place of its table. Charts need matplotlib (`pip install -e '.[bench]'`), tables do not.

Who calls this: a person, `make bench` after all benchmarks have run, and the test that holds the page against results.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bench.suite import RESULTS
from bench.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["BENCHES", "CHARTS", "IMAGES", "PAGE", "TARGETS", "Target", "main", "read", "renew", "shown"]

PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
# In the order of the page.
BENCHES = ("throughput", "enqueue", "latency", "scale", "slow", "overhead", "timers", "persistence")
# Those that have a chart, and what it shows.
CHARTS = {
    "throughput": "Jobs a second of all candidates, logarithmic",
    "latency": "Percentiles of latency over the rate, both logarithmic",
    "scale": "Transitions a second over the number of FSMs",
    "slow": "Transitions a second over the concurrency, both logarithmic",
    "overhead": "What a transition costs Redis, by script, and the worker, by room",
}
_BLOCK = re.compile(
    r"(?P<begin><!-- table: (?P<name>[a-z]+) -->\n).*?(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
_WHOLE_FROM, _TENTHS_FROM = 100, 10
_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms", "samples")
_WITH_PERCENTILES = ("latency", "timers")
# What takes less of a transition is only in the results.
_LEAST_US = 0.5

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be.

    Args:
        text: What is measured.
        bench: The benchmark that has it.
        figure: Its name there.
        bound: The worst that is good.
        unit: Of both.
        is_least: Whether more is better.
    """

    text: str
    bench: str
    figure: str
    bound: float
    unit: str
    is_least: bool = True

    @property
    def wanted(self) -> str:
        """The target as the page shows it."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:,g} {self.unit}"

    def is_met(self, value: float) -> bool:
        """Whether this value is good."""
        return value >= self.bound if self.is_least else value <= self.bound


def _most(text: str, bench: str, figure: str, bound: float, unit: str) -> Target:
    return Target(text, bench, figure, bound, unit, is_least=False)


TARGETS = (
    Target("throughput against RQ `SimpleWorker`", "throughput", "against_rq_simple", 60, "×"),
    Target("throughput against the best Python queue", "throughput", "against_best_python_queue", 15, "×"),
    Target(
        "throughput against BullMQ, concurrency 100, no lock", "throughput", "against_bullmq_100_without_lock", 1.5, "×"
    ),
    _most("Redis a transition, 1 event per FSM and claim", "overhead", "redis_us_1", 42, "µs"),
    _most("Redis a transition, 10 events per FSM and claim", "overhead", "redis_us_10", 20, "µs"),
    _most("Python a transition, 1 event per FSM and claim", "overhead", "python_us_1", 25, "µs"),
    _most("Python a transition, 10 events per FSM and claim", "overhead", "python_us_10", 25, "µs"),
    Target("enqueue in bulk, one client", "enqueue", "bulk_per_s", 50_000, "a second"),
    Target("enqueue one by one, one client", "enqueue", "single_per_s", 5_000, "a second"),
    _most("enqueue to committed at 100 a second, p50", "latency", "p50_ms_at_100", 1.5, "ms"),
    _most("enqueue to committed at 100 a second, p99", "latency", "p99_ms_at_100", 8, "ms"),
    Target("throughput at 1,000,000 FSMs against 1,000", "scale", "million_against_thousand", 0.8, "×"),
    Target("hot FSM, 100,000 events", "scale", "hot_fsm_per_s", 20_000, "a second"),
    _most("how many of 1,000,000 FSMs there are", "scale", "million_count_ms", 5, "ms"),
    _most("any one of 1,000,000 FSMs", "scale", "million_random_ms", 5, "ms"),
    _most("the host of a name among 1,000,000 FSMs", "scale", "million_whois_ms", 5, "ms"),
    _most("a page of 100 of 1,000,000 FSMs", "scale", "million_page_of_all_ms", 5, "ms"),
    _most("Redis memory of an idle FSM, payload of 100 bytes", "overhead", "idle_fsm_bytes", 450, "bytes"),
    _most("Redis memory of a finished job record", "overhead", "job_record_bytes", 900, "bytes"),
    Target("50 ms async handlers, concurrency 128", "slow", "async_50ms_at_128_per_s", 1_800, "a second"),
    _most("1,000 timers due a second, idle workers, p99 late", "timers", "p99_ms_at_1000", 100, "ms"),
    _most("Redis memory of an armed timer", "timers", "timer_bytes", 200, "bytes"),
    _most("arming among a million timers against alone", "timers", "among_all_against_alone", 1.5, "×"),
    _most("two workers against one, handlers of a second", "slow", "two_workers_time_share", 0.55, "of the time"),
    Target("FSMs saved into a backup", "persistence", "saved_per_s", 50_000, "a second"),
    Target("FSMs restored from a backup", "persistence", "restored_per_s", 20_000, "a second"),
    _most("a page of 100 of 1,000,000 FSMs, by any index", "persistence", "million_query_page_ms", 10, "ms"),
)


def read(directory: Path = RESULTS) -> Results:
    """Read the results that are kept; those that are not there are left out."""
    paths = {name: directory / f"{name}.json" for name in BENCHES}
    return {name: orjson.loads(path.read_bytes()) for name, path in paths.items() if path.exists()}


def renew(page: str, results: Results) -> str:
    r"""Give the page with all its tables written anew.

    >>> print(renew("# Speed\n\n<!-- table: slow -->\nold\n<!-- end -->", {}))
    # Speed
    <BLANKLINE>
    <!-- table: slow -->
    Not measured yet: `python -m bench.slow --save`.
    <!-- end -->

    Raises:
        KeyError: The page has a table of nothing that is measured.
    """
    tables = {"about": _about, "targets": _targets, "missing": _missing}

    def write(block: re.Match[str]) -> str:
        name = block["name"]
        text = tables[name](results) if name in tables else _bench(name, results)
        return f"{block['begin']}{text}\n{block['end']}"

    return _BLOCK.sub(write, page)


def shown(value: object) -> str:
    """Give a value as the page shows it: no more digits than mean something.

    >>> shown(11234.5), shown(42.31), shown(0.8421), shown(3), shown([1.25, 20.0])
    ('11,234', '42.3', '0.84', '3', '1.25, 20.0')
    """
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        return str(value)
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, int) or abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= _TENTHS_FROM else f"{value:.2f}"


def _bench(name: str, results: Results) -> str:
    if name not in BENCHES:
        raise KeyError(f"docs/benchmarks.md has a table {name!r}, and there is no such benchmark: see BENCHES")
    if name not in results:
        return f"Not measured yet: `python -m bench.{name} --save`."
    result = results[name]
    if name == "overhead":
        text = _parts(result)
    elif name == "persistence":
        text = "\n\n".join(_rows(part, ()) for part in _by_unit(result))
    else:
        text = _rows(result, _PERCENTILES if name in _WITH_PERCENTILES else ())
    chart = f"\n\n![{CHARTS[name]}](images/bench-{name}.svg)" if name in CHARTS else ""
    return text + chart


def _rows(result: dict[str, Any], columns: Sequence[str]) -> str:
    """Make a table of a line a row.

    Args:
        result: Of one benchmark.
        columns: Those of the rows' further figures that tell more than their value; without them, all are shown.
    """
    rows = result["rows"]
    settings = list(rows[0]["setting"])
    # What tells all rows apart has columns of its own; else most of their cells would be empty.
    is_even = all(list(row["setting"]) == settings for row in rows)
    heads = ["", *(map(_words, settings) if is_even else ["with"]), *map(_words, columns or [result["unit"]])]
    has_rounds = not columns and any(len(row["values"]) > 1 for row in rows)
    heads += ["least to most"] if has_rounds else []
    has_more = any(row["note"] or (row["more"] and not columns) for row in rows)
    heads += ["to know"] if has_more else []
    lines = []
    for row in rows:
        setting = {_words(key): shown(value) for key, value in row["setting"].items()}
        cells = [row["name"], *(setting.values() if is_even else [", ".join(f"{k} {v}" for k, v in setting.items())])]
        cells += [shown(row["more"].get(column, "")) for column in columns] or [shown(row["median"])]
        cells += [f"{shown(min(row['values']))} to {shown(max(row['values']))}"] if has_rounds else []
        more = {} if columns else row["more"]
        lines.append([*cells, *(["; ".join(filter(None, (row["note"], _told(more))))] if has_more else [])])
    first = 1 + (len(settings) if is_even else 1)
    return _table(heads, lines, range(first, len(heads) - has_more))


def _by_unit(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Part a result whose rows have units of their own: those of one unit are a table."""
    units = dict.fromkeys(row["unit"] for row in result["rows"])
    return [{"unit": unit, "rows": [row for row in result["rows"] if row["unit"] == unit]} for unit in units]


def _parts(result: dict[str, Any]) -> str:
    """Make two tables of `overhead`: parts of a transition with one event and with many, and what takes memory."""
    events = sorted({row["setting"]["events each"] for row in result["rows"]})
    of = {(row["name"], row["setting"]["events each"]): row for row in result["rows"]}
    lines = []
    for name in dict.fromkeys(row["name"] for row in result["rows"]):
        its = [of.get((name, count)) for count in events]
        if max(row["median"] for row in its if row) >= _LEAST_US:
            cells = [shown(row["median"]) if row else "" for row in its]
            calls = [shown(row["more"].get("calls", "")) if row else "" for row in its]
            lines.append([name, *cells, *calls, next(row["note"] for row in its if row)])
    heads = ["", *(f"µs at {count}" for count in events), *(f"calls at {count}" for count in events), "to know"]
    costs = _table(heads, lines, range(1, 1 + 2 * len(events)))
    sizes = {name.removesuffix("_bytes"): size for name, size in result["figures"].items() if name.endswith("_bytes")}
    plain = {name: result["figures"].get(f"{name}_bytes_plain", "") for name in sizes}
    lines = [[_words(name), shown(size), shown(plain[name])] for name, size in sizes.items()]
    heads = ["Redis memory, bytes", "`hash-max-listpack-value` 1,024, as recommended", "64, Redis's own"]
    return f"{costs}\n\n" + _table(heads, lines, {1, 2})


def _told(more: Mapping[str, Any]) -> str:
    return "; ".join(f"{_words(key)} {shown(value)}" for key, value in more.items())


def _targets(results: Results) -> str:
    lines = []
    for target in TARGETS:
        value = results.get(target.bench, {}).get("figures", {}).get(target.figure)
        is_met = "" if value is None else "yes" if target.is_met(value) else "**no**"
        measured = "not measured yet" if value is None else shown(value)
        lines.append([target.text, target.wanted, measured, is_met])
    return _table(["figure", "target", "measured", "met"], lines, {1, 2})


def _missing(results: Results) -> str:
    lines = [[name, key, why] for name, result in results.items() for key, why in result["missing"].items()]
    return _table(["benchmark", "missing", "why"], lines) if lines else "Nothing is missing."


def _about(results: Results) -> str:
    """Say on what each was measured: what they have in common once, the rest for each."""
    if not results:
        return "Nothing is measured yet: `make bench`."
    abouts = {name: result["about"] for name, result in results.items()}
    lines = []
    for key in _keys(abouts.values()):
        values = {name: shown(about.get(key)) for name, about in abouts.items()}
        if len(set(values.values())) == 1:
            lines.append([_words(key), next(iter(values.values()))])
        else:
            lines.append([_words(key), "; ".join(f"{name} {value}" for name, value in values.items())])
    return _table(["", ""], lines)


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Give the keys of all of them, each once, in the order in which they come."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _words(key: str) -> str:
    """Give the name of a field as words.

    >>> _words("p50_ms"), _words("redis_us"), _words("fsms")
    ('p50 ms', 'redis µs', 'FSMs')
    """
    return " ".join({"us": "µs", "fsm": "FSM", "fsms": "FSMs"}.get(word, word) for word in key.split("_"))


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    rule = ["---:" if column in right else "---" for column in range(len(heads))]
    cells = [heads, rule, *([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables, and draw the charts where matplotlib is there."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.page", description="Write docs/benchmarks.md anew from bench/results."
    )
    parser.parse_args(arguments)
    results = read()
    PAGE.write_text(renew(PAGE.read_text("utf-8"), results), "utf-8")
    print(f"{PAGE.relative_to(ROOT)}: tables of {', '.join(results) or 'nothing'}", file=sys.stderr)
    if importlib.util.find_spec("matplotlib") is None:
        print("charts are left as they are: `pip install -e '.[bench]'` brings matplotlib", file=sys.stderr)
        return
    from bench import charts  # noqa: PLC0415 - only where matplotlib is there

    for path in charts.draw(results, IMAGES):
        print(f"{path.relative_to(ROOT)}: drawn", file=sys.stderr)


if __name__ == "__main__":
    main()
