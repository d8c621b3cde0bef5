"""Answer of an analysis: which noised numbers it has, and the figures that follow from them.

A site's answer is one vector. Of each column it has a histogram, of a number also two clipped sums, each once for
every group; and a cross-table for each pair. Answers of several sites are added before figures are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.summaries.noised_counts import Interval, Moments, independence, quantile, share, shown
from flfed.summaries.summary import Arrays, ColumnLayout

Figures = dict[str, Any]
ROWS = "rows"
CROSS = "cross "
OUTSIDE = math.sqrt(2)
"""Noise of the number of known values, in that of a count: it is a difference of two counts."""


@dataclass(frozen=True, kw_only=True)
class AnalysisLayout:
    """Numbers of an answer, in order.

    Attributes
    ----------
    columns : tuple of ColumnLayout
    group : ColumnLayout or None
        By whose values each column is counted.
    cross : tuple of pairs of ColumnLayout
    quantiles : tuple of float
    """

    columns: tuple[ColumnLayout, ...]
    group: ColumnLayout | None
    cross: tuple[tuple[ColumnLayout, ColumnLayout], ...]
    quantiles: tuple[float, ...]

    @property
    def groups(self) -> int:
        """Number of groups, with those whose group is not known.

        1 without groups.
        """
        return 1 if self.group is None else len(self.group.cells)

    @property
    def sensitivity(self) -> float:
        """Most that a person moves an answer, in L2.

        A person's rows weigh at most one together. They add one to the number of rows, one to each histogram and each
        cross-table, and at most one to either sum of a number.
        """
        sums = sum(2 for column in self.columns if column.edges)
        return math.sqrt(1 + len(self.columns) + sums + len(self.cross))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of an answer, in order."""
        shapes: dict[str, tuple[int, ...]] = {ROWS: (self.groups,)}
        for column in self.columns:
            shapes[f"counts {column.name}"] = (self.groups, len(column.cells))
            if column.edges:
                shapes |= {f"{what} {column.name}": (self.groups,) for what in ("total", "square")}
        for place, (first, second) in enumerate(self.cross):
            shapes[f"{CROSS}{place}"] = (len(first.cells) - 1, len(second.cells) - 1)
        return shapes

    def parts(self, answer: np.ndarray) -> Arrays:
        """Return the parts of an answer, float64 [entries]."""
        parts = {}
        start = 0
        for name, shape in self.shapes().items():
            parts[name] = answer[start : start + math.prod(shape)].reshape(shape)
            start += parts[name].size
        return parts

    @property
    def entries(self) -> int:
        """Number of numbers of an answer."""
        return sum(map(math.prod, self.shapes().values()))

    def figures(self, answer: np.ndarray, deviation: float) -> Figures:
        """Return the figures of added answers, for the record.

        Parameters
        ----------
        answer : float64 array [entries]
        deviation : float
            Of the noise on each number.
        """
        parts = self.parts(answer)
        of_all = deviation * math.sqrt(self.groups)
        whole = {}
        for name, values in parts.items():
            whole[name] = values if name.startswith(CROSS) else values.sum(axis=0)
        figures = {
            "deviation": deviation,
            ROWS: counted(float(whole[ROWS]), of_all),
            "columns": {column.name: self._column(column, whole, of_all) for column in self.columns},
            "cross": [self._crossed(place, parts[f"{CROSS}{place}"], deviation) for place in range(len(self.cross))],
        }
        if self.group is None:
            return figures
        return figures | {"groups": self._grouped(parts, self.group, deviation)}

    def _column(self, column: ColumnLayout, parts: Mapping[str, Any], deviation: float) -> Figures:
        """Return the figures of one column.

        Parts are of one group, or of all.
        """
        counts = parts[f"counts {column.name}"]
        rows = float(parts[ROWS])
        present_rows = rows - float(counts[-1])
        present_sd = deviation * OUTSIDE
        figures: Figures = {"unit": column.unit, "missing": record_interval(share(float(counts[-1]), rows, deviation))}
        display = shown(counts[:-1], present_rows)
        if not column.edges:
            shares = [
                record_interval(share(float(count), present_rows, deviation, present_sd)) for count in counts[:-1]
            ]
            return figures | {
                "shares": dict(zip(column.cells[:-1], shares)),
                "counts": dict(zip(column.cells[:-1], display.tolist())),
            }
        edges = own_edges(column)
        moments = moments_of(column, parts, present_rows, deviation)
        quantiles = {
            f"{100 * one:g}%": record_interval(_quantile(one, column, counts[:-1], deviation)) for one in self.quantiles
        }
        return figures | {
            "within": [edges[0], edges[-1]],
            "mean": record_interval(moments.mean()),
            "sd": record_interval(moments.standard_deviation(kurtosis(display, edges))),
            "quantiles": quantiles,
            "edges": edges.tolist(),
            "counts": display.tolist(),
        }

    def _crossed(self, place: int, table: np.ndarray, deviation: float) -> Figures:
        """Return the figures of a cross-table."""
        first, second = self.cross[place]
        test = independence(table, deviation)
        keys = ("chi2", "degrees-of-freedom", "p")
        related = None if test is None else dict(zip(keys, test))
        return {
            "columns": [first.name, second.name],
            "values": [list(first.cells[:-1]), list(second.cells[:-1])],
            "counts": shown(table, float(table.sum())).reshape(table.shape).tolist(),
            "independence": related,
        }

    def _grouped(self, parts: Arrays, group: ColumnLayout, deviation: float) -> Figures:
        """Return the figures of each group, and of the others less the first."""
        names = group.cells[:-1]
        total = float(parts[ROWS][:-1].sum())
        of_total = deviation * math.sqrt(len(names))
        each = []
        figures_by_group = {}
        for at, label in enumerate(names):
            own = {name: values[at] for name, values in parts.items() if not name.startswith(CROSS)}
            each.append(own)
            figures_by_group[label] = {
                ROWS: counted(float(own[ROWS]), deviation),
                "share": record_interval(share(float(own[ROWS]), total, deviation, of_total)),
                "columns": {column.name: self._column(column, own, deviation) for column in self.columns},
            }
        compared = {column.name: self._compared(column, each, names, deviation) for column in self.columns}
        return {"by": group.name, "of": figures_by_group, "compared": compared}

    def _compared(self, column: ColumnLayout, each: list[Arrays], names: tuple[str, ...], deviation: float) -> Figures:
        """Return the differences of means, or of shares, between each further group and the first."""
        means = [_means(column, parts, deviation) for parts in each]
        differences: Figures = {}
        for what, first in means[0].items():
            differences[what] = {}
            for name, of in zip(names[1:], means[1:]):
                mean = of[what]
                less = None if mean is None or first is None else mean.minus(first)
                differences[what][f"{name} - {names[0]}"] = record_interval(less)
        return differences


