"""Cut points of a number's codes, from merged counts of rows.

The fine bins follow from the schema's range alone, so that counts in them can be added over sites.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flfed.summaries.summary import Arrays, ColumnLayout, Layout
from flfed.trees.forest import NoTrees, contributions, forest_of

FINE_BINS = 1024
"""Bins in which sites count a number: 64 even ones, as a summary has, cost 0.006 of AUC on taiwan-credit."""
CODES = 64
"""Most codes of a number that a tree distinguishes, unless a study says otherwise."""


NO_CUT = float(np.finfo(np.float32).max)
"""Fills up the cut points of a column that has fewer than others; no value is above it."""


def fine_edges(low: float, high: float) -> np.ndarray:
    """Return the inner edges of a number's fine bins.

    They are even in `sign(v) log(1 + |v|)` between the ends of the schema's range.

    Parameters
    ----------
    low, high : float
        Ends of the schema's range, in the column's own unit.
    bins : int

    Returns
    -------
    float32 array [bins - 1 or fewer]
        Increasing. Edges of a narrow range that are one number in float32 stand once.
    """
    ends = np.sign([low, high]) * np.log1p(np.abs([low, high]))
    even = np.linspace(ends[0], ends[1], FINE_BINS + 1)[1:-1]
    return np.unique((np.sign(even) * np.expm1(np.abs(even))).astype(np.float32))


def codes_of(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return each value's code: how many cut points lie below it.

    Values are compared in float32, as XGBoost compares them: one at a cut point has the lower code. Missing values
    have the code after the last, `len(cuts) + 1`.

    Examples
    --------
    >>> codes_of(np.array([1.0, 2.0, 2.5, np.nan]), np.array([2.0], dtype=np.float32)).tolist()
    [0, 0, 1, 2]
    """
    values = values.astype(np.float32)
    # All values halve their intervals together: a search for each of them takes three times as long.
    bits = len(cuts).bit_length()
    ends = np.full(2**bits - 1, np.inf, dtype=np.float32)
    ends[: len(cuts)] = cuts
    codes = np.zeros(values.shape, dtype=np.int64)
    for bit in reversed(range(bits)):
        half = 1 << bit
        codes += (values > ends[half - 1 :].take(codes)) * half
    codes[np.isnan(values)] = len(cuts) + 1
    return codes


def cut_points(edges: np.ndarray, counts: np.ndarray, most: int = CODES) -> np.ndarray:
    """Return the cut points of a number, out of the fine edges.

    Parameters
    ----------
    edges : float32 array [bins - 1]
        As `fine_edges` returns them.
    counts : array [bins]
        Rows of all sites in each fine bin, missing ones left out.
    most : int
        Most codes.

    Returns
    -------
    float32 array [codes - 1]
        The upper edges of quantile groups of bins; where no more than `most` bins have rows, each such bin has a
        code of its own.
    """
    return np.asarray(edges[_ends(counts, most)])


def merged_codes(counts: np.ndarray, least: int, most: int = CODES) -> np.ndarray:
    """Return a code for each cell of a column, so that no code has few rows or one outcome.

    Parameters
    ----------
    counts : array [cells, outcomes]
        Rows of all sites by cell and outcome: the fine bins of a number or the values of a category in their order,
        then the missing ones. One outcome stands for a number that is predicted, where only rows are counted.
    least : int
        Fewest rows of a code that has any; each has two outcomes or more, where there are several.
    most : int
        Most codes without that of missing rows.

    Returns
    -------
    int array [cells]
        Neighbours share a code. Missing rows have the code after the last one for themselves where they are enough,
        and else share the last one, as if they were higher than all values.
    """
    values = counts[:-1]
    missing = counts[-1]
    ends = set(_ends(values.sum(axis=1), most).tolist())
    groups = [0]
    group_rows = np.zeros(counts.shape[1])
    codes = np.zeros(len(counts), dtype=np.int64)
    for cell, rows in enumerate(values):
        codes[cell] = groups[-1]
        group_rows = group_rows + rows
        if cell in ends and _enough(group_rows, least):
            groups.append(groups[-1] + 1)
            group_rows = np.zeros_like(group_rows)
    # The rest at the end is too little for a code of its own.
    if not _enough(group_rows, least) and groups[-1]:
        codes[codes == groups[-1]] -= 1
    codes[-1] = codes[:-1].max(initial=0) + int(_enough(missing, least) or not missing.sum())
    return codes


def edges_of(column: ColumnLayout) -> np.ndarray:
    """Return the inner edges of a number's fine bins, before its transform."""
    ends = np.array([column.edges[0], column.edges[-1]])
    low, high = np.expm1(ends) if column.transform == "log1p" else ends
    return fine_edges(float(low), float(high))


def possible_cuts(column: ColumnLayout) -> np.ndarray:
    """Return the cut points that a column may have, float32: they follow from the schema alone."""
    if column.kind == "number":
        return edges_of(column)
    return np.arange(len(column.cells) - 2, dtype=np.float32)


