"""Estimates from noised counts: intervals hold what they should as often as they say, and a plain test does not."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from flfed.summaries.noised_counts import Interval, Moments, independence, quantile, share, shown
from flfed.updates.accounting import noise_for

DRAWS = 2000
COVERED = (0.93, 0.975)
SIZES = [(1000, 1.0), (3000, 1.0), (7500, 1.0), (300, 3.0)]
"""Rows, and the ε at which a table of 24 columns is asked for."""


def deviation_of(epsilon: float) -> float:
    return noise_for(epsilon, 1e-5, 1.0, 1) * np.sqrt(24)


def covered(found: list[Interval | None], truth: float) -> float:
    known = [one for one in found if one is not None]
    assert len(known) > 0.9 * len(found)
    return float(np.mean([one.low <= truth <= one.high for one in known]))


@pytest.mark.parametrize(("rows", "epsilon"), SIZES)
@pytest.mark.parametrize("true", [0.05, 0.2, 0.5])
def test_the_interval_of_a_share_covers_it(rows: int, epsilon: float, true: float):
    rng, deviation = np.random.default_rng(rows), deviation_of(epsilon)
    counts = rng.binomial(rows, true, DRAWS) + np.rint(rng.normal(0, deviation, DRAWS))
    totals = rows + np.rint(rng.normal(0, deviation, DRAWS))
    found = [share(count, total, deviation) for count, total in zip(counts, totals, strict=True)]
    # An end that is cut at 0 lies no farther from the share: of rare values more are covered.
    assert COVERED[0] <= covered(found, true) <= (COVERED[1] if true > 0.1 else 0.99)
    # Sampling error alone is what a table without noise has.
    alone = [share(count, total, 0.0) for count, total in zip(counts, totals, strict=True)]
    if rows == 1000:
        assert covered(alone, true) < 0.85
        assert float(np.sqrt(np.mean([(one.value - true) ** 2 for one in found if one]))) < 0.03


@pytest.mark.parametrize(("rows", "epsilon"), SIZES)
def test_intervals_of_mean_and_deviation_cover_them(rows: int, epsilon: float):
    rng, deviation = np.random.default_rng(rows), deviation_of(epsilon)
    means, deviations = [], []
    for _ in range(DRAWS):
        scaled = np.clip(rng.normal(0.1, 0.3, rows), -1, 1)
        noise = rng.normal(0, deviation, 3)
        sums = Moments(
            rows=rows + noise[0], total=scaled.sum() + noise[1], square=(scaled**2).sum() + noise[2],
            deviation=deviation, of_rows=deviation, low=40.0, high=140.0,
        )  # fmt: skip
        means.append(sums.mean())
        deviations.append(sums.standard_deviation())
    reference = np.clip(np.random.default_rng(1).normal(0.1, 0.3, 4_000_000), -1, 1)
    assert COVERED[0] <= covered(means, 90 + 50 * reference.mean()) <= COVERED[1]
    assert COVERED[0] <= covered(deviations, 50 * reference.std()) <= 0.98


@pytest.mark.parametrize(("rows", "epsilon"), SIZES[1:3])
@pytest.mark.parametrize("asked", [0.25, 0.5, 0.9])
def test_the_interval_of_a_quantile_covers_it(rows: int, epsilon: float, asked: float):
    rng, deviation = np.random.default_rng(rows), deviation_of(epsilon)
    edges, found = np.linspace(-1, 1, 33), []
    for _ in range(400):
        counts = np.histogram(np.clip(rng.normal(0.1, 0.3, rows), -1, 1), edges)[0]
        found.append(quantile(asked, counts + rng.normal(0, deviation, 32), edges, deviation))
    true = float(np.quantile(np.random.default_rng(1).normal(0.1, 0.3, 1_000_000), asked))
    # Whole bins hold it more often than they say, and are 0.0625 wide each: at 3,000 rows three to four of them.
    assert covered(found, true) >= COVERED[0]
    assert np.mean([one.high - one.low for one in found if one]) < 0.25


@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 0.99])
def test_the_interval_of_a_quantile_holds_it_wherever_in_a_bin_all_values_lie(at: float):
    # Ten values of 1,000 rows each, all of a bin at one place of it: 45 % of the rows are reached within the fifth.
    rng, edges = np.random.default_rng(3), np.arange(11.0)
    found = [quantile(0.45, np.full(10, 1000.0) + rng.normal(0, 20.0, 10), edges, 20.0) for _ in range(400)]
    assert covered(found, 4.0 + at) >= COVERED[0]
    # An interval that takes values as even within bins, as the one before did, holds nothing but their middle.
    even = [(one.value - 0.1, one.value + 0.1) for one in found if one]
    assert (np.mean([low <= 4.0 + at <= high for low, high in even]) > 0.9) == (at == 0.5)
    assert all(one.low <= one.value <= one.high and {one.low, one.high} <= set(edges) for one in found if one)


def test_an_estimate_that_noise_brought_below_0_has_an_interval_as_wide_as_the_noise():
    # -40 of 2,000 rows at a deviation of 20, which reaches 0.0196: before, the interval was 0 to 0.
    found = share(-40.0, 2000.0, 20.0)
    assert found is not None and (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.0196, rel=1e-3)
    most = share(2040.0, 2000.0, 20.0)
    assert most is not None and (most.value, most.high) == (1.0, 1.0) and most.low < 0.975
    rng = np.random.default_rng(6)
    rare = [share(count, 2000.0, 20.0) for count in 4 + rng.normal(0, 20.0, DRAWS)]
    assert covered(rare, 0.002) >= 0.95


@pytest.mark.parametrize(("rows", "shape"), [(1000, (2, 3)), (3000, (4, 4)), (7500, (5, 8))])
def test_columns_that_have_nothing_to_do_with_each_other_are_told_apart_by_noise_no_more_than_5_times_in_100(
    rows: int, shape: tuple[int, int]
):
    rng, deviation = np.random.default_rng(rows), 10.0
    p, q = (np.arange(2.0, size + 2) / np.arange(2.0, size + 2).sum() for size in shape)
    noised, plain = [], []
    for _ in range(1000):
        counts = rng.multinomial(rows, np.outer(p, q).ravel()).reshape(shape)
        table = counts + np.rint(rng.normal(0, deviation, shape))
        if (found := independence(table, deviation)) is not None:
            noised.append(found[2] < 0.05)
            plain.append(chi2_contingency(np.maximum(table, 0.5), correction=False)[1] < 0.05)
    assert len(noised) > 900
    assert 0.035 <= np.mean(noised) <= 0.065
    assert np.mean(plain) > 0.08


def test_without_noise_the_test_is_pearsons_and_a_true_association_is_seen():
    rng = np.random.default_rng(4)
    counts = rng.multinomial(2000, np.outer([0.3, 0.7], [0.2, 0.3, 0.5]).ravel()).reshape(2, 3).astype(float)
    found, expected = independence(counts, 0.0), chi2_contingency(counts, correction=False)
    assert found is not None
    assert found == pytest.approx((expected[0], expected[2], expected[1]), rel=1e-9)
    apart = independence(np.array([[400.0, 100.0], [200.0, 300.0]]), 10.0)
    assert apart is not None and apart[2] < 1e-6


def test_what_is_lost_in_the_noise_is_not_divided_by():
    assert share(3.0, 50.0, 18.0) is None
    assert Moments(rows=50, total=3, square=9, deviation=18, of_rows=18, low=0, high=1).mean() is None
    assert quantile(0.5, np.full(32, 2.0), np.linspace(0, 1, 33), 18.0) is None
    assert independence(np.full((2, 2), 20.0), 18.0) is None


def test_counts_for_display_add_up_and_cutting_each_at_0_adds_people():
    rng = np.random.default_rng(5)
    counts = np.zeros(40)
    counts[:4] = 250
    noised = counts + rng.normal(0, 3.8, 40)
    found = shown(noised, float(noised.sum()))
    assert (found >= 0).all() and found.sum() == pytest.approx(noised.sum())
    assert np.maximum(noised, 0).sum() - noised.sum() > 30
