"""What averaging the sites' own fits would have said, beside the coefficients of all rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flfed.records.statistics.intervals import inverse_variance_mean, mean_over_sites
from flfed.words import render

LEAST_FITS = 2
"""Own fits that an average needs."""


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its standard error."""

    value: float
    standard_error: float


Estimates = Mapping[str, Estimate]
"""Estimates by the name of their coefficient."""


@dataclass(frozen=True, kw_only=True)
class RandomEffects:
    """Recorded random-effects mean of the sites' own coefficients, with its interval and I²."""

    value: float
    low: float
    high: float
    i2: float


@dataclass(frozen=True, kw_only=True)
class Average:
    """Recorded average of the sites' own coefficients.

    Attributes
    ----------
    value, standard_error : float
        Mean by inverse variance.
    distance : float
        From the coefficient of all rows, in standard errors of that.
    random_effects : RandomEffects
    """

    value: float
    standard_error: float
    distance: float
    random_effects: RandomEffects


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Recorded averages, or why there are none."""

    own_fits: int = 0
    sites_without_fit: int = 0
    coefficients: dict[str, Average] = field(default_factory=dict)
    why: str = ""

    @property
    def farthest(self) -> str:
        """Name of the coefficient whose average is farthest from that of all rows."""
        return max(self.coefficients, key=lambda name: abs(self.coefficients[name].distance))


def average_fits(fits: Mapping[str, Estimates], sites: int, of_all: Estimates) -> Averaging:
    """Return the averages of own fits.

    Parameters
    ----------
    fits : mapping of site to estimates by name
        Of sites that have a fit.
    sites : int
        All sites of the estimate.
    of_all : mapping of name to Estimate
        Of all rows.

    Source: DerSimonian and Laird 1986, "Meta-analysis in clinical trials" (mean by inverse variance).
    """
    if len(fits) < LEAST_FITS:
        why = render("report.averaging.few", fits=len(fits), sites=sites)
        return Averaging(own_fits=len(fits), sites_without_fit=sites - len(fits), why=why)
    averages = {}
    for name, one in of_all.items():
        averages[name] = _average([own[name] for own in fits.values()], one)
    return Averaging(own_fits=len(fits), sites_without_fit=sites - len(fits), coefficients=averages)


def _average(own: Sequence[Estimate], of_all: Estimate) -> Average:
    values = [one.value for one in own]
    errors = [one.standard_error for one in own]
    _, total, mean = inverse_variance_mean(values, errors)
    random = mean_over_sites(values, errors)
    return Average(
        value=mean,
        standard_error=1 / math.sqrt(total),
        distance=(mean - of_all.value) / of_all.standard_error,
        random_effects=RandomEffects(value=random.value, low=random.low, high=random.high, i2=random.i2),
    )
