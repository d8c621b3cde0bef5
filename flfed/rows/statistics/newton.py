"""Newton's method over visits, with sums of gradients and Hessians over all sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeGuard

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import stdtr, stdtrit

from flfed.errors import UsageError
from flfed.refusals import NotTakingPart, decline
from flfed.rows.statistics.statistic import REAL, Shapes, Statistic, Sums, Visit, VisitedStatistic
from flfed.summaries.summary import Arrays
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

MOST_VISITS = 10
"""Visits of a run, at most."""
COEFFICIENTS = "coefficients"
"""Name of the array of a request for sums at coefficients."""
VARIANCES = "variances"
"""Name of the array of a site's own fit, beside its coefficients."""
TOLERANCE = 1e-14
"""Times deviance + 1: the decrement at which the next step is the last."""
RISE = 1e-9
"""Times deviance + 1: a rise of the deviance that rounding explains."""
COLLINEAR = 1e-12
"""Part of a column's variation that others leave, below which it follows from them."""
CONSTANT = 1e-18
"""Variation of a scaled column, for each row, below which it is the same in all rows."""


class NewtonStatistic:
    """What statistics share whose visits ask for gradient and Hessian at some coefficients."""

    visits = MOST_VISITS
    has_own_fits = True
    """Whether a fit to one site's rows estimates the same coefficients as that to all rows."""
    _coefficients = np.zeros(0)

    def names(self, schema: Schema) -> tuple[str, ...]:
        """Return the names of the coefficients."""
        raise NotImplementedError

    def first(self, schema: Schema) -> Arrays:
        """Return the coefficients of the first visit, all 0."""
        return {COEFFICIENTS: np.zeros(len(self.names(schema)))}

    def at(self, point: Arrays) -> Self:
        """Return the model at the coefficients of a visit."""
        model = copy(self)
        model._coefficients = point[COEFFICIENTS]
        return model


def has_own_fits(statistic: Statistic) -> TypeGuard[VisitedStatistic]:
    """Return whether a fit to one site's rows estimates the same coefficients as that to all rows."""
    return isinstance(statistic, VisitedStatistic) and getattr(statistic, "has_own_fits", False)


def fit_shapes(statistic: Statistic, schema: Schema) -> Shapes:
    """Return the names, shapes and types of a site's own fit; none of a statistic without."""
    if not has_own_fits(statistic):
        return {}
    shape = statistic.first(schema)[COEFFICIENTS].shape, REAL
    return {COEFFICIENTS: shape, VARIANCES: shape}


def own_fit(statistic: VisitedStatistic, table: pd.DataFrame, schema: Schema) -> Arrays:
    """Return the coefficients of a fit to a site's rows alone with their variances; nothing without such a fit.

    There is none where a column has one value, or separates the outcomes.
    """
    visits: list[Visit] = []
    point: Arrays | None = statistic.first(schema)
    try:
        while point is not None:
            model = statistic.at(point)
            visits.append(Visit(point, _sums_or_none(model, table, schema)))
            point = statistic.next(visits, schema)
        sums = visits[-1].sums
        own = model.figures([sums], schema, sums)[COEFFICIENTS]
    except UsageError:
        return {}
    values = np.array([one["value"] for one in own.values()])
    variances = np.array([one["standard-error"] for one in own.values()]) ** 2
    if not (np.isfinite(values).all() and np.isfinite(variances).all() and (variances > 0).all()):
        return {}
    return {COEFFICIENTS: values, VARIANCES: variances}


def _sums_or_none(statistic: Statistic, table: pd.DataFrame, schema: Schema) -> Sums:
    """Return a site's sums; none where they are too large."""
    try:
        return statistic.sums(table, schema)
    except NotTakingPart:
        return {}


@dataclass(frozen=True)
class NewtonStep:
    """Newton's step from a visit.

    Attributes
    ----------
    step : float64 array [coefficients]
    decrement : float
        Step times gradient: twice the log-likelihood that the step is expected to gain.
    covariance : float64 array [coefficients, coefficients]
        Inverse of the Hessian.
    """

    step: np.ndarray
    decrement: float
    covariance: np.ndarray


