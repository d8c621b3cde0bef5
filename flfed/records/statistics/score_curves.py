"""ROC, precision-recall and calibration from counted rows.

The rows are counted by class and predicted probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from flfed.records.statistics.intervals import NORMAL_95
from flfed.summaries.score_bins import ScoreBins, auc_bound, dense

GROUPS = 10
"""Groups of calibration, of about as many rows each."""
LEAST_ROWS = 10
"""Fewest rows of such a group."""
MOST_POINTS = 200
"""Points that a drawn curve has at most: of 256 bins the others lie within a thousandth of it."""
Line = tuple[np.ndarray, np.ndarray]
"""The points of a curve, x and y."""


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Rows of both classes by predicted probability.

    They are ordered from low to high. Bins without rows are left out.

    Attributes
    ----------
    probability : array [bins]
        Middle of each bin.
    negative, positive : array [bins]
        Rows without and with the outcome.
    low, high : array [bins]
        Where each bin begins and ends: the predictions of its rows lie between.
    """

    probability: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def read(cls, counts: Mapping[str, Any], bins: ScoreBins) -> Self:
        """Return the counts that a record has.

        The record has pairs of bin and rows for each class.
        """
        both = dense(counts, bins.bins)
        there = both.sum(axis=0) > 0
        with np.errstate(over="ignore"):  # at the ends: a probability of 0
            # The bins are of log-odds, whose ends and middles become probabilities here.
            halves = 1 / (1 + np.exp(-bins.points()))  # edge, middle, edge, middle, ..., edge
        return cls(halves[1::2][there], both[0][there], both[1][there], halves[:-2:2][there], halves[2::2][there])

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.negative.sum() + self.positive.sum())

    @property
    def events(self) -> int:
        """Rows with the outcome."""
        return int(self.positive.sum())

    @property
    def predicted(self) -> tuple[float, float, float]:
        """Mean predicted probability with its bounds.

        The mean is by the middles of the rows' bins. The bounds are the least and the most that it may be.
        """
        share = (self.negative + self.positive) / self.rows
        return float(share @ self.probability), float(share @ self.low), float(share @ self.high)

    @property
    def has_both(self) -> bool:
        """Whether there are rows of both classes.

        Without rows with and without the outcome no curve is defined.
        """
        return bool(self.negative.sum() and self.positive.sum())


def roc(counts: ScoreCounts) -> Line:
    """Return false and true positive rates.

    They go from the highest threshold to the lowest, from (0, 0) to (1, 1).

    Points on a straight line between their neighbours are left out, which changes neither curve nor area.
    """
    false = np.concatenate([[0.0], np.cumsum(counts.negative[::-1])])
    true = np.concatenate([[0.0], np.cumsum(counts.positive[::-1])])
    kept = _turns(false, true) != 0  # of whole numbers, so that straight is straight
    return false[kept] / false[-1], true[kept] / true[-1]


def roc_auc(counts: ScoreCounts) -> float:
    """Return the area under the ROC curve.

    Ties within a bin count half (Hanley & McNeil 1982).
    """
    false, true = roc(counts)
    return float(np.trapezoid(true, false))


def roc_auc_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `roc_auc`.

    It is how far the area from the rows themselves may lie from it, at most.
    """
    return auc_bound(counts.negative, counts.positive)


def precision_recall(counts: ScoreCounts) -> Line:
    """Return recall and precision by threshold.

    They go from the highest threshold to the lowest. The first point has recall 0.

    Its precision is that of the highest bin, as there is no row above it.
    """
    positive, all_rows = np.cumsum(counts.positive[::-1]), np.cumsum((counts.negative + counts.positive)[::-1])
    precision, recall = positive / all_rows, positive / positive[-1]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def average_precision(counts: ScoreCounts) -> float:
    """Return the average precision, as scikit-learn does.

    It is the sum over thresholds of `(recall - recall before) * precision`.
    """
    recall, precision = precision_recall(counts)
    return float(np.diff(recall) @ precision[1:])


def average_precision_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `average_precision`.

    It is how far the value of the rows themselves may lie from it, at most.

    Lowest where within each bin all rows without the outcome stand above those with it, and these one
    above the other; highest where those with the outcome stand above, all with the same score.
    """
    negative, positive = counts.negative[::-1], counts.positive[::-1].astype(int)
    below, above = np.cumsum(negative), np.cumsum(negative) - negative
    found, place = np.cumsum(positive), np.arange(1, positive.sum() + 1)
    # The worst order within a bin: its rows without the outcome stand above all others.
    low = (place / (place + np.repeat(below, positive))).mean()
    there = positive > 0
    # The best order: the rows with the outcome count only those of higher bins against them.
    high = positive[there] @ (found[there] / (found[there] + above[there])) / positive.sum()
    value = average_precision(counts)
    return float(max(value - low, high - value))


