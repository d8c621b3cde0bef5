"""Figures at sites that took no part in a model, and their mean over sites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flfed.records.objects import CalibrationReport, read, write
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_over_sites, prediction_interval
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.verdict import LEAST_SITES, Figure
from flfed.words import render

KEY = "left-out"
VALIDATION = "validation"
"""Objects of a report: of sites that were each left out, and of a model that nobody trained."""
SLOPE = "slope"
INTERCEPT = "intercept"
LEAST_PREDICTED = 5
"""Sites in a mean from which there is an interval for another site."""


@dataclass(frozen=True)
class LeftOut:
    """Recorded figures of sites that were each left out of a run.

    Attributes
    ----------
    sites : dict of name to object
        `SiteLeftOut`, with an AUC under "roc_auc_score".
    mean : object
        The same of `MeanLeftOut`.
    """

    sites: dict[str, Any] = field(default_factory=dict)
    mean: Any = None


@dataclass(frozen=True)
class SiteLeftOut:
    """Figures of a site beside its AUC, or their means; each is a `FigureReport` or a `MeanLeftOut`."""

    rows: int = 0
    calibration: CalibrationReport = field(default_factory=CalibrationReport)


@dataclass(frozen=True)
class _Averaged:
    """A figure with its standard error; that of an AUC is on the logit scale."""

    value: float | None
    standard_error: float | None
    logit: float | None = None

    @property
    def pair(self) -> tuple[float, float] | None:
        """Value and error, on the scale of the mean; None where one of them is unknown."""
        value = self.value if self.logit is None else self.logit
        if value is None or self.standard_error is None or not math.isfinite(value + self.standard_error):
            return None
        return value, self.standard_error


@dataclass(frozen=True, kw_only=True)
class MeanLeftOut(Figure):
    """Mean over the sites that were left out.

    Attributes
    ----------
    value, low, high : float or None
        Random-effects mean with its 95 % interval; of an AUC on the logit scale, and converted back.
    prediction_low, prediction_high : float or None
        95 % interval of the value at another such site; from five sites on.
    i2 : float or None, 0 to 1
        I², of an AUC on the logit scale.
    sites : int
        Sites with a figure.
    reason : str
        Why there is no mean.
    """

    prediction_low: float | None = None
    prediction_high: float | None = None
    i2: float | None = None
    sites: int
    reason: str = ""


def figures_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return AUC, slope and intercept of a site, or of the means."""
    calibration = read(SiteLeftOut, entry).calibration
    return {AUC: entry[AUC], SLOPE: calibration.slope, INTERCEPT: calibration.intercept}


def describe_left_out(sites: Mapping[str, Mapping[str, Any]]) -> Report:
    """Return the object of a report: figures by site, and their means."""
    figures = [figures_of(site) for site in sites.values()]
    area = _from_logit(_mean(figures, AUC))
    calibration = {name: write(_mean(figures, name)) for name in (SLOPE, INTERCEPT)}
    return {"sites": dict(sites), "mean": {AUC: write(area), "calibration": calibration}}


def _mean(figures: Sequence[Mapping[str, Any]], name: str) -> MeanLeftOut:
    """Return the mean of the sites' figures of a name whose errors are known."""
    pairs = [read(_Averaged, of[name]).pair for of in figures]
    there = [pair for pair in pairs if pair is not None]
    if len(there) < LEAST_SITES:
        return MeanLeftOut(sites=len(there), reason=render("report.left-out.few", sites=len(there), least=LEAST_SITES))
    mean = mean_over_sites([value for value, _ in there], [error for _, error in there])
    averaged = MeanLeftOut(value=mean.value, low=mean.low, high=mean.high, i2=mean.i2, sites=len(there))
    if len(there) < LEAST_PREDICTED:
        return averaged
    low, high = prediction_interval(mean, len(there))
    return replace(averaged, prediction_low=low, prediction_high=high)


def _from_logit(mean: MeanLeftOut) -> MeanLeftOut:
    """Return a mean of logits as a mean of probabilities."""
    ends: dict[str, Any] = {}
    for name in ("value", "low", "high", "prediction_low", "prediction_high"):
        end = getattr(mean, name)
        ends[name] = None if end is None else 1 / (1 + math.exp(-end))
    return replace(mean, **ends)
