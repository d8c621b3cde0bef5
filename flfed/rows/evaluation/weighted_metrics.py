"""Base classes of sum metrics and rank metrics.

Weighted sums make the one, and one ranking of the rows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flfed.words import render

Floats: TypeAlias = NDArray[np.float64]
Target: TypeAlias = NDArray[np.number]
Score: TypeAlias = NDArray[np.floating]


def mean(sums: Floats, total: Floats) -> Floats:
    """Return the weighted mean [draws] of one sum.

    The sum is [draws, 1]. NaN where the weights sum to 0.

    Parameters
    ----------
    sums : [draws, 1]
    total : sum of weights [draws]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / total


Drawn: TypeAlias = Callable[[Floats], Floats]
"""From weights [draws, n] to a metric [draws]."""


def undefined(weights: Floats) -> Floats:
    """Return NaN for each draw of `weights`.

    Weights are [draws, n].
    """
    return np.full(len(weights), np.nan)


FEW = 1000
"""Numbers that numpy adds up without torch."""


def add_up(rows: Floats) -> Floats:
    """Return the running sums down the rows.

    They are of `rows` [k, draws], which is overwritten.

    Examples
    --------
    >>> add_up(np.array([[1.0, 5.0], [2.0, 0.0]]))
    array([[1., 5.],
           [3., 5.]])
    """
    if rows.size < FEW:  # not worth the import
        return np.cumsum(rows, axis=0)
    import torch  # four times as fast as numpy, which adds down the rows entry by entry

    torch.from_numpy(rows).cumsum_(0)
    return rows


def lacks_events(y: Target) -> str:
    """Return "" or why a metric of the events has no figure on rows with targets `y` [n]."""
    if (y == 1).any():
        return ""
    return render("figures.methods.positive") if len(y) else "no rows"


class RowMetric(Protocol):
    """Interface of metrics of weighted rows.

    Targets are int codes [n], or floats of a regression. Scores are the probability of class 1 [n], of every class
    [n, k], or a regression's predictions [n].
    """

    tasks: tuple[str, ...]
    better: Literal["higher", "lower"]
    unit: str
    label: str

    def defined(self, y: Target) -> str:
        """Return "" or why the metric is undefined on `y` [n]."""

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the metric [draws] under weights [draws, n], which are >= 0.

        NaN where it is not defined.
        """

    def value(self, y: Target, score: Score) -> float:
        """Return the metric on `y` [n], NaN if undefined."""


def value_of(metric: Any, y: Target, score: Score) -> float:
    """Return a metric on `y` [n], NaN if undefined."""
    return float(metric.weighted(y, score, np.ones((1, len(y))))[0])


class SumMetric(ABC):
    """Base of metrics that follow from weighted sums.

    The sums are over rows, as in a mean loss.
    """

    tasks: tuple[str, ...]
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    label: str

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure.

        The rows have targets `y` [n].
        """
        return "" if len(y) else "no rows"

    @abstractmethod
    def columns(self, y: Target, score: Score) -> Floats:
        """Return the terms of each row [n, sums]."""

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the metric [draws] of weighted sums.

        They are sums of `columns` [draws, sums] and of weights [draws].
        """
        return mean(sums, total)

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the metric [draws] under weights [draws, n].

        Weights are >= 0. NaN where it is not defined.
        """
        if self.defined(y):
            return undefined(weights)
        with np.errstate(invalid="ignore"):  # of infinite scores
            return self.of_sums(weights @ self.columns(y, score), weights.sum(axis=1))

    value = value_of


class RankMetric(ABC):
    """Base of metrics of a ranking.

    The rows are put in order once, and weights added up in that order.
    """

    tasks: tuple[str, ...]
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    label: str

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure.

        The rows have targets `y` [n], and two classes must occur.
        """
        if len(y) == 0:
            return "no rows"
        if (y != y[0]).any():
            return ""
        return render("figures.methods.class")

    def ranked(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights to the metric.

        The rows are put in order here, once.
        """
        # A score that is not finite has no place in an order.
        if self.defined(y) or not np.isfinite(score).all():
            return undefined
        return self.drawn(y, score)

    @abstractmethod
    def drawn(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights to the metric.

        The scores are finite, and the metric is defined on `y`.
        """

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the metric [draws] under weights [draws, n].

        Weights are >= 0. NaN where it is not defined.
        """
        return self.ranked(y, score)(weights)

    value = value_of