def steps(x: np.ndarray, y: np.ndarray) -> Line:
    """Return a curve as steps of straight lines.

    Its height between two points is that of the later one.

    So the area under a drawn curve of precision and recall is the average precision.
    """
    return np.repeat(x, 2)[:-1], np.concatenate([y[:1], np.repeat(y[1:], 2)])


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> Line:
    """Return at most `most` points of a curve.

    As straight lines they draw the same picture.

    Left out are first those on a line between their neighbours, then those of the smallest triangle with
    them.

    Source: Visvalingam & Whyatt 1993, "Line generalisation by repeated elimination of points".
    """
    # Of equal points one stays, else the two corners that they make would both seem straight.
    x, y = (axis[np.r_[True, (np.diff(x) != 0) | (np.diff(y) != 0)]] for axis in (x, y))
    kept = np.abs(_turns(x, y)) > 1e-12
    x, y = x[kept], y[kept]
    while len(x) > most:
        least = int(np.argmin(np.abs(_turns(x, y))))
        x, y = np.delete(x, least), np.delete(y, least)
    return x, y


def _turns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return twice each point's signed triangle area.

    The triangle is that with its neighbours. Both ends are infinite.
    """
    inner = np.diff(x[:-1]) * np.diff(y[1:]) - np.diff(y[:-1]) * np.diff(x[1:])
    return np.concatenate([[np.inf], inner, [np.inf]])


@dataclass(frozen=True)
class Group:
    """Group of rows of like predictions.

    It has what was predicted for them, on average, and what happened.

    Attributes
    ----------
    predicted, observed : float
        Mean predicted probability, by the middles of the bins, and share with the outcome.
    low, high : float
        95 % interval of `observed`.
    rows : int
    least, most : float
        Between which the mean prediction of the rows themselves lies: the bins say no more.
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: int
    least: float
    most: float

    @property
    def too_high(self) -> bool:
        """Whether clearly more was predicted than happened.

        The difference is more than chance and the width of the bins leave open.
        """
        return self.least > self.high

    @property
    def too_low(self) -> bool:
        """Whether clearly less was predicted than happened.

        The difference is more than chance and the width of the bins leave open.
        """
        return self.most < self.low


def calibration(counts: ScoreCounts) -> list[Group]:
    """Return calibration groups of about equally many rows.

    They are ordered from low to high predictions. None has fewer than `LEAST_ROWS` rows.

    A bin is never divided, so that groups may be larger, and fewer than `GROUPS`; of fewer rows in all there
    is none. The mean prediction of a group is that of the middles of its bins.
    """
    if counts.rows < LEAST_ROWS:
        return []
    least = max(LEAST_ROWS, counts.rows / GROUPS)
    groups: list[list[int]] = [[]]
    rows = counts.negative + counts.positive
    for place in range(len(rows)):
        groups[-1].append(place)
        left = rows[place + 1 :].sum()
        # A last group that would be too small stays part of the one before.
        if rows[groups[-1]].sum() >= least and left >= LEAST_ROWS:
            groups.append([])
    return [_group(counts, np.array(places)) for places in groups if places]


def _group(counts: ScoreCounts, places: np.ndarray) -> Group:
    parts = (counts.probability, counts.negative, counts.positive, counts.low, counts.high)
    there = ScoreCounts(*(part[places] for part in parts))
    low, high = wilson(there.events, there.rows)
    predicted, least, most = there.predicted
    return Group(predicted, there.events / there.rows, low, high, there.rows, least, most)


def wilson(events: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    It is that of Wilson 1927.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    share, z = events / n, NORMAL_95
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
