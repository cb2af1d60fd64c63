"""No figure of docs/benchmarks.md is written by hand: its tables are what the kept results say."""

import doctest
import importlib
import re
from typing import Any

import orjson
import pytest

from bench import page

TABLE = re.compile(r"<!-- table: (\w+) -->")


def result(**more: Any) -> dict[str, Any]:
    row = {"name": "ours", "setting": {"fsms": 1000}, "values": [1.0, 3.0], "more": {}, "note": "", "median": 2.0}
    return {"unit": "per second", "figures": {}, "rows": [row], "missing": {}, "about": {"cores": 2}, **more}


def test_the_tables_of_the_page_are_what_the_results_say() -> None:
    """Seen to fail with a digit of one of its tables changed by hand: run `python -m bench.page`."""
    text = page.PAGE.read_text("utf-8")

    assert page.renew(text, page.read()) == text


def test_every_benchmark_has_a_table_and_the_targets_have_one() -> None:
    assert sorted(TABLE.findall(page.PAGE.read_text("utf-8"))) == sorted((*page.BENCHES, "about", "missing", "targets"))


def test_every_figure_that_has_a_target_is_measured() -> None:
    """Unless somebody who is needed for it was missing, which the page tells."""
    results = {name: found for name, found in page.read().items() if not found["missing"]}

    assert [t for t in page.TARGETS if t.bench in results and t.figure not in results[t.bench]["figures"]] == []


def test_a_benchmark_that_was_measured_has_its_chart() -> None:
    """That the link leads somewhere, is seen by the test of all links."""
    text = page.PAGE.read_text("utf-8")

    assert [name for name in page.CHARTS if name in page.read() and f"images/bench-{name}.svg" not in text] == []


@pytest.mark.parametrize(
    "name", ["bench.page", "bench.scale", "bench.lane", "bench.arrivals", "bench.meter", "bench.sampler"]
)
def test_the_examples_of_a_module_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))

    assert found.attempted > 0
    assert found.failed == 0


def test_what_is_not_measured_says_so() -> None:
    assert "python -m bench.slow --save" in page.renew("<!-- table: slow -->\n<!-- end -->\n", {})


def test_a_table_of_nothing_that_is_measured_is_found_out() -> None:
    with pytest.raises(KeyError, match="fast"):
        page.renew("<!-- table: fast -->\n<!-- end -->\n", {})


def test_written_twice_it_stays_as_it_is() -> None:
    results = {"slow": result()}
    once = page.renew("<!-- table: slow -->\nold\n\n<!-- end -->\n", results)

    assert page.renew(once, results) == once
    assert "old" not in once


def test_a_row_shows_its_median_and_how_far_rounds_lie_apart() -> None:
    text = page.renew("<!-- table: slow -->\n<!-- end -->\n", {"slow": result()})

    assert "| ours | 1,000 | 2.00 | 1.00 to 3.00 |" in text


def test_settings_that_differ_from_row_to_row_stand_in_one_column() -> None:
    rows = result()["rows"]
    rows.append({**rows[0], "setting": {"workers": 2}, "more": {"against_one": 1.5}, "note": "two cores"})
    text = page.renew("<!-- table: slow -->\n<!-- end -->\n", {"slow": result(rows=rows)})

    assert "| ours | FSMs 1,000 | 2.00 | 1.00 to 3.00 |  |" in text
    assert "| ours | workers 2 | 2.00 | 1.00 to 3.00 | two cores; against one 1.50 |" in text


def test_of_latency_percentiles_are_shown() -> None:
    rows = result()["rows"]
    rows[0]["more"] = {"p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 12.5, "samples": 1500, "p99_ms_rounds": [1.0]}
    text = page.renew("<!-- table: latency -->\n<!-- end -->\n", {"latency": result(rows=rows)})

    assert "| ours | 1,000 | 1.00 | 2.00 | 12.5 | 1,500 |" in text


def test_of_overhead_one_event_and_many_stand_side_by_side() -> None:
    parts = [("drain: HSET", 1, 3.0), ("drain: HSET", 10, 1.0), ("drain: TIME", 1, 0.1)]
    rows = [
        {"name": name, "setting": {"FSMs": 9, "events each": events}, "values": [us], "median": us, "note": "",
         "more": {"calls": 1.0}}
        for name, events, us in parts
    ]  # fmt: skip
    figures = {"redis_us_1": 40.0, "idle_fsm_bytes": 440, "idle_fsm_bytes_plain": 600}
    text = page.renew("<!-- table: overhead -->\n<!-- end -->\n", {"overhead": result(rows=rows, figures=figures)})

    assert "| drain: HSET | 3.00 | 1.00 | 1.00 | 1.00 |  |" in text
    assert "TIME" not in text
    assert "| idle FSM | 440 | 600 |" in text


def test_of_persistence_rows_of_one_unit_are_a_table() -> None:
    row = result()["rows"][0]
    rows = [{**row, "unit": "µs"}, {**row, "unit": "FSMs a second", "setting": {"page": "first"}}]
    text = page.renew("<!-- table: persistence -->\n<!-- end -->\n", {"persistence": result(rows=rows)})

    assert "|  | FSMs | µs | least to most |" in text
    assert "|  | page | FSMs a second | least to most |" in text


@pytest.mark.parametrize(("value", "told"), [(59.9, "**no**"), (60.0, "yes")])
def test_a_target_is_met_or_not(value: float, told: str) -> None:
    results = {"throughput": result(figures={"against_rq_simple": value})}
    text = page.renew("<!-- table: targets -->\n<!-- end -->\n", results)

    assert f"| {told} |" in next(line for line in text.splitlines() if "SimpleWorker" in line)
    assert "not measured yet" in text


def test_who_is_missing_is_told_with_the_reason() -> None:
    results = {"throughput": result(missing={"streaq": "it could | not\nbe installed"})}
    text = page.renew("<!-- table: missing -->\n<!-- end -->\n", results)

    assert "| throughput | streaq | it could \\| not be installed |" in text


def test_results_are_read_from_where_benchmarks_keep_them(tmp_path: Any) -> None:
    (tmp_path / "scale.json").write_bytes(orjson.dumps(result()))

    assert page.read(tmp_path) == {"scale": result()}
