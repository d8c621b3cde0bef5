"""The bootstrap of rows, or of groups of rows: weights that metrics share, BCa limits, p."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri, stdtr, stdtrit

Floats: TypeAlias = NDArray[np.float64]
Target: TypeAlias = NDArray[np.number]
Score: TypeAlias = NDArray[np.floating]
Groups: TypeAlias = NDArray[np.integer] | None
Pair: TypeAlias = tuple[str, str]

CHUNK = 250_000
"""Weights held at once, draws times rows (2 MB): larger ones leave the processor's cache."""

BLOCKS = 300
"""Most parts left out in turn for the acceleration of BCa; beyond that, units share a part.

Random parts keep the acceleration in expectation (third and second cumulants add up) and bring
noise of about `0.65 / BLOCKS`, which moves a limit by less than 1 % of the interval.
"""


class Metric(Protocol):
    """What every file of `flfed.rows.metrics` offers."""

    tasks: tuple[str, ...]
    better: Literal["higher", "lower"]
    unit: str
    label: str

    def defined(self, y: Target) -> str:
        """Return "" or why the metric is undefined on targets `y` [n]."""

    def weighted(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the metric [draws] under `weights` [draws, n]; NaN where undefined."""

    def value(self, y: Target, score: Score) -> float:
        """Return the metric; NaN if undefined."""


@runtime_checkable
class Size(Protocol):
    """What a metric offers besides that is the size of a figure with a sign, such as a calibration error."""

    def signed(self, y: Target, score: Score, weights: Floats) -> Floats:
        """Return the figure with its sign [draws]; the metric is its absolute value."""


def units_of(rows: int, groups: Groups) -> tuple[NDArray[np.intp], int]:
    """Return the unit of each row [rows], as codes from 0, and the number of units.

    Examples
    --------
    >>> import numpy as np
    >>> units_of(3, np.array([7, 7, 2]))
    (array([1, 1, 0]), 2)
    """
    if groups is None:
        return np.arange(rows, dtype=np.intp), rows
    found, codes = np.unique(groups, return_inverse=True)
    return codes.astype(np.intp), len(found)


def left_out_weights(rng: np.random.Generator, codes: NDArray[np.intp], units: int) -> Iterator[Floats]:
    """Yield weights [parts, n] that are 0 for one part of the units and else 1 (the jackknife)."""
    parts = min(units, BLOCKS)
    part = (rng.permutation(units) % parts)[codes]
    for some in _chunks(parts, len(codes)):
        yield (np.arange(some.start, some.stop)[:, None] != part).astype(np.float64)


def drawn_weights(rng: np.random.Generator, codes: NDArray[np.intp], units: int, draws: int) -> Iterator[Floats]:
    """Yield weights [some draws, n], how often each row's unit is drawn; `draws` rows in all."""
    for some in _chunks(draws, len(codes)):
        count = some.stop - some.start
        picks = rng.integers(0, units, size=(count, units))
        picks += units * np.arange(count)[:, None]
        times = np.bincount(picks.ravel(), minlength=count * units).reshape(count, units)
        yield times.astype(np.float64) if len(codes) == units else times[:, codes].astype(np.float64)


def _chunks(total: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def replicate(
    metrics: Mapping[str, Metric],
    y: Target,
    scores: Mapping[str, Score],
    rng: np.random.Generator,
    draws: int,
    groups: Groups = None,
) -> dict[str, dict[str, Replicates]]:
    """Return `{metric: {arm: Replicates}}`, all from the same draws of rows (or of groups).

    Parameters
    ----------
    metrics : mapping of name to metric, each defined on `y`
    y : [n]
    scores : mapping of arm to scores [n] or [n, k]
    rng : Generator
    draws : int, > 0
    groups : int [n], optional
        Rows of one code are drawn together.
    """
    if not metrics:
        return {}
    codes, units = units_of(len(y), groups)
    asked = [(name, arm) for name in metrics for arm in scores]
    parts: dict[Pair, list[Floats]] = {one: [] for one in asked}
    for weights in chain(left_out_weights(rng, codes, units), drawn_weights(rng, codes, units, draws)):
        for name, arm in asked:
            parts[name, arm].append(_drawn(metrics[name], y, scores[arm], weights))
    found: dict[str, dict[str, Replicates]] = {name: {} for name in metrics}
    for name, arm in asked:
        metric, both = metrics[name], np.concatenate(parts[name, arm])
        value, signed = metric.value(y, scores[arm]), None
        if isinstance(metric, Size):
            whole = float(metric.signed(y, scores[arm], np.ones((1, len(y))))[0])
            signed = Replicates(whole, both[-draws:], both[:-draws], units, abs(value))
            both = np.abs(both)
        found[name][arm] = Replicates(value, both[-draws:], both[:-draws], units, abs(value), signed)
    return found


def _drawn(metric: Metric, y: Target, score: Score, weights: Floats) -> Floats:
    return metric.signed(y, score, weights) if isinstance(metric, Size) else metric.weighted(y, score, weights)


@dataclass(frozen=True)
class Replicates:
    """One figure, as it came out on all rows, in bootstrap draws and with parts left out.

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
        Size below which a spread is rounding, in units of 1e-12.
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
        """Return the replicates of the difference of two figures of the same draws."""
        return Replicates(
            self.value - other.value,
            self.draws - other.draws,
            self.left_out - other.left_out,
            self.units,
            max(self.scale, other.scale),
        )

    def reason(self) -> str:
        """Return "" or why these draws carry no interval."""
        kept = self.kept
        if len(kept) < len(self.draws) / 2:
            return "undefined in most draws of rows"
        spread = float(np.ptp(kept)) if len(kept) else 0.0
        return "" if spread > 1e-12 * self.scale else "every draw of rows gives the same value"

    @property
    def kept(self) -> Floats:
        """The draws in which the figure is defined."""
        return self.draws[np.isfinite(self.draws)]

    def limits(self, level: float) -> tuple[float, float]:
        """Return the BCa interval, its normal quantiles replaced by widened `t` quantiles.

        Source: Efron 1987, "Better bootstrap confidence intervals" (the limits);
        Hesterberg 2015, "What teachers should know about the bootstrap" (the factor
        `sqrt(n / (n - 1)) t / z`, without which intervals from n rows are too short by about
        `1 / n`). The interval of a size is that of its figure with the sign, folded at 0: no draw
        of a size is below 0, so its own would not reach down to a model that is right.
        """
        if self.signed is not None:
            low, high = self.signed.limits(level)
            return 0.0 if low <= 0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high))
        bias, skew = self._bias(), self._skew()
        reach = self._reach(level)
        tail = bias + np.array([-reach, reach])
        # .1: with two or three units the reach can pass the pole of the transformation
        at = ndtr(bias + tail / np.maximum(1 - skew * tail, 0.1))
        low, high = np.quantile(self.kept, at)
        return min(float(low), self.value), max(float(high), self.value)

    def logit_limits(self, level: float) -> tuple[float, float]:
        """Return the interval of a figure between 0 and 1, symmetric on the logit scale.

        For rankings: rows that are drawn twice tie with themselves, which BCa takes for a bias.

        Source: Boyd, Eng and Page 2013, "Area under the precision-recall curve" (the scale).
        """
        slope = self.value * (1 - self.value)
        reach = self._reach(level) * float(np.std(self.kept, ddof=1)) / slope
        low, high = expit(logit(self.value) + np.array([-reach, reach]))
        return float(low), float(high)

    def plain_limits(self, level: float) -> tuple[float, float]:
        """Return value +- widened `t` quantile times the spread of the draws.

        For differences: nearly symmetric about 0 where it matters, and BCa, which estimates a
        bias and a skewness that are not there, would call 6 to 10 % of equal models different.
        """
        reach = self._reach(level) * float(np.std(self.kept, ddof=1))
        return self.value - reach, self.value + reach

    def p_value(self) -> float:
        """Return the two-sided p of the figure being 0: the level at which `plain_limits` meet 0."""
        ratio = abs(self.value) / (float(np.std(self.kept, ddof=1)) * self._widening())
        return float(2 * stdtr(self.units - 1, -ratio))

    def _reach(self, level: float) -> float:
        return float(stdtrit(self.units - 1, (1 + level) / 2)) * self._widening()

    def _widening(self) -> float:
        return float(np.sqrt(self.units / (self.units - 1)))

    def _bias(self) -> float:
        """Return the normal quantile of the share of draws below the value, equal ones half."""
        kept = self.kept
        below = (kept < self.value).mean() + (kept == self.value).mean() / 2
        edge = 0.5 / len(kept)
        return float(ndtri(np.clip(below, edge, 1 - edge)))

    def _skew(self) -> float:
        """Return the acceleration, one sixth of the skewness of the rows' influence."""
        left_out = self.left_out[np.isfinite(self.left_out)]
        pull = left_out.mean() - left_out if len(left_out) else np.zeros(1)
        size = float((pull**2).sum()) ** 1.5
        return float((pull**3).sum()) / (6 * size) if size > 0 else 0.0
