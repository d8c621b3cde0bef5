"""AUC, Brier score, log loss and calibration slope from noised counts of predictions by class.

A site counts its holdout twice: predictions alone in fine public cells, of which the server makes bins of about equally
many rows, and then each class in these bins. A person's rows weigh at most 1 together, so that either answer moves
by at most 1 with one person; nothing else of the rows is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flfed.summaries.noised_counts import Interval, exceeds_noise, rising
from flfed.summaries.score_bins import ScoreBins

BINS = 16
MORE_BINS = 32
MANY = 3000.0
"""Rows in deviations of the noise on a count above which more bins lose less than they add in noise."""
FIRST = "first"
SCORES = "scores"
"""Names of both answers: counts by public cell, and by class and bin."""
FIRST_SHARE = 0.2
"""Of the squared noise budget of both histograms, for the first, whose noise is then twice the second's. At 0.1 or 0.3
metrics are up to 5 % less exact, at 0.5 10 to 20 %."""
LEAST_FIRST = 2.0
"""Deviations of the noise on all cells together that the first histogram's rows have at least. At twice the noise of
the second, fewer rows have less than `LEAST_SIZE` deviations in the smaller class, too."""
FEWEST_BINS = 3
METHOD = "noised score counts"
"""How a figure came about."""
AUC = "roc_auc_score"
CLASS_LOST = "the smaller class is lost in the noise"
ALIKE = "the predictions are too alike to be counted in bins"
NO_LINE = "no recalibration line can be drawn"


def number_of_bins(rows: float, deviation: float) -> int:
    """Return how many bins the score counts have.

    Parameters
    ----------
    rows : float
        Noised number of rows of all sites together.
    deviation : float
        Of the noise on a count by class, summed over sites.

    Examples
    --------
    >>> number_of_bins(7500.0, 3.8), number_of_bins(7500.0, 1.4)
    (16, 32)
    """
    return MORE_BINS if rows > MANY * deviation else BINS


def first_counts(odds: Floats, weights: Floats) -> Floats:
    """Return the rows in each public cell of predictions, whatever their class, float64 [cells].

    Parameters
    ----------
    odds : float64 array [rows]
        Predictions as log-odds.
    weights : float64 array [rows]
        Those of one person add up to at most 1, and are multiples of a power of two, so that sums are exact.

    Guarantee: with and without one person it differs by at most 1 in L2.

    Examples
    --------
    >>> found = first_counts(np.array([-0.01, 0.01, 0.02]), np.ones(3))
    >>> found[63:65].tolist(), float(found.sum())
    ([1.0, 2.0], 3.0)
    """
    return np.bincount(GRID.places(odds), weights, minlength=GRID.bins).astype(float)


def score_counts(odds: Floats, classes: Integers, weights: Floats, edges: Integers) -> Floats:
    """Return the rows by class and bin, float64 [2, bins].

    Parameters
    ----------
    odds, weights : float64 array [rows]
        As in `first_counts`.
    classes : int array [rows]
        1 of rows with the outcome, 0 of others.
    edges : int array [bins + 1]
        Of `choose_edges`.

    Raises
    ------
    ValueError
        If the edges do not rise from 0 to the number of cells.

    Guarantee: with and without one person it differs by at most 1 in L2.

    Examples
    --------
    >>> odds, classes = np.array([-3.0, 0.1, 0.1, 2.0]), np.array([0, 0, 1, 1])
    >>> score_counts(odds, classes, np.ones(4), np.array([0, 64, 80, 128])).tolist()
    [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    """
    if edges[0] != 0 or edges[-1] != GRID.bins or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges of bins must rise from 0 to {GRID.bins}")
    bins = len(edges) - 1
    place = np.searchsorted(edges, GRID.places(odds), side="right") - 1 + bins * (classes == 1)
    return np.bincount(place, weights, minlength=2 * bins).astype(float).reshape(2, bins)


def choose_edges(first: Floats, deviation: float, bins: int = BINS) -> Integers | None:
    """Return bins of about equally many rows each.

    None where the rows are lost in the noise.

    Parameters
    ----------
    first : float64 array [cells]
        Noised first histogram of all sites together; counts may be below 0.
    deviation : float
        Of the noise on each.
    bins : int
        At most: a cell of many rows stays whole.

    Returns
    -------
    int64 array [bins + 1]
        Cells at which bins begin, and the number of cells.

    Notes
    -----
    Quantiles are those of a running count that nowhere falls, the mean of the nearest such from above and below.

    Examples
    --------
    >>> first = np.zeros(128)
    >>> first[[40, 50, 51, 60]] = [-20.0, 200.0, 190.0, 220.0]
    >>> choose_edges(first, 5.0, 4).tolist()
    [0, 51, 52, 60, 128]
    """
    below = np.concatenate([[0.0], np.cumsum(first)])
    rows = float(below[-1])
    if rows <= LEAST_FIRST * deviation * math.sqrt(len(first)) or rows < 1:
        return None
    curve = rising(np.clip(below, 0.0, rows))
    wanted = rows * np.arange(1, bins) / bins
    after = np.searchsorted(curve, wanted)
    nearest = after - (wanted - curve[after - 1] < curve[after] - wanted)
    return np.unique(np.concatenate([[0], nearest, [len(first)]])).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCounts:
    """Noised score counts over all sites' rows, and the metrics that follow from them.

    Attributes
    ----------
    counts : float64 array [2, bins]
        Rows without and with the outcome, as they were noised: they may be below 0.
    deviation : float
        Of the noise on each.
    edges : int64 array [bins + 1]
        Of `choose_edges`.
    first : float64 array [cells]
        Noised first histogram of the same rows.
    first_deviation : float
        Of the noise on each of its counts.

    Notes
    -----
    A metric is the mean over bins of what its rows add on average. For that a bin's rows are spread as the first
    histogram has them (`spread_within`), and each class in proportion to what the recalibration line says at each
    place. The variance is that of the multinomial counts, plus that of the noise and of the bins' means, both to first
    order. Rows of one person count as one: their variance is at most that of as many persons of one row.

    Beyond log-odds of 12 (probabilities under 0.000006) predictions count as if they were 12.
    """

    counts: Floats
    deviation: float
    edges: Integers
    first: Floats
    first_deviation: float

    @property
    def reason(self) -> str:
        """Why there is no metric, or ""."""
        bins = self.counts.shape[1]
        if not exceeds_noise(float(self.counts.sum(axis=1).min()), self.deviation * math.sqrt(bins)):
            return CLASS_LOST
        if bins < FEWEST_BINS:
            return ALIKE
        return ""

    @property
    def slope_reason(self) -> str:
        """Why there is no calibration slope, or ""."""
        if self.reason or self._line is not CALIBRATED:
            return self.reason
        return NO_LINE

    def roc_auc_score(self) -> Interval | None:
        """Return the AUC with its 95 % interval.

        None where there is a `reason`.

        Notes
        -----
        It is the area by trapezoids, in which a pair of one bin counts half. The order within bins adds to it where the
        recalibration line holds there. It is certainly less than `flfed.summaries.score_bins.auc_bound`.

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
        """Return the Brier score with its 95 % interval.

        None where there is a `reason`.
        """
        if self.reason:
            return None
        p = expit(self._spread.odds)
        slope = 2 * p * (1 - p)
        return self._mean(np.stack([p**2, (1 - p) ** 2]), np.stack([slope * p, slope * (p - 1)]), most=1.0)

    def log_loss(self) -> Interval | None:
        """Return the log loss with its 95 % interval.

        None where there is a `reason`.
        """
        if self.reason:
            return None
        p = expit(self._spread.odds)
        return self._mean(-np.log(np.stack([1 - p, p])), np.stack([p, p - 1]))

    def calibration_slope(self) -> Interval | None:
        """Return the slope of the recalibration line with its 95 % interval.

        None where there is a `slope_reason`.

        1 is calibrated, less than 1 too extreme, and 0 says nothing of the outcome.
        """
        return None if self.slope_reason else Interval.about(self._line.slope, self._line.variance)

    @cached_property
    def _spread(self) -> Spread:
        return spread_within(self.counts.sum(axis=0), self.edges, self.first, self.first_deviation)

    @cached_property
    def _line(self) -> Line:
        return recalibrate(self.counts, self.deviation, self._spread) or CALIBRATED

    @cached_property
    def _within(self) -> Floats:
        """Shares of either class's rows at the points of their bin, [2, bins, points]."""
        p = self._line.probability(self._spread.odds)
        both = np.stack([1 - p, p])
        return np.asarray(both / both.sum(axis=2, keepdims=True))

    def _mean(self, loss: Floats, slope: Floats, most: float = math.inf) -> Interval:
        """Return the mean of a loss by class, bin and point, whose slopes are by log-odds, with its interval."""
        rows = float(self.counts.sum())
        of_cell = (self._within * loss).sum(axis=2)
        mean = float((self.counts * of_cell).sum()) / rows
        square = float((self.counts * (self._within * loss**2).sum(axis=2)).sum()) / rows
        of_noise = self.deviation**2 * float(((of_cell - mean) ** 2).sum()) / rows**2
        moved = (self.counts * (self._within * slope).sum(axis=2)).sum(axis=0) * self._spread.error
        variance = max(square - mean**2, 0.0) / rows + of_noise + float((moved**2).sum()) / rows**2
        return Interval.about(mean, variance, least=0.0, most=most)


METRICS: dict[str, Callable[[ScoreCounts], Interval | None]] = {
    AUC: ScoreCounts.roc_auc_score,
    "log_loss": ScoreCounts.log_loss,
    "brier_score_loss": ScoreCounts.brier_score_loss,
}
"""What follows from counts of scores, by the name of the metric."""


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GRID = ScoreBins(bins=128)
"""The public cells of the first histogram, even in the inverse hyperbolic sine of the log-odds: 0.05 wide at even odds,
0.25 at a probability of 0.01. Half as many would hold a rare outcome's predictions in ten cells; twice as many would
have √2 times the noise over a tail."""
POINTS = 8
"""Predictions that stand for those of one bin."""
TAIL = 0.6
TAIL_RANGE = 0.7
DOUBT = 0.3
"""Mean distance of an end bin's predictions from its bound, where their number falls e-fold over 1, before the first
histogram is looked at, and deviation of its logarithm: of an even distribution it is 0.25, of a normal one 0.7, of an
exponential one 1. At least that share of it is in doubt, as tails are not exponential."""
MISFIT = 0.5
"""Share by which a cell's rows differ from those of an exponential tail."""
TRIED = np.linspace(-3.0, 2.0, 41)
"""Logarithms of mean distances that are tried, over `TAIL`."""
FAR = 6.0
"""Mean distances beyond which an end bin's cells are taken as empty: 1 row in 400 of an exponential tail lies there."""
LONGEST_STEP = 0.7
MOST_STEPS = 60
"""In log-odds, of one Newton step, and how many there are at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """Predictions that stand for those of each bin.

    Attributes
    ----------
    odds : float64 array [bins, POINTS]
        Log-odds, each of as many rows of its bin, from low to high.
    error : float64 array [bins]
        Deviation of what a bin's mean is from the mean of these, as far as is known.
    """

    odds: Floats
    error: Floats


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


def bounds_of(edges: Integers) -> Floats:
    """Return the log-odds at which bins begin and end, those of the ends as `GRID.limit`.

    Parameters
    ----------
    edges : int array [bins + 1]
        Cells at which bins begin, and the number of cells.
    """
    return np.asarray(np.clip(GRID.points()[::2][edges], -GRID.limit, GRID.limit))


def spread_within(rows: Floats, edges: Integers, first: Floats, deviation: float) -> Spread:
    """Return predictions that stand for those of each bin.

    Parameters
    ----------
    rows : float64 array [bins]
        Noised rows of each bin, three bins at least.
    edges : int array [bins + 1]
        Cells at which bins begin, and the number of cells.
    first : float64 array [cells]
        The first histogram.
    deviation : float
        Of the noise on each of its counts.

    Notes
    -----
    Before the first histogram, predictions lie evenly in a bin and exponentially in an end bin. Their deviation is a
    quarter of the bin's width, or the uncertainty of the end bin's mean distance. Their mean is then drawn to that of
    the first histogram, by the weights of the two variances. It is drawn all the way where the noise is small, and
    hardly where an end bin has few rows in many noisy cells.
    """
    bounds = bounds_of(edges)
    least = float(rows.sum()) / len(rows) / 4
    width = np.diff(bounds)
    size = np.maximum(rows, least)
    # The bounds of the end bins, and the bins beside them over which their rows fall off.
    points = GRID.points()[::2]
    start = int(edges[1])
    end = int(edges[-2])
    over = max(len(size) // 4, 1)
    at_start = points[start] - points[start::-1]
    at_end = points[end:] - points[end]
    low, doubt_low = _tail(size, points[edges[over + 1]] - points[start], at_start, first[:start][::-1], deviation)
    high, doubt_high = _tail(size[::-1], points[end] - points[edges[-over - 2]], at_end, first[end:], deviation)
    guess = (bounds[:-1] + bounds[1:]) / 2
    doubt = width / 4
    guess[0] = bounds[1] - low
    guess[-1] = bounds[-2] + high
    doubt[[0, -1]] = doubt_low, doubt_high
    middle = GRID.points()[1::2]
    of_bin = np.repeat(np.arange(len(rows)), np.diff(edges))
    near = (middle > bounds[1] - FAR * low) & (middle < bounds[-2] + FAR * high)
    away = (middle - guess[of_bin]) * near
    # A bin's rows are those of the second counts, whose noise has no part in the choice of edges.
    change = np.add.reduceat(first * away, edges[:-1]) / size
    noise = deviation**2 * np.add.reduceat(away**2, edges[:-1]) / size**2
    weight = doubt**2 / (doubt**2 + noise)
    mean = guess + weight * change
    # Noise may bring a mean to the other side of an end bin's bound.
    mean[0], mean[-1] = min(mean[0], bounds[1] - low / 20), max(mean[-1], bounds[-2] + high / 20)
    return Spread(odds=_points(mean, bounds), error=np.sqrt(weight * noise))


def _tail(size: Floats, gap: float, away: Floats, cells: Floats, deviation: float) -> tuple[float, float]:
    """Return the mean distance of an end bin's predictions from its bound, and the doubt in it.

    Distances of exponential tails are weighed by how well they fit the first histogram.

    Parameters
    ----------
    size : float64 array [bins]
        Rows of each bin from the end on.
    gap : float
        Log-odds over which the bins beside it lie, a quarter of all.
    away : float64 array [cells + 1]
        Distance of the end bin's cells from its bound.
    cells : float64 array [cells]
        Their counts in the first histogram.
    deviation : float
    """
    rows = float(size[0])
    inward = float(size[: max(len(size) // 4, 1) + 1].sum())
    tried = TAIL * gap / math.log(max(inward / rows, 1.5)) * np.exp(TRIED)
    expected = rows * -np.diff(np.exp(-away / tried[:, None]), axis=1)
    # Of counts without noise, too, no one is as expected to less than a row.
    variance = max(deviation, 1.0) ** 2 + (MISFIT * expected) ** 2
    fit = -((cells - expected) ** 2 / variance + np.log(variance)).sum(axis=1) - (TRIED / TAIL_RANGE) ** 2
    weight = np.exp((fit - fit.max()) / 2)
    weight /= weight.sum()
    mean = float(weight @ tried)
    return mean, max(math.sqrt(float(weight @ (tried - mean) ** 2)), DOUBT * mean)


def _points(mean: Floats, bounds: Floats) -> Floats:
    """Return points of each bin with these means, log-odds [bins, POINTS].

    Powers of even points have any mean within a bin; of the ends they are quantiles of exponential distributions.
    """
    even = (np.arange(POINTS) + 0.5) / POINTS
    width = np.diff(bounds)
    place = np.clip((mean - bounds[:-1]) / width, 0.05, 0.95)[:, None]
    odds = bounds[:-1, None] + width[:, None] * even ** ((1 - place) / place)
    tail = -np.log(even) / -np.log(even).mean()
    odds[0] = bounds[1] - tail * (bounds[1] - mean[0])
    odds[-1] = bounds[-2] + tail[::-1] * (mean[-1] - bounds[-2])
    return np.clip(odds, -GRID.limit, GRID.limit)


def recalibrate(counts: Floats, deviation: float, spread: Spread) -> Line | None:
    """Return the recalibration line; None where Newton's method does not find it.

    Parameters
    ----------
    counts : float64 array [2, bins]
        Noised rows without and with the outcome.
    deviation : float
        Of the noise on each.
    spread : Spread

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
    mean = spread.odds.mean(axis=1)
    line = np.array([0.0, 1.0])
    for _ in range(MOST_STEPS):
        p = expit(line[0] + line[1] * spread.odds)
        bend = p * (1 - p)
        risk = p.mean(axis=1)
        curvature = bend.mean(axis=1)
        leaning = (bend * spread.odds).mean(axis=1)
        of_noise = deviation**2 * ((1 - risk) ** 2 + risk**2)
        unknown = (line[1] * curvature * spread.error) ** 2
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
