"""Sums of a site's rows, and their disclosure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from flfed.rows.data.schema import Column, Schema
from flfed.rows.features.encode import ColumnArrays, coded
from flfed.summaries.summary import BINS, SEPARATION, ColumnLayout, Layout, Summary

LEAST_PRESENT = 10
"""Rows of each class that must have a value before a column's separation says anything: of 13
rows with 2 positives, chance alone separates many."""


def layout_of(schema: Schema, features: Sequence[str], *, missing_indicator: bool = False) -> Layout:
    """Return the summary's layout from schema and study alone."""
    return Layout(
        features=tuple(column_layout(name, schema.columns[name]) for name in features),
        target=column_layout(schema.target, schema.columns[schema.target]),
        task=schema.task,
        missing_indicator=missing_indicator,
    )


@lru_cache(maxsize=4096)
def column_layout(
    name: str, column: Column, *, within: tuple[float, float] | None = None, bins: int = BINS
) -> ColumnLayout:
    """Return one column's layout, cached since its names take much memory.

    A number has so many bins, evenly wide after its transform, `within` a range or, by default, the schema's.
    """
    if column.range is not None:
        # Bins follow from the schema or the study, never from the rows.
        low, high = column.scale(np.array(within or column.range, dtype=float))
        edges = np.linspace(low, high, bins + 1)
        labels = tuple(f"{edges[i]:.6g} to {edges[i + 1]:.6g}" for i in range(bins))
        typical = None if column.typical is None else tuple(column.scale(np.array(column.typical)).tolist())
        return ColumnLayout(
            name=name,
            kind="number",
            cells=(*labels, "missing"),
            edges=tuple(edges.tolist()),
            transform=column.transform,
            unit=column.unit,
            typical=typical,
        )
    if column.kind == "flag":
        return ColumnLayout(name=name, kind="flag", cells=("0", "1", "missing"))
    return ColumnLayout(name=name, kind="category", cells=(*column.values, "missing"))


def outcomes(table: pd.DataFrame | ColumnArrays, layout: Layout) -> np.ndarray:
    """Return float64 [rows, outcomes]: class indicators, or the number."""
    rows = coded(table, layout)
    if layout.task == "regression":
        return rows.scaled(layout.target)[:, None]
    wanted = np.arange(layout.outcomes) if layout.task == "multi-class" else np.array([1])
    return np.asarray((rows.codes[layout.target.name][:, None] == wanted).astype(float))


def summarise(table: pd.DataFrame | ColumnArrays, layout: Layout) -> Summary:
    """Compute the exact sums over `table`, with nothing suppressed.

    Parameters
    ----------
    table : DataFrame or ColumnArrays
        Mapped rows of one site.
    layout : Layout
    """
    columns = layout.columns
    rows = coded(table, layout)
    counts = [np.bincount(rows.codes[c.name], minlength=len(c.cells)) for c in columns]
    cells = np.concatenate(counts).astype(float)
    return Summary(
        rows=np.array([float(rows.rows)]),
        moments=np.array([_moments(rows, c) for c in columns]),
        moments_known=np.ones(len(columns)),
        cells=cells,
        cells_known=np.ones(len(cells)),
        lower=np.zeros(len(cells)),
        left=np.zeros(len(columns)),
        leaks=_leak_sums(rows, layout),
        leaks_known=np.ones((len(layout.features), layout.outcomes, 2)),
        sites=np.ones(1),
    )


def one_of_each(table: pd.DataFrame, group: str) -> np.ndarray | None:
    """Draw the place of one row of each patient or customer.

    None where each row is its own. Rows of one person have much in common, so that a test that takes them for
    independent finds leaks where there are none. The draw is the same each time, and looks at no cell but the
    group's.
    """
    if not group:
        return None
    codes, persons = pd.factorize(table[group])
    if len(persons) == len(table):
        return None
    order = np.random.default_rng(len(table)).permutation(len(table))
    return np.sort(order[np.unique(codes[order], return_index=True)[1]])


def leaving(
    table: pd.DataFrame | ColumnArrays, layout: Layout, minimum: int | None, one_each: np.ndarray | None = None
) -> Summary:
    """Return the sums over `table` that may leave.

    All where `minimum` is None, else as `disclose` has it.

    Parameters
    ----------
    table, layout
        As for `summarise`.
    minimum : int or None
        Smallest count that leaves; None under disclosure "open".
    one_each : int array, optional
        From `one_of_each`: rows that leaks are looked for in.
    """
    rows = coded(table, layout)
    exact = summarise(rows, layout)
    people = None if one_each is None else summarise(rows.take(one_each), layout)
    if people is not None:
        exact = replace(exact, leaks=people.leaks)
    return exact if minimum is None else disclose(exact, layout, minimum, people)


