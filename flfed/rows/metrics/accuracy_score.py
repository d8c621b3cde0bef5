"""Accuracy, the share of rows called right."""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target


class AccuracyScore(SumMetric):
    """Share of rows whose most probable class happened.

    Binary: class 1 is called where its probability is above 0.5. At exactly 0.5, and where several
    classes share the largest probability, the lower code is called, as `argmax` does.

    Source: `sklearn.metrics.accuracy_score`.
    """

    tasks = ("binary", "multi-class")
    label = "accuracy (share of rows called right)"
    interval = "wilson"

    def correct(self, y: Target, score: Score) -> Floats:
        """Return 1 for a right call, else 0 [n].

        It is NaN where the score is NaN.
        """
        called = score > 0.5 if score.ndim == 1 else score.argmax(axis=1)
        row_scores = score if score.ndim == 1 else score.sum(axis=1)
        return np.where(np.isnan(row_scores), np.nan, called == y)

    def behind(self, y: Target, score: Score) -> tuple[float, ...]:
        """Return how many rows are called wrong, and how many are not."""
        wrong = float((self.correct(y, score) == 0).sum())
        return wrong, len(y) - wrong

    def columns(self, y: Target, score: Score) -> Floats:
        """Return whether each call is right [n, 1].

        The weighted sums make the metric.
        """
        return self.correct(y, score)[:, None]
