"""Confusion tables at the false positive rates of a study, of one model on one site's holdout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.summaries.score_bins import PointCounts

SUPPRESSED = -1
"""Stands for a count that stays."""


def threshold_of(rate: float, y: np.ndarray, score: np.ndarray) -> float:
    """Return the least of the scores, or just above all, that flags at most a share of the rows without the outcome.

    `y` and `score` [rows] are the classes and predicted probabilities of training rows.

    Examples
    --------
    >>> threshold_of(0.5, np.array([0, 0, 1, 0, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    0.3
    """
    falling = np.unique(score)[::-1]
    others = np.sort(score[y != 1])
    alarms = len(others) - np.searchsorted(others, falling)
    fits = falling[alarms <= rate * len(others) + 1e-9]
    if len(fits):
        return float(fits[-1])
    return float(np.nextafter(falling[0], np.inf)) if len(falling) else 1.0


def count_flagged(rate: float, y: np.ndarray, score: np.ndarray, threshold: float) -> PointCounts:
    """Return the confusion table at a threshold; a score that is not a number is never flagged."""
    event = y == 1
    flagged = np.where(np.isnan(score), -np.inf, score) >= threshold
    tp = int((flagged & event).sum())
    fp = int((flagged & ~event).sum())
    tn = int((~event).sum()) - fp
    return PointCounts(rate=rate, tp=tp, fp=fp, fn=int(event.sum()) - tp, tn=tn, method="")


def withhold_all(rates: Sequence[float], why: str) -> list[PointCounts]:
    """Return the points without their counts, and why."""
    cells = dict.fromkeys(("tp", "fp", "fn", "tn"), SUPPRESSED)
    return [PointCounts(rate=rate, method=f"withheld: {why}", **cells) for rate in rates]
