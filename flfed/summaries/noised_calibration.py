"""Predictions within the bins of noised score counts, and the recalibration line through them.

Bins are cells of the first histogram put together; what that tells of a bin's mean is used as far as its noise allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flfed.summaries.score_bins import ScoreBins

Floats = NDArray[np.float64]

GRID = ScoreBins(bins=128)
"""The public cells of the first histogram, even in the inverse hyperbolic sine of the log-odds: .05 wide at even odds,
.25 at a probability of .01. Half as many would hold a rare outcome's predictions in ten cells; twice as many would
have √2 times the noise over a tail."""
POINTS = 8
"""Predictions that stand for those of one bin."""
TAIL = 0.6
TAIL_RANGE = 0.7
DOUBT = 0.3
"""Mean distance of an end bin's predictions from its bound, where their number falls e-fold over 1, before the first
histogram is looked at, and deviation of its logarithm: of an even distribution it is .25, of a normal one .7, of an
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
        return np.asarray(np.clip(expit(self.intercept + self.slope * odds), 1e-9, 1 - 1e-9))


CALIBRATED = Line(0.0, 1.0, math.inf)
"""The line where nothing can be told of it."""


def expit(odds: Floats) -> Floats:
    """Return the probability of these log-odds.

    Examples
    --------
    >>> expit(np.array([-800.0, 0.0, 800.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.asarray((1 + np.tanh(odds / 2)) / 2)


def bounds_of(edges: NDArray[np.int64]) -> Floats:
    """Return the log-odds at which bins begin and end, those of the ends as `GRID.limit`.

    Parameters
    ----------
    edges : int array [bins + 1]
        Cells at which bins begin, and the number of cells.
    """
    return np.asarray(np.clip(GRID.points()[::2][edges], -GRID.limit, GRID.limit))


def spread_within(rows: Floats, edges: NDArray[np.int64], first: Floats, deviation: float) -> Spread:
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
    Before the first histogram is looked at, predictions lie evenly in a bin and exponentially in an end bin, give or
    take a deviation of a quarter of the bin's width, or of what is not known of the end bin's mean distance. Their mean
    is then drawn to that of the first histogram, by the weights of the two variances: all the way where the noise is
    small, and hardly where an end bin has few rows in many noisy cells.
    """
    bounds = bounds_of(edges)
    least = float(rows.sum()) / len(rows) / 4
    width = np.diff(bounds)
    size = np.maximum(rows, least)
    (low, high), doubts = _tails(size, edges, first, deviation)
    guess = (bounds[:-1] + bounds[1:]) / 2
    doubt = width / 4
    guess[0] = bounds[1] - low
    guess[-1] = bounds[-2] + high
    doubt[0], doubt[-1] = doubts
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


def _tails(size: Floats, edges: NDArray[np.int64], first: Floats, deviation: float) -> tuple[Floats, Floats]:
    """Return mean distances of the lowest and the highest bin's predictions from their bounds, and their doubts."""
    points = GRID.points()[::2]
    low = int(edges[1])
    high = int(edges[-2])
    over = max(len(size) // 4, 1)
    ends = (
        (size, points[edges[over + 1]] - points[low], points[low] - points[low::-1], first[:low][::-1]),
        (size[::-1], points[high] - points[edges[-over - 2]], points[high:] - points[high], first[high:]),
    )
    found = np.array([_tail(*end, deviation) for end in ends])
    return found[:, 0], found[:, 1]


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
    return np.asarray(np.clip(odds, -GRID.limit, GRID.limit))


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
    without. The weights w_j, 1 without noise, are small where noise, or what is not known of the predictions, is
    larger than chance; a bin has as many rows there as all have on average, since with its own the noise would be
    squared. The variance is the sandwich of the counts' variance.

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
