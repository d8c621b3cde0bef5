"""ROC, precision-recall and calibration from rows counted by class and predicted probability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

NORMAL_95 = 1.959963984540054
GROUPS = 10
"""Groups of calibration, of about as many rows each."""
LEAST_ROWS = 10
"""Fewest rows of such a group."""


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Rows of both classes by predicted probability, from low to high; bins without rows are left out.

    Attributes
    ----------
    probability : array [bins]
        Middle of each bin.
    negative, positive : array [bins]
        Rows without and with the outcome.
    """

    probability: np.ndarray
    negative: np.ndarray
    positive: np.ndarray

    @classmethod
    def read(cls, counts: Mapping[str, Any], *, bins: int, limit: float) -> Self:
        """Return the counts that a record has, by class pairs of bin and rows.

        The bins are even in the inverse hyperbolic sine of the log-odds, from `-limit` to `limit`.
        """
        both = np.zeros((2, bins))
        for label in ("0", "1"):
            for place, rows in counts[label]:
                both[int(label), int(place)] = rows
        there = both.sum(axis=0) > 0
        odds = np.sinh(((np.arange(bins) + 0.5) / bins * 2 - 1) * np.arcsinh(limit))
        return cls((1 / (1 + np.exp(-odds)))[there], both[0][there], both[1][there])

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.negative.sum() + self.positive.sum())

    @property
    def events(self) -> int:
        """Rows with the outcome."""
        return int(self.positive.sum())

    @property
    def has_both(self) -> bool:
        """Whether there are rows with and without the outcome, without which no curve is defined."""
        return bool(self.negative.sum() and self.positive.sum())


def roc(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates from the highest threshold to the lowest, from (0, 0) to (1, 1).

    Points on a straight line between their neighbours are left out, which changes neither curve nor area.
    """
    false = np.concatenate([[0.0], np.cumsum(counts.negative[::-1])]) / counts.negative.sum()
    true = np.concatenate([[0.0], np.cumsum(counts.positive[::-1])]) / counts.positive.sum()
    turn = np.diff(false[:-1]) * np.diff(true[1:]) - np.diff(true[:-1]) * np.diff(false[1:])
    kept = np.concatenate([[True], np.abs(turn) > 1e-12, [True]])
    return false[kept], true[kept]


def roc_auc(counts: ScoreCounts) -> float:
    """Return the area under the ROC curve, ties within a bin counting half (Hanley & McNeil 1982)."""
    false, true = roc(counts)
    return float(np.trapezoid(true, false))


def precision_recall(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision from the highest threshold to the lowest; the first point has recall 0.

    Its precision is that of the highest bin, as there is no row above it.
    """
    positive, all_rows = np.cumsum(counts.positive[::-1]), np.cumsum((counts.negative + counts.positive)[::-1])
    precision, recall = positive / all_rows, positive / positive[-1]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def average_precision(counts: ScoreCounts) -> float:
    """Return the sum over thresholds of `(recall - recall before) * precision`, as scikit-learn does."""
    recall, precision = precision_recall(counts)
    return float(np.diff(recall) @ precision[1:])


@dataclass(frozen=True)
class Group:
    """Rows of like predictions: what was predicted for them, on average, and what happened.

    Attributes
    ----------
    predicted, observed : float
        Mean predicted probability, and share with the outcome.
    low, high : float
        95 % interval of `observed`.
    rows : int
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


def calibration(counts: ScoreCounts) -> list[Group]:
    """Return groups of about equally many rows, from low to high predictions; none of fewer than `LEAST_ROWS`.

    A bin is never divided, so that groups may be larger, and fewer than `GROUPS`.
    """
    least = max(LEAST_ROWS, counts.rows / GROUPS)
    groups: list[list[int]] = [[]]
    rows = counts.negative + counts.positive
    for place in range(len(rows)):
        groups[-1].append(place)
        left = rows[place + 1 :].sum()
        if rows[groups[-1]].sum() >= least and left >= min(least, LEAST_ROWS):
            groups.append([])
    return [_group(counts, np.array(places)) for places in groups if places]


def _group(counts: ScoreCounts, places: np.ndarray) -> Group:
    rows = (counts.negative + counts.positive)[places]
    n, events = float(rows.sum()), float(counts.positive[places].sum())
    low, high = wilson(events, n)
    return Group(float(counts.probability[places] @ rows / n), events / n, low, high, int(n))


def wilson(events: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    share, z = events / n, NORMAL_95
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
