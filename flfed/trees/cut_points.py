"""Cut points of a number's codes, from merged counts of rows.

The fine bins follow from the schema's range alone, so that counts in them can be added over sites.
"""

from __future__ import annotations

import numpy as np

FINE_BINS = 1024
"""Bins in which sites count a number: 64 even ones, as a summary has, cost .006 of AUC on taiwan-credit."""
CODES = 64
"""Most codes of a number that a tree tells apart, unless a study says otherwise."""


def fine_edges(low: float, high: float, bins: int = FINE_BINS) -> np.ndarray:
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
    even = np.linspace(ends[0], ends[1], bins + 1)[1:-1]
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
    codes = np.searchsorted(cuts, values.astype(np.float32), side="left")
    return np.asarray(np.where(np.isnan(values), len(cuts) + 1, codes))


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
    values, missing = counts[:-1], counts[-1]
    ends = set(_ends(values.sum(axis=1), most).tolist())
    groups, held = [0], np.zeros(counts.shape[1])
    codes = np.zeros(len(counts), dtype=np.int64)
    for cell, rows in enumerate(values):
        codes[cell] = groups[-1]
        held = held + rows
        if cell in ends and _enough(held, least):
            groups.append(groups[-1] + 1)
            held = np.zeros_like(held)
    # What is left over at the end is too little for a code of its own.
    if not _enough(held, least) and groups[-1]:
        codes[codes == groups[-1]] -= 1
    codes[-1] = codes[:-1].max(initial=0) + int(_enough(missing, least) or not missing.sum())
    return codes


def _enough(rows: np.ndarray, least: int) -> bool:
    return bool(rows.sum() >= least and (len(rows) == 1 or np.count_nonzero(rows) > 1))


def _ends(counts: np.ndarray, most: int) -> np.ndarray:
    """Return the last bin of each group but the last: quantiles, or every filled bin where these are few."""
    filled = np.flatnonzero(counts)
    if len(filled) <= most:
        return filled[:-1]
    below = np.cumsum(counts)
    ends = np.unique(np.searchsorted(below, below[-1] * np.arange(1, most) / most))
    # After the last filled bin there is nothing to tell apart.
    return np.asarray(ends[ends < filled[-1]])
