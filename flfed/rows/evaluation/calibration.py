"""Calibration of predicted probabilities: slope, and intercept with the slope fixed at 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from flfed.rows.evaluation.bootstrap import Groups
from flfed.rows.evaluation.intervals import NAN, Estimate, Z
from flfed.rows.evaluation.weighted_metrics import Floats
from flfed.words import render

LEAST_EVENTS = 100
"""Rows of either outcome below which calibration is imprecise.

Source: Collins, Ogundimu and Altman 2016, "Sample size considerations for the external validation of a multivariable
prognostic model".
"""
MOST_STEPS = 300
LONGEST_STEP = 2.0
HALVINGS = 30
"""Of a Newton step that lowers the likelihood, at most."""
TOLERANCE = 1e-11


@dataclass(frozen=True)
class Calibration:
    """Slope and intercept of a logistic regression of the outcome on the log-odds of the predictions.

    Attributes
    ----------
    slope : Estimate
        1 is calibrated, less than 1 too extreme.
    intercept : Estimate
        With the slope fixed at 1, in log-odds: above 0 the model predicts too few events.
    few : bool
        Whether an outcome has fewer than 100 rows.
    """

    slope: Estimate
    intercept: Estimate
    few: bool


def calibrate(y: np.ndarray, score: np.ndarray, groups: Groups = None) -> Calibration:
    """Return the calibration of predicted probabilities.

    Parameters
    ----------
    y : int codes 0 or 1 [n]
    score : probability of class 1 [n]
        Clipped to `[eps, 1 - eps]`, eps of its own dtype, as log loss does.
    groups : int [n], optional
        Rows of one code belong together: the variance is over groups.

    Notes
    -----
    Source: Cox 1958, "Two further applications of a model for binary regression"; Van Calster et al. 2016, "A
    calibration hierarchy for risk models was defined". Over groups the variance is the sandwich of Liang and Zeger
    1986, with the factor for few groups that statsmodels takes.

    Examples
    --------
    >>> y = np.repeat([0, 1, 0, 1], [80, 20, 40, 60])
    >>> measured = calibrate(y, np.repeat([0.2, 0.6], 100))
    >>> abs(round(measured.slope.value, 6)), abs(round(measured.intercept.value, 6)), measured.few
    (1.0, 0.0, True)
    """
    events = int(np.sum(y == 1))
    few = min(events, len(y) - events) < LEAST_EVENTS
    reason = ""
    if events in (0, len(y)):
        reason = render("figures.methods.class")
    elif groups is not None and len(np.unique(groups)) < 2:
        reason = render("figures.methods.one-group")
    if reason:
        return without_calibration(reason)
    eps = np.finfo(score.dtype).eps
    odds = logit(np.clip(score, eps, 1 - eps).astype(float))
    happened = (y == 1).astype(float)
    constant = np.ones((len(y), 1))
    method = _describe_method(few=few, grouped=groups is not None)
    intercept = _fit(happened, constant, odds, groups, method)
    reason = _slope_reason(happened, odds)
    if reason:
        slope = _undefined(reason)
    else:
        # In standard deviations, so that the two columns are orthogonal however narrow the predictions are.
        spread = float(odds.std())
        scaled = (odds - odds.mean()) / spread
        slope = _fit(happened, np.column_stack([constant, scaled]), np.zeros(len(y)), groups, method)
        value, low, high = (end / spread for end in (slope.value, slope.low, slope.high))
        slope = Estimate(value, low, high, slope.variance / spread**2, slope.method)
    return Calibration(slope, intercept, few)


def without_calibration(reason: str) -> Calibration:
    """Return a calibration without figures."""
    absent = _undefined(reason)
    return Calibration(absent, absent, few=False)


def _undefined(reason: str) -> Estimate:
    return Estimate(NAN, NAN, NAN, NAN, reason)


def _describe_method(*, few: bool, grouped: bool) -> str:
    if few and grouped:
        return render("figures.methods.few-events-groups")
    if few:
        return render("figures.methods.few-events")
    if grouped:
        return render("figures.methods.wald-groups")
    return render("figures.methods.wald")


def _slope_reason(y: Floats, odds: Floats) -> str:
    """Return why the regression has no slope, or ""."""
    if odds.min() == odds.max():
        return render("figures.methods.same-predictions")
    with_event = odds[y == 1]
    without = odds[y == 0]
    if with_event.min() >= without.max() or with_event.max() <= without.min():
        return render("figures.methods.separated")
    return ""


def _fit(y: Floats, design: Floats, offset: Floats, groups: Groups, method: str) -> Estimate:
    """Return the last coefficient of a logistic regression."""
    coefficients = maximise_likelihood(y, design, offset)
    if coefficients is None:
        return _undefined(render("figures.methods.separated"))
    p = expit(offset + design @ coefficients)
    hessian = design.T @ (design * (p * (1 - p))[:, None])
    covariance = np.linalg.inv(hessian)
    if groups is not None:
        covariance = _cluster_covariance(covariance, design * (y - p)[:, None], groups)
    value = float(coefficients[-1])
    variance = float(covariance[-1, -1])
    reach = Z * variance**0.5
    return Estimate(value, value - reach, value + reach, variance, method)


def maximise_likelihood(y: Floats, design: Floats, offset: Floats) -> Floats | None:
    """Return the coefficients of a logistic regression, by Newton's method from 0; None where there are none.

    Parameters
    ----------
    y : array of 0 and 1 [n]
    design : array [n, k]
    offset : array [n]
        Log-odds that are added without a coefficient.
    """
    coefficients = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        p = expit(offset + design @ coefficients)
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        # Far from the optimum the curvature of sure predictions is nothing, and the step without end.
        step = np.clip(np.linalg.pinv(hessian) @ (design.T @ (y - p)), -LONGEST_STEP, LONGEST_STEP)
        step = _halved(step, coefficients, y, design, offset)
        coefficients = coefficients + step
        if np.abs(step).max() <= TOLERANCE * (1 + np.abs(coefficients).max()):
            break
    else:
        return None
    p = expit(offset + design @ coefficients)
    hessian = design.T @ (design * (p * (1 - p))[:, None])
    return None if np.linalg.matrix_rank(hessian) < len(hessian) else coefficients


def _halved(step: Floats, coefficients: Floats, y: Floats, design: Floats, offset: Floats) -> Floats:
    """Return a Newton step, halved until the likelihood does not fall."""
    start = _log_likelihood(y, offset + design @ coefficients)
    for _ in range(HALVINGS):
        reached = _log_likelihood(y, offset + design @ (coefficients + step))
        if reached >= start - 1e-12 * (1 + abs(start)):
            break
        step = step / 2
    return step


def _log_likelihood(y: Floats, odds: Floats) -> float:
    return float(y @ odds - np.logaddexp(0.0, odds).sum())


def _cluster_covariance(inverse: Floats, scores: Floats, groups: np.ndarray) -> Floats:
    """Return the sandwich covariance [k, k], of the inverse Hessian and each row's gradient [n, k]."""
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    rows, parameters = scores.shape
    sums = np.stack([np.bincount(codes, column, count) for column in scores.T], axis=1)
    factor = count / (count - 1) * (rows - 1) / (rows - parameters)
    return np.asarray(factor * inverse @ (sums.T @ sums) @ inverse)
