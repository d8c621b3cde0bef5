"""Importances of columns on the page Curves: those of the record, with their spread, why one has none, and gains."""

import json
from dataclasses import replace

import pytest

from flfed import Study, run
from flfed.records.objects import read as read_object
from flfed.records.statistics.importances import (
    Gains,
    Importances,
    gain_lines,
    gains_in_words,
    gains_over_repeats,
    importance_in_words,
    largest_gains,
)
from flfed.records.statistics.verdict import interval, number
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from tests.boosting import trees_study
from tests.records.test_curves_page import curves, words


def test_importances_are_those_of_the_record_with_their_spread_over_sites(small_sites, small_study, flfed):
    text = small_study.replace("[compare]\n", "[compare]\nimportance = 3\n")
    sites = small_sites(3, rows=200)
    sites[2] = replace(sites[2], policy=Policy(cell_minimum=25))
    result = run(Study.parse(text), sites=sites, repeats=2).report
    page, found = curves(result["run"]), result["importances"]
    assert any(block.value.startswith("## Which columns the shared model needs") for block in page.markdown)
    shown = next(one.value for one in page.table if "Log loss grows by" in one.value.columns).to_dict("records")
    lines = {line["Column"]: {key: cell.replace("\\", "") for key, cell in line.items()} for line in shown}
    ranked = sorted(found["columns"], key=lambda of: -of["increase"])
    assert list(lines) == [of["column"] for of in ranked]
    for of in ranked:
        line = lines[of["column"]]
        assert line["Log loss grows by"] == number(of["increase"], 4)
        for end, key in (("Least, at", "least"), ("Most, at", "greatest")):
            assert line[end] == f"{number(of[key]['increase'], 4)} ({of[key]['site']})"
        # Each repeat is a run with a comparison of its own, at the institution too.
        assert line["In the repeats"] == interval(of["low"], of["high"], 4)
        assert line["Sites"] == f"{of['sites']} of 3"
    assert [lines[name]["Sites"] for name in ("x1", "colour")] == ["3 of 3", "2 of 3"]
    assert "n/a" not in {line["In the repeats"] for line in lines.values()}
    said = words(page)
    assert f"Over all sites the loss is {number(result['global']['log_loss']['value'])}" in said
    assert "nothing about the cause of the outcome" in said and "Columns that go together share" in said
    told = json.loads(flfed("run", "show", result["run"], "--json")[1])
    assert told["importances"] == found


def test_importances_that_stay_are_said_with_the_reason(small_sites, small_study):
    text = small_study.replace("[compare]\n", "[compare]\nimportance = 1\n")
    sites = small_sites(3, rows=200)
    sites[1] = replace(sites[1], policy=Policy(outputs=("score-histogram",)))
    result = run(Study.parse(text), sites=sites).report
    said = words(curves(result["run"]))
    assert "No figure at site-02 of any column (withheld: the histogram of predictions leaves)." in said
    assert "among its own test rows, once, and changed nothing else" in said
    some = {"a": [{"column": "x", "why": ""}, {"column": "y", "why": "no rows"}]}
    mixed = importance_in_words(read_object(Importances, result["importances"] | {"sites": some, "loss": "half"}))
    assert mixed[-1] == "No figure at a of y (no rows)."
    many = {f"s{number}": [{"column": "x", "why": "no rows"}] for number in range(12)}
    assert importance_in_words(read_object(Importances, result["importances"] | {"sites": many}))[-1].startswith(
        "At 12 sites columns have no"
    )


@pytest.mark.studies
def test_the_gains_of_trees_are_those_of_the_record_with_their_range_over_repeats(small_sites, small_study):
    text = trees_study(small_study, **{"strategy.rounds": 4, "compare.importance": 1})
    result = run(Study.parse(text), sites=small_sites(3, rows=120), repeats=2).report
    found, page = result["gains"], curves(result["run"])
    assert any(block.value.startswith("## What the trees split by") for block in page.markdown)
    shown = next(one.value for one in page.table if "Share of the gain" in one.value.columns).to_dict("records")
    ranked = sorted(found["columns"], key=lambda of: -of["share"])
    assert [line["Column"] for line in shown] == [of["column"] for of in ranked]
    assert [line["Share of the gain"] for line in shown] == [f"{100 * of['share']:.1f} %" for of in ranked]
    assert [line["In the repeats"] for line in shown] == [
        f"{100 * of['low']:.1f} % to {100 * of['high']:.1f} %" for of in ranked
    ]
    with RunReader.open() as reader:
        each = [reader.summary(entry.run, "gains")["columns"] for entry in reader.runs_of(result["run"])]
    shares = [columns[0]["gain"] / sum(of["gain"] for of in columns) for columns in each]
    assert found["columns"][0]["share"] == pytest.approx(sum(shares) / 2) and shares[0] != shares[1]
    assert (found["columns"][0]["low"], found["columns"][0]["high"]) == (min(shares), max(shares))
    assert "of 4 trees (XGBoost's total_gain)" in words(page) and "asks how much" not in words(page)
    none = gains_over_repeats([{"trees": 1, "columns": [{"column": "x", "gain": 0.0}]}])
    assert none is not None and gain_lines(read_object(Gains, none)) == [{"Column": "x", "Share of the gain": "n/a"}]
    said = gains_in_words(read_object(Gains, none), permuted=False)
    assert "of 1 tree (" in said and "measures how much" in said
    assert gains_over_repeats([None]) is None


def test_a_model_without_trees_has_no_gains(small_sites, small_study):
    assert "gains" not in run(Study.parse(small_study), sites=small_sites(3)).report


def test_the_largest_gains_are_named_in_one_line():
    columns = [{"column": name, "gain": gain} for name, gain in (("age", 1.0), ("sex", 0.0), ("dose", 3.0))]
    found = gains_over_repeats([{"trees": 2, "columns": columns}])
    assert found is not None
    assert largest_gains(found) == "Share of the gain of all splits, of 2 trees: dose 75.0 %, age 25.0 %."
    assert largest_gains(found, 1) == "Share of the gain of all splits, of 2 trees: dose 75.0 % and 1 more."
    none = gains_over_repeats([{"trees": 0, "columns": [dict(of, gain=0.0) for of in columns]}])
    assert none is not None and "No tree of the model has a split" in largest_gains(none)
