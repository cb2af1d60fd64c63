"""The charts of docs/benchmarks.md, as SVG: the same results give the same bytes.

Who calls this: `bench.page`, where matplotlib is installed. A chart whose result is not there is not drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.page import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["draw"]

# Ids in the file are made from this, and no date is written: else each drawing would differ from the last one.
_HASH_SALT = "bench"
_NOBODY: dict[str, Any] = {"Date": None, "Creator": None}
_WIDTH = 8.0
_OURS, _OTHERS, _THIRD = "#b5402a", "#7b8794", "#2f6f8f"
_STYLE = {
    "svg.hashsalt": _HASH_SALT,
    # Text as text: smaller files, and it can be searched and read aloud.
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    # It must be readable on a dark page too.
    "figure.facecolor": "white",
}

_US = ("ours", "fsm-workers")
# What Redis itself can do, which is no candidate.
_CEILING = ("ceiling", "redis-benchmark")

# Of what a transition costs, besides its parts.
_TOTALS = ("Python: worker in all",)

Row = dict[str, Any]


def draw(results: dict[str, dict[str, Any]], directory: Path) -> list[Path]:
    """Draw what there are results for, and give the files.

    On a crash: some are drawn; draw again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    charts: dict[str, Callable[[list[Row]], Figure]] = {
        "throughput": _throughput,
        "latency": _latency,
        "scale": _scale,
        "slow": _slow,
        "overhead": _overhead,
    }
    drawn = []
    for name, chart in charts.items():
        if name not in results:
            continue
        with mpl.rc_context(_STYLE):
            path = directory / f"bench-{name}.svg"
            chart(results[name]["rows"]).savefig(path, format="svg", metadata=_NOBODY)
            drawn.append(path)
    return drawn


def _new(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _label(row: Row) -> str:
    return f"{row['name']} ({shown(row['setting']['entities'])} entities)"


def _thousands(axis: Any) -> None:
    # With so many digits that a million is not shown as 1e+06.
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.9g}"))


def _ones_twos_fives(axis: Any) -> None:
    """Label 1, 2, 5, 10, 20 … of a logarithmic axis: one that spans little more than a power of ten needs more than 10.

    What lies between has no label; by itself it would get one like 6 × 10⁰.
    """
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())
    _thousands(axis)


def _bars(rows: list[Row], axis_title: str, *, is_log: bool = False) -> Figure:
    """Draw one bar a row, the largest on top, with its value behind it."""
    values = [row["median"] for row in rows]
    order = sorted(range(len(rows)), key=lambda index: values[index])
    figure, axes = _new(0.9 + 0.30 * len(rows))
    colours = [_OURS if rows[index]["name"].startswith(_US) else _OTHERS for index in order]
    bars = axes.barh([_label(rows[index]) for index in order], [values[index] for index in order], color=colours)
    axes.bar_label(bars, [shown(values[index]) for index in order], padding=3)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.3 / len(rows))
    if is_log:
        axes.set_xscale("log")
        # Such a bar has no zero to stand on: it begins a power of ten below the shortest.
        axes.set_xlim(left=10 ** math.floor(math.log10(min(values)) - 0.3))
    # Room for the value of the longest bar.
    axes.set_xlim(right=max(values) * (3 if is_log else 1.15))
    axes.set_xlabel(axis_title)
    _thousands(axes.xaxis)
    return figure


def _throughput(rows: list[Row]) -> Figure:
    jobs = [row for row in rows if not row["name"].startswith(_CEILING)]
    return _bars(jobs, "jobs a second, one entity at a time (logarithmic)", is_log=True)


