"""Exact sums of one site: merged they are the pooled sums, and leaks are looked for within sites."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import StratifiedTable

from flfed.federation.engines.engine import find_sites
from flfed.rows.features.summarise import outcomes, summarise
from flfed.rows.session import SiteSession
from flfed.rows.study_model import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import ColumnLayout, Layout, Summary, leak_warnings, merge


def number(name: str) -> ColumnLayout:
    cells = ("low", "high", "missing")
    return ColumnLayout(name=name, kind="number", cells=cells, edges=(-10.0, 0.0, 10.0))


def target(classes: int) -> ColumnLayout:
    return ColumnLayout(name="y", kind="category", cells=(*map(str, range(classes)), "missing"))


def leaks_of(x: np.ndarray, y: np.ndarray, layout: Layout) -> np.ndarray:
    cells = y.astype(str).astype(object) if layout.target.kind == "category" else y
    return summarise(pd.DataFrame({"x": x, "y": cells}), layout).leaks[0]


BINARY = Layout(features=(number("x"),), target=target(2), task="binary")


@pytest.fixture
def places(small_sites, small_study) -> list[SiteSession]:
    """Three sites; `x2` is empty at the first, `flag` at the second."""
    empty = {0: "x2", 1: "flag"}

    def change(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{empty[number]: np.nan}) if number in empty else table

    return [SiteSession(site, Study.parse(small_study)) for site in small_sites(3, change=change)]


def test_merged_sums_are_the_pooled_sums_also_with_a_column_that_is_empty_at_one_site(places):
    layout = places[0].layout
    merged = merge([place.summary() for place in places])
    pooled = summarise(pd.concat([place.table.training for place in places]), layout)
    for name in ("rows", "moments", "cells", "left"):
        np.testing.assert_allclose(getattr(merged, name), getattr(pooled, name), rtol=0, atol=1e-9)
    assert places[0].summary().moments[1].tolist() == [0, 0, 0]
    assert merged.sites == 3 and merged.cells_known.min() == 3


def test_sums_are_what_pandas_counts(places):
    table, layout = places[2].table.training, places[2].layout
    found = summarise(table, layout)
    place = layout.slices()
    counts = table["colour"].value_counts()
    assert found.cells[place["colour"]].tolist() == [*(counts[c] for c in ("red", "green", "blue")), 0]
    assert found.cells[place["x2"]][-1] == table["x2"].isna().sum() > 0
    # z = (x - 50) / 50 for a range of 0 to 100
    z = (table["x1"] - 50) / 50
    np.testing.assert_allclose(found.moments[0], [len(z), z.sum(), (z**2).sum()], atol=1e-12)
    binned = np.histogram(table["x1"], np.array(layout.features[0].edges))[0]
    assert found.cells[place["x1"]][:-1].tolist() == binned.tolist()


def test_the_ends_of_the_range_are_in_the_first_and_the_last_bin():
    table = pd.DataFrame({"x": [-10.0, 0.0, 10.0, np.nan], "y": ["0", "1", "0", "1"]})
    assert summarise(table, BINARY).cells.tolist() == [1, 2, 1, 2, 2, 0]


def test_the_test_of_missingness_is_mantel_haenszels_over_sites():
    # statsmodels 0.14: the Mantel-Haenszel test of a common odds ratio of 1.
    rng = np.random.default_rng(5)
    tables, parts = [], []
    for rows, positives, gaps in ((80, 0.2, 0.7), (120, 0.6, 0.3), (60, 0.5, 0.5)):
        y = (rng.random(rows) < positives).astype(int)
        x = np.where(rng.random(rows) < gaps + 0.15 * y, np.nan, 1.0)
        missing = np.isnan(x)
        tables.append([[(missing & (y == a)).sum() for a in (1, 0)], [(~missing & (y == a)).sum() for a in (1, 0)]])
        parts.append(summarise(pd.DataFrame({"x": x, "y": y.astype(str).astype(object)}), BINARY))
    u, v = merge(parts).leaks[0, 0, :2]
    expected = StratifiedTable([np.array(t, dtype=float) for t in tables]).test_null_odds(correction=False)
    assert u**2 / v == pytest.approx(expected.statistic, rel=1e-10)
    named = [warning.column for warning in leak_warnings(BINARY, merge(parts))]
    assert named == (["x"] if expected.pvalue < 1e-4 else [])


def test_a_difference_between_hospitals_raises_no_warning():
    # One hospital measures nobody and has 80 % positives, the other measures all and has 20 %.
    y = np.repeat([1, 0], [80, 20])
    sick = pd.DataFrame({"x": np.full(100, np.nan), "y": y.astype(str).astype(object)})
    well = pd.DataFrame({"x": np.full(100, 1.0), "y": (1 - y).astype(str).astype(object)})
    parts = [summarise(table, BINARY) for table in (sick, well)]
    assert leak_warnings(BINARY, merge(parts)) == []
    pooled = leak_warnings(BINARY, summarise(pd.concat([sick, well]), BINARY))
    assert [warning.reason for warning in pooled] == ["missingness"] and pooled[0].value < 1e-8


def test_of_a_numeric_outcome_the_test_is_the_correlation_with_missingness():
    # One stratum: U²/V = (n - 1) r² times the larger share, r between the missing indicator and the outcome's ranks.
    rng = np.random.default_rng(2)
    layout = Layout(features=(number("x"),), target=number("y"), task="regression")
    y = rng.normal(0, 2, 90).clip(-10, 10)
    x = np.where(rng.random(90) < 0.4, np.nan, y / 2)
    u, v, strong, rows = leaks_of(x, y, layout)[0]
    share, r = np.isnan(x).mean(), np.corrcoef(np.isnan(x), rankdata(y))[0, 1]
    assert u**2 / v == pytest.approx(89 * r**2 * max(share, 1 - share), rel=1e-10)
    assert strong / rows == pytest.approx(1.0)


def test_separation_is_the_auc_of_the_column_alone_in_either_direction():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 200)
    x = (rng.normal(0, 1, 200) - 2 * y).round(1).clip(-10, 10)
    x[:20] = np.nan
    known = ~np.isnan(x)
    *_, strong, rows = leaks_of(x, y, BINARY)[0]
    assert strong / rows == pytest.approx(1 - roc_auc_score(y[known], x[known]), rel=1e-12)
    few = np.where(np.arange(200) < 12, x, np.nan)
    assert leaks_of(few, y, BINARY)[0].tolist()[2:] == [0.0, 0.0]  # of a dozen rows chance separates many


@pytest.mark.parametrize("kind", ["category", "flag"])
def test_strength_of_values_is_the_auc_of_the_one_value_that_tells_most(kind):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 150)
    x = np.where(rng.random(150) < 0.4, y, rng.integers(0, 2 if kind == "flag" else 4, 150)).astype(float)
    x[:15] = np.nan
    known, values = ~np.isnan(x), np.unique(x[~np.isnan(x)])
    cells = x if kind == "flag" else pd.Series(x).map({0.0: "a", 1.0: "b", 2.0: "c", 3.0: "d"}).to_numpy()
    labels = ("0", "1", "missing") if kind == "flag" else ("a", "b", "c", "d", "missing")
    layout = replace(BINARY, features=(ColumnLayout(name="x", kind=kind, cells=labels),))
    *_, strong, rows = leaks_of(cells, y, layout)[0]
    areas = [roc_auc_score(y[known], x[known] == value) for value in values]
    assert strong / rows == pytest.approx(max(max(area, 1 - area) for area in areas), rel=1e-12)
    # U of missingness against the outcome, by its definition
    gap = (~known).astype(float)
    assert leaks_of(cells, y, layout)[0, 0] == pytest.approx(((y - y.mean()) * (gap - gap.mean())).sum(), abs=1e-12)


def test_of_three_classes_each_is_told_from_the_others():
    y = np.repeat([0, 1, 2], 30)
    layout = replace(BINARY, target=target(3), task="multi-class")
    table = pd.DataFrame({"x": y.astype(float), "y": y.astype(str).astype(object)})
    assert outcomes(table, layout).sum(axis=0).tolist() == [30, 30, 30]
    found = summarise(table, layout).leaks[0]
    # The middle class lies between the others: pairs won and lost are equally many.
    np.testing.assert_allclose(found[:, 2] / found[:, 3], [1.0, 0.5, 1.0])


def merged_of(name: str) -> tuple[Layout, Summary]:
    study = Study.load(name)
    places = [SiteSession(site, study) for site in find_sites(study)]
    return study_layout(study, places[0].schema), merge([place.summary() for place in places])


@pytest.mark.parametrize("name", ["preterm-birth", "loan-default", "diabetes", "wine"])
def test_no_column_of_a_shipped_study_gives_the_target_away(name):
    assert leak_warnings(*merged_of(name)) == []


def test_of_hearts_columns_slope_alone_is_named(heart):
    found = leak_warnings(*merged_of("heart-disease"))
    assert [(warning.column, warning.reason) for warning in found] == [("slope", "missingness")]
    assert found[0].value < 1e-4


def test_preterms_assay_columns_are_named_when_they_are_put_back(tmp_path: Path, monkeypatch):
    # Assayed were the women who delivered preterm and a part of the others: TARGETS, the README.
    source = Path("datasets/preterm-birth")
    copy = tmp_path / "datasets" / "preterm-birth"
    shutil.copytree(source, copy)
    text = (copy / "schema.toml").read_text(encoding="utf-8")
    without, marks = re.subn(r"(?m)^leak = .*\n", "", text)
    (copy / "schema.toml").write_text(without, encoding="utf-8")
    assayed = re.findall(r'\[columns\."?([^\]"]+)"?\]\n(?:(?!\[columns)[^\n]*\n)*?leak = ', text)
    assert marks == len(assayed) == 18
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    found = leak_warnings(*merged_of("preterm-birth"))
    assert {warning.column for warning in found if warning.reason == "missingness"} == set(assayed)
    assert len(found) == 18
