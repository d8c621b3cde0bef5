"""Brier score, the mean squared error of a probability."""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target


class BrierScoreLoss(SumMetric):
    """Mean squared error of a probability, `(p - y)^2`.

    p is the probability of class 1. 0 is perfect, and always saying 0.5 gives 0.25.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability";
    `sklearn.metrics.brier_score_loss`.
    """

    tasks = ("binary",)
    better = "lower"
    label = "Brier score (squared error of the probability)"

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the squared error of each row [n, 1].

        The weighted sums make the metric.
        """
        return np.asarray((score.astype(np.float64) - y) ** 2)[:, None]
