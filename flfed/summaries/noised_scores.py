"""AUC, Brier score, log loss and calibration slope from noised counts of predictions by class and bin.

A site counts its holdout once, by class, in 16 bins of equal width in log-odds about the noised base rate of all sites.
A person's rows weigh at most 1 together, so that the answer moves by at most 1 with one person.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flfed.summaries.noised_counts import Interval, exceeds_noise

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
BINS = 16
REACH = 4.0
"""Log-odds from the base rate to where the bins end; the first and the last have what is beyond, too. Bins of equal
probability lose 0.25 AUC at 0.5 % events, these at most 0.004."""
WIDTH = 2 * REACH / BINS
FARTHEST = 12.0
"""Log-odds of a base rate at most: a probability of 0.000006."""
COUNTS = "counts"
SCORES = "scores"
"""Names of both answers: training rows by class, and test rows by class and bin."""
METHOD = "noised score counts"
"""How a figure came about."""
AUC = "roc_auc_score"
CLASS_LOST = "the smaller class is lost in the noise"
NO_LINE = "no recalibration line can be drawn"
POINTS = 8
"""Predictions that stand for those of one bin."""
DOUBT = np.array([WIDTH, *([WIDTH / 8] * (BINS - 2)), WIDTH])
"""Deviation of a bin's mean prediction from that of its points: of the end bins nobody knows how far they reach."""
LONGEST_STEP = 0.7
MOST_STEPS = 60
"""In log-odds, of one Newton step, and how many there are at most."""


def base_rate(by_class: Floats) -> float:
    """Return the log-odds of the outcome by noised counts of rows without and with it, within what can be.

    Examples
    --------
    >>> round(base_rate(np.array([900.0, 100.0])), 3), base_rate(np.array([50.0, -3.0]))
    (-2.197, -3.912023005428146)
    """
    others, events = np.maximum(by_class, 1.0)
    return float(np.clip(math.log(events / others), -FARTHEST, FARTHEST))


def score_counts(odds: Floats, classes: Integers, weights: Floats, centre: float) -> Floats:
    """Return the rows by class and bin, float64 [2, BINS].

    Parameters
    ----------
    odds : float64 array [rows]
        Predictions as log-odds.
    classes : int array [rows]
        1 of rows with the outcome, 0 of others.
    weights : float64 array [rows]
        Those of one person add up to at most 1, and are multiples of a power of two, so that sums are exact.
    centre : float
        Middle of the bins.

    Guarantee: with and without one person it differs by at most 1 in L2.

    Examples
    --------
    >>> counts = score_counts(np.array([-9.0, 0.1, 0.1, 2.0]), np.array([0, 0, 1, 1]), np.ones(4), 0.0)
    >>> np.argwhere(counts).tolist()
    [[0, 0], [0, 8], [1, 8], [1, 12]]
    """
    away = np.clip(np.nan_to_num(odds - centre, nan=-REACH), -REACH, REACH)
    place = np.minimum(np.floor((away + REACH) / WIDTH).astype(np.int64), BINS - 1) + BINS * (classes == 1)
    return np.bincount(place, weights, minlength=2 * BINS).astype(float).reshape(2, BINS)


