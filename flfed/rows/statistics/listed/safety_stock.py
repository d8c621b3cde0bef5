"""Safety stock above a forecast, from the errors of all sites together or of a site's own."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from flfed.rows.statistics.statistic import REAL, WHOLE, Shapes, Sums, added, column_of
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

SHARED = "all-sites"
OWN = "own"
"""Whose errors set a stock: those of all sites, or all of the site's own."""

MOST_BINS = 100_000
"""Steps in which a site counts its errors, at most."""


class SafetyStock:
    """Pooled error variance of a forecast, and the service level of a safety stock that is set by it.

    Parameters
    ----------
    forecast : str
        Number of the schema that forecasts the outcome, in the outcome's unit. Example: `forecast = "mean_of_12"`.
    by : str
        Date of the schema. Example: `by = "month"`.
    until : str
        Last day whose errors set the stock; rows after it judge it. Example: `until = "2025-06-30"`.
    service : float in (0.5, 1), default 0.9
        Share of rows whose outcome the stock is meant to cover. Example: `service = 0.95`.
    last : sequence of int, default [12, 24]
        How many of a site's last errors set the stocks with which it is compared. Example: `last = [24]`.
    step : float, default 0.05
        Stocks are multiples of it, in the outcome's unit, and none is below the request. Example: `step = 0.1`.

    Reveals: the number of rows until that day, and the sum of their squared errors, over all of them and over the last
    few. Of the rows after it, how many have each error, in steps of `step`. Who knows the forecasts knows single
    outcomes from these, to a step.

    Notes
    -----
    Error: outcome − forecast. The deviation is the root of the mean squared error, without a mean taken off. The stock
    is the forecast and z times the deviation, z the normal distribution's quantile at `service`. A site's miss is the
    distance of the share of its later rows that are covered from `service`. Source: E. A. Silver, D. F. Pyke and D. J.
    Thomas, "Inventory and Production Management in Supply Chains", 4th edition, chapter 6.
    """

    label = "safety stock from the errors of a forecast"
    adds_up = False

    def __init__(
        self,
        *,
        forecast: str,
        by: str,
        until: str,
        service: float = 0.9,
        last: Sequence[int] = (12, 24),
        step: float = 0.05,
    ) -> None:
        try:
            self.until = np.datetime64(datetime.date.fromisoformat(until))
        except ValueError:
            raise usage_error("study.statistic.until", until=until) from None
        if not 0.5 < service < 1:
            raise usage_error("study.statistic.service", service=service)
        if not 0 < step < math.inf or any(count < 1 for count in last):
            raise usage_error("study.statistic.step")
        self.forecast = forecast
        self.by = by
        self.service = service
        self.last = tuple(last)
        self.step = step

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return forecast, date and outcome.

        Raises UsageError where they are no number and date of a regression.
        """
        if schema.task != "regression":
            raise usage_error("study.statistic.regression")
        if 2 * self._most(schema) + 1 > MOST_BINS:
            raise usage_error("study.statistic.bins", step=self.step, most=MOST_BINS)
        forecast = column_of(self.forecast, schema, where="forecast", kinds=("number",))
        return forecast, column_of(self.by, schema, where="by", kinds=("date",)), schema.target

    def shapes(self, schema: Schema) -> Shapes:
        """Return rows and squares [the last few..., all], absolute errors, and later rows by error [bins]."""
        sets = len(self.last) + 1
        bins = 2 * self._most(schema) + 1
        return {
            "rows": ((sets,), WHOLE),
            "square": ((sets,), REAL),
            "absolute": ((1,), REAL),
            "later": ((bins,), WHOLE),
            "missing": ((1,), WHOLE),
        }

    def largest(self, schema: Schema) -> Sums:
        """Return the largest error, and its square."""
        most = self._most(schema) * self.step
        return {"square": np.full(len(self.last) + 1, most**2), "absolute": np.array([most])}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return a site's sums."""
        complete_rows = table.dropna(subset=[*self.columns(schema)]).sort_values(self.by, kind="stable")
        error = (complete_rows[schema.target] - complete_rows[self.forecast]).to_numpy(dtype=float)
        late = complete_rows[self.by].to_numpy() > self.until
        before = error[~late]
        after = error[late]
        most = self._most(schema)
        sets = [*(before[-count:] for count in self.last), before]
        places = np.clip(np.ceil(after / self.step), -most, most).astype(int) + most
        counts = {"rows": [len(errors) for errors in sets], "missing": [len(table) - len(complete_rows)]}
        return {
            **{name: np.array(numbers, dtype=np.uint64) for name, numbers in counts.items()},
            "square": np.array([(errors**2).sum() for errors in sets]),
            "absolute": np.array([np.abs(after).sum()]),
            "later": np.bincount(places, minlength=2 * most + 1).astype(np.uint64),
        }

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return rows, the forecast's mean absolute error, and by whose errors set it: deviation, service and miss."""
        sums = added(sites)
        later = int(sums["later"].sum())
        names = [SHARED, *(f"own-last-{count}" for count in self.last), OWN]
        error = float(sums["absolute"][0]) / later if later else None
        return {
            "forecast": self.forecast,
            "until": str(self.until),
            "service": self.service,
            "rows": int(sums["rows"][-1]),
            "rows-after": later,
            "rows-left-out": int(sums["missing"][0]),
            "error": {"value": error},
            "deviation": {"value": _deviation(sums, -1)},
            "stocks": {name: self._judged(sites, of_all, place) for place, name in enumerate(names, -1)},
        }

    def _judged(self, sites: Sequence[Sums], of_all: Sums, place: int) -> dict[str, Any]:
        """Return sites' mean service and miss with a stock.

        `place` -1 is that of all sites' errors.
        """
        covered = []
        for own in sites:
            errors = of_all if place < 0 else own
            deviation = _deviation(errors, max(place, -1))
            later = own["later"]
            if deviation is not None and later.sum():
                steps = math.ceil(NormalDist().inv_cdf(self.service) * deviation / self.step)
                covered.append(float(later[: len(later) // 2 + steps + 1].sum() / later.sum()))
        if not covered:
            return {"sites": 0, "service": {"value": None}, "miss": {"value": None}}
        miss = np.abs(np.array(covered) - self.service)
        return {
            "sites": len(covered),
            "service": {"value": float(np.mean(covered))},
            "miss": {"value": float(miss.mean())},
        }

    def _most(self, schema: Schema) -> int:
        """Return the largest error that can be, in steps."""
        ranges = [schema.columns[name].range or (0.0, 1.0) for name in (schema.target, self.forecast)]
        return math.ceil((max(high for _, high in ranges) - min(low for low, _ in ranges)) / self.step)


def _deviation(sums: Sums, place: int) -> float | None:
    rows = int(sums["rows"][place])
    return math.sqrt(float(sums["square"][place]) / rows) if rows else None
