"""Average precision of a ranking.

It is the step-wise area under the precision-recall curve.
"""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Drawn, Floats, RankMetric, Score, Target, add_up


class AveragePrecisionScore(RankMetric):
    """Mean over the positives of the precision there.

    It is taken at their score, `sum_t (R_t - R_t-1) P_t`.

    Rows of equal score enter together. A useless score has the share of positives, not 0.5.

    Source: `sklearn.metrics.average_precision_score`; Boyd, Eng and Page 2013, "Area under the
    precision-recall curve: point estimates and confidence intervals".
    """

    tasks = ("binary",)
    label = "average precision (area under the precision-recall curve)"
    interval = "logit"

    def drawn(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights to the metric."""
        order = np.argsort(-score, kind="stable")
        falling = -score[order]
        ones = np.flatnonzero(y[order] == 1)
        # each positive is scored at the last row of its own score, as ties enter together
        last = np.searchsorted(falling, falling[ones], side="right") - 1
        last_one = np.searchsorted(ones, last, side="right") - 1
        # Without ties each positive is its own last row, and a look-up is saved.
        alone = len(np.unique(last)) == len(last)

        def drawn(weights: Floats) -> Floats:
            mass = weights.T.take(order, axis=0)
            gain = mass.take(ones, axis=0)
            hits = add_up(gain.copy())
            called = add_up(mass)[last]
            # Where nothing is called nothing is reached: the smallest number keeps 0 / 0 away.
            np.maximum(called, np.finfo(np.float64).tiny, out=called)
            reached = hits if alone else hits[last_one]
            precision = np.divide(reached, called, out=called)
            precision *= gain
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(precision.sum(axis=0) / hits[-1], dtype=float)

        return drawn
