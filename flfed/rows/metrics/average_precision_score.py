"""Average precision, the step-wise area under the precision-recall curve."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import Drawn, add_up, undefined


class AveragePrecisionScore:
    """Mean over the positives of the precision at their score, `sum_t (R_t - R_t-1) P_t`.

    Rows of equal score enter together. A useless score has the share of positives, not .5.

    Source: `sklearn.metrics.average_precision_score`; Boyd, Eng and Page 2013, "Area under the
    precision-recall curve: point estimates and confidence intervals".
    """

    tasks: tuple[str, ...] = ("binary",)
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    label: str = "average precision (area under the precision-recall curve)"
    interval: str = "logit"

    def defined(self, y: NDArray[np.number]) -> str:
        """Return "" or why there is no average precision on rows with targets `y` [n].

        Without negatives it is always 1 and without positives 0/0, so both classes must occur.
        """
        if len(y) == 0:
            return "no rows"
        return "" if len(np.unique(y)) > 1 else "only one class in the holdout"

    def weighted(
        self, y: NDArray[np.number], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the average precision under each row of weights.

        Parameters
        ----------
        y : int codes 0 or 1 [n]
        score : probability of class 1 [n]
        weights : [draws, n], >= 0

        Returns
        -------
        precision : [draws]
            NaN where the positives have no weight.
        """
        return self.ranked(y, score)(weights)

    def ranked(self, y: NDArray[np.number], score: NDArray[np.floating]) -> Drawn:
        """Return the function from weights to the metric; the rows are put in order here, once."""
        if self.defined(y) or not np.isfinite(score).all():
            return undefined
        order = np.argsort(-score, kind="stable")
        falling = -score[order]
        ones = np.flatnonzero(y[order] == 1)
        # each positive is scored at the last row of its own score, as ties enter together
        last = np.searchsorted(falling, falling[ones], side="right") - 1
        last_one = np.searchsorted(ones, last, side="right") - 1
        alone = len(np.unique(last)) == len(last)

        def drawn(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            mass = weights.T.take(order, axis=0)
            gain = mass.take(ones, axis=0)
            hits, called = add_up(gain.copy()), add_up(mass)[last]
            # Where nothing is called nothing is reached: the smallest number keeps 0 / 0 away.
            np.maximum(called, np.finfo(np.float64).tiny, out=called)
            precision = np.divide(hits if alone else hits[last_one], called, out=called)
            precision *= gain
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(precision.sum(axis=0) / hits[-1], dtype=np.float64)

        return drawn

    def value(self, y: NDArray[np.number], score: NDArray[np.floating]) -> float:
        """Return the average precision of `score` [n] on `y` [n]; NaN if undefined."""
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])
