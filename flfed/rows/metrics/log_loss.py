"""Log loss, the mean surprise of the predicted probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import mean


class LogLoss:
    """Mean of `-log p(class that happened)`, in nats.

    Probabilities are clipped to `[eps, 1 - eps]`, eps of the score's own dtype, as scikit-learn
    does. The classes are the columns of the score, whether or not they occur in `y`.

    Source: Good 1952, "Rational decisions"; `sklearn.metrics.log_loss`.
    """

    tasks: tuple[str, ...] = ("binary", "multi-class")
    better: Literal["higher", "lower"] = "lower"
    unit: str = ""
    label: str = "log loss (surprise at the outcome)"

    def defined(self, y: NDArray[np.number]) -> str:
        """Return "" or why there is no log loss on rows with targets `y` [n]."""
        return "" if len(y) else "no rows"

    def columns(self, y: NDArray[np.number], score: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the loss of each row [n, 1]: its weighted sums make the metric."""
        eps = np.finfo(score.dtype).eps
        kept = np.clip(score, eps, 1 - eps)
        columns = np.stack([1 - kept, kept], axis=1) if score.ndim == 1 else kept
        happened = columns[np.arange(len(y)), y.astype(np.intp)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(-np.log(happened.astype(np.float64)))[:, None]

    def of_sums(self, sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [draws] of weighted sums of `columns` [draws, sums] and sums of weights [draws]."""
        return mean(sums, total)

    def weighted(
        self, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the log loss under each row of weights.

        Parameters
        ----------
        y : int codes [n]
        score : probability of class 1 [n], or of every class [n, k]
        weights : [draws, n], >= 0

        Returns
        -------
        loss : [draws], NaN where no row has weight
        """
        return self.of_sums(weights @ self.columns(y, score), weights.sum(axis=1))

    def value(self, y: NDArray[np.number], score: NDArray[np.floating]) -> float:
        """Return the log loss of `score` ([n] or [n, k]) on `y` [n]; NaN without rows."""
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])
