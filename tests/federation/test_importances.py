"""Permutation importances in a run: means weighted by test rows, once for an institution's rows, of no hidden site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flfed import Study, run
from flfed.federation.recording.pooled_figures import importances
from flfed.records.reports.report import report
from flfed.records.statistics.importances import over_repeats
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import ColumnImportance, CompareReply, WithheldColumn

COLUMNS = ["x1", "x2", "flag", "colour"]
LEFT = "withheld: the histogram of predictions leaves"


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", "[compare]\nimportance = 3\n")


def reply(rows: int, **columns: float | None) -> CompareReply:
    """A site's reply over so many test rows, None for a column that stays."""
    return CompareReply(
        num_examples=100, holdout_rows=rows, arms=(), differences=(),
        importance=tuple(ColumnImportance(column=name, increase=of) for name, of in columns.items() if of is not None),
        withheld=tuple(WithheldColumn(column=name, method=LEFT) for name, of in columns.items() if of is None),
    )  # fmt: skip


def merged(replies: dict[str, CompareReply]) -> dict[str, tuple[float | None, int]]:
    found = importances(replies, ["age", "sex"])
    return {of["column"]: (of["increase"], of["sites"]) for of in found["columns"]}


def test_over_sites_they_are_means_weighted_by_test_rows():
    replies = {"a": reply(30, age=0.1, sex=0.2), "b": reply(90, age=0.3, sex=None), "c": reply(60, age=-0.1, sex=0.05)}
    # age: (30 * 0.1 + 90 * 0.3 - 60 * 0.1) / 180 = 24 / 180; sex without b: (6 + 3) / 90. Unweighted age would be 0.1.
    found = merged(replies)
    assert found["age"] == (pytest.approx(24 / 180, abs=1e-15), 3)
    assert found["sex"] == (pytest.approx(0.1, abs=1e-15), 2)
    assert abs(found["age"][0] - np.mean([0.1, 0.3, -0.1])) > 0.03
    of_b = importances(replies, ["age", "sex"])["sites"]["b"]
    assert of_b == [{"column": "age", "increase": 0.3, "why": ""}, {"column": "sex", "increase": None, "why": LEFT}]
    assert merged({"a": reply(30, age=None, sex=None)}) == {"age": (None, 0), "sex": (None, 0)}
    assert importances({"a": reply(30)}, ["age", "sex"]) is None


def payload(increase: float | None, sites: int, own: dict[str, float | None]) -> dict:
    columns = {site: [{"column": "age", "increase": of, "why": LEFT if of is None else ""}] for site, of in own.items()}
    merged = [{"column": "age", "increase": increase, "sites": sites}]
    told = {"loss": "log loss", "permutations": 3, "rows": "holdout", "requested-sites": 2}
    return told | {"columns": merged, "sites": columns}


def test_over_repeats_they_have_a_mean_a_range_and_the_sites_at_its_ends():
    each = [payload(0.1, 2, {"a": 0.05, "b": 0.2}), None, payload(0.2, 2, {"a": 0.15, "b": 0.22})]
    (age,) = over_repeats(each)["columns"]
    assert (age["increase"], age["low"], age["high"], age["sites"]) == (pytest.approx(0.15), 0.1, 0.2, 2)
    assert age["least"] == {"site": "a", "increase": pytest.approx(0.1)}
    assert age["greatest"] == {"site": "b", "increase": pytest.approx(0.21)}
    # An institution is in the first repeat alone: the mean over the other site is another figure.
    each = [payload(0.1, 2, {"a": 0.05, "b": 0.2}), payload(0.7, 1, {"a": 0.7, "b": None})]
    (age,) = over_repeats(each)["columns"]
    assert (age["increase"], age["low"], age["high"], age["sites"]) == (0.1, None, None, 2)
    assert over_repeats(each)["sites"]["b"] == [{"column": "age", "increase": 0.2, "why": ""}]
    assert over_repeats([None]) is None


def test_a_run_that_asks_has_them_and_no_other_has(small_sites, small_study, asking):
    plain, asked = (run(Study.parse(text), sites=small_sites(3, rows=200)) for text in (small_study, asking))
    # The model is the same: nothing that trains draws anything else.
    assert plain.report["arrays-sha256"] == asked.report["arrays-sha256"]
    assert set(asked.report) - set(plain.report) == {"importances"}
    assert plain.report["global"] == asked.report["global"]
    found = asked.report["importances"]
    told = {key: found[key] for key in ("loss", "permutations", "rows", "requested-sites")}
    assert told == {"loss": "log loss", "permutations": 3, "rows": "holdout", "requested-sites": 3}
    assert [of["column"] for of in found["columns"]] == COLUMNS
    rows = [asked.report["sites"][site]["holdout-rows"] for site in found["sites"]]
    for place, of in enumerate(found["columns"]):
        own = {site: columns[place]["increase"] for site, columns in found["sites"].items()}
        assert of["increase"] == pytest.approx(np.average(list(own.values()), weights=rows))
        least, greatest = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
        assert (of["least"], of["greatest"]) == tuple({"site": s, "increase": own[s]} for s in (least, greatest))
    by_name = {of["column"]: of["increase"] for of in found["columns"]}
    assert by_name["x1"] > 0.03 > abs(by_name["flag"])  # the outcome was drawn by x1, and not by flag
    assert run(Study.parse(asking), sites=small_sites(3, rows=200)).report["importances"] == found


def test_repeats_have_draws_of_their_own_and_a_range(small_sites, asking):
    result = run(Study.parse(asking), sites=small_sites(3, rows=200), repeats=3)
    with RunReader.open() as reader:
        names = [entry.run for entry in reader.runs_of(result.report["run"])]
        each = [report(reader, name)["importances"]["columns"][0]["increase"] for name in names]
        series = report(reader, result.report["run"])["importances"]["columns"][0]
    assert len(set(each)) == 3
    assert (series["increase"], series["low"], series["high"]) == (pytest.approx(np.mean(each)), min(each), max(each))


def whys(result) -> set[str]:
    return {of["why"] for columns in result.report["importances"]["sites"].values() for of in columns}


def test_an_institution_gives_them_in_each_run(small_sites, asking):
    sites = small_sites(3, rows=600, policy=Policy())
    assert whys(run(Study.parse(asking), sites=sites)) == whys(run(Study.parse(asking), sites=sites)) == {""}


def test_figures_that_cannot_be_are_a_fault():
    sound = reply(40, age=0.1, sex=None)
    assert comparison_defect(sound) is None
    for wrong in (
        replace(sound, importance=(ColumnImportance(column="age", increase=float("nan")),)),
        replace(sound, importance=(ColumnImportance(column="age", increase=float("inf")),)),
        replace(sound, importance=sound.importance * 2),
        replace(sound, withheld=(WithheldColumn(column="age", method=LEFT),)),
    ):
        assert comparison_defect(wrong) is not None
