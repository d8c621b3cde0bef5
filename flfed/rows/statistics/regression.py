"""A generalised linear model at one site: its rows, encoded, and their sums at some coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logit, xlogy

from flfed.rows.statistics.design import Design
from flfed.rows.statistics.newton import triangle
from flfed.rows.statistics.statistic import Sums, column_of
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

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


INTERCEPT = "intercept"
"""Name of the coefficient of all rows."""


@dataclass(frozen=True, eq=False)
class ModelRows:
    """A site's complete rows, encoded.

    Attributes
    ----------
    design : float64 array [rows, coefficients]
        Scaled columns, after ones where the intercept is shared.
    outcome, offset : float64 array [rows]
        A number between −1 and 1, 0 or 1, or a count; and the part of the linear predictor without a coefficient.
    missing : int
        Rows that are left out.
    """

    design: np.ndarray
    outcome: np.ndarray
    offset: np.ndarray
    missing: int


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A generalised linear model of a dataset.

    Attributes
    ----------
    family : {"gaussian", "binomial", "poisson"}
    design : Design
    outcome : str
    positive : str
        The target's class that counts as an event; "" of a flag or a number.
    exposure : str
        Column by which counts are divided; "" for none.
    has_site_intercept, robust : bool
    unit : float
        The largest count, 1 of other outcomes.
    middle, half : float
        Of a gaussian outcome, which is scaled by its range; 0 and 1 of others.
    most_exposure : float
    """

    family: Family
    design: Design
    outcome: str
    positive: str
    exposure: str
    has_site_intercept: bool
    robust: bool
    unit: float
    middle: float
    half: float
    most_exposure: float

    @classmethod
    def of(
        cls,
        schema: Schema,
        *,
        family: Family,
        of: tuple[str, ...],
        outcome: str,
        exposure: str,
        site: bool,
        robust: bool,
    ) -> Regression:
        """Return the model of a dataset.

        Raises UsageError for a column that does not fit.
        """
        name = outcome or schema.target
        low, high = _outcome_range(schema, family, name)
        most_exposure = _most_exposure(schema, family, exposure)
        taken = [column for column in (name, exposure) if column]
        positive = schema.classes[1] if family == "binomial" and name == schema.target else ""
        unit, middle, half = _scales(family, low, high)
        return cls(
            family=family,
            design=Design.of(of, schema, "glm", taken),
            outcome=name,
            positive=positive,
            exposure=exposure,
            has_site_intercept=site,
            robust=robust,
            unit=unit,
            middle=middle,
            half=half,
            most_exposure=most_exposure,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return self.design.names if self.has_site_intercept else (INTERCEPT, *self.design.names)

    @property
    def starts_with_rate(self) -> bool:
        """Whether the first visit is for the starting rate of counts."""
        return self.family == "poisson" and not self.has_site_intercept

    def is_for_rate(self, coefficients: np.ndarray) -> bool:
        """Return whether a visit is for the starting rate of counts."""
        return self.starts_with_rate and not coefficients.any()

    def encode(self, table: pd.DataFrame) -> ModelRows:
        """Return a site's complete rows."""
        design = self.design.matrix(table)
        cells = table[self.outcome]
        if self.positive:
            outcome = np.where(cells.isna(), np.nan, cells == self.positive)
        else:
            outcome = (cells.to_numpy(dtype=float) - self.middle) / self.half
        offset = np.full(len(outcome), math.log(self.unit))
        if self.exposure:
            exposures = table[self.exposure].to_numpy(dtype=float) / self.most_exposure
            # A row without exposure has no rate, and is left out.
            offset += np.log(exposures, out=np.full(len(exposures), np.nan), where=exposures > 0)
        complete = ~(np.isnan(design).any(axis=1) | np.isnan(outcome) | np.isnan(offset))
        design = design[complete]
        if not self.has_site_intercept:
            design = np.column_stack([np.ones(len(design)), design])
        return ModelRows(design, outcome[complete], offset[complete], int((~complete).sum()))

    def has_one_outcome(self, rows: ModelRows) -> bool:
        """Return whether a site has no intercept of its own that fits, and adds nothing."""
        return self.has_site_intercept and has_one_outcome(self.family, rows.outcome)

    def fit(self, rows: ModelRows, coefficients: np.ndarray) -> Fit:
        """Return the fit of a site's rows, with its own intercept where sites have one."""
        predictor = rows.design @ coefficients + rows.offset
        if self.has_site_intercept:
            predictor += own_intercept(self.family, predictor, rows.outcome)
        return fit_rows(self.family, predictor, rows.outcome)

    def numbers(self, rows: ModelRows, coefficients: np.ndarray) -> Sums:
        """Return gradient, Hessian and deviance of a site's rows, and what errors need.

        Where coefficients are far off, the numbers may be too large, or not finite.
        """
        fit = self.fit(rows, coefficients)
        design = rows.design
        if self.is_for_rate(coefficients):
            # For the starting rate the sums of outcome and exposure are enough.
            design = design * (np.arange(design.shape[1]) == 0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.has_site_intercept:
                # Around the site's weighted means the columns have its intercept profiled out.
                design = design - fit.weight @ design / fit.weight.sum()
            numbers = {
                "gradient": design.T @ fit.residual,
                "hessian": triangle(design.T @ (design * fit.weight[:, np.newaxis])),
                "deviance": np.array([fit.deviance.sum()]),
            }
            if self.robust:
                numbers["scores"] = triangle(design.T @ (design * fit.residual[:, np.newaxis] ** 2))
            if self.family == "poisson":
                numbers["chi2"] = np.array([np.sum(fit.residual**2 / fit.weight)])
                numbers["saturated"] = np.array([saturated(rows.outcome)])
        if self.is_for_rate(coefficients):
            unused = ("deviance", "scores", "chi2")
            numbers |= {name: np.zeros_like(numbers[name]) for name in unused if name in numbers}
        return numbers

    def in_units(self, coefficients: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients and covariance in the units of the columns and of the outcome.

        `covariance` is in the outcome's unit already.
        """
        factors, to_intercept = self.design.rescaling()
        units = np.diag(factors)
        if self.has_site_intercept:
            return units @ coefficients * self.half, units @ covariance @ units.T
        units = np.diag([1.0, *factors])
        units[0, 1:] = to_intercept
        values = units @ coefficients * self.half
        values[0] += self.middle
        if self.family == "poisson":
            values[0] += math.log(self.unit) - math.log(self.most_exposure)
        return values, units @ covariance @ units.T


def _scales(family: Family, low: float, high: float) -> tuple[float, float, float]:
    """Return the largest count, and the middle and half of a number's range; 1, 0 and 1 of other outcomes."""
    if family == "poisson":
        return max(1.0, high), 0.0, 1.0
    if family == "gaussian":
        return 1.0, (low + high) / 2, (high - low) / 2
    return 1.0, 0.0, 1.0


def _outcome_range(schema: Schema, family: Family, name: str) -> tuple[float, float]:
    """Return the range of an outcome that fits its family."""
    column = schema.columns.get(name)
    if column is None:
        raise usage_error("study.regression.outcome", family=family, name=name)
    if family == "binomial":
        if column.kind != "flag" and (name != schema.target or schema.task != "binary"):
            raise usage_error("study.regression.outcome", family=family, name=name)
        return 0.0, 1.0
    if column.range is None:
        raise usage_error("study.regression.outcome", family=family, name=name)
    if family == "poisson" and column.range[0] < 0:
        raise usage_error("study.regression.negative", where="outcome", name=name)
    return column.range


def _most_exposure(schema: Schema, family: Family, name: str) -> float:
    if not name:
        return 1.0
    if family != "poisson":
        raise usage_error("study.regression.exposure")
    column_of(name, schema, where="exposure", kinds=("number",))
    low, high = schema.columns[name].range or (0.0, 1.0)
    if low < 0:
        raise usage_error("study.regression.negative", where="exposure", name=name)
    return high