def triangle(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangle of a symmetric matrix, row by row."""
    return np.asarray(matrix[np.triu_indices(len(matrix))])


def symmetric(entries: np.ndarray, size: int) -> np.ndarray:
    """Return the symmetric matrix [size, size] of an upper triangle."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = entries
    return np.triu(matrix) + np.triu(matrix, 1).T


def newton_step(sums: Sums, names: Sequence[str]) -> NewtonStep:
    """Return the step from a visit's gradient and Hessian.

    Raises
    ------
    UsageError
        Where a column has one value only, or follows from those before it.
    """
    hessian = symmetric(sums["hessian"], len(names))
    rows = max(1, int(sums["rows"][0]))
    lengths = np.sqrt(np.maximum(np.diag(hessian), 0.0))
    if (constant := lengths**2 <= CONSTANT * rows).any():
        raise usage_error("study.regression.constant", column=names[int(np.argmax(constant))])
    # Columns of one length: the remainder of one beside others does not depend on its unit.
    correlations = hessian / np.outer(lengths, lengths)
    _check_collinear(correlations, names)
    inverse = cho_solve(cho_factor(correlations), np.eye(len(names)))
    covariance = inverse / np.outer(lengths, lengths)
    step = inverse @ (sums["gradient"] / lengths) / lengths
    return NewtonStep(step, float(step @ sums["gradient"]), covariance)


def _check_collinear(correlations: np.ndarray, names: Sequence[str]) -> None:
    left = correlations.copy()
    for place, name in enumerate(names):
        # What follows from the intercept alone is the same in all rows.
        if names[0] == "intercept" and place and correlations[0, place] ** 2 >= 1 - COLLINEAR:
            raise usage_error("study.regression.constant", column=name)
        if left[place, place] <= COLLINEAR:
            raise usage_error("study.regression.collinear", column=name)
        column = left[place:, place] / left[place, place]
        left[place:, place:] -= np.outer(column, left[place, place:])


def next_coefficients(visits: Sequence[Visit], names: Sequence[str], most: int = MOST_VISITS) -> np.ndarray | None:
    """Return the coefficients of the next visit, None after the last one.

    The step is halved as often as visits after the last good one made it worse, or a site refused its numbers.

    Raises
    ------
    UsageError
        For a column without an answer, or one whose coefficient does not settle.
    """
    if not any(visit.sums for visit in visits):
        raise usage_error("study.regression.refused")
    good = 0
    for number, visit in enumerate(visits):
        if visit.sums and not _rises(visits[good], visit):
            good = number
    best = visits[good]
    newton = newton_step(best.sums, names)
    coefficients = best.point[COEFFICIENTS]
    if newton.decrement <= TOLERANCE * (best.sums["deviance"][0] + 1):
        return None
    if len(visits) == most:
        moving = np.abs(newton.step) / np.maximum(np.abs(coefficients), 0.01)
        raise usage_error("study.regression.diverging", visits=MOST_VISITS, column=names[int(np.argmax(moving))])
    halvings = len(visits) - 1 - good
    return np.asarray(coefficients + newton.step / 2**halvings)


def _rises(before: Visit, after: Visit) -> bool:
    deviance = before.sums["deviance"][0]
    return bool(after.sums["deviance"][0] > deviance + RISE * (deviance + 1))


def check_bounds(numbers: Sums, bounds: Sums, rows: int) -> None:
    """Refuse sums over a site's rows that are not finite, or larger than the ring of secure sums allows.

    Raises NotTakingPart. A site that sent zeros in their place would leave a sum of fewer sites, perhaps of one.
    """
    # A comparison with what is no number is false.
    if not all((np.abs(values) <= rows * bounds[name]).all() for name, values in numbers.items()):
        decline("sums-too-large")


def largest_part(values: np.ndarray) -> float:
    """Return the largest part of the sum of values [rows] that one has; 1 where the sum is 0, or is not finite."""
    total = float(values.sum())
    return float(values.max()) / total if 0 < total < math.inf else 1.0


def describe_coefficients(
    names: Sequence[str], values: np.ndarray, errors: np.ndarray, degrees: float
) -> dict[str, dict[str, float]]:
    """Return each coefficient with its interval, of Student's t where the degrees of freedom are finite."""
    # At infinite degrees of freedom Student's t is the normal distribution.
    quantile = float(stdtrit(degrees, 0.975))
    coefficients = {}
    for name, value, error in zip(names, values.tolist(), errors.tolist(), strict=True):
        below = -abs(value) / error
        coefficients[name] = {
            "value": value,
            "standard-error": error,
            "low": value - quantile * error,
            "high": value + quantile * error,
            "p": float(2 * stdtr(degrees, below)),
        }
    return coefficients
