"""Area under the ROC curve.

It is binary, or multi-class (macro, one versus rest).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import Drawn, Floats, RankMetric, Score, Target, add_up


class RocAucScore(RankMetric):
    """Probability that a positive outranks a negative.

    It is P(score of a positive > score of a negative) + P(equal) / 2, and macro one-vs-rest for classes.

    The multi-class value is the plain mean, over the classes that occur in `y`, of the AUC of that
    class against the rest. A class without rows has no AUC and is left out (scikit-learn raises
    or gives NaN there); with every class present this is scikit-learn's value.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve";
    `sklearn.metrics.roc_auc_score(average="macro", multi_class="ovr")`.
    """

    tasks: tuple[str, ...] = ("binary", "multi-class")
    label = "AUC (area under the ROC curve)"
    interval = "delong"

    def drawn(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights to the metric."""
        if score.ndim == 1:
            return _one_against_rest(y == 1, score)
        each = [_one_against_rest(y == code, score[:, code]) for code in np.unique(y)]
        return lambda weights: np.mean([drawn(weights) for drawn in each], axis=0)


def _one_against_rest(positive: NDArray[np.bool_], score: Score) -> Drawn:
    """Return the weighted AUC of one class [draws].

    The function is from weights to the sum over positives of the negative weight below them, normed.

    Where a negative is equal to a positive half its weight counts.
    """
    ones = np.flatnonzero(positive)
    zeros = np.flatnonzero(~positive)
    zeros = zeros[np.argsort(score[zeros], kind="stable")]
    left = np.searchsorted(score[zeros], score[ones], side="left")
    right = np.searchsorted(score[zeros], score[ones], side="right")
    # Without ties one look-up for each positive is enough.
    apart = np.array_equal(left, right)

    def drawn(weights: Floats) -> Floats:
        columns = weights.T
        won = columns.take(ones, axis=0)
        below = np.zeros((len(zeros) + 1, len(weights)))
        below[1:] = add_up(columns.take(zeros, axis=0))
        pairs = won.sum(axis=0) * below[-1]
        beaten = below[left] if apart else (below[left] + below[right]) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((won * beaten).sum(axis=0) / pairs, dtype=float)

    return drawn
