"""Cox's proportional hazards: hazard ratios with their errors, each site a stratum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.statistics.design import Design
from flfed.rows.statistics.newton import (
    COEFFICIENTS,
    NewtonStatistic,
    check_bounds,
    describe_coefficients,
    largest_part,
    newton_step,
    next_coefficients,
    triangle,
)
from flfed.rows.statistics.statistic import REAL, WHOLE, Shapes, Sums, Visit, added, column_of
from flfed.summaries.summary import Arrays
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

LARGEST = {"gradient": 2.0, "hessian": 1.0, "deviance": 64.0}
"""Most that rows add to a sum on average: of scaled columns, each event has a variance of at most 1."""


@dataclass(frozen=True, eq=False)
class _Rows:
    design: np.ndarray
    times: np.ndarray
    events: np.ndarray
    missing: int


class Cox(NewtonStatistic):
    """Hazard ratios of Cox's model, the same as of all rows in one table that is stratified by site.

    Parameters
    ----------
    time : str
        Number of the schema: until the event, or until the row was seen last. Example: `time = "days"`.
    of : sequence of str
        Columns, and products of two. A category has a coefficient for each value but the first.
        Example: `of = ["age", "arm"]`.
    event : str
        Flag of the event; default: the dataset's target. Example: `event = "died"`.

    Reveals: at each visit, for coefficients that the coordinator chooses, the sums over the events of the gradient and
    the Hessian of the log partial likelihood, and the likelihood; and the number of events. Of few events these are
    their rows' values. The coordinator alone checks that ten rows of all sites stand behind each coefficient, since a
    site does not know how many rows the others have.

    Notes
    -----
    Newton's method with one visit a step, Efron's ties. Each site has its own baseline hazard: no row at risk is
    compared with one of another site. Every row that lacks a column is left out, and counted. Source: D. R. Cox 1972,
    "Regression models and life-tables".
    """

    label = "Cox's proportional hazards"

    def __init__(self, *, time: str, of: Sequence[str], event: str = "") -> None:
        self.time = time
        self.of = tuple(of)
        self.event = event

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the columns that are read; raises UsageError for one that does not fit."""
        return (*self._design(schema).columns, self.time, self._event(schema))

    def names(self, schema: Schema) -> tuple[str, ...]:
        """Return the names of the coefficients."""
        return self._design(schema).names

    def next(self, visits: Sequence[Visit], schema: Schema) -> Arrays | None:
        """Return the coefficients of the next visit, None after the last one.

        Raises
        ------
        UsageError
            Without an event, and for a column without an answer.
        """
        if not visits[0].sums["events"][0]:
            raise usage_error("study.regression.eventless", column=self._event(schema))
        following = next_coefficients(visits, self.names(schema))
        return None if following is None else {COEFFICIENTS: following}

    def shapes(self, schema: Schema) -> Shapes:
        """Return counts of rows and events, gradient, Hessian's upper triangle and deviance."""
        count = len(self._design(schema).names)
        lengths = {"gradient": count, "hessian": count * (count + 1) // 2, "deviance": 1}
        counts = ("rows", "missing", "events")
        shapes: Shapes = dict.fromkeys(counts, ((1,), WHOLE))
        return shapes | {name: ((length,), REAL) for name, length in lengths.items()}

    def largest(self, schema: Schema) -> Sums:
        """Return the most that rows add to a sum on average; a site with more sends none of its sums."""
        shapes = self.shapes(schema)
        return {name: np.full(shapes[name][0], bound) for name, bound in LARGEST.items()}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return a site's sums at the coefficients.

        Raises NotTakingPart where they are too large.
        """
        rows = self._rows(table, schema)
        count = len(rows.times)
        sums = {name: np.zeros(shape, kind) for name, (shape, kind) in self.shapes(schema).items()}
        counts = {"rows": count, "missing": rows.missing, "events": int(rows.events.sum())}
        for name, number in counts.items():
            sums[name] += np.uint64(number)
        if not counts["events"]:
            return sums
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            numbers = partial_likelihood(rows.design, rows.times, rows.events, self._coefficients)
        check_bounds(numbers, self.largest(schema), count)
        return sums | numbers

    def largest_share(self, table: pd.DataFrame, schema: Schema) -> float:
        """Return the largest part that one row has of the site's risks, or of the risk sets of its events.

        A site without an event sends none of them.
        """
        rows = self._rows(table, schema)
        if not rows.events.any():
            return 0.0
        predictor = rows.design @ self._coefficients
        in_risk_sets = event_risks(rows.times, rows.events, predictor)
        return max(largest_part(np.exp(predictor - predictor.max())), largest_part(in_risk_sets))

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return coefficients with errors, intervals and p-values, deviance, AIC, rows and events."""
        sums = added(sites)
        design = self._design(schema)
        newton = newton_step(sums, design.names)
        factors = design.rescaling()[0]
        values = factors * (self._coefficients + newton.step)
        errors = factors * np.sqrt(np.diag(newton.covariance))
        deviance = float(sums["deviance"][0])
        return {
            "family": "cox",
            "outcome": self._event(schema),
            "intercept-of": "site",
            "rows": int(sums["rows"][0]),
            "rows-left-out": int(sums["missing"][0]),
            "events": int(sums["events"][0]),
            "coefficients": describe_coefficients(design.names, values, errors, math.inf),
            "deviance": deviance,
            "aic": deviance + 2 * len(design.names),
        }

    def _rows(self, table: pd.DataFrame, schema: Schema) -> _Rows:
        name = self._event(schema)
        cells = table[name]
        events = cells == schema.classes[1] if name == schema.target else cells == 1
        times = table[self.time].to_numpy(dtype=float)
        design = self._design(schema).matrix(table)
        complete = ~(np.isnan(design).any(axis=1) | np.isnan(times) | cells.isna().to_numpy())
        missing = int((~complete).sum())
        return _Rows(design[complete], times[complete], events.to_numpy()[complete], missing)

    def _design(self, schema: Schema) -> Design:
        column_of(self.time, schema, where="time", kinds=("number",))
        low, _ = schema.columns[self.time].range or (0.0, 1.0)
        if low < 0:
            raise usage_error("study.regression.negative", where="time", name=self.time)
        return Design.of(self.of, schema, "cox", (self.time, self._event(schema)))

    def _event(self, schema: Schema) -> str:
        """Return the event's column; raises UsageError where it is neither a flag nor a target of two values."""
        kinds = ("flag", "target") if schema.task == "binary" else ("flag",)
        return column_of(self.event or schema.target, schema, where="event", kinds=kinds)


def event_risks(times: np.ndarray, events: np.ndarray, predictor: np.ndarray) -> np.ndarray:
    """Return each row's part in the risk sets of all events [rows], by time; without a number where risks vanish.

    Of tied events each has the whole risk set.
    """
    order = np.argsort(times, kind="stable")
    times = times[order]
    risks = np.exp(predictor[order] - predictor.max())
    at_risk = np.cumsum(risks[::-1])[::-1][np.searchsorted(times, times)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        until = np.cumsum(events[order] / at_risk)[np.searchsorted(times, times, side="right") - 1]
        return np.asarray(risks * until)


def partial_likelihood(design: np.ndarray, times: np.ndarray, events: np.ndarray, coefficients: np.ndarray) -> Sums:
    """Return gradient, Hessian's upper triangle and deviance of the log partial likelihood.

    Parameters
    ----------
    design : float64 array [rows, coefficients]
    times : float64 array [rows]
    events : bool array [rows]
        Of at least one row.
    coefficients : float64 array [coefficients]

    Source: B. Efron 1977, "The efficiency of Cox's likelihood function for censored data".
    """
    order = np.argsort(times, kind="stable")
    design = design[order]
    times = times[order]
    events = events[order]
    predictor = design @ coefficients
    # The hazards' unit falls out of every quotient.
    largest = predictor.max()
    risks = np.exp(predictor - largest)
    weighted = design * risks[:, np.newaxis]
    at_risk = np.cumsum(risks[::-1])[::-1]
    weighted_at_risk = np.cumsum(weighted[::-1], axis=0)[::-1]
    moments, first, moment_of_row = np.unique(times, return_index=True, return_inverse=True)
    count = len(moments)
    moment = moment_of_row[events]
    tied = np.bincount(moment, minlength=count)
    tied_risks = np.bincount(moment, weights=risks[events], minlength=count)
    tied_weighted = np.zeros((count, design.shape[1]))
    np.add.at(tied_weighted, moment, weighted[events])
    # Of d events at once the risks of all d count in full for the first, and by a d-th less for each further one.
    place = np.arange(len(moment)) - (np.cumsum(tied) - tied)[moment]
    share = place / tied[moment]
    total = at_risk[first[moment]] - share * tied_risks[moment]
    means = weighted_at_risk[first[moment]] - share[:, np.newaxis] * tied_weighted[moment]
    means /= total[:, np.newaxis]
    # Each row's part in all second moments: over the events until its time, less its own ties.
    until = np.cumsum(np.bincount(moment, weights=1 / total, minlength=count))[moment_of_row]
    own = np.bincount(moment, weights=share / total, minlength=count)[moment_of_row]
    part = risks * (until - np.where(events, own, 0.0))
    hessian = design.T @ (design * part[:, np.newaxis]) - means.T @ means
    log_likelihood = predictor[events].sum() - (np.log(total) + largest).sum()
    return {
        "gradient": design[events].sum(axis=0) - means.sum(axis=0),
        "hessian": triangle(hessian),
        "deviance": np.array([-2 * log_likelihood]),
    }