def _latency(rows: list[Row]) -> Figure:
    """Draw percentiles over the rate: one colour a candidate, one line a percentile."""
    figure, axes = _new(4.2)
    names = list(dict.fromkeys(row["name"] for row in rows))
    styles = {"p50_ms": "-", "p90_ms": "--", "p99_ms": ":"}
    for name, colour in zip(names, (_OURS, _THIRD, _OTHERS, "black"), strict=False):
        its = sorted((row for row in rows if row["name"] == name), key=lambda row: row["setting"]["per_s"])
        for percentile, style in styles.items():
            points = [(row["setting"]["per_s"], row["more"][percentile]) for row in its if percentile in row["more"]]
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, marker="o", color=colour, label=f"{name}, {percentile[:3]}"
                )
    axes.set(xscale="log", yscale="log", xlabel="events a second", ylabel="ms")
    _thousands(axes.xaxis)
    _ones_twos_fives(axes.yaxis)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _scale(rows: list[Row]) -> Figure:
    """Draw the rate over the number of FSMs: one line for each number of events."""
    its = [row for row in rows if row["name"] == "a sample of all FSMs"]
    figure, axes = _new(3.6)
    events = sorted({row["setting"]["events each"] for row in its}, reverse=True)
    for count, colour in zip(events, (_OURS, _THIRD), strict=False):
        some = [row for row in its if row["setting"]["events each"] == count]
        sizes, medians = [row["setting"]["FSMs"] for row in some], [row["median"] for row in some]
        spread = [[m - min(row["values"]) for m, row in zip(medians, some, strict=True)],
                  [max(row["values"]) - m for m, row in zip(medians, some, strict=True)]]  # fmt: skip
        label = f"{count} event{'s' if count > 1 else ''} per FSM and claim"
        axes.errorbar(sizes, medians, yerr=spread, marker="o", capsize=3, color=colour, label=label)
    axes.set(xscale="log", xlabel="FSMs in Redis", ylabel="transitions a second")
    axes.set_xticks(sorted({row["setting"]["FSMs"] for row in its}))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    _thousands(axes.xaxis)
    _thousands(axes.yaxis)
    # Below the lines, which stand well above zero.
    axes.legend(frameon=False, loc="lower left")
    return figure


def _slow(rows: list[Row]) -> Figure:
    """Draw handlers that wait: the rate over the concurrency, with what could be reached at most."""
    its = [row for row in rows if "concurrency" in row["setting"]]
    figure, axes = _new(3.6)
    for name, colour in zip(dict.fromkeys(row["name"] for row in its), (_THIRD, _OURS), strict=False):
        some = [row for row in its if row["name"] == name]
        axes.plot(
            [row["setting"]["concurrency"] for row in some],
            [row["median"] for row in some],
            "-o",
            color=colour,
            label=name,
        )
    counts = sorted({row["setting"]["concurrency"] for row in its})
    axes.plot(counts, [count * 20 for count in counts], ":", color=_OTHERS, label="what 50 ms allow")
    axes.set(xscale="log", yscale="log", xlabel="--concurrency", ylabel="transitions a second")
    axes.set_xticks(counts)
    axes.minorticks_off()
    _thousands(axes.xaxis)
    _ones_twos_fives(axes.yaxis)
    # Lines that grow leave this corner free.
    axes.legend(frameon=False, loc="upper left")
    return figure


def _overhead(rows: list[Row]) -> Figure:
    """Draw what a transition costs: of Redis by script, of Python by room, with one event for each FSM and with many.

    No totals, and not the commands: they share out once more what the scripts share out.
    """
    panels = [
        (title, prefix, [row for row in rows if row["name"].startswith(prefix) and row["name"] not in _TOTALS])
        for title, prefix in (("Redis, by script", "Redis: script "), ("worker, by room", "Python: "))
    ]
    panels = [(title, prefix, its) for title, prefix, its in panels if its]
    events = sorted({row["setting"]["events each"] for row in rows})
    names = [list(dict.fromkeys(row["name"] for row in its)) for _, _, its in panels]
    heights = [len(some) + 1 for some in names]
    figure = Figure(figsize=(_WIDTH, 1.4 + 0.30 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), len(events), squeeze=False, sharey="row", sharex="row", height_ratios=heights)
    for line, (title, prefix, its), some in zip(grid, panels, names, strict=True):
        for axes, count in zip(line, events, strict=True):
            of = {row["name"]: row["median"] for row in its if row["setting"]["events each"] == count}
            values = [of.get(name, 0.0) for name in some]
            bars = axes.barh([name.removeprefix(prefix) for name in some], values, color=_OURS)
            axes.bar_label(bars, [shown(value) for value in values], padding=3)
            axes.set_title(f"{title}, {count} event{'s' if count > 1 else ''} each", fontsize=10)
            axes.set_xlabel("µs a transition")
            axes.grid(visible=False, axis="y")
            # Room for the value of the longest bar.
            axes.set_xlim(0, max(row["median"] for row in its) * 1.25)
        # The first on top, as in the table; the axis is shared.
        line[0].invert_yaxis()
    return figure
