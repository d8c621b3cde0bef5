"""R squared, the share of explained variance.

The variance is the target's, and the predictions explain it.
"""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target
from flfed.words import render


class R2Score(SumMetric):
    """Share of the target's variance that is explained.

    It is `1 - sum (y - prediction)^2 / sum (y - mean y)^2`. 0 is as good as the mean, and there is no lower bound.

    Source: `sklearn.metrics.r2_score`. Where the target has one value scikit-learn answers 0 or 1;
    here it is undefined.
    """

    tasks = ("regression",)
    label = "R squared (share of the variance explained)"

    def defined(self, y: Target) -> str:
        """Return "" or why there is no R squared.

        The rows have targets `y` [n].
        """
        if len(y) < 2:
            return render("figures.methods.two") if len(y) else "no rows"
        if np.ptp(y) > 0:
            return ""
        return render("figures.methods.target")

    def columns(self, y: Target, score: Score) -> Floats:
        """Return three terms of each row [n, 3].

        They are squared error, squared and plain distance to the mean. Their sums make the metric.
        """
        centred = np.asarray(y - float(np.mean(y)), dtype=float)  # or two of the sums cancel
        return np.stack([(score.astype(float) - y) ** 2, centred**2, centred], axis=1)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return R squared [draws] of weighted sums.

        They are sums of `columns` [draws, 3] and of weights [draws].
        """
        missed, squares, plain = sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = squares - plain**2 / total
            # 1e-12: what rounding leaves of the difference when all rows are equal
            return np.where(spread > 1e-12 * squares, 1 - missed / spread, np.nan)