def _means(column: ColumnLayout, parts: Mapping[str, Any], deviation: float) -> dict[str, Interval | None]:
    """Return the mean of a number, or the shares of a category's values: of two, the last one's."""
    counts = parts[f"counts {column.name}"]
    present_rows = float(parts[ROWS] - counts[-1])
    if column.edges:
        return {"mean": moments_of(column, parts, present_rows, deviation).mean()}
    shares: dict[str, Interval | None] = {
        label: share(float(count), present_rows, deviation, deviation * OUTSIDE)
        for label, count in zip(column.cells, counts[:-1])
    }
    if len(shares) == 2:
        del shares[column.cells[0]]
    return shares


def moments_of(column: ColumnLayout, parts: Mapping[str, Any], present_rows: float, deviation: float) -> Moments:
    """Return a number's noised sums.

    `present_rows` is the noised number of its values.
    """
    low, *_, high = own_edges(column).tolist()
    return Moments(
        rows=present_rows,
        total=float(parts[f"total {column.name}"]),
        square=float(parts[f"square {column.name}"]),
        deviation=deviation,
        of_rows=deviation * OUTSIDE,
        low=low,
        high=high,
    )


def own_edges(column: ColumnLayout) -> np.ndarray:
    """Return the edges of a number's bins in its own unit, float64 [bins + 1]."""
    return _in_own_unit(column, np.array(column.edges))


def _in_own_unit(column: ColumnLayout, values: np.ndarray) -> np.ndarray:
    # Twelve digits: what a logarithm and its inverse leave of a round number.
    if column.transform == "log1p":
        values = np.expm1(values)
    return np.array([float(f"{value:.12g}") for value in values])


def _quantile(probability: float, column: ColumnLayout, counts: np.ndarray, deviation: float) -> Interval | None:
    """Return a number's quantile in its own unit.

    Within a bin values are even on the scale of the bins.
    """
    interval = quantile(probability, counts, np.array(column.edges), deviation)
    if interval is None:
        return None
    return Interval(*_in_own_unit(column, np.array([interval.value, interval.low, interval.high])).tolist())


def kurtosis(counts: np.ndarray, edges: np.ndarray) -> float:
    """Return the fourth moment in squared variances, by a histogram.

    3 where it has no spread.

    Parameters
    ----------
    counts : float64 array [bins]
        None below 0.
    edges : float64 array [bins + 1]
    """
    middles = (edges[1:] + edges[:-1]) / 2
    total = float(counts.sum())
    if total <= 0:
        return 3.0
    apart = middles - (counts * middles).sum() / total
    second, fourth = ((counts * apart**power).sum() / total for power in (2, 4))
    return max(1.0, float(fourth / second**2)) if second > 0 else 3.0


def counted(count: float, deviation: float) -> Figures | None:
    """Return a noised count with its interval: of the table itself, so that it holds the noise alone."""
    return record_interval(Interval.about(count, deviation**2, least=0.0))


def record_interval(interval: Interval | None) -> Figures | None:
    """Return an interval for the record."""
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high}
