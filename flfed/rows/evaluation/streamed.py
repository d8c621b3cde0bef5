"""Figures of rows that are scored block by block: sums, counts by bin of log-odds, and placement values.

The area under the ROC curve comes from counts, and is told with the largest distance from that of the rows. The paired
interval of two areas takes a second pass: the histograms of two models do not say how their scores go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from flfed.rows.evaluation.bootstrap import Pair, Size
from flfed.rows.evaluation.intervals import NAN, Difference, Estimate, Z, hanley_mcneil, logit_limits, wilson
from flfed.rows.evaluation.scoring import auc_of_histogram
from flfed.rows.evaluation.weighted_metrics import Floats, SumMetric
from flfed.summaries.score_bins import BINS, ScoreBins, auc_bound
from flfed.words import render

FINE = 16
"""Bins of an area for each bin of a histogram that may leave: 4,096 in all."""
Scores = Mapping[str, np.ndarray]
AREA = "roc_auc_score"
EXAMPLE = 100_000
"""Rows of a class from which on no policy finds too few."""


class ScoreSums:
    """Sums of several models' scores over the same rows.

    Parameters
    ----------
    task : str
    metrics : mapping of name to metric
        Those that are no sums are left out, but for the area of two classes.
    arms : sequence of str
    bins : ScoreBins
        Those of a histogram; an area's are `FINE` times as many.
    centre : float
        Near the target's mean, for a regression.
    """

    def __init__(
        self, task: str, metrics: Mapping[str, Any], arms: Sequence[str], bins: ScoreBins, centre: float
    ) -> None:
        self.arms = tuple(arms)
        self.rows = 0
        self._task = task
        self._classes = np.zeros(2, dtype=np.int64)
        self._all = metrics
        self._metrics = {name: one for name, one in metrics.items() if isinstance(one, SumMetric)}
        self._bins = replace(bins, bins=FINE * BINS)
        self._centre = centre
        self.counts = np.zeros((len(arms), 2, FINE * BINS))
        self.paired = np.zeros((2, len(arms), len(arms)))
        self._places: dict[Pair, slice] = {}
        self._sums: Any = 0.0
        self._products: Any = 0.0

    def add(self, y: np.ndarray, odds: Scores, scores: Scores) -> None:
        """Add the rows of a block: targets, log-odds by which they are ranked (of two classes), and predictions."""
        self.rows += len(y)
        if self._task == "binary":
            self._classes += np.bincount(y, minlength=2)
        columns = []
        start = 0
        for name, metric in self._metrics.items():
            for arm in self.arms:
                columns.append(metric.columns_about(y, scores[arm], self._centre))
                self._places[name, arm] = slice(start, start + columns[-1].shape[1])
                start = self._places[name, arm].stop
        if columns:
            table = np.concatenate(columns, axis=1)
            self._sums = self._sums + table.sum(axis=0)
            self._products = self._products + table.T @ table
        if self._task == "binary":
            for number, arm in enumerate(self.arms):
                places = self._bins.places(odds[arm]) + FINE * BINS * (y == 1)
                self.counts[number] += np.bincount(places, minlength=2 * FINE * BINS).reshape(2, -1)

    def example(self) -> np.ndarray:
        """Return targets of which a policy, or a metric, says the same as of those of all rows."""
        if self._task == "binary":
            return np.repeat([0, 1], np.minimum(self._classes, EXAMPLE))
        return np.arange(min(self.rows, EXAMPLE), dtype=float)

    def add_pairs(self, y: np.ndarray, odds: Scores) -> None:
        """Add the placement values of a block, once all rows are counted."""
        values = [self.placements(number)[(y == 1).astype(int), self._bins.places(odds[arm])]
                  for number, arm in enumerate(self.arms)]  # fmt: skip
        for outcome in (0, 1):
            own = np.stack(values)[:, y == outcome]
            self.paired[outcome] += own @ own.T

    def placements(self, number: int) -> Floats:
        """Return the share of the other class that a row of a class and bin beats, [2, bins]; equal bins half."""
        counts = self.counts[number]
        below = np.cumsum(counts, axis=1) - counts / 2
        totals = np.maximum(counts.sum(axis=1), 1)
        return np.stack([1 - below[1] / totals[1], below[0] / totals[0]])

    def histogram(self, arm: str) -> Floats:
        """Return the counts by class in the bins of a histogram, [2, bins]."""
        counts: Floats = self.counts[self.arms.index(arm)].reshape(2, BINS, FINE).sum(axis=2)
        return counts

    def value(self, metric: str, arm: str) -> tuple[float, float]:
        """Return a figure and its variance; NaN where it is no sum and no area."""
        if metric == AREA:
            areas = BinnedAreas(self, paired=False)
            place = self.arms.index(arm)
            return areas.value[arm], float(areas.covariance[place, place])
        if metric not in self._metrics:
            return NAN, NAN
        value, slope = self._slope(metric, arm)
        return abs(value) if isinstance(self._metrics[metric], Size) else value, self._variance(slope)

    def smallest(self) -> float:
        """Return the smallest number of rows, of two classes, that some model calls right or wrong."""
        right = [float(self._sums[self._places["accuracy_score", arm]][0]) for arm in self.arms]
        return min(*right, *(self.rows - count for count in right))

    def _slope(self, metric: str, arm: str) -> tuple[float, Floats]:
        """Return a figure of sums, and its derivative by the mean of every column."""
        place = self._places[metric, arm]
        means = self._sums / self.rows
        deviation = np.sqrt(np.maximum(np.diag(self._products) / self.rows - means**2, 0))
        step = 1e-5 * np.maximum(deviation, 1e-9)[place]
        around = means[place] + np.concatenate([np.zeros((1, len(step))), np.diag(step), -np.diag(step)])
        values = self._metrics[metric].of_sums(around * self.rows, np.full(len(around), float(self.rows)))
        slope = np.zeros(len(means))
        slope[place] = (values[1 : 1 + len(step)] - values[1 + len(step) :]) / (2 * step)
        return float(values[0]), slope

    def _variance(self, slope: Floats) -> float:
        means = self._sums / self.rows
        spread = self._products / self.rows - np.outer(means, means)
        return float(slope @ spread @ slope) / max(self.rows - 1, 1)

    def compared(self, pairs: Sequence[Pair], undefined: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return every estimate and paired difference, as `intervals.compare` does.

        `undefined` has why a metric has no figure, or "".
        """
        estimates: dict[str, dict[str, Estimate]] = {}
        differences: dict[str, dict[Pair, Difference]] = {}
        areas = BinnedAreas(self, paired=bool(pairs)) if AREA in self._all and not undefined[AREA] else None
        for name in self._all:
            why = undefined[name]
            if not why and name != AREA and name not in self._metrics:
                why = render("figures.methods.streamed")
            if why:
                estimates[name] = {arm: Estimate(NAN, NAN, NAN, NAN, why) for arm in self.arms}
                differences[name] = {pair: Difference(NAN, NAN, NAN, NAN, why) for pair in pairs}
            elif name == AREA and areas is not None:
                estimates[name] = {arm: areas.estimate(arm) for arm in self.arms}
                differences[name] = {pair: areas.difference(*pair) for pair in pairs}
            else:
                estimates[name] = {arm: self._estimate(name, arm) for arm in self.arms}
                differences[name] = {pair: self._difference(name, *pair) for pair in pairs}
        return estimates, differences

    def _estimate(self, metric: str, arm: str) -> Estimate:
        signed, slope = self._slope(metric, arm)
        variance = self._variance(slope)
        reach = Z * np.sqrt(variance)
        low, high = signed - reach, signed + reach
        if metric == "accuracy_score":
            low, high, _ = wilson(signed, self.rows)
        if isinstance(self._metrics[metric], Size):
            # The interval of a size is that of the figure with its sign, folded at 0.
            least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
            return Estimate(abs(signed), least, max(abs(low), abs(high)), variance, render("figures.methods.normal"))
        return Estimate(signed, float(low), float(high), variance, render("figures.methods.normal"))

    def _difference(self, metric: str, a: str, b: str) -> Difference:
        (one, slope), (other, other_slope) = self._slope(metric, a), self._slope(metric, b)
        if isinstance(self._metrics[metric], Size):
            slope, other_slope = np.sign(one) * slope, np.sign(other) * other_slope
            one, other = abs(one), abs(other)
        error = np.sqrt(self._variance(slope - other_slope))
        if not error > 0:
            return Difference(0.0, 0.0, 0.0, 1.0, "identical scores")
        return _widened(one - other, float(error), 0.0, render("figures.methods.normal"))


