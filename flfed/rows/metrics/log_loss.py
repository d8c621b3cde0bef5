"""Log loss, the mean surprise of predicted probabilities."""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target


class LogLoss(SumMetric):
    """Mean of `-log p(class that happened)`, in nats.

    Probabilities are clipped to `[eps, 1 - eps]`, eps of the score's own dtype, as scikit-learn
    does. The classes are the columns of the score, whether or not they occur in `y`.

    Source: Good 1952, "Rational decisions"; `sklearn.metrics.log_loss`.
    """

    tasks = ("binary", "multi-class")
    better = "lower"
    label = "log loss (surprise at the outcome)"

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the loss of each row [n, 1].

        The weighted sums make the metric.
        """
        eps = np.finfo(score.dtype).eps
        probability = np.clip(score, eps, 1 - eps)
        columns = np.stack([1 - probability, probability], axis=1) if score.ndim == 1 else probability
        happened = columns[np.arange(len(y)), y.astype(np.intp)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (-np.log(happened.astype(np.float64)))[:, None]
