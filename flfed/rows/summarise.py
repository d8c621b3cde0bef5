"""A site's rows to sums in the schema's layout, and what of them may leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from flfed.rows.schema import Column, Schema
from flfed.summary import BINS, ColumnLayout, Layout, Summary

GRID = 256
"""Under disclosure "institution", means and deviations leave in steps of 1/256 of half the range."""


def layout_of(schema: Schema, features: Sequence[str], *, missing_indicator: bool = False) -> Layout:
    """Return the summary's layout: it follows from schema and study alone."""
    return Layout(
        features=tuple(_column_layout(name, schema.columns[name]) for name in features),
        target=_column_layout(schema.target, schema.columns[schema.target]),
        task=schema.task,
        missing_indicator=missing_indicator,
    )


def _column_layout(name: str, column: Column) -> ColumnLayout:
    if column.range is not None:
        low, high = column.scale(np.array(column.range))
        edges = np.linspace(low, high, BINS + 1)
        labels = tuple(f"{edges[i]:.6g} to {edges[i + 1]:.6g}" for i in range(BINS))
        return ColumnLayout(
            name=name,
            kind="number",
            cells=(*labels, "missing"),
            edges=tuple(edges.tolist()),
            transform=column.transform,
            unit=column.unit,
        )
    if column.kind == "flag":
        return ColumnLayout(name=name, kind="flag", cells=("0", "1", "missing"))
    return ColumnLayout(name=name, kind="category", cells=(*column.values, "missing"))


def codes(cells: pd.Series, layout: ColumnLayout) -> np.ndarray:
    """Return the index of each row's cell in `layout.cells`; int [rows]."""
    missing = len(layout.cells) - 1
    if layout.kind == "number":
        values = scaled(cells, layout)
        found = np.clip(np.searchsorted(layout.edges, values, side="right") - 1, 0, missing - 1)
        return np.where(np.isnan(values), missing, found)
    if layout.kind == "flag":
        return np.asarray(np.where(cells.isna(), missing, cells.fillna(0)).astype(int))
    index = pd.Index(layout.cells[:-1]).get_indexer(pd.Index(cells))
    return np.asarray(np.where(index < 0, missing, index))


def scaled(cells: pd.Series, layout: ColumnLayout) -> np.ndarray:
    """Return a number column after its transform; float64 [rows], NaN where missing."""
    values = cells.to_numpy(dtype=float)
    return np.log1p(values) if layout.transform == "log1p" else values


def outcomes(table: pd.DataFrame, layout: Layout) -> np.ndarray:
    """Return the target as float64 [rows, outcomes]: class indicators, or the number itself."""
    if layout.task == "regression":
        return scaled(table[layout.target.name], layout.target)[:, None]
    classes = codes(table[layout.target.name], layout.target)
    wanted = np.arange(layout.outcomes) if layout.task == "multi-class" else np.array([1])
    return np.asarray((classes[:, None] == wanted).astype(float))


def summarise(table: pd.DataFrame, layout: Layout) -> Summary:
    """Return the exact sums over `table`; nothing is suppressed here.

    Parameters
    ----------
    table : DataFrame
        Mapped rows of one site.
    layout : Layout
    """
    columns = layout.columns
    y = outcomes(table, layout)
    cells = [np.bincount(codes(table[c.name], c), minlength=len(c.cells)) for c in columns]
    leaks = [_leak_sums(table[c.name], c, y, layout.task) for c in layout.features]
    shape = (len(layout.features), layout.outcomes)
    return Summary(
        rows=np.array([float(len(table))]),
        moments=np.array([_moments(table[c.name], c) for c in columns]),
        moments_known=np.ones(len(columns)),
        cells=np.concatenate(cells).astype(float),
        cells_known=np.ones(sum(len(c.cells) for c in columns)),
        left=np.zeros(len(columns)),
        leaks=np.array(leaks).reshape(*shape, 4),
        leaks_known=np.ones((*shape, 2)),
        sites=np.ones(1),
    )


def _moments(cells: pd.Series, layout: ColumnLayout) -> list[float]:
    if layout.kind != "number":
        return [0.0, 0.0, 0.0]
    z = (scaled(cells, layout) - layout.middle) / layout.half
    z = z[~np.isnan(z)]
    return [float(len(z)), float(z.sum()), float(np.square(z).sum())]


def _leak_sums(cells: pd.Series, layout: ColumnLayout, y: np.ndarray, task: str) -> np.ndarray:
    """Return [outcomes, 4]: U and V of missingness, rows × strength and rows of separation."""
    missing = cells.isna().to_numpy(dtype=float)[:, None]
    centred, known = y - y.mean(axis=0), missing[:, 0] == 0
    rows = len(y)
    u = (centred * (missing - missing.mean())).sum(axis=0)
    spread = float(np.square(missing - missing.mean()).sum())
    v = np.square(centred).sum(axis=0) * spread / max(rows - 1, 1)
    strength = np.array([_strength(cells[known], layout, y[known, k], task) for k in range(y.shape[1])])
    weight = np.where(np.isnan(strength), 0.0, float(rows))
    return np.stack([u, v, np.nan_to_num(strength) * weight, weight], axis=1)


