"""A site's own intercept: the mode of its posterior, finite also where a site has one class."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp

from flfed.rows.own_intercept import INTERCEPT_SD, own_intercept
from flfed.rows.training.losses import probabilities

CLASSES = {"binary": 2, "multi-class": 3, "regression": 0}


def penalised(shift, outputs, y, task) -> float:
    """The negative log posterior, written out."""
    moved, prior = outputs + shift, np.square(shift).sum() / (2 * INTERCEPT_SD**2)
    if task == "regression":
        return float(np.square(y - moved[:, 0]).sum() / 2 + prior)
    if task == "binary":
        return float((np.logaddexp(0, moved[:, 0]) - y * moved[:, 0]).sum() + prior)
    return float((logsumexp(moved, axis=1) - moved[np.arange(len(y)), y]).sum() + prior)


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(["binary", "multi-class", "regression"]),
    rows=st.integers(1, 60),
    spread=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    off=st.floats(-30, 30),
    seed=st.integers(0, 10_000),
)
def test_an_own_intercept_is_the_minimum_that_scipy_finds(task, rows, spread, off, seed):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(rows, 3 if task == "multi-class" else 1)) * spread
    outputs[:, 0] += off
    y = rng.normal(size=rows) if task == "regression" else rng.integers(0, CLASSES[task], rows)
    found = own_intercept(outputs, y, task)
    best = minimize(penalised, np.zeros(outputs.shape[1]), (outputs, y, task), method="Nelder-Mead",
                    options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 10_000, "maxfev": 10_000})  # fmt: skip
    assert penalised(found, outputs, y, task) <= best.fun + 1e-9 * max(1.0, abs(best.fun))
    # The loss is strongly convex (curvature at least 1/4), so there is no other minimum.
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_an_own_intercept_is_that_of_a_regression_with_offset_where_rows_are_many():
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(20_000, 1))
    y = (rng.random(20_000) < 1 / (1 + np.exp(-(outputs[:, 0] - 1.3)))).astype(int)
    found = own_intercept(outputs, y, "binary")
    reference = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=outputs[:, 0]).fit().params
    # The prior pulls by shift / 4 over a curvature of thousands: a little towards 0.
    np.testing.assert_allclose(found, reference, atol=3e-4)
    assert abs(found[0]) < abs(reference[0])
    wanted = sm.OLS(y - outputs[:, 0], np.ones(len(y))).fit().params
    np.testing.assert_allclose(own_intercept(outputs, y, "regression"), wanted, rtol=2e-5)


@pytest.mark.parametrize("rows", [1, 50, 100_000])
@pytest.mark.parametrize("only", [0, 1, 2])
def test_an_own_intercept_is_finite_where_a_site_has_one_class(rows, only):
    for task in ("binary", "multi-class"):
        outputs = np.zeros((rows, 3 if task == "multi-class" else 1))
        y = np.full(rows, only if task == "multi-class" else min(only, 1))
        found = own_intercept(outputs, y, task)
        # The slope is zero at the mode: rows * (p - y) + shift / 4 = 0.
        p = probabilities(task, found[None, :])[0]
        wanted = np.eye(3)[only] if task == "multi-class" else min(only, 1)
        np.testing.assert_allclose(rows * (p - wanted) + found / INTERCEPT_SD**2, 0, atol=1e-6)
        assert np.abs(found).max() < 12  # 100,000 rows of one class are odds of e^10 or so, not infinity


def test_a_site_without_rows_has_no_intercept_of_its_own():
    np.testing.assert_array_equal(own_intercept(np.zeros((0, 3)), np.zeros(0, int), "multi-class"), np.zeros(3))
