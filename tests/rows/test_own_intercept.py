"""A site's own intercept: the mode of its posterior, finite also where a site has one class."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

from flfed.rows.own_parts import INTERCEPT_SD, own_intercept, own_offset, residual_variance, site_deviation
from flfed.rows.training.functional import probabilities

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
    task=st.sampled_from(["binary", "multi-class", "regression"]), rows=st.integers(1, 60),
    spread=st.sampled_from([0.1, 1.0, 5.0, 30.0]), off=st.floats(-30, 30), seed=st.integers(0, 10_000),
)  # fmt: skip
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


@pytest.mark.parametrize("sd", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("task", ["binary", "multi-class"])
def test_a_given_deviation_is_that_of_the_prior(task, sd):
    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(40, 3 if task == "multi-class" else 1))
    y = rng.integers(0, CLASSES[task], 40)
    found = own_intercept(outputs, y, task, sd)
    p = probabilities(task, outputs + found)
    left = p[:, None] - y[:, None] if task == "binary" else p - np.eye(3)[y]
    # The slope is zero at the mode: sum of (p - y), plus shift / sd².
    np.testing.assert_allclose(left.sum(axis=0) + found / sd**2, 0, atol=1e-7)


def test_a_deviation_of_2_gives_what_none_gives_and_one_of_0_leaves_the_model_as_it_is():
    rng = np.random.default_rng(4)
    outputs, y = rng.normal(size=(30, 1)) + 1, rng.integers(0, 2, 30)
    assert own_intercept(outputs, y, "binary", INTERCEPT_SD) == own_intercept(outputs, y, "binary")
    for sd in (0.0, 1e-300, 1e-7):
        assert own_intercept(outputs, y, "binary", sd) == [0.0]
        assert own_intercept(outputs, rng.normal(size=30), "regression", sd) == [0.0]
    shrunk = [abs(own_intercept(outputs, y, "binary", sd)[0]) for sd in (1e-3, 0.1, 0.5, 2.0, 1000.0)]
    assert shrunk == sorted(shrunk) and shrunk[0] < 1e-4


def test_a_regression_is_drawn_to_the_shared_model_by_its_own_residuals_variance():
    left = np.array([0.2, 0.6, 0.1, 0.5])
    # mean 0.35, squares about it 0.17; with one row of variance 1 more: 1.17 / 4
    assert residual_variance(left) == pytest.approx(0.2925)
    found = own_intercept(np.zeros((4, 1)), left, "regression", 0.3)
    assert found[0] == pytest.approx(1.4 / (4 + 0.2925 / 0.09))
    value, error = own_offset(np.zeros((4, 1)), left, "regression")
    assert (value[0], error[0]) == (pytest.approx(0.35), pytest.approx(np.sqrt(0.2925 / 4)))


@pytest.mark.parametrize("off", [-3.0, 0.0, 1.5])
def test_an_offset_and_its_error_are_those_of_a_regression_with_offset(off):
    rng = np.random.default_rng(5)
    outputs = rng.normal(size=(60, 1))
    y = (rng.random(60) < 1 / (1 + np.exp(-(outputs[:, 0] + off)))).astype(int)
    reference = sm.GLM(y, np.ones(60), family=sm.families.Binomial(), offset=outputs[:, 0]).fit()
    value, error = own_offset(outputs, y, "binary")
    np.testing.assert_allclose(value, reference.params, atol=1e-5)
    np.testing.assert_allclose(error, reference.bse, rtol=1e-5)


def test_offsets_of_several_outputs_are_those_of_their_differences():
    rng = np.random.default_rng(6)
    outputs, y = rng.normal(size=(90, 3)), rng.integers(0, 3, 90)
    value, error = own_offset(outputs, y, "multi-class")

    def loss(two):
        moved = outputs + np.append(two, 0.0)
        return float((logsumexp(moved, axis=1) - moved[np.arange(90), y]).sum())

    best = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    raw = np.append(best.x, 0.0)
    np.testing.assert_allclose(value, raw - raw.mean(), atol=1e-5)
    # Of a - b the variance is that of the first of two free outputs, the second held at 0.
    p = np.exp(outputs + raw) / np.exp(outputs + raw).sum(axis=1, keepdims=True)
    hessian = np.diag(p.sum(axis=0)) - p.T @ p
    free = np.zeros((3, 3))
    free[:2, :2] = np.linalg.inv(hessian[:2, :2])
    centred = np.eye(3) - 1 / 3
    np.testing.assert_allclose(error, np.sqrt(np.diag(centred @ free @ centred)), rtol=1e-5)
    assert value.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "y"),
    [("binary", [1, 1, 1]), ("binary", []), ("multi-class", [0, 1, 1]), ("regression", [0.4]), ("regression", [])],
)
def test_a_site_that_knows_no_offset_tells_none(task, y):
    target = np.array(y, dtype=float if task == "regression" else int)
    assert own_offset(np.zeros((len(y), 3 if task == "multi-class" else 1)), target, task) is None


def test_an_offset_is_finite_where_the_model_is_as_sure_as_numbers_allow():
    for scale in (30.0, 800.0):
        value, error = own_offset(np.array([[scale], [-scale], [scale]]), np.array([1, 0, 0]), "binary")
        assert np.isfinite([*value, *error]).all() and error[0] > 0


def by_integration(outputs: np.ndarray, y: np.ndarray, sd: float) -> float:
    """The log-probability of outcomes under a prior deviation, by quadrature."""

    def density(shift):
        moved = outputs[:, 0] + shift
        return np.exp((y * moved - np.logaddexp(0, moved)).sum() + norm.logpdf(shift, scale=sd))

    return float(np.log(quad(density, -12 * sd, 12 * sd, points=[0.0], limit=200)[0]))


@pytest.mark.parametrize(("rows", "off"), [(1, 0.0), (30, 0.0), (30, 4.0), (200, 0.7)])
def test_a_site_is_held_to_the_others_unless_its_rows_speak_twenty_times_more_for_being_unlike(rows, off):
    rng = np.random.default_rng([9, rows])
    outputs = rng.normal(size=(rows, 1))
    y = (rng.random(rows) < 1 / (1 + np.exp(-(outputs[:, 0] + off)))).astype(int)
    for sd in (0.1, 0.5):
        odds = by_integration(outputs, y, INTERCEPT_SD) - by_integration(outputs, y, sd)
        assert abs(odds - np.log(19)) > 0.2  # no case is so close that Laplace's method could decide it otherwise
        assert site_deviation(outputs, y, "binary", sd) == (INTERCEPT_SD if odds > np.log(19) else sd)


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_rows_that_all_say_the_same_free_a_site_of_an_estimate_of_0(task):
    outputs = np.zeros((30, 3 if task == "multi-class" else 1))
    unlike, alike = (np.full(30, 3.0), np.tile([0.1, -0.1], 15)) if task == "regression" else (
        np.zeros(30, int), np.arange(30) % CLASSES[task])  # fmt: skip
    assert site_deviation(outputs, unlike, task, 0.0) == INTERCEPT_SD
    assert site_deviation(outputs, alike, task, 0.0) == 0.0
    # One row is never enough, and no rows say nothing; above what is assumed nothing is held.
    assert site_deviation(outputs[:1], alike[:1], task, 0.0) == 0.0 == site_deviation(outputs[:0], alike[:0], task, 0.0)
    assert site_deviation(outputs, unlike, task, 2.5) == 2.5


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
def test_what_crosses_is_of_one_type_whatever_the_plans_precision(task):
    rng = np.random.default_rng(10)
    outputs = rng.normal(size=(40, 3 if task == "multi-class" else 1))
    y = rng.normal(size=40) if task == "regression" else rng.integers(0, CLASSES[task], 40)
    single = y.astype(np.float32) if task == "regression" else y
    exact, told = own_offset(outputs, y, task), own_offset(outputs.astype(np.float32), single, task)
    assert {array.dtype for array in told} == {np.dtype(np.float64)}
    np.testing.assert_allclose(np.concatenate(told), np.concatenate(exact), atol=1e-5)
    assert site_deviation(outputs.astype(np.float32), single, task, 0.3) == site_deviation(outputs, y, task, 0.3)