def counted_columns(layout: Layout, least: int) -> list[ColumnLayout]:
    """Return the columns whose cells sites count: numbers, and all of them where codes have a least number of rows."""
    return [column for column in layout.features if least or column.kind == "number"]


def cells_of(column: ColumnLayout) -> int:
    """Return the cells of a column that sites count: a number's fine bins or the values, then the missing ones."""
    return len(edges_of(column)) + 2 if column.kind == "number" else len(column.cells)


def cell_shapes(layout: Layout, least: int) -> dict[str, tuple[int, int]]:
    """Return the shape of each column's counts."""
    classes = len(layout.target.cells) - 1 if least and layout.task != "regression" else 1
    return {column.name: (cells_of(column), classes) for column in counted_columns(layout, least)}


def split_cells(totals: np.ndarray, shapes: Mapping[str, tuple[int, int]]) -> Arrays:
    """Return the counts of each column of these shapes, which stand in one array one after the other."""
    ends = np.cumsum([cells * classes for cells, classes in shapes.values()])
    parts = np.split(totals, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def empty_cuts(layout: Layout, most: int) -> Arrays:
    """Return the arrays of cut points as they are before sites have counted.

    See `chosen_cuts`.
    """
    width = 1
    for column in layout.features:
        own = most - 1 if column.kind == "number" else len(column.cells) - 2
        width = max(width, own)
    return {"cuts": np.full((len(layout.features), width), NO_CUT), "missing": np.zeros(len(layout.features))}


def chosen_cuts(layout: Layout, counts: Arrays, most: int, least: int = 0) -> Arrays:
    """Return the cut points of all columns.

    Parameters
    ----------
    layout : Layout
    counts : dict of column to array [cells, outcomes]
        Rows of all sites, of `counted_columns`.
    most : int
        Most codes of a number.
    least : int
        Fewest rows of a code; 0 for no such rule.

    Returns
    -------
    dict with "cuts", float64 array [columns, most cut points], filled up with `NO_CUT`
        Numbers are cut at values; a flag or category at the places of its values in the schema's order.
    and "missing", float64 array [columns]
        The code of a missing value.
    """
    cut_arrays = empty_cuts(layout, most)
    for number, column in enumerate(layout.features):
        ends = possible_cuts(column)
        own = 1
        if least:
            groups = most if column.kind == "number" else len(ends) + 1
            codes = merged_codes(counts[column.name], least, groups)
            cuts = ends[np.flatnonzero(np.diff(codes[:-1]))]
            own = int(codes[-1] > codes[-2])
        elif column.kind == "number":
            cuts = cut_points(ends, counts[column.name][:-1].sum(axis=1), most)
        else:
            cuts = ends
        cut_arrays["cuts"][number, : len(cuts)] = cuts
        cut_arrays["missing"][number] = len(cuts) + own
    return cut_arrays


def widths_of(arrays: Arrays) -> np.ndarray:
    """Return how many codes each column has, that of a missing value among them, int [columns]."""
    return np.asarray((arrays["cuts"] < NO_CUT).sum(axis=1) + 2)


def codes_in(x: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Return plain inputs [rows, columns] as codes, int [columns, rows].

    Raises NoTrees where a missing value's code is no code of its column.
    """
    widths = widths_of(arrays)
    if not np.isin(widths - arrays["missing"], (1, 2)).all():
        raise NoTrees
    all_codes = np.empty(x.T.shape, dtype=np.min_scalar_type(int(widths.max(initial=1)) - 1))
    for number, (cuts, width) in enumerate(zip(arrays["cuts"].astype(np.float32), widths, strict=True)):
        codes = codes_of(x[:, number], cuts[: width - 2])
        # Missing rows that were too few for a code of their own share the last one.
        all_codes[number] = np.minimum(codes, int(arrays["missing"][number]))
    return all_codes


def _enough(rows: np.ndarray, least: int) -> bool:
    return bool(rows.sum() >= least and (len(rows) == 1 or np.count_nonzero(rows) > 1))


def _ends(counts: np.ndarray, most: int) -> np.ndarray:
    """Return the last bin of each group but the last: quantiles, or every filled bin where these are few."""
    filled = np.flatnonzero(counts)
    if len(filled) <= most:
        return filled[:-1]
    below = np.cumsum(counts)
    ends = np.unique(np.searchsorted(below, below[-1] * np.arange(1, most) / most))
    # After the last filled bin there is nothing to distinguish.
    return np.asarray(ends[ends < filled[-1]])


def contributions_of(arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """Return what each column added to scores of rows x, [rows, outputs, columns + 1], as `contributions` does."""
    outputs = arrays["value"].shape[1]
    return contributions(forest_of(arrays), codes_in(x, arrays), widths_of(arrays) - 1, outputs=outputs)