def _strength(cells: pd.Series, layout: ColumnLayout, y: np.ndarray, task: str) -> float:
    """Return how well one column alone tells the outcome: best AUC, or absolute correlation."""
    if len(y) < 2 or np.ptp(y) == 0:
        return float("nan")
    if layout.kind == "category":
        chosen = codes(cells, layout)
        inputs = [(chosen == code).astype(float) for code in range(len(layout.cells) - 1)]
    else:
        inputs = [cells.to_numpy(dtype=float)]
    score = _correlation if task == "regression" else _auc
    return max(score(x, y) for x in inputs)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return 0.0 if np.ptp(x) == 0 else float(abs(np.corrcoef(x, y)[0, 1]))


def _auc(x: np.ndarray, y: np.ndarray) -> float:
    ranks = pd.Series(x).rank().to_numpy()
    positives = y.sum()
    auc = (ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    return float(max(auc, 1 - auc))


def disclose(exact: Summary, layout: Layout, minimum: int) -> Summary:
    """Return what of a site's sums may leave under disclosure "institution".

    Parameters
    ----------
    exact : Summary
        Of one site.
    layout : Layout
    minimum : int
        Smallest count that leaves.

    Guarantee: no cell under `minimum` is in the result, nor is any cell or union of cells under
    `minimum` the difference of `rows` and cells that are: in each column the cells left out are
    none, or at least two that together hold at least `minimum` rows. Zero counts as small.
    """
    cells_known = np.concatenate(
        [given_cells(exact.cells[place], minimum) for place in layout.slices().values()]
    ).astype(float)
    cells = exact.cells * cells_known
    left = np.array([(exact.cells[p] * (1 - cells_known[p])).sum() for p in layout.slices().values()])
    numbers = np.array([column.kind == "number" for column in layout.columns])
    moments_known = (numbers & (exact.moments[:, 0] >= minimum)).astype(float)
    leaks_known = np.stack(
        [_leaks_known(exact, layout, column, cells_known, minimum) for column in layout.features]
    ).reshape(exact.leaks_known.shape)
    return replace(
        exact,
        moments=_coarse(exact) * moments_known[:, None],
        moments_known=moments_known,
        cells=cells,
        cells_known=cells_known,
        left=left,
        leaks=_coarse_leaks(exact) * np.repeat(leaks_known, 2, axis=-1),
        leaks_known=leaks_known,
    )


def given_cells(counts: np.ndarray, minimum: int) -> np.ndarray:
    """Return which of the cells of one column may leave, their total being known; bool [cells].

    Examples
    --------
    >>> given_cells(np.array([120, 70, 3, 2]), 10).tolist()  # 5 rows left: the 70 goes with them
    [True, False, False, False]
    >>> given_cells(np.array([120, 70, 7, 6]), 10).tolist()
    [True, True, False, False]
    """
    given = counts >= minimum
    for cell in np.argsort(counts, kind="stable"):
        hidden = counts[~given]
        if given.all() or (len(hidden) >= 2 and hidden.sum() >= minimum):
            break
        given[cell] = False
    return given


def _coarse(exact: Summary) -> np.ndarray:
    """Return moments as if of all rows, mean and deviation in steps of 1/GRID of half the range.

    The count is that of all rows: the true one would give a small number of missing rows away.
    """
    count = np.maximum(exact.moments[:, 0], 1.0)
    mean = exact.moments[:, 1] / count
    deviation = np.sqrt(np.maximum(exact.moments[:, 2] / count - mean**2, 0.0))
    mean = np.round(mean * GRID) / GRID
    # A deviation of zero would say that all rows are equal.
    deviation = np.maximum(np.round(deviation * GRID), 1.0) / GRID
    rows = exact.rows[0]
    return np.stack([np.full_like(mean, rows), rows * mean, rows * (deviation**2 + mean**2)], axis=1)


def _coarse_leaks(exact: Summary) -> np.ndarray:
    """Return leak sums with the strength in steps of .01."""
    leaks = exact.leaks.copy()
    rows = np.maximum(leaks[..., 3], 1.0)
    leaks[..., 2] = np.round(leaks[..., 2] / rows, 2) * leaks[..., 3]
    return leaks


def _leaks_known(
    exact: Summary, layout: Layout, column: ColumnLayout, cells_known: np.ndarray, minimum: int
) -> np.ndarray:
    """Return whether the test and the strength of a column may leave; [outcomes, 2].

    U and V give the table of missing against outcome away, so each of its cells must be large,
    and the count of missing rows must be given anyway.
    """
    slices = layout.slices()
    rows, missing = exact.rows[0], exact.cells[slices[column.name]][-1]
    number = layout.features.index(column)
    missing_given = cells_known[slices[column.name]][-1] > 0
    if layout.task == "regression":
        test = missing_given and min(missing, rows - missing) >= minimum
        return np.tile([test, rows - missing >= minimum], (layout.outcomes, 1)).astype(float)
    classes = exact.cells[slices[layout.target.name]][:-1]
    wanted = classes if layout.task == "multi-class" else classes[1:2]
    given = cells_known[slices[layout.target.name]][:-1].all()
    u = exact.leaks[number, :, 0]
    both = u + missing * wanted / rows
    table = np.stack([both, missing - both, wanted - both, rows - missing - wanted + both])
    test = missing_given & given & (table.min(axis=0) >= minimum - 1e-6)
    strength = given & (np.minimum(wanted - both, rows - missing - wanted + both) >= minimum - 1e-6)
    return np.stack([test, strength], axis=1).astype(float)
