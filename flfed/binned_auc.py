"""How far an AUC made of counts by class and bin of predictions may be from that of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NORMAL_95 = 1.959963984540054
"""Of a standard normal variable 95 % lie within so much of 0."""
NEWTON_STEPS = 25


def edges_of(bins: int, limit: float) -> np.ndarray:
    """Return the log-odds at which bins end that are even in their inverse hyperbolic sine; array [bins + 1].

    The outer two have all that is beyond, too: they end at infinity.
    """
    edges = np.sinh((2 * np.arange(bins + 1) / bins - 1) * np.arcsinh(limit))
    edges[[0, -1]] = -np.inf, np.inf
    return np.asarray(edges)


def auc_bound(negative: np.ndarray, positive: np.ndarray, edges: np.ndarray) -> float:
    """Return a 95 % bound of how far the AUC of the rows lies from that of their counts, ties in a bin counting half.

    Parameters
    ----------
    negative, positive : array [bins]
        Rows without and with the outcome.
    edges : array [bins + 1]
        From `edges_of`.

    Returns
    -------
    float
        The smaller of two; NaN where a class has no rows. Half the pairs of one bin: nothing can be further off
        (`auc_hidden`). Or what is left open where within a bin the odds of the outcome go with the predictions as
        they do over all bins: of two rows in one bin, the one with the outcome then has the higher prediction in
        at most 1/2 + tanh(slope width / 4) / 2 of the cases, and the draw of Mann and Whitney adds to it. It holds
        in 97 to 100 of 100 cases of 16 shapes (simulated: rare events, close, miscalibrated, rounded predictions).

    Examples
    --------
    >>> auc_bound(np.array([2.0, 2.0]), np.array([0.0, 3.0]), np.array([-np.inf, 0.0, np.inf]))
    0.25
    """
    tied, pairs = negative * positive, negative.sum() * positive.sum()
    if not pairs:
        return float("nan")
    widths = np.diff(edges)
    lean = np.tanh(_slope(negative, positive, edges) * widths / 4) / 2
    chance = np.sqrt((tied * (negative + positive + 1)).sum() / 12)
    return float(min(tied.sum() / 2, tied @ lean + NORMAL_95 * chance) / pairs)


def auc_hidden(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return how far the AUC of the rows may lie from that of their counts at most: half the pairs of one bin.

    Examples
    --------
    >>> auc_hidden(np.array([2.0, 2.0]), np.array([0.0, 3.0]))  # 6 of 12 pairs are in one bin
    0.25
    """
    pairs = negative.sum() * positive.sum()
    return float(negative @ positive / 2 / pairs) if pairs else float("nan")


def _slope(negative: np.ndarray, positive: np.ndarray, edges: np.ndarray) -> float:
    """Return how fast the log-odds of the outcome go with the predicted ones, at most: logistic regression on bins.

    Two standard errors are added to its size. Infinity where the bins do not tell.
    """
    there = (negative + positive > 0) & np.isfinite(np.diff(edges))
    x, y = ((edges[:-1] + edges[1:]) / 2)[there], positive[there]
    rows = negative[there] + y
    if np.count_nonzero(there) < 3 or not 0 < y.sum() < rows.sum():
        return np.inf
    design = np.stack([np.ones(len(x)), x - rows @ x / rows.sum()], axis=1)
    odds = np.array([np.log(y.sum() / (rows.sum() - y.sum())), 0.0])
    for _ in range(NEWTON_STEPS):
        share = 1 / (1 + np.exp(-np.clip(design @ odds, -30, 30)))
        information = (design * (rows * share * (1 - share))[:, None]).T @ design
        if not np.linalg.det(information) > 0:
            return np.inf
        step = np.linalg.solve(information, design.T @ (y - rows * share))
        odds = odds + step
        if np.abs(step).max() < 1e-9:
            return float(abs(odds[1]) + 2 * np.sqrt(np.linalg.inv(information)[1, 1]))
    return np.inf


def bounds_in(payload: Mapping[str, Any]) -> tuple[float, float]:
    """Return how far an AUC of a record's "score-histograms" may be from that of the rows: with 95 %, and at most."""
    both = np.zeros((2, payload["bins"]))
    for label in ("0", "1"):
        for place, rows in payload["all"][label]:
            both[int(label), int(place)] = rows
    return auc_bound(both[0], both[1], edges_of(payload["bins"], payload["limit"])), auc_hidden(both[0], both[1])
