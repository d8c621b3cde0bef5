"""How far sites lie apart: against numpy on the rows themselves, closed forms, and what chance does."""

import numpy as np
import pytest
from scipy.stats import chi2

from flfed import drift
from flfed.drift import by_chance, mean_difference, share_difference


def test_a_number_differs_by_the_means_over_the_mean_spread():
    # (54 - 49.5) / sqrt((81 + 81) / 2) = 4.5 / 9
    assert mean_difference(54.0, 81.0, 100, 49.5, 81.0, 400)[:2] == (
        0.5,
        pytest.approx(1.96 * np.sqrt(0.0125), abs=1e-4),
    )
    assert mean_difference(1.0, 0.0, 5, 1.0, 0.0, 5) == (None, None, drift.CONSTANT)


def test_a_share_of_two_values_has_a_sign_and_more_values_have_none():
    # (.5 - .2) / sqrt((.25 + .16) / 2)
    up, _, _ = share_difference(np.array([50.0, 50.0]), np.array([80.0, 20.0]))
    assert up == pytest.approx(0.3 / np.sqrt(0.205))
    down, _, _ = share_difference(np.array([80.0, 20.0]), np.array([50.0, 50.0]))
    assert down == pytest.approx(-up)
    # three values, the third nowhere: as of two, but for the sign
    three, _, _ = share_difference(np.array([80.0, 20.0, 0.0]), np.array([50.0, 50.0, 0.0]))
    assert abs(three) == pytest.approx(up)


def test_the_size_does_not_depend_on_the_order_of_the_values():
    rng = np.random.default_rng(1)
    one, other = rng.integers(5, 90, 4).astype(float), rng.integers(5, 90, 4).astype(float)
    sizes = [share_difference(one[order], other[order])[0] for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0])]
    assert sizes == [pytest.approx(sizes[0])] * 3


def test_sites_without_a_value_in_common_have_no_spread_to_measure_by():
    assert share_difference(np.array([9.0, 0.0]), np.array([0.0, 9.0])) == (None, None, drift.APART)
    assert share_difference(np.array([0.0, 0.0]), np.array([0.0, 9.0])) == (None, None, drift.EMPTY)
    assert share_difference(np.array([4.0, 0.0]), np.array([9.0, 0.0])) == (None, None, drift.CONSTANT)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8])
def test_what_chance_reaches_is_the_quantile_of_chi_squared(freedom):
    exact = np.sqrt(chi2.ppf(0.95, freedom) * (1 / 40 + 1 / 300))
    assert by_chance(40, 300, freedom) == pytest.approx(exact, rel=0.006)


@pytest.mark.parametrize("values", [2, 4])
def test_chance_alone_stays_below_its_bound_in_95_of_100(values):
    rng = np.random.default_rng(11)
    shares = np.full(values, 1 / values)
    draws = [(rng.multinomial(80, shares), rng.multinomial(400, shares)) for _ in range(2000)]
    sizes = np.array([abs(share_difference(a.astype(float), b.astype(float))[0]) for a, b in draws])
    bound = by_chance(80, 400, values - 1)
    assert np.mean(sizes < bound) == pytest.approx(0.95, abs=0.015)
    assert np.mean(sizes < 2 / 3 * bound) < 0.85
