"""Distributions of an outcome in a generalised linear model, each with its usual link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, xlogy

Family = Literal["gaussian", "binomial", "poisson"]


@dataclass(frozen=True, eq=False)
class Fit:
    """What a model says of rows at some coefficients.

    Attributes
    ----------
    weight, residual, deviance : float64 array [rows]
        Weight in the Hessian; outcome minus mean; part of the deviance.
    """

    weight: np.ndarray
    residual: np.ndarray
    deviance: np.ndarray


def fit_rows(family: Family, predictor: np.ndarray, outcome: np.ndarray) -> Fit:
    """Return the fit of rows with a linear predictor [rows] and an outcome [rows]."""
    if family == "gaussian":
        residual = outcome - predictor
        return Fit(np.ones(len(outcome)), residual, residual**2)
    if family == "binomial":
        mean = expit(predictor)
        deviance = 2 * (np.logaddexp(0, predictor) - outcome * predictor)
        return Fit(mean * (1 - mean), outcome - mean, deviance)
    # Where a mean is beyond float64 the sums are not finite, and are not sent.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.exp(predictor)
        deviance = 2 * (xlogy(outcome, outcome) - outcome * predictor - outcome + mean)
    return Fit(mean, outcome - mean, deviance)


def saturated(outcome: np.ndarray) -> float:
    """Return the log-likelihood of counts [rows] whose means are the counts."""
    return float((xlogy(outcome, outcome) - outcome - gammaln(outcome + 1)).sum())


def has_one_outcome(family: Family, outcome: np.ndarray) -> bool:
    """Return whether no intercept of finite size fits an outcome [rows]."""
    if family == "gaussian" or not len(outcome):
        return not len(outcome)
    total = outcome.sum()
    return bool(total == 0 or (family == "binomial" and total == len(outcome)))


def own_intercept(family: Family, predictor: np.ndarray, outcome: np.ndarray) -> float:
    """Return the intercept by which the means of rows add up to their outcomes.

    Parameters
    ----------
    family : {"gaussian", "binomial", "poisson"}
    predictor, outcome : float64 array [rows]
        Without the intercept, and of more than one outcome.
    """
    if family == "gaussian":
        return float(np.mean(outcome - predictor))
    if family == "poisson":
        largest = predictor.max()
        return float(np.log(outcome.sum()) - np.log(np.exp(predictor - largest).sum()) - largest)
    # With all rows at the largest predictor, or all at the smallest, the means would be those of the outcomes.
    middle = float(logit(outcome.mean()))

    def excess(intercept: float) -> float:
        return float((expit(intercept + predictor) - outcome).sum())

    low = middle - float(predictor.max())
    high = middle - float(predictor.min())
    if excess(low) >= 0 or excess(high) <= 0:
        return (low + high) / 2
    intercept = float(brentq(excess, low, high, xtol=1e-12, rtol=1e-14))
    # One step of Newton's method takes the last digits.
    mean = expit(intercept + predictor)
    slope = float((mean * (1 - mean)).sum())
    if not slope:
        return intercept
    return intercept - excess(intercept) / slope
