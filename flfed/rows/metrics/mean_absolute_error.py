"""Mean absolute error, in the unit of the target."""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target


class MeanAbsoluteError(SumMetric):
    """Mean of `|prediction - y|`, in the target's unit.

    Source: `sklearn.metrics.mean_absolute_error`.
    """

    tasks = ("regression",)
    better = "lower"
    unit = "target"
    label = "mean absolute error"

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the absolute error of each row [n, 1].

        The weighted sums make the metric.
        """
        return np.abs(score.astype(float) - y)[:, None]
