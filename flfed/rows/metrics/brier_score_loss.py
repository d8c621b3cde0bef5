"""Brier score, the mean squared error of a probability."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import by_sums, mean


class BrierScoreLoss:
    """Mean of `(p - y)^2`, p the probability of class 1: 0 is perfect, always saying .5 gives .25.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability";
    `sklearn.metrics.brier_score_loss`.
    """

    tasks: tuple[str, ...] = ("binary",)
    better: Literal["higher", "lower"] = "lower"
    unit: str = ""
    label: str = "Brier score (squared error of the probability)"

    def defined(self, y: NDArray[np.number]) -> str:
        """Return "" or why there is no Brier score on rows with targets `y` [n]."""
        return "" if len(y) else "no rows"

    def columns(self, y: NDArray[np.number], score: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the squared error of each row [n, 1]: its weighted sums make the metric."""
        return np.asarray((score.astype(np.float64) - y) ** 2)[:, None]

    def of_sums(self, sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [draws] of weighted sums of `columns` [draws, sums] and sums of weights [draws]."""
        return mean(sums, total)

    def weighted(
        self, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the Brier score under each row of weights.

        Parameters
        ----------
        y : int codes 0 or 1 [n]
        score : probability of class 1 [n]
        weights : [draws, n], >= 0

        Returns
        -------
        loss : [draws], NaN where no row has weight
        """
        return by_sums(self, y, score, weights)

    def value(self, y: NDArray[np.number], score: NDArray[np.floating]) -> float:
        """Return the Brier score of `score` [n] on `y` [n]; NaN without rows."""
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])
