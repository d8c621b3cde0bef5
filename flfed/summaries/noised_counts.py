"""Estimates with intervals from counts and clipped sums that have normal noise.

An interval covers both what another draw of people would have given and the noise. Counts may be below 0: as they are
they are right on average, and so is what they add up to; only a table that is shown is cut at 0 (`shown`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flfed.summaries.drift import NORMAL_975

LEAST_SIZE = 6.0
"""Deviations of the noise that a number of rows has at least: below, nothing is divided by it."""


@dataclass(frozen=True)
class Interval:
    """Estimate with the ends of its 95 % interval.

    Attributes
    ----------
    value, low, high : float
    variance : float
        Of the estimate, by chance and noise; NaN where the interval has no such form.
    """

    value: float
    low: float
    high: float
    variance: float = math.nan

    @classmethod
    def about(cls, value: float, variance: float, *, least: float = -math.inf, most: float = math.inf) -> Interval:
        """Return the normal interval of a variance, within what can be.

        An estimate that noise brought out of that is taken back to its end first: from there the interval is as wide
        as the noise, and not a point.

        Examples
        --------
        >>> found = Interval.about(-0.03, 0.01**2, least=0.0)
        >>> found.value, found.low, round(found.high, 4)
        (0.0, 0.0, 0.0196)
        """
        reach = NORMAL_975 * math.sqrt(variance)
        estimate = min(max(value, least), most)
        return cls(estimate, max(estimate - reach, least), min(estimate + reach, most), variance)

    def minus(self, other: Interval) -> Interval:
        """Return the difference from an independent estimate."""
        return Interval.about(self.value - other.value, self.variance + other.variance)


def exceeds_noise(rows: float, deviation: float) -> bool:
    """Return whether a noised number of rows is large enough that something may be divided by it."""
    return rows > LEAST_SIZE * deviation and rows >= 1


def share(count: float, rows: float, deviation: float, of_rows: float | None = None) -> Interval | None:
    """Return the share of rows that a count is.

    None where the number of rows is lost in the noise.

    Parameters
    ----------
    count, rows : float
        Each with noise of its own.
    deviation : float
        Of the noise on each.
    of_rows : float, optional
        Of that on the number of rows, where it is another one.

    Notes
    -----
    The sampling variance takes the share as Agresti and Coull have it, so that it is not 0 where nobody was counted.

    Examples
    --------
    >>> found = share(200.0, 1000.0, 18.4)
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.2, 0.156, 0.244)
    """
    if of_rows is None:
        of_rows = deviation
    if not exceeds_noise(rows, of_rows):
        return None
    proportion = min(max(count / rows, 0.0), 1.0)
    square = NORMAL_975**2
    centre = min(max((count + square / 2) / (rows + square), 0.0), 1.0)
    variance = centre * (1 - centre) / rows + (deviation**2 + (of_rows * proportion) ** 2) / rows**2
    return Interval.about(proportion, variance, least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Noised sums of values that were clipped to a range, scaled to -1 at its low end and 1 at its high one.

    Attributes
    ----------
    rows, total, square : float
        Number of known values, sum, and sum of squares.
    deviation : float
        Of the noise on either sum.
    of_rows : float
        Of that on the number of values.
    low, high : float
        Ends of the range.
    """

    rows: float
    total: float
    square: float
    deviation: float
    of_rows: float
    low: float
    high: float

    def mean(self) -> Interval | None:
        """Return the mean of the clipped values.

        None where the number of rows is lost in the noise.
        """
        if not exceeds_noise(self.rows, self.of_rows):
            return None
        mean, variance = self._scaled()
        error = max(variance, 0.0) / self.rows + (self.deviation**2 + (self.of_rows * mean) ** 2) / self.rows**2
        middle = (self.low + self.high) / 2
        half = (self.high - self.low) / 2
        return Interval.about(middle + half * mean, half**2 * error, least=self.low, most=self.high)

    def standard_deviation(self, kurtosis: float = 3.0) -> Interval | None:
        """Return the standard deviation of the clipped values.

        None where their number or spread is lost in the noise.

        Parameters
        ----------
        kurtosis : float, >= 1
            Fourth moment of the values in squared variances: 3 of a normal distribution.
        """
        if not exceeds_noise(self.rows, self.of_rows):
            return None
        mean, variance = self._scaled()
        of_sums = self.deviation**2 * (1 + 4 * mean**2)
        of_noise = (of_sums + (self.of_rows * (mean**2 - variance)) ** 2) / self.rows**2
        # A variance that noise brought to 0 or below shows nothing, and least of all that all values are the same.
        if variance <= 0:
            return None
        about = Interval.about(variance, (kurtosis - 1) * max(variance, 0.0) ** 2 / self.rows + of_noise)
        half = (self.high - self.low) / 2
        return Interval(*(half * math.sqrt(max(end, 0.0)) for end in (about.value, about.low, about.high)))

    def _scaled(self) -> tuple[float, float]:
        mean = self.total / self.rows
        return mean, self.square / self.rows - mean**2


