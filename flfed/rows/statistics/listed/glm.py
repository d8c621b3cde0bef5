"""Generalised linear model: odds ratios, rate ratios and differences, with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flfed.rows.statistics.newton import (
    COEFFICIENTS,
    MOST_VISITS,
    NewtonStatistic,
    NewtonStep,
    check_bounds,
    describe_coefficients,
    largest_part,
    newton_step,
    next_coefficients,
    symmetric,
)
from flfed.rows.statistics.regression import Regression
from flfed.rows.statistics.statistic import REAL, WHOLE, Shapes, Sums, Visit, added
from flfed.summaries.summary import Arrays
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

ROOM = 16.0
"""Times the largest number that a residual may be in the sums of a visit."""
EXACT = 1e-20
"""Squared residual of a scaled outcome, for each row, below which a fit leaves nothing to estimate errors from."""
ROUNDED = 1e-12
"""Part of the model's variance below which one from the rows' scores is rounding: the rows fit exactly."""
LARGEST_PART = 64.0
"""Most that rows add to the deviance, or to Pearson's χ², on average, by the largest residual."""


class Glm(NewtonStatistic):
    """Coefficients of a generalised linear model, the same as of all rows in one table.

    Parameters
    ----------
    family : {"gaussian", "binomial", "poisson"}
        Of a number, of yes or no, of a count; with the links identity, logit and log. Example: `family = "binomial"`.
    of : sequence of str
        Columns, and products of two. A category has a coefficient for each value but the first.
        Example: `of = ["age", "sex", "age * sex"]`.
    outcome : str
        Another outcome than the dataset's target. Example: `outcome = "oldpeak"`.
    exposure : str
        Number by which counts are divided, such as person-years. Example: `exposure = "population"`.
    intercept : {"shared", "site"}
        Whether each site has an intercept of its own, which it solves for itself. Example: `intercept = "site"`.
    robust : bool
        Errors from the squared scores of the rows (HC0) instead of the model's. Example: `robust = true`.

    Reveals: at each visit, for coefficients that the coordinator chooses, the sums over the rows of the gradient and
    the Hessian of the log-likelihood, and of the deviance. Of one row these are its values. Where all columns are
    categories, three visits reveal how many rows have each combination of values. Of counts also Pearson's χ², of which
    one row may be most. The coordinator alone checks that ten rows of all sites stand behind each coefficient, since a
    site does not know how many rows the others have.

    Notes
    -----
    Newton's method with one visit a step. Every row that lacks a column is left out, and counted. With an intercept for
    each site, gradient and Hessian are profiled: the coefficients equal those with an indicator of each site. A site
    whose rows all have one outcome adds nothing then. Source: McCullagh and Nelder 1989, "Generalized linear models".
    """

    label = "generalised linear model"

    def __init__(
        self,
        *,
        family: Literal["gaussian", "binomial", "poisson"],
        of: Sequence[str],
        outcome: str = "",
        exposure: str = "",
        intercept: Literal["shared", "site"] = "shared",
        robust: bool = False,
    ) -> None:
        self._settings: dict[str, Any] = {"family": family, "of": tuple(of), "outcome": outcome, "exposure": exposure}
        self._settings |= {"site": intercept == "site", "robust": robust}
        # With one intercept for all sites, an own fit has another meaning.
        self.has_own_fits = intercept == "site"

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the columns that are read; raises UsageError for one that does not fit."""
        model = self._model(schema)
        others = [name for name in (model.exposure, model.outcome) if name]
        return (*model.design.columns, *others)

    def names(self, schema: Schema) -> tuple[str, ...]:
        """Return the names of the coefficients."""
        return self._model(schema).names

    def next(self, visits: Sequence[Visit], schema: Schema) -> Arrays | None:
        """Return the coefficients of the next visit, None after the last one.

        Raises
        ------
        UsageError
            For a column without an answer, or one whose coefficient does not settle.
        """
        model = self._model(schema)
        _check_outcomes(model, visits[0].sums)
        if not model.starts_with_rate:
            following = next_coefficients(visits, model.names)
        elif len(visits) == 1:
            # At coefficients of 0 the sum of weights is that of the exposures.
            exposure = visits[0].sums["hessian"][0]
            following = np.zeros(len(model.names))
            following[0] = math.log((visits[0].sums["gradient"][0] + exposure) / exposure)
        else:
            following = next_coefficients(visits[1:], model.names, MOST_VISITS - 1)
        return None if following is None else {COEFFICIENTS: following}

    def shapes(self, schema: Schema) -> Shapes:
        """Return counts of rows and sites, gradient, Hessian's upper triangle and deviance, and what errors need."""
        model = self._model(schema)
        count = len(model.names)
        lengths = {"gradient": count, "hessian": count * (count + 1) // 2, "deviance": 1}
        if model.robust:
            lengths["scores"] = lengths["hessian"]
        if model.family == "poisson":
            lengths |= {"chi2": 1, "saturated": 1}
        counts = ["rows", "missing"]
        if model.has_site_intercept:
            counts += ["intercepts", "one-outcome"]
        shapes: Shapes = dict.fromkeys(counts, ((1,), WHOLE))
        return shapes | {name: ((length,), REAL) for name, length in lengths.items()}

    def largest(self, schema: Schema) -> Sums:
        """Return the most that rows add to a sum on average; a site with more sends none of its sums."""
        model = self._model(schema)
        # Around a site's own mean a column is at most 2. Every doubling of a bound costs a digit of the sum.
        column = 2.0 if model.has_site_intercept else 1.0
        residual = 1.0 if model.family == "binomial" else ROOM * model.unit
        weight = residual if model.family == "poisson" else 1.0
        bounds = {
            "gradient": column * residual,
            "hessian": column**2 * weight,
            "deviance": LARGEST_PART * residual,
            "scores": (column * residual) ** 2,
            "chi2": LARGEST_PART * residual,
            "saturated": LARGEST_PART,
        }
        shapes = self.shapes(schema)
        return {name: np.full(shapes[name][0], bound) for name, bound in bounds.items() if name in shapes}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return a site's sums at the coefficients.

        Raises NotTakingPart where they are too large.
        """
        model = self._model(schema)
        rows = model.encode(table)
        count = len(rows.outcome)
        sums = {name: np.zeros(shape, kind) for name, (shape, kind) in self.shapes(schema).items()}
        sums["rows"] += np.uint64(count)
        sums["missing"] += np.uint64(rows.missing)
        one_outcome = model.has_one_outcome(rows)
        if model.has_site_intercept:
            counted_as = "one-outcome" if one_outcome else "intercepts"
            sums[counted_as] += np.uint64(min(1, count))
        if one_outcome or not count:
            return sums
        numbers = model.numbers(rows, self._coefficients)
        check_bounds(numbers, self.largest(schema), count)
        return sums | numbers

    def largest_share(self, table: pd.DataFrame, schema: Schema) -> float:
        """Return the largest part that one row has of the weights, of the absolute residuals, or of squared scores.

        Pearson's χ² of counts is not held to it: at honest coefficients, too, one row may be a third of it.
        """
        model = self._model(schema)
        rows = model.encode(table)
        if model.has_one_outcome(rows) or not len(rows.outcome):
            return 0.0
        fit = model.fit(rows, self._coefficients)
        parts = [fit.weight, np.abs(fit.residual)]
        if model.robust:
            parts.append(fit.residual**2)
        return max(map(largest_part, parts))

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return coefficients with errors, intervals and p-values, deviance, AIC and rows."""
        model = self._model(schema)
        sums = added(sites)
        newton = newton_step(sums, model.names)
        rows = int(sums["rows"][0])
        parameters = len(model.names)
        if model.has_site_intercept:
            parameters += int(sums["intercepts"][0])
        freedom = rows - parameters
        deviance = float(sums["deviance"][0]) * model.half**2
        if model.family == "gaussian" and (freedom < 1 or sums["deviance"][0] <= EXACT * rows):
            raise usage_error("study.regression.exact")
        covariance = newton.covariance
        if model.family == "gaussian":
            covariance = covariance * deviance / max(1, freedom)
        if model.robust:
            covariance = _robust_covariance(newton, symmetric(sums["scores"], len(model.names)) * model.half**2)
        values, covariance = model.in_units(self._coefficients + newton.step, covariance)
        errors = np.sqrt(np.diag(covariance))
        degrees = freedom if model.family == "gaussian" else math.inf
        figures: dict[str, Any] = {
            "family": model.family,
            "outcome": model.outcome,
            "intercept-of": "all",
            "robust": model.robust,
            "rows": rows,
            "rows-left-out": int(sums["missing"][0]),
            "coefficients": describe_coefficients(model.names, values, errors, degrees),
            "deviance": deviance,
            "degrees-of-freedom": freedom,
            "aic": _information(model, sums, deviance, rows) + 2 * parameters,
        }
        if model.has_site_intercept:
            figures["intercept-of"] = "site"
            figures["sites-of-one-outcome"] = int(sums["one-outcome"][0])
        if model.family == "poisson":
            figures["dispersion"] = float(sums["chi2"][0]) / max(1, freedom)
        return figures

    def _model(self, schema: Schema) -> Regression:
        return Regression.of(schema, **self._settings)


def _robust_covariance(newton: NewtonStep, scores: np.ndarray) -> np.ndarray:
    """Return the covariance by the rows' squared scores (HC0); raises UsageError where the rows fit exactly."""
    covariance = newton.covariance @ scores @ newton.covariance
    if (np.diag(covariance) <= ROUNDED * np.diag(newton.covariance)).any():
        raise usage_error("study.regression.exact")
    return np.asarray(covariance)


def _information(model: Regression, sums: Sums, deviance: float, rows: int) -> float:
    """Return −2 times the log-likelihood; of a gaussian model with the variance that fits best."""
    if model.family == "gaussian":
        return rows * (math.log(2 * math.pi * deviance / rows) + 1)
    if model.family == "poisson":
        return deviance - 2 * float(sums["saturated"][0])
    return deviance


def _check_outcomes(model: Regression, sums: Sums) -> None:
    """Refuse an outcome that all rows have, or none; `sums` are those at coefficients of 0."""
    if model.family == "gaussian":
        return
    if model.has_site_intercept:
        has_both = sums["intercepts"][0] > 0
    elif model.family == "poisson":
        has_both = sums["gradient"][0] + sums["hessian"][0] > 0.5
    else:
        # The mean of each row is a half.
        has_both = abs(sums["gradient"][0]) < (float(sums["rows"][0]) - 1) / 2 + 0.25
    if not has_both:
        raise usage_error("study.regression.outcomes", column=model.outcome)