def bounds_of(centre: float) -> Floats:
    """Return the log-odds at which bins begin and end, float64 [BINS + 1]; the ends as far as a base rate may be."""
    bounds = centre + np.linspace(-REACH, REACH, BINS + 1)
    bounds[[0, -1]] = min(bounds[0], -FARTHEST), max(bounds[-1], FARTHEST)
    return bounds


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCounts:
    """Noised score counts over some sites' rows, and the metrics that follow from them.

    Attributes
    ----------
    counts : float64 array [2, BINS]
        Rows without and with the outcome, as they were noised: they may be below 0.
    deviation : float
        Of the noise on each.
    centre : float
        Middle of the bins.

    Notes
    -----
    A metric is the mean over bins of what its rows add on average. For that a bin's rows are even in it, those of an
    end bin exponential from its inner bound on, and each class in proportion to what the recalibration line says at
    each place. The variance is that of the multinomial counts, plus that of the noise and of the bins' means, both to
    first order. Rows of one person count as one: their variance is at most that of as many persons of one row.
    """

    counts: Floats
    deviation: float
    centre: float

    @property
    def reason(self) -> str:
        """Why there is no metric, or ""."""
        least = float(self.counts.sum(axis=1).min())
        return "" if exceeds_noise(least, self.deviation * math.sqrt(BINS)) else CLASS_LOST

    @property
    def slope_reason(self) -> str:
        """Why there is no calibration slope, or ""."""
        return self.reason or (NO_LINE if self._line is CALIBRATED else "")

    def roc_auc_score(self) -> Interval | None:
        """Return the AUC with its 95 % interval; None where there is a `reason`.

        Notes
        -----
        It is the area by trapezoids, in which a pair of one bin counts half. The order within bins adds to it where the
        recalibration line holds there.

        Source: of the sampling variance, DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or
        more correlated receiver operating characteristic curves".
        """
        if self.reason:
            return None
        sizes = self.counts.sum(axis=1)
        shares = self.counts / sizes[:, None]
        below = np.cumsum(shares, axis=1) - shares / 2
        area = float(shares[1] @ below[0])
        # Of each class in a bin: how much more than the area its rows win of the other class.
        won = np.stack([1 - below[1], below[0]]) - area
        sampling = float(((shares * won**2).sum(axis=1) / sizes).sum())
        of_noise = self.deviation**2 * float(((won**2).sum(axis=1) / sizes**2).sum())
        negative, positive = self._within
        order = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1) - 0.5
        area += float((shares[0] * shares[1]) @ order)
        return Interval.about(area, max(sampling, 0.0) + of_noise, least=0.0, most=1.0)

    def brier_score_loss(self) -> Interval | None:
        """Return the Brier score with its 95 % interval; None where there is a `reason`."""
        if self.reason:
            return None
        p = expit(self._odds)
        slope = 2 * p * (1 - p)
        return self._mean(np.stack([p**2, (1 - p) ** 2]), np.stack([slope * p, slope * (p - 1)]), most=1.0)

    def log_loss(self) -> Interval | None:
        """Return the log loss with its 95 % interval; None where there is a `reason`."""
        if self.reason:
            return None
        p = expit(self._odds)
        return self._mean(-np.log(np.stack([1 - p, p])), np.stack([p, p - 1]))

    def calibration_slope(self) -> Interval | None:
        """Return the slope of the recalibration line with its 95 % interval; None where there is a `slope_reason`.

        1 is calibrated, less than 1 too extreme, and 0 says nothing of the outcome.
        """
        return None if self.slope_reason else Interval.about(self._line.slope, self._line.variance)

    @cached_property
    def _odds(self) -> Floats:
        """Log-odds that stand for those of each bin, [BINS, POINTS]."""
        even = (np.arange(POINTS) + 0.5) / POINTS
        starts = self.centre - REACH + WIDTH * np.arange(BINS)
        odds = starts[:, None] + WIDTH * even
        tail = -np.log(even) * WIDTH
        odds[0], odds[-1] = starts[1] - tail, starts[-1] + tail[::-1]
        return odds

    @cached_property
    def _line(self) -> Line:
        return recalibrate(self.counts, self.deviation, self._odds) or CALIBRATED

    @cached_property
    def _within(self) -> Floats:
        """Shares of either class's rows at the points of their bin, [2, bins, points]."""
        p = self._line.probability(self._odds)
        both = np.stack([1 - p, p])
        return np.asarray(both / both.sum(axis=2, keepdims=True))

    def _mean(self, loss: Floats, slope: Floats, most: float = math.inf) -> Interval:
        """Return the mean of a loss by class, bin and point, whose slopes are by log-odds, with its interval."""
        rows = float(self.counts.sum())
        of_cell = (self._within * loss).sum(axis=2)
        mean = float((self.counts * of_cell).sum()) / rows
        square = float((self.counts * (self._within * loss**2).sum(axis=2)).sum()) / rows
        of_noise = self.deviation**2 * float(((of_cell - mean) ** 2).sum()) / rows**2
        moved = (self.counts * (self._within * slope).sum(axis=2)).sum(axis=0) * DOUBT
        variance = max(square - mean**2, 0.0) / rows + of_noise + float((moved**2).sum()) / rows**2
        return Interval.about(mean, variance, least=0.0, most=most)


