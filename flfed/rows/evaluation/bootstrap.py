"""Bootstrap of rows, or of groups of rows.

It has weights that metrics share, BCa limits, and p.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, product
from math import sqrt
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from flfed.rows.evaluation.weighted_metrics import Drawn, Floats, RowMetric, Score, Target, undefined
from flfed.words import render

Groups: TypeAlias = NDArray[np.integer] | None
Pair: TypeAlias = tuple[str, str]
Codes: TypeAlias = NDArray[np.intp]
Scores: TypeAlias = Mapping[str, Score]
"""Scores of each arm for the same rows."""
Metrics: TypeAlias = Mapping[str, RowMetric]

CHUNK = 64_000
MOST = 250_000
"""Weights at one time, draws times rows: 512 KB, since memory that the system allocates for larger arrays costs more
than the work in it. Up to 2 MB where that is fewer than 100 draws."""

MOST_UNITS = 20_000
"""Units above which random parts of them are drawn in place of each."""
PARTS = 2000
"""Such parts. Their sums vary as the units do, and their spread is known to 1.6 %, as that of 2,000 draws is."""
BINS = 512
"""Bins of a ranking whose rows are counted by part, bin and class; a bin has at most so small a share of a class."""
BLOCKS = 300
"""Most parts left out in turn for the acceleration of BCa; beyond that, units share a part.

Random parts keep the acceleration in expectation (third and second cumulants add up) and bring
noise of about `0.65 / BLOCKS`, which moves a limit by less than 1 % of the interval.
"""


ROUNDING = 1e-12
"""What two figures that are equal may differ by, in units of their size."""


@runtime_checkable
class Size(Protocol):
    """Metric that is the absolute value of a signed figure."""

    def signed(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the figure with its sign [draws]."""


@runtime_checkable
class OfSums(Protocol):
    """Metric of weighted sums over rows, such as a mean loss.

    All such metrics of all arms are then one product of the weights.
    """

    def columns(self, y: Target, score: Score) -> Floats:
        """Return the terms of each row [n, sums]."""

    def of_sums(self, sums: Floats, total: Floats) -> Floats:
        """Return the metric [draws] of weighted sums.

        `sums` is [draws, sums] and `total` the weights [draws]. A `Size` keeps its sign.
        """


@runtime_checkable
class Ranking(Protocol):
    """Metric of a ranking, with its rows put in order once."""

    def ranked(self, y: Target, score: Score) -> Drawn:
        """Return the function from weights [draws, n] to metric [draws]."""


def units_of(rows: int, groups: Groups) -> tuple[Codes, int]:
    """Return each row's unit and their number.

    Units [rows] are codes from 0.

    Examples
    --------
    >>> import numpy as np
    >>> units_of(3, np.array([7, 7, 2]))
    (array([1, 1, 0]), 2)
    """
    if groups is None:
        return np.arange(rows, dtype=np.intp), rows
    uniques, codes = np.unique(groups, return_inverse=True)
    return codes.astype(np.intp), len(uniques)


def left_out_weights(rng: np.random.Generator, codes: Codes, units: int) -> Iterator[Floats]:
    """Yield jackknife weights [parts, n].

    They are 0 for one part of the units and else 1.

    A row's weights lie together in memory, here and below: pieces that are picked or added are then long.
    """
    parts = min(units, BLOCKS)
    part = (rng.permutation(units) % parts)[codes]
    for some in _chunks(parts, len(codes)):
        yield (part[:, None] != np.arange(some.start, some.stop)).astype(float).T


def drawn_weights(rng: np.random.Generator, codes: Codes, units: int, draws: int) -> Iterator[Floats]:
    """Yield bootstrap weights [some draws, n].

    Each is how often the row's unit is drawn, and there are `draws` rows in all.
    """
    for some in _chunks(draws, len(codes)):
        count = some.stop - some.start
        picks = rng.integers(0, units, size=(count, units))
        picks *= count
        picks += np.arange(count)[:, None]
        times = np.bincount(picks.ravel(), minlength=count * units).reshape(units, count).astype(float)
        by_row = times if len(codes) == units else times[codes]
        yield by_row.T


