"""Calibration of predicted probabilities against statsmodels, and where it is undefined."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from flfed.rows.evaluation.calibration import calibrate


def drawn(rows: int, slope: float, intercept: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes whose log-odds are a line in those of the predictions."""
    rng = np.random.default_rng(seed)
    score = expit(rng.normal(-1.0, 1.5, rows))
    y = (rng.random(rows) < expit(intercept + slope * logit(score))).astype(int)
    return y, score


@pytest.mark.parametrize(("rows", "slope", "intercept"), [(150, 1.0, 0.0), (900, 0.6, 0.8), (400, 2.5, -2.0)])
def test_calibration_equals_statsmodels(rows: int, slope: float, intercept: float) -> None:
    y, score = drawn(rows, slope, intercept)
    odds = logit(score)
    joint = sm.GLM(y, sm.add_constant(odds), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    alone = sm.GLM(y, np.ones(rows), offset=odds, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    measured = calibrate(y, score)
    for ours, theirs in ((measured.slope, joint), (measured.intercept, alone)):
        low, high = theirs.conf_int()[-1]
        expected = [theirs.params[-1], low, high, theirs.bse[-1] ** 2]
        assert [ours.value, ours.low, ours.high, ours.variance] == pytest.approx(expected, abs=1e-8)


def test_intercept_of_joint_fit_is_another() -> None:
    y, score = drawn(900, 0.6, 0.8)
    joint = sm.GLM(y, sm.add_constant(logit(score)), family=sm.families.Binomial()).fit()
    assert abs(joint.params[0] - calibrate(y, score).intercept.value) > 0.1


def test_variance_over_persons_equals_statsmodels() -> None:
    y, score = drawn(600, 0.8, 0.3)
    persons = np.repeat(np.arange(200), 3)[np.random.default_rng(1).permutation(600)]
    odds = logit(score)
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": persons}}
    joint = sm.GLM(y, sm.add_constant(odds), family=sm.families.Binomial()).fit(tol=1e-14, **clustered)
    alone = sm.GLM(y, np.ones(600), offset=odds, family=sm.families.Binomial()).fit(tol=1e-14, **clustered)
    measured = calibrate(y, score, persons)
    assert measured.slope.variance == pytest.approx(joint.bse[-1] ** 2, rel=1e-8)
    assert measured.intercept.variance == pytest.approx(alone.bse[-1] ** 2, rel=1e-8)
    assert measured.slope.variance != pytest.approx(calibrate(y, score).slope.variance, rel=1e-3)


@pytest.mark.parametrize("spread", [1e-3, 0.05, 6.0])
def test_narrow_and_wide_predictions_have_a_slope(spread: float) -> None:
    rng = np.random.default_rng(8)
    odds = rng.normal(0, 1, 800)
    y = (rng.random(800) < expit(odds - 3)).astype(int)
    score = expit(-6 + spread * odds)
    scaled = sm.GLM(y, sm.add_constant(odds), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    assert calibrate(y, score).slope.value == pytest.approx(scaled.params[1] / spread, rel=1e-6)


def test_separated_predictions_have_no_slope() -> None:
    y = np.repeat([0, 1], 5)
    measured = calibrate(y, np.linspace(0.1, 0.9, 10))
    assert np.isnan(measured.slope.value)
    assert measured.slope.method == "the predictions separate the outcomes"
    assert measured.intercept.value == pytest.approx(0.0, abs=1e-12)


def test_nearly_separated_predictions_have_a_slope() -> None:
    y = np.repeat([0, 1, 0, 1], [5, 1, 1, 5])
    slope = calibrate(y, np.linspace(0.01, 0.99, 12)).slope
    assert np.isfinite([slope.value, slope.low, slope.high]).all()


def test_same_predictions_have_an_intercept_alone() -> None:
    measured = calibrate(np.repeat([0, 1], [30, 10]), np.full(40, 0.5))
    assert measured.slope.method == "every prediction is the same"
    assert measured.intercept.value == pytest.approx(logit(0.25))


def test_one_outcome_has_neither() -> None:
    measured = calibrate(np.zeros(40, int), np.linspace(0.1, 0.9, 40))
    assert np.isnan([measured.slope.value, measured.intercept.value]).all()


def test_one_group_has_neither() -> None:
    y, score = drawn(50, 1.0, 0.0)
    assert calibrate(y, score, np.zeros(50, int)).intercept.method == "all rows belong to one group"


@pytest.mark.parametrize(("events", "few"), [(99, True), (100, False)])
def test_few_events_are_named(events: int, few: bool) -> None:
    y = np.repeat([0, 1], [300, events])
    score = np.random.default_rng(5).uniform(0.05, 0.9, len(y))
    assert calibrate(y, score).few is few


def test_certain_predictions_are_clipped_as_by_log_loss() -> None:
    y, score = drawn(300, 1.0, 0.0)
    y[:4], score[:4] = [0, 1, 0, 1], [0.0, 1.0, 1.0, 0.0]
    measured = calibrate(y, score)
    assert np.isfinite([measured.slope.value, measured.intercept.value]).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("odds", [20.0, 1000.0])
def test_sure_predictions_with_errors_have_figures_or_a_reason(kind: type, odds: float) -> None:
    rng = np.random.default_rng(2)
    spread = rng.normal(0, odds, 300)
    y = (spread > 0).astype(int)
    y[:6] = 1 - y[:6]
    y[np.flatnonzero(y == 1)[:4]] = 0
    measured = calibrate(y, expit(spread).astype(kind))
    for figure in (measured.intercept, measured.slope):
        assert np.isfinite([figure.value, figure.low, figure.high]).all() or "separate" in figure.method