def _moments(rows: ColumnArrays, layout: ColumnLayout) -> list[float]:
    if layout.kind != "number":
        return [0.0, 0.0, 0.0]
    z = (rows.scaled(layout) - layout.middle) / layout.half
    z = z[~np.isnan(z)]
    return [float(len(z)), float(z.sum()), float(np.square(z).sum())]


def _leak_sums(rows: ColumnArrays, layout: Layout) -> np.ndarray:
    """Return the sums for leak detection, [features, outcomes, 4].

    U and V of missingness, rows × strength and rows of separation. Of a class, U is the count of missing rows that
    have it less the expected one, and V its variance. Of a number U is the sum of the missing rows' ranks, from -1
    to 1, and V at least its variance (`chance_at_most`).
    """
    y = outcomes(rows, layout)
    is_number = layout.task == "regression"
    centred = _ranked(y) if is_number else y - y.mean(axis=0)
    squares = np.square(centred).sum(axis=0)
    # Of a column without a gap U and V are 0.
    u = np.zeros((len(layout.features), layout.outcomes))
    v = np.zeros(u.shape)
    strength = np.empty(u.shape)
    for number, column in enumerate(layout.features):
        gap = rows.codes[column.name] == len(column.cells) - 1
        has_value: np.ndarray | slice = slice(None)
        if gap.any():
            has_value = ~gap
            # Column by column: of a product of all, the last bit of one would reveal gaps in another.
            u[number] = gap.astype(float) @ centred
            share = gap.mean()
            v[number] = squares * (len(y) * share * (1 - share)) / max(len(y) - 1, 1)
            if is_number:  # as if drawn with replacement, the smaller of the two groups of rows
                v[number] /= max(share, 1 - share)
        strength[number] = [_strength(rows, column, has_value, of[has_value], layout.task) for of in y.T]
    weight = np.where(np.isnan(strength), 0.0, float(rows.rows))
    return np.stack([u, v, np.nan_to_num(strength) * weight, weight], axis=2)


def _ranked(y: np.ndarray) -> np.ndarray:
    """Return mid-ranks [rows, 1], even from -1 to 1."""
    _, place, equal = np.unique(y[:, 0], return_inverse=True, return_counts=True)
    # Two times the mean rank, less the number of rows and 1.
    return (2 * np.cumsum(equal) - equal - len(y))[place, None] / len(y)


def _strength(
    rows: ColumnArrays, column: ColumnLayout, has_value: np.ndarray | slice, y: np.ndarray, task: str
) -> float:
    """Return a column's best AUC or absolute correlation (NaN for few rows)."""
    positives = y.sum()
    negatives = len(y) - positives
    least = len(y) / 2 if task == "regression" else min(positives, negatives)
    if least < LEAST_PRESENT or np.ptp(y) == 0:
        return np.nan
    if column.kind == "number":
        values = rows.values[column.name][has_value]
        return _correlation(values, y) if task == "regression" else _auc(values, y)
    codes = rows.codes[column.name][has_value]
    last = len(column.cells) - 1
    if task == "regression":
        return max(_correlation(codes == code, y) for code in range(last))
    ones = np.bincount(codes, weights=y, minlength=last)
    zeros = np.bincount(codes, minlength=last) - ones
    # The largest AUC of one value, or of its absence: half the pairs, and half the difference of the shares.
    return float(0.5 + np.abs(ones / positives - zeros / negatives).max() / 2)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return 0.0 if (x == x[0]).all() else float(abs(np.corrcoef(x, y)[0, 1]))


