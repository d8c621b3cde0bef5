"""What metrics that follow from weighted sums over rows share, such as mean losses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flfed.rows.bootstrap import OfSums


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