METRICS: dict[str, Callable[[ScoreCounts], Interval | None]] = {
    AUC: ScoreCounts.roc_auc_score,
    "log_loss": ScoreCounts.log_loss,
    "brier_score_loss": ScoreCounts.brier_score_loss,
}
"""What follows from counts of scores, by the name of the metric."""


@dataclass(frozen=True)
class Line:
    """Logistic recalibration: log-odds of the outcome by log-odds of the prediction.

    Attributes
    ----------
    intercept, slope : float
    variance : float
        Of the slope, by sampling, noise and the unknown place of predictions within a bin.
    """

    intercept: float
    slope: float
    variance: float

    def probability(self, odds: Floats) -> Floats:
        """Return the recalibrated probability of each of these log-odds, which is never quite 0 or 1."""
        return np.clip(expit(self.intercept + self.slope * odds), 1e-9, 1 - 1e-9)


CALIBRATED = Line(0.0, 1.0, math.inf)
"""The line where it is inconclusive."""


def expit(odds: Floats) -> Floats:
    """Return the probability of these log-odds.

    Examples
    --------
    >>> expit(np.array([-800.0, 0.0, 800.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (1 + np.tanh(odds / 2)) / 2


def recalibrate(counts: Floats, deviation: float, odds: Floats) -> Line | None:
    """Return the recalibration line; None where Newton's method does not find it.

    Parameters
    ----------
    counts : float64 array [2, bins]
        Noised rows without and with the outcome.
    deviation : float
        Of the noise on each.
    odds : float64 array [bins, points]
        That stand for the predictions of each bin.

    Notes
    -----
    The equations are sums of counts, `sum_j w_j (1, x_j) (N1_j (1 - Q_j) - N0_j Q_j) = 0`, x_j the mean log-odds of bin
    j and Q_j the mean of the line's probabilities there, so that their mean is 0 at the true line with noise as
    without. The weights w_j, 1 without noise, are small where noise, or uncertainty of the predictions, is larger than
    chance. In them a bin has as many rows as all have on average: with its own the noise would be squared. The variance
    is the sandwich of the counts' variance.

    Source: Cox 1958, "Two further applications of a model for binary regression"; of the variance, White 1982,
    "Maximum likelihood estimation of misspecified models".
    """
    rows = counts.sum(axis=0)
    mean = odds.mean(axis=1)
    line = np.array([0.0, 1.0])
    for _ in range(MOST_STEPS):
        p = expit(line[0] + line[1] * odds)
        bend = p * (1 - p)
        risk = p.mean(axis=1)
        curvature = bend.mean(axis=1)
        leaning = (bend * odds).mean(axis=1)
        of_noise = deviation**2 * ((1 - risk) ** 2 + risk**2)
        unknown = (line[1] * curvature * DOUBT) ** 2
        # Above 0 also where a line that grows without end has no curvature left.
        chance = rows.mean() * np.maximum(curvature, 1e-12)
        weighted = chance / (chance + of_noise + rows.mean() ** 2 * unknown) * np.stack([np.ones(len(rows)), mean])
        bread = weighted @ (rows * np.stack([curvature, leaning])).T
        if float(np.linalg.det(bread)) <= 0:
            return None
        step = np.linalg.solve(bread, weighted @ (counts[1] * (1 - risk) - counts[0] * risk))
        line = line + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max() < 1e-9:
            spread_of = counts[1] * (1 - risk) ** 2 + counts[0] * risk**2 + of_noise + rows**2 * unknown
            half = np.linalg.solve(bread, weighted)
            return Line(float(line[0]), float(line[1]), max(float((half**2 * spread_of)[1].sum()), 0.0))
    return None
