"""Intervals of differences over blocks that follow one another in time.

Days or weeks that are alike count as fewer: a difference is as sure as so many independent blocks make it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from flfed.rows.evaluation.bootstrap import Pair
from flfed.rows.evaluation.intervals import NAN, Difference
from flfed.rows.evaluation.weighted_metrics import Floats, Score, Target

LEAST_BLOCKS = 8
"""Effective blocks below which there is no interval."""
LEVEL = 0.95
TOO_FEW_BLOCKS = "too few independent blocks of time"
"""Why a difference has no interval."""


def effective_blocks(gains: Floats) -> float:
    """Return to how many independent blocks the mean of `gains` is equal in what it tells.

    Parameters
    ----------
    gains : float array [blocks]
        Of each block, in the order of time.

    Notes
    -----
    `n (1 - r) / (1 + r)`, r the correlation of neighbours, to which `(1 + 3 r) / n` is added for the bias that it has
    of n blocks; r is at least 0, so that there are at most n. Where all gains are the same there are n.

    Source: Bayley and Hammersley 1946, "The effective number of independent observations in an autocorrelated time
    series" (first-order series); Marriott and Pope 1954, "Bias in the estimation of autocorrelations".

    Examples
    --------
    >>> effective_blocks(np.array([1.0, -1.0, 1.0, -1.0]))
    4.0
    >>> effective_blocks(np.arange(20.0)) < 2
    True
    """
    count = len(gains)
    apart = gains - gains.mean()
    size = float(apart @ apart)
    if not size:
        return float(count)
    r = float(apart[1:] @ apart[:-1]) / size
    r = min(max(r + (1 + 3 * r) / count, 0.0), 1.0)
    return count * (1 - r) / (1 + r)


def widen_differences(
    differences: Mapping[str, Mapping[Pair, Difference]], losses: Mapping[str, Floats], blocks: np.ndarray
) -> dict[str, dict[Pair, Difference]]:
    """Return differences with intervals of as many blocks as are independent.

    Parameters
    ----------
    differences : mapping of metric to mapping of pair to Difference
        With the intervals of independent blocks.
    losses : mapping of arm to float array [rows]
        Each row's loss.
    blocks : int array [rows]
        Each row's block, in the order of time.
    """
    rows = np.bincount(blocks)
    there = rows > 0
    mean = {arm: np.bincount(blocks, loss)[there] / rows[there] for arm, loss in losses.items()}
    count = int(there.sum())
    widened = {}
    for metric, of_pairs in differences.items():
        widened[metric] = {
            pair: _widened(found, count, effective_blocks(mean[pair[1]] - mean[pair[0]]))
            for pair, found in of_pairs.items()
        }
    return widened


def _widened(found: Difference, blocks: int, effective: float) -> Difference:
    """Return a difference whose interval is of `effective` blocks, where it was of `blocks`."""
    # Scores that are the same at every row differ by nothing, however many blocks there are.
    if not math.isfinite(found.low) or found.low == found.high:
        return found
    if effective < LEAST_BLOCKS:
        return Difference(found.value, NAN, NAN, NAN, TOO_FEW_BLOCKS)
    quantile = float(stdtrit(effective - 1, (1 + LEVEL) / 2))
    # A bootstrap's interval is Student's already, that of a closed form is normal.
    before = stdtrit(blocks - 1, (1 + LEVEL) / 2) if found.method.startswith("bootstrap") else ndtri((1 + LEVEL) / 2)
    factor = math.sqrt(blocks / effective) * quantile / float(before)
    low, high = (found.value + factor * (bound - found.value) for bound in (found.low, found.high))
    p = float(2 * stdtr(effective - 1, -abs(found.value) * 2 * quantile / (high - low)))
    return Difference(found.value, low, high, p, f"{int(effective)} independent blocks of time")


def row_losses(task: str, y: Target, score: Score) -> Floats:
    """Return each row's loss, [rows]: squared error of a regression, else the log loss.

    Parameters
    ----------
    task : {"binary", "multi-class", "regression"}
    y : array [rows]
    score : array [rows] or [rows, classes]
        Predictions, or probabilities.
    """
    if task == "regression":
        return np.asarray(np.square(score - y))
    likely = np.where(y == 1, score, 1 - score) if score.ndim == 1 else score[np.arange(len(y)), y]
    # No row may cost more than this likelihood allows: one alone would be all that the blocks differ by.
    return np.asarray(-np.log(np.maximum(likely, 1e-12)))