def quantile(share: float, counts: np.ndarray, edges: np.ndarray, deviation: float) -> Interval | None:
    """Return a quantile of values that were counted in bins.

    None where their number is lost in the noise.

    Parameters
    ----------
    share : float in (0, 1)
        0.5 of the median.
    counts : float64 array [bins]
    edges : float64 array [bins + 1]
    deviation : float
        Of the noise on each count.

    Notes
    -----
    The interval has whole bins: those that hold it as far as noise and chance let see. A bin is out where the rows
    below its left edge are more than that share of all, or those below its right edge fewer, each by a test at 2.5 %.
    Nothing is known of how values lie within a bin, such as all at one; the figure itself takes them as even there.
    """
    bins = len(counts)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    rows = float(below[-1])
    if not exceeds_noise(rows, deviation * math.sqrt(bins)):
        return None
    place = np.arange(bins + 1)
    wanted = share * rows
    variance = share * (1 - share) * rows + deviation**2 * (place * (1 - share) ** 2 + (bins - place) * share**2)
    over = (below - wanted) / np.sqrt(variance)
    # Over the edges it comes from below to above: one bin at least is left.
    (left,) = np.nonzero((over[:-1] <= NORMAL_975) & (over[1:] >= -NORMAL_975))
    low = float(edges[left[0]])
    high = float(edges[left[-1] + 1])
    curve = rising(np.clip(below, 0.0, rows))
    # At the points where it rises.
    rises = np.concatenate([[True], np.diff(curve) > 0])
    estimate = float(np.interp(wanted, curve[rises], edges[rises]))
    return Interval(min(max(estimate, low), high), low, high)


def rising(below: np.ndarray) -> np.ndarray:
    """Return a curve that nowhere falls: the mean of the nearest from above and below; as `below`."""
    from_left = np.maximum.accumulate(below)
    return (from_left + np.minimum.accumulate(below[::-1])[::-1]) / 2


def independence(table: np.ndarray, deviation: float) -> tuple[float, int, float] | None:
    """Return chi square, degrees of freedom and p of the test that two columns have nothing to do with each other.

    None where a row or column of the table is lost in the noise.

    Parameters
    ----------
    table : float64 array [rows, columns]
        Noised counts.
    deviation : float
        Of the noise on each.

    Notes
    -----
    The residuals of noised counts have the covariance of Poisson counts and that of the noise; Pearson's statistic
    knows the first alone, and calls noise an association. This one is the quadratic form of the residuals by both.

    Source: after Gaboardi, Lim, Rogers and Vadhan 2016, "Differentially private chi-squared hypothesis testing".
    """
    from scipy.special import chdtrc

    rows, columns = table.shape
    total = float(table.sum())
    of_rows = table.sum(axis=1)
    of_columns = table.sum(axis=0)
    least = LEAST_SIZE * deviation
    if min(of_rows.min() / math.sqrt(columns), of_columns.min() / math.sqrt(rows)) <= least or total < 1:
        return None
    p = of_rows / total
    q = of_columns / total
    # How the residual of each cell follows from the counts of all, about the two marginal distributions.
    across = np.eye(rows) - np.outer(p, np.ones(rows))
    down = np.eye(columns) - np.outer(q, np.ones(columns))
    change = np.kron(across, down)
    residuals = (table - np.outer(of_rows, of_columns) / total).ravel()
    spread = change @ np.diag(np.outer(p, q).ravel() * total + deviation**2) @ change.T
    freedom = (rows - 1) * (columns - 1)
    statistic = float(residuals @ np.linalg.pinv(spread, rcond=1e-9, hermitian=True) @ residuals)
    return statistic, freedom, float(chdtrc(freedom, statistic))


def shown(counts: np.ndarray, total: float) -> np.ndarray:
    """Return counts for display: none below 0, and together `total`.

    No figure is made of them.

    They are the nearest such, in squares: a part of the excess is taken off each, down to 0.

    Examples
    --------
    >>> shown(np.array([50.0, -10.0, 30.0]), 75.0).tolist()
    [47.5, 0.0, 27.5]
    """
    total = max(total, 0.0)
    falling = np.sort(counts.ravel())[::-1]
    over = (np.cumsum(falling) - total) / np.arange(1, falling.size + 1)
    # The largest number of counts that stay above 0 says how much is taken off.
    last = np.flatnonzero(falling - over > 0)
    off = over[last[-1]] if len(last) else over[0]
    return np.asarray(np.maximum(counts - off, 0.0), dtype=float)