def _auc(x: np.ndarray, y: np.ndarray) -> float:
    """Return the larger AUC of a number and its negative."""
    ranked = np.sort(x)
    own = np.sort(x[y == 1])  # searched for in order, which is faster
    # Ranks from 1 on, the mean of equal ones: (rows below + rows not above + 1) / 2
    ranks = (np.searchsorted(ranked, own, "left") + np.searchsorted(ranked, own, "right") + 1) / 2
    positives = len(own)
    auc = (ranks.sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    return float(max(auc, 1 - auc))


def disclose(exact: Summary, layout: Layout, minimum: int, people: Summary | None = None) -> Summary:
    """Select the sums that may leave under disclosure "institution".

    Parameters
    ----------
    exact : Summary
        Of one site.
    layout : Layout
    minimum : int
        Smallest count that leaves.
    people : Summary, optional
        Of one row of each person, where some have several: its leak sums stand in `exact`.

    Guarantee: all that leaves of one column follows from the numbers of rows in the groups of
    `grouped`, each of at least `minimum` rows. A cell leaves where it is a group of its own; of a cell in a larger
    group only the group is known. Where a value of a flag or category has all rows but fewer than `minimum`, the
    summary says so, without their number. Zero counts as small. Sums of values would not do: where a column is 0 for
    nearly all and 1 for three rows, they say so.

    Of missingness against the outcome, U and V leave where each cell of that table is large. For a regression, and
    where a person has several rows, only U over the root of V leaves in steps of 0.1, and V down to a power of 2. Of
    separation it leaves whether the column alone predicts the outcome almost perfectly, one bit.
    """
    alone_cells = []
    left = []
    moments = []
    lower = []
    for _, column, place in layout.places():
        # All that leaves of a column follows from these groups of its cells.
        cells = exact.cells[place]
        groups = grouped(cells, column.kind, minimum, complete=column is layout.target)
        alone = _alone(groups, len(cells))
        alone_cells.append(alone)
        left.append(exact.rows[0] - (cells * alone).sum())
        moments.append(_moments_of_groups(column, groups, cells, minimum))
        together = [] if column is layout.target else groups
        lower.append(_dominant(cells, together, column, minimum))
    released_cells = np.concatenate(alone_cells)
    released_moments = (np.array(moments)[:, 0] > 0).astype(float)
    released_leaks = np.stack(
        [
            _find_releasable_leaks(people or exact, layout, column, released_cells, released_moments[-1], minimum)
            for column in layout.features
        ]
    ).reshape(exact.leaks_known.shape)
    # The rows of all sites alike: where they are 0 for want of values, few values are known.
    u, v, strength, weight = np.moveaxis(exact.leaks, -1, 0)
    strong = exact.rows[0] * np.where(strength > SEPARATION * weight, 1.0, 0.5)
    if layout.task == "regression" or people is not None:
        there = np.where(v > 0, v, 1.0)
        steps = np.where(v > 0, 2.0 ** np.floor(np.log2(there)), 0.0)
        u = np.round(u / np.sqrt(there), 1) * np.sqrt(steps)
        v = steps
    coarse = np.stack([u, v, strong, np.full_like(v, exact.rows[0])], axis=-1)
    return replace(
        exact,
        moments=np.array(moments),
        moments_known=released_moments,
        cells=exact.cells * released_cells,
        cells_known=released_cells,
        lower=np.concatenate(lower),
        left=np.array(left),
        # Not a product: -0.0 would reveal the sign of a suppressed sum.
        leaks=np.where(np.repeat(released_leaks, 2, axis=-1) > 0, coarse, 0.0),
        leaks_known=released_leaks,
    )


def grouped(counts: np.ndarray, kind: str, minimum: int, *, complete: bool = False) -> list[list[int]]:
    """Group the cells of one column by at least `minimum` rows.

    Parameters
    ----------
    counts : array [cells]
        Rows in each cell, the last "missing".
    kind : {"number", "flag", "category"}
    minimum : int
    complete : bool
        Whether a missing value is impossible, as in a target; its cell is then in no group.

    Notes
    -----
    Cells are taken in an order that the schema gives, and a group is closed once it has enough rows. The rest at the
    end goes with the last one. Few missing rows come first, where they cannot be distinguished from a small next cell;
    then bins from low to high, values from last to first, because the first is often the common one. Which cells go
    together must not follow from which are small. Suppose that the smallest of the large ones went with the small ones.
    Of 20 released and 18 left in two cells, anybody could see that these are 9 and 9.

    Examples
    --------
    >>> grouped(np.array([120, 70, 7, 6]), "category", 10)
    [[3, 2], [1], [0]]
    >>> grouped(np.array([120, 70, 3, 2]), "category", 10)
    [[3, 2, 1], [0]]
    >>> grouped(np.array([1, 2, 40, 9, 4, 2, 0, 1]), "number", 10)
    [[7, 0, 1, 2], [3, 4, 5, 6]]
    """
    missing = len(counts) - 1
    values = list(range(missing))
    if kind != "number":
        values.reverse()
    whole = values if complete else [missing, *values]
    apart = not complete and counts[missing] >= minimum
    groups: list[list[int]] = []
    open_group: list[int] = []
    cells = values if apart else whole
    for cell in cells:
        open_group.append(cell)
        if counts[open_group].sum() >= minimum:
            groups.append(open_group)
            open_group = []
    if not groups:
        return [whole]
    groups[-1] += open_group
    return [*groups, [missing]] if apart else groups


def _dominant(counts: np.ndarray, groups: list[list[int]], column: ColumnLayout, minimum: int) -> np.ndarray:
    """Return the fewest rows each cell can have, [cells].

    Not 0 only where a cell has all rows but a few: without it a rare flag would look like an even one. In few rows
    its absence would say too much.
    """
    bounds = np.zeros(len(counts))
    if column.kind == "number":
        return bounds
    for group in groups:
        most = max(group, key=lambda cell: counts[cell])
        total = counts[group].sum()
        if len(group) > 1 and total >= 4 * minimum and counts[most] > total - minimum:
            bounds[most] = total - minimum + 1
    return bounds


def _alone(groups: list[list[int]], cells: int) -> np.ndarray:
    """Return 1 for cells that are their own group."""
    return np.isin(np.arange(cells), [group[0] for group in groups if len(group) == 1]).astype(float)


def _moments_of_groups(column: ColumnLayout, groups: list[list[int]], counts: np.ndarray, minimum: int) -> list[float]:
    """Return count, sum of z and sum of z² from groups.

    Zeros if there is one group. Rows are taken to be in the middle of a bin: evenly over the bins of a group, but
    in the lowest and the highest group falling outwards as 1 / k² (tails are long, and the range is wide).
    """
    missing = len(counts) - 1
    bins = []
    totals = []
    for group in groups:
        own = [cell for cell in group if cell != missing]
        if own:
            bins.append(own)
            totals.append(float(counts[group].sum()))
    if column.kind != "number" or len(bins) < 2:
        return [0.0, 0.0, 0.0]
    z = (np.arange(missing) + 0.5) * 2 / missing - 1
    moments = np.zeros(3)
    for own, total in zip(bins, totals):
        shares = _rows_by_bin(total, len(own), minimum, is_lowest=own is bins[0], is_highest=own is bins[-1])
        moments += [total, (shares * z[own]).sum(), (shares * z[own] ** 2).sum()]
    return [float(value) for value in moments]


def _rows_by_bin(total: float, bins: int, minimum: int, *, is_lowest: bool, is_highest: bool) -> np.ndarray:
    """Return the rows of each bin of a group, of which only their total is known.

    The last bin closed the group, so the others have fewer than `minimum` rows together. Of the highest group it is not
    known which bin that is. Whole numbers stand several bins apart, and would otherwise be taken for smaller ones.

    Examples
    --------
    >>> _rows_by_bin(120.0, 3, 10, is_lowest=False, is_highest=False)
    array([  4.5,   4.5, 111. ])
    >>> _rows_by_bin(12.0, 3, 10, is_lowest=False, is_highest=False)
    array([4., 4., 4.])
    """
    shares = np.ones(bins)
    if is_lowest or is_highest:
        shares = 1 / np.arange(1.0, bins + 1) ** 2
    if is_lowest:
        shares = shares[::-1]
    rows: np.ndarray = total * shares / shares.sum()
    before = rows[:-1].sum()
    if is_highest or before < minimum:
        return rows
    most = minimum - 1
    return np.append(rows[:-1] * most / before, total - most)


def _find_releasable_leaks(
    exact: Summary,
    layout: Layout,
    column: ColumnLayout,
    released_cells: np.ndarray,
    target_released: float,
    minimum: int,
) -> np.ndarray:
    """Return whether a column's test and strength may leave, [outcomes, 2].

    U and V give the table of missing against outcome away, so each of its cells must be large, and the count of missing
    rows must be released anyway. Of several outcomes all must be, because the last follows from the others. Whether the
    strength leaves depends on the classes alone. `exact` is of the rows that leaks were looked for in.
    """
    slices = layout.slices()
    rows = exact.rows[0]
    missing = exact.cells[slices[column.name]][-1]
    number = layout.features.index(column)
    missing_disclosed = released_cells[slices[column.name]][-1] > 0
    if layout.task == "regression":
        test = missing_disclosed and min(missing, rows - missing) >= minimum and target_released > 0
        return np.tile([test, True], (layout.outcomes, 1)).astype(float)
    classes = exact.cells[slices[layout.target.name]][:-1]
    wanted = classes if layout.task == "multi-class" else classes[1:2]
    classes_disclosed = released_cells[slices[layout.target.name]][:-1].all()
    both = exact.leaks[number, :, 0] + missing * wanted / rows
    table = np.stack([both, missing - both, wanted - both, rows - missing - wanted + both])
    # Counts came out of a division: half a row is more than rounding and less than one.
    test = missing_disclosed and classes_disclosed and table.min() > minimum - 0.5
    return np.tile([test, classes_disclosed], (layout.outcomes, 1)).astype(float)
