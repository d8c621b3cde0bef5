"""What `flfed study power` predicts of studies on real data, each by the other tables alone.

benchmarks/gains_of_studies.csv has the figures of recorded runs; `python -m benchmarks.predicted_gains` makes it.
"""

from __future__ import annotations

from statistics import fmean, median

import pytest

from benchmarks.predicted_gains import (
    Judged,
    SiteGain,
    curve_without,
    fit,
    judge,
    read_sites,
    share_within,
    together,
)
from flfed.records.statistics.power import DIMENSIONS_A_COLUMN, STUDIES, UNLIKENESS_A_COLUMN

MOST_ROUNDED = 0.05


@pytest.fixture(scope="module")
def cases() -> dict[str, list[SiteGain]]:
    return read_sites()


@pytest.fixture(scope="module")
def judged(cases: dict[str, list[SiteGain]]) -> dict[str, Judged]:
    fits = {name: fit(sites) for name, sites in cases.items()}
    linear = [name for name, each in fits.items() if each.linear]
    return {name: judge(cases[name], curve_without(fits[name].dataset, fits)) for name in linear}


def test_the_ranges_of_the_command_are_those_of_the_recorded_studies(cases):
    fits = {name: fit(sites) for name, sites in cases.items()}
    curve = curve_without("", fits)
    for taken, fitted in ((DIMENSIONS_A_COLUMN, curve.dimensions), (UNLIKENESS_A_COLUMN, curve.unlikeness)):
        for end in ("value", "low", "high"):
            assert getattr(taken, end) == pytest.approx(getattr(fitted, end), abs=MOST_ROUNDED)
    assert len({each.dataset for each in fits.values() if each.counts}) == STUDIES


def test_errors_are_predicted_by_other_tables_and_not_without_the_correlation(judged):
    every = together(list(judged.values()))
    assert len(every.ratios) >= 80
    assert 0.75 <= median(every.ratios) <= 1.3
    assert share_within(every.ratios) >= 0.75
    assert median(every.uncorrelated) > 1.3
    assert share_within(every.uncorrelated) < 0.75


def test_gains_of_the_next_re_splits_are_in_intervals_that_have_an_end(judged):
    every = together(list(judged.values()))
    assert len(every.inside) >= 300
    assert fmean(every.inside) >= 0.9
    assert median(every.widths) <= 0.15


def test_mean_gains_are_in_the_intervals_expected_by_other_tables_but_where_banks_differ(judged):
    means = {name: of for name, of in judged.items() if of.expected is not None}
    outside = [name for name, of in means.items() if not of.expected.low <= of.measured <= of.expected.high]
    assert len(means) >= 6
    assert outside == ["sba-loans"]
