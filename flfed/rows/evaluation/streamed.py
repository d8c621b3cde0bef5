"""Figures of rows that are scored block by block, for the intervals of rows in memory.

A metric of sums has the rows of `PARTS` random parts added up, and intervals draw parts. The area under the ROC curve
comes from counts by bin, and has beside it the largest distance from that of the rows. The paired interval of two areas
takes a second pass over placement values: the histograms of two models do not say how their scores go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from flfed.rows.evaluation.bootstrap import PARTS, Size, sum_by_part
from flfed.rows.evaluation.intervals import Areas, Difference, Estimate, Z
from flfed.rows.evaluation.weighted_metrics import Floats, Score, SumMetric, Target
from flfed.summaries.score_bins import BINS, ScoreBins, auc_bound, auc_of_histogram
from flfed.words import render

FINE = 16
"""Bins of an area for each bin of a histogram: 4,096 in all."""


class ScoreSums:
    """Sums of several models' scores over the same rows.

    Parameters
    ----------
    metrics : mapping of name to metric
    arms : sequence of str
    bins : ScoreBins
        Those of a histogram; an area's are `FINE` times as many.
    centre : float
        Near the mean of a regression's target.
    rng : Generator
        Draws the part of each row.
    """

    def __init__(
        self, metrics: Mapping[str, Any], arms: Sequence[str], bins: ScoreBins, centre: float, rng: np.random.Generator
    ) -> None:
        self.arms = tuple(arms)
        self._metrics = metrics
        self._bins = replace(bins, bins=FINE * BINS)
        self._centre = centre
        self._rng = rng
        self._sums: dict[tuple[str, str], Floats] = {}
        self.counts = np.zeros((len(arms), 2, FINE * BINS))
        self.pairs = np.zeros((2, len(arms), len(arms)))

    def add(self, y: np.ndarray, scores: Mapping[str, Score], places: np.ndarray) -> None:
        """Add a block of rows: targets, predictions, and `bin_places`, of a regression none."""
        part = self._rng.integers(PARTS, size=len(y))
        for name, metric in self._metrics.items():
            if isinstance(metric, SumMetric):
                for arm in self.arms:
                    columns = metric.columns_about(y, scores[arm], self._centre)
                    sums = sum_by_part(part, np.column_stack([np.ones(len(y)), columns]))
                    self._sums[name, arm] = sums + self._sums.get((name, arm), 0.0)
        for counts, own in zip(self.counts, places):
            counts += np.bincount(own + FINE * BINS * (y == 1), minlength=counts.size).reshape(counts.shape)

    def bin_places(self, odds: Sequence[np.ndarray]) -> np.ndarray:
        """Return the bin of each row for each model, int [models, rows], of log-odds [rows, 1]."""
        return np.array([self._bins.places(own[:, 0]) for own in odds])

    def placements(self) -> Floats:
        """Return the share of the other class that a row beats, [models, classes, bins]; rows of its bin count half."""
        below = np.cumsum(self.counts, axis=2) - self.counts / 2
        totals = np.maximum(self.counts.sum(axis=2, keepdims=True), 1)
        shares: Floats = below[:, ::-1] / totals[:, ::-1]
        shares[:, 0] = 1 - shares[:, 0]
        return shares

    def add_pairs(self, y: np.ndarray, places: np.ndarray, placements: Floats) -> None:
        """Add the placement values of a block, once all rows are counted."""
        for outcome in (0, 1):
            own = np.take_along_axis(placements[:, outcome], places[:, y == outcome], axis=1)
            self.pairs[outcome] += own @ own.T

    def histogram(self, arm: str) -> Floats:
        """Return the counts by class in the bins of a histogram, [2, bins]."""
        counts: Floats = self.counts[self.arms.index(arm)].reshape(2, BINS, FINE).sum(axis=2)
        return counts

    def metrics(self, binary: bool) -> dict[str, Any]:
        """Return the metrics of these sums: a model's score is its number, a row is a part."""
        classes = np.flatnonzero(self.counts[0].sum(axis=1)) if binary else np.arange(2.0)
        made: dict[str, Any] = {}
        for name, metric in self._metrics.items():
            if name == "roc_auc_score":
                made[name] = BinnedArea(self, metric.defined(classes))
                continue
            kind = PartSizes if isinstance(metric, Size) else PartSums
            columns = [self._sums[name, arm] for arm in self.arms if (name, arm) in self._sums]
            why = metric.defined(classes) if columns else render("figures.methods.streamed")
            made[name] = kind(metric, columns, why)
        return made


