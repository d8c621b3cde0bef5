"""Areas under the ROC curve at many sites: equal to the definition, to one site alone, and to the sorts before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flfed.rows.evaluation import delong as module
from flfed.rows.evaluation.delong import alike, areas, delong


def by_pairs(y, score):
    """Return AUC and variance from the definition: every positive against every negative; NaN where there is none."""
    won = (score[y == 1][:, None] > score[y == 0]) + 0.5 * (score[y == 1][:, None] == score[y == 0])
    if not won.size:
        return np.nan, np.nan
    if min(won.shape) < 2:
        return won.mean(), np.nan
    return won.mean(), sum(np.var(won.mean(axis=a), ddof=1) / won.shape[1 - a] for a in (0, 1))


def site(rows: int, seed: int, grid: float = 0.0):
    """Return codes and scores of one site; on a grid, rows tie."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.4).astype(np.int64)
    score = rng.normal(y)
    return y, np.round(score / grid) * grid if grid else score


def ranked(sites):
    """Return areas and variances [2, sites]; NaN where there are no rows."""
    sizes, found = np.array([len(y) for y, _ in sites]), np.full((2, len(sites)), np.nan)
    for part in alike(sizes):
        y, score = (np.concatenate([sites[place][k] for place in part]) for k in (0, 1))
        found[:, part] = areas(y, score, sizes[part])
    return found


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 9.0])), min_size=1))
@example([(0, 0, 0.0), (1, 0, 0.0), (2, 3, 0.5)])
def test_areas_of_many_sites_are_those_of_the_definition_also_with_ties_and_few_rows(drawn):
    sites = [site(*one) for one in drawn]
    expected = np.transpose([by_pairs(*one) for one in sites])
    np.testing.assert_allclose(ranked(sites), expected, atol=1e-14, rtol=0)


def test_sites_of_many_sizes_are_ranked_as_each_alone():
    sizes = np.random.default_rng(1).lognormal(4, 1.2, 300).astype(int)
    sites = [site(rows, seed, grid=0.01 * (seed % 3)) for seed, rows in enumerate([*sizes, 20_000, 900, 900])]
    found = ranked(sites)
    for place, (y, score) in enumerate(sites):
        if 1 < y.sum() < len(y) - 1:
            auc, covariance = delong(y, score[None, :])
            np.testing.assert_allclose(found[:, place], [auc[0], covariance[0, 0]], atol=1e-14, rtol=0)
    assert found[0, 300] == pytest.approx(roc_auc_score(*sites[300]), abs=1e-12)
    np.testing.assert_allclose(ranked(sites[300:301])[:, 0], found[:, 300], atol=1e-15)
    order = np.random.default_rng(2).permutation(len(sites))
    np.testing.assert_array_equal(ranked([sites[place] for place in order]), found[:, order])


def test_figures_are_those_of_the_two_sorts_before():
    # np.random.default_rng(5): 400 rows; scores to 0.1, so that most rows tie. By commit 9b50241.
    y, score = site(400, 5, grid=0.1)
    auc, covariance = delong(y, np.stack([score, -(score**2), score + y / 8]))
    np.testing.assert_allclose(auc, OLD_AUC, atol=1e-14, rtol=0)
    np.testing.assert_allclose(covariance, OLD_COVARIANCE, atol=1e-14, rtol=0)
    np.testing.assert_allclose(ranked([(y, score)])[:, 0], [OLD_AUC[0], OLD_COVARIANCE[0][0]], atol=1e-14, rtol=0)


OLD_AUC = [0.7589514066496166, 0.38416879795396425, 0.7929667519181585]
OLD_COVARIANCE = [
    [0.0005629617121689437, -0.0004295861899755762, 0.000523016051765075],
    [-0.0004295861899755762, 0.0008439272307234618, -0.0003978285531250405],
    [0.000523016051765075, -0.0003978285531250405, 0.0004890183948578158],
]


def test_scores_that_are_not_numbers_cost_only_their_own_site_its_area():
    sites = [site(50, 1), site(60, 2), site(55, 3)]
    sites[1][1][7] = np.nan
    found = ranked(sites)
    assert np.isnan(found).tolist() == [[False, True, False]] * 2
    np.testing.assert_allclose(found[:, 2], by_pairs(*sites[2]), atol=1e-14)
    auc, covariance = delong(sites[0][0], np.stack([sites[0][1], np.full(50, np.nan)]))
    assert auc[0] == pytest.approx(by_pairs(*sites[0])[0], abs=1e-14)
    assert np.isnan([auc[1], covariance[0, 1], covariance[1, 1]]).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_that_differ_in_the_last_bit_alone_are_in_order_and_equal_ones_tie(sign: float):
    # 1 and the five numbers beside it, either way round; and 0, which is also -0, beside the least numbers.
    near = sign * (1 + np.arange(6) * np.finfo(float).eps)
    none = np.array([-5e-324, -0.0, 0.0, -0.0, 5e-324, 1.0]) * sign
    zeros = np.array([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0])
    apart = np.linspace(-2, 2, 6)  # a site without ties beside them
    for y in (np.array([0, 1, 0, 1, 0, 1]), np.array([1, 0, 0, 1, 1, 0]), np.array([1, 1, 0, 0, 1, 0])):
        sites = [(y, near), (y, none), (y, zeros), (y, apart), (y[:4], near[1:5])]
        np.testing.assert_allclose(ranked(sites), np.transpose([by_pairs(*one) for one in sites]), atol=1e-15)


def test_infinite_scores_rank_first_and_last_also_beside_longer_sites():
    y, score = np.array([0, 1, 0, 1, 1]), np.array([-np.inf, np.inf, np.inf, 0.5, np.inf])
    # pairs won by the positives inf, 0.5, inf over -inf and inf: 1.5, 1, 1.5 of 2 each
    found = ranked([(y, score), site(9, 3), site(30, 4)])
    assert found[0, 0] == pytest.approx(4 / 6, abs=1e-15)
    np.testing.assert_allclose(found[:, 0], by_pairs(y, np.nan_to_num(score, posinf=9, neginf=-9)), atol=1e-15)


@pytest.mark.parametrize("rows", [10, 5000, 80_000])
def test_a_perfect_ranking_has_a_variance_of_exactly_zero(rows: int):
    # A variance of rounding errors would be taken for one that is known.
    y = (np.arange(rows) % 3 == 0).astype(np.int64)
    worst_too = ranked([(y, y + np.linspace(0, 0.5, rows)), (y, np.zeros(rows)), (y, -1.0 * y)])
    np.testing.assert_array_equal(worst_too, [[1, 0.5, 0], [0, 0, 0]])


def test_no_more_rows_are_ranked_at_once_than_fit_the_processors_cache():
    sizes = np.array([0, 5, 20_000, 7, 0, 300, 300, 40_000])
    parts = [part.tolist() for part in alike(sizes)]
    assert sorted(place for part in parts for place in part) == [1, 2, 3, 5, 6, 7]
    assert all(len(part) == 1 or len(part) * sizes[part].max() <= module.CELLS for part in parts)