class BinnedAreas:
    """Areas under the ROC curve of several models, from counts by bin.

    Parameters
    ----------
    sums : ScoreSums
    paired : bool
        Whether a second pass has added the placement values; else there are no covariances of two models.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated ROC curves".
    """

    def __init__(self, sums: ScoreSums, *, paired: bool) -> None:
        self._at = {arm: place for place, arm in enumerate(sums.arms)}
        self.value = {arm: auc_of_histogram(sums.counts[place]) for arm, place in self._at.items()}
        self.bound = {arm: auc_bound(*sums.counts[place]) for arm, place in self._at.items()}
        totals = sums.counts[0].sum(axis=1)
        self._counts = (int(totals[1]), int(totals[0]))
        products = sums.paired
        if not paired:
            values = np.stack([sums.placements(place) for place in range(len(sums.arms))])
            squares = (sums.counts * values**2).sum(axis=2)
            products = np.stack([np.diag(squares[:, outcome]) for outcome in (0, 1)])
        areas = np.array(list(self.value.values()))
        self.covariance = np.zeros((len(areas), len(areas)))
        # Both classes' placement values have the area as their mean.
        for total, product in zip(totals, products, strict=True):
            self.covariance += (product - total * np.outer(areas, areas)) / max(total * (total - 1), 1)

    def estimate(self, arm: str) -> Estimate:
        """Return the area with its interval, which reaches as far again as the area of the rows may be."""
        value = self.value[arm]
        bound = self.bound[arm]
        place = self._at[arm]
        centre = value
        variance = float(self.covariance[place, place])
        if not variance > 0:
            centre, variance = hanley_mcneil(value, *self._counts)
        low, high = logit_limits(value, centre, variance, Z)
        return Estimate(value, max(low - bound, 0.0), min(high + bound, 1.0), variance, _method(bound))

    def difference(self, a: str, b: str) -> Difference:
        """Return the difference of two areas with its interval, likewise."""
        (i, j) = (self._at[a], self._at[b])
        own = self.covariance[i, i] + self.covariance[j, j]
        variance = float(own - 2 * self.covariance[i, j])
        if not variance > 1e-12 * own:
            return Difference(0.0, 0.0, 0.0, 1.0, "identical scores")
        bound = self.bound[a] + self.bound[b]
        return _widened(self.value[a] - self.value[b], float(np.sqrt(variance)), bound, _method(bound))


def _method(bound: float) -> str:
    """Return how an area was computed, with its largest distance from that of the rows, rounded up."""
    return render("figures.methods.binned", n=f"{np.ceil(bound * 1e6) / 1e6:.6f}")


def _widened(value: float, error: float, bound: float, method: str) -> Difference:
    """Return a difference whose interval is normal about values within a bound of this one."""
    reach = Z * error + bound
    p = float(2 * ndtr(-max(abs(value) - bound, 0.0) / error))
    return Difference(value, value - reach, value + reach, p, method)