class PartSums(SumMetric):
    """A metric of sums over the rows of each part.

    Parameters
    ----------
    metric : SumMetric
    columns : sequence of array [parts, 1 + sums]
        Of each model: rows, and the sums of the metric's terms.
    why : str
        Why there is no figure, or "".
    """

    def __init__(self, metric: SumMetric, columns: Sequence[Floats], why: str) -> None:
        self.metric = metric
        self.why = why
        self._columns = columns

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure."""
        return self.why

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the sums of each part."""
        return self._columns[int(score[0])]

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the metric [draws] of weighted sums."""
        return self.metric.of_sums(sums[:, 1:], sums[:, 0])


class PartSizes(SumMetric):
    """The same of a metric that is the size of a figure."""

    def __init__(self, metric: SumMetric, columns: Sequence[Floats], why: str) -> None:
        self._figure = PartSums(metric, columns, why)

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure."""
        return self._figure.defined(y)

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the sums of each part."""
        return self._figure.columns(y, score)

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the figure [draws] of weighted sums."""
        return self._figure.of_sums(sums, total)

    def signed(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the figure with its sign [draws]."""
        return self._figure.weighted(y, score, weights)

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the metric [draws]."""
        return np.abs(self.signed(y, score, weights))


class BinnedArea(Areas):
    """Areas under the ROC curve of several models, from counts by bin.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated ROC curves".
    """

    def __init__(self, sums: ScoreSums, why: str) -> None:
        self.why = why
        self.at = {arm: place for place, arm in enumerate(sums.arms)}
        self.value = {arm: auc_of_histogram(sums.counts[place]) for arm, place in self.at.items()}
        self.bound = {arm: auc_bound(*sums.counts[place]) for arm, place in self.at.items()}
        self.scores = sums.counts.reshape(len(self.at), -1)
        totals = sums.counts[0].sum(axis=1)
        self.counts = (int(totals[1]), int(totals[0]))
        areas = np.array(list(self.value.values()))
        self.covariance = np.zeros((len(areas), len(areas)))
        # Both classes' placement values have the area as their mean.
        for total, products in zip(totals, sums.pairs, strict=True):
            self.covariance += (products - total * np.outer(areas, areas)) / max(total * (total - 1), 1)

    def defined(self, y: Target) -> str:
        """Return "" or why there is no figure."""
        return self.why

    def rank_alike(self, i: int, j: int) -> bool:
        """Return whether two models have the same counts, and so order all rows alike."""
        return np.array_equal(self.scores[i], self.scores[j])

    def estimate(self, arm: str) -> Estimate:
        """Return the area, its interval as much wider as the area of the rows may be away."""
        plain = super().estimate(arm)
        bound = self.bound[arm]
        return replace(plain, low=max(plain.low - bound, 0.0), high=min(plain.high + bound, 1.0), method=_method(bound))

    def difference(self, a: str, b: str) -> Difference:
        """Return the difference of two areas with its interval, likewise."""
        plain = super().difference(a, b)
        if plain.low == plain.high:
            return plain
        bound = self.bound[a] + self.bound[b]
        error = (plain.high - plain.low) / (2 * Z)
        p = float(2 * ndtr(-max(abs(plain.value) - bound, 0.0) / error))
        return Difference(plain.value, plain.low - bound, plain.high + bound, p, _method(bound))


def _method(bound: float) -> str:
    """Return how an area was computed, with its largest distance from that of the rows, rounded up."""
    return render("figures.methods.binned", n=f"{np.ceil(bound * 1e6) / 1e6:.6f}")
