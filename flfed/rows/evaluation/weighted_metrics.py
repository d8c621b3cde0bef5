"""Bases of metrics that weighted sums, or one ranking of the rows, make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.bootstrap import OfSums


def mean(sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean [draws] of one sum [draws, 1]; NaN where the weights sum to 0.

    Parameters
    ----------
    sums : [draws, 1]
    total : sum of weights [draws]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 0] / total, dtype=np.float64)


def by_sums(
    metric: OfSums, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the metric [draws] under `weights` [draws, n], from the sums of its own columns."""
    with np.errstate(invalid="ignore"):  # of infinite scores
        return metric.of_sums(weights @ metric.columns(y, score), weights.sum(axis=1))


Drawn: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From weights [draws, n] to a metric [draws]."""


def undefined(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return NaN for each draw of `weights` [draws, n]."""
    return np.full(len(weights), np.nan)


def add_up(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each row of `rows` [k, draws], the sum of the rows down to it; `rows` is overwritten.

    Examples
    --------
    >>> add_up(np.array([[1.0, 5.0], [2.0, 0.0]]))
    array([[1., 5.],
           [3., 5.]])
    """
    if rows.shape[1] == 1:  # one value: not worth the import
        return np.asarray(np.cumsum(rows, axis=0), dtype=np.float64)
    import torch  # four times as fast as numpy, which adds down the rows entry by entry

    torch.from_numpy(rows).cumsum_(0)
    return rows
