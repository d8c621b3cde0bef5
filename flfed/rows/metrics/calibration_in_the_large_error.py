"""Calibration in the large.

It is how many times too many, or too few, events a model expects.
"""

from __future__ import annotations

import numpy as np

from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target, lacks_events


class CalibrationInTheLargeError(SumMetric):
    """Size of the log of expected over observed.

    It is `|ln(expected / observed)|`, expected the sum of the probabilities, observed that of the events.

    0 is right on average; 0.69 is twice too many events, or half of them; 3.0 is twenty times too many.

    Source: the ratio O/E of Van Calster, McLernon, van Smeden, Wynants and Steyerberg 2019,
    "Calibration: the Achilles heel of predictive analytics" (mean calibration), as the size of its
    logarithm, so that less is better on either side.
    """

    tasks = ("binary",)
    better = "lower"
    label = "calibration in the large (size of the log of expected over observed events)"

    defined = staticmethod(lacks_events)

    def columns(self, y: Target, score: Score) -> Floats:
        """Return each row's expectation and observation [n, 2].

        Their sums make the figure.
        """
        return np.stack([score.astype(float), (y == 1).astype(float)], axis=1)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the figure with its sign [draws].

        It is of weighted sums of `columns` [draws, 2].
        """
        expected, observed = sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.divide(expected, observed, out=np.full(len(sums), np.nan), where=observed > 0)
            return np.asarray(np.log(ratio), dtype=float)

    def signed(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the logarithm with its sign [draws].

        It is above 0 where too many events are expected.

        Parameters
        ----------
        y : int codes 0 or 1 [n]
        score : probability of class 1 [n]
        weights : [draws, n], >= 0

        Returns
        -------
        log_ratio : [draws]
            NaN where the positives have no weight; infinite where every probability is 0.
        """
        return self.of_sums(weights @ self.columns(y, score), weights.sum(axis=1))

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the error [draws], the size of `signed`."""
        return np.abs(self.signed(y, score, weights))
