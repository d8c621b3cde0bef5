"""Root mean squared error, in the unit of the target."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import by_sums, mean


class RootMeanSquaredError:
    """Square root of the mean of `(prediction - y)^2`, in the unit of the target.

    Source: `sklearn.metrics.root_mean_squared_error`.
    """

    tasks: tuple[str, ...] = ("regression",)
    better: Literal["higher", "lower"] = "lower"
    unit: str = "target"
    label: str = "root mean squared error (large errors weigh more)"

    def defined(self, y: NDArray[np.number]) -> str:
        """Return "" or why there is no root mean squared error on rows with targets `y` [n]."""
        return "" if len(y) else "no rows"

    def columns(self, y: NDArray[np.number], score: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the squared error of each row [n, 1]: its weighted sums make the metric."""
        return np.asarray((score.astype(np.float64) - y) ** 2)[:, None]

    def of_sums(self, sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [draws] of weighted sums of `columns` [draws, sums] and sums of weights [draws]."""
        return np.sqrt(mean(sums, total))

    def weighted(
        self, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the root mean squared error under each row of weights.

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
        """Return the root mean squared error of `score` [n] on `y` [n]; NaN without rows."""
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])
