"""Area under the ROC curve with its variance.

It comes from one sort, for several models or at many sites at once.

Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated
ROC curves"; Sun and Xu 2014, "Fast implementation of DeLong's algorithm".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flfed.rows.evaluation.weighted_metrics import Floats, Score, Target

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int32]

CELLS = 16_384
"""Rows of several sites ranked at once, with those that fill them up to the longest: 128 KB an array."""
FEW = 700
"""Rows up to which the area of a single site costs its calls more than its passes over the rows (measured)."""
LARGEST = float(np.finfo(np.float64).max)


def delong(y: Target, scores: Score) -> tuple[Floats, Floats]:
    """Return the AUCs and their covariance.

    They are those of each arm, by ranks in O(n log n).

    Parameters
    ----------
    y : int codes 0 or 1 [n]
        Both must occur.
    scores : [arms, n]
        Larger for class 1. An arm with NaN gets NaN and leaves the others as they are.

    Returns
    -------
    auc : [arms]
    covariance : [arms, arms]
        NaN where a class has fewer than two rows.

    Source: that of this file.
    """
    ones = y == 1
    m = int(ones.sum())
    n = int((~ones).sum())
    # An arm without a number is ranked as if it were 0, and gets its NaN back below.
    lost = np.isnan(scores).any(axis=1)
    order, _, twice = _beaten(np.where(np.reshape(lost, (-1, 1)), 0.0, scores), np.broadcast_to(ones, scores.shape))
    beaten = np.empty(scores.shape)
    beaten.reshape(-1)[order] = twice / 2
    beaten[lost] = np.nan
    below = beaten[:, ones] / n
    above = 1 - beaten[:, ~ones] / m  # negatives below, positives above each
    auc = below.mean(axis=1)
    if min(m, n) < 2:
        return auc, np.full((len(auc), len(auc)), np.nan)
    left = below - auc[:, None]
    right = above - auc[:, None]
    return auc, left @ left.T / (m * (m - 1)) + right @ right.T / (n * (n - 1))


def alike(sizes: Integers) -> Iterator[Integers]:
    """Yield groups of sites to rank together.

    They are by size, so that little is filled up, and have no site without rows.

    Parameters
    ----------
    sizes : int array [sites]
        Rows of each.
    """
    order = np.argsort(sizes, kind="stable")
    start = len(sizes) - np.count_nonzero(sizes)
    stop = len(sizes)
    if stop - start == 1:  # alone: nothing to weigh up
        yield order[start:]
        return
    while start < stop:
        # The longest comes last: the largest count whose table fits is where count * longest does.
        tables = sizes[order[start:]] * np.arange(1, stop - start + 1)
        count = max(1, int(np.searchsorted(tables, CELLS, side="right")))
        yield order[start : start + count]
        start += count


def areas(y: Target, scores: Score, sizes: Integers) -> Floats:
    """Return each site's AUC and its DeLong variance.

    The result is [2, sites].

    Parameters
    ----------
    y : int codes 0 or 1 [rows of all sites]
        Of one site after the other.
    scores : [rows of all sites]
        Larger for class 1.
    sizes : int array [sites]
        Rows of each site, at least one; memory grows with the largest times their number (see `alike`).

    Returns
    -------
    array [2, sites]
        An area is NaN where a class has no row, or a score is NaN; a variance also where a class
        has fewer than two rows.

    Notes
    -----
    As `delong` gives for each site alone, to 1e-14.

    Source: that of this file.
    """
    if len(sizes) == 1 and 0 < np.count_nonzero(y) < len(y) <= FEW:  # alone: without what fills up and takes apart
        area, covariance = delong(y, scores[None])
        return np.stack([area, covariance[0]])
    real = np.arange(sizes.max()) < sizes[:, None]
    # Places beyond a site's rows rank last, also behind infinite scores. Plus 0: there is one zero, not two.
    table = _filled(np.clip(scores, -LARGEST, LARGEST) + 0.0, real, np.inf)
    lost = np.isnan(table).any(axis=1)
    table[lost] = 0.0
    ones = _filled(y == 1, real, False)
    m = np.count_nonzero(ones, axis=1)
    n = sizes - m
    # Counts in whole numbers: exact, and the same in any order of rows.
    first, twice = _ranked(table, ones, real)
    total = (twice * first).sum(axis=1, dtype=np.int64)
    sums = np.stack([total, 2 * m * n - total])
    rows = np.maximum(np.stack([m, n]), 1)
    # Squared deviations of `twice` in either class, about whole numbers: sums of few digits are exact.
    centre = (sums // rows).astype(np.int32)
    apart = (twice - centre[1][:, None] - first * (centre[0] - centre[1])[:, None]).astype(float)
    # Rows that only fill up a table have no part in the sums.
    if not real.all():
        apart *= real
    of_ones = apart * first
    squares = np.stack([np.einsum("ij,ij->i", part, part) for part in (of_ones, apart - of_ones)])
    spreads = squares - (sums - centre * rows) ** 2 / rows
    with np.errstate(divide="ignore", invalid="ignore"):
        area = total / (2 * m * n)
        variance = sum(s / (4.0 * (m * n / k) ** 2 * (k * (k - 1))) for s, k in zip(spreads, (m, n)))
    area[lost] = np.nan
    return np.stack([area, np.where((np.minimum(m, n) < 2) | lost, np.nan, variance)])


def _ranked(table: Floats, ones: Flags, real: Flags) -> tuple[Flags, Counts]:
    """Rank a padded table and count beaten rows.

    Returns `first` and `twice` of `_beaten`. Rows that are not `real` rank last.

    The class goes in a score's last bit: to sort numbers costs a third of finding their order. Where
    scores are equal but for that bit the site is ranked again, with ties.
    """
    keys = (table.view(np.uint64) >> 1 << 1) | ones
    keys.view(np.float64).sort(axis=1)
    first = (keys & np.uint64(1)).astype(np.bool_)
    tied = (((keys[:, 1:] ^ keys[:, :-1]) < 2) & real[:, 1:]).any(axis=1)
    below = np.cumsum(first, axis=1, dtype=np.int32)
    place = np.arange(1, table.shape[1] + 1, dtype=np.int32)
    twice = (2 * (below + first * (place - 2 * below))).astype(np.int32, copy=False)
    # The last bit is the class, so that equal scores would be ordered by it.
    if tied.any():
        _, first[tied], twice[tied] = _beaten(table[tied], ones[tied])
    return first, twice


def _filled(values: NDArray[Any], real: Flags, other: float) -> NDArray[Any]:
    """Return sites' values as a padded table.

    They come one site after the other. The table is [sites, rows] and ends with `other`.
    """
    if real.all():
        return values.reshape(real.shape)
    table = np.full(real.shape, other, dtype=values.dtype)
    table[real] = values
    return table


def _beaten(scores: Score, ones: Flags) -> tuple[NDArray[np.intp], Flags, Counts]:
    """Rank the rows and count those beaten.

    For every place the rows of the other class below it are counted, in each row of a table.

    Parameters
    ----------
    scores : [tables, rows], no NaN
    ones : [tables, rows]
        Which rows are of class 1.

    Returns
    -------
    order : [tables, rows]
        Places in `scores`, flattened, lowest score of each table first.
    first : [tables, rows]
        `ones` in that order.
    twice : [tables, rows]
        In that order: twice the number of the other class below, equal ones counting half.
    """
    order = np.argsort(scores, axis=1)
    # Each table's places count from its own start.
    if len(scores) > 1:
        order += np.arange(0, scores.size, scores.shape[1])[:, None]
    ranked = np.take(scores, order)
    first = np.take(ones, order)
    place = np.arange(scores.shape[1], dtype=np.int32)
    upto = np.cumsum(first, axis=1, dtype=np.int32)
    tied = ranked[:, 1:] == ranked[:, :-1]
    if not tied.any():
        below = 2 * upto - first
        reach = 2 * place + 1
    # Of equal scores each counts half, by the first and the last place of their group.
    else:
        start, end = _groups(tied, place)
        before = np.take_along_axis(upto - first, start, axis=1)
        below = before + np.take_along_axis(upto, end, axis=1)
        reach = start + end + 1
    # Arithmetic, not np.where: a choice that no one can foretell costs five times as much.
    return order, first, below + first * (reach - 2 * below)


def _groups(tied: Flags, place: Counts) -> tuple[Counts, Counts]:
    """Return the first and last place of ties.

    They are those of the rows equal to each place, [tables, rows].
    """
    edge = np.zeros((len(tied), 1), dtype=bool)
    start = np.maximum.accumulate(np.where(np.hstack([edge, tied]), 0, place), axis=1)
    end = np.where(np.hstack([tied, edge]), len(place) - 1, place)
    return start, np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
