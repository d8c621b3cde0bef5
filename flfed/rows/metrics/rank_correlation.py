"""Spearman's rank correlation within steps of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import Drawn, Floats, RankMetric, Score, Target
from flfed.words import render

ROUNDING = 1e-12


class RankCorrelation(RankMetric):
    """Mean over steps of Spearman's rank correlation of predictions and outcomes within a step.

    A step, such as a month, counts by its rows; one whose predictions or outcomes are all alike has none and is left
    out. A common move of all rows of a step has no part in it. It measures how well rows of one step are put in order,
    as an information coefficient of stocks does.

    All rows are one step until `within` says which step each is of.

    Source: `scipy.stats.spearmanr`, of equal values the mean rank; R. C. Grinold and R. N. Kahn, "Active Portfolio
    Management", 2nd edition, chapter 6.
    """

    tasks = ("regression",)
    label = "rank correlation within a step of time"

    _steps: NDArray[np.intp] | None = None

    def within(self, steps: NDArray[np.intp]) -> RankCorrelation:
        """Return the metric of rows of these steps, the code of each [n].

        Below 0 it is of none and left out.
        """
        metric = RankCorrelation()
        metric._steps = steps
        return metric

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure.

        The rows have targets `y` [n].
        """
        if len(y) == 0:
            return "no rows"
        if any(len(np.unique(y[rows])) > 1 for rows in self._rows(len(y))):
            return ""
        return render("figures.methods.outcome")

    def drawn(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights, which stand for so many equal rows, to the metric."""

        def drawn(weights: Floats) -> Floats:
            total = np.zeros(len(weights))
            denominator = np.zeros(len(weights))
            for rows in self._rows(len(y)):
                own = weights[:, rows]
                correlation = _correlation(_ranks(y[rows], own), _ranks(score[rows], own), own)
                has = np.isfinite(correlation)
                total += np.where(has, correlation, 0.0) * own.sum(axis=1)
                denominator += has * own.sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                return total / denominator

        return drawn

    def _rows(self, count: int) -> list[NDArray[np.intp]]:
        """Return the places of each step's rows."""
        if self._steps is None:
            return [np.arange(count)]
        order = np.argsort(self._steps, kind="stable")
        order = order[self._steps[order] >= 0]
        return list(np.split(order, np.flatnonzero(np.diff(self._steps[order])) + 1))


def _ranks(values: Target | Score, weights: Floats) -> Floats:
    """Return mean ranks [draws, n] of rows that stand for `weights` [draws, n] equal ones each, up to a constant."""
    _, places = np.unique(values, return_inverse=True)
    tied = np.zeros((len(weights), places.max() + 1))
    for row, place in enumerate(places):
        tied[:, place] += weights[:, row]
    middle: Floats = np.cumsum(tied, axis=1) - tied / 2
    return middle[:, places]


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Return Pearson's weighted correlation [draws].

    NaN where one of both does not vary.
    """
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = a - (weights * a).sum(axis=1, keepdims=True) / total
        b = b - (weights * b).sum(axis=1, keepdims=True) / total
        both = (weights * a * b).sum(axis=1)
        spreads = [(weights * one * one).sum(axis=1) for one in (a, b)]
        # Ranks that are all the same differ from their mean by rounding.
        vary = np.minimum(*spreads) > ROUNDING * total[:, 0] ** 3
        return np.where(vary, both / np.sqrt(spreads[0] * spreads[1]), np.nan)
