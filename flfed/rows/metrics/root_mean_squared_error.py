"""Root mean squared error, in the unit of the target."""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target, mean


class RootMeanSquaredError(SumMetric):
    """Root of the mean squared error.

    It is the square root of the mean of `(prediction - y)^2`, in the unit of the target.

    Source: `sklearn.metrics.root_mean_squared_error`.
    """

    tasks = ("regression",)
    better = "lower"
    unit = "target"
    label = "root mean squared error (large errors weigh more)"

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the squared error of each row [n, 1].

        The weighted sums make the metric.
        """
        return np.asarray((score.astype(np.float64) - y) ** 2)[:, None]

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the metric [draws] of weighted sums.

        They are sums of `columns` [draws, sums] and of weights [draws].
        """
        return np.sqrt(mean(sums, total))
