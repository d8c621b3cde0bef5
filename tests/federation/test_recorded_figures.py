"""What a run writes down for the pages Data and Curves: as the rows have it, and nothing of a hidden site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.records.statistics.score_curves import ScoreCounts, roc_auc
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.summaries.drift import BINNING, FEW
from flfed.summaries.score_bins import ScoreBins


def summary(result, name: str):
    with RunReader.open() as reader:
        return reader.summary(result.report["run"], name)


def shifted(number: int, table: pd.DataFrame) -> pd.DataFrame:
    """Sites apart: x1 higher from site to site, fewer red ones, and gaps at the second."""
    gone = np.arange(len(table)) % 4 == 0
    x2 = table["x2"].where(~gone) if number == 1 else table["x2"]
    return table.assign(x1=(table["x1"] * 0.5 + 15 * number).clip(0, 100), x2=x2)


@pytest.fixture
def apart(small_sites, small_study):
    """A run of three open sites that lie apart, and their tables."""
    sites = small_sites(3, rows=200, change=shifted)
    return run(Study.parse(small_study), sites=sites), {site.name: site.source.table for site in sites}


def test_the_differences_are_those_of_the_tables(apart):
    result, tables = apart
    found = {column["column"]: column for column in summary(result, "columns")["columns"]}
    for site, table in tables.items():
        others = pd.concat([other for name, other in tables.items() if name != site])
        for name in ("x1", "x2"):
            own, rest = table[name].dropna().astype(float), others[name].dropna().astype(float)
            expected = (own.mean() - rest.mean()) / np.sqrt((own.var(ddof=0) + rest.var(ddof=0)) / 2)
            assert found[name]["sites"][site]["difference"] == pytest.approx(expected, rel=1e-6)
            assert found[name]["sites"][site]["missing"] == table[name].isna().sum()
            assert found[name]["sites"][site]["rows"] == len(table)
        assert found["y"]["towards"] == "yes"
        share, rest = (table["y"] == "yes").mean(), (others["y"] == "yes").mean()
        expected = (share - rest) / np.sqrt((share * (1 - share) + rest * (1 - rest)) / 2)
        assert found["y"]["sites"][site]["difference"] == pytest.approx(expected, rel=1e-6)


def test_what_a_site_keeps_back_is_not_0_and_has_a_reason(small_sites, small_study):
    def few(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(x2=table["x2"].fillna(0.0).where(np.arange(len(table)) > 3))

    sites = small_sites(3, rows=200, policy=Policy(), change=few)
    found = summary(run(Study.parse(small_study), sites=sites), "columns")["columns"]
    gaps = [column for column in found if column["column"] == "x2"][0]["sites"].values()
    assert [entry["missing"] for entry in gaps] == [None] * 3  # four rows, of which fewer than ten may not be told


def test_differences_of_a_site_that_gives_groups_of_bins_are_about_and_near_the_tables(small_sites, small_study):
    sites = small_sites(3, rows=200, change=shifted)
    sites[0] = replace(sites[0], policy=Policy())
    tables = {site.name: site.source.table for site in sites}
    found = {one["column"]: one for one in summary(run(Study.parse(small_study), sites=sites), "columns")["columns"]}
    for site, table in tables.items():
        own = table["x1"]
        rest = pd.concat([other["x1"] for name, other in tables.items() if name != site])
        entry = found["x1"]["sites"][site]
        expected = (own.mean() - rest.mean()) / np.sqrt((own.var(ddof=0) + rest.var(ddof=0)) / 2)
        assert (entry["about"], entry["chance"], entry["compared-with"]) == (True, None, 2)
        assert 1e-6 < abs(entry["difference"] - expected) < BINNING  # not exact, so not said to be
        # An outcome is exact all the same: both its counts leave.
        assert (found["y"]["sites"][site]["about"], found["y"]["sites"][site]["chance"] is None) == (False, False)


def test_a_column_that_few_rows_have_gives_no_figure_and_says_so(small_sites, small_study):
    def hardly(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(x2=table["x2"].fillna(0.0).where((np.arange(len(table)) < 5) | (number > 0)))

    found = summary(run(Study.parse(small_study), sites=small_sites(3, rows=200, change=hardly)), "columns")
    sites = next(one["sites"] for one in found["columns"] if one["column"] == "x2")
    assert (sites["site-01"]["difference"], sites["site-01"]["reason"]) == (None, FEW)
    assert sites["site-01"]["rows"] - sites["site-01"]["missing"] == 5
    assert all(sites[site]["difference"] is not None for site in ("site-02", "site-03"))


def test_a_curve_has_the_area_that_the_site_computed_from_its_rows(apart):
    result, _ = apart
    payload = summary(result, "score-histograms")
    assert (payload["combined-sites"], payload["requested-sites"], sorted(payload["sites"])) == (
        3, 3, sorted(result.report["sites"]),
    )  # fmt: skip
    for site, counts in payload["sites"].items():
        read = ScoreCounts.read(counts, ScoreBins.of(payload))
        exact = result.report["sites"][site]["global"]["roc_auc_score"]["value"]
        assert roc_auc(read) == pytest.approx(exact, abs=0.005)
        assert read.rows == result.report["sites"][site]["holdout-rows"]
    together = ScoreCounts.read(payload["all"], ScoreBins.of(payload))
    assert roc_auc(together) == pytest.approx(result.report["global"]["roc_auc_score"]["value"], abs=0.005)
    assert together.rows == sum(site["holdout-rows"] for site in result.report["sites"].values())


def test_a_site_that_names_no_histogram_gives_none(small_sites, small_study):
    sites = small_sites(3, rows=200)
    sites[0] = replace(sites[0], policy=Policy())
    payload = summary(run(Study.parse(small_study), sites=sites), "score-histograms")
    assert (payload["combined-sites"], payload["requested-sites"], sorted(payload["sites"])) == (
        2, 3, ["site-02", "site-03"],
    )  # fmt: skip
    closed = run(Study.parse(small_study), sites=small_sites(3, rows=200, policy=Policy()))
    assert summary(closed, "score-histograms") is None
