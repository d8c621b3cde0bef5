"""Difference of two models' AUCs from noised pair numbers, and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flfed.summaries.noised_counts import Interval, is_told

OWN = "own-model"
PAIRS = "pairs"
"""Names of what a comparison costs: a site's own model, and the answer about pairs."""
JOINING_PAYS = "joining-pays"
NO_CLEAR_GAIN = "no-clear-gain"
DO_NOT_USE = "do-not-use"
CANNOT_BE_TOLD = "cannot-be-told-under-this-budget"
MOST_DIFFERENCE = 0.5
"""Difference of AUCs, either way, at which a site cuts its pairs: one of more is told as this."""
SQUARES_WEIGHT = 0.5
"""Of the second number in an answer: at 1 the first would have 26 % more noise, at 1/4 the second 84 %."""
STANDARD_ERRORS = 2.8
DETECTABLE = 0.1
"""A difference of 2.8 standard errors is seen in 80 of 100 cases (1.96 + .84); where not even one of .1 is, none is
told."""
FAR = 8.0
"""Deviations below 0 from where on a normal tail is its asymptote, without underflow."""


def pair_scale(events: float, others: float) -> float:
    """Return `1/L - S^2 / (5 L^3)`, for L and S rows of the larger and smaller class.

    Pairs won times this move by at most 1 with one row of either class (`flfed.rows.comparison.private_pairs`). It is
    nearly one over the larger class: .8 of that for classes of equal size, .98 for 22 % events. 0 without rows.

    Examples
    --------
    >>> round(1 / pair_scale(22, 78), 1), pair_scale(50, 50) * 50
    (79.3, 0.8)
    """
    larger = max(events, others)
    smaller = min(events, others)
    return (1 - (smaller / larger) ** 2 / 5) / larger if larger else 0.0


@dataclass(frozen=True, kw_only=True)
class NoisedPairs:
    """Pair numbers of one site with noise, and its noised class counts.

    Attributes
    ----------
    pairs, squares : float
        The answer of `flfed.rows.comparison.private_pairs`: pairs won by the shared model minus those won by the
        site's own, times `pair_scale`; rows' squared parts in it over the squared number of rows, times
        `SQUARES_WEIGHT`.
    deviation : float
        Of the noise on each of them.
    events, others : float
        Rows of either class, persons weighed as in the pairs: sums of the noised score counts, for example.
    count_deviation : float
        Of the noise on each of these: σ√bins where they are sums of bins.

    Notes
    -----
    In pairs won times the scale, the variance of sampling is `(scale · rows)^2 W - (pairs^2 - σ^2) rows / (events ·
    others)`, W the squares without noise: DeLong's, with n in place of n - 1. Of it only a noised figure is known,
    which may be below 0; in its place stands the mean of what it may be, given that it is not (the noise cut at 0, all
    such values taken as equally likely before): the figure itself where it is far above its noise, and half to one
    deviation of the noise where it is lost in that. Intervals then hold the difference in 94 to 99 of 100 cases; cut
    at 0 instead, in as few as 90.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver
    operating characteristic curves".

    Examples
    --------
    >>> site = NoisedPairs(pairs=27.0, squares=5.0, deviation=2.5, events=500.0, others=1750.0, count_deviation=10.0)
    >>> found = site.difference()
    >>> [round(one, 3) for one in (found.value, found.low, found.high)], site.verdict()
    ([0.055, 0.036, 0.073], 'joining-pays')
    """

    pairs: float
    squares: float
    deviation: float
    events: float
    others: float
    count_deviation: float

    def difference(self) -> Interval | None:
        """Return AUC of the shared model minus the own model's, with its 95 % interval.

        None where a class is lost in the noise. It is cut at `MOST_DIFFERENCE` before the noise.
        """
        error = self.standard_error()
        if error is None:
            return None
        return Interval.about(self.pairs * self._unit(), error**2, least=-1.0, most=1.0)

    def standard_error(self) -> float | None:
        """Return the standard error of the difference, by sampling and noise together.

        None where a class is lost in the noise.
        """
        if not is_told(min(self.events, self.others), self.count_deviation):
            return None
        variance = self._sampling_variance() + self.deviation**2
        return self._unit() * math.sqrt(variance + self.pairs**2 * self._unit_variance())

    def verdict(self) -> str:
        """Return the code of what joining is worth.

        `JOINING_PAYS` where the interval lies above 0, `DO_NOT_USE` where below, `NO_CLEAR_GAIN` where it holds 0;
        `CANNOT_BE_TOLD` where 2.8 standard errors are more than .1, or a class is lost in the noise.
        """
        error = self.standard_error()
        gain = self.difference()
        if error is None or gain is None or STANDARD_ERRORS * error > DETECTABLE:
            return CANNOT_BE_TOLD
        if gain.low > 0:
            return JOINING_PAYS
        return DO_NOT_USE if gain.high < 0 else NO_CLEAR_GAIN

    def _unit(self) -> float:
        """Return the difference of AUCs that one of `pairs` is."""
        return 1 / (pair_scale(self.events, self.others) * self.events * self.others)

    def _unit_variance(self) -> float:
        """Return the relative variance of the unit by the noise of the class counts, to first order."""
        larger = max(self.events, self.others)
        smaller = min(self.events, self.others)
        square = (smaller / larger) ** 2 / 5
        # log(unit) moves by -bend with log(larger), and by bend - 1 with log(smaller).
        bend = 2 * square / (1 - square)
        return self.count_deviation**2 * (((1 - bend) / smaller) ** 2 + (bend / larger) ** 2)

    def _sampling_variance(self) -> float:
        """Return the variance of `pairs` from one draw of people to another, never below 0."""
        rows = self.events + self.others
        unit = (pair_scale(self.events, self.others) * rows) ** 2 / SQUARES_WEIGHT
        mean_square = max(self.pairs**2 - self.deviation**2, 0.0) * rows / (self.events * self.others)
        return _mean_above_zero(self.squares * unit - mean_square, self.deviation * unit)


def _mean_above_zero(value: float, deviation: float) -> float:
    """Return the mean of a normal distribution of this centre and deviation, cut off below 0.

    Examples
    --------
    >>> [round(_mean_above_zero(value, 1.0), 3) for value in (-3.0, 0.0, 5.0)], _mean_above_zero(-1.0, 0.0)
    ([0.283, 0.798, 5.0], 0.0)
    """
    if not deviation:
        return max(value, 0.0)
    place = value / deviation
    if place < -FAR:
        return -deviation / place
    hazard = math.sqrt(2 / math.pi) * math.exp(-(place**2) / 2) / math.erfc(-place / math.sqrt(2))
    return value + deviation * hazard