def _chunks(total: int, width: int) -> Iterator[slice]:
    step = max(1, min(100, MOST // max(1, width)), CHUNK // max(1, width))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def replicate(
    metrics: Metrics,
    y: Target,
    scores: Scores,
    rng: np.random.Generator,
    draws: int,
    groups: Groups = None,
) -> dict[str, dict[str, Replicates]]:
    """Return `{metric: {arm: Replicates}}` from shared draws.

    All are from the same draws of rows (or of groups).

    Parameters
    ----------
    metrics : mapping of name to metric, each defined on `y`
    y : [n]
    scores : mapping of arm to scores [n] or [n, k]
    rng : Generator
    draws : int, > 0
    groups : int [n], optional
        Rows of one code are drawn together.

    Notes
    -----
    Of more than `MOST_UNITS` rows (groups) random parts are drawn. All that a metric needs of a part is its sums, or
    its counts by class and bin of the score.
    """
    if not metrics:
        return {}
    codes, units = units_of(len(y), groups)
    part = None
    if units > MOST_UNITS:
        part = (rng.permutation(units) % PARTS)[codes]
        codes = np.arange(PARTS)
    # Metrics of sums share one matrix product; the others are computed one by one.
    summed = {name: m for name, m in metrics.items() if isinstance(m, OfSums) and _follows(m, "of_sums")}
    sums = _Sums(summed, y, scores, part)
    values = {(name, arm): metrics[name].value(y, scores[arm]) for name, arm in product(metrics, scores)}
    functions = {
        pair: _function(metrics[pair[0]], y, scores[pair[1]], part, value)
        for pair, value in values.items()
        if pair[0] not in summed
    }
    parts: dict[Pair, list[Floats]] = {pair: [] for pair in product(metrics, scores)}
    drawn = len(codes) if part is not None else units
    for weights in chain(left_out_weights(rng, codes, drawn), drawn_weights(rng, codes, drawn, draws)):
        for one, drawn_values in sums.of(weights).items():
            parts[one].append(drawn_values)
        for one, function in functions.items():
            parts[one].append(function(weights))
    replicates: dict[str, dict[str, Replicates]] = {name: {} for name in metrics}
    for (name, arm), chunks in parts.items():
        both = np.concatenate(chunks)
        replicates[name][arm] = _replicates(metrics[name], y, scores[arm], values[name, arm], both, draws, units)
    return replicates


def _replicates(
    metric: RowMetric, y: Target, score: Score, value: float, both: Floats, draws: int, units: int
) -> Replicates:
    """Return the replicates of one figure, of its values with parts left out and then of its draws."""
    signed = None
    if isinstance(metric, Size):
        whole = float(metric.signed(y, score, np.ones((1, len(y))))[0])
        signed = Replicates(whole, both[-draws:], both[:-draws], units, abs(value))
        both = np.abs(both)
    return Replicates(value, both[-draws:], both[:-draws], units, abs(value), signed)


class _Sums:
    """Metrics of sums for every arm, as one product."""

    def __init__(self, metrics: Mapping[str, OfSums], y: Target, scores: Scores, part: Codes | None) -> None:
        self._metrics = metrics
        columns = [np.ones((len(y), 1))]
        self._places = {}
        start = 1
        for name, metric in self._metrics.items():
            for arm, score in scores.items():
                columns.append(metric.columns(y, score))
                self._places[name, arm] = slice(start, start + columns[-1].shape[1])
                start = self._places[name, arm].stop
        self._columns = np.concatenate(columns, axis=1)
        if part is not None:
            self._columns = np.stack([np.bincount(part, column, PARTS) for column in self._columns.T], axis=1)

    def of(self, weights: Floats) -> dict[Pair, Floats]:
        """Return the metrics [draws] by name and arm."""
        with np.errstate(invalid="ignore"):  # infinite scores
            products = weights @ self._columns
        return {
            (name, arm): self._metrics[name].of_sums(products[:, place], products[:, 0])
            for (name, arm), place in self._places.items()
        }


def _function(metric: RowMetric, y: Target, score: Score, part: Codes | None, value: float) -> Drawn:
    """Return a metric's function from weights, of rows or of parts; `value` is that of all rows."""
    if isinstance(metric, Ranking) and _follows(metric, "ranked"):
        if part is not None and score.ndim == 1 and y.dtype.kind != "f":
            return _by_counts(metric, y, score, part, value)
        function = metric.ranked(y, score)
    else:
        weighted = metric.signed if isinstance(metric, Size) else metric.weighted
        function = partial(weighted, y, score)
    if part is None:
        return function
    return lambda weights: function(weights.T[part].T)


def _by_counts(metric: Ranking, y: Target, score: Score, part: Codes, value: float) -> Drawn:
    """Return a ranking's function from weights of parts, by their rows of each class and bin of the score.

    A bin's rows are taken for equal; what that changes for all rows is added to each draw.
    """
    if not np.isfinite(score).all():
        return undefined
    order = np.argsort(score)
    ranked_score = score[order]
    names = np.unique(y)
    classes = names.searchsorted(y[order])
    shares = [np.cumsum(classes == code) / (classes == code).sum() for code in range(len(names))]
    share = np.mean(shares, axis=0)
    # Equal scores have one place, that of the last of them.
    last = np.flatnonzero(np.append(ranked_score[1:] != ranked_score[:-1], True))
    own = np.repeat(share[last], np.diff(last, prepend=-1))
    place = np.ceil(own * BINS).astype(np.intp) * len(names) + classes
    cells = np.flatnonzero(np.bincount(place))
    cell = cells.searchsorted(place)
    counts = np.bincount(part[order] * len(cells) + cell, minlength=PARTS * len(cells)).reshape(PARTS, -1).astype(float)
    bins, codes = np.divmod(cells, len(names))
    ranked = metric.ranked(names[codes], bins.astype(float))
    total = counts.sum(axis=0)
    shift = value - float(ranked(total[None])[0])
    few = counts.astype(np.float32)

    def drawn(weights: Floats) -> Floats:
        # Sums of whole numbers below 2**24 are exact in float32, which takes half the time.
        if total.max() * weights.max() < 2**24:
            own = (few.T @ weights.T.astype(np.float32)).astype(float)
        else:
            own = counts.T @ weights.T
        return ranked(own.T) + shift

    return drawn


def _follows(metric: object, shortcut: str) -> bool:
    """Return whether a metric's shortcut is valid.

    It stands for `weighted` and `signed`, and a subclass may have its own of these.
    """
    kinds = type(metric).mro()
    depth = dict[str, int]()
    for place, kind in reversed(list(enumerate(kinds))):
        depth |= dict.fromkeys(vars(kind), place)
    return min(depth.get("weighted", -1), depth.get("signed", len(kinds))) >= depth[shortcut]


@dataclass(frozen=True)
class Replicates:
    """Bootstrap replicates of one figure.

    It is there for all rows, in bootstrap draws and with parts left out.

    Parameters
    ----------
    value : float
    draws : [draws]
        NaN where the figure is undefined; such draws are left out of everything below.
    left_out : [parts]
        For the acceleration only; NaN allowed.
    units : int
        Rows or groups that were drawn.
    scale : float
        Size of the figure, of which `ROUNDING` is no difference.
    signed : Replicates or None
        Of the figure with its sign, where this one is its size.
    """

    value: float
    draws: Floats
    left_out: Floats
    units: int
    scale: float
    signed: Replicates | None = None

    def minus(self, other: Replicates) -> Replicates:
        """Return the replicates of a difference on the same draws."""
        return Replicates(
            self.value - other.value,
            self.draws - other.draws,
            self.left_out - other.left_out,
            self.units,
            max(self.scale, other.scale),
        )

    def reason(self) -> str:
        """Return "" or why there is no interval."""
        values = self.defined_draws
        # Too few draws left would be those of an unusual kind of rows.
        if len(values) < len(self.draws) / 2:
            return render("figures.methods.draws")
        spread = float(np.ptp(values)) if len(values) else 0.0
        return "" if spread > ROUNDING * self.scale else render("figures.methods.same")

    @cached_property
    def defined_draws(self) -> Floats:
        """Draws in which the figure is defined."""
        finite = np.isfinite(self.draws)
        return self.draws if finite.all() else self.draws[finite]

    @cached_property
    def variance(self) -> float:
        """Variance of the defined draws, with divisor draws - 1."""
        return float(np.var(self.defined_draws, ddof=1))

    @cached_property
    def _ordered(self) -> Floats:
        return np.sort(self.defined_draws)

    def limits(self, level: float) -> tuple[float, float]:
        """Return the BCa interval with widened quantiles.

        They are `t` quantiles in place of the normal ones.

        Source: Efron 1987, "Better bootstrap confidence intervals" (the limits);
        Hesterberg 2015, "What teachers should know about the bootstrap" (the factor
        `sqrt(n / (n - 1)) t / z`, without which intervals from n rows are too short by about
        `1 / n`). The interval of a size is that of its figure with the sign, folded at 0. No draw of a size is below 0,
        so its own interval would not reach down to a model that is right.
        """
        if self.signed is not None:
            low, high = self.signed.limits(level)
            least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
            return least, max(abs(low), abs(high))
        left_out = self.left_out[np.isfinite(self.left_out)]
        pull = left_out.mean() - left_out if len(left_out) else np.zeros(1)
        size = float((pull**2).sum()) ** 1.5
        # BCa's acceleration, a sixth of the influence's skewness.
        skew = float((pull**3).sum()) / (6 * size) if size > 0 else 0.0
        reach = self.reach(level)
        bias = self._bias()
        tail = bias + np.array([-reach, reach])
        # 0.1: with two or three units the reach can pass the pole of the transformation
        at = ndtr(bias + tail / np.maximum(1 - skew * tail, 0.1))
        # The `np.quantile` of the ordered draws.
        last = len(self._ordered) - 1
        below = np.minimum((at * last).astype(np.intp), max(last - 1, 0))
        lower = self._ordered[below]
        gap = self._ordered[np.minimum(below + 1, last)] - lower
        low, high = (lower + gap * (at * last - below)).tolist()
        return min(low, self.value), max(high, self.value)

    def plain_limits(self, level: float) -> tuple[float, float]:
        """Return an interval symmetric about the value.

        It is value +- widened `t` quantile times the spread of the draws.

        For differences: nearly symmetric about 0 where it matters, and BCa, which estimates a
        bias and a skewness that are not there, would call 6 to 10 % of equal models different.
        """
        reach = self.reach(level) * sqrt(self.variance)
        return self.value - reach, self.value + reach

    def p_value(self) -> float:
        """Return the two-sided p of the figure being 0.

        It is the level at which `plain_limits` meet 0.
        """
        ratio = abs(self.value) / (sqrt(self.variance) * self._widening())
        return float(2 * stdtr(self.units - 1, -ratio))

    def reach(self, level: float) -> float:
        """Return how many deviations a symmetric interval reaches, the widened `t` quantile."""
        return float(stdtrit(self.units - 1, (1 + level) / 2)) * self._widening()

    def _widening(self) -> float:
        return float(np.sqrt(self.units / (self.units - 1)))

    def _bias(self) -> float:
        """Return the bias correction of BCa.

        It is the normal quantile of the share of draws below the value, equal ones half.
        """
        # Equal but for rounding, which depends on how many draws are summed at a time.
        near = ROUNDING * self.scale
        less = self._ordered.searchsorted(self.value - near, "left")
        not_more = self._ordered.searchsorted(self.value + near, "right")
        rows = len(self._ordered)
        below = (less + not_more) / (2 * rows)
        edge = 0.5 / rows
        return float(ndtri(np.clip(below, edge, 1 - edge)))
