"""Sums over a site's rows, the encoder from them, and warnings of leaks.

Their layout follows from the schema alone.

A summary is a few vectors of fixed length whose sum over sites is the summary of all rows, so
that it can be masked and added. From the merged sums come the one encoder of all sites, the
federated Table 1 and the leak warnings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Arrays = dict[str, np.ndarray]
"""Arrays by name, such as a model's."""
BINS = 64
"""Bins of a number, even over its range: enough that groups of ten rows show a spread."""
SEPARATION = 0.98
SHIFTS = (2**0.5 - 1, 2**0.5 - 0.5)
STEP = 1e-5
"""Of a moment in its hash: more than its rounding, and less than what a row moves."""
LEAST_SPREAD = 0.1
"""Deviation of the indicator of a value that one row in a hundred has: rarer ones count as that,
so that a single row's input stays below 10 and a step of SGD stable."""


@dataclass(frozen=True, kw_only=True)
class ColumnLayout:
    """Place of one column in a summary, public by the schema.

    Attributes
    ----------
    name : str
    kind : {"number", "flag", "category"}
        A target is a "category" (its classes) or a "number".
    cells : tuple of str
        Labels of the cells that rows are counted in; the last is "missing".
    edges : tuple of float
        Bin edges of a number, after its transform; empty otherwise.
    transform : {"none", "log1p"}
    unit : str
    typical : (low, high) or None
        Where most values of a number lie, after its transform.
    """

    name: str
    kind: Literal["number", "flag", "category"]
    cells: tuple[str, ...]
    edges: tuple[float, ...] = ()
    transform: str = "none"
    unit: str = ""
    typical: tuple[float, float] | None = None

    @property
    def middle(self) -> float:
        """Middle of a number's range for its moments, else 0."""
        return (self.edges[0] + self.edges[-1]) / 2 if self.edges else 0.0

    @property
    def half(self) -> float:
        """Half of a number's range, its moments' unit, else 1."""
        return (self.edges[-1] - self.edges[0]) / 2 if self.edges else 1.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of a summary: features, then the target.

    Attributes
    ----------
    features : tuple of ColumnLayout
    target : ColumnLayout
    task : {"binary", "multi-class", "regression"}
    missing_indicator : bool
        Whether a feature's being missing is an input of its own.
    plain : bool
        Whether a model's inputs are the columns as they are, one each: numbers, places of values, NaN where missing.
        The target of a regression is then divided by the width of its range.
    """

    features: tuple[ColumnLayout, ...]
    target: ColumnLayout
    task: str
    missing_indicator: bool = False
    plain: bool = False

    @property
    def columns(self) -> tuple[ColumnLayout, ...]:
        """Features in the schema's order, then the target."""
        return (*self.features, self.target)

    @property
    def outcomes(self) -> int:
        """Number of outcomes for leaks, 1 unless multi-class."""
        return len(self.target.cells) - 1 if self.task == "multi-class" else 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a summary."""
        columns = len(self.columns)
        cells = sum(len(column.cells) for column in self.columns)
        by_outcome = (len(self.features), self.outcomes)
        return {
            "rows": (1,),
            "moments": (columns, 3),
            "moments_known": (columns,),
            "cells": (cells,),
            "cells_known": (cells,),
            "lower": (cells,),
            "left": (columns,),
            "leaks": (*by_outcome, 4),
            "leaks_known": (*by_outcome, 2),
            "sites": (1,),
        }

    def encoder_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of an encoder."""
        columns = len(self.columns)
        cells = sum(len(column.cells) for column in self.columns)
        classes = 0 if self.task == "regression" else len(self.target.cells) - 1
        lengths = {"center": columns, "scale": columns, "frequency": cells, "spread": cells, "class_weight": classes}
        return {name: (length,) for name, length in lengths.items()}

    def slices(self) -> dict[str, slice]:
        """Return each column's slice of the vector of cells."""
        slices = {}
        start = 0
        for column in self.columns:
            slices[column.name] = slice(start, start + len(column.cells))
            start += len(column.cells)
        return slices

    def places(self) -> Iterator[tuple[int, ColumnLayout, slice]]:
        """Yield each column's number, the column and its slice of the vector of cells."""
        slices = self.slices()
        for number, column in enumerate(self.columns):
            yield number, column, slices[column.name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Sums over rows in float64, of one site or several.

    Attributes
    ----------
    rows : array [1]
        Rows; exact, it is what weights an update anyway.
    moments : array [columns, 3]
        Of numbers, present cells only, with z = (value − middle) / half: count, sum of z, sum of
        z². Zero for other columns. Under disclosure "institution" as groups of bins give them.
    moments_known : array [columns]
        How many sites gave their moments.
    cells : array [all cells of all columns]
        Rows in each cell.
    cells_known : array, as cells
        How many sites gave that cell; where fewer than `sites`, the count is a lower bound.
    lower : array, as cells
        Fewest rows that a cell can have at sites that did not give it.
    left : array [columns]
        Rows in cells that were not given.
    leaks : array [features, outcomes, 4]
        Missingness against the outcome: U and V of the stratified score test; separation by the
        column alone: rows × strength, rows.
    leaks_known : array [features, outcomes, 2]
        How many sites gave the test and the strength.
    sites : array [1]
        How many sites are summed.
    """

    rows: np.ndarray
    moments: np.ndarray
    moments_known: np.ndarray
    cells: np.ndarray
    cells_known: np.ndarray
    lower: np.ndarray
    left: np.ndarray
    leaks: np.ndarray
    leaks_known: np.ndarray
    sites: np.ndarray

    def arrays(self) -> Arrays:
        """Return the vectors by name."""
        return dict(vars(self))


def merge(summaries: Sequence[Summary]) -> Summary:
    """Return the sum of summaries, as that of all rows.

    Notes
    -----
    Each entry is summed exactly and rounded once (`math.fsum`), so the order of sites changes
    nothing, to the last bit.
    """
    if not summaries:
        raise ValueError("there is no summary to merge")
    if len(summaries) == 1:
        return summaries[0]
    sums = {}
    for name in summaries[0].arrays():
        stacked = np.stack([getattr(summary, name) for summary in summaries])
        with np.errstate(over="ignore", invalid="ignore"):  # where they are not finite, `fsum` says so
            total = stacked.sum(axis=0)
            size = np.abs(stacked).sum(axis=0)
        # The sum of two is rounded once as it is, and that of small whole numbers, such as counts, not at all.
        exact = np.isfinite(size)
        if len(summaries) > 2:
            exact = (size < 2**53) & (stacked == np.rint(stacked)).all(axis=0)
        total[~exact] = [math.fsum(column) for column in stacked[:, ~exact].T]
        sums[name] = total
    return Summary(**sums)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """Encoder of rows as model inputs, the same at all sites.

    Attributes
    ----------
    center, scale : arrays [columns]
        Of numbers, after their transform: input = (value − center) / scale; a missing value
        becomes `center`. For the target of a regression likewise.
    frequency, spread : arrays [all cells of all columns]
        Share of each value of a flag or category among rows that have one, of "missing" among all rows, and the divisor
        of its indicator. The input is (indicator − frequency) / spread; a missing value becomes 0.
    class_weight : array [classes]
        What a row of each class counts under class-weight "balanced"; ones otherwise.
    """

    center: np.ndarray
    scale: np.ndarray
    frequency: np.ndarray
    spread: np.ndarray
    class_weight: np.ndarray

    def arrays(self) -> Arrays:
        """Return the vectors by name."""
        return dict(vars(self))

    def sha256(self) -> str:
        """Return the encoder's hash over sorted names and little-endian bytes."""
        return arrays_sha256(self.arrays())


def sums_sha256(summary: Summary) -> list[str]:
    """Return two hashes of counts and rounded moments.

    Sums of the same rows have one in common, by whom they may be.

    How numbers are added up depends on the processor, in their last bits. A moment that lies where one of two
    grids rounds lies between two steps of the other; no short decimal lies where either does.

    Parameters
    ----------
    summary : Summary
        Of rows of one site or of all.
    """
    counts = {name: getattr(summary, name) for name in ("rows", "cells", "cells_known", "moments_known", "sites")}
    steps = summary.moments / STEP
    return [arrays_sha256(counts | {"moments": np.floor(steps + shift) + 0.0}) for shift in SHIFTS]


def fit_encoder(layout: Layout, summary: Summary, scaler: str = "global") -> Encoder:
    """Return the one encoder that merged sums give.

    Parameters
    ----------
    layout : Layout
    summary : Summary
        Merged over the training rows of all sites.
    scaler : {"global", "per-site", "none", "schema"}
        "none" centres and leaves the units; "schema" reads no sum (`schema_encoder`).

    Notes
    -----
    Standard deviations are of all rows (divisor n), as scikit-learn's `StandardScaler`. A column
    that is empty everywhere is centred on the middle of its range. Rows in cells that were not
    given count evenly for the values among them.
    """
    if scaler == "schema":
        return schema_encoder(layout)
    center = np.zeros(len(layout.columns))
    scale = np.ones(len(layout.columns))
    frequency = np.zeros(len(summary.cells))
    spread = np.ones(len(summary.cells))
    for number, column, place in layout.places():
        if column.kind == "number":
            center[number], scale[number] = _center_and_scale(column, summary.moments[number])
            # A regression's target is scaled under any scaler.
            if scaler == "none" and column is not layout.target:
                scale[number] = 1.0
            if layout.plain and column is layout.target:
                scale[number] = 2 * column.half
        frequency[place] = _frequency(summary, number, place)
        if scaler != "none":
            # A rare value is divided by a floor, so that a single row's input stays small.
            spread[place] = np.maximum(np.sqrt(frequency[place] * (1 - frequency[place])), LEAST_SPREAD)
    weight = _class_weight(layout, frequency)
    return Encoder(center=center, scale=scale, frequency=frequency, spread=spread, class_weight=weight)


def schema_encoder(layout: Layout) -> Encoder:
    """Return the encoder that the schema gives without any row.

    A number is centred on the middle of its typical span, and divided by a quarter of it: one standard
    deviation where 95 of 100 values lie within. Without a typical span the range stands for it. Values
    of a flag or category count as equally frequent; an indicator of "missing" stays 0 or 1.

    Guarantee: the same for every table of the schema.
    """
    center = np.zeros(len(layout.columns))
    scale = np.ones(len(layout.columns))
    frequency: list[float] = []
    for number, column in enumerate(layout.columns):
        if column.kind == "number":
            low, high = column.typical or (column.edges[0], column.edges[-1])
            center[number] = (low + high) / 2
            scale[number] = (high - low) / 4
            if layout.plain and column is layout.target:
                scale[number] = 2 * column.half
        # The last cell is "missing", whose share no schema has.
        values = len(column.cells) - 1
        frequency += [1 / values] * values + [0.0]
    shares = np.array(frequency)
    deviation = np.maximum(np.sqrt(shares * (1 - shares)), LEAST_SPREAD)
    spread = np.where(shares > 0, deviation, 1.0)
    weight = np.ones(layout.encoder_shapes()["class_weight"])
    return Encoder(center=center, scale=scale, frequency=shares, spread=spread, class_weight=weight)


def one_class(layout: Layout, summary: Summary) -> bool:
    """Return whether all rows are known to be of one class."""
    if layout.task == "regression":
        return False
    place = layout.slices()[layout.target.name]
    shares = _frequency(summary, len(layout.features), place)[:-1]  # the last cell is "missing"
    return int(np.count_nonzero(shares)) < 2


def _center_and_scale(column: ColumnLayout, moments: np.ndarray) -> tuple[float, float]:
    count, total, squares = moments
    if count <= 0:
        return column.middle, column.half
    mean = total / count
    variance = squares / count - mean**2
    # Rounding leaves about 1e-16 of the second moment where all values are equal.
    constant = variance <= 1e-12 * max(squares / count, 1e-12)
    scale = 1.0 if constant else column.half * math.sqrt(variance)
    return column.middle + column.half * mean, scale


def _frequency(summary: Summary, number: int, place: slice) -> np.ndarray:
    least = summary.cells[place] + summary.lower[place]
    counts = least[:-1]
    unknown = summary.sites[0] - summary.cells_known[place][:-1]
    rest = summary.left[number] - summary.lower[place].sum()
    # Rows in cells that were not given are spread evenly over the values that lack a site.
    # The rest of the rows is shared out only among values that some site suppressed.
    if rest > 0 and unknown.sum() > 0:
        counts = counts + rest * unknown / unknown.sum()
    total = counts.sum()
    shares = counts / total if total > 0 else np.full(len(counts), 1 / len(counts))
    return np.append(shares, least[-1] / max(summary.rows[0], 1.0))


def _class_weight(layout: Layout, frequency: np.ndarray) -> np.ndarray:
    if layout.task == "regression":
        return np.ones(0)
    shares = frequency[layout.slices()[layout.target.name]][:-1]
    return np.where(shares > 0, 1 / (len(shares) * np.where(shares > 0, shares, 1)), 1.0)


Stacked = np.ndarray | list[np.ndarray]
"""An array, or equal arrays that stand for one with a first dimension more."""


def arrays_sha256(arrays: Mapping[str, Stacked]) -> str:
    """Return the SHA-256 over sorted names, dtype, shape, little-endian bytes.

    Examples
    --------
    >>> a = arrays_sha256({"w": np.ones(2), "b": np.zeros(1)})
    >>> a == arrays_sha256({"b": np.zeros(1), "w": np.ones(2)}), a == arrays_sha256({"w": np.ones(2)})
    (True, False)
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        parts = value if isinstance(value, list) else [np.atleast_1d(value)]
        shape = (len(parts), *parts[0].shape) if isinstance(value, list) else parts[0].shape
        # Bytes are hashed little-endian, so that every machine has the same hash.
        little = parts[0].dtype.newbyteorder("<")
        digest.update(f"{name}\x1f{little.str}\x1f{shape}\x1e".encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part, dtype=little).data)
    return digest.hexdigest()


MISSING_P = 1e-4
LEAST_TESTED = 10
"""Fewest rows without a value, and with one, of which missingness is tested: two in 15,000 show nothing."""


@dataclass(frozen=True)
class LeakWarning:
    """A column that says too much about the target.

    It says more than a routine examination should.

    Attributes
    ----------
    column : str
    reason : {"missingness", "separation"}
    value : float
        p-value of the score test stratified by site, or the strength of separation.
    """

    column: str
    reason: str
    value: float

    def __str__(self) -> str:
        """Return the warning in words.

        The words are for whoever has to decide about the column, and the same in every repeat.
        """
        if self.reason == "missingness":
            why = "was it recorded after the outcome, or only for some outcomes?"
            return f"whether {self.column!r} is missing goes with the target, within sites (p < {MISSING_P:g}): {why}"
        return f"{self.column!r} alone separates the target (over {SEPARATION:g}): is it the outcome itself?"


def leak_warnings(layout: Layout, summary: Summary) -> list[LeakWarning]:
    """Return the columns that give the target away.

    Their missingness does, or their values alone.

    Parameters
    ----------
    layout : Layout
    summary : Summary
        Merged: U and V are sums over sites, so a difference between hospitals raises nothing.

    Notes
    -----
    The test is that of Mantel and Haenszel 1959, for a regression van Elteren's of ranks, with
    `chance_at_most` in place of chi-squared; of several outcomes the smallest p counts, times their
    number. Columns of `untested` are passed over. Strength is the AUC (the absolute correlation for a
    regression) of the column alone, the mean over sites weighted by rows, and over outcomes.
    """
    warnings = []
    passed = untested(layout, summary)
    for number, column in enumerate(layout.features):
        sums = summary.leaks[number]
        if column.name not in passed:
            # The smallest p of several outcomes is multiplied by their number (Bonferroni).
            p = min(1.0, layout.outcomes * min(chance_at_most(float(u), float(v)) for u, v in sums[:, :2]))
            if p < MISSING_P:
                warnings.append(LeakWarning(column.name, "missingness", p))
        # Strength is known only where some site gave it for every outcome.
        if (sums[:, 3] > 0).all():
            strength = float(np.mean(sums[:, 2] / sums[:, 3]))
            if strength > SEPARATION:
                warnings.append(LeakWarning(column.name, "separation", strength))
    return warnings


def untested(layout: Layout, summary: Summary) -> list[str]:
    """Return the columns whose missingness is not tested.

    Fewer than ten of their rows have no value, or fewer than ten have one.
    """
    places = layout.slices()
    missing = {c.name: float(summary.cells[places[c.name]][-1]) for c in layout.features}
    most = float(summary.rows[0]) - LEAST_TESTED
    return [name for name, rows in missing.items() if 0 < rows < LEAST_TESTED or most < rows < summary.rows[0]]


def chance_at_most(u: float, v: float) -> float:
    """Return a bound of the chance that |U| reaches `u`.

    It is `2 exp(-v h(|u| / v))` with `h(x) = (1 + x) log(1 + x) - x`.

    It holds whatever the counts, where the normal approximation of rare events warns of nothing at all.

    Parameters
    ----------
    u : float
        A count less its expectation, or a sum of terms between -1 and 1 with mean 0.
    v : float, >= 0
        Its variance, given how many rows are missing and how many have the outcome, at each site. Such a count is
        distributed as a sum of independent zeros and ones (Vatutin and Mikhailov 1982); of other terms the
        variance as if they were drawn with replacement (Hoeffding 1963, theorem 4).

    Source: Bennett 1962, "Probability inequalities for the sum of independent random variables".

    Examples
    --------
    >>> chance_at_most(0.0, 1.0), round(chance_at_most(20.0, 10.0), 8)  # 2 exp(-10 (3 log 3 - 2))
    (1.0, 4.71e-06)
    """
    if v <= 0:
        return 1.0
    x = abs(u) / v
    return min(1.0, 2 * math.exp(-v * ((1 + x) * math.log1p(x) - x)))
