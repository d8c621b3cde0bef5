"""Mean absolute error, in the unit of the target."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import by_sums, mean


class MeanAbsoluteError:
    """Mean of `|prediction - y|`, in the unit of the target.

    Source: `sklearn.metrics.mean_absolute_error`.
    """

    tasks: tuple[str, ...] = ("regression",)
    better: Literal["higher", "lower"] = "lower"
    unit: str = "target"
    label: str = "mean absolute error"

    def defined(self, y: NDArray[np.number]) -> str:
        """Return "" or why there is no mean absolute error on rows with targets `y` [n]."""
        return "" if len(y) else "no rows"

    def columns(self, y: NDArray[np.number], score: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the absolute error of each row [n, 1]: its weighted sums make the metric."""
        return np.asarray(np.abs(score.astype(np.float64) - y))[:, None]

    def of_sums(self, sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [draws] of weighted sums of `columns` [draws, sums] and sums of weights [draws]."""
        return mean(sums, total)

    def weighted(
        self, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the mean absolute error under each row of weights.

        Parameters
        ----------
        y : float [n]
        score : predictions [n], in the unit of `y`
        weights : [draws, n], >= 0

        Returns
        -------
        error : [draws], NaN where no row has weight
        """
        return by_sums(self, y, score, weights)

    def value(self, y: NDArray[np.number], score: NDArray[np.floating]) -> float:
        """Return the mean absolute error of `score` [n] on `y` [n]; NaN without rows."""
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])
