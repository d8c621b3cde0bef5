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

from flfed.summaries.noised_calibration import CALIBRATED, GRID, Floats, Line, Spread, expit, recalibrate, spread_within
from flfed.summaries.noised_counts import Interval, is_told

BINS = 16
MORE_BINS = 32
MANY = 3000.0
"""Rows in deviations of the noise on a count above which more bins lose less than they add in noise."""
FIRST = "first"
SCORES = "scores"
"""Names of both answers: counts by public cell, and by class and bin."""
FIRST_SHARE = 0.2
"""Of the squared noise budget of both histograms, for the first, whose noise is then twice the second's. At .1 or .3
metrics are up to 5 % less exact, at .5 10 to 20 %."""
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
    return np.bincount(GRID.places(odds), weights, minlength=GRID.bins).astype(np.float64)


def score_counts(odds: Floats, classes: NDArray[np.int64], weights: Floats, edges: NDArray[np.int64]) -> Floats:
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
    return np.bincount(place, weights, minlength=2 * bins).astype(np.float64).reshape(2, bins)


def choose_edges(first: Floats, deviation: float, bins: int = BINS) -> NDArray[np.int64] | None:
    """Return bins of about equally many rows each; None where the rows are lost in the noise.

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
    below = np.clip(below, 0.0, rows)
    rising = (np.maximum.accumulate(below) + np.minimum.accumulate(below[::-1])[::-1]) / 2
    wanted = rows * np.arange(1, bins) / bins
    after = np.searchsorted(rising, wanted)
    nearest = after - (wanted - rising[after - 1] < rising[after] - wanted)
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

    Beyond log-odds of 12 (probabilities under .000006) predictions count as if they were 12.
    """

    counts: Floats
    deviation: float
    edges: NDArray[np.int64]
    first: Floats
    first_deviation: float

    @property
    def reason(self) -> str:
        """Why no metric is told, or ""."""
        bins = self.counts.shape[1]
        if not is_told(float(self.counts.sum(axis=1).min()), self.deviation * math.sqrt(bins)):
            return CLASS_LOST
        return ALIKE if bins < FEWEST_BINS else ""

    @property
    def slope_reason(self) -> str:
        """Why no calibration slope is told, or ""."""
        if self.reason or self._line is not CALIBRATED:
            return self.reason
        return NO_LINE

    def roc_auc_score(self) -> Interval | None:
        """Return the AUC with its 95 % interval; None where there is a `reason`.

        Notes
        -----
        It is the area by trapezoids, in which a pair of one bin counts half, plus what the order within bins adds to it
        where the recalibration line holds there: .0016 of an AUC of .778 in 16 bins, .0005 in 32, .004 in 16 bins of an
        outcome of 2 %. What is certain of it is that it is less than `flfed.summaries.score_bins.auc_bound`.

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
        p = expit(self._spread.odds)
        slope = 2 * p * (1 - p)
        return self._mean(np.stack([p**2, (1 - p) ** 2]), np.stack([slope * p, slope * (p - 1)]), most=1.0)

    def log_loss(self) -> Interval | None:
        """Return the log loss with its 95 % interval; None where there is a `reason`."""
        if self.reason:
            return None
        p = expit(self._spread.odds)
        return self._mean(-np.log(np.stack([1 - p, p])), np.stack([p, p - 1]))

    def calibration_slope(self) -> Interval | None:
        """Return the slope of the recalibration line with its 95 % interval; None where there is a `slope_reason`.

        1 is calibrated, less than 1 too extreme, and 0 tells nothing of the outcome.
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
